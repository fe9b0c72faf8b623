//! Requests that were turned away before they were read: by a key, a `Host`, a path or a method.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use parking_lot::Mutex;

use crate::telemetry::names;

/// The most log lines in one second. More would say nothing new, and a flood of requests could fill the disk.
const LINES_PER_SECOND: u32 = 10;

/// What was logged in the current second.
struct Second {
    begun: Instant,
    lines: u32,
    left_out: u64,
}

/// Counts and logs a request that was turned away. Neither the counter nor the line quotes the client.
pub(super) fn note(id: &str, status: StatusCode, code: &str) {
    let labels = [
        ("status", status.as_str().to_owned()),
        ("code", code.to_owned()),
    ];
    metrics::counter!(names::TURNED_AWAY, &labels).increment(1);
    match may_log() {
        None => {}
        Some(left_out) => tracing::info!(
            target: "request",
            id,
            status = status.as_u16(),
            code,
            left_out,
            "turned away"
        ),
    }
}

/// Returns `None` if no more lines may be logged in this second. Otherwise returns how many lines were left out
/// since the last one.
fn may_log() -> Option<u64> {
    static SECOND: Mutex<Option<Second>> = Mutex::new(None);
    let mut second = SECOND.lock();
    let now = Instant::now();
    let current = second.get_or_insert(Second {
        begun: now,
        lines: 0,
        left_out: 0,
    });
    if now.duration_since(current.begun) >= Duration::from_secs(1) {
        (current.begun, current.lines) = (now, 0);
    }
    if current.lines == LINES_PER_SECOND {
        current.left_out += 1;
        return None;
    }
    current.lines += 1;
    Some(std::mem::take(&mut current.left_out))
}
