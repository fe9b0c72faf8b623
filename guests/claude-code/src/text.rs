//! What of an answer's text goes to the client.

/// Lets text through up to the first of the client's stop words (of several, the one that is complete first). A
/// stop word may arrive in pieces.
#[derive(Debug, Default)]
pub struct StopFilter {
    words: Vec<String>,
    /// The end of the text so far, if it may be the beginning of a stop word. It is kept back until that is
    /// known.
    kept: String,
}

impl StopFilter {
    /// A filter for these words, none of them empty.
    pub fn new(words: Vec<String>) -> Self {
        StopFilter {
            words,
            kept: String::new(),
        }
    }

    /// Takes a piece of text. Returns what may be shown, and whether a stop word came after it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.words.is_empty() {
            return (piece.to_owned(), false);
        }
        let mut text = std::mem::take(&mut self.kept);
        text.push_str(piece);
        let found = self.words.iter().filter_map(|word| {
            let at = text.find(word)?;
            Some((at + word.len(), at))
        });
        if let Some((_, at)) = found.min() {
            text.truncate(at);
            return (text, true);
        }
        let kept = self.words.iter().map(|word| overlap(&text, word)).max();
        self.kept = text.split_off(text.len() - kept.unwrap_or(0));
        (text, false)
    }

    /// The text that was kept back, because no stop word came of it.
    pub fn rest(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }
}

/// The length of the longest end of `text` that `word` begins with.
fn overlap(text: &str, word: &str) -> usize {
    let longest = text.len().min(word.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|n| word.is_char_boundary(*n) && text.as_bytes().ends_with(&word.as_bytes()[..*n]))
        .unwrap_or(0)
}

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

    /// What comes through, cutting `text` into pieces of `size` characters.
    fn through(words: &[&str], text: &str, size: usize) -> (String, bool) {
        let mut filter = StopFilter::new(words.iter().map(|w| w.to_string()).collect());
        let chars: Vec<char> = text.chars().collect();
        let mut shown = String::new();
        for piece in chars.chunks(size) {
            let (text, stopped) = filter.push(&piece.iter().collect::<String>());
            shown += &text;
            if stopped {
                return (shown, true);
            }
        }
        (shown + &filter.rest(), false)
    }

    #[test]
    fn stop_words_are_found_however_the_text_is_cut() {
        for size in 1..20 {
            let found = |words: &[&str], text| through(words, text, size);
            assert_eq!(found(&["END"], "one ENEND two"), ("one EN".into(), true));
            assert_eq!(found(&["END"], "one EN"), ("one EN".into(), false));
            assert_eq!(found(&["\n\n", "b"], "a\n\nb"), ("a".into(), true));
            assert_eq!(found(&["aab"], "aaab"), ("a".into(), true));
            assert_eq!(
                found(&["\u{fc}x"], "\u{fc}\u{fc}x"),
                ("\u{fc}".into(), true)
            );
            assert_eq!(found(&[], "all"), ("all".into(), false));
        }
    }

    #[test]
    fn only_what_may_be_a_stop_word_is_kept_back() {
        let mut filter = StopFilter::new(vec!["STOP".into()]);
        assert_eq!(filter.push("Hello"), ("Hello".into(), false));
        assert_eq!(filter.push(" ST"), (" ".into(), false));
        assert_eq!(filter.push("AY"), ("STAY".into(), false));
    }

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
