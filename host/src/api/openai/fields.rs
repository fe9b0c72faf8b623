//! The fields of a chat completion request: of what shape each is, and what becomes of it.
//!
//! This table is the one place where that is said: requests are checked and sorted by it, and a
//! test compares the table of docs/reference/fields.md with it.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounded_json::{Budget, Fields};
use super::request::PARTS_MAX;
use super::request::{for_display, read_part, wrong_type};
use super::shapes;
use crate::failure::{Failure, Kind};

/// A field of a request.
pub(super) struct Field {
    pub(super) name: &'static str,
    shape: Shape,
    pub(super) class: Class,
    /// The note in the table of docs/reference/fields.md.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares the reference with it")
    )]
    note: &'static str,
}

/// What a field means for the answer. This decides what happens to a field that the adapter does not honour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The host itself honours it, whatever the adapter does.
    Host,
    /// It only tunes the answer: ignored, and named in `x-ignored-params`.
    Tunes,
    /// Without it, the answer would mean something else: refused, unless its value asks for nothing.
    Means,
}

/// What becomes of a field of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Honoured,
    Ignored,
    Refused,
}

/// Which fields the adapter of a request honours. None if there is no adapter: the request fails for that reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Honours(pub(super) Option<Arc<[String]>>);

impl Honours {
    fn include(&self, name: &str) -> bool {
        match &self.0 {
            Some(named) => named.iter().any(|known| known == name),
            None => true,
        }
    }
}

/// The type of a value. Null always means that the field is absent.
#[derive(Clone, Copy)]
enum Shape {
    Any,
    Flag,
    Text,
    /// A whole number in this range.
    Whole(i64, i64),
    /// A number in this range.
    Number(f64, f64),
    List,
    Object,
    TextOrList,
    TextOrObject,
}

use Class::{Host, Means, Tunes};

const fn field(name: &'static str, shape: Shape, class: Class, note: &'static str) -> Field {
    Field {
        name,
        shape,
        class,
        note,
    }
}

const MANY: i64 = i64::MAX;

/// All fields of OpenAI's chat completions.
pub(super) const FIELDS: [Field; 36] = [
    field(
        "messages",
        Shape::List,
        Host,
        "roles `system`, `developer`, `user`, `assistant`, `tool`; parts `text` and `refusal`, and also `image_url` and `file` in messages of the user or of a function; `name` is not passed on",
    ),
    field("model", Shape::Text, Host, ""),
    field("stream", Shape::Flag, Host, ""),
    field(
        "stream_options",
        Shape::Object,
        Host,
        "`include_usage`; other keys are ignored",
    ),
    field(
        "n",
        Shape::Whole(1, 1024),
        Host,
        "up to `max_choices`; each answer has a process of its own; `usage` is their sum, so the prompt counts `n` times; if one fails, the request fails",
    ),
    field(
        "tools",
        Shape::List,
        Means,
        "functions only; names and schemas are checked before anything runs; with `strict`, the arguments that the model sends are validated, too",
    ),
    field(
        "tool_choice",
        Shape::TextOrObject,
        Means,
        "`none`, `auto`, `required`, a function, `allowed_tools`: the model is told, and its answer is checked; if it does not comply, it is asked once more, and then the request fails with 502 `tool_choice_not_honoured`",
    ),
    field(
        "parallel_tool_calls",
        Shape::Flag,
        Tunes,
        "`false`: only the first call of an answer is passed on",
    ),
    field(
        "response_format",
        Shape::Object,
        Means,
        "`text`, `json_object`, `json_schema`; with `strict` the answer is validated before it is called done",
    ),
    field(
        "reasoning_effort",
        Shape::Text,
        Tunes,
        "`none` (no thinking, as far as the model allows), `minimal` and `low` (both the CLI's `low`), `medium`, `high`, `xhigh`, `max`",
    ),
    field(
        "stop",
        Shape::TextOrList,
        Host,
        "up to 16 strings of at most 256 bytes each; they are looked for in the answer's text, not in JSON answers or in arguments; if one ends the answer, `completion_tokens` is an estimate",
    ),
    field(
        "max_completion_tokens",
        Shape::Whole(1, MANY),
        Tunes,
        "exact: the API counts, thinking included; below 2048 the model does not think; lowered to the model's own maximum",
    ),
    field(
        "max_tokens",
        Shape::Whole(1, MANY),
        Tunes,
        "the same, if `max_completion_tokens` is not there",
    ),
    field("temperature", Shape::Number(0.0, 2.0), Tunes, ""),
    field("top_p", Shape::Number(0.0, 1.0), Tunes, ""),
    field("seed", Shape::Whole(i64::MIN, MANY), Tunes, ""),
    field("frequency_penalty", Shape::Number(-2.0, 2.0), Tunes, ""),
    field("presence_penalty", Shape::Number(-2.0, 2.0), Tunes, ""),
    field("verbosity", Shape::Text, Tunes, ""),
    field("prediction", Shape::Object, Tunes, ""),
    field("service_tier", Shape::Text, Tunes, ""),
    field("store", Shape::Flag, Tunes, ""),
    field("metadata", Shape::Object, Tunes, ""),
    field("user", Shape::Text, Tunes, ""),
    field("safety_identifier", Shape::Text, Tunes, ""),
    field(
        "prompt_cache_key",
        Shape::Text,
        Tunes,
        "the CLI sets the API's cache marks itself",
    ),
    field("prompt_cache_retention", Shape::Text, Tunes, ""),
    field("prompt_cache_options", Shape::Object, Tunes, ""),
    field("logit_bias", Shape::Object, Means, "unless empty"),
    field("logprobs", Shape::Flag, Means, "unless `false`"),
    field("top_logprobs", Shape::Whole(0, 20), Means, "unless 0"),
    field("modalities", Shape::List, Means, "unless only `text`"),
    field("audio", Shape::Object, Means, ""),
    field("web_search_options", Shape::Object, Means, ""),
    field("functions", Shape::List, Means, "unless empty: use `tools`"),
    field(
        "function_call",
        Shape::Any,
        Means,
        "unless `none` or `auto`: use `tool_choice`",
    ),
];

