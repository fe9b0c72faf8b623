//! What of an answer a client can send back word for word.

use crate::block::Block;
use crate::functions;
use crate::line::BlockStart;

/// What the model said, as far as a client can send it back.
#[derive(Debug, Default)]
pub(super) struct Repeatable {
    /// Texts and calls, in their order.
    said: Vec<Said>,
    /// There was something else that is not thinking either.
    is_odd: bool,
    /// The turn ended, and the model was done.
    is_done: bool,
}

/// A text or a call.
#[derive(Debug)]
enum Said {
    Text(String),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

impl Repeatable {
    pub(super) fn text_begins(&mut self) {
        self.said.push(Said::Text(String::new()));
    }

    pub(super) fn call_begins(&mut self, start: &BlockStart) {
        self.said.push(Said::Call {
            id: start.id.to_string(),
            name: start.name.to_string(),
            arguments: String::new(),
        });
    }

    /// A piece of the text that began last.
    pub(super) fn text(&mut self, piece: &str) {
        if let Some(Said::Text(text)) = self.said.last_mut() {
            text.push_str(piece);
        }
    }

    /// A piece of the arguments of the call that began last.
    pub(super) fn arguments(&mut self, piece: &str) {
        if let Some(Said::Call { arguments, .. }) = self.said.last_mut() {
            arguments.push_str(piece);
        }
    }

    /// There was something that no client can send back.
    pub(super) fn is_odd(&mut self) {
        self.is_odd = true;
    }

    /// The turn ended, and the model was done.
    pub(super) fn is_done(&mut self) {
        self.is_done = true;
    }

    /// As the client sends it back: at most one text, and calls behind it.
    pub(super) fn blocks(&self) -> Option<Vec<Block>> {
        let is_call = |said: &Said| matches!(said, Said::Call { .. });
        let is_over = self.is_done || self.said.iter().any(is_call);
        let only_calls = self.said.iter().skip(1).all(is_call);
        if self.said.is_empty() || self.is_odd || !is_over || !only_calls {
            return None;
        }
        self.said.iter().map(Said::block).collect()
    }
}

impl Said {
    /// As a client sends it back. None for a blank text, which is never sent back.
    fn block(&self) -> Option<Block> {
        match self {
            Said::Text(text) => Block::text(text.clone()),
            Said::Call {
                id,
                name,
                arguments,
            } => Some(Block::ToolUse {
                id: id.clone(),
                name: name.clone(),
                // The CLI itself answers a call whose arguments are no object, and goes on.
                input: functions::arguments(arguments)
                    .filter(|_| functions::is_object(arguments))?,
            }),
        }
    }
}
