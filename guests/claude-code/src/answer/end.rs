//! How a turn ends: with what was asked for, or not.

use harness_guest::{ApiError, Delta, ErrorKind, FinishReason, failure};

use super::{Answer, Step, finish_reason};
use crate::failure::no_structure;
use crate::functions::{Choice, full_name};
use crate::line::Line;
use crate::request::Format;
use crate::text::ObjectFinder;

impl Answer {
    /// The turn is over, and well.
    pub fn turn_end(&mut self, line: &Line, out: &mut Vec<Delta>) -> Step {
        if let Some(usage) = line.usage.as_ref().filter(|_| !self.is_rest_of_turn) {
            self.tokens.turn_ended(usage);
        }
        if self.lacks_call() {
            let tool = match &self.spec.functions.choice {
                Choice::Named(name) => format!("the tool `{}`", full_name(name)),
                _ => "one of the tools".to_owned(),
            };
            let error = failure(
                ErrorKind::ToolChoiceNotHonoured,
                "the model called no function though `tool_choice` wants one and it was asked once more: ask again",
            );
            return self.ask_again(format!("Call {tool} now."), error);
        }
        match self.spec.format {
            Format::Schema(_) => self.structured_end(out),
            Format::Object => self.object_end(),
            Format::Text => {
                // A command of the CLI's own, or a turn that it dropped, has a result but no message.
                if !self.shown && self.messages == 0 {
                    self.show(line.result.as_deref().unwrap_or_default().to_owned(), out);
                }
                if line.stop_reason.as_deref() == Some("end_turn") {
                    self.repeatable.is_done();
                }
                Step::Finish(finish_reason(line.stop_reason.as_deref()))
            }
        }
    }

    fn structured_end(&mut self, out: &mut Vec<Delta>) -> Step {
        let kept = std::mem::take(&mut self.structured.kept);
        if !kept.is_empty() || self.structured.shown {
            self.show(kept, out);
            return Step::Finish(FinishReason::Stop);
        }
        // The model may have written the object as text, instead of calling the tool for structured answers.
        let mut finder = ObjectFinder::default();
        let object = finder.push(&self.held).to_owned();
        if !finder.is_complete() {
            return Step::Fail(no_structure());
        }
        self.show(object, out);
        Step::Finish(FinishReason::Stop)
    }

    fn object_end(&mut self) -> Step {
        if self.object.is_complete() {
            return Step::Finish(FinishReason::Stop);
        }
        let error = failure(
            ErrorKind::InvalidJson,
            "the model gave no complete JSON object: ask again",
        );
        if self.object.has_begun() {
            return Step::Fail(error);
        }
        let words = "Answer again, with one valid JSON object and nothing else.";
        self.ask_again(words.into(), error)
    }

    fn ask_again(&mut self, words: String, or: ApiError) -> Step {
        if self.asked_again {
            return Step::Fail(or);
        }
        self.asked_again = true;
        self.tokens.next_turn();
        self.begin();
        self.messages = 0;
        Step::AskAgain(words)
    }
}
