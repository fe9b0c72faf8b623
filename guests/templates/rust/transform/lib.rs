//! A transform: it gives the model an instruction, and signs each answer.

use harness_guest::{
    ApiError, Content, Context, Decision, Delta, Description, Ending, Message, Opened, Outcome,
    Problem, Request, Role, Transform, description, ending, export_transform, message,
};
use harness_guest::schemars::JsonSchema;
use serde::Deserialize;

/// What `config` holds, in `[guests.NAME]` or where a model uses this guest.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A system message that goes before all others.
    instruction: Option<String>,
    /// A line that goes behind each answer.
    signature: Option<String>,
}

/// Watches one answer.
pub struct Signs(String);

impl Transform for Signs {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Settings>(),
            ..description("NAME", env!("CARGO_PKG_VERSION"), "instructs and signs")
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        harness_guest::settings(config)
    }

    fn open(
        settings: &Settings,
        _context: Context,
        mut request: Request,
    ) -> Result<Opened<Self>, ApiError> {
        let decision = match settings.instruction.clone() {
            None => Decision::Pass,
            Some(text) => {
                request.messages.insert(0, system(text));
                Decision::Rewrite(request)
            }
        };
        Ok(Opened {
            decision,
            filter: settings.signature.clone().map(Signs),
        })
    }

    // `take` is not written here, so the pieces of the answer pass as they come.

    fn finish(&mut self, outcome: Outcome) -> Result<Ending, ApiError> {
        Ok(Ending {
            deltas: vec![Delta::Content(format!("\n{}", self.0))],
            ..ending(outcome.finish_reason)
        })
    }
}

fn system(text: String) -> Message {
    message(Role::System, Some(Content::Text(text)))
}

export_transform!(Signs);

#[cfg(test)]
mod tests {
    use super::*;
    use harness_guest::testing;

    #[test]
    fn the_instruction_is_the_first_message() {
        let settings = Signs::configure(r#"{"instruction":"Be brief."}"#).unwrap();
        let body = serde_json::json!({"messages": [{"role": "user", "content": "Hi"}]});
        let request = testing::request(&body);
        let opened = Signs::open(&settings, testing::context("m"), request).unwrap();
        let Decision::Rewrite(request) = opened.decision else {
            panic!("it did not rewrite");
        };
        assert_eq!(request.messages.len(), 2);
        assert_eq!(request.messages[0].role, Role::System);
    }
}
