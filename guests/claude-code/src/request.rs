//! What the client asks for, read from its request.

use harness_guest::{ApiError, JsonSchema, OutputFormat, Request};
use serde_json::Value;

use crate::conversation::Conversation;
use crate::failure::invalid_request;
use crate::functions::Functions;
use crate::schema;

/// Below this limit on its tokens, an answer is not worth thinking about first: older models
/// are told to think with at least 1024 tokens, or the API refuses.
const THINKING_MIN: u64 = 2048;

/// The most tokens that can be asked for; the CLI lowers it to what the model can.
const TOKENS_MAX: u64 = 1_000_000;

/// What the operator lets this adapter do.
#[derive(Clone, Copy, Debug)]
pub struct Permissions {
    /// The API may be asked to fetch pictures and files by their URL.
    pub fetch_urls: bool,
    /// The model's thinking is shown to the client.
    pub show_reasoning: bool,
}

/// How the ids of models begin that must be told how much to think; later models decide that themselves. While
/// such a model thinks, the API wants the model's earlier thinking before a call that already has its result.
/// Nobody has kept that thinking, so these models do not think when a conversation ends with results.
const THINKS_TO_ORDER: [&str; 9] = [
    "claude-3-7-",
    "claude-haiku-4-5",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-2025",
    "claude-opus-4-5",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2025",
    "claude-sonnet-4-5",
];

/// A request as this adapter understands it.
#[derive(Debug)]
pub struct ChatRequest {
    /// What was said so far.
    pub conversation: Conversation,
    /// How the process is launched.
    pub launch: Launch,
    /// What the answer must be like.
    pub spec: OutputSpec,
}

/// What of a request stands on the command line or in the environment, through placeholders.
#[derive(Debug, Default, PartialEq)]
pub struct Launch {
    /// `--effort`
    pub effort: Option<&'static str>,
    /// No thinking at all, as far as the model can be told so.
    pub no_thinking: bool,
    /// The most tokens of the answer, thinking included.
    pub max_tokens: Option<u64>,
}

/// What an answer must be like.
#[derive(Debug, Default)]
pub struct OutputSpec {
    /// What the model may or must call.
    pub functions: Functions,
    /// Of what form its text is.
    pub format: Format,
    /// The client reads the answer as a whole, so nothing needs to be shown before it is certain.
    pub whole: bool,
    /// The client sees the model's thinking.
    pub show_reasoning: bool,
}

/// The form of an answer's text.
#[derive(Debug, Default, PartialEq)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Object,
    /// JSON of this schema.
    Schema(Value),
}

impl ChatRequest {
    /// Reads a chat completion request.
    ///
    /// # Errors
    ///
    /// Names the field that cannot be served.
    pub fn from_request(
        request: Request,
        model: &str,
        permissions: Permissions,
    ) -> Result<Self, ApiError> {
        let mut launch = launch(&request)?;
        let mut conversation = Conversation::read(request.messages, permissions.fetch_urls)?;
        let functions = Functions::read(
            request.tools,
            request.tool_choice,
            request.parallel_tool_calls,
            conversation.called(),
        )?;
        let format = format(request.output_format)?;
        launch.no_thinking |= conversation.ends_with_results()
            && THINKS_TO_ORDER.iter().any(|begin| model.starts_with(begin));
        conversation.system.extend(functions.instruction());
        if format == Format::Object {
            conversation.system.push(
                "Answer with one valid JSON object and nothing else: no words around it, no code fence."
                    .into(),
            );
        }
        let spec = OutputSpec {
            functions,
            format,
            whole: !request.stream,
            show_reasoning: permissions.show_reasoning,
        };
        Ok(ChatRequest {
            conversation,
            launch,
            spec,
        })
    }
}

