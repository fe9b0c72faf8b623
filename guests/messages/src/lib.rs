//! The dialect guest for Anthropic's Messages API: `POST /v1/messages`, streaming and not, and
//! `POST /v1/messages/count_tokens`.
//!
//! [`request`] reads a call as a chat completion, [`answer`] writes what comes of it as events or as one message.

pub mod answer;
pub mod request;

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    ApiError, Context, Delta, Description, Dialect, ErrorKind, Failure, HttpHead, HttpRequest,
    HttpResponse, OpenedCall, Outcome, Problem, Service, event_stream, header, json_reply, route,
};
use serde::Deserialize;
use serde_json::{Value, json};

use answer::Answer;

/// `[guests.messages] config`: there is nothing to set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

/// One call on its way.
#[derive(Debug)]
pub struct Call(Answer);

impl Dialect for Call {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..harness_guest::description(
                "messages",
                env!("CARGO_PKG_VERSION"),
                "Anthropic's Messages API",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn serve(_settings: &Settings) -> Service {
        let routes = ["/v1/messages", "/v1/messages/count_tokens"];
        Service {
            key_headers: vec!["x-api-key".into()],
            ..harness_guest::service(routes.map(|path| route("POST", path)).into())
        }
    }

    fn open(
        _settings: &Settings,
        context: Context,
        http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError> {
        if http.path.ends_with("/count_tokens") {
            let tokens = request::estimate(&http.body)?;
            let mut counted = json_reply(200, &json!({"input_tokens": tokens}));
            // The backend counts tokens only when it answers.
            counted.headers.push(header("x-estimate", "true"));
            return Ok(OpenedCall::Reply(counted));
        }
        let read = request::read(&http.body)?;
        let answer = Answer::new(&context, &read);
        Ok(OpenedCall::Completion {
            model: read.model,
            choices: 1,
            request: Box::new(read.request),
            call: Call(answer),
        })
    }

    fn render_error(failure: Failure) -> HttpResponse {
        // Anthropic's number for an overloaded service.
        let status = match failure.kind {
            ErrorKind::Overloaded => 529,
            _ => failure.status,
        };
        json_reply(status, &error(&failure))
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
        answer::event("error", &error(&failure))
    }

    fn keep_alive(&self) -> String {
        answer::event("ping", &json!({"type": "ping"}))
    }
}

/// An error in Anthropic's form.
fn error(failure: &Failure) -> Value {
    let kind = match (failure.kind, failure.status) {
        (ErrorKind::Overloaded, _) => "overloaded_error",
        (ErrorKind::Timeout, _) => "timeout_error",
        (_, 400) => "invalid_request_error",
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 404 | 405) => "not_found_error",
        (_, 413) => "request_too_large",
        (_, 429) => "rate_limit_error",
        (_, 400..=499) => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": failure.message}})
}

harness_guest::export_dialect!(Call);
