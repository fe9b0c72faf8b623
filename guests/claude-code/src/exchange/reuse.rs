//! How a process that has answered serves another request.
//!
//! ```text
//! resume ──► the results that the process waits for ──► the answer
//!        ──► what is taken back ──► its confirmations ──► turns, as in a fresh process
//! ```

use harness_guest::{Effect, FinishReason, Held, HeldTurn, Resumption, Wanted};

use super::{Exchange, Stage};
use crate::block::Block;
use crate::input;
use crate::line::{ControlResponse, Line, McpMessage};
use crate::session::{self, Memo, PendingCall};

/// How the ids of requests to take something back begin.
const REWIND: &str = "rewind-";

impl Exchange {
    /// What the session must hold, so that this request can go on in it.
    pub fn want(&self) -> Option<Wanted> {
        let conversation = &self.conversation;
        let (question, before) = conversation.turns.split_last()?;
        Some(Wanted {
            opening: session::opening(&conversation.system, self.answer.spec())?,
            turns: session::rounds(before)?,
            results: session::results(question).unwrap_or_default(),
        })
    }

    /// What the session holds now, if the turn is over or waits for results.
    pub fn hold(&self) -> Option<Held> {
        let waits = match self.finished? {
            FinishReason::Stop => false,
            FinishReason::ToolCalls => true,
            FinishReason::Length | FinishReason::ContentFilter if !self.rest.is_cut => return None,
            FinishReason::Length | FinishReason::ContentFilter => false,
        };
        let conversation = &self.conversation;
        let is_said = self.refused.is_none() && !self.rest.is_cut;
        let said = self.answer.said().filter(|_| is_said);
        let mut keys = match &said {
            Some(blocks) => session::rounds_with(&conversation.turns, blocks)?,
            None if waits => return None,
            // The client cannot say it again, so nothing goes on from here. It can be taken back.
            None => {
                let mut keys = session::rounds(&conversation.turns)?;
                *keys.last_mut()? = format!("unrepeatable {}", self.ids.latest()).into_bytes();
                keys
            }
        };
        let calls = said.iter().flatten().filter_map(Block::call_id);
        let awaited = calls.filter(|_| waits).map(str::to_owned).collect();
        let turns = keys
            .drain(..)
            .zip(&self.rewinds)
            .map(|(key, ids)| HeldTurn {
                key,
                rewind: (!ids.is_empty()).then(|| ids.join(" ")),
            });
        Some(Held {
            opening: session::opening(&conversation.system, self.answer.spec())?,
            turns: turns.collect(),
            awaited,
            memo: Memo {
                spent: self.spent.in_memo(),
                rewinds: self.rewinds.clone(),
                calls: self.calls.clone(),
                waits,
            }
            .to_text(),
        })
    }

    /// Goes on in a session that holds what was wanted, or more.
    pub fn resume(&mut self, resumption: &Resumption) -> Vec<Effect> {
        let memo = Memo::from_text(&resumption.memo);
        let kept = resumption.kept as usize;
        self.spent = session::Spent::from_memo(memo.spent);
        self.is_resumed = true;
        for (mine, theirs) in self.rewinds.iter_mut().zip(memo.rewinds).take(kept) {
            *mine = theirs;
        }
        let mut effects = Vec::new();
        let rounds = session::beginnings(&self.conversation.turns);
        if memo.waits && resumption.rewinds.is_empty() {
            self.hand_in(&memo.calls, &mut effects);
            return effects;
        }
        self.written = match rounds.get(kept) {
            Some(at) => *at,
            // The question goes on with the last round, which the session holds as far as it goes.
            None => self.conversation.turns.len().saturating_sub(1),
        };
        let ids = resumption.rewinds.iter().flat_map(|ids| ids.split(' '));
        for (i, id) in ids.enumerate() {
            let request = format!("{REWIND}{id}");
            let interrupts = memo.waits && i == 0;
            effects.push(Effect::Write(input::rewind(&request, id, interrupts)));
            self.to_rewind.push(request);
        }
        match self.to_rewind.is_empty() {
            true => self.write_turns(&mut effects),
            false => self.stage = Stage::Rewinding,
        }
        effects
    }

    /// Brings the CLI to rest after an answer that ended before its turn did. The turn can then be taken back.
    pub fn interrupt(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.rest.is_cut = true;
        match (self.stage, self.finished) {
            (Stage::Answering, _) | (Stage::Done, Some(_)) => {}
            _ => {
                self.fail_backend(&mut effects, "there is no turn to end");
                return effects;
            }
        }
        self.stage = Stage::Interrupting;
        match self.rest.is_over {
            true => self.finish_cut(&mut effects),
            false => effects.push(Effect::Write(input::interrupt())),
        }
        effects
    }

