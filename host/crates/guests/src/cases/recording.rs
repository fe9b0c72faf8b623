//! Records what the host asks of a guest for one request, and makes a case of it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::scrub::Scrubber;
use super::words::{self, CaseContext};
use super::{Case, CaseError, ReadRequest};
use crate::admit::Guest;
use crate::completion::{Context, Delta, Outcome, Resumption};
use crate::instance::Configured;
use crate::request::{Request, chat_json};

/// The longest recording, in bytes: a case is a small file that people read.
const RECORDING_MAX: usize = 1 << 20;

/// Gets the calls of a recorded request, once the request is over.
pub type OnRecorded = Box<dyn FnOnce(Recording) + Send>;

/// What the host asked of a guest for one request.
#[derive(Debug, Default)]
pub struct Recording {
    calls: Vec<Value>,
    is_too_long: bool,
}

/// Why no case was made of a recording.
#[derive(Debug, thiserror::Error)]
pub enum NoCase {
    /// The request or its answer is too long.
    #[error("the request and its answer are longer than {} KiB: record a shorter one", RECORDING_MAX >> 10)]
    TooLong,
    /// Without its content, the dialogue is another one.
    #[error(
        "with its content replaced, the guest does something else at line {0}: record it with its content, or another request"
    )]
    NeedsContent(usize),
    /// The guest cannot repeat it.
    #[error(transparent)]
    Case(#[from] CaseError),
}

/// Records a request. Who asked for it gets the recording when this is dropped.
pub(crate) struct Tape {
    recording: Recording,
    size: usize,
    on_recorded: Option<OnRecorded>,
}

impl Tape {
    pub(crate) fn new(on_recorded: OnRecorded) -> Self {
        Tape {
            recording: Recording::default(),
            size: 0,
            on_recorded: Some(on_recorded),
        }
    }

    /// Takes note of the beginning of a request.
    pub(crate) fn begins(&mut self, of: &Configured, context: &Context, request: &Request) {
        let config: Value = serde_json::from_str(&of.config).unwrap_or_default();
        self.note(json!({"call": "configure", "config": config}));
        let context = CaseContext::from(context);
        let request = chat_json::body(request);
        self.note(json!({"call": "open", "context": context, "request": request}));
    }

    /// Takes note of pieces of an answer.
    pub(crate) fn takes(&mut self, deltas: &[Delta]) {
        let deltas = words::pieces(deltas.to_vec());
        self.note(json!({"call": "take", "deltas": deltas}));
    }

    /// Takes note of the end of an answer.
    pub(crate) fn finishes(&mut self, outcome: &Outcome) {
        let mut call = words::outcome_of(outcome);
        call["call"] = "finish".into();
        self.note(call);
    }

    /// Takes note of how a session goes on with a process.
    pub(crate) fn resumes(&mut self, resumption: &Resumption) {
        let Resumption {
            memo,
            kept,
            rewinds,
        } = resumption;
        self.note(json!({"call": "resume", "memo": memo, "kept": kept, "rewinds": rewinds}));
    }

    /// Takes note of a call.
    pub(crate) fn note(&mut self, call: Value) {
        self.size += call.to_string().len();
        self.recording.is_too_long |= self.size > RECORDING_MAX;
        if !self.recording.is_too_long {
            self.recording.calls.push(call);
        }
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        if let Some(on_recorded) = self.on_recorded.take() {
            on_recorded(std::mem::take(&mut self.recording));
        }
    }
}

impl Recording {
    /// The text of a case: the calls, and what the guest does at each. Unless `keeps_content`, what people and models
    /// said is replaced by letters without a meaning.
    ///
    /// # Errors
    ///
    /// Fails if the recording is too long, or if the guest does something else without the content.
    pub fn case(
        self,
        guest: &Arc<Guest>,
        keeps_content: bool,
        read_request: ReadRequest,
    ) -> Result<String, NoCase> {
        if self.is_too_long {
            return Err(NoCase::TooLong);
        }
        let as_it_was = replayed(&self.calls, guest, read_request)?;
        if keeps_content {
            return Ok(as_it_was);
        }
        let mut scrubber = Scrubber::default();
        let calls: Vec<Value> = self.calls.iter().map(|call| scrubber.call(call)).collect();
        let scrubbed = replayed(&calls, guest, read_request)?;
        let kinds = |text: &str| text.lines().map(kind).collect::<Vec<_>>();
        let (was, is) = (kinds(&as_it_was), kinds(&scrubbed));
        let differs = was.iter().zip(&is).position(|(was, is)| was != is);
        match differs.or((was.len() != is.len()).then_some(was.len().min(is.len()))) {
            Some(line) => Err(NoCase::NeedsContent(line + 1)),
            None => Ok(scrubbed),
        }
    }
}

fn replayed(
    calls: &[Value],
    guest: &Arc<Guest>,
    read_request: ReadRequest,
) -> Result<String, CaseError> {
    let lines: Vec<String> = calls.iter().map(Value::to_string).collect();
    let case = Case::parse("recording", &lines.join("\n"))?;
    Ok(case.replay(guest, read_request)?.text)
}

/// What a line of a case is: its keys, without what they hold.
fn kind(line: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(line).unwrap_or_default();
    let keys = json.as_object().into_iter().flatten();
    keys.map(|(key, value)| match value {
        Value::Object(fields) => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            format!("{key}: {}", names.join(" "))
        }
        _ => key.clone(),
    })
    .collect()
}
