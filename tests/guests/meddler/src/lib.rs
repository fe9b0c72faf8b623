//! A transform that does what its configuration tells it, good or bad: for the tests of chains.
//!
//! `{"at": "take", "do": "spin"}` spins in `take`. A message `#trap` is a trap in `open`. The other settings say what it does to requests and answers.

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    ApiError, Content, Context, Decision, Delta, Description, Ending, ErrorKind, FinishReason,
    Function, Opened, Outcome, Problem, Reply, Request, Step, Tool, ToolCallDelta, Transform,
    failure, outcome,
};

/// What to do, and when.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The function in which it happens.
    pub at: String,
    /// What happens.
    pub r#do: String,
    /// Put before the last message.
    pub prefix: String,
    /// The answer, without a backend.
    pub answer: String,
    /// Put around the answer's text in brackets.
    pub mark: String,
    /// The answer ends after so many pieces.
    pub end_after: usize,
    /// A function that is declared beside the client's.
    pub function: String,
}

/// It watches an answer.
#[derive(Debug)]
pub struct Meddler {
    behaviour: Behaviour,
    pieces: usize,
}

impl Behaviour {
    fn is(&self, at: &str, what: &str) -> bool {
        self.at == at && self.r#do == what
    }

    fn behave(&self, here: &str) {
        if self.at != here {
            return;
        }
        hostile_deeds::act(&self.r#do);
    }

    /// Countless or bad pieces of an answer, where that is the deed.
    fn pieces(&self, here: &str) -> Vec<Delta> {
        if self.at != here {
            return Vec::new();
        }
        let text = hostile_deeds::text(&self.r#do).map(Delta::Content);
        let empty = Delta::Content(String::new());
        let mut pieces = vec![empty; hostile_deeds::count(&self.r#do)];
        pieces.extend(text);
        pieces
    }
}

impl Transform for Meddler {
    type Settings = Behaviour;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Behaviour>(),
            ..harness_guest::description("meddler", "1.0.0", "does what its configuration tells it")
        }
    }

    fn configure(config: &str) -> Result<Behaviour, Vec<Problem>> {
        let behaviour: Behaviour = harness_guest::settings(config)?;
        behaviour.behave("configure");
        if let Some(Delta::Content(message)) = behaviour.pieces("configure").pop() {
            let key = String::new();
            return Err(vec![Problem { key, message }]);
        }
        Ok(behaviour)
    }

    fn open(
        behaviour: &Behaviour,
        _context: Context,
        mut request: Request,
    ) -> Result<Opened<Self>, ApiError> {
        behaviour.behave("open");
        if behaviour.is("open", "refuse") {
            return Err(failure(ErrorKind::Refused, "not this one"));
        }
        if behaviour.is("open", "empty") {
            request.messages.clear();
        }
        if let Some(Delta::Content(text)) = behaviour.pieces("open").pop() {
            request.messages[0].content = Some(Content::Text(text));
        }
        if behaviour.is("open", "many") {
            request.messages = vec![request.messages.remove(0); 200_000];
        }
        if let Some(message) = request.messages.last_mut()
            && let Some(Content::Text(text)) = &mut message.content
        {
            if text == "#trap" {
                std::process::abort();
            }
            text.insert_str(0, &behaviour.prefix);
        }
        if !behaviour.function.is_empty() {
            request.tools.push(Tool::Function(Function {
                name: behaviour.function.clone(),
                description: None,
                parameters: None,
                strict: false,
                extra: None,
            }));
        }
        Ok(Opened {
            decision: match behaviour.answer.as_str() {
                "" => Decision::Rewrite(request),
                text => Decision::Answer(Reply {
                    deltas: vec![Delta::Content(text.into())],
                    outcome: outcome(FinishReason::Stop),
                }),
            },
            filter: Some(Meddler {
                behaviour: behaviour.clone(),
                pieces: 0,
            }),
        })
    }

    fn take(&mut self, mut deltas: Vec<Delta>) -> Step {
        self.behaviour.behave("take");
        if self.behaviour.is("take", "fail") {
            return Step::Fail(failure(ErrorKind::Refused, "not this answer"));
        }
        deltas.extend(self.behaviour.pieces("take"));
        if self.behaviour.is("take", "bad-call") {
            deltas.push(Delta::ToolCall(ToolCallDelta {
                index: 7,
                id: None,
                name: None,
                arguments: "{}".into(),
            }));
        }
        self.pieces += deltas.len();
        let mark = &self.behaviour.mark;
        for delta in &mut deltas {
            if let Delta::Content(text) = delta
                && !mark.is_empty()
            {
                *text = format!("[{mark} {text}]");
            }
        }
        match self.behaviour.end_after {
            most if most > 0 && self.pieces >= most => Step::End(Ending {
                deltas,
                ..harness_guest::ending(FinishReason::Stop)
            }),
            _ => Step::Forward(deltas),
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Result<Ending, ApiError> {
        self.behaviour.behave("finish");
        if self.behaviour.is("finish", "fail") {
            return Err(failure(ErrorKind::Refused, "not this end"));
        }
        Ok(Ending {
            deltas: self.behaviour.pieces("finish"),
            ..harness_guest::ending(outcome.finish_reason)
        })
    }
}

harness_guest::export_transform!(Meddler);
