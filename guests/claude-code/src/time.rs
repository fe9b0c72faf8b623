//! Instants as the CLI writes them.

use std::time::UNIX_EPOCH;

/// An RFC 3339 instant in UTC, in seconds since the Unix epoch. The API writes the zone as `+00:00`.
pub(crate) fn unix_time(instant: &str) -> Option<u64> {
    let utc = instant
        .strip_suffix("+00:00")
        .map(|local| format!("{local}Z"));
    let time = humantime::parse_rfc3339(utc.as_deref().unwrap_or(instant)).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
