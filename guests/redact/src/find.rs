//! Finds personal data and secrets in a text, in time that grows with its length alone.
//!
//! The built-in kinds are found by hand-written scanners. An instance lives for one request, so a set of compiled
//! patterns would cost more than most searches.

mod keys;
mod numbers;
mod phones;

use std::ops::Range;

use regex_lite::Regex;
use serde::Deserialize;

use crate::places::lookalikes;

/// What can be found without a pattern of the operator's.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// A secret: private keys, tokens by their known beginnings, JSON Web Tokens.
    ApiKey,
    /// `name@example.org`
    Email,
    /// 13 to 19 digits with a right check digit.
    CreditCard,
    /// An account number with a right check number.
    Iban,
    /// An address of version 4 or 6.
    Ip,
    /// With a country's code, or as it is dialled within a country.
    Phone,
}

impl Builtin {
    /// All of them. What two of them find goes to the earlier one.
    pub const ALL: [Builtin; 6] = [
        Builtin::ApiKey,
        Builtin::Email,
        Builtin::Iban,
        Builtin::CreditCard,
        Builtin::Ip,
        Builtin::Phone,
    ];

    fn name(self) -> &'static str {
        match self {
            Builtin::ApiKey => "api-key",
            Builtin::Email => "email",
            Builtin::CreditCard => "credit-card",
            Builtin::Iban => "iban",
            Builtin::Ip => "ip",
            Builtin::Phone => "phone",
        }
    }

    fn find(self, text: &str, each: &mut dyn FnMut(Range<usize>)) {
        match self {
            Builtin::ApiKey => keys::find(text, each),
            Builtin::Email => emails(text, each),
            Builtin::CreditCard => numbers::cards(text, each),
            Builtin::Iban => numbers::ibans(text, each),
            Builtin::Ip => numbers::addresses(text, each),
            Builtin::Phone => phones::phones(text, each),
        }
    }
}

/// A pattern of the operator's.
#[derive(Debug)]
pub struct Pattern {
    /// What its placeholders are called.
    pub name: String,
    /// What it matches.
    pub regex: Regex,
}

/// Finds all that is to be taken out.
#[derive(Debug)]
pub struct Finder {
    builtin: Vec<Builtin>,
    patterns: Vec<Pattern>,
}

impl Finder {
    /// A finder for these kinds.
    pub fn new(builtin: &[Builtin], patterns: Vec<Pattern>) -> Self {
        let mut ordered = Builtin::ALL.to_vec();
        ordered.retain(|kind| builtin.contains(kind));
        Finder {
            builtin: ordered,
            patterns,
        }
    }

    /// Puts into `found` what a text has, in its order and without overlaps. Of two that overlap, the operator's
    /// pattern wins, and then the earlier kind of [`Builtin::ALL`].
    pub fn find<'f>(&'f self, text: &str, found: &mut Vec<(Range<usize>, &'f str)>) {
        found.clear();
        let mut all: Vec<(Range<usize>, usize, &str)> = Vec::new();
        // Each built-in kind but `ApiKey` needs one of these bytes. Most texts have none of them.
        if text
            .bytes()
            .any(|byte| byte == b'@' || byte.is_ascii_digit() || byte == b':')
        {
            for (rank, kind) in self.builtin.iter().enumerate() {
                let rank = self.patterns.len() + rank;
                kind.find(text, &mut |range| all.push((range, rank, kind.name())));
            }
        } else if self.builtin.contains(&Builtin::ApiKey) {
            let rank = self.patterns.len();
            keys::find(text, &mut |range| all.push((range, rank, "api-key")));
        }
        for (rank, pattern) in self.patterns.iter().enumerate() {
            let matches = pattern
                .regex
                .find_iter(text)
                .filter(|found| !found.is_empty());
            all.extend(matches.map(|found| (found.range(), rank, &*pattern.name)));
        }
        if all.is_empty() {
            return;
        }
        settle(text, all, found);
    }
}

