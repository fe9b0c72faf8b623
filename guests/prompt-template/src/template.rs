//! Renders prompts, with what published chat templates use.
//!
//! The environment is that of Hugging Face's `apply_chat_template`: blocks take their line's white space with them,
//! loops may be left early, methods of Python's strings and dictionaries work, and `tojson` writes as Python does.

use std::collections::BTreeMap;
use std::io;

use chrono::DateTime;
use harness_guest::{ApiError, Context, ErrorKind, Request, failure};
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, context};
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::conversation;

/// The templates that come with this guest, by their names.
pub const BUILT_IN: [(&str, &str); 7] = [
    ("plain", include_str!("templates/plain.j2")),
    ("transcript", include_str!("templates/transcript.j2")),
    ("chatml", include_str!("templates/chatml.j2")),
    ("llama-3", include_str!("templates/llama-3.j2")),
    ("mistral", include_str!("templates/mistral.j2")),
    ("gemma", include_str!("templates/gemma.j2")),
    ("qwen", include_str!("templates/qwen.j2")),
];

/// What messages call the template.
const NAME: &str = "template";

/// Stands before what a template itself says by `raise_exception`.
const RAISED: &str = "raised: ";

/// A template that was read.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    variables: BTreeMap<String, Value>,
}

impl Template {
    /// Reads a template, or takes the built-in one of this name.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it, and at which line and column.
    pub fn new(text: &str, variables: BTreeMap<String, Value>) -> Result<Self, String> {
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == text.trim());
        let text = built_in.map_or(text, |(_, text)| text);
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| place(&error, text))?;
        Ok(Template {
            environment,
            variables,
        })
    }

    /// The prompt of a request.
    ///
    /// # Errors
    ///
    /// Refuses the request if the template does, or cannot be rendered with it.
    pub fn render(&self, about: &Context, request: Request) -> Result<String, ApiError> {
        let created = about.created;
        let mut messages = conversation::messages(&request.messages)?;
        conversation::ask_for_json(&mut messages, &request.output_format);
        let system = conversation::system(&messages);
        let tools = conversation::tools(&request.tools);
        drop(request);
        let strftime_now = move |format: &str| strftime(created, format);
        let values = context! {
            messages,
            system,
            tools,
            model => about.backend_model,
            add_generation_prompt => true,
            strftime_now => minijinja::Value::from_function(strftime_now),
            ..minijinja::Value::from_serialize(&self.variables)
        };
        let rendered = self
            .environment
            .get_template(NAME)
            .and_then(|template| template.render(values));
        rendered.map_err(|error| refused(&error))
    }
}

/// A template that could not be rendered.
fn refused(error: &Error) -> ApiError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let detail = error.detail().unwrap_or_default();
    match detail.strip_prefix(RAISED) {
        Some(message) => failure(
            ErrorKind::InvalidRequest,
            format!("the model's prompt format does not allow this conversation: {message}"),
        ),
        None => {
            let line = error.line().unwrap_or_default();
            let message = format!(
                "the prompt template failed in line {line}: {}",
                error.kind()
            );
            failure(ErrorKind::BackendFailed, message)
        }
    }
}

/// What is wrong with a template, with its line and column.
fn place(error: &Error, text: &str) -> String {
    let what = error
        .detail()
        .map_or(error.kind().to_string(), str::to_owned);
    let line = error.line().unwrap_or(1);
    let start = error.range().map_or(0, |range| range.start).min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {what}")
}

fn raise_exception(message: &str) -> Result<String, Error> {
    let kind = minijinja::ErrorKind::InvalidOperation;
    Err(Error::new(kind, format!("{RAISED}{message}")))
}

/// The time of the request, in UTC: a guest has no other clock.
fn strftime(created: u64, format: &str) -> Result<String, Error> {
    use std::fmt::Write as _;
    let wrong = |what: &str| Error::new(minijinja::ErrorKind::InvalidOperation, what.to_owned());
    let time = i64::try_from(created).ok();
    let time = time.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let time = time.ok_or_else(|| wrong("there is no such time"))?;
    let mut text = String::new();
    write!(text, "{}", time.format(format)).map_err(|_| wrong("`strftime_now`: wrong format"))?;
    Ok(text)
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False, indent=…)` writes it.
fn tojson(value: minijinja::Value, options: Kwargs) -> Result<minijinja::Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    for known in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<minijinja::Value> = options.get(known)?;
    }
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Spaced)),
        Some(indent) => {
            let spaces = vec![b' '; indent.min(16)];
            let pretty = PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut Serializer::with_formatter(&mut json, pretty))
        }
    };
    let wrong = |what: String| Error::new(minijinja::ErrorKind::BadSerialization, what);
    written.map_err(|error| wrong(error.to_string()))?;
    let json = String::from_utf8(json).map_err(|error| wrong(error.to_string()))?;
    Ok(minijinja::Value::from_safe_string(json))
}

/// Writes a space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        match first {
            true => CompactFormatter.begin_array_value(writer, first),
            false => writer.write_all(b", "),
        }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        match first {
            true => CompactFormatter.begin_object_key(writer, first),
            false => writer.write_all(b", "),
        }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
