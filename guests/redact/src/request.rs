//! Goes through all texts of a request.

use std::borrow::Cow;
use std::ops::Range;

use harness_guest::{Content, Message, OutputFormat, Part, Request, Tool, ToolCall};

use crate::find::Finder;
use crate::json;
use crate::places::Places;

/// A request whose texts are being redacted.
pub struct Redacted<'f> {
    finder: &'f Finder,
    places: Places,
    unreadable: Option<Unread>,
}

/// What of a request cannot be redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Where it is.
    pub at: String,
    /// What it is.
    pub what: &'static str,
}

impl<'f> Redacted<'f> {
    /// Begins with these placeholders.
    pub fn new(finder: &'f Finder, places: Places) -> Self {
        Redacted {
            finder,
            places,
            unreadable: None,
        }
    }

    /// The first thing that could not be redacted.
    pub fn unreadable(&self) -> Option<&Unread> {
        self.unreadable.as_ref()
    }

    /// The placeholders of the request.
    pub fn into_places(self) -> Places {
        self.places
    }

    /// Redacts all texts, and takes note of what is no text.
    pub fn request(&mut self, request: &mut Request) {
        for (i, message) in request.messages.iter_mut().enumerate() {
            self.message(i, message);
        }
        for (i, tool) in request.tools.iter().enumerate() {
            self.tool(i, tool);
        }
        if let OutputFormat::JsonSchema(schema) = &request.output_format {
            let texts = [&schema.description, &schema.schema, &schema.extra];
            let texts = texts.into_iter().flatten().chain([&schema.name]);
            self.declared(texts, || "response_format.json_schema".into());
        }
        request.stop.iter_mut().for_each(|word| self.text(word));
        self.json(&mut request.extra);
    }

    fn message(&mut self, i: usize, message: &mut Message) {
        let names = [&mut message.name, &mut message.tool_call_id];
        names.into_iter().flatten().for_each(|name| self.text(name));
        match &mut message.content {
            None => {}
            Some(Content::Text(text)) => self.any_text(text),
            Some(Content::Parts(parts)) => {
                self.across(parts);
                for (j, part) in parts.iter_mut().enumerate() {
                    self.part(part, || format!("messages[{i}].content[{j}]"));
                }
            }
        }
        for (j, call) in message.tool_calls.iter_mut().enumerate() {
            match call {
                ToolCall::Function(call) => {
                    self.text(&mut call.id);
                    self.text(&mut call.name);
                    self.json_text(&mut call.arguments);
                    self.json(&mut call.extra);
                }
                ToolCall::Other(json) => {
                    self.json_text(json);
                    self.unread(
                        || format!("messages[{i}].tool_calls[{j}]"),
                        "a call of a tool that is no function",
                    );
                }
            }
        }
        self.json(&mut message.extra);
    }

    /// Redacts values that begin in one text and end in a later one. The placeholder stands where the value begins.
    fn across(&mut self, parts: &mut [Part]) {
        let text = |part: &Part| match part {
            Part::Text(part) => Some(part.text.clone()),
            _ => None,
        };
        let (mut whole, mut ends) = (String::new(), Vec::new());
        for part in parts.iter() {
            whole += &text(part).unwrap_or_default();
            ends.push(whole.len());
        }
        let mut found = Vec::new();
        self.finder.find(&whole, &mut found);
        let crosses = |range: &Range<usize>| {
            ends.iter()
                .any(|end| range.start < *end && *end < range.end)
        };
        found.retain(|(range, _)| crosses(range));
        if found.is_empty() {
            return;
        }
        let mut begin = 0;
        for (part, end) in parts.iter_mut().zip(&ends) {
            if let Part::Text(part) = part {
                part.text = self.within(&whole, begin..*end, &found);
            }
            begin = *end;
        }
    }

    /// A part of a text, with placeholders for the values that begin in it, and without what belongs to one that began
    /// before it.
    fn within(&mut self, text: &str, part: Range<usize>, found: &[(Range<usize>, &str)]) -> String {
        let (mut new, mut at) = (String::new(), part.start);
        for (range, kind) in found {
            if range.end <= part.start || range.start >= part.end {
                continue;
            }
            if range.start >= part.start {
                new.push_str(&text[at..range.start]);
                new.push_str(self.places.place(kind, &text[range.clone()]));
            }
            at = range.end.min(part.end);
        }
        new + &text[at..part.end]
    }

