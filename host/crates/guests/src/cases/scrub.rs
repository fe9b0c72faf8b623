//! Takes what people and models said out of recorded calls: each letter becomes `x`, each digit `1`.
//!
//! What remains has the same shape, character by character, so that a protocol that sends text in pieces is still
//! understood. Kept are the words of a protocol, such as `"type":"assistant"`, and names of functions.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Keys whose text is content, whatever it looks like.
const CONTENT_KEYS: [&str; 19] = [
    "content",
    "text",
    "thinking",
    "reasoning",
    "refusal",
    "partial_json",
    "arguments",
    "result",
    "prompt",
    "message",
    "value",
    "signature",
    "output",
    "data",
    "stderr",
    "systemPrompt",
    "email",
    "description",
    "filename",
];

/// Keys whose text is a piece of JSON.
const JSON_PIECES: [&str; 2] = ["arguments", "partial_json"];

/// Keys of a request that are dropped, because no guest may need them.
const DROPPED_KEYS: [&str; 4] = ["user", "metadata", "safety_identifier", "prompt_cache_key"];

/// The longest word of a protocol, in characters.
const WORD_MAX: usize = 64;

/// A picture of one pixel, in place of any other.
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Replaces content in the calls of one recording.
#[derive(Default)]
pub(super) struct Scrubber {
    /// The state of pieces of JSON, by the key that they have.
    pieces: HashMap<String, JsonPieces>,
}

/// A JSON text that comes in pieces.
#[derive(Default)]
struct JsonPieces {
    in_string: bool,
    /// Characters that belong to an escape.
    escape: usize,
}

impl Scrubber {
    /// The call without its content.
    pub(super) fn call(&mut self, call: &Value) -> Value {
        let mut call = call.clone();
        let Some(fields) = call.as_object_mut() else {
            return call;
        };
        let is_configuration = fields.get("call").is_some_and(|name| name == "configure");
        if is_configuration {
            return call;
        }
        for (key, value) in fields.iter_mut() {
            match (key.as_str(), value) {
                ("call" | "context", _) => {}
                ("lines", Value::Array(lines)) => {
                    lines.iter_mut().for_each(|line| self.line(line));
                }
                (key, value) => self.value(key, value),
            }
        }
        call
    }

    /// A line of a process's output.
    fn line(&mut self, line: &mut Value) {
        let Some(text) = line.as_str() else { return };
        let parsed: Result<Value, _> = serde_json::from_str(text);
        *line = match parsed {
            Ok(mut json @ (Value::Object(_) | Value::Array(_))) => {
                self.value("", &mut json);
                json.to_string().into()
            }
            _ => scrubbed(text).into(),
        };
    }

    fn value(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(key, text),
            Value::Array(all) => all.iter_mut().for_each(|value| self.value(key, value)),
            Value::Object(fields) => self.object(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&mut self, fields: &mut Map<String, Value>) {
        fields.retain(|key, _| !DROPPED_KEYS.contains(&key.as_str()));
        let is_schema = |key: &str| key == "parameters" || key == "schema" || key == "input_schema";
        for (key, value) in fields.iter_mut() {
            if !is_schema(key) {
                self.value(key, value);
            }
        }
    }

    fn text(&mut self, key: &str, text: &str) -> String {
        if text.starts_with("data:image/") {
            return PICTURE.to_owned();
        }
        if JSON_PIECES.contains(&key) {
            return self.pieces.entry(key.to_owned()).or_default().scrub(text);
        }
        match CONTENT_KEYS.contains(&key) || !is_word(text) {
            true => scrubbed(text),
            false => text.to_owned(),
        }
    }
}

impl JsonPieces {
    /// Strings and numbers lose their meaning, and the text stays JSON.
    fn scrub(&mut self, piece: &str) -> String {
        let mut scrubbed = String::with_capacity(piece.len());
        for c in piece.chars() {
            scrubbed.push(match c {
                _ if self.escape > 0 => {
                    self.escape -= 1;
                    if c == 'u' {
                        self.escape += 4;
                    }
                    c
                }
                '\\' if self.in_string => {
                    self.escape = 1;
                    c
                }
                '"' => {
                    self.in_string = !self.in_string;
                    c
                }
                c if self.in_string || c.is_ascii_digit() => without_meaning(c),
                c => c,
            });
        }
        scrubbed
    }
}

/// Whether a text looks like a word of a protocol: an identifier, a version, a time.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:+".contains(c);
    text.len() <= WORD_MAX && text.chars().all(plain)
}

fn scrubbed(text: &str) -> String {
    text.chars().map(without_meaning).collect()
}

fn without_meaning(c: char) -> char {
    match c {
        c if c.is_uppercase() => 'X',
        c if c.is_alphabetic() => 'x',
        c if c.is_numeric() => '1',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_said_loses_its_meaning_and_the_protocol_stays() {
        let mut scrubber = Scrubber::default();
        let call = json!({"call": "open", "context": {"id": "chatcmpl-1"}, "request": {
            "user": "me", "messages": [{"role": "user", "content": "My name is Ada, 36."}],
            "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]}});
        assert_eq!(
            scrubber.call(&call),
            json!({"call": "open", "context": {"id": "chatcmpl-1"}, "request": {
                "messages": [{"role": "user", "content": "Xx xxxx xx Xxx, 11."}],
                "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]}})
        );
        let line = r#"{"type":"assistant","message":{"id":"msg_1","content":[{"type":"text","text":"yes"}]}}"#;
        let call = json!({"call": "output", "lines": [line, "plain words"]});
        assert_eq!(
            scrubber.call(&call)["lines"],
            json!([line.replace("yes", "xxx"), "xxxxx xxxxx"])
        );
    }

    #[test]
    fn pieces_of_json_stay_json() {
        let text = r#"{"city":"S\u00e3o \"P\"","n":-1.5e3,"ok":true}"#;
        for size in 1..text.len() {
            let mut scrubber = Scrubber::default();
            let pieces = text.as_bytes().chunks(size).map(|piece| {
                let piece = std::str::from_utf8(piece).unwrap();
                scrubber.text("arguments", piece)
            });
            let whole: String = pieces.collect();
            assert_eq!(
                whole, r#"{"xxxx":"X\u00e3x \"X\"","x":-1.1e1,"xx":true}"#,
                "{size}"
            );
        }
    }
}
