//! Content blocks of Anthropic's API, as they are written to the CLI.

use serde::Serialize;
use serde_json::{Map, Value};

/// A content block.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Words.
    Text {
        /// Never blank: the CLI would leave it out, or put its own words there.
        text: String,
    },
    /// A picture.
    Image {
        /// Where it is.
        source: Source,
    },
    /// A PDF or a text file.
    Document {
        /// Where it is.
        source: Source,
        /// The file's name.
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    /// A function call of an earlier answer.
    ToolUse {
        /// Unique in the conversation.
        id: String,
        /// As the API knows it, with the server's prefix.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
    },
    /// What a function call came to.
    ToolResult {
        /// The call's.
        tool_use_id: String,
        /// Texts and pictures.
        content: Vec<Block>,
    },
}

/// Where a picture or a document is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// Here.
    Base64 {
        /// Such as `image/png`.
        media_type: &'static str,
        /// Without white space.
        data: String,
    },
    /// Here, as plain text.
    Text {
        /// `text/plain`
        media_type: &'static str,
        /// The text.
        data: String,
    },
    /// Somewhere on the internet: the API fetches it.
    Url {
        /// An `https` URL.
        url: String,
    },
}

impl Block {
    /// A text, unless the CLI would take it for nothing.
    pub fn text(text: String) -> Option<Self> {
        let blank = text.chars().all(|c| c.is_whitespace() || c == '\u{feff}');
        (!blank).then_some(Block::Text { text })
    }

    /// The id of a call.
    pub fn call_id(&self) -> Option<&str> {
        match self {
            Block::ToolUse { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Whether this is a picture above the API's own limit. The CLI scales those of a user's message
    /// down, but not those in a function's result.
    pub fn is_large_picture(&self) -> bool {
        /// The API's limit, in bytes of base64.
        const MAX: usize = 5 << 20;
        match self {
            Block::Image {
                source: Source::Base64 { data, .. },
            } => data.len() > MAX,
            _ => false,
        }
    }
}
