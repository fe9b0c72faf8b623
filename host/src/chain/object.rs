//! Finds the JSON object in an answer that is to be one.

use guests::completion::Delta;

/// Lets only the first JSON object of an answer's text through. A model that is merely told to answer with JSON often
/// writes words or a code fence around it.
#[derive(Debug, Default)]
pub(super) struct ObjectFilter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    complete: bool,
}

impl ObjectFilter {
    /// What of these pieces goes on.
    pub(super) fn pass(&mut self, deltas: &mut Vec<Delta>) {
        deltas.retain_mut(|delta| {
            let Delta::Content(text) = delta else {
                return true;
            };
            let (start, end) = self.of_object(text);
            text.truncate(end);
            text.drain(..start);
            !text.is_empty()
        });
    }

    /// Where the part of `piece` that belongs to the object begins and ends.
    fn of_object(&mut self, piece: &str) -> (usize, usize) {
        if self.complete {
            return (0, 0);
        }
        let start = match self.depth {
            0 => piece.find('{').unwrap_or(piece.len()),
            _ => 0,
        };
        for (i, byte) in piece.bytes().enumerate().skip(start) {
            self.step(byte);
            if self.depth == 0 {
                self.complete = true;
                return (start, i + 1);
            }
        }
        (start, piece.len())
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(text: &str, size: usize) -> String {
        let mut filter = ObjectFilter::default();
        let mut passed = String::new();
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(size) {
            let mut deltas = vec![Delta::Content(piece.iter().collect())];
            filter.pass(&mut deltas);
            for delta in deltas {
                let Delta::Content(text) = delta else {
                    panic!("it was text");
                };
                assert!(!text.is_empty());
                passed += &text;
            }
        }
        passed
    }

    #[test]
    fn an_object_is_found_in_words_and_fences() {
        let text = "Sure – here:\n```json\n{\"ä\": \"}\\\"{\", \"b\": [{}]}\n```\n{\"c\": 1}";
        for size in 1..text.len() {
            assert_eq!(
                passed(text, size),
                "{\"ä\": \"}\\\"{\", \"b\": [{}]}",
                "{size}"
            );
        }
        assert_eq!(passed("no object", 3), "");
        assert_eq!(passed("{\"a\": [1", 2), "{\"a\": [1");
    }

    #[test]
    fn only_text_is_looked_at() {
        let mut deltas = vec![Delta::Reasoning("{".into()), Delta::Content("a{}b".into())];
        ObjectFilter::default().pass(&mut deltas);
        assert!(matches!(&deltas[..], [Delta::Reasoning(_), Delta::Content(text)] if text == "{}"));
    }
}
