//! Ends an answer at the client's stop words.

use guests::completion::Delta;

/// Lets text through up to the first of the client's stop words (of several, the one that is complete first). A
/// stop word may arrive in pieces.
#[derive(Default)]
pub(super) struct StopFilter {
    words: Vec<String>,
    /// The end of the text so far, if it may be the beginning of a stop word. It is kept back until that is
    /// known.
    kept: String,
}

impl StopFilter {
    /// A filter for these words. Empty ones do not count.
    pub(super) fn new(mut words: Vec<String>) -> Self {
        words.retain(|word| !word.is_empty());
        StopFilter {
            words,
            kept: String::new(),
        }
    }

    /// Whether there are no words.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The part of these pieces that goes on, and whether a stop word ends the answer after it.
    pub(super) fn pass(&mut self, deltas: Vec<Delta>) -> (Vec<Delta>, bool) {
        if self.is_empty() {
            return (deltas, false);
        }
        let mut passed = Vec::with_capacity(deltas.len());
        for delta in deltas {
            match delta {
                Delta::Content(piece) => {
                    let (text, stopped) = self.push(&piece);
                    passed.extend(content(text));
                    if stopped {
                        return (passed, true);
                    }
                }
                // Text that came before a call must also go on before it.
                Delta::ToolCall(_) => {
                    passed.extend(self.rest());
                    passed.push(delta);
                }
                _ => passed.push(delta),
            }
        }
        (passed, false)
    }

    /// The text that was kept back, and that goes on now because it did not become a stop word.
    pub(super) fn rest(&mut self) -> Option<Delta> {
        content(std::mem::take(&mut self.kept))
    }

    fn push(&mut self, piece: &str) -> (String, bool) {
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
}

fn content(text: String) -> Option<Delta> {
    (!text.is_empty()).then_some(Delta::Content(text))
}

/// The length of the longest end of `text` that `word` begins with.
fn overlap(text: &str, word: &str) -> usize {
    let longest = text.len().min(word.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|n| word.is_char_boundary(*n) && text.as_bytes().ends_with(&word.as_bytes()[..*n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(words: &[&str]) -> StopFilter {
        StopFilter::new(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn text(deltas: impl IntoIterator<Item = Delta>) -> String {
        let text = |delta| match delta {
            Delta::Content(text) => text,
            other => panic!("{other:?}"),
        };
        deltas.into_iter().map(text).collect()
    }

    /// What comes through, cutting `whole` into pieces of `size` characters.
    fn through(words: &[&str], whole: &str, size: usize) -> (String, bool) {
        let mut filter = filter(words);
        let chars: Vec<char> = whole.chars().collect();
        let mut shown = String::new();
        for piece in chars.chunks(size) {
            let piece = Delta::Content(piece.iter().collect());
            let (deltas, stopped) = filter.pass(vec![piece]);
            shown += &text(deltas);
            if stopped {
                return (shown, true);
            }
        }
        (shown + &text(filter.rest()), false)
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
        let mut filter = filter(&["STOP", ""]);
        let mut push = |piece: &str| text(filter.pass(vec![Delta::Content(piece.into())]).0);
        assert_eq!(push("Hello"), "Hello");
        assert_eq!(push(" ST"), " ");
        assert_eq!(push("AY"), "STAY");
    }
}