/// Of finds that overlap, keeps the one with the lowest rank. Drops every find that lies within a text that looks
/// like a placeholder.
fn settle<'f>(
    text: &str,
    mut all: Vec<(Range<usize>, usize, &'f str)>,
    found: &mut Vec<(Range<usize>, &'f str)>,
) {
    let places: Vec<Range<usize>> = lookalikes(text).collect();
    let is_place = |range: &Range<usize>| {
        let before = places.partition_point(|place| place.start <= range.start);
        before > 0 && places[before - 1].end >= range.end
    };
    all.retain(|(range, ..)| !is_place(range));
    // The best rank comes first: a find stays if none of its bytes is covered yet.
    all.sort_by_key(|(range, rank, _)| (*rank, range.start));
    let mut covered = vec![false; text.len()];
    for (range, _, name) in all {
        // Finds of one kind do not overlap, so each byte is looked at once for each kind.
        if !covered[range.clone()].contains(&true) {
            covered[range.clone()].fill(true);
            found.push((range, name));
        }
    }
    found.sort_by_key(|(range, _)| range.start);
}

/// Addresses of mail. Letters beyond ASCII may be in both parts.
fn emails(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    /// The longest part before the `@`, in bytes (RFC 5321).
    const LOCAL_MAX: usize = 64;
    let bytes = text.as_bytes();
    let is_of_local =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-'".contains(byte) || *byte >= 0x80;
    let mut last = 0;
    for at in memchr::memchr_iter(b'@', bytes) {
        if at < last {
            continue;
        }
        let before = &bytes[last.max(at.saturating_sub(LOCAL_MAX))..at];
        let local = before.iter().rev().take_while(|byte| is_of_local(byte));
        let Some(mut start) = bounded(text, at - local.count()) else {
            continue;
        };
        // In JSON within a text, the letter of an escape is no part of what is behind it.
        if start > 0 && bytes[start - 1] == b'\\' && b"nrt".contains(&bytes[start]) {
            start += 1;
        }
        while start < at && b".'".contains(&bytes[start]) {
            start += 1;
        }
        let domain = domain(&text[at + 1..]);
        if start < at && domain > 0 {
            last = at + 1 + domain;
            each(start..last);
        }
    }
}

/// The length of the longest domain that a text begins with; 0 if it begins with none.
fn domain(text: &str) -> usize {
    /// The longest domain, in bytes (RFC 5321).
    const LENGTH_MAX: usize = 255;
    let is_part = |c: char| c.is_alphanumeric() || c == '.' || c == '-';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let mut domain = &text[..end];
    domain = domain.split("..").next().unwrap_or_default();
    while domain.len() > LENGTH_MAX {
        domain = domain.rsplit_once('.').map_or("", |(rest, _)| rest);
    }
    // What stands behind the address may look like a part of it: `example.org-2`.
    while let Some((rest, top)) = domain.rsplit_once('.') {
        let is_ascii_form = top.starts_with("xn--");
        let letters = top
            .find(|c: char| !is_ascii_form && !c.is_alphabetic())
            .unwrap_or(top.len());
        if top[..letters].chars().count() >= 2 && !rest.is_empty() && !rest.starts_with('.') {
            return rest.len() + 1 + letters;
        }
        domain = rest;
    }
    0
}

/// The next place from `at` on where a character begins.
fn bounded(text: &str, at: usize) -> Option<usize> {
    (at..text.len()).find(|at| text.is_char_boundary(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'t>(text: &'t str, kinds: &[Builtin]) -> Vec<(&'t str, String)> {
        let finder = Finder::new(kinds, Vec::new());
        let mut all = Vec::new();
        finder.find(text, &mut all);
        let all = all.into_iter();
        all.map(|(range, name)| (&text[range], name.to_owned()))
            .collect()
    }

    fn texts(text: &str, kind: Builtin) -> Vec<&str> {
        let all = found(text, &[kind]).into_iter();
        all.map(|(text, _)| text).collect()
    }

    #[test]
    fn addresses_of_mail() {
        let text = "Ann <ann.o'hara+x@mail.example.org>, b@c.de. 'q@r.st' gr\u{fc}n@\u{fc}ber.de, <EMAIL_1>";
        assert_eq!(
            texts(text, Builtin::Email),
            [
                "ann.o'hara+x@mail.example.org",
                "b@c.de",
                "q@r.st",
                "gr\u{fc}n@\u{fc}ber.de"
            ]
        );
        for more in [
            "a@b.com\u{2014}c",
            "a@b.com...c",
            "a@b.com-2",
            "x\\na@b.com",
        ] {
            assert_eq!(texts(more, Builtin::Email), ["a@b.com"], "{more}");
        }
        for none in [
            "a@b",
            "@x.de",
            "a@.de",
            "a@b..de",
            "a@b.1",
            "@property.setter",
            "git@:x",
        ] {
            assert!(texts(none, Builtin::Email).is_empty(), "{none}");
        }
    }

    #[test]
    fn of_overlapping_finds_the_operators_pattern_wins() {
        let regex = Regex::new("ann@[a-z]+").unwrap();
        let patterns = vec![Pattern {
            name: "friend".into(),
            regex,
        }];
        let finder = Finder::new(&Builtin::ALL, patterns);
        let (text, mut all) = ("ann@example.org, bob@example.org", Vec::new());
        finder.find(text, &mut all);
        let all: Vec<_> = all
            .into_iter()
            .map(|(range, name)| (&text[range], name))
            .collect();
        assert_eq!(
            all,
            [("ann@example", "friend"), ("bob@example.org", "email")]
        );
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let text =
            "+49 170 1234567, 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00, 10.0.0.1, xoxb-";
        let text = text.to_owned() + &"1a2b".repeat(6);
        let names: Vec<String> = found(&text, &Builtin::ALL)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(names, ["phone", "credit-card", "iban", "ip", "api-key"]);
    }
}
