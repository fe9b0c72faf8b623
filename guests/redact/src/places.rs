//! The placeholders of one request, and the values that they stand for.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use harness_guest::Request;

use crate::request::texts;

/// The longest placeholder, in bytes: `<`, a name of 32 characters, `_`, a number, `>`.
pub const LENGTH_MAX: usize = 48;

/// Placeholders by value, and values by placeholder.
#[derive(Debug, Default)]
pub struct Places {
    by_value: HashMap<String, String>,
    values: HashMap<String, String>,
    counts: HashMap<String, u32>,
    /// What the client wrote, though it looks like a placeholder.
    taken: HashSet<String>,
}

impl Places {
    /// Placeholders for a request. None of them is like a text that the request has already.
    pub fn around(request: &Request) -> Self {
        let mut places = Places::default();
        texts(request, &mut |text| {
            for place in lookalikes(text) {
                places.taken.insert(text[place].to_owned());
            }
        });
        places
    }

    /// Whether nothing was taken out.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The placeholder of a value of this kind.
    pub fn place(&mut self, kind: &str, value: &str) -> &str {
        if !self.by_value.contains_key(value) {
            let name = kind.to_ascii_uppercase().replace('-', "_");
            let count = self.counts.entry(name.clone()).or_default();
            let place = loop {
                *count += 1;
                let place = format!("<{name}_{count}>");
                if !self.taken.contains(&place) {
                    break place;
                }
            };
            self.values.insert(place.clone(), value.to_owned());
            self.by_value.insert(value.to_owned(), place);
        }
        &self.by_value[value]
    }

    /// The value that a placeholder stands for.
    pub fn value(&self, place: &str) -> Option<&str> {
        self.values.get(place).map(String::as_str)
    }
}

/// Where a text has something that looks like a placeholder.
pub fn lookalikes(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    memchr::memchr_iter(b'<', text.as_bytes()).filter_map(|at| {
        let length = length(&text.as_bytes()[at..])?;
        Some(at..at + length)
    })
}

/// The length of the placeholder that a text begins with.
pub fn length(text: &[u8]) -> Option<usize> {
    let most = &text[..text.len().min(LENGTH_MAX)];
    let end = memchr::memchr(b'>', most)?;
    let name = most.get(1..end)?;
    let has_number = name.last().is_some_and(u8::is_ascii_digit) && name.contains(&b'_');
    (has_number && name.iter().copied().all(is_of_name)).then_some(end + 1)
}

/// Whether a placeholder may have this byte between its brackets.
pub fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_placeholder_and_never_one_that_the_client_wrote() {
        let mut places = Places::default();
        places.taken.insert("<EMAIL_1>".into());
        assert_eq!(places.place("email", "a@b.de"), "<EMAIL_2>");
        assert_eq!(places.place("email", "c@d.de"), "<EMAIL_3>");
        assert_eq!(places.place("email", "a@b.de"), "<EMAIL_2>");
        assert_eq!(places.place("credit-card", "4"), "<CREDIT_CARD_1>");
        assert_eq!(places.value("<EMAIL_3>"), Some("c@d.de"));
        assert_eq!(places.value("<EMAIL_1>"), None);
    }

    #[test]
    fn placeholders_are_told_from_other_text_in_brackets() {
        let found = |text| {
            lookalikes(text)
                .map(|place| &text[place])
                .collect::<Vec<_>>()
        };
        assert_eq!(
            found("<EMAIL_1> <b> <IP_12>x<<API_KEY_3>"),
            ["<EMAIL_1>", "<IP_12>", "<API_KEY_3>"]
        );
        let long = format!("<{}_1>", "A".repeat(100));
        for none in [
            "<email_1>",
            "<EMAIL_>",
            "<EMAIL1>",
            "<_",
            "<>",
            "< A_1>",
            &long,
        ] {
            assert!(found(none).is_empty(), "{none}");
        }
    }
}
