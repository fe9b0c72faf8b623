//! Reads the body of a chat completion request.

use bytes::Bytes;
use guests::request::{Message, Sampling, Tool};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounded_json::{self, Budget, Fields, each_item};
use super::fields::{self, Honours};
use super::message::{self, take_string};
use super::{output, tools};
use crate::dispatch::Request;
use crate::failure::{Failure, Kind};

/// The most parts of a request without its messages. Each JSON value is a part, also within arrays and objects.
/// This is enough for a hundred functions with schemas of a thousand parts each.
pub(super) const PARTS_MAX: usize = 100_000;

/// The most parts of one message. The longest real ones have some hundred pictures.
const MESSAGE_PARTS_MAX: usize = 20_000;

/// The most stop words, and the longest, in bytes. OpenAI takes four.
const STOPS_MAX: usize = 16;
const STOP_LENGTH_MAX: usize = 256;

/// A request, with what only this API needs for the answer.
#[derive(Debug)]
pub(super) struct ChatRequest {
    pub(super) request: Request,
    /// Whether the last chunk of a stream has the usage.
    pub(super) include_usage: bool,
}

impl ChatRequest {
    /// Reads a body. One part of it after the other is read as a tree, with a bound on how many values the part may
    /// have, and then as the program's own type. So what is kept takes about as much memory as the body.
    ///
    /// `honours` says what the adapter of a model honours.
    ///
    /// # Errors
    ///
    /// Names the first field that is missing, of a wrong type or not supported.
    pub(super) fn parse(
        body: Bytes,
        honours: impl FnOnce(&str) -> Honours,
    ) -> Result<Self, Box<Unread>> {
        let unread = |failure, model| Box::new(Unread { failure, model });
        let text = String::from_utf8(body.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            unread(not_json(format_args!("byte {at} is not UTF-8")), None)
        })?;
        let fields = fields_of(&text).map_err(|failure| unread(failure, None))?;
        let named = model(&fields).map_err(|failure| unread(failure, None))?;
        let read = Self::read(&fields, text.len(), named.clone(), &honours(&named));
        read.map_err(|failure| unread(failure, Some(named)))
    }

    fn read(
        fields: &Fields<'_>,
        size: usize,
        model: String,
        honours: &Honours,
    ) -> Result<Self, Failure> {
        let parts = Budget::new(PARTS_MAX);
        let messages = messages(fields)?;
        let mut read = fields::read(fields, &parts, honours)?;
        let include_usage = match read.get("stream_options") {
            Some(Value::Object(options)) => {
                flag(options, "include_usage", "stream_options.include_usage")?
            }
            _ => false,
        };
        let choices = read.get("n").and_then(Value::as_f64).unwrap_or(1.0);
        let output::Read { output, tools } = output::read(&read, fields.get("tools"), &parts)?;
        let request = Request {
            model,
            choices: choices as u32,
            output,
            ignored: fields::ignored(fields, honours),
            size,
            body: body(fields, &mut read, messages, tools)?,
        };
        Ok(ChatRequest {
            request,
            include_usage,
        })
    }
}

/// Puts the fields that were read together. All others are passed on as they came.
fn body(
    fields: &Fields<'_>,
    read: &mut Map<String, Value>,
    messages: Vec<Message>,
    tools: Vec<Tool>,
) -> Result<guests::request::Request, Failure> {
    let number = |name: &str| read.get(name).and_then(Value::as_f64);
    let sampling = Sampling {
        temperature: number("temperature"),
        top_p: number("top_p"),
        seed: read.get("seed").and_then(fields::whole),
        frequency_penalty: number("frequency_penalty"),
        presence_penalty: number("presence_penalty"),
    };
    let limits = ["max_completion_tokens", "max_tokens"];
    let limit = limits.iter().find_map(|name| read.get(*name));
    Ok(guests::request::Request {
        messages,
        tools,
        tool_choice: tools::tool_choice(read.get("tool_choice"))?,
        parallel_tool_calls: read.get("parallel_tool_calls").and_then(Value::as_bool),
        stream: flag(read, "stream", "stream")?,
        max_tokens: limit
            .and_then(fields::whole)
            .and_then(|tokens| tokens.try_into().ok()),
        sampling,
        output_format: tools::output_format(read.shift_remove("response_format"))?,
        reasoning_effort: take_string(read, "reasoning_effort"),
        stop: stop(read.shift_remove("stop"))?,
        extra: extra(fields),
    })
}

