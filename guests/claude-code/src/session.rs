//! Describes what a session of the CLI holds. If a request's earlier conversation has the same description, the
//! request can go on in that session.

use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::conversation::{Speaker, Turn};
use crate::functions::Function;
use crate::request::OutputSpec;

/// Everything that a session was told and has said. Two that are equal hold the same.
#[derive(Serialize)]
struct Session<'a> {
    system: &'a [String],
    functions: &'a [Function],
    turns: Vec<SessionTurn<'a>>,
}

#[derive(Serialize)]
struct SessionTurn<'a> {
    by_model: bool,
    blocks: &'a [Block],
}

/// The description of a session: its system prompts, its functions, its turns, and the `answer` to the last
/// turn. None if the answer is blank, because a blank text is never sent back to the CLI.
pub(crate) fn words(
    system: &[String],
    spec: &OutputSpec,
    turns: &[Turn],
    answer: Option<&str>,
) -> Option<Vec<u8>> {
    let answer = match answer {
        Some(text) => Some([Block::text(text.to_owned())?]),
        None => None,
    };
    let asked = turns.iter().map(|turn| SessionTurn {
        by_model: turn.speaker == Speaker::Assistant,
        blocks: &turn.blocks,
    });
    let answered = answer.iter().map(|blocks| SessionTurn {
        by_model: true,
        blocks,
    });
    let session = Session {
        system,
        functions: &spec.functions.declared,
        turns: asked.chain(answered).collect(),
    };
    serde_json::to_vec(&session).ok()
}

/// What a session has cost, in US dollars. The CLI adds up all of its turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    before: f64,
    in_all: Option<f64>,
}

impl Spent {
    /// At the start of another exchange in a session whose last one left this memo.
    pub(crate) fn from_memo(memo: &str) -> Self {
        Spent {
            before: memo.parse().unwrap_or(0.0),
            in_all: None,
        }
    }

    /// The cost so far, for the next exchange in this session.
    pub(crate) fn memo(self) -> String {
        self.in_all.unwrap_or(self.before).to_string()
    }

    /// The CLI says what the session has cost.
    pub(crate) fn in_all(&mut self, cost_usd: Option<f64>) {
        self.in_all = cost_usd;
    }

    /// What this exchange has cost.
    pub(crate) fn now(self) -> Option<f64> {
        Some((self.in_all? - self.before).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_costs_what_it_added() {
        let mut first = Spent::default();
        assert_eq!(first.now(), None);
        first.in_all(Some(0.25));
        let mut second = Spent::from_memo(&first.memo());
        second.in_all(Some(1.0));
        assert_eq!((first.now(), second.now()), (Some(0.25), Some(0.75)));
        assert_eq!(Spent::from_memo("?").memo(), "0");
    }
}
