//! What a well-meaning model would answer: it calls functions that the prompt speaks of or that it
//! must call, fills in what a schema asks for, writes JSON where it is told to, and says hello else.

use serde_json::{Map, Value, json};

use super::script::{self, Step};

/// The answer to `request`, after `message_start`.
pub(super) fn answer(request: &Value) -> Vec<Step> {
    let prompt = last_prompt(request);
    let system = super::texts(&request["system"]).join("\n");
    let tools = request["tools"].as_array().cloned().unwrap_or_default();
    let chosen = tools
        .iter()
        .find(|tool| tool["name"] == "StructuredOutput")
        .or_else(|| choose(&tools, &system, &prompt, request));
    let mut steps = match chosen {
        Some(tool) => {
            let name = tool["name"].as_str().unwrap_or_default();
            let schema = &tool["input_schema"];
            let input = Sampler::new(schema, &prompt).value(schema, "").to_string();
            // Without what the CLI itself puts in, which may stand elsewhere in a process that goes on.
            let messages = request["messages"].as_array().into_iter().flatten();
            let number = messages
                .filter(|message| message["role"] != "system")
                .count();
            script::call(
                0,
                &format!("toolu_{number}_{}", input.len()),
                name,
                &pieces(&input),
            )
        }
        None => script::text_block(0, &pieces(&words(&system, &prompt, request))),
    };
    let reason = if chosen.is_some() {
        "tool_use"
    } else {
        "end_turn"
    };
    steps.extend(script::end(reason, 7));
    steps
}

fn words(system: &str, prompt: &str, request: &Value) -> String {
    if system.contains("one valid JSON object") {
        let keys = quoted(prompt);
        let object: Map<String, Value> = keys.into_iter().map(|k| (k, "x".into())).collect();
        return Value::from(object).to_string();
    }
    match last_blocks(request)
        .iter()
        .find(|b| b["type"] == "tool_result")
    {
        Some(result) => format!(
            "The result is {}",
            super::texts(&result["content"]).join(" ")
        ),
        None => "Hello there".into(),
    }
}

/// The tool to call: one that must be called, or that the prompt speaks of and that was not yet.
fn choose<'a>(
    tools: &'a [Value],
    system: &str,
    prompt: &str,
    request: &Value,
) -> Option<&'a Value> {
    let name = |tool: &Value| tool["name"].as_str().unwrap_or_default().to_owned();
    if system.contains("Do not call") {
        return None;
    }
    let must = system.contains("must call");
    let named = tools
        .iter()
        .find(|tool| must && system.contains(&format!("`{}`", name(tool))));
    let answered = has_results(request);
    let prompt = prompt.to_lowercase();
    let spoken_of = tools.iter().filter(|_| !answered).find(|tool| {
        let name = name(tool).replace("mcp__client__", "").to_lowercase();
        let mut parts = name.split('_').filter(|part| part.len() > 3);
        parts.any(|part| prompt.contains(part))
    });
    named
        .or(spoken_of)
        .or(tools.first().filter(|_| must && !answered))
}

/// Whether the last message of the user has results of calls.
pub(super) fn has_results(request: &Value) -> bool {
    let blocks = last_blocks(request);
    blocks.iter().any(|block| block["type"] == "tool_result")
}

fn last_blocks(request: &Value) -> Vec<Value> {
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let last = messages.iter().rfind(|message| message["role"] == "user");
    let content = last.and_then(|message| message["content"].as_array().cloned());
    content.unwrap_or_default()
}

pub(super) fn last_prompt(request: &Value) -> String {
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let said = messages
        .iter()
        .rev()
        .filter(|message| message["role"] == "user");
    let mut said = said.map(|message| super::texts(&message["content"]).join(" "));
    said.find(|text| !text.trim().is_empty())
        .unwrap_or_default()
}

/// The last text of the user that has these words.
pub(super) fn prompt_with(request: &Value, words: &str) -> String {
    let messages = request["messages"].as_array().into_iter().flatten();
    let said = messages.rev().filter(|message| message["role"] == "user");
    let mut texts = said.map(|message| super::texts(&message["content"]).join("\n"));
    texts.find(|text| text.contains(words)).unwrap_or_default()
}

/// The text in a few pieces, as it streams.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let size = rest.char_indices().nth(6).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// What stands in single quotes.
fn quoted(text: &str) -> Vec<String> {
    let parts = text.split('\'').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// Makes values of a schema, with numbers and quoted words of the prompt.
struct Sampler<'a> {
    top: &'a Value,
    /// References followed: some lead back to themselves.
    followed: usize,
    numbers: std::vec::IntoIter<i64>,
    words: std::vec::IntoIter<String>,
}

impl<'a> Sampler<'a> {
    fn new(top: &'a Value, prompt: &str) -> Self {
        let numbers = prompt.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<i64> = numbers.filter_map(|n| n.parse().ok()).collect();
        Sampler {
            top,
            followed: 0,
            numbers: numbers.into_iter(),
            words: quoted(prompt).into_iter(),
        }
    }

    fn value(&mut self, schema: &Value, name: &str) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            self.followed += 1;
            if self.followed > 20 {
                return Value::Null;
            }
            let target = self.top.pointer(reference.trim_start_matches('#'));
            return target
                .cloned()
                .map_or(Value::Null, |schema| self.value(&schema, name));
        }
        if !schema["const"].is_null() {
            return schema["const"].clone();
        }
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        for alternatives in ["anyOf", "oneOf", "allOf"] {
            if let Some(first) = schema[alternatives].get(0) {
                let first = first.clone();
                return self.value(&first, name);
            }
        }
        let kind = schema["type"].as_str().or(schema["type"][0].as_str());
        match kind {
            Some("object") | None => self.object(schema),
            Some("array") => json!([self.value(&schema["items"], name)]),
            Some("integer") => self.numbers.next().unwrap_or(1).into(),
            Some("number") => self.numbers.next().map_or(1.5.into(), Value::from),
            Some("boolean") => true.into(),
            Some("null") => Value::Null,
            Some(_) if schema["pattern"].is_string() => "2026-11-22".into(),
            Some(_) => match self.words.next() {
                Some(word) => word.into(),
                None => format!("some {name}").into(),
            },
        }
    }

    fn object(&mut self, schema: &Value) -> Value {
        let properties = schema["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let fields = properties.into_iter().map(|(name, schema)| {
            let value = self.value(&schema, &name);
            (name, value)
        });
        fields.collect::<Map<String, Value>>().into()
    }
}