/// The fields that have a place of their own in a request, or are the host's alone.
const PLACED: [&str; 18] = [
    "messages",
    "model",
    "stream",
    "stream_options",
    "n",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "max_completion_tokens",
    "max_tokens",
    "reasoning_effort",
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "stop",
];

/// All other fields, as they came.
fn extra(fields: &Fields<'_>) -> Option<String> {
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(name, _)| !PLACED.contains(name)) {
        text += if text.is_empty() { "{" } else { "," };
        text += &Value::from(name).to_string();
        text += ":";
        text += value.get();
    }
    (!text.is_empty()).then(|| text + "}")
}

/// Reads `stop`. Empty words do not count.
fn stop(value: Option<Value>) -> Result<Vec<String>, Failure> {
    let mut words: Vec<String> = match value {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.into_iter().filter_map(string).collect(),
        _ => Vec::new(),
    };
    words.retain(|word| !word.is_empty());
    if words.len() > STOPS_MAX || words.iter().any(|word| word.len() > STOP_LENGTH_MAX) {
        let message = format!(
            "`stop` may have at most {STOPS_MAX} strings of at most {STOP_LENGTH_MAX} bytes"
        );
        return Err(Failure::invalid("stop", message));
    }
    Ok(words)
}

fn string(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// The model that a body names. None if the body is not valid JSON or names no model.
pub(super) fn model_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    Some(named.model)
}

/// A request that cannot be served.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) failure: Failure,
    /// The model that it names.
    pub(super) model: Option<String>,
}

fn fields_of(text: &str) -> Result<Fields<'_>, Failure> {
    serde_json::from_str(text).map_err(|error: serde_json::Error| {
        let is_object = text.trim_start().starts_with('{');
        match error.is_data() && !is_object {
            true => Failure::new(Kind::InvalidRequest, "the body must be a JSON object"),
            false => not_json(error),
        }
    })
}

fn not_json(what: impl std::fmt::Display) -> Failure {
    Failure::new(
        Kind::InvalidRequest,
        format!("the body is not valid JSON: {what}"),
    )
}

fn model(fields: &Fields<'_>) -> Result<String, Failure> {
    let Some(text) = fields.get("model") else {
        let message = "`model` is missing: name one of GET /v1/models";
        return Err(Failure::invalid("model", message));
    };
    match serde_json::from_str::<String>(text.get()) {
        Ok(model) if !model.is_empty() => Ok(model),
        _ => Err(wrong_type("model", "the name of a model", text)),
    }
}

fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, Failure> {
    let Some(text) = fields.get("messages") else {
        return Err(Failure::invalid("messages", "`messages` is missing"));
    };
    let other = || wrong_type("messages", "an array", text);
    let mut messages = Vec::new();
    each_item(text, other, |i, text| {
        let at = format!("messages[{i}]");
        let parts = Budget::new(MESSAGE_PARTS_MAX);
        let message = read_part(&parts, text, &at, MESSAGE_PARTS_MAX)?;
        messages.push(message::read(&at, message)?);
        Ok(())
    })?;
    match messages.is_empty() {
        true => Err(Failure::invalid("messages", "`messages` is empty")),
        false => Ok(messages),
    }
}

/// Reads a part of a request that must be looked into.
///
/// # Errors
///
/// Names the part at fault.
pub(super) fn read_part(
    parts: &Budget,
    text: &RawValue,
    at: &str,
    most: usize,
) -> Result<Value, Failure> {
    parts.read(text).map_err(|error| match error {
        bounded_json::Error::TooMany => {
            let message = format!("`{at}` has too many parts: at most {most} values, those in arrays and objects included");
            Failure::invalid(at, message)
        }
        bounded_json::Error::Repeated(key) => {
            let key = for_display(&key);
            Failure::invalid(at, format!("`{at}` has the field `{key}` twice"))
        }
        bounded_json::Error::Invalid(error) => {
            Failure::invalid(at, format!("`{at}` is not valid JSON: {error}"))
        }
    })
}

