//! What the client may rely on in an answer, and what is therefore checked before the answer is
//! called done: JSON by a schema, and arguments of functions that are `strict`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use guests::completion::FinishReason;
use processes::{Processes, SpawnError};
use serde::de::IgnoredAny;

use super::answer::Answer;
use crate::failure::{Failure, Kind};
use crate::schema_check::{self, Unsound, Verdict};

/// How long all checks of an answer may take together, whatever `request_timeout` says.
const CHECK_MOST: Duration = Duration::from_secs(10);

/// What an answer is checked against: schemas as text. A separate process compiles them after the request has
/// got its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputSchema {
    /// The schema of its text.
    pub(crate) content: Option<Schema>,
    /// Whether the text must be a JSON object.
    pub(crate) is_object: bool,
    /// The schemas of calls' arguments, by the function's name.
    pub(crate) arguments: HashMap<String, Schema>,
    /// `request_timeout`, which also limits the time of a check.
    limit: Duration,
}

/// A `strict` schema.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// Its place in the request, for messages.
    pub(crate) at: String,
    pub(crate) text: String,
}

impl OutputSchema {
    /// Whether there is nothing to check.
    pub(crate) fn is_empty(&self) -> bool {
        self.content.is_none() && !self.is_object && self.arguments.is_empty()
    }

    /// Sets how long a check of the answer may take.
    pub(crate) fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Makes sure that all schemas can be compiled.
    ///
    /// # Errors
    ///
    /// Names the schema that cannot be compiled.
    pub(crate) async fn prepare(&self, processes: &Processes) -> Result<(), Failure> {
        let schemas: Vec<&Schema> = self.content.iter().chain(self.arguments.values()).collect();
        if schemas.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = schemas.iter().map(|schema| &*schema.text).collect();
        let refused = |at: &str, what: &str| {
            Failure::invalid(at, format!("`{at}` cannot be `strict`: {what}"))
        };
        schema_check::compile(processes, &texts)
            .await
            .map_err(|unsound| match unsound {
                Unsound::Schema(index, what) => {
                    let at = schemas.get(index).map_or("tools", |schema| &schema.at);
                    refused(at, &what)
                }
                Unsound::Costly => refused(
                    &schemas[0].at,
                    "the schemas of this request take too much to compile",
                ),
                Unsound::Broken(error) => not_checked(&error),
            })
    }

    /// Checks an answer. An answer that was cut short or withheld is not checked.
    ///
    /// # Errors
    ///
    /// Says that the answer is not what the client relies on.
    pub(crate) async fn check(
        &self,
        processes: &Processes,
        answer: &Answer,
        reason: FinishReason,
    ) -> Result<(), Failure> {
        // The checks of all calls of an answer share one deadline.
        let deadline = Instant::now() + self.limit.min(CHECK_MOST);
        match reason {
            FinishReason::Length | FinishReason::ContentFilter => Ok(()),
            FinishReason::Stop => {
                let unfit =
                    "the model's answer does not fit the schema of `response_format`: ask again";
                let text = answer.text();
                if self.is_object && !is_object(text) {
                    return Err(schema_not_met(unfit.into()));
                }
                match &self.content {
                    Some(schema) => {
                        self.fits(processes, schema, text, deadline, unfit.into())
                            .await
                    }
                    None => Ok(()),
                }
            }
            FinishReason::ToolCalls => {
                for (name, arguments) in answer.calls() {
                    if let Some(schema) = self.arguments.get(name) {
                        let unfit = format!(
                            "the arguments that the model gives to `{name}` do not fit the schema of its parameters: ask again"
                        );
                        self.fits(processes, schema, arguments, deadline, unfit)
                            .await?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn fits(
        &self,
        processes: &Processes,
        schema: &Schema,
        text: &str,
        deadline: Instant,
        unfit: String,
    ) -> Result<(), Failure> {
        match schema_check::check(
            processes,
            &schema.text,
            text,
            deadline.saturating_duration_since(Instant::now()),
        )
        .await
        {
            Verdict::Fits => Ok(()),
            Verdict::Unfit => Err(schema_not_met(unfit)),
            Verdict::Costly => Err(schema_not_met(format!(
                "to check the answer against `{}` takes more than {:?}, or more memory than it may: use simpler patterns and references, or leave out `strict`",
                schema.at,
                self.limit.min(CHECK_MOST)
            ))),
            Verdict::Broken(error) => Err(not_checked(&error)),
        }
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn schema_not_met(message: String) -> Failure {
    let mut failure = Failure::new(Kind::Backend, message);
    failure.code = Some("schema_not_met");
    failure
}

fn not_checked(error: &SpawnError) -> Failure {
    let message = "the schemas of the request could not be checked";
    Failure::new(Kind::Internal, message)
        .with_detail(error.to_string())
        .logged()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_object_is_json() {
        assert!(
            is_object(" {\"a\":[1]} ") && !is_object("[1]") && !is_object("{") && !is_object("")
        );
    }
}
