//! Finds what consists of digits: cards, accounts, addresses of machines.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Calls `each` with all longest runs of bytes that `is_part` takes.
pub(super) fn runs(text: &str, is_part: impl Fn(u8) -> bool, mut each: impl FnMut(Range<usize>)) {
    let mut start = None;
    for (at, byte) in text.bytes().enumerate() {
        match (is_part(byte), start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                each(begin..at);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(begin) = start {
        each(begin..text.len());
    }
}

/// Whether a letter or a digit stands directly before or behind a range: then it is part of something longer.
pub(super) fn is_within_a_word(text: &str, range: &Range<usize>) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let before = &text[..range.start];
    // In JSON within a text, the letter of an escape is no part of what is behind it.
    let is_escape = ["\\n", "\\r", "\\t"]
        .iter()
        .any(|end| before.ends_with(end));
    (is_word(before.chars().next_back()) && !is_escape) || is_word(text[range.end..].chars().next())
}

/// Numbers of cards: 13 to 19 digits, alone or in groups. The last digit is a check digit, and is
/// right (ISO/IEC 7812).
pub(super) fn cards(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut card = |groups: &mut Vec<Range<usize>>| {
        let mut from = 0;
        while from < groups.len() {
            let found = longest_card(text, &groups[from..]);
            if let Some(count) = found {
                each(groups[from].start..groups[from + count - 1].end);
            }
            from += found.unwrap_or(1);
        }
        groups.clear();
    };
    runs(
        text,
        |byte| byte.is_ascii_digit(),
        |group| {
            let between = groups.last().map(|last| &text[last.end..group.start]);
            if !matches!(between, Some(" " | "-") | None) {
                card(&mut groups);
            }
            groups.push(group);
        },
    );
    card(&mut groups);
}

/// How many of these groups make the longest card that begins with the first one.
fn longest_card(text: &str, groups: &[Range<usize>]) -> Option<usize> {
    let mut digits = Vec::new();
    let mut best = None;
    for (i, group) in groups.iter().enumerate() {
        digits.extend(text[group.clone()].bytes().map(|byte| byte - b'0'));
        if digits.len() > 19 {
            break;
        }
        let range = groups[0].start..group.end;
        if digits.len() >= 13 && is_luhn(&digits) && !is_within_a_word(text, &range) {
            best = Some(i + 1);
        }
    }
    best
}

fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| match (u32::from(*digit), i % 2) {
            (digit, 0) => digit,
            (digit, _) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != 0)
}

