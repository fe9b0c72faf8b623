//! Waiting for something to become true, with a deadline.

use std::time::{Duration, Instant};

/// How often is looked.
const STEP: Duration = Duration::from_millis(10);

/// Waits until `look` finds something; panics with `what` when the time is over.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {limit:?}"
        );
        tokio::time::sleep(STEP).await;
    }
}

/// Whether a process is there. One that has ended and waits to be reaped is not.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
