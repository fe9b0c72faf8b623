//! JSON text in plain ASCII: everything else as `\uXXXX`.
//!
//! On the wire a reader that decodes each network chunk by itself cannot tear a character
//! apart; on a backend's standard input no line separator of Unicode can be taken for a newline.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// The JSON text of `value`, in ASCII and without a newline.
pub(crate) fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    // Writing to a vector cannot fail, and every map that is serialised here has string keys.
    let done = value.serialize(&mut Serializer::with_formatter(&mut out, Ascii));
    debug_assert!(done.is_ok());
    out
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|b| !b.is_ascii()) {
            let (plain, other) = rest.split_at(at);
            w.write_all(plain.as_bytes())?;
            let Some(char) = other.chars().next() else {
                break;
            };
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(w, "\\u{unit:04x}")?;
            }
            rest = &other[char.len_utf8()..];
        }
        w.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(w, escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascii_leaves_and_reads_back_the_same() {
        let text = "plain \"quoted\" \n ü € 😀 \u{2028}\u{2029}\u{85}\0";
        let json = to_vec(&text);
        assert!(json.is_ascii());
        assert!(!json.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }
}
