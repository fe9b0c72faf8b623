//! Puts values back into an answer as it streams.

use std::borrow::Cow;
use std::collections::BTreeMap;

use harness_guest::{Delta, OutputFormat, ToolCallDelta};

use crate::json::escaped;
use crate::places::{self, LENGTH_MAX, Places};

/// The restored answer so far.
#[derive(Debug)]
pub struct Restorer {
    places: Places,
    /// The answer's text is JSON.
    is_json: bool,
    /// The kind of text that came last, and what of it was held back.
    channel: Option<Channel>,
    held: String,
    /// What was held back of the arguments of each call.
    calls: BTreeMap<u32, String>,
}

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Content,
    Reasoning,
    Refusal,
}

/// How a placeholder may stand in JSON, where `<` and `>` may be escaped.
const ESCAPED_OPEN: [&str; 2] = ["\\u003c", "\\u003C"];
const ESCAPED_CLOSE: [&str; 2] = ["\\u003e", "\\u003E"];

impl Restorer {
    /// For an answer of this format.
    pub fn new(places: Places, format: &OutputFormat) -> Self {
        Restorer {
            places,
            is_json: !matches!(format, OutputFormat::Text),
            channel: None,
            held: String::new(),
            calls: BTreeMap::new(),
        }
    }

    /// The next pieces, with values in the place of placeholders. Only what may be the beginning of a placeholder is
    /// held back.
    pub fn take(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        let mut out = Vec::with_capacity(deltas.len());
        for delta in deltas {
            match delta {
                Delta::Content(text) => self.text(Channel::Content, text, &mut out),
                Delta::Reasoning(text) => self.text(Channel::Reasoning, text, &mut out),
                Delta::Refusal(text) => self.text(Channel::Refusal, text, &mut out),
                Delta::ToolCall(call) => {
                    self.end_text(&mut out);
                    out.push(Delta::ToolCall(self.arguments(call)));
                }
                Delta::Annotation(_) => out.push(delta),
            }
        }
        out
    }

    /// What was held back and became no placeholder.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut out = Vec::new();
        self.end_text(&mut out);
        for (index, arguments) in std::mem::take(&mut self.calls) {
            if !arguments.is_empty() {
                out.push(Delta::ToolCall(ToolCallDelta {
                    index,
                    id: None,
                    name: None,
                    arguments,
                }));
            }
        }
        out
    }

    fn text(&mut self, channel: Channel, piece: String, out: &mut Vec<Delta>) {
        if self.channel != Some(channel) {
            self.end_text(out);
            self.channel = Some(channel);
        }
        let is_json = self.is_json && channel == Channel::Content;
        let text = self.places.restored(&mut self.held, piece, is_json);
        out.extend(delta(channel, text));
    }

    /// Another kind of text follows, or none: what was held back is no placeholder.
    fn end_text(&mut self, out: &mut Vec<Delta>) {
        let held = std::mem::take(&mut self.held);
        if let Some(channel) = self.channel.take() {
            out.extend(delta(channel, held));
        }
    }

    fn arguments(&mut self, call: ToolCallDelta) -> ToolCallDelta {
        let held = self.calls.entry(call.index).or_default();
        let arguments = self.places.restored(held, call.arguments, true);
        ToolCallDelta { arguments, ..call }
    }
}

fn delta(channel: Channel, text: String) -> Option<Delta> {
    let delta = match channel {
        Channel::Content => Delta::Content,
        Channel::Reasoning => Delta::Reasoning,
        Channel::Refusal => Delta::Refusal,
    };
    (!text.is_empty()).then(|| delta(text))
}

impl Places {
    /// `held` and `piece` with values in the place of placeholders. What may be the beginning of one goes back into
    /// `held`.
    fn restored(&self, held: &mut String, piece: String, is_json: bool) -> String {
        let text = match held.is_empty() {
            true => piece,
            false => std::mem::take(held) + &piece,
        };
        let opens = |text: &str| match is_json {
            true => text.find(['<', '\\']),
            false => text.find('<'),
        };
        let Some(first) = opens(&text) else {
            return text;
        };
        let mut new = String::with_capacity(text.len());
        let mut rest = &text[first..];
        new.push_str(&text[..first]);
        while !rest.is_empty() {
            let step = match is_json {
                true => self.step_in_json(rest),
                false => self.step(rest),
            };
            match step {
                Some(Found::Value(length, value)) => {
                    new.push_str(&value);
                    rest = &rest[length..];
                }
                Some(Found::Maybe) => {
                    rest.clone_into(held);
                    return new;
                }
                None => {
                    let after = rest.chars().next().map_or(0, char::len_utf8);
                    let next = opens(&rest[after..]).map_or(rest.len(), |at| at + after);
                    new.push_str(&rest[..next]);
                    rest = &rest[next..];
                }
            }
        }
        new
    }

    /// What a text begins with.
    fn step<'t>(&'t self, text: &'t str) -> Option<Found<'t>> {
        let bytes = text.as_bytes();
        if bytes.first() != Some(&b'<') {
            return None;
        }
        if let Some(length) = places::length(bytes) {
            let value = self.value(&text[..length])?;
            return Some(Found::Value(length, value.into()));
        }
        let is_beginning =
            bytes.len() < LENGTH_MAX && bytes[1..].iter().copied().all(places::is_of_name);
        is_beginning.then_some(Found::Maybe)
    }

    /// The same within JSON.
    fn step_in_json(&self, text: &str) -> Option<Found<'_>> {
        let (open, name) = match text.as_bytes().first() {
            Some(b'<') => (1, &text[1..]),
            _ => match ESCAPED_OPEN.iter().find_map(|open| text.strip_prefix(open)) {
                Some(name) => (ESCAPED_OPEN[0].len(), name),
                None => {
                    let is_beginning = ESCAPED_OPEN.iter().any(|open| open.starts_with(text));
                    // A backslash that is escaped itself begins nothing.
                    return match text.starts_with("\\\\") {
                        true => Some(Found::Value(2, "\\\\".into())),
                        false => is_beginning.then_some(Found::Maybe),
                    };
                }
            },
        };
        let end = name
            .bytes()
            .take_while(|byte| places::is_of_name(*byte))
            .count();
        let (name, close) = name.split_at(end);
        if name.len() > LENGTH_MAX {
            return None;
        }
        let closed = match close.as_bytes().first() {
            Some(b'>') => 1,
            _ if ESCAPED_CLOSE.iter().any(|end| close.starts_with(end)) => ESCAPED_CLOSE[0].len(),
            _ if ESCAPED_CLOSE.iter().any(|end| end.starts_with(close)) => {
                return Some(Found::Maybe);
            }
            _ => return None,
        };
        let value = self.value(&format!("<{name}>"))?;
        Some(Found::Value(
            open + name.len() + closed,
            escaped(value).into(),
        ))
    }
}

/// What a text begins with.
enum Found<'t> {
    /// How many bytes at the beginning of the text are replaced, and the value that replaces them.
    Value(usize, Cow<'t, str>),
    /// It may be a placeholder, if more comes.
    Maybe,
}
