//! Describes what a session of the CLI holds, by keys. A request can go on in a session that has the same keys as
//! the request's earlier conversation.

use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::conversation::{Speaker, Turn};
use crate::functions::Function;
use crate::request::OutputSpec;

/// What is fixed when a session begins.
#[derive(Serialize)]
struct Opening<'a> {
    system: &'a [String],
    functions: &'a [Function],
}

#[derive(Serialize)]
struct SessionTurn<'a> {
    by_model: bool,
    blocks: &'a [Block],
}

/// The key of what is fixed when a session begins: its system prompts and its functions.
pub(crate) fn opening(system: &[String], spec: &OutputSpec) -> Option<Vec<u8>> {
    let functions = &spec.functions.declared;
    serde_json::to_vec(&Opening { system, functions }).ok()
}

/// The keys of turns.
pub(crate) fn turns(turns: &[Turn]) -> Option<Vec<Vec<u8>>> {
    let keys = turns.iter().map(|turn| SessionTurn {
        by_model: turn.speaker == Speaker::Assistant,
        blocks: &turn.blocks,
    });
    keys.map(|turn| serde_json::to_vec(&turn).ok()).collect()
}

/// The key of the model's answer. None if the answer is blank, because a blank text is never sent back to the CLI.
pub(crate) fn answer(text: &str) -> Option<Vec<u8>> {
    let turn = SessionTurn {
        by_model: true,
        blocks: &[Block::text(text.to_owned())?],
    };
    serde_json::to_vec(&turn).ok()
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
