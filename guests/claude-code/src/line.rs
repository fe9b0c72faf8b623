//! What the CLI prints, one JSON object a line.
//!
//! Key order, extra keys and new message types differ between releases, so only what is used is
//! named here and the rest is skipped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A line of the CLI's output. One flat record for all types of message, because `type` may be
/// the last key: each field is named for the types that carry it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Line<'a> {
    /// What this is: `stream_event`, `assistant`, `result`, `system`, `control_response`, …
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// `system`: `init`, `api_retry`, …; `result`: `success`, `error_during_execution`, …
    #[serde(borrow)]
    pub subtype: Option<Cow<'a, str>>,
    /// `stream_event`: an event of Anthropic's streaming API.
    #[serde(borrow)]
    pub event: Option<Event<'a>>,
    /// `assistant`: finished content blocks; `user`: the results of calls.
    #[serde(borrow)]
    pub message: Option<Message<'a>>,
    /// Set when a message belongs to a sub-agent.
    pub parent_tool_use_id: Option<Value>,
    /// `result`: the turn failed, whatever `subtype` says.
    pub is_error: Option<bool>,
    /// `result`: the API's HTTP status.
    pub api_error_status: Option<u16>,
    /// `result`: the answer's text, or the failure's.
    #[serde(borrow)]
    pub result: Option<Cow<'a, str>>,
    /// `result`: `end_turn`, `max_tokens`, …
    #[serde(borrow)]
    pub stop_reason: Option<Cow<'a, str>>,
    /// `result`: `completed`, `prompt_too_long`, …
    #[serde(borrow)]
    pub terminal_reason: Option<Cow<'a, str>>,
    /// `result`: the tokens of this turn.
    pub usage: Option<Usage>,
    /// `result`: dollars spent by this process so far.
    pub total_cost_usd: Option<f64>,
    /// `api_retry` and synthetic `assistant` messages: what failed.
    pub error: Option<Value>,
    /// `api_retry`: the API's HTTP status.
    pub error_status: Option<u16>,
    /// `api_retry`: how long the CLI will wait before it tries again.
    pub retry_delay_ms: Option<f64>,
    /// `rate_limit_event`: the state of the account's limits.
    pub rate_limit_info: Option<RateLimit>,
    /// `result`: what is known of the models that answered, by their ids.
    #[serde(rename = "modelUsage")]
    pub model_usage: BTreeMap<String, ModelUsage>,
    /// `result`: when the login ends, as an ISO 8601 instant. Since 2.1.330.
    #[serde(borrow)]
    pub credential_expires_at: Option<Cow<'a, str>>,
    /// `control_response`: the answer to a control request.
    pub response: Option<ControlResponse>,
    /// `control_request`: its id.
    #[serde(borrow)]
    pub request_id: Option<Cow<'a, str>>,
    /// `control_request`: what the CLI wants.
    pub request: Option<ControlRequest>,
    /// `system/init`: the CLI's version.
    #[serde(borrow)]
    pub claude_code_version: Option<Cow<'a, str>>,
    /// `system/init`: what the model may call.
    pub tools: Option<Vec<String>>,
    /// `system/thinking_tokens`: how many the message has so far, by the CLI's estimate.
    pub estimated_tokens: Option<u64>,
    /// Its fields are not of the shapes that are known here.
    #[serde(skip)]
    pub is_odd: bool,
}

/// An event of Anthropic's streaming API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event<'a> {
    /// `message_start`, `content_block_delta`, `message_delta`, …
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// `message_start`: the message as it begins.
    #[serde(borrow)]
    pub message: Option<Message<'a>>,
    /// `content_block_start`: the block as it begins.
    #[serde(borrow)]
    pub content_block: Option<BlockStart<'a>>,
    /// `content_block_delta`, `message_delta`: what is new.
    #[serde(borrow)]
    pub delta: Option<Delta<'a>>,
    /// `message_delta`: tokens so far.
    pub usage: Option<Usage>,
}

