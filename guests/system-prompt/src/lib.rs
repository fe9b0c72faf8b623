//! The transform guest that adds to the system prompt, or replaces it.
//!
//! Each of its settings is a Jinja template that may use `system` (the client's system prompt), `model` (the name in
//! the request) and `date` (the day of the request in UTC, such as `2026-01-31`). A template that renders to nothing
//! adds nothing.

use std::time::{Duration, UNIX_EPOCH};

use harness_guest::{
    ApiError, Content, Context, Decision, Description, ErrorKind, Message, Opened, Part, Problem,
    Request, Role, Transform, failure, message,
};
use minijinja::{Environment, context};
use serde::Deserialize;

/// `[guests.system-prompt] config`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    prepend: Option<String>,
    append: Option<String>,
    replace: Option<String>,
}

/// The settings, each by its key.
const KEYS: [&str; 3] = ["prepend", "append", "replace"];

/// The templates that are configured.
#[derive(Debug)]
pub struct Settings(Environment<'static>);

/// It watches no answer.
#[derive(Debug)]
pub enum SystemPrompt {}

impl Transform for SystemPrompt {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: r#"{"type":"object","additionalProperties":false,"properties":{"prepend":{"type":"string","description":"a Jinja template for what stands before the client's system prompt"},"append":{"type":"string","description":"a Jinja template for what stands behind it"},"replace":{"type":"string","description":"a Jinja template for what takes its place"}}}"#.into(),
            ..harness_guest::description(
                "system-prompt",
                env!("CARGO_PKG_VERSION"),
                "adds to the system prompt, or replaces it",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        let Config {
            prepend,
            append,
            replace,
        } = harness_guest::settings(config)?;
        let mut templates = Environment::new();
        let mut problems = Vec::new();
        for (key, text) in KEYS.into_iter().zip([prepend, append, replace]) {
            let Some(text) = text else { continue };
            if let Err(error) = templates.add_template_owned(key, text) {
                let message = error.to_string();
                let key = key.to_owned();
                problems.push(Problem { key, message });
            }
        }
        match problems.is_empty() {
            true => Ok(Settings(templates)),
            false => Err(problems),
        }
    }

    fn open(
        settings: &Settings,
        context: Context,
        mut request: Request,
    ) -> Result<Opened<Self>, ApiError> {
        let words = Words::new(&context, &request.messages);
        let [prepend, append, replace] = KEYS.map(|key| settings.render(key, &words));
        let (prepend, append, replace) = (prepend?, append?, replace?);
        let messages = &mut request.messages;
        let is_untouched = prepend.is_none() && append.is_none() && replace.is_none();
        if let Some(text) = replace {
            messages.retain(|message| !is_system(message));
            messages.splice(0..0, system(text));
        }
        if let Some(text) = append {
            let leading = messages.iter().take_while(|message| is_system(message));
            let at = leading.count();
            messages.splice(at..at, system(text));
        }
        if let Some(text) = prepend {
            messages.splice(0..0, system(text));
        }
        Ok(Opened {
            decision: match is_untouched {
                true => Decision::Pass,
                false => Decision::Rewrite(request),
            },
            filter: None,
        })
    }
}

/// What a template may use.
struct Words {
    system: String,
    model: String,
    date: String,
}

impl Words {
    fn new(context: &Context, messages: &[Message]) -> Self {
        let texts = messages.iter().filter(|message| is_system(message));
        let texts: Vec<String> = texts.map(text).collect();
        let created = UNIX_EPOCH.checked_add(Duration::from_secs(context.created));
        let time = humantime::format_rfc3339_seconds(created.unwrap_or(UNIX_EPOCH));
        Words {
            system: texts.join("\n\n"),
            model: context.model.clone(),
            date: time.to_string().chars().take("2026-01-31".len()).collect(),
        }
    }
}

impl Settings {
    /// What a template renders to. None if it is not there.
    fn render(&self, key: &str, words: &Words) -> Result<Option<String>, ApiError> {
        let Ok(template) = self.0.get_template(key) else {
            return Ok(None);
        };
        let Words {
            system,
            model,
            date,
        } = words;
        let rendered = template.render(context! { system, model, date });
        rendered.map(Some).map_err(|error| {
            let message = format!("the template `{key}` of `system-prompt` failed: {error}");
            failure(ErrorKind::BackendFailed, message)
        })
    }
}

fn is_system(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

/// A system message, unless there is nothing to say.
fn system(text: String) -> Option<Message> {
    let is_blank = text.trim().is_empty();
    (!is_blank).then_some(message(Role::System, Some(Content::Text(text))))
}

fn text(message: &Message) -> String {
    match &message.content {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => {
            let texts = parts.iter().filter_map(|part| match part {
                Part::Text(part) => Some(part.text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

harness_guest::export_transform!(SystemPrompt);

#[cfg(test)]
mod tests {
    use harness_guest::testing;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The roles and texts of what becomes of these messages.
    fn rewritten(config: &Value, messages: &Value) -> Vec<(Role, String)> {
        let settings = SystemPrompt::configure(&config.to_string()).unwrap();
        let request = testing::request(&json!({"model": "m", "messages": messages}));
        let before = request.messages.clone();
        let opened = SystemPrompt::open(&settings, testing::context("m"), request).unwrap();
        let messages = match opened.decision {
            Decision::Pass => before,
            Decision::Rewrite(request) => request.messages,
            Decision::Answer(_) => panic!("it answers nothing"),
        };
        let words = messages.iter().map(|message| (message.role, text(message)));
        words.collect()
    }

    fn conversation() -> Value {
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "In German."}]},
            {"role": "user", "content": "hi"},
        ])
    }

    #[test]
    fn text_is_put_before_and_behind_the_clients() {
        let config = json!({"prepend": "You are {{ model }}.", "append": "Today is {{ date }}."});
        let found = rewritten(&config, &conversation());
        let texts: Vec<&str> = found.iter().map(|(_, text)| &**text).collect();
        let expected = [
            "You are m.",
            "Be brief.",
            "In German.",
            "Today is 2023-11-14.",
            "hi",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn text_takes_the_place_of_the_clients() {
        let config = json!({"replace": "{{ system | upper }}"});
        let found = rewritten(&config, &conversation());
        assert_eq!(
            found,
            [
                (Role::System, "BE BRIEF.\n\nIN GERMAN.".to_owned()),
                (Role::User, "hi".to_owned())
            ]
        );
        let silent = rewritten(&json!({"replace": "  "}), &conversation());
        assert_eq!(silent, [(Role::User, "hi".to_owned())]);
    }

    #[test]
    fn a_conversation_without_a_system_prompt_gets_one() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let found = rewritten(&json!({"append": "Be brief."}), &messages);
        assert_eq!(found[0], (Role::System, "Be brief.".to_owned()));
        assert_eq!(rewritten(&json!({}), &messages).len(), 1);
    }

    #[test]
    fn every_mistake_of_a_template_is_told_by_its_key() {
        let config = json!({"prepend": "{{ a", "append": "x\n{% if %}"});
        let problems = SystemPrompt::configure(&config.to_string()).unwrap_err();
        let keys: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
        assert_eq!(keys, ["prepend", "append"]);
        assert!(problems[1].message.contains("append:2"), "{problems:?}");
        let unknown = SystemPrompt::configure(r#"{"prefix":"x"}"#).unwrap_err();
        assert!(unknown[0].message.contains("prefix"), "{unknown:?}");
    }

    #[test]
    fn a_template_that_fails_fails_the_request() {
        let settings = SystemPrompt::configure(r#"{"append":"{{ system.x.y }}"}"#).unwrap();
        let request = testing::request(&json!({"messages": conversation()}));
        let error = SystemPrompt::open(&settings, testing::context("m"), request).unwrap_err();
        assert!(error.message.contains("`append`"), "{error:?}");
    }

    proptest! {
        #[test]
        fn what_is_not_the_system_prompt_stays(
            texts in prop::collection::vec("[a-z{}%]{0,8}", 1..6),
            added in "[a-z ]{0,8}",
        ) {
            let messages: Vec<Value> = texts.iter().map(|text| json!({"role": "user", "content": text})).collect();
            for key in KEYS {
                let found = rewritten(&json!({ key: added }), &messages.clone().into());
                let others: Vec<&String> = found.iter().filter(|(role, _)| *role == Role::User).map(|(_, text)| text).collect();
                prop_assert_eq!(others, texts.iter().collect::<Vec<_>>());
            }
        }
    }
}