    fn part(&mut self, part: &mut Part, at: impl Fn() -> String) {
        match part {
            Part::Text(part) | Part::Refusal(part) => {
                self.any_text(&mut part.text);
                self.json(&mut part.extra);
            }
            Part::Image(image) => {
                self.json(&mut image.extra);
                self.unread(at, "a picture");
            }
            Part::Audio(audio) => {
                self.json(&mut audio.extra);
                self.unread(at, "a sound");
            }
            Part::File(file) => {
                let names = [&mut file.filename, &mut file.id];
                names.into_iter().flatten().for_each(|name| self.text(name));
                self.json(&mut file.extra);
                self.unread(at, "the content of a file");
            }
            Part::Other(_) => self.unread(at, "a part of an unknown type"),
        }
    }

    /// A declaration cannot be redacted, because the model must fill it in as it is.
    fn tool(&mut self, i: usize, tool: &Tool) {
        match tool {
            Tool::Function(function) => {
                let texts = [&function.description, &function.parameters, &function.extra];
                let texts = texts.into_iter().flatten().chain([&function.name]);
                self.declared(texts, || format!("tools[{i}]"));
            }
            Tool::Other(_) => self.unread(|| format!("tools[{i}]"), "a tool that is no function"),
        }
    }

    fn declared<'t>(
        &mut self,
        mut texts: impl Iterator<Item = &'t String>,
        at: impl Fn() -> String,
    ) {
        let mut found = Vec::new();
        if texts.any(|text| {
            self.finder.find(text, &mut found);
            !found.is_empty()
        }) {
            self.unread(at, "a declaration with personal data or a secret");
        }
    }

    fn unread(&mut self, at: impl Fn() -> String, what: &'static str) {
        self.unreadable
            .get_or_insert_with(|| Unread { at: at(), what });
    }

    fn text(&mut self, text: &mut String) {
        let mut found = Vec::new();
        self.finder.find(text, &mut found);
        if let Some(plain) = json::without_escapes(text) {
            let mut in_plain = Vec::new();
            self.finder.find(&plain, &mut in_plain);
            if in_plain.len() > found.len() {
                *text = replaced(&plain, &in_plain, &mut self.places);
                return;
            }
        }
        if !found.is_empty() {
            *text = replaced(text, &found, &mut self.places);
        }
    }

    fn json(&mut self, text: &mut Option<String>) {
        text.iter_mut().for_each(|text| self.json_text(text));
    }

    /// Redacts a text that should be JSON. If it is not (a model may have written it), or is nested
    /// too deeply, it is redacted as plain text.
    fn json_text(&mut self, text: &mut String) {
        match json::mapped(text, &mut |string| self.text(string)) {
            Some(Cow::Owned(changed)) => *text = changed,
            // It is no JSON, or the finder may see more in the raw text.
            _ => self.text(text),
        }
    }

    /// A text that may be JSON, as results of functions often are.
    fn any_text(&mut self, text: &mut String) {
        match text.trim_start().starts_with(['{', '[']) {
            true => self.json_text(text),
            false => self.text(text),
        }
    }
}

/// A text with placeholders where something was found. `found` is in the order of the text.
fn replaced(text: &str, found: &[(Range<usize>, &str)], places: &mut Places) -> String {
    let mut new = String::with_capacity(text.len());
    let mut at = 0;
    for (range, kind) in found {
        new.push_str(&text[at..range.start]);
        new.push_str(places.place(kind, &text[range.clone()]));
        at = range.end;
    }
    new + &text[at..]
}

/// Calls `each` with all texts of a request, as they came, and with the strings of those that are JSON.
pub fn texts(request: &Request, each: &mut impl FnMut(&str)) {
    let mut both = |text: &str| {
        each(text);
        json::strings(text, each);
    };
    for message in &request.messages {
        let optional = [&message.name, &message.extra].into_iter().flatten();
        optional.for_each(|text| both(text));
        match &message.content {
            None => {}
            Some(Content::Text(text)) => both(text),
            Some(Content::Parts(parts)) => parts.iter().for_each(|part| match part {
                Part::Text(part) | Part::Refusal(part) => {
                    both(&part.text);
                    part.extra.iter().for_each(|extra| both(extra));
                }
                Part::File(file) => file.filename.iter().for_each(|name| both(name)),
                Part::Image(_) | Part::Audio(_) | Part::Other(_) => {}
            }),
        }
        for call in &message.tool_calls {
            match call {
                ToolCall::Function(call) => both(&call.arguments),
                ToolCall::Other(json) => both(json),
            }
        }
    }
    for tool in &request.tools {
        match tool {
            Tool::Function(function) => {
                let texts = [&function.description, &function.parameters];
                texts.into_iter().flatten().for_each(|text| both(text));
            }
            Tool::Other(json) => both(json),
        }
    }
    if let OutputFormat::JsonSchema(schema) = &request.output_format {
        schema.schema.iter().for_each(|schema| both(schema));
    }
    request.stop.iter().for_each(|word| both(word));
    request.extra.iter().for_each(|extra| both(extra));
}
