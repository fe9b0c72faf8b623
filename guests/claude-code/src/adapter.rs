//! The adapter as the host sees it: settings, and one dialogue for each request.

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    Adapter, ApiError, Context, Description, Effect, Held, LaunchOption, Problem,
    Question as Asked, Request, Resumption, Wanted,
};
use serde::Deserialize;

use crate::exchange::Exchange;
use crate::question::Question;
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

/// One dialogue with the CLI.
#[derive(Debug)]
pub enum Dialogue {
    /// About what a client asks for.
    Exchange(Box<Exchange>),
    /// About the CLI itself.
    Question(Question),
}

impl Dialogue {
    fn exchange(&self) -> Option<&Exchange> {
        match self {
            Dialogue::Exchange(exchange) => Some(exchange),
            Dialogue::Question(_) => None,
        }
    }

    fn line(&mut self, line: &str) -> Vec<Effect> {
        match self {
            Dialogue::Exchange(exchange) => exchange.output(line),
            Dialogue::Question(question) => question.output(line),
        }
    }
}

impl Adapter for Dialogue {
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
        let exchange = Exchange::new(request, &context.id);
        Ok(Dialogue::Exchange(Box::new(exchange)))
    }

    fn probe(_settings: &Settings, _context: Context, asked: Asked) -> Option<Self> {
        Some(Dialogue::Question(match asked {
            Asked::Introduction => Question::introduction(),
            Asked::Plan => Question::plan(),
        }))
    }

    fn launch_options(&self) -> Vec<LaunchOption> {
        let exchange = self.exchange();
        exchange.map(Exchange::launch_options).unwrap_or_default()
    }

    fn start(&mut self) -> Vec<Effect> {
        match self {
            Dialogue::Exchange(exchange) => exchange.start(),
            Dialogue::Question(question) => question.start(),
        }
    }

    fn output(&mut self, lines: Vec<String>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for line in &lines {
            effects.extend(self.line(line));
        }
        effects
    }

    fn exit(&mut self, status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        match self {
            Dialogue::Exchange(exchange) => exchange.exit(status),
            Dialogue::Question(question) => question.exit(),
        }
    }

    fn want(&self) -> Option<Wanted> {
        self.exchange()?.want()
    }

    fn resume(&mut self, resumption: Resumption) -> Vec<Effect> {
        match self {
            Dialogue::Exchange(exchange) => exchange.resume(&resumption),
            Dialogue::Question(question) => question.start(),
        }
    }

    fn interrupt(&mut self) -> Vec<Effect> {
        match self {
            Dialogue::Exchange(exchange) => exchange.interrupt(),
            // Nothing of it is left to interrupt.
            Dialogue::Question(_) => Vec::new(),
        }
    }

    fn hold(&self) -> Option<Held> {
        self.exchange()?.hold()
    }
}

harness_guest::export_adapter!(Dialogue);
