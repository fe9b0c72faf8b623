//! The dialect guest for Ollama's API, which dozens of programs for the home speak.
//!
//! [`request`] reads a call as a chat completion, [`answer`] writes what comes of it, and `models` what the service
//! offers. Streams are lines of JSON; the last one has the counts of tokens.

pub mod answer;
mod models;
pub mod request;

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    ApiError, Context, Delta, Description, Dialect, Failure, HttpHead, HttpRequest, HttpResponse,
    OfferedModel, OpenedCall, Outcome, Problem, Service, json_reply, route,
};
use serde::Deserialize;
use serde_json::json;

use answer::Answer;
use models::Listing;

/// `[guests.ollama] config`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The version of Ollama that clients are told.
    version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            version: "0.12.0".into(),
        }
    }
}

/// One call on its way.
#[derive(Debug)]
pub enum Call {
    /// A chat completion.
    Answer(Box<Answer>),
    /// A list of models, or one of them.
    Listing(Listing),
}

impl Dialect for Call {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..harness_guest::description("ollama", env!("CARGO_PKG_VERSION"), "Ollama's API")
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn serve(_settings: &Settings) -> Service {
        let routes = [
            ("POST", "/api/chat"),
            ("POST", "/api/generate"),
            ("GET", "/api/tags"),
            ("GET", "/api/ps"),
            ("POST", "/api/show"),
            ("GET", "/api/version"),
        ];
        harness_guest::service(routes.map(|(method, path)| route(method, path)).into())
    }

    fn open(
        settings: &Settings,
        context: Context,
        http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError> {
        match &*http.path {
            "/api/chat" => Ok(request::chat(&http.body, &context)?),
            "/api/generate" => Ok(request::generate(&http.body, &context)?),
            "/api/show" => Ok(OpenedCall::Models(Call::Listing(Listing::one(&http.body)?))),
            "/api/tags" => Ok(OpenedCall::Models(Call::Listing(Listing::all(
                context.created,
            )))),
            "/api/ps" => Ok(OpenedCall::Reply(json_reply(200, &json!({"models": []})))),
            _ => Ok(OpenedCall::Reply(json_reply(
                200,
                &json!({"version": settings.version}),
            ))),
        }
    }

    fn render_error(failure: Failure) -> HttpResponse {
        json_reply(failure.status, &json!({"error": failure.message}))
    }

    fn begin(&mut self) -> Option<HttpHead> {
        let Call::Answer(answer) = self else {
            return None;
        };
        answer.streams().then(|| HttpHead {
            status: 200,
            content_type: "application/x-ndjson".into(),
            headers: answer.headers(),
        })
    }

    fn take(&mut self, _choice: u32, deltas: Vec<Delta>) -> String {
        match self {
            Call::Answer(answer) => answer.take(deltas),
            Call::Listing(_) => String::new(),
        }
    }

    fn end_choice(&mut self, _choice: u32, outcome: Outcome) -> String {
        if let Call::Answer(answer) = self {
            answer.ended(&outcome);
        }
        String::new()
    }

    fn finish(&mut self) -> String {
        match self {
            Call::Answer(answer) => answer.finish(),
            Call::Listing(_) => String::new(),
        }
    }

    fn fail(&mut self, failure: Failure) -> String {
        format!("{}\n", json!({"error": failure.message}))
    }

    fn list_models(&mut self, models: Vec<OfferedModel>) -> HttpResponse {
        match self {
            Call::Listing(listing) => listing.told(models),
            Call::Answer(_) => json_reply(500, &json!({"error": "this is no list of models"})),
        }
    }
}

harness_guest::export_dialect!(Call);
