//! The dialect guest for OpenAI's old API of text completions, `POST /v1/completions`, which editors still use.
//!
//! A chat model does not go on with a text by itself, so the prompt becomes a message, and a system prompt says what to
//! do with it.

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    ApiError, Content, Context, Delta, Description, Dialect, Failure, FinishReason, HttpHead,
    HttpRequest, HttpResponse, OpenedCall, Outcome, Problem, Request, Role, Sampling, Service,
    Usage, event_stream, invalid, json_line, message, openai_error, read_body, route, unsupported,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `[guests.completions] config`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The system prompt for a text that breaks off.
    instruction: String,
    /// The system prompt for a text with a gap: the message has what stands before and behind it.
    infill: String,
}

impl Default for Settings {
    fn default() -> Self {
        let only = "Answer with nothing else: no introduction, no quotation marks, no code fence, and nothing of what is there already.";
        Settings {
            instruction: format!(
                "The user's message is a text that breaks off. Write what comes next. {only}"
            ),
            infill: format!(
                "The user's message has the text before a gap in <before> and the text behind it in <behind>. Write what belongs into the gap. {only}"
            ),
        }
    }
}

/// The body of a call. `user`, `best_of` and what else is not here changes nothing of the answer's meaning.
#[derive(Debug, Deserialize)]
struct Body {
    model: String,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    prompt: Value,
    suffix: Option<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    stream: bool,
    stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    stop: Value,
    max_tokens: Option<u64>,
    n: Option<u32>,
    echo: Option<bool>,
    logprobs: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    include_usage: bool,
}

/// One call on its way.
#[derive(Debug)]
pub struct Call {
    id: String,
    created: u64,
    model: String,
    stream: bool,
    include_usage: bool,
    /// The text of each choice, and how it ended.
    texts: Vec<(String, Option<FinishReason>)>,
    usage: [u64; 3],
}

/// An answer, or a piece of it.
#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

#[derive(Serialize)]
struct Choice<'a> {
    text: &'a str,
    index: usize,
    /// `null`
    logprobs: (),
    finish_reason: Option<&'static str>,
}

impl Dialect for Call {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..harness_guest::description(
                "completions",
                env!("CARGO_PKG_VERSION"),
                "OpenAI's old API of text completions",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn serve(_settings: &Settings) -> Service {
        harness_guest::service(vec![route("POST", "/v1/completions")])
    }

    fn open(
        settings: &Settings,
        context: Context,
        http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError> {
        let body: Body = read_body(&http.body)?;
        let request = request(settings, &body)?;
        let choices = body.n.unwrap_or(1);
        let include_usage = body
            .stream_options
            .is_some_and(|options| options.include_usage);
        Ok(OpenedCall::Completion {
            call: Call {
                id: context.id.replace("req_", "cmpl-"),
                created: context.created,
                model: body.model.clone(),
                stream: body.stream,
                include_usage,
                texts: vec![(String::new(), None); choices.min(128) as usize],
                usage: [0; 3],
            },
            model: body.model,
            choices,
            request: Box::new(request),
        })
    }

    fn render_error(failure: Failure) -> HttpResponse {
        openai_error(&failure)
    }

    fn begin(&mut self) -> Option<HttpHead> {
        self.stream.then(event_stream)
    }

    fn take(&mut self, choice: u32, deltas: Vec<Delta>) -> String {
        let texts = deltas.into_iter().filter_map(|delta| match delta {
            Delta::Content(text) => Some(text),
            _ => None,
        });
        let text: String = texts.collect();
        if text.is_empty() {
            return text;
        }
        if self.stream {
            return self.chunk(choice, &text, None);
        }
        if let Some((whole, _)) = self.texts.get_mut(choice as usize) {
            whole.push_str(&text);
        }
        String::new()
    }

    fn end_choice(&mut self, choice: u32, outcome: Outcome) -> String {
        self.count(outcome.usage.as_ref());
        if let Some((_, end)) = self.texts.get_mut(choice as usize) {
            *end = Some(outcome.finish_reason);
        }
        match self.stream {
            true => self.chunk(choice, "", Some(outcome.finish_reason)),
            false => String::new(),
        }
    }

    fn finish(&mut self) -> String {
        if !self.stream {
            let choices = self.texts.iter().enumerate();
            let choices = choices.map(|(i, (text, end))| choice(i, text, *end));
            return json_line(&self.object(choices.collect(), Some(self.usage_object())));
        }
        let mut last = String::new();
        if self.include_usage {
            last = event(&self.object(Vec::new(), Some(self.usage_object())));
        }
        last + "data: [DONE]\n\n"
    }

    fn fail(&mut self, failure: Failure) -> String {
        format!("data: {}\n\n", openai_error(&failure).body)
    }

    fn keep_alive(&self) -> String {
        ": keep-alive\n\n".into()
    }
}

impl Call {
    fn object<'a>(&'a self, choices: Vec<Choice<'a>>, usage: Option<Value>) -> Object<'a> {
        Object {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        }
    }

    fn chunk(&self, index: u32, text: &str, end: Option<FinishReason>) -> String {
        event(&self.object(vec![choice(index as usize, text, end)], None))
    }

    fn count(&mut self, usage: Option<&Usage>) {
        if let Some(usage) = usage {
            self.usage[0] += usage.prompt_tokens;
            self.usage[1] += usage.completion_tokens;
            self.usage[2] += usage.cached_tokens;
        }
    }

    fn usage_object(&self) -> Value {
        let [prompt, completion, cached] = self.usage;
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        })
    }
}

