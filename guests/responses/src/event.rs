//! The events of a stream, and how they are written.

use harness_guest::json_line;
use serde::Serialize;

use crate::item::{Item, Kind, Part, WrittenItem};
use crate::response::WrittenResponse;

/// Events that wait to be sent.
#[derive(Debug)]
pub struct Events {
    /// Whether the client wants any.
    are_wanted: bool,
    /// How many there were.
    count: u64,
    unsent: String,
}

impl Events {
    /// None so far.
    pub fn new(are_wanted: bool) -> Self {
        Events {
            are_wanted,
            count: 0,
            unsent: String::new(),
        }
    }

    /// Whether the client wants any.
    pub fn are_wanted(&self) -> bool {
        self.are_wanted
    }

    /// Adds one, if they are wanted.
    pub fn push(&mut self, name: &str, fields: &impl Serialize) {
        if !self.are_wanted {
            return;
        }
        let event = Event {
            name,
            sequence_number: self.count,
            fields,
        };
        self.count += 1;
        for text in ["event: ", name, "\ndata: ", &json_line(&event), "\n\n"] {
            self.unsent += text;
        }
    }

    /// Those that wait.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.unsent)
    }
}

#[derive(Serialize)]
struct Event<'a, T> {
    #[serde(rename = "type")]
    name: &'a str,
    sequence_number: u64,
    #[serde(flatten)]
    fields: &'a T,
}

/// What an event about the whole response says.
#[derive(Debug, Serialize)]
pub struct OfResponse<'a> {
    /// The response.
    pub response: WrittenResponse<'a>,
}

/// What an event about a whole item says.
#[derive(Debug, Serialize)]
pub struct OfItem<'a> {
    /// Its number.
    pub output_index: usize,
    /// The item.
    pub item: WrittenItem<'a>,
}

/// What an event about something in an item says.
#[derive(Debug, Serialize)]
pub struct InItem<'a> {
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<u32>,
    #[serde(flatten)]
    said: Said<'a>,
}

/// What there is in an item.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said<'a> {
    /// The next piece of its text or arguments.
    Delta(&'a str),
    /// All of its text.
    Text(&'a str),
    /// All of a refusal.
    Refusal(&'a str),
    /// Its part.
    Part(Part<'a>),
    /// All that a tool is given that takes any text.
    Input(&'a str),
    /// All that a function is given.
    #[serde(untagged)]
    Arguments {
        /// The function.
        name: &'a str,
        /// JSON.
        arguments: &'a str,
    },
}

impl<'a> InItem<'a> {
    /// In this item, which has this number.
    pub fn new(item: &'a Item, output_index: usize, said: Said<'a>) -> Self {
        let (content_index, summary_index) = match item.kind {
            Kind::Text(_) | Kind::Refusal(_) => (Some(0), None),
            Kind::Reasoning(_) => (None, Some(0)),
            Kind::Call(_) => (None, None),
        };
        InItem {
            item_id: &item.id,
            output_index,
            content_index,
            summary_index,
            said,
        }
    }
}
