//! What hostile guests do, in whichever world they are. Each deed has a name.

use std::hint::black_box;

use harness_guest::Level;

/// Does what any function can do: `spin`, `trap`, `panic`, `overflow`, `allocate`, `chatter`. Any other name does
/// nothing.
pub fn act(deed: &str) {
    match deed {
        "spin" => loop {
            black_box(());
        },
        "trap" => std::process::abort(),
        "panic" => panic!("it was told to"),
        "overflow" => {
            black_box(overflow(0));
        }
        "allocate" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(vec![1; 64 << 20]);
                black_box(&all);
            }
        }
        "chatter" => {
            (0..10_000).for_each(|_| harness_guest::log(Level::Info, &"chatter ".repeat(1000)));
        }
        _ => {}
    }
}

/// The text that a function returns which returns text: 100 MiB for `huge`, bytes that are not UTF-8 for `no-text`.
#[allow(unsafe_code, reason = "no safe code makes such a text")]
pub fn text(deed: &str) -> Option<String> {
    match deed {
        "huge" => Some("x".repeat(100 << 20)),
        // SAFETY: a lie. Only the host looks at it, and has to find out.
        "no-text" => Some(unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe]) }),
        _ => None,
    }
}

/// How many things a function returns which returns a list: countless ones for `many`.
pub fn count(deed: &str) -> usize {
    match deed {
        "many" => 200_000,
        _ => 0,
    }
}

#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    match depth {
        u64::MAX => 0,
        _ => overflow(depth + 1) + black_box(frame)[1],
    }
}