fn event(chunk: &Object<'_>) -> String {
    format!("data: {}\n\n", json_line(chunk))
}

fn choice(index: usize, text: &str, end: Option<FinishReason>) -> Choice<'_> {
    let end = end.map(|end| match end {
        FinishReason::Stop | FinishReason::ToolCalls => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
    });
    Choice {
        text,
        index,
        logprobs: (),
        finish_reason: end,
    }
}

/// The chat completion that a call asks for.
fn request(settings: &Settings, body: &Body) -> Result<Request, ApiError> {
    if body.echo == Some(true) {
        return Err(unsupported(
            "echo",
            "`echo` is not supported: put the prompt before the answer yourself",
        ));
    }
    if body.logprobs.is_some_and(|count| count > 0) {
        return Err(unsupported(
            "logprobs",
            "`logprobs` is not supported: the backend does not tell them",
        ));
    }
    let prompt = prompt(&body.prompt)?;
    let (instruction, text) = match &body.suffix {
        None => (&settings.instruction, prompt),
        Some(suffix) => (
            &settings.infill,
            format!("<before>{prompt}</before>\n<behind>{suffix}</behind>"),
        ),
    };
    let messages = vec![
        message(Role::System, Some(Content::Text(instruction.clone()))),
        message(Role::User, Some(Content::Text(text))),
    ];
    Ok(Request {
        stream: body.stream,
        max_tokens: body.max_tokens,
        sampling: Sampling {
            temperature: body.temperature,
            top_p: body.top_p,
            seed: body.seed,
            frequency_penalty: body.frequency_penalty,
            presence_penalty: body.presence_penalty,
        },
        stop: stop(&body.stop)?,
        ..harness_guest::request(messages)
    })
}

/// The prompt: a text, or a list with one.
fn prompt(value: &Value) -> Result<String, ApiError> {
    let text = match value {
        Value::Array(list) if list.len() == 1 => list[0].as_str(),
        Value::Array(_) => {
            let what = "`prompt` may be one text: send a request for each of several";
            return Err(invalid("prompt", what));
        }
        value => value.as_str(),
    };
    match text {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(invalid(
            "prompt",
            "`prompt` must be a text that is not empty",
        )),
    }
}

