//! Reads what a program prints.

use serde::Deserialize;
use serde_json::Value;

/// The form of a program's output.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Everything is the answer.
    #[default]
    Text,
    /// One JSON value that has the answer.
    Json,
    /// Lines of JSON that each have a piece of the answer.
    StreamJson,
}

/// Where the text stands in the JSON that known programs print.
const USUAL: [&str; 12] = [
    "/event/delta/text",
    "/delta/text",
    "/delta/content",
    "/choices/0/delta/content",
    "/choices/0/message/content",
    "/choices/0/text",
    "/message/content",
    "/result",
    "/response",
    "/content",
    "/text",
    "/output",
];

/// The output of one program so far.
#[derive(Debug)]
pub struct Output {
    form: Form,
    field: Option<String>,
    /// What is not read yet: all of a JSON value, or the beginning of a line.
    kept: String,
    has_text: bool,
}

impl Output {
    /// Nothing was printed yet.
    pub fn new(form: Form, field: Option<String>) -> Self {
        Output {
            form,
            field,
            kept: String::new(),
            has_text: false,
        }
    }

    /// Takes a piece of the output, and returns what the client reads of it.
    pub fn take(&mut self, piece: &str) -> Vec<String> {
        match self.form {
            Form::Text => vec![piece.to_owned()],
            Form::Json => {
                self.kept.push_str(piece);
                Vec::new()
            }
            Form::StreamJson => {
                self.kept.push_str(piece);
                let whole = self.kept.rfind('\n').map_or(0, |at| at + 1);
                let rest = self.kept.split_off(whole);
                let lines = std::mem::replace(&mut self.kept, rest);
                lines.lines().filter_map(|line| self.line(line)).collect()
            }
        }
    }

    /// The program ended well. Returns what is left for the client.
    ///
    /// # Errors
    ///
    /// Fails if it printed no answer.
    pub fn finish(&mut self) -> Result<Vec<String>, String> {
        let kept = std::mem::take(&mut self.kept);
        let last = match self.form {
            Form::Text => return Ok(Vec::new()),
            Form::Json | Form::StreamJson => self.line(&kept),
        };
        match last {
            None if !self.has_text => Err(match &self.field {
                Some(field) => format!("the program printed no JSON with a text at `{field}`"),
                None => "the program printed no JSON with a text: say where it stands with `field`"
                    .into(),
            }),
            last => Ok(last.into_iter().collect()),
        }
    }

    fn line(&mut self, line: &str) -> Option<String> {
        let value: Value = serde_json::from_str(line.trim()).ok()?;
        let text_at = |field: &str| value.pointer(field).and_then(Value::as_str);
        let text = match &self.field {
            Some(field) => text_at(field),
            // A result repeats what was streamed before it.
            None if self.has_text && value["type"] == "result" => None,
            None => USUAL.iter().find_map(|field| text_at(field)),
        };
        self.has_text |= text.is_some();
        text.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: Form, field: Option<&str>, whole: &str, size: usize) -> Result<String, String> {
        let mut output = Output::new(form, field.map(str::to_owned));
        let chars: Vec<char> = whole.chars().collect();
        let mut text = String::new();
        for piece in chars.chunks(size) {
            text += &output.take(&piece.iter().collect::<String>()).concat();
        }
        Ok(text + &output.finish()?.concat())
    }

    #[test]
    fn output_is_read_however_it_is_cut() {
        let lines = "{\"type\":\"system\"}\n{\"type\":\"stream_event\",\"event\":{\"delta\":{\"text\":\"a\"}}}\nnoise\n{\"delta\":{\"content\":\"\u{fc}\"}}\n{\"type\":\"result\",\"result\":\"a\u{fc}\"}";
        for size in [1, 7, 1000] {
            let read = |form, field, whole| read(form, field, whole, size).unwrap();
            assert_eq!(read(Form::Text, None, "a\n\u{fc}"), "a\n\u{fc}");
            assert_eq!(read(Form::Json, None, "{\"response\": \"hi\"}\n"), "hi");
            assert_eq!(read(Form::Json, Some("/a/1"), "{\"a\": [1, \"x\"]}"), "x");
            assert_eq!(read(Form::StreamJson, None, lines), "a\u{fc}");
            assert_eq!(read(Form::StreamJson, Some("/result"), lines), "a\u{fc}");
        }
    }

    #[test]
    fn json_without_a_text_is_a_failure_that_names_the_way_out() {
        let error = read(Form::Json, None, "{\"x\": 1}", 9).unwrap_err();
        assert!(error.contains("`field`"), "{error}");
        let error = read(Form::Json, Some("/y"), "[]", 9).unwrap_err();
        assert!(error.contains("`/y`"), "{error}");
        assert!(read(Form::StreamJson, None, "", 9).is_err());
    }
}
