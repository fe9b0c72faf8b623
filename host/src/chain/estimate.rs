//! Estimates the tokens of an answer that nobody counted.

use guests::completion::Usage;

/// Bytes of text that make about one token.
const BYTES_PER_TOKEN: usize = 4;

/// The tokens of so many bytes of text.
fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN) as u64
}

/// The tokens of an answer that the host has ended: what the backend has counted so far, but no
/// fewer output tokens than are estimated from what was written.
pub(super) fn of_cut(counted: Usage, written: usize) -> Usage {
    Usage {
        completion_tokens: counted.completion_tokens.max(tokens(written)),
        ..counted
    }
}

/// The tokens of an answer whose backend does not count.
pub(crate) fn of_uncounted(asked: usize, written: usize) -> Usage {
    Usage {
        prompt_tokens: tokens(asked),
        completion_tokens: tokens(written),
        ..Usage::default()
    }
}
