//! Finds secrets of machines: private keys, tokens with known beginnings, JSON Web Tokens.

use std::ops::Range;

/// How tokens begin, and how many more letters and digits they have at least. The
/// list is from the documentation of those who issue the tokens.
const BEGINNINGS: [(&str, usize); 24] = [
    ("sk-", 16),
    ("pk_live_", 16),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("sk_test_", 16),
    ("whsec_", 16),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("xapp-", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("hf_", 20),
    ("npm_", 20),
    ("pypi-", 20),
    ("gsk_", 20),
];

/// How a JSON Web Token begins: `{"` in base64.
const JWT: &str = "eyJ";

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

pub(super) fn find(text: &str, each: &mut dyn FnMut(Range<usize>)) {
    let mut from = 0;
    for block in private_keys(text) {
        tokens(text, from..block.start, each);
        from = block.end;
        each(block);
    }
    tokens(text, from..text.len(), each);
}

/// The tokens within a range.
fn tokens(text: &str, range: Range<usize>, each: &mut dyn FnMut(Range<usize>)) {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let bytes = &text.as_bytes()[..range.end];
    let mut at = range.start;
    while at < bytes.len() {
        if !is_part(bytes[at]) {
            at += escape(&bytes[at..]).unwrap_or(1);
            continue;
        }
        let word = bytes[at..].iter().take_while(|byte| is_part(**byte));
        let end = at + word.count();
        let token = &text[at..end];
        if token.starts_with(JWT) {
            at = jwt(text, at, end).map_or(end, |end| {
                each(at..end);
                end
            });
            continue;
        }
        let is_secret = BEGINNINGS.iter().any(|(begin, least)| {
            let rest = token.strip_prefix(begin);
            rest.is_some_and(|rest| rest.len() >= *least)
        });
        if is_secret {
            each(at..end);
        }
        at = end;
    }
}

/// The length of an escape such as `\\n` that a text begins with: in JSON within a text, its letter is no part of the
/// word behind it.
fn escape(text: &[u8]) -> Option<usize> {
    match text {
        [b'\\', b'n' | b'r' | b't' | b'"', ..] => Some(2),
        _ => None,
    }
}

/// The end of the token whose first part is `at..end`: three parts with full stops between them.
fn jwt(text: &str, at: usize, end: usize) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut end = end;
    for _ in 0..2 {
        let rest = text[end..].strip_prefix('.')?;
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        end += 1 + length;
    }
    (end - at > 40).then_some(end)
}

/// Blocks of private keys.
fn private_keys(text: &str) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(PEM_BEGIN) {
        let start = from + at;
        let inner = start + PEM_BEGIN.len();
        let label = text[inner..]
            .find("-----")
            .map(|at| &text[inner..inner + at]);
        from = inner;
        let Some(label) = label.filter(|label| label.len() < 40 && label.ends_with("PRIVATE KEY"))
        else {
            continue;
        };
        let close = format!("{PEM_END}{label}-----");
        // A block that was cut off is one all the same.
        let end = text[inner..]
            .find(&close)
            .map_or(text.len(), |at| inner + at + close.len());
        blocks.push(start..end);
        from = end;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find(text, &mut |range| found.push(&text[range]));
        found
    }

    #[test]
    fn tokens_are_known_by_their_beginnings() {
        let tokens = [("sk-proj-", 20), ("ghp_", 36), ("AKIA", 16)]
            .map(|(begin, rest)| begin.to_owned() + &"A1b2".repeat(rest / 4));
        let text = format!("key={}, {}; {}", tokens[0], tokens[1], tokens[2]);
        assert_eq!(all(&text), tokens);
        for none in ["sk-learn", "task-abcdefghijklmnopqrst", "hf_hub", "eyJ.x.y"] {
            assert!(all(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn web_tokens_and_private_keys_are_found_whole() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0";
        assert_eq!(all(&format!("Bearer {jwt}.")), [jwt]);
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
        assert_eq!(all(&format!("a {pem} b")), [pem]);
        assert_eq!(all("-----BEGIN PRIVATE KEY-----\nMII").len(), 1);
        let token = "ghp_".to_owned() + &"A1b2".repeat(9);
        assert_eq!(all(&format!("\\n{token} {pem} {token} {pem}")).len(), 4);
        assert!(all("-----BEGIN CERTIFICATE-----\nMII").is_empty());
    }
}