/// OpenAI's levels of effort as those of `--effort`. The CLI has none below `low`.
fn launch(request: &Request) -> Result<Launch, ApiError> {
    let effort = match request.reasoning_effort.as_deref() {
        None => None,
        Some("none" | "minimal" | "low") => Some("low"),
        Some("medium") => Some("medium"),
        Some("high") => Some("high"),
        Some("xhigh") => Some("xhigh"),
        Some("max") => Some("max"),
        Some(_) => {
            return Err(invalid_request(
                "`reasoning_effort` must be none, minimal, low, medium, high, xhigh or max",
                Some("reasoning_effort".into()),
            ));
        }
    };
    let max_tokens = request.max_tokens;
    Ok(Launch {
        effort,
        no_thinking: request.reasoning_effort.as_deref() == Some("none")
            || max_tokens.is_some_and(|max| max < THINKING_MIN),
        max_tokens: max_tokens.map(|max| max.min(TOKENS_MAX)),
    })
}

fn format(format: OutputFormat) -> Result<Format, ApiError> {
    let JsonSchema {
        description,
        schema,
        ..
    } = match format {
        OutputFormat::Text => return Ok(Format::Text),
        OutputFormat::JsonObject => return Ok(Format::Object),
        OutputFormat::JsonSchema(schema) => schema,
    };
    let at = "response_format.json_schema.schema";
    let mut schema = schema::object(schema.as_deref().unwrap_or("{}"), at)?;
    if let Some(description) = description {
        schema
            .entry("description")
            .or_insert_with(|| description.into());
    }
    schema::for_answer(schema, at).map(Format::Schema)
}

#[cfg(test)]
mod tests {
    use harness_guest::testing;

    use super::*;

    const ALL: Permissions = Permissions {
        fetch_urls: true,
        show_reasoning: true,
    };

    fn read(field: &str) -> Result<ChatRequest, ApiError> {
        let json = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],{field}}}"#);
        from_json(&json, "m")
    }

    fn from_json(json: &str, model: &str) -> Result<ChatRequest, ApiError> {
        let request = testing::request(&serde_json::from_str(json).unwrap());
        ChatRequest::from_request(request, model, ALL)
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_the_name_of_its_field() {
        for (field, param) in [
            (r#""reasoning_effort":"huge""#, "reasoning_effort"),
            (
                r#""response_format":{"type":"json_schema","json_schema":{"schema":{"type":"array"}}}"#,
                "response_format.json_schema.schema",
            ),
        ] {
            assert_eq!(
                read(field).unwrap_err().param.as_deref(),
                Some(param),
                "{field}"
            );
        }
    }

    #[test]
    fn empty_lists_and_plain_text_formats_are_no_feature() {
        let request =
            read(r#""tools":[],"response_format":{"type":"text"},"tool_choice":"auto""#).unwrap();
        assert_eq!(request.launch, Launch::default());
        assert!(request.conversation.system.is_empty());
    }

    #[test]
    fn older_models_do_not_think_after_a_call_whose_thinking_is_gone() {
        let json = r#"{"messages":[{"role":"user","content":"q"},
            {"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f"}}]},
            {"role":"tool","tool_call_id":"a","content":"r"}]}"#;
        let thinks = |model| {
            let request = from_json(json, model).unwrap();
            !request.launch.no_thinking
        };
        assert!(!thinks("claude-haiku-4-5-20251001") && !thinks("claude-sonnet-4-20250514"));
        assert!(thinks("claude-opus-4-8") && thinks("claude-haiku-5-5"));
    }

    #[test]
    fn short_answers_and_no_effort_are_given_without_thinking() {
        let launch = |field| read(field).unwrap().launch;
        assert!(launch(r#""max_tokens":100"#).no_thinking);
        assert!(launch(r#""reasoning_effort":"none""#).no_thinking);
        let long = launch(r#""max_completion_tokens":9000000000,"max_tokens":1"#);
        assert_eq!(
            (long.max_tokens, long.no_thinking),
            (Some(TOKENS_MAX), false)
        );
    }
}
