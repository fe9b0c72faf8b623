//! Text of others, made fit for one line of a log or of a page of state.

/// `text` on one line, at most `limit` characters long: what could end the line, move the cursor or
/// turn the direction of writing is written as an escape, and what is cut is marked.
pub fn line(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    for (count, char) in text.chars().enumerate() {
        if count == limit {
            line.push('…');
            break;
        }
        if is_plain(char) {
            line.push(char);
        } else {
            line.extend(char.escape_unicode());
        }
    }
    line
}

/// Whether a character shows as itself. Not those that are invisible, end a line or reorder
/// what stands around them (Unicode's controls, separators and format characters).
pub fn is_plain(char: char) -> bool {
    !char.is_control()
        && !matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a text is a short technical word, such as a version or the name of a setting.
pub fn is_word(text: &str) -> bool {
    /// The longest word, in bytes.
    const WORD_MAX: usize = 32;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    !text.is_empty() && text.len() <= WORD_MAX && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_line_or_turns_it() {
        assert_eq!(
            line("a\nb\u{1b}[2J\u{202e}c", 50),
            "a\\u{a}b\\u{1b}[2J\\u{202e}c"
        );
        assert_eq!(line("schön 日本", 50), "schön 日本");
        assert_eq!(line("abcdef", 3), "abc…");
        assert!(is_word("2.1.330") && !is_word("a b") && !is_word(""));
    }
}
