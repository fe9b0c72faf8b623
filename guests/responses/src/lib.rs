//! The dialect guest for OpenAI's Responses API, `POST /v1/responses`, streaming and not.
//!
//! [`request`] reads a call as a chat completion, with [`tools`] for what the model may call; [`answer`] writes what comes
//! of it as [`event`]s or as one [`response`], which consists of [`item`]s. Nothing is kept, so what needs an earlier
//! response is refused.

pub mod answer;
pub mod event;
pub mod item;
pub mod request;
pub mod response;
pub mod tools;

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    ApiError, Context, Delta, Description, Dialect, Failure, HttpHead, HttpRequest, HttpResponse,
    OpenedCall, Outcome, Problem, Service, event_stream, openai_error, route,
};
use serde::Deserialize;

use answer::Answer;

/// `[guests.responses] config`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether tools that OpenAI runs itself, such as `web_search`, are left out instead of being refused.
    pub ignore_server_tools: bool,
}

/// One call on its way.
#[derive(Debug)]
pub struct Call(Answer);

impl Dialect for Call {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..harness_guest::description(
                "responses",
                env!("CARGO_PKG_VERSION"),
                "OpenAI's Responses API",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn serve(_settings: &Settings) -> Service {
        harness_guest::service(vec![route("POST", "/v1/responses")])
    }

    fn open(
        settings: &Settings,
        context: Context,
        http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError> {
        let read = request::read(&http.body, settings)?;
        let answer = Answer::new(&context, &read);
        Ok(OpenedCall::Completion {
            model: read.model,
            choices: 1,
            request: Box::new(read.request),
            call: Call(answer),
        })
    }

    fn render_error(failure: Failure) -> HttpResponse {
        openai_error(&failure)
    }

    fn begin(&mut self) -> Option<HttpHead> {
        self.0.begin().then(event_stream)
    }

    fn take(&mut self, _choice: u32, deltas: Vec<Delta>) -> String {
        self.0.take(deltas)
    }

    fn end_choice(&mut self, _choice: u32, outcome: Outcome) -> String {
        self.0.ended(&outcome);
        String::new()
    }

    fn finish(&mut self) -> String {
        self.0.finish()
    }

    fn fail(&mut self, failure: Failure) -> String {
        self.0.fail(&failure)
    }

    fn keep_alive(&self) -> String {
        ": keep-alive\n\n".into()
    }
}

harness_guest::export_dialect!(Call);