/// A content block as it begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BlockStart<'a> {
    /// `text`, `thinking`, `tool_use`, …
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// `tool_use`: the call's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `tool_use`: what is called.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
}

/// A delta of a content block or of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Delta<'a> {
    /// `text_delta`, `thinking_delta`, `signature_delta`, …; absent in a message's delta.
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// `text_delta`
    #[serde(borrow)]
    pub text: Option<Cow<'a, str>>,
    /// `thinking_delta`
    #[serde(borrow)]
    pub thinking: Option<Cow<'a, str>>,
    /// `input_json_delta`
    #[serde(borrow)]
    pub partial_json: Option<Cow<'a, str>>,
    /// A message's: why it ended.
    #[serde(borrow)]
    pub stop_reason: Option<Cow<'a, str>>,
}

/// A message of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message<'a> {
    /// The API's id.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// The model that answers; `<synthetic>` for words of the CLI's own.
    #[serde(borrow)]
    pub model: Option<Cow<'a, str>>,
    /// Finished blocks in `assistant` lines, the results of calls in `user` lines.
    #[serde(borrow)]
    pub content: Vec<Block<'a>>,
    /// Tokens so far.
    pub usage: Option<Usage>,
}

/// A finished content block.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Block<'a> {
    /// `text`, `thinking`, `tool_use`, `tool_result`, …
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// `tool_use`: the call's id.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// `tool_use`: what is called.
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    /// `tool_use`: the arguments.
    pub input: Option<Value>,
    /// `text`
    #[serde(borrow)]
    pub text: Option<Cow<'a, str>>,
    /// `thinking`
    #[serde(borrow)]
    pub thinking: Option<Cow<'a, str>>,
    /// `tool_result`: which call it is of.
    #[serde(borrow)]
    pub tool_use_id: Option<Cow<'a, str>>,
    /// `tool_result`: the call failed.
    pub is_error: Option<bool>,
}

/// A control request of the CLI's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ControlRequest {
    /// `mcp_message`, `can_use_tool`, …
    pub subtype: String,
    /// `mcp_message`: the message.
    pub message: McpMessage,
}

/// A JSON-RPC message to the MCP server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct McpMessage {
    /// Absent in a notification.
    pub id: Option<Value>,
    /// `initialize`, `tools/list`, `tools/call`, …
    pub method: String,
    /// What goes with it.
    pub params: McpParams,
}

/// The parameters of `initialize` and `tools/call`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct McpParams {
    /// The version of MCP that the CLI speaks.
    pub protocol_version: String,
    /// What is known of a call.
    #[serde(rename = "_meta")]
    pub meta: CallMeta,
}

/// What is known of a call beside its arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CallMeta {
    /// Which call of the model's it is.
    #[serde(rename = "claudecode/toolUseId")]
    pub tool_use_id: Option<String>,
}

/// What is known of a model that answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ModelUsage {
    /// How many tokens it can read and write.
    pub context_window: Option<u64>,
    /// How many it can write.
    pub max_output_tokens: Option<u64>,
}

/// Tokens as Anthropic counts them: the three kinds of input exclude each other.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input that no cache knew.
    pub input_tokens: Option<u64>,
    /// Input written to the cache.
    pub cache_creation_input_tokens: Option<u64>,
    /// Input read from the cache.
    pub cache_read_input_tokens: Option<u64>,
    /// Output, thinking included.
    pub output_tokens: Option<u64>,
    /// What the output consists of; since 2.1.330.
    pub output_tokens_details: Option<OutputDetails>,
}

/// What an output consists of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OutputDetails {
    /// Tokens of thinking.
    pub thinking_tokens: Option<u64>,
}

/// The state of the account's limits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RateLimit {
    /// `allowed`, `allowed_warning`, `rejected`
    pub status: String,
    /// When the limit resets, in seconds since the Unix epoch.
    pub resets_at: Option<u64>,
    /// `five_hour`, `seven_day`, …
    pub rate_limit_type: Option<String>,
    /// How much of it is used, 0 to 1.
    pub utilization: Option<f64>,
}

