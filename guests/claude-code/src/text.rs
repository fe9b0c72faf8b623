//! Finds the JSON object in an answer's text.

/// Finds the JSON object in a text that may have words or a code fence around it.
#[derive(Debug, Default)]
pub struct ObjectFinder {
    depth: usize,
    in_string: bool,
    escaped: bool,
    complete: bool,
}

impl ObjectFinder {
    /// The part of `piece` that belongs to the object.
    pub fn push<'a>(&mut self, piece: &'a str) -> &'a str {
        if self.complete {
            return "";
        }
        let start = match self.depth {
            0 => piece.find('{').unwrap_or(piece.len()),
            _ => 0,
        };
        for (i, byte) in piece.bytes().enumerate().skip(start) {
            self.step(byte);
            if self.depth == 0 {
                self.complete = true;
                return &piece[start..=i];
            }
        }
        &piece[start..]
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

    /// Whether any of the object was there.
    pub fn has_begun(&self) -> bool {
        self.complete || self.depth > 0
    }

    /// Whether the object has ended.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_in_words_and_fences() {
        let text = "Sure:\n```json\n{\"a\": \"}\\\"{\", \"b\": [{}]}\n```\n{\"c\": 1}";
        for size in 1..text.len() {
            let mut finder = ObjectFinder::default();
            let mut found = String::new();
            for piece in text.as_bytes().chunks(size) {
                found += finder.push(std::str::from_utf8(piece).unwrap());
            }
            assert_eq!(found, "{\"a\": \"}\\\"{\", \"b\": [{}]}", "{size}");
            assert!(finder.is_complete());
        }
        let mut finder = ObjectFinder::default();
        assert_eq!(finder.push("no object"), "");
        assert!(!finder.is_complete());
    }
}
