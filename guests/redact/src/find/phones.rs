//! Finds telephone numbers.

use std::ops::Range;

use super::numbers::{is_within_a_word, runs};

/// Telephone numbers: `+` and 8 to 15 digits, or as they are dialled within a country.
pub(super) fn phones(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    let is_part = |byte: u8| byte.is_ascii_digit() || b"+()-./ ".contains(&byte);
    runs(text, is_part, |run| {
        let mut from = run.start;
        // A run may have several numbers: a new one begins at a `+`, or behind two spaces.
        for part in text[run.clone()].split_inclusive("  ") {
            let start = from;
            from += part.len();
            for (i, piece) in part.split('+').enumerate() {
                let offset = piece.as_ptr() as usize - text.as_ptr() as usize;
                let begin = offset - usize::from(i > 0);
                numbers_of_one_run(text, begin.max(start)..offset + piece.len(), each);
            }
        }
    });
}

/// The telephone numbers among groups that single spaces separate. A number goes on to the next group unless it is one
/// already and the group looks like the beginning of another.
fn numbers_of_one_run(text: &str, run: Range<usize>, each: &mut dyn FnMut(Range<usize>)) {
    /// The longest one with what stands between its digits, in bytes.
    const LENGTH_MAX: usize = 32;
    let groups: Vec<Range<usize>> = {
        let groups = text[run.clone()]
            .split(' ')
            .filter(|group| !group.is_empty());
        let at = |group: &str| group.as_ptr() as usize - text.as_ptr() as usize;
        groups
            .map(|group| at(group)..at(group) + group.len())
            .collect()
    };
    let mut from = 0;
    while from < groups.len() {
        let mut found = None;
        for (count, last) in groups[from..].iter().enumerate() {
            let whole = groups[from].start..last.end;
            let next = &text[last.clone()];
            if whole.len() > LENGTH_MAX || (found.is_some() && begins_a_phone(next)) {
                break;
            }
            let number = trimmed(&text[whole.clone()]);
            let range = whole.start + number.start..whole.start + number.end;
            if is_phone(&text[range.clone()]) && !is_within_a_word(text, &range) {
                found = Some((range, count + 1));
            }
        }
        let Some((range, count)) = found else {
            // Within other digits, only what clearly begins a number does.
            let rest = groups.iter().enumerate().skip(from + 1);
            let mut rest = rest.filter(|(_, group)| begins_a_phone(&text[(*group).clone()]));
            match rest.next() {
                Some((next, _)) => from = next,
                None => return,
            }
            continue;
        };
        each(range);
        from += count;
    }
}

/// Whether a group is what a telephone number begins with: a country's code, brackets, or a trunk prefix.
fn begins_a_phone(group: &str) -> bool {
    let is_trunk = |rest: &str| rest.starts_with(|c: char| ('1'..='9').contains(&c));
    group.starts_with(['+', '('])
        || group.strip_prefix('0').is_some_and(is_trunk)
        || group.strip_prefix("00").is_some_and(is_trunk)
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
    use super::super::numbers::tests::all;
    use super::*;

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
        assert_eq!(
            all("030 1234567 0170 7654321 555-123-4567 555-123-4568", phones),
            [
                "030 1234567",
                "0170 7654321",
                "555-123-4567",
                "555-123-4568"
            ]
        );
        assert_eq!(all("12 030 1234567", phones), ["030 1234567"]);
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
