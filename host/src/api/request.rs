//! Reads the body of a chat completion request.

use serde_json::{Map, Value};

use super::expectation::Expectation;
use super::{fields, shapes};
use crate::failure::{Failure, Kind};

const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

/// A chat completion request of a sound shape.
#[derive(Debug)]
pub(super) struct ChatRequest {
    /// The name that the client uses.
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// How many answers.
    pub(super) choices: u32,
    /// What is checked before an answer is called done.
    pub(super) expectation: Expectation,
    /// Fields that are not honoured, sorted.
    pub(super) ignored: Vec<String>,
    /// The request as JSON, for the adapter.
    pub(super) json: String,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Names the first field that is missing, of a wrong type or not supported.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let mut value: Value = serde_json::from_slice(body).map_err(|e| {
            Failure::new(
                Kind::InvalidRequest,
                format!("the body is no valid JSON: {e}"),
            )
        })?;
        shapes::check(&value)?;
        let Value::Object(fields) = &mut value else {
            return Err(Failure::new(
                Kind::InvalidRequest,
                "the body must be a JSON object",
            ));
        };
        let model = match fields.get("model") {
            Some(Value::String(model)) if !model.is_empty() => model.clone(),
            Some(other) if !other.is_null() => {
                return Err(wrong_type("model", "the name of a model", other));
            }
            _ => {
                return Err(Failure::invalid(
                    "model",
                    "`model` is missing: name one of GET /v1/models",
                ));
            }
        };
        check_messages(fields)?;
        fields::check(fields)?;
        fields::settle(fields);
        let include_usage = match fields.get("stream_options") {
            Some(Value::Object(options)) => {
                flag(options, "include_usage", "stream_options.include_usage")?
            }
            _ => false,
        };
        let choices = fields.get("n").and_then(Value::as_f64).unwrap_or(1.0);
        Ok(ChatRequest {
            model,
            stream: flag(fields, "stream", "stream")?,
            include_usage,
            choices: choices as u32,
            expectation: Expectation::of(fields)?,
            ignored: fields::ignored(fields),
            json: value.to_string(),
        })
    }
}

fn check_messages(fields: &Map<String, Value>) -> Result<(), Failure> {
    let messages = match fields.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(Failure::invalid("messages", "`messages` is empty")),
        None | Some(Value::Null) => {
            return Err(Failure::invalid("messages", "`messages` is missing"));
        }
        Some(other) => return Err(wrong_type("messages", "a list", other)),
    };
    for (i, message) in messages.iter().enumerate() {
        check_message(&format!("messages[{i}]"), message)?;
    }
    Ok(())
}

fn check_message(param: &str, message: &Value) -> Result<(), Failure> {
    let Value::Object(message) = message else {
        return Err(wrong_type(param, "an object", message));
    };
    let role = match message.get("role") {
        Some(Value::String(role)) => role,
        Some(other) => return Err(wrong_type(&format!("{param}.role"), "a text", other)),
        None => {
            return Err(Failure::invalid(
                format!("{param}.role"),
                format!("`{param}.role` is missing"),
            ));
        }
    };
    if !ROLES.contains(&role.as_str()) {
        let message = format!(
            "`{}` is no role: use one of {}",
            shown(role),
            ROLES.join(", ")
        );
        return Err(Failure::invalid(format!("{param}.role"), message));
    }
    let content = format!("{param}.content");
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts
            .iter()
            .enumerate()
            .try_for_each(|(j, part)| check_part(&format!("{content}[{j}]"), part)),
        None | Some(Value::Null) if role == "assistant" => Ok(()),
        None | Some(Value::Null) => Err(Failure::invalid(
            content.as_str(),
            format!("`{content}` is missing"),
        )),
        Some(other) => Err(wrong_type(&content, "a text or a list of parts", other)),
    }
}

fn check_part(param: &str, part: &Value) -> Result<(), Failure> {
    let Value::Object(fields) = part else {
        return Err(wrong_type(param, "an object", part));
    };
    match fields.get("type") {
        Some(Value::String(kind)) if kind == "text" || kind == "refusal" => {
            match fields.get(kind.as_str()) {
                Some(Value::String(_)) => Ok(()),
                other => Err(wrong_type(
                    &format!("{param}.{kind}"),
                    "a text",
                    other.unwrap_or(&Value::Null),
                )),
            }
        }
        Some(Value::String(_)) => Ok(()),
        other => Err(wrong_type(
            &format!("{param}.type"),
            "a text",
            other.unwrap_or(&Value::Null),
        )),
    }
}

fn flag(fields: &Map<String, Value>, key: &str, param: &str) -> Result<bool, Failure> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(wrong_type(param, "true or false", other)),
    }
}

/// A name from the request, cut and cleaned for a header or a message.
pub(super) fn shown(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_graphic() && *c != ',')
        .take(64)
        .collect()
}

pub(super) fn wrong_type(param: &str, wanted: &str, found: &Value) -> Failure {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
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

    fn param(body: &str) -> Option<String> {
        ChatRequest::parse(body.as_bytes()).unwrap_err().param
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
            let failure = ChatRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(failure.kind, Kind::InvalidRequest, "{body}");
        }
        assert!(ChatRequest::parse(b"{\"model\":\"\xff\"}").is_err());
        let deep = "[".repeat(100_000);
        assert!(ChatRequest::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_only_tunes_is_ignored_and_named() {
        let body = with(
            r#""temperature":0.5,"top_k":3,"n":1,"logprobs":false,"logit_bias":{},"user":null,"a b,c":1"#,
        );
        let request = ChatRequest::parse(body.as_bytes()).unwrap();
        assert_eq!(request.ignored, ["abc", "temperature", "top_k"]);
        assert!(!request.stream && !request.include_usage);
    }

    mod fuzz {
        use proptest::prelude::*;
        use serde_json::{Map, Value};

        use super::super::super::fields::FIELDS;
        use super::ChatRequest;

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
                if let Err(failure) = ChatRequest::parse(Value::from(body).to_string().as_bytes()) {
                    prop_assert!(!failure.message.is_empty() && failure.param.is_some());
                }
            }

            #[test]
            fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
                let _ = ChatRequest::parse(&bytes);
            }
        }
    }
}
