//! Recorded dialogues between the host and a guest, which a new component must repeat before it serves.
//!
//! A case is a file of JSON lines. A line with `call` is what the host does; the lines behind it are what the guest
//! did then:
//!
//! ```text
//! {"call":"configure","config":{"mark":"!"}}
//! {"call":"open","request":{"messages":[{"role":"user","content":"Hi"}]}}
//! {"pass":true,"filter":true}
//! {"call":"take","deltas":[{"content":"Hello"}]}
//! {"forward":[{"content":"Hello!"}]}
//! ```

mod dialogue;
mod recording;
mod scrub;
mod words;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use basics::ownership;
use basics::plain;
use basics::text_file;
use serde_json::Value;

use crate::admit::Guest;
use crate::request::Request;
use dialogue::Dialogue;
pub(crate) use recording::Tape;
pub use recording::{NoCase, OnRecorded, Recording};
use words::Call;

/// The most cases of a guest.
const CASES_MAX: usize = 200;

/// The longest line that a message quotes, in characters.
const QUOTED_MAX: usize = 300;

/// Reads the body of a chat completion.
pub type ReadRequest = fn(&str) -> Result<Request, String>;

/// A recorded dialogue.
#[derive(Debug)]
pub struct Case {
    /// The name of its file.
    pub name: String,
    lines: Vec<Line>,
}

/// A line of a case, as it is in the file.
#[derive(Debug)]
struct Line {
    number: usize,
    json: Value,
}

/// What a guest did in a case.
#[derive(Debug)]
pub struct Replayed {
    /// The case as it is now.
    pub text: String,
    /// Where it differs first from what was recorded.
    pub difference: Option<Difference>,
}

/// The first line that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line's number in the file, from 1.
    pub line: usize,
    /// What was recorded, if anything.
    pub recorded: Option<String>,
    /// What the guest does now, if anything.
    pub now: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quoted = |line: &Option<String>| match line {
            Some(line) => plain::line(line, QUOTED_MAX),
            None => "nothing".to_owned(),
        };
        let (recorded, now) = (quoted(&self.recorded), quoted(&self.now));
        write!(f, "line {}: recorded {recorded}, now {now}", self.line)
    }
}

/// Why a case could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The folder cannot be read.
    #[error("cannot read {0}: {1}")]
    Folder(String, io::Error),
    /// A file cannot be read, or others can change it.
    #[error("{0}")]
    File(String),
    /// There are too many cases.
    #[error("{0} has more than {CASES_MAX} cases")]
    TooMany(String),
    /// A line is not as a case's lines are.
    #[error("{case}, line {line}: {what}")]
    Line {
        /// The case.
        case: String,
        /// The number of the line.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// The cases in a folder, in the order of their names. A folder that is missing has none.
///
/// # Errors
///
/// Fails if the folder or one of its files cannot be read, or if others can change it.
pub fn read_folder(folder: &Path) -> Result<Vec<Case>, CaseError> {
    let unreadable = |error| CaseError::Folder(folder.display().to_string(), error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    ownership::check(folder).map_err(|error| unreadable(io::Error::other(error)))?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension() != Some("jsonl".as_ref()) {
            continue;
        }
        if cases.len() == CASES_MAX {
            return Err(CaseError::TooMany(folder.display().to_string()));
        }
        let text = text_file::read(&path).map_err(CaseError::File)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        cases.push(Case::parse(&name, &text)?);
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

impl Case {
    /// Reads a case from its text.
    ///
    /// # Errors
    ///
    /// Names the line that is not JSON.
    pub fn parse(name: &str, text: &str) -> Result<Self, CaseError> {
        let lines = text.lines().zip(1..);
        let lines = lines.filter(|(line, _)| !line.trim().is_empty());
        let lines = lines.map(|(line, number)| {
            let json = serde_json::from_str(line).map_err(|error| CaseError::Line {
                case: name.to_owned(),
                line: number,
                what: error.to_string(),
            })?;
            Ok(Line { number, json })
        });
        Ok(Case {
            name: name.to_owned(),
            lines: lines.collect::<Result<_, _>>()?,
        })
    }

    /// Has a guest repeat its part.
    ///
    /// # Errors
    ///
    /// Names the line that cannot be replayed.
    pub fn replay(
        &self,
        guest: &Arc<Guest>,
        read_request: ReadRequest,
    ) -> Result<Replayed, CaseError> {
        let mut dialogue = Dialogue::new(guest, read_request);
        let mut replayed = Replayed {
            text: String::new(),
            difference: None,
        };
        let mut lines = self.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let wrong = |what: String| CaseError::Line {
                case: self.name.clone(),
                line: line.number,
                what,
            };
            let call: Call =
                serde_json::from_value(line.json.clone()).map_err(|e| wrong(e.to_string()))?;
            replayed.keep(&line.json);
            let mut last = line.number;
            let is_said = |next: &&Line| next.json.get("call").is_none();
            let done = match dialogue.call(call) {
                // What differs is why the call makes no sense any more.
                Err(_) if replayed.difference.is_some() => Vec::new(),
                done => done.map_err(wrong)?,
            };
            for said in done {
                let recorded = lines.next_if(|next| is_said(next));
                last = recorded.map_or(last, |line| line.number);
                replayed.compare(recorded.map(|line| &line.json), Some(&said), last);
                replayed.keep(&said);
            }
            while let Some(more) = lines.next_if(|next| is_said(next)) {
                replayed.compare(Some(&more.json), None, more.number);
            }
        }
        Ok(replayed)
    }
}

impl Replayed {
    fn keep(&mut self, line: &Value) {
        self.text.push_str(&line.to_string());
        self.text.push('\n');
    }

    fn compare(&mut self, recorded: Option<&Value>, now: Option<&Value>, line: usize) {
        if recorded != now && self.difference.is_none() {
            self.difference = Some(Difference {
                line,
                recorded: recorded.map(Value::to_string),
                now: now.map(Value::to_string),
            });
        }
    }
}
