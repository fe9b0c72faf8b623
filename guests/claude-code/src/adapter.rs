//! The adapter as the host sees it: settings, and one dialogue for each request.

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    Adapter, ApiError, Context, Description, Effect, Held, LaunchOption, Problem, Request,
    Resumption, Wanted,
};
use serde::Deserialize;

use crate::exchange::Exchange;
use crate::request::{ChatRequest, Permissions};

/// `[guests.claude-code] config`
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether the model's thinking is shown to the client.
    reasoning: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { reasoning: true }
    }
}

/// The fields of a request that [`ChatRequest`] reads, beside those that the host honours itself.
const HONOURS: [&str; 7] = [
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "max_completion_tokens",
    "max_tokens",
];

impl Adapter for Exchange {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            honours: HONOURS.map(str::to_owned).into(),
            ..harness_guest::description(
                "claude-code",
                env!("CARGO_PKG_VERSION"),
                "Claude Code's stream-json protocol, with true history",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn open(settings: &Settings, context: Context, request: Request) -> Result<Self, ApiError> {
        let permissions = Permissions {
            fetch_urls: context.fetch_urls,
            show_reasoning: settings.reasoning,
        };
        let model = context.resolved_model.unwrap_or(context.backend_model);
        let request = ChatRequest::from_request(request, &model, permissions)?;
        Ok(Exchange::new(request, &context.id))
    }

    fn probe(_settings: &Settings, _context: Context) -> Option<Self> {
        Some(Exchange::probe())
    }

    fn launch_options(&self) -> Vec<LaunchOption> {
        Exchange::launch_options(self)
    }

    fn start(&mut self) -> Vec<Effect> {
        Exchange::start(self)
    }

    fn output(&mut self, lines: Vec<String>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for line in &lines {
            effects.extend(Exchange::output(self, line));
        }
        effects
    }

    fn exit(&mut self, status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        Exchange::exit(self, status)
    }

    fn want(&self) -> Option<Wanted> {
        Exchange::want(self)
    }

    fn resume(&mut self, resumption: Resumption) -> Vec<Effect> {
        Exchange::resume(self, &resumption)
    }

    fn hold(&self) -> Option<Held> {
        Exchange::hold(self)
    }
}

harness_guest::export_adapter!(Exchange);
