//! The APIs: how each asks for the same, and what its answers say.

use serde_json::{Value, json};

/// An API of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Responses,
    Messages,
    Ollama,
    Completions,
}

/// What a client learns, in words of no API.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Meaning {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) reasoning: String,
    /// Names and arguments.
    pub(super) calls: Vec<(String, Value)>,
    /// `stop`, `length`, `calls` or `refusal`.
    pub(super) end: &'static str,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) cached_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    /// The words of an error.
    pub(super) error: Option<String>,
}

impl Api {
    /// All but chat completions.
    pub(super) const OTHERS: [Self; 4] =
        [Api::Responses, Api::Messages, Api::Ollama, Api::Completions];

    pub(super) fn path(self) -> &'static str {
        match self {
            Api::Chat => "/v1/chat/completions",
            Api::Responses => "/v1/responses",
            Api::Messages => "/v1/messages",
            Api::Ollama => "/api/chat",
            Api::Completions => "/v1/completions",
        }
    }

    /// It has a text for a prompt, and tells the model so in a system prompt.
    pub(super) fn words_prompts_itself(self) -> bool {
        self == Api::Completions
    }

    /// The request of a chat completion in this API. None if it cannot say it.
    pub(super) fn body(self, chat: &Value, streams: bool) -> Option<Value> {
        let mut body = match self {
            Api::Chat => Some(chat.clone()),
            Api::Responses => responses(chat),
            Api::Messages => Some(messages(chat)),
            Api::Ollama => ollama(chat),
            Api::Completions => completions(chat),
        }?;
        body["stream"] = streams.into();
        if streams && matches!(self, Api::Chat | Api::Completions) {
            body["stream_options"] = json!({"include_usage": true});
        }
        Some(body)
    }

    /// As much of a meaning as this API can say.
    pub(super) fn sayable(self, meaning: &Meaning) -> Meaning {
        let mut said = meaning.clone();
        if self == Api::Ollama {
            said.cached_tokens = None;
            if said.end != "length" && said.error.is_none() {
                said.end = "stop";
            }
        }
        if self == Api::Completions {
            said.reasoning = String::new();
        }
        said
    }

    /// Reads an answer.
    pub(super) fn read(self, status: u16, text: &str, streams: bool) -> Meaning {
        let mut meaning = Meaning {
            status,
            ..Meaning::default()
        };
        let lines: Vec<Value> = match (streams && status == 200, self) {
            (true, Api::Ollama) => text.lines().map(parsed).collect(),
            (true, _) => {
                let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
                data.filter(|data| *data != "[DONE]").map(parsed).collect()
            }
            (false, _) => vec![parsed(text)],
        };
        for line in &lines {
            if let Some(error) = error_of(line) {
                meaning.error = Some(error);
            }
            match self {
                Api::Chat => meaning.chat(line),
                Api::Responses => meaning.responses(line),
                Api::Messages => meaning.messages(line),
                Api::Ollama => meaning.ollama(line),
                Api::Completions => meaning.completions(line),
            }
        }
        for (_, arguments) in &mut meaning.calls {
            if let Value::String(text) = arguments {
                *arguments = match text.is_empty() {
                    true => json!({}),
                    false => parsed(text),
                };
            }
        }
        meaning
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn error_of(line: &Value) -> Option<String> {
    let places = [
        &line["error"],
        &line["error"]["message"],
        &line["response"]["error"]["message"],
    ];
    let told = places.into_iter().find_map(Value::as_str)?;
    // The fake API's limit is always reset an hour from now.
    let told = told.split("resets").next().unwrap_or(told);
    Some(told.to_owned())
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Meaning {
    fn chat(&mut self, line: &Value) {
        for choice in line["choices"].as_array().into_iter().flatten() {
            let said = match choice["message"].is_null() {
                true => &choice["delta"],
                false => &choice["message"],
            };
            self.text += text_of(&said["content"]);
            self.text += text_of(&said["refusal"]);
            self.reasoning += text_of(&said["reasoning_content"]);
            for call in said["tool_calls"].as_array().into_iter().flatten() {
                let function = &call["function"];
                if function["name"].is_string() {
                    self.called(&function["name"], &json!(""));
                }
                self.argued(text_of(&function["arguments"]));
            }
            self.ended(&choice["finish_reason"]);
        }
        let usage = &line["usage"];
        if usage.is_object() {
            self.prompt_tokens = usage["prompt_tokens"].as_u64();
            self.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
            self.completion_tokens = usage["completion_tokens"].as_u64();
        }
    }

    fn responses(&mut self, line: &Value) {
        match text_of(&line["type"]) {
            "response.output_text.delta" | "response.refusal.delta" => {
                self.text += text_of(&line["delta"]);
            }
            "response.reasoning_summary_text.delta" => self.reasoning += text_of(&line["delta"]),
            "response.output_item.added" if line["item"]["type"] == "function_call" => {
                self.called(&line["item"]["name"], &json!(""));
            }
            "response.function_call_arguments.delta" => self.argued(text_of(&line["delta"])),
            "response.completed" | "response.incomplete" => {
                let whole = Self::of_response(&line["response"]);
                let told = (&whole.text, &whole.reasoning, whole.calls.len());
                assert_eq!(told, (&self.text, &self.reasoning, self.calls.len()));
                let status = self.status;
                let calls = std::mem::take(&mut self.calls);
                *self = whole;
                (self.status, self.calls) = (status, calls);
            }
            "" if line["object"] == "response" => {
                let status = self.status;
                *self = Self::of_response(line);
                self.status = status;
            }
            _ => {}
        }
    }

    fn of_response(response: &Value) -> Self {
        let mut meaning = Meaning::default();
        for item in response["output"].as_array().into_iter().flatten() {
            let parts = |key: &str| item[key].as_array().cloned().unwrap_or_default();
            for part in parts("content") {
                meaning.text += text_of(&part["text"]);
                meaning.text += text_of(&part["refusal"]);
            }
            for part in parts("summary") {
                meaning.reasoning += text_of(&part["text"]);
            }
            if item["type"] == "function_call" {
                meaning.called(&item["name"], &item["arguments"]);
            }
        }
        meaning.end = match text_of(&response["incomplete_details"]["reason"]) {
            "max_output_tokens" => "length",
            "content_filter" => "refusal",
            _ if meaning.calls.is_empty() => "stop",
            _ => "calls",
        };
        let usage = &response["usage"];
        meaning.prompt_tokens = usage["input_tokens"].as_u64();
        meaning.cached_tokens = usage["input_tokens_details"]["cached_tokens"].as_u64();
        meaning.completion_tokens = usage["output_tokens"].as_u64();
        meaning
    }

    fn messages(&mut self, line: &Value) {
        match text_of(&line["type"]) {
            "message" => {
                let blocks = line["content"].as_array().into_iter().flatten();
                blocks.for_each(|block| self.block(block));
                self.ended(&line["stop_reason"]);
                self.used(&line["usage"]);
            }
            "content_block_start" if line["content_block"]["type"] == "tool_use" => {
                self.called(&line["content_block"]["name"], &json!(""));
            }
            "content_block_delta" => {
                let delta = &line["delta"];
                self.text += text_of(&delta["text"]);
                self.reasoning += text_of(&delta["thinking"]);
                self.argued(text_of(&delta["partial_json"]));
            }
            "message_delta" => {
                self.ended(&line["delta"]["stop_reason"]);
                self.used(&line["usage"]);
            }
            _ => {}
        }
    }

    fn block(&mut self, block: &Value) {
        self.text += text_of(&block["text"]);
        self.reasoning += text_of(&block["thinking"]);
        if block["type"] == "tool_use" {
            self.called(&block["name"], &block["input"]);
        }
    }

    fn used(&mut self, usage: &Value) {
        let count = |key: &str| usage[key].as_u64().unwrap_or(0);
        let cached = count("cache_read_input_tokens");
        let written = count("cache_creation_input_tokens");
        self.prompt_tokens = Some(count("input_tokens") + written + cached);
        self.cached_tokens = Some(cached);
        self.completion_tokens = Some(count("output_tokens"));
    }

    fn ollama(&mut self, line: &Value) {
        let said = &line["message"];
        self.text += text_of(&said["content"]);
        self.reasoning += text_of(&said["thinking"]);
        for call in said["tool_calls"].as_array().into_iter().flatten() {
            self.called(&call["function"]["name"], &call["function"]["arguments"]);
        }
        if line["done"] == true {
            self.ended(&line["done_reason"]);
            self.prompt_tokens = line["prompt_eval_count"].as_u64();
            self.completion_tokens = line["eval_count"].as_u64();
        }
    }

    fn completions(&mut self, line: &Value) {
        for choice in line["choices"].as_array().into_iter().flatten() {
            self.text += text_of(&choice["text"]);
        }
        let mut ends = line["choices"].clone();
        for choice in ends.as_array_mut().into_iter().flatten() {
            self.ended(&choice["finish_reason"]);
        }
        let usage = json!({"choices": [], "usage": line["usage"]});
        self.chat(&usage);
    }

    fn called(&mut self, name: &Value, arguments: &Value) {
        self.calls
            .push((text_of(name).to_owned(), arguments.clone()));
    }

    /// More of the arguments of the last call.
    fn argued(&mut self, piece: &str) {
        if let Some((_, Value::String(arguments))) = self.calls.last_mut() {
            *arguments += piece;
        }
    }

    fn ended(&mut self, reason: &Value) {
        self.end = match text_of(reason) {
            "stop" | "end_turn" | "stop_sequence" => "stop",
            "length" | "max_tokens" => "length",
            "tool_calls" | "tool_use" => "calls",
            "content_filter" | "refusal" => "refusal",
            _ => return,
        };
    }
}

fn parts_of(message: &Value) -> Vec<Value> {
    match &message["content"] {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(parts) => parts.clone(),
        _ => Vec::new(),
    }
}

fn calls_of(message: &Value) -> impl Iterator<Item = &Value> {
    message["tool_calls"].as_array().into_iter().flatten()
}

fn all_messages(chat: &Value) -> Vec<Value> {
    chat["messages"].as_array().cloned().unwrap_or_default()
}

/// The data of a URL, and its media type.
fn data_of(url: &Value) -> (String, String) {
    let (kind, data) = text_of(url).split_once(";base64,").unwrap();
    (kind.replace("data:", ""), data.to_owned())
}

fn responses(chat: &Value) -> Option<Value> {
    if !chat["stop"].is_null() {
        return None;
    }
    let mut input = Vec::new();
    let mut body = json!({"model": chat["model"], "max_output_tokens": chat["max_completion_tokens"],
        "store": false, "reasoning": {"effort": chat["reasoning_effort"], "summary": "auto"}});
    for message in all_messages(chat) {
        match text_of(&message["role"]) {
            "system" => body["instructions"] = message["content"].clone(),
            "tool" => input.push(json!({"type": "function_call_output",
                "call_id": message["tool_call_id"], "output": message["content"]})),
            role => {
                let output = role == "assistant";
                let parts = parts_of(&message).into_iter();
                let parts = parts.map(|part| match text_of(&part["type"]) {
                    "image_url" => json!({"type": "input_image", "image_url": part["image_url"]["url"]}),
                    "file" => json!({"type": "input_file", "filename": part["file"]["filename"], "file_data": part["file"]["file_data"]}),
                    _ if output => json!({"type": "output_text", "text": part["text"]}),
                    _ => json!({"type": "input_text", "text": part["text"]}),
                });
                input.push(json!({"role": role, "content": parts.collect::<Vec<_>>()}));
                input.extend(calls_of(&message).map(|call| {
                    json!({"type": "function_call", "call_id": call["id"],
                        "name": call["function"]["name"], "arguments": call["function"]["arguments"]})
                }));
            }
        }
    }
    body["input"] = input.into();
    let format = &chat["response_format"]["json_schema"];
    if format.is_object() {
        body["text"] = json!({"format": {"type": "json_schema", "name": format["name"],
            "strict": format["strict"], "schema": format["schema"]}});
    }
    if let Some(tools) = chat["tools"].as_array() {
        let tools = tools.iter().map(|tool| {
            let mut tool = tool["function"].clone();
            tool["type"] = "function".into();
            tool
        });
        body["tools"] = tools.collect();
    }
    Some(body)
}

fn messages(chat: &Value) -> Value {
    let mut body = json!({"model": chat["model"], "max_tokens": chat["max_completion_tokens"],
        "stop_sequences": chat["stop"]});
    let mut messages: Vec<Value> = Vec::new();
    for message in all_messages(chat) {
        let role = text_of(&message["role"]);
        if role == "system" {
            body["system"] = message["content"].clone();
            continue;
        }
        if role == "tool" {
            let result = json!({"type": "tool_result", "tool_use_id": message["tool_call_id"],
                "content": message["content"]});
            match messages.last_mut() {
                Some(last) if last["role"] == "user" => {
                    last["content"].as_array_mut().unwrap().push(result);
                }
                _ => messages.push(json!({"role": "user", "content": [result]})),
            }
            continue;
        }
        let source = |url: &Value| {
            let (kind, data) = data_of(url);
            json!({"type": "base64", "media_type": kind, "data": data})
        };
        let parts = parts_of(&message).into_iter();
        let mut blocks: Vec<Value> = parts
            .map(|part| match text_of(&part["type"]) {
                "image_url" => json!({"type": "image", "source": source(&part["image_url"]["url"])}),
                "file" => json!({"type": "document", "title": part["file"]["filename"], "source": source(&part["file"]["file_data"])}),
                _ => part,
            })
            .collect();
        blocks.extend(calls_of(&message).map(|call| {
            json!({"type": "tool_use", "id": call["id"], "name": call["function"]["name"],
                "input": parsed(text_of(&call["function"]["arguments"]))})
        }));
        messages.push(json!({"role": role, "content": blocks}));
    }
    body["messages"] = messages.into();
    let schema = &chat["response_format"]["json_schema"]["schema"];
    if schema.is_object() {
        body["output_config"]["format"] = json!({"type": "json_schema", "schema": schema});
    }
    if let Some(effort) = chat["reasoning_effort"].as_str() {
        body["thinking"] = json!({"type": "adaptive"});
        body["output_config"]["effort"] = effort.into();
    }
    if let Some(tools) = chat["tools"].as_array() {
        let tools = tools.iter().map(|tool| {
            let function = &tool["function"];
            json!({"name": function["name"], "description": function["description"],
                "input_schema": function["parameters"]})
        });
        body["tools"] = tools.collect();
    }
    body
}

fn ollama(chat: &Value) -> Option<Value> {
    let mut messages = Vec::new();
    // Results name the function, and not the call.
    let mut names: Vec<(Value, Value)> = Vec::new();
    for message in all_messages(chat) {
        let mut said = json!({"role": message["role"], "content": ""});
        let mut text = String::new();
        for part in parts_of(&message) {
            match text_of(&part["type"]) {
                "image_url" => said["images"] = json!([data_of(&part["image_url"]["url"]).1]),
                "file" => return None,
                _ => text += text_of(&part["text"]),
            }
        }
        said["content"] = text.into();
        let calls = calls_of(&message).map(|call| {
            let function = &call["function"];
            names.push((call["id"].clone(), function["name"].clone()));
            json!({"function": {"name": function["name"], "arguments": parsed(text_of(&function["arguments"]))}})
        });
        let calls: Vec<Value> = calls.collect();
        if !calls.is_empty() {
            said["tool_calls"] = calls.into();
        }
        if let Some((_, name)) = names.iter().find(|(id, _)| *id == message["tool_call_id"]) {
            said["tool_name"] = name.clone();
        }
        messages.push(said);
    }
    let think = match chat["reasoning_effort"].as_str() {
        Some(effort) => json!(effort),
        None => json!(true),
    };
    Some(
        json!({"model": chat["model"], "messages": messages, "tools": chat["tools"], "think": think,
        "format": chat["response_format"]["json_schema"]["schema"],
        "options": {"num_predict": chat["max_completion_tokens"], "stop": chat["stop"]}}),
    )
}

fn completions(chat: &Value) -> Option<Value> {
    let [message] = &all_messages(chat)[..] else {
        return None;
    };
    let prompt = message["content"].as_str()?;
    let is_plain = ["tools", "response_format", "reasoning_effort"]
        .iter()
        .all(|field| chat[*field].is_null());
    is_plain.then(|| {
        json!({"model": chat["model"], "prompt": prompt, "stop": chat["stop"], "max_tokens": chat["max_completion_tokens"]})
    })
}