fn stop(value: &Value) -> Result<Vec<String>, ApiError> {
    let words = match value {
        Value::Null => Some(Vec::new()),
        Value::String(word) => Some(vec![word.clone()]),
        Value::Array(words) => words
            .iter()
            .map(|w| w.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    words.ok_or_else(|| invalid("stop", "`stop` must be a text, or a list of texts"))
}

harness_guest::export_dialect!(Call);

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(body: &Value) -> Result<(Request, Call), ApiError> {
        let http = HttpRequest {
            method: "POST".into(),
            path: "/v1/completions".into(),
            query: None,
            headers: Vec::new(),
            body: body.to_string(),
            extra: None,
        };
        let mut context = harness_guest::testing::context("");
        context.id = "req_1".into();
        match Call::open(&Settings::default(), context, http)? {
            OpenedCall::Completion { request, call, .. } => Ok((*request, call)),
            other => panic!("{other:?}"),
        }
    }

    fn outcome(finish_reason: FinishReason) -> Outcome {
        harness_guest::outcome(finish_reason)
    }

    #[test]
    fn a_text_is_gone_on_with_or_filled_in() {
        let (request, mut call) =
            opened(&json!({"model": "m", "prompt": "fn main", "stop": "}"})).unwrap();
        assert!(
            matches!(&request.messages[1].content, Some(Content::Text(text)) if text == "fn main")
        );
        assert_eq!(request.stop, ["}"]);
        assert!(call.begin().is_none());
        assert_eq!(
            call.take(
                0,
                vec![Delta::Content("() {".into()), Delta::Reasoning("hm".into())]
            ),
            ""
        );
        assert_eq!(call.end_choice(0, outcome(FinishReason::Length)), "");
        let whole: Value = serde_json::from_str(&call.finish()).unwrap();
        assert_eq!(
            whole["choices"],
            json!([{"text": "() {", "index": 0, "logprobs": null, "finish_reason": "length"}])
        );
        assert_eq!(
            (&whole["id"], &whole["object"]),
            (&json!("cmpl-1"), &json!("text_completion"))
        );
        let (request, _) = opened(&json!({"model": "m", "prompt": ["a"], "suffix": "c"})).unwrap();
        assert!(
            matches!(&request.messages[1].content, Some(Content::Text(text)) if text == "<before>a</before>\n<behind>c</behind>")
        );
    }

    #[test]
    fn a_stream_ends_with_its_usage_if_it_is_wanted() {
        let options = json!({"include_usage": true});
        let (_, mut call) = opened(
            &json!({"model": "m", "prompt": "a", "stream": true, "stream_options": options}),
        )
        .unwrap();
        assert_eq!(
            call.begin().unwrap().content_type,
            "text/event-stream; charset=utf-8"
        );
        let chunk = call.take(0, vec![Delta::Content("b".into())]);
        assert!(
            chunk.starts_with("data: {\"id\":\"cmpl-1\"") && chunk.ends_with("}\n\n"),
            "{chunk}"
        );
        call.end_choice(0, outcome(FinishReason::Stop));
        let last = call.finish();
        assert!(
            last.contains("\"choices\":[],\"usage\":{") && last.ends_with("data: [DONE]\n\n"),
            "{last}"
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_name() {
        for (body, param) in [
            (json!({"model": "m", "prompt": ["a", "b"]}), "prompt"),
            (json!({"model": "m"}), "prompt"),
            (json!({"model": "m", "prompt": "a", "echo": true}), "echo"),
            (
                json!({"model": "m", "prompt": "a", "logprobs": 2}),
                "logprobs",
            ),
            (json!({"model": "m", "prompt": "a", "stop": 1}), "stop"),
        ] {
            assert_eq!(
                opened(&body).unwrap_err().param.as_deref(),
                Some(param),
                "{body}"
            );
        }
        assert!(
            opened(&json!({"prompt": "a"}))
                .unwrap_err()
                .message
                .contains("model")
        );
    }
}
