//! What a response consists of, and how it is written.

use serde::Serialize;
use serde_json::Value;

use crate::tools::Declared;

/// An item of the output.
#[derive(Debug)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
}

/// What an item is, as far as it has come.
#[derive(Debug)]
pub enum Kind {
    /// A summary of what the model thought.
    Reasoning(String),
    /// What the model says.
    Text(String),
    /// Why it does not answer.
    Refusal(String),
    /// A call.
    Call(Call),
}

/// A call of a function.
#[derive(Debug)]
pub struct Call {
    /// Its number in the answer.
    pub index: u32,
    /// The id that its result names.
    pub call_id: String,
    /// What is called.
    pub declared: Declared,
    /// JSON.
    pub arguments: String,
}

/// How far an item or a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// On its way.
    InProgress,
    /// It came whole.
    Completed,
    /// It was cut.
    Incomplete,
    /// It failed on its way.
    Failed,
}

/// An item as it is written.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WrittenItem<'a> {
    /// What the model thought.
    Reasoning {
        /// The item's id.
        id: &'a str,
        /// None or one.
        summary: Vec<Part<'a>>,
    },
    /// What it says, or why it does not answer.
    Message {
        /// The item's id.
        id: &'a str,
        /// How far it is.
        status: Status,
        /// `assistant`.
        role: &'static str,
        /// None or one.
        content: Vec<Part<'a>>,
    },
    /// A call with JSON.
    FunctionCall {
        /// Whose call it is.
        #[serde(flatten)]
        call: WrittenCall<'a>,
        /// JSON.
        arguments: &'a str,
    },
    /// A call with any text.
    CustomToolCall {
        /// Whose call it is.
        #[serde(flatten)]
        call: WrittenCall<'a>,
        /// The text.
        input: String,
    },
}

/// What both kinds of calls say.
#[derive(Debug, Serialize)]
pub struct WrittenCall<'a> {
    id: &'a str,
    status: Status,
    call_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
}

/// A part of an item that has parts.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part<'a> {
    /// What the model says.
    OutputText {
        /// All of it so far.
        text: &'a str,
        /// None.
        annotations: [(); 0],
    },
    /// Why it does not answer.
    Refusal {
        /// All of it so far.
        refusal: &'a str,
    },
    /// What it thought.
    SummaryText {
        /// All of it so far.
        text: &'a str,
    },
}

impl Item {
    /// The item, which is on its way or complete.
    pub fn written(&self, status: Status) -> WrittenItem<'_> {
        let id = &*self.id;
        // An item that begins has no parts: each is added by an event of its own.
        let parts = || match status {
            Status::InProgress => Vec::new(),
            _ => self.part().into_iter().collect(),
        };
        match &self.kind {
            Kind::Reasoning(_) => WrittenItem::Reasoning {
                id,
                summary: parts(),
            },
            Kind::Text(_) | Kind::Refusal(_) => WrittenItem::Message {
                id,
                status,
                role: "assistant",
                content: parts(),
            },
            Kind::Call(call) => call.written(id, status),
        }
    }

    /// Its part, if it is of a kind that has one.
    pub fn part(&self) -> Option<Part<'_>> {
        match &self.kind {
            Kind::Text(text) => Some(Part::OutputText {
                text,
                annotations: [],
            }),
            Kind::Refusal(refusal) => Some(Part::Refusal { refusal }),
            Kind::Reasoning(text) => Some(Part::SummaryText { text }),
            Kind::Call(_) => None,
        }
    }
}

impl Call {
    /// What a tool is given that takes any text.
    pub fn input(&self) -> String {
        let arguments: Value = serde_json::from_str(&self.arguments).unwrap_or_default();
        match arguments["input"].as_str() {
            Some(text) => text.to_owned(),
            None => self.arguments.clone(),
        }
    }

    fn written<'a>(&'a self, id: &'a str, status: Status) -> WrittenItem<'a> {
        let call = WrittenCall {
            id,
            status,
            call_id: &self.call_id,
            namespace: self.declared.namespace.as_deref(),
            name: &self.declared.name,
        };
        match self.declared.is_custom {
            true => WrittenItem::CustomToolCall {
                call,
                input: self.input(),
            },
            false => WrittenItem::FunctionCall {
                call,
                arguments: &self.arguments,
            },
        }
    }
}