/// Numbers of accounts (ISO 13616): a country, two check digits that are right, and 11 to 30 letters and digits, in any
/// case, with a separator between groups of any length.
pub(super) fn ibans(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 4 <= bytes.len() {
        let begins = bytes[at..at + 2].iter().all(u8::is_ascii_alphabetic)
            && !is_within_a_word(text, &(at..text.len()));
        match begins.then(|| iban(text, at)).flatten() {
            Some(end) => {
                each(at..end);
                at = end;
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
}

/// What may stand between the groups of an account's number.
fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '\u{a0}' | '\u{2009}' | '\u{202f}')
}

/// The end of the number that begins at `start`.
fn iban(text: &str, start: usize) -> Option<usize> {
    /// The shortest one, and the longest, in letters and digits.
    const LENGTHS: std::ops::RangeInclusive<usize> = 15..=34;
    /// Every country has at least so many digits in it. Prose seldom has, even if it begins with two letters and digits.
    const DIGITS_LEAST: usize = 10;
    let mut letters: Vec<u8> = Vec::new();
    let (mut best, mut is_after_separator) = (None, false);
    for (at, c) in text[start..].char_indices() {
        if is_separator(c) && !is_after_separator && letters.len() >= 2 {
            is_after_separator = true;
            continue;
        }
        // Two letters, and two digits.
        let fits = match letters.len() {
            0 | 1 => c.is_ascii_alphabetic(),
            2 | 3 => c.is_ascii_digit(),
            length => c.is_ascii_alphanumeric() && length < *LENGTHS.end(),
        };
        if !fits {
            break;
        }
        is_after_separator = false;
        letters.push(c.to_ascii_uppercase() as u8);
        let end = start + at + 1;
        let next = text[end..].chars().next();
        let is_whole = !next.is_some_and(char::is_alphanumeric);
        let digits = letters.iter().filter(|letter| letter.is_ascii_digit());
        if is_whole
            && LENGTHS.contains(&letters.len())
            && digits.count() >= DIGITS_LEAST
            && is_checked(&letters)
        {
            best = Some(end);
        }
    }
    best
}

/// Whether the check digits are right: with its first four characters moved to
/// the end, the number leaves a remainder of 1 when it is divided by 97.
fn is_checked(letters: &[u8]) -> bool {
    let turned = letters[4..].iter().chain(&letters[..4]);
    let rest = turned.fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}

/// Addresses of machines.
pub(super) fn addresses(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    /// The longest address, in bytes: `ffff:…:255.255.255.255`.
    const LENGTH_MAX: usize = 45;
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b'.' || byte == b':';
    runs(text, is_part, |run| {
        // Full stops and colons of a sentence may stand around an address, and a word before it.
        let mut from = run.start;
        for piece in text[run].split_inclusive("..") {
            let start = from + leading(piece, '.') + leading(piece, ':');
            from += piece.len();
            let end = from - (piece.len() - piece.trim_end_matches('.').len());
            let found = (start < end && end - start <= LENGTH_MAX)
                .then(|| address(&text[start..end]))
                .flatten();
            if let Some(found) = found {
                let range = start + found.start..start + found.end;
                if !is_within_a_word(text, &range) {
                    each(range);
                }
            }
        }
    });
}

/// How many of this character a text begins with. Two colons are part of an address.
fn leading(text: &str, c: char) -> usize {
    match text.len() - text.trim_start_matches(c).len() {
        2 if c == ':' => 0,
        count => count,
    }
}

/// Where in a text an address is, which may have a port behind it or a word before it.
fn address(text: &str) -> Option<Range<usize>> {
    let host = text.split(':').next().unwrap_or_default();
    if host.parse::<Ipv4Addr>().is_ok() {
        return Some(0..host.len());
    }
    let is_v6 = |text: &str| {
        text.len() > 2 && text.matches(':').count() >= 2 && text.parse::<Ipv6Addr>().is_ok()
    };
    let without_colon = match text.ends_with("::") {
        true => text,
        false => text.trim_end_matches(':'),
    };
    let behind = without_colon.find(':').map_or(0, |at| at + 1);
    [0, behind]
        .into_iter()
        .find(|start| is_v6(&without_colon[*start..]))
        .map(|start| start..without_colon.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::find) fn all(
        text: &str,
        find: impl Fn(&str, &mut dyn FnMut(Range<usize>)),
    ) -> Vec<&str> {
        let mut found = Vec::new();
        find(text, &mut |range| found.push(&text[range]));
        found
    }

    #[test]
    fn cards_have_a_right_check_digit() {
        let text = "4111111111111111 5500-0000-0000-0004; 4111111111111112 x4111111111111111 0000000000000000";
        assert_eq!(
            all(text, cards),
            ["4111111111111111", "5500-0000-0000-0004"]
        );
    }

    #[test]
    fn accounts_have_right_check_digits() {
        let text =
            "DE89 3704 0044 0532 0130 00 and GB82WEST12345698765432, not DE88370400440532013000";
        assert_eq!(
            all(text, ibans),
            ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"]
        );
        for one in [
            "de89 3704 0044 0532 0130 00",
            "DE89-3704-0044-0532-0130-00",
            "DE 89 370400440 532013000",
            "gb82\u{a0}west\u{a0}1234\u{a0}5698\u{a0}7654\u{a0}32",
        ] {
            assert_eq!(all(&format!("to {one}, please"), ibans), [one]);
        }
    }

    #[test]
    fn addresses_of_both_versions() {
        let text = "10.0.0.1:8013, 2001:db8::1. [::1] fe80::1%eth0; not 1.2.3 or 1.2.3.4.5 or 256.1.1.1 or 12:30 or v10.0.0.1";
        assert_eq!(
            all(text, addresses),
            ["10.0.0.1", "2001:db8::1", "::1", "fe80::1"]
        );
    }
}