/// Fields whose items are read one by one, in other modules (`request` and `output`).
const READ_ELSEWHERE: [&str; 2] = ["messages", "tools"];

/// Reads all fields of the table, and checks their shapes. Refuses what is not supported.
///
/// # Errors
///
/// Names the first field at fault.
pub(super) fn read(
    fields: &Fields<'_>,
    parts: &Budget,
    honours: &Honours,
) -> Result<Map<String, Value>, Failure> {
    let mut read = Map::new();
    for field in &FIELDS {
        let name = field.name;
        match fields.get(name) {
            None => {}
            Some(text) if READ_ELSEWHERE.contains(&name) && text.get().starts_with('[') => {
                let is_empty = || text.get()[1..].trim_start().starts_with(']');
                if field.fate(honours) == Fate::Refused && !is_empty() {
                    return Err(field.refusal());
                }
            }
            Some(text) if READ_ELSEWHERE.contains(&name) => {
                return Err(wrong_type(name, "an array", text));
            }
            Some(text) => {
                let value = read_part(parts, text, name, PARTS_MAX)?;
                if name == "response_format" {
                    shapes::RESPONSE_FORMAT.check(&value, name)?;
                }
                field.check(&value, text, honours)?;
                read.insert(name.to_owned(), value);
            }
        }
    }
    Ok(read)
}

/// The names of the fields that are ignored, sorted. Fields that are neither in the table nor honoured by the
/// adapter are ignored, too.
pub(super) fn ignored(fields: &Fields<'_>, honours: &Honours) -> Vec<String> {
    let is_ignored = |name: &str| {
        let known = FIELDS.iter().find(|field| field.name == name);
        match known {
            Some(field) => field.fate(honours) == Fate::Ignored,
            None => !honours.include(name),
        }
    };
    let set = fields.iter().filter(|(_, text)| text.get() != "null");
    let mut ignored: Vec<String> = set
        .filter(|(name, _)| is_ignored(name))
        .map(|(name, _)| for_display(name))
        .filter(|name| !name.is_empty())
        .collect();
    ignored.sort();
    ignored
}

impl Field {
    fn fate(&self, honours: &Honours) -> Fate {
        match self.class {
            Host => Fate::Honoured,
            Tunes | Means if honours.include(self.name) => Fate::Honoured,
            Tunes => Fate::Ignored,
            Means => Fate::Refused,
        }
    }

    fn check(&self, value: &Value, text: &RawValue, honours: &Honours) -> Result<(), Failure> {
        let name = self.name;
        let (fits, wanted) = match self.shape {
            Shape::Any => (true, String::new()),
            Shape::Flag => (value.is_boolean(), "true or false".into()),
            Shape::Text => (value.is_string(), "a string".into()),
            Shape::List => (value.is_array(), "an array".into()),
            Shape::Object => (value.is_object(), "an object".into()),
            Shape::TextOrList => (
                is_text_list(value) || value.is_string(),
                "a string or an array of strings".into(),
            ),
            Shape::TextOrObject => (
                value.is_string() || value.is_object(),
                "a string or an object".into(),
            ),
            Shape::Whole(least, most) => (
                whole(value).is_some_and(|n| (least..=most).contains(&n)),
                match most {
                    MANY if least == i64::MIN => "a whole number".into(),
                    MANY => format!("a whole number from {least}"),
                    _ => format!("a whole number from {least} to {most}"),
                },
            ),
            Shape::Number(least, most) => (
                value.as_f64().is_some_and(|n| (least..=most).contains(&n)),
                format!("a number from {least} to {most}"),
            ),
        };
        if !fits {
            return Err(wrong_type(name, &wanted, text));
        }
        if self.fate(honours) == Fate::Refused && !self.asks_for_nothing(value) {
            return Err(self.refusal());
        }
        Ok(())
    }

    fn refusal(&self) -> Failure {
        let name = self.name;
        let instead = match name {
            "functions" => ": use `tools`",
            "function_call" => ": use `tool_choice`",
            _ => ", and the answer would mean something else without it",
        };
        let message = format!("`{name}` is not supported{instead}");
        Failure::new(Kind::UnsupportedParameter, message).with_param(name)
    }