    /// A line after the turn was told to end. That it is over, and that it was told to, come in either order.
    pub(super) fn interrupting(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        match &*line.r#type {
            "result" => {
                self.rest.is_over = true;
                self.spent.in_all(line.total_cost_usd);
            }
            "control_response" => {
                let response = line.response.as_ref();
                let is_about_it = |r: &ControlResponse| r.request_id == input::INTERRUPT;
                self.rest.is_told |= response.is_some_and(is_about_it);
            }
            _ => {}
        }
        if self.rest.is_over && self.rest.is_told {
            self.finish_cut(effects);
        }
    }

    fn finish_cut(&mut self, effects: &mut Vec<Effect>) {
        let reason = self.finished.unwrap_or(FinishReason::Stop);
        // Calls of a turn that was ended are not waited for.
        let reason = match reason {
            FinishReason::ToolCalls => FinishReason::Stop,
            reason => reason,
        };
        self.finish(reason, None, effects);
    }

    /// Answers the calls that the process waits for. It asks for some only after it has the results of others.
    fn hand_in(&mut self, calls: &[PendingCall], effects: &mut Vec<Effect>) {
        self.stage = Stage::HandingIn;
        self.written = self.conversation.turns.len();
        self.answer.goes_on_after_calls();
        let question = self.conversation.turns.last();
        self.to_answer = question.and_then(session::results).unwrap_or_default();
        for call in calls {
            if !self.answer_call(&call.request, &call.message(), effects) {
                return self.unfit("it does not say which result it waits for", effects);
            }
        }
    }

    /// Answers a call with its result. False if the request does not bring that.
    fn answer_call(
        &mut self,
        request: &str,
        message: &McpMessage,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let id = message.params.meta.tool_use_id.as_deref();
        let question = self.conversation.turns.last().into_iter();
        let result = question
            .flat_map(|turn| &turn.blocks)
            .find_map(|block| match block {
                Block::ToolResult {
                    tool_use_id,
                    content,
                } if Some(tool_use_id.as_str()) == id => Some(content),
                _ => None,
            });
        match result {
            Some(content) => {
                effects.push(Effect::Write(input::call_result(request, message, content)));
                self.to_answer.retain(|call| Some(call.as_str()) != id);
                self.answered.push(request.to_owned());
                true
            }
            None => false,
        }
    }

    /// A line while the results are handed in. Those of the message that called may still come; the next message is
    /// the answer.
    pub(super) fn handing_in(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        if line.r#type == "control_cancel_request" {
            // That a call of a turn that was taken back is waited for no longer may come late.
            let is_about = |id: &str| self.answered.iter().any(|answered| answered == id);
            if line.request_id.as_deref().is_none_or(is_about) {
                self.unfit("it waits no longer for a result", effects);
            }
            return;
        }
        let begins = line.event.as_ref();
        if begins.is_none_or(|event| event.r#type != "message_start") {
            return;
        }
        if !self.to_answer.is_empty() {
            return self.unfit("it went on without a result", effects);
        }
        self.stage = Stage::Answering;
        self.answering(line, effects);
    }

    /// The CLI asks for the result of a call while results are handed in.
    pub(super) fn call_while_handing_in(
        &mut self,
        request: &str,
        message: &McpMessage,
        effects: &mut Vec<Effect>,
    ) {
        if !self.answer_call(request, message, effects) {
            self.unfit("it waits for another result than it said", effects);
        }
    }

    /// Takes note of a call whose result the process waits for.
    pub(super) fn call_is_pending(&mut self, request: &str, message: &McpMessage) {
        self.calls.push(PendingCall::new(request, message));
    }

    /// The CLI says whether something was taken back.
    pub(super) fn rewound(&mut self, response: &ControlResponse, effects: &mut Vec<Effect>) {
        let asked = self
            .to_rewind
            .iter()
            .position(|id| *id == response.request_id);
        let Some(asked) = asked else {
            if !self.answer.has_begun() {
                self.unfit("it answered twice", effects);
            }
            return;
        };
        let answer = response.response.as_ref();
        if answer.and_then(|answer| answer.rewound) != Some(true) {
            let why = answer.and_then(|answer| answer.error.as_deref());
            let why = why
                .or(response.error.as_deref())
                .unwrap_or("no reason given");
            return self.unfit(&format!("it did not take back a turn: {why}"), effects);
        }
        self.to_rewind.remove(asked);
        if self.to_rewind.is_empty() {
            self.stage = Stage::Replaying;
            self.write_turns(effects);
        }
    }

    /// Whether a response is about something that is to be taken back.
    pub(super) fn is_about_rewind(&self, response: &ControlResponse) -> bool {
        self.is_resumed && response.request_id.starts_with(REWIND)
    }

    /// The process is of no use for this request.
    pub(super) fn unfit(&mut self, why: &str, effects: &mut Vec<Effect>) {
        self.stage = Stage::Done;
        effects.push(Effect::Unfit(why.into()));
    }
}