fn flag(fields: &Map<String, Value>, key: &str, param: &str) -> Result<bool, Failure> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(wrong_value(param, "true or false", other)),
    }
}

/// A name from the request, cut and cleaned for a header or a message.
pub(super) fn for_display(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_graphic() && *c != ',')
        .take(64)
        .collect()
}

/// The failure for a value of the wrong type. `found` is the text of the value.
pub(super) fn wrong_type(param: &str, wanted: &str, found: &RawValue) -> Failure {
    let found = match found.get().as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => "a number",
    };
    wrong(param, wanted, found)
}

/// Like [`wrong_type`], for a value that was already read.
pub(super) fn wrong_value(param: &str, wanted: &str, found: &Value) -> Failure {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    wrong(param, wanted, found)
}

fn wrong(param: &str, wanted: &str, found: &str) -> Failure {
    let message = if wanted.contains("number") && found == "a number" {
        format!("`{param}` must be {wanted}")
    } else {
        format!("`{param}` must be {wanted}, not {found}")
    };
    Failure::invalid(param, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: Bytes) -> Result<ChatRequest, Box<Unread>> {
        ChatRequest::parse(body, |_| Honours(Some([].into())))
    }

    fn param(body: &str) -> Option<String> {
        parse(body.to_owned().into()).unwrap_err().failure.param
    }

    fn with(field: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{field}}}"#)
    }

    #[test]
    fn bad_input_is_told_its_field() {
        for (body, expected) in [
            (r#"{"messages":[]}"#, "model"),
            (r#"{"model":5}"#, "model"),
            (r#"{"model":"m"}"#, "messages"),
            (r#"{"model":"m","messages":[]}"#, "messages"),
            (r#"{"model":"m","messages":"hi"}"#, "messages"),
            (r#"{"model":"m","messages":["hi"]}"#, "messages[0]"),
            (
                r#"{"model":"m","messages":[{"content":"x"}]}"#,
                "messages[0].role",
            ),
            (
                r#"{"model":"m","messages":[{"role":"king","content":"x"}]}"#,
                "messages[0].role",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user"}]}"#,
                "messages[0].content",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":5}]}"#,
                "messages[0].content",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":[5]}]}"#,
                "messages[0].content[0]",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
                "messages[0].content[0].text",
            ),
            (&with(r#""n":0"#), "n"),
            (&with(r#""max_tokens":-1"#), "max_tokens"),
            (&with(r#""tools":{}"#), "tools"),
            (&with(r#""response_format":"json""#), "response_format"),
            (&with(r#""n":"2""#), "n"),
            (&with(r#""stream":"yes""#), "stream"),
            (&with(&format!(r#""stop":"{}""#, "x".repeat(300))), "stop"),
            (
                &with(r#""stream_options":{"include_usage":1}"#),
                "stream_options.include_usage",
            ),
            (&with(r#""logprobs":true"#), "logprobs"),
            (&with(r#""modalities":["text","audio"]"#), "modalities"),
            (&with(r#""audio":{"voice":"x"}"#), "audio"),
        ] {
            assert_eq!(param(body).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn bodies_that_are_no_object_are_refused() {
        for body in ["", "{", "[]", "null", r#"{"model":"\ud800"}"#, "\u{0}"] {
            let failure = parse(body.to_owned().into()).unwrap_err().failure;
            assert_eq!(failure.kind, Kind::InvalidRequest, "{body}");
        }
        assert!(parse(Bytes::from_static(b"{\"model\":\"\xff\"}")).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(deep.into()).is_err());
    }

    #[test]
    fn what_only_tunes_is_ignored_and_named() {
        let body = with(
            r#""temperature":0.5,"top_k":3,"n":1,"logprobs":false,"logit_bias":{},"user":null,"a b,c":1"#,
        );
        let ChatRequest {
            request,
            include_usage,
        } = parse(body.to_owned().into()).unwrap();
        assert_eq!(request.ignored, ["abc", "temperature", "top_k"]);
        assert!(!request.body.stream && !include_usage);
    }

    #[test]
    fn what_has_no_place_of_its_own_is_passed_on_as_it_came() {
        let body = with(r#""x":[[[0]]],"n":1.0,"y":{"a":1,"a":2},"user":"u","seed":3.0"#);
        let request = parse(body.into()).unwrap().request;
        let extra = r#"{"x":[[[0]]],"y":{"a":1,"a":2},"user":"u"}"#;
        assert_eq!(request.body.extra.as_deref(), Some(extra));
        assert_eq!((request.choices, request.body.sampling.seed), (1, Some(3)));
        // Of a field that comes twice, the last one counts.
        let body = with(r#""x":1,"x":2,"max_tokens":7"#);
        let body = parse(body.into()).unwrap().request.body;
        assert_eq!(body.extra.as_deref(), Some(r#"{"x":2}"#));
        assert_eq!(body.max_tokens, Some(7));
    }

    #[test]
    fn what_has_too_many_parts_is_refused_by_its_place() {
        let many = format!("[{}0]", "[0],".repeat(PARTS_MAX));
        assert_eq!(
            param(&with(&format!(r#""metadata":{{"a":{many}}}"#))).as_deref(),
            Some("metadata")
        );
        let content = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{many}}}]}}"#);
        assert_eq!(param(&content).as_deref(), Some("messages[0]"));
        // A field that nobody looks into costs nothing.
        assert!(parse(with(&format!(r#""x":{many}"#)).into()).is_ok());
        let fields: String = (0..1000).map(|i| format!(r#""f{i}":0,"#)).collect();
        let failure = parse(with(&format!("{fields}\"z\":0")).into()).unwrap_err();
        assert!(
            failure.failure.message.contains("more than 512 fields"),
            "{}",
            failure.failure.message
        );
    }

    mod fuzz {
        use proptest::prelude::*;
        use serde_json::{Map, Value};

        use super::super::super::fields::FIELDS;
        use super::parse;

        fn any_json() -> impl Strategy<Value = Value> {
            const WORDS: [&str; 7] = [
                "text",
                "user",
                "json_schema",
                "object",
                "#/a",
                "function",
                "(",
            ];
            const KEYS: [&str; 9] = [
                "type",
                "role",
                "content",
                "json_schema",
                "schema",
                "function",
                "parameters",
                "$ref",
                "pattern",
            ];
            let leaf = prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                any::<f64>().prop_map(Value::from),
                prop::sample::select(&WORDS[..]).prop_map(Value::from),
                ".{0,12}".prop_map(Value::from),
            ];
            leaf.prop_recursive(5, 40, 5, |inner| {
                let field = (prop::sample::select(&KEYS[..]), inner.clone());
                let field = field.prop_map(|(key, value)| (key.to_owned(), value));
                prop_oneof![
                    prop::collection::vec(inner, 0..5).prop_map(Value::from),
                    prop::collection::vec(field, 0..5)
                        .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
                ]
            })
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn any_request_is_read_or_refused_with_a_message(
                fields in prop::collection::vec((0..FIELDS.len(), any_json()), 0..8),
                is_sound in any::<bool>(),
            ) {
                let mut body: Map<String, Value> = fields
                    .into_iter()
                    .map(|(field, value)| (FIELDS[field].name.to_owned(), value))
                    .collect();
                if is_sound {
                    body.insert("model".into(), "m".into());
                    body.insert("messages".into(), serde_json::json!([{"role": "user", "content": "x"}]));
                }
                if let Err(unread) = parse(Value::from(body).to_string().into()) {
                    prop_assert!(!unread.failure.message.is_empty() && unread.failure.param.is_some());
                }
            }

            #[test]
            fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
                let _ = parse(bytes.into());
            }
        }
    }
}