    fn asks_for_nothing(&self, value: &Value) -> bool {
        match value {
            Value::Bool(flag) => !flag,
            // `{}` is how a web search is turned on.
            Value::Object(map) => match self.name {
                "logit_bias" => map.is_empty(),
                "response_format" => value["type"] == "text",
                _ => false,
            },
            Value::Array(list) if self.name == "modalities" => {
                list.iter().all(|item| item == "text")
            }
            Value::Array(list) => list.is_empty(),
            Value::String(text) => self.name != "stop" && (text == "none" || text == "auto"),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Null => true,
        }
    }
}

/// A whole number, also if it is written as `1.0`, as some languages do.
pub(super) fn whole(value: &Value) -> Option<i64> {
    let exact = value.as_i64();
    exact.or_else(|| {
        let number = value
            .as_f64()
            .filter(|n| n.fract() == 0.0 && n.abs() < 1e15)?;
        Some(number as i64)
    })
}

fn is_text_list(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|list| list.iter().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use guests::loader::Loader;
    use guests::settings::Settings;

    /// What the built-in adapter honours.
    fn built_in() -> Honours {
        let config = Config::parse("", None, &Overrides::default()).unwrap();
        let settings = Settings {
            dir: "/nowhere".into(),
            cache_dir: None,
            state_dir: None,
            ..config.guests
        };
        let loader = Loader::start(settings, crate::api::JUDGES, Arc::new(|_| ())).unwrap();
        Honours(Some(loader.set().serving["claude-code"].honours.clone()))
    }

    /// The table of the reference.
    fn table() -> String {
        let mut text = String::from("| field | what becomes of it | note |\n|---|---|---|\n");
        let honours = built_in();
        for field in &FIELDS {
            let class = match field.fate(&honours) {
                Fate::Honoured => "honoured",
                Fate::Ignored => "ignored",
                Fate::Refused => "refused",
            };
            text += &format!("| `{}` | {class} | {} |\n", field.name, field.note);
        }
        text + "| any other | ignored | `top_k`, `provider`, … |\n"
    }

    #[test]
    fn the_reference_has_this_table() {
        const BEGIN: &str =
            "<!-- fields: a test compares this table with host/src/api/openai/fields.rs -->\n";
        const END: &str = "<!-- /fields -->\n";
        crate::reference::compare("fields.md", BEGIN, END, &table());
    }

    #[test]
    fn the_table_follows_what_the_adapter_says_that_it_honours() {
        let text =
            r#"{"temperature":1,"tools":[1],"logprobs":true,"max_tokens":5,"top_k":1,"n":1}"#;
        let fields: Fields<'_> = serde_json::from_str(text).unwrap();
        let honours =
            |names: &[&str]| Honours(Some(names.iter().map(|name| (*name).to_owned()).collect()));
        let refused = |honours: &Honours| {
            let read = read(&fields, &Budget::new(PARTS_MAX), honours);
            read.err().and_then(|failure| failure.param)
        };
        let usual = built_in();
        assert_eq!(refused(&usual).as_deref(), Some("logprobs"));
        assert_eq!(ignored(&fields, &usual), ["temperature", "top_k"]);
        let sampling = honours(&["temperature", "top_k", "logprobs"]);
        assert_eq!(refused(&sampling).as_deref(), Some("tools"));
        assert_eq!(ignored(&fields, &sampling), ["max_tokens"]);
        assert_eq!(refused(&honours(&["tools"])).as_deref(), Some("logprobs"));
        let nothing =
            r#"{"tools":[ ],"tool_choice":"auto","response_format":{"type":"text"},"stop":[]}"#;
        let fields: Fields<'_> = serde_json::from_str(nothing).unwrap();
        assert!(read(&fields, &Budget::new(PARTS_MAX), &honours(&[])).is_ok());
    }

    #[test]
    fn shapes_are_checked_and_null_is_nothing() {
        let usual = built_in();
        let check = |name: &str, value: Value| {
            let text = Value::from(Map::from_iter([(name.to_owned(), value)])).to_string();
            let fields: Fields<'_> = serde_json::from_str(&text).unwrap();
            read(&fields, &Budget::new(PARTS_MAX), &usual).is_ok()
        };
        assert!(check("n", 2.into()) && check("n", 2.0.into()) && check("n", Value::Null));
        assert!(!check("n", 0.into()) && !check("n", 1.5.into()) && !check("n", "1".into()));
        assert!(check("temperature", 2.into()) && !check("temperature", 2.1.into()));
        assert!(check("stop", "x".into()) && !check("stop", vec![1].into()));
        assert!(check("functions", Value::Array(vec![])) && !check("functions", vec![1].into()));
        assert!(
            check("function_call", "auto".into())
                && !check("audio", serde_json::json!({"voice": "x"}))
        );
        assert!(!check("web_search_options", serde_json::json!({})));
        assert!(check("top_k", "whatever".into()));
    }
}
