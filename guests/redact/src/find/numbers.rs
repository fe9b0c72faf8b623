//! Finds what consists of digits: cards, accounts, addresses of machines, telephone numbers.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Calls `each` with all longest runs of bytes that `is_part` takes.
fn runs(text: &str, is_part: impl Fn(u8) -> bool, mut each: impl FnMut(Range<usize>)) {
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
fn is_within_a_word(text: &str, range: &Range<usize>) -> bool {
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

/// Numbers of accounts (ISO 13616): a country, two check digits that are right, and 11 to 30 letters and digits.
pub(super) fn ibans(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 4 <= bytes.len() {
        let begins = bytes[at..at + 2].iter().all(u8::is_ascii_uppercase)
            && bytes[at + 2..at + 4].iter().all(u8::is_ascii_digit)
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

/// The end of the number that begins at `start`. Groups may have a space between them.
fn iban(text: &str, start: usize) -> Option<usize> {
    /// The longest one with its spaces, in bytes.
    const LENGTH_MAX: usize = 34 + 10;
    let bytes = text.as_bytes();
    let mut letters = Vec::new();
    let mut best = None;
    let bytes = &bytes[..bytes.len().min(start + LENGTH_MAX)];
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match *byte {
            b' ' if letters.len() % 4 == 0 => continue,
            byte if byte.is_ascii_uppercase() || byte.is_ascii_digit() => letters.push(byte),
            _ => break,
        }
        let end = at + 1;
        let is_whole = !text[end..]
            .chars()
            .next()
            .is_some_and(char::is_alphanumeric);
        if is_whole && (15..=34).contains(&letters.len()) && is_checked(&letters) {
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

/// Telephone numbers: `+` and 8 to 15 digits, or as they are dialled within a country.
pub(super) fn phones(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    /// The longest one with what stands between its digits, in bytes.
    const LENGTH_MAX: usize = 32;
    let is_part = |byte: u8| byte.is_ascii_digit() || b"+()-./ ".contains(&byte);
    runs(text, is_part, |run| {
        let mut from = run.start;
        // A run may have several numbers: a new one begins at a `+`, or behind two spaces.
        for part in text[run.clone()].split_inclusive("  ") {
            let start = from;
            from += part.len();
            for (i, piece) in part.split('+').enumerate() {
                let offset = piece.as_ptr() as usize - text.as_ptr() as usize;
                let has_plus = i > 0;
                let begin = offset - usize::from(has_plus);
                let number = trimmed(&text[begin..offset + piece.len()]);
                let begin = begin + number.start;
                let range = begin..begin + number.len();
                let number = &text[range.clone()];
                if number.len() <= LENGTH_MAX
                    && is_phone(number)
                    && !is_within_a_word(text, &range)
                    && range.start >= start
                {
                    each(range);
                }
            }
        }
    });
}

/// Without what stands around the digits.
fn trimmed(piece: &str) -> Range<usize> {
    let start = piece
        .find(|c: char| c.is_ascii_digit() || c == '+' || c == '(')
        .unwrap_or(piece.len());
    let end = piece
        .rfind(|c: char| c.is_ascii_digit())
        .map_or(start, |at| at + 1);
    start..end.max(start)
}

fn is_phone(number: &str) -> bool {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let groups: Vec<usize> = number
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .filter(|length| *length > 0)
        .collect();
    let is_plain = !number.contains("..") && !number.contains("--") && !number.contains("//");
    if !is_plain || groups.len() > 7 {
        return false;
    }
    match number.as_bytes().first() {
        Some(b'+') => (8..=15).contains(&digits),
        // A trunk prefix, such as 030 or 0170. A date such as 01.02.2024 has eight digits and is none.
        Some(b'0') => (9..=15).contains(&digits) && groups.len() <= 5 && !number.contains('.'),
        Some(b'(') => (8..=12).contains(&digits) && groups.len() >= 2,
        // 555-123-4567
        _ => groups == [3, 3, 4] && !number.contains(['/', '(', '+']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, find: impl Fn(&str, &mut dyn FnMut(Range<usize>))) -> Vec<&str> {
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
    }

    #[test]
    fn addresses_of_both_versions() {
        let text = "10.0.0.1:8013, 2001:db8::1. [::1] fe80::1%eth0; not 1.2.3 or 1.2.3.4.5 or 256.1.1.1 or 12:30 or v10.0.0.1";
        assert_eq!(
            all(text, addresses),
            ["10.0.0.1", "2001:db8::1", "::1", "fe80::1"]
        );
    }

    #[test]
    fn telephone_numbers() {
        let text = "+49 (0)30 1234-567, 030/1234567, (555) 123-4567, 555-123-4567, +1 555 123 4567";
        assert_eq!(
            all(text, phones),
            [
                "+49 (0)30 1234-567",
                "030/1234567",
                "(555) 123-4567",
                "555-123-4567",
                "+1 555 123 4567"
            ]
        );
        for none in [
            "2024-01-31",
            "01.02.2024",
            "3.14159265358",
            "1+1",
            "10 000 000 000",
            "x0301234567",
            "12:30",
        ] {
            assert!(all(none, phones).is_empty(), "{none}");
        }
    }
}
