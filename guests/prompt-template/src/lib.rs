//! The adapter guest for any program that reads a prompt on its standard input and prints an answer.
//!
//! ```text
//! request ──► [`conversation`]: what templates see ──► [`template`]: the prompt ──► program
//! client  ◄── [`output`]: text, JSON or lines of JSON ◄──────────────────────────── program
//! ```

pub mod conversation;
pub mod output;
pub mod template;

use std::collections::BTreeMap;

use harness_guest::{
    Adapter, ApiError, Context, Delta, Description, Effect, ErrorKind, FinishReason, Problem,
    Request, failure,
};
use serde::Deserialize;
use serde_json::Value;

use output::{Form, Output};
use template::Template;

/// `[guests.prompt-template] config`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    template: String,
    #[serde(default)]
    output: Form,
    /// Where the answer's text stands in JSON, as a JSON Pointer.
    field: Option<String>,
    /// Further variables of the template, such as `bos_token`.
    #[serde(default)]
    variables: BTreeMap<String, Value>,
}

/// How prompts are worded, and how answers are read.
#[derive(Debug)]
pub struct Settings {
    template: Template,
    form: Form,
    field: Option<String>,
}

/// One request.
#[derive(Debug)]
pub struct PromptTemplate {
    prompt: String,
    output: Output,
}

impl Adapter for PromptTemplate {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: include_str!("config.schema.json").into(),
            honours: vec!["response_format".into()],
            ..harness_guest::description(
                "prompt-template",
                env!("CARGO_PKG_VERSION"),
                "words prompts by a Jinja template, for any program that reads them",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        let config: Config = harness_guest::settings(config)?;
        let problem = |key: &str, message: String| Problem {
            key: key.into(),
            message,
        };
        let template = Template::new(&config.template, config.variables)
            .map_err(|error| vec![problem("template", error)])?;
        match &config.field {
            Some(field) if !field.starts_with('/') => {
                let message = "write a JSON Pointer, such as `/result`";
                return Err(vec![problem("field", message.into())]);
            }
            _ => {}
        }
        Ok(Settings {
            template,
            form: config.output,
            field: config.field,
        })
    }

    fn open(settings: &Settings, context: Context, request: Request) -> Result<Self, ApiError> {
        Ok(PromptTemplate {
            prompt: settings.template.render(&context, request)?,
            output: Output::new(settings.form, settings.field.clone()),
        })
    }

    fn start(&mut self) -> Vec<Effect> {
        vec![
            Effect::Write(std::mem::take(&mut self.prompt)),
            Effect::CloseInput,
        ]
    }

    fn output(&mut self, lines: Vec<String>) -> Vec<Effect> {
        emitted(
            lines
                .iter()
                .flat_map(|line| self.output.take(line))
                .collect(),
        )
    }

    fn exit(&mut self, status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        let failed = |message: String| {
            let kind = ErrorKind::BackendFailed;
            vec![Effect::Fail(failure(kind, message))]
        };
        match status {
            Some(0) => {}
            Some(status) => {
                return failed(format!(
                    "the program ended with status {status}: the log of this service has what it said last"
                ));
            }
            None => return failed("a signal ended the program".into()),
        }
        match self.output.finish() {
            Ok(texts) => {
                let mut effects = emitted(texts);
                let outcome = harness_guest::outcome(FinishReason::Stop);
                effects.push(Effect::Finish(outcome));
                effects
            }
            Err(message) => failed(message),
        }
    }
}

fn emitted(texts: Vec<String>) -> Vec<Effect> {
    let texts = texts.into_iter().filter(|text| !text.is_empty());
    texts
        .map(|text| Effect::Emit(Delta::Content(text)))
        .collect()
}

harness_guest::export_adapter!(PromptTemplate);