/// The answer to a control request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ControlResponse {
    /// `success` or `error`
    pub subtype: String,
    /// Which request is answered.
    pub request_id: String,
    /// `success`: what was asked for.
    pub response: Option<Response>,
    /// `error`: what was wrong.
    pub error: Option<String>,
}

/// What control requests are answered with: the fields of all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Response {
    /// `initialize`: the models this login may use.
    pub models: Vec<Model>,
    /// `initialize`: how the process is logged in.
    pub account: Option<Account>,
    /// `rewind_conversation`: whether something was taken back.
    pub rewound: Option<bool>,
    /// `rewind_conversation`: why it was not.
    pub error: Option<String>,
    /// `get_binary_version`: the CLI's version.
    pub version: Option<String>,
    /// `get_usage`: the plan's name.
    pub subscription_type: Option<String>,
    /// `get_usage`: the windows of the plan, by their names. The SDK calls it experimental.
    pub rate_limits: Option<Value>,
}

/// How a process is logged in.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Account {
    /// The plan, of a subscription's login.
    pub subscription_type: Option<String>,
    /// Where a token came from, or `none`.
    pub token_source: Option<String>,
    /// Where an API key came from, or `none`.
    pub api_key_source: Option<String>,
    /// Whose API it is: `firstParty` for Anthropic's own.
    pub api_provider: Option<String>,
}

/// A model that this login may use.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Model {
    /// What `--model` takes.
    pub value: String,
    /// The full id behind it.
    pub resolved_model: Option<String>,
    /// A name for people.
    pub display_name: Option<String>,
}

impl<'a> Line<'a> {
    /// Reads a line of output. None if it is no JSON object. If some field has an unknown shape, only the
    /// line's type is kept, and `is_odd` is set.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if let Ok(line) = serde_json::from_slice::<Line>(bytes) {
            return Some(line);
        }
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else {
            return None;
        };
        let kind = match fields.remove("type") {
            Some(Value::String(kind)) => kind,
            _ => String::new(),
        };
        Some(Line {
            r#type: Cow::Owned(kind),
            is_odd: true,
            ..Line::default()
        })
    }

    /// What failed, in the CLI's word for it: `authentication_failed`, `rate_limit`, …
    pub fn error_name(&self) -> Option<&str> {
        self.error.as_ref()?.as_str()
    }
}

impl Usage {
    /// Each of the plain counts beside that of another.
    fn beside(&mut self, other: &Usage) -> [(&mut Option<u64>, Option<u64>); 4] {
        [
            (&mut self.input_tokens, other.input_tokens),
            (
                &mut self.cache_creation_input_tokens,
                other.cache_creation_input_tokens,
            ),
            (
                &mut self.cache_read_input_tokens,
                other.cache_read_input_tokens,
            ),
            (&mut self.output_tokens, other.output_tokens),
        ]
    }

    /// Adds the tokens of another turn.
    pub fn add(&mut self, other: &Usage) {
        for (field, more) in self.beside(other) {
            *field = Some(field.unwrap_or(0).saturating_add(more.unwrap_or(0)));
        }
        let thinking = |usage: &Usage| usage.output_tokens_details.as_ref()?.thinking_tokens;
        if let Some(more) = thinking(other) {
            let thinking_tokens = Some(thinking(self).unwrap_or(0).saturating_add(more));
            self.output_tokens_details = Some(OutputDetails { thinking_tokens });
        }
    }

    /// Takes over whatever a later count names.
    pub fn update(&mut self, later: &Usage) {
        for (field, value) in self.beside(later) {
            *field = value.or(*field);
        }
        if later.output_tokens_details.is_some() {
            self.output_tokens_details = later.output_tokens_details.clone();
        }
    }
}
