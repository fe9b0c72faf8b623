//! Strings within JSON.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Value;

/// JSON whose strings, keys too, and numbers were changed. All else stays as it is written. A number that was changed
/// leaves a string in its place. None if the text is not JSON, or is nested too deeply for serde_json; `text` itself if
/// nothing was changed.
pub fn mapped<'t>(text: &'t str, change: &mut impl FnMut(&mut String)) -> Option<Cow<'t, str>> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let bytes = text.as_bytes();
    let (mut new, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        let length = match bytes[at] {
            b'"' => string_length(&bytes[at..]),
            b'-' | b'0'..=b'9' => number_length(&bytes[at..]),
            _ => {
                at += 1;
                continue;
            }
        };
        let literal = &text[at..at + length];
        let before = match bytes[at] {
            b'"' => serde_json::from_str(literal).ok()?,
            _ => literal.to_owned(),
        };
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            new.push_str(&text[copied..at]);
            new.push_str(&Value::from(after).to_string());
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Some(text.into());
    }
    new.push_str(&text[copied..]);
    Some(new.into())
}

/// The length of the string literal that valid JSON begins with.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of the number that valid JSON begins with.
fn number_length(bytes: &[u8]) -> usize {
    let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    bytes.iter().take_while(is_part).count()
}

/// Calls `each` with all strings and numbers of a JSON text.
pub fn strings(text: &str, each: &mut impl FnMut(&str)) {
    let _ = mapped(text, &mut |string| each(string));
}

/// A text as it stands within a JSON string.
pub fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A text in which escapes such as `\u0040` are what they stand for: JSON that is not whole, or stands among other
/// words. Only printable characters of ASCII are replaced, and neither quotation marks nor backslashes. None if there is
/// no such escape.
pub fn without_escapes(text: &str) -> Option<String> {
    let (mut new, mut copied) = (String::new(), 0);
    for at in memchr::memmem::find_iter(text.as_bytes(), b"\\u") {
        let digits = text.get(at + 2..at + 6);
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(code @ b' '..=b'~') = code
            && !matches!(code, b'"' | b'\\')
            && at >= copied
        {
            new.push_str(&text[copied..at]);
            new.push(code.into());
            copied = at + 6;
        }
    }
    (copied > 0).then(|| new + &text[copied..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_what_is_changed_stays_as_it_is_written() {
        let text = r#"{ "a\"" : [12345678901234567890.10, "b\u0041", -3e5, true], "a\"": {} }"#;
        let mut seen = Vec::new();
        let same = mapped(text, &mut |string| seen.push(string.clone()));
        assert_eq!(same.as_deref(), Some(text));
        assert_eq!(
            seen,
            ["a\"", "12345678901234567890.10", "bA", "-3e5", "a\""]
        );
        let changed = mapped(text, &mut |string| {
            if string == "bA" || string == "-3e5" {
                *string = "<\">".into();
            }
        });
        let expected = r#"{ "a\"" : [12345678901234567890.10, "<\">", "<\">", true], "a\"": {} }"#;
        assert_eq!(changed.as_deref(), Some(expected));
        assert_eq!(mapped("{", &mut |_| {}), None);
        assert_eq!(mapped(&"[".repeat(10_000), &mut |_| {}), None);
    }

    #[test]
    fn escapes_are_what_they_stand_for() {
        let text = r#"{"to": "bob\u0040example.org \u00fc \u0022 \u004"#;
        let expected = r#"{"to": "bob@example.org \u00fc \u0022 \u004"#;
        assert_eq!(without_escapes(text).as_deref(), Some(expected));
        assert_eq!(without_escapes("C:\\users"), None);
    }
}
