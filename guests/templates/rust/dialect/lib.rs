//! A dialect: an API of one route, `POST /NAME`, which takes `{"prompt": "…"}` and answers with plain text.

use harness_guest::{
    ApiError, Content, Context, Delta, Description, Dialect, Failure, HttpHead, HttpRequest,
    HttpResponse, OpenedCall, Problem, Role, Service, description, export_dialect, message,
    read_body, request, route, service, text_reply,
};
use harness_guest::schemars::JsonSchema;
use serde::Deserialize;

/// What `config` holds, in `[guests.NAME]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The model that answers.
    model: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: "claude-haiku".into(),
        }
    }
}

/// The body of a call.
#[derive(Deserialize)]
struct Body {
    prompt: String,
}

/// One call on its way.
pub struct Call;

impl Dialect for Call {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..description("NAME", env!("CARGO_PKG_VERSION"), "a prompt in, plain text out")
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn serve(_settings: &Settings) -> Service {
        service(vec![route("POST", "/NAME")])
    }

    fn open(
        settings: &Settings,
        _context: Context,
        http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError> {
        let body: Body = read_body(&http.body)?;
        Ok(OpenedCall::Completion {
            model: settings.model.clone(),
            choices: 1,
            request: Box::new(request(vec![message(Role::User, Some(Content::Text(body.prompt)))])),
            call: Call,
        })
    }

    fn render_error(failure: Failure) -> HttpResponse {
        text_reply(failure.status, &(failure.message + "\n"))
    }

    fn begin(&mut self) -> Option<HttpHead> {
        Some(HttpHead {
            status: 200,
            content_type: "text/plain".into(),
            headers: Vec::new(),
        })
    }

    fn take(&mut self, _choice: u32, deltas: Vec<Delta>) -> String {
        let texts = deltas.into_iter().filter_map(|delta| match delta {
            Delta::Content(text) => Some(text),
            _ => None,
        });
        texts.collect()
    }

    fn finish(&mut self) -> String {
        "\n".into()
    }

    fn fail(&mut self, failure: Failure) -> String {
        format!("\n{}\n", failure.message)
    }
}

export_dialect!(Call);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_reaches_the_client() {
        let deltas = ["Hel", "lo"].map(|text| Delta::Content(text.into()));
        let mut deltas = deltas.to_vec();
        deltas.insert(1, Delta::Reasoning("hm".into()));
        assert_eq!(Call.take(0, deltas), "Hello");
    }
}
