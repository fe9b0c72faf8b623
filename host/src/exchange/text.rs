//! Keeps characters whole where output is not cut at newlines: adapters get text.

use bytes::{Bytes, BytesMut};

/// The most bytes of one character that can have come while its last byte is still missing.
const PART_MAX: usize = 3;

/// Puts characters together that were cut between two reads.
#[derive(Default)]
pub(super) struct TextPieces {
    /// The beginning of a character whose rest has not come.
    part: BytesMut,
}

impl TextPieces {
    /// The next piece, which ends with a whole character.
    pub(super) fn take(&mut self, piece: Bytes) -> Bytes {
        let whole = match self.part.is_empty() {
            true => piece,
            false => {
                let mut whole = self.part.split();
                whole.extend_from_slice(&piece);
                whole.freeze()
            }
        };
        let end = whole_characters(&whole);
        self.part.extend_from_slice(&whole[end..]);
        whole.slice(..end)
    }
}

/// Where the last whole character ends.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(PART_MAX);
    for at in (tail..bytes.len()).rev() {
        let needed = match bytes[at] {
            0x00..=0x7f => 1,
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        return match bytes.len() - at < needed {
            true => at,
            false => bytes.len(),
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_whole_wherever_the_output_is_cut() {
        let all = "a\u{fc}\u{20ac}\u{1f980}z".as_bytes();
        for cut in 0..=all.len() {
            for second in cut..=all.len() {
                let mut pieces = TextPieces::default();
                let parts = [&all[..cut], &all[cut..second], &all[second..]];
                let taken = parts.map(|part| pieces.take(Bytes::copy_from_slice(part)));
                let texts = taken.map(|piece| String::from_utf8_lossy(&piece).into_owned());
                assert!(
                    texts.iter().all(|text| !text.contains('\u{fffd}')),
                    "{texts:?}"
                );
                assert_eq!(texts.concat().as_bytes(), all);
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_not_held_back_for_long() {
        let mut pieces = TextPieces::default();
        let first = pieces.take(Bytes::from_static(b"a\xff\xfe"));
        let second = pieces.take(Bytes::from_static(b"\x80\x80\x80b"));
        let taken = [first, second].concat();
        let text = String::from_utf8_lossy(&taken);
        assert!(text.starts_with('a') && text.ends_with('b'), "{text}");
    }
}
