//! An adapter for a program that reads a conversation from its standard input, and prints the answer.

use harness_guest::{
    Adapter, ApiError, Content, Context, Delta, Description, Effect, ErrorKind, FinishReason, Part,
    Problem, Request, Role, description, export_adapter, failure, outcome,
};
use harness_guest::schemars::JsonSchema;
use serde::Deserialize;

/// What `config` holds, in `[guests.NAME]` or in the backend's `adapter`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The last line of the prompt, behind which the program goes on.
    cue: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cue: "assistant:".into(),
        }
    }
}

/// One request on one process.
pub struct Session {
    prompt: String,
}

impl Adapter for Session {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..description("NAME", env!("CARGO_PKG_VERSION"), "writes a conversation line by line")
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn open(settings: &Settings, _context: Context, request: Request) -> Result<Self, ApiError> {
        let mut prompt = String::new();
        for message in request.messages {
            let role = match message.role {
                Role::System | Role::Developer => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            prompt += &format!("{role}: {}\n", text(message.content)?);
        }
        prompt += &format!("{}\n", settings.cue);
        Ok(Session { prompt })
    }

    fn start(&mut self) -> Vec<Effect> {
        vec![
            Effect::Write(std::mem::take(&mut self.prompt)),
            Effect::CloseInput,
        ]
    }

    /// The profile `generic` hands on what the program prints as it comes.
    fn output(&mut self, pieces: Vec<String>) -> Vec<Effect> {
        let pieces = pieces.into_iter();
        pieces
            .map(|piece| Effect::Emit(Delta::Content(piece)))
            .collect()
    }

    fn exit(&mut self, status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        vec![match status {
            Some(0) => Effect::Finish(outcome(FinishReason::Stop)),
            _ => Effect::Fail(failure(ErrorKind::BackendFailed, "the program failed")),
        }]
    }
}

/// The text of a message.
fn text(content: Option<Content>) -> Result<String, ApiError> {
    match content {
        None => Ok(String::new()),
        Some(Content::Text(text)) => Ok(text),
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .map(|part| match part {
                Part::Text(part) => Ok(part.text),
                _ => Err(failure(
                    ErrorKind::UnsupportedParameter,
                    "this model takes text only",
                )),
            })
            .collect(),
    }
}

export_adapter!(Session);

#[cfg(test)]
mod tests {
    use super::*;
    use harness_guest::testing;

    #[test]
    fn the_prompt_ends_with_the_cue() {
        let body = serde_json::json!({"messages": [{"role": "user", "content": "Hi"}]});
        let request = testing::request(&body);
        let settings = Settings::default();
        let session = Session::open(&settings, testing::context("m"), request).unwrap();
        assert_eq!(session.prompt, "user: Hi\nassistant:\n");
    }
}
