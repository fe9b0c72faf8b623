//! How many processes `warm = "auto"` keeps ready: as many as were needed at once lately.

use std::time::Duration;

use tokio::time::Instant;

/// How long it is remembered how many were needed at once: a burst that comes back within this time is met.
const MEMORY: Duration = Duration::from_secs(30 * 60);

/// The time is cut into so many parts, of which the oldest is forgotten as a whole.
const PARTS: usize = 6;

/// How many processes with one launch serve, and how many did at once.
#[derive(Debug)]
pub(super) struct Busy {
    now: usize,
    /// The most in each part of the time, the present one first.
    most: [usize; PARTS],
    /// When the present part began.
    since: Instant,
}

impl Busy {
    pub(super) fn new(now: Instant) -> Self {
        Busy {
            now: 0,
            most: [0; PARTS],
            since: now,
        }
    }

    /// Another process serves.
    pub(super) fn begins(&mut self, now: Instant) {
        self.pass(now);
        self.now += 1;
        self.most[0] = self.most[0].max(self.now);
    }

    /// A process serves no longer.
    pub(super) fn ends(&mut self, now: Instant) {
        self.pass(now);
        self.now = self.now.saturating_sub(1);
    }

    /// How many serve.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// How many were needed at once lately.
    pub(super) fn needed(&self, now: Instant) -> usize {
        let passed = self.parts_since(now);
        let remembered = self.most.iter().take(PARTS.saturating_sub(passed));
        remembered.copied().max().unwrap_or(0).max(self.now)
    }

    /// Forgets what is too old.
    fn pass(&mut self, now: Instant) {
        let passed = self.parts_since(now).min(PARTS);
        if passed > 0 {
            self.most.rotate_right(passed);
            self.most[..passed].fill(self.now);
            self.since = now;
        }
    }

    fn parts_since(&self, now: Instant) -> usize {
        let part = MEMORY / PARTS as u32;
        (now.saturating_duration_since(self.since).as_secs() / part.as_secs()) as usize
    }
}

/// How many warm processes there should be behind a launch of which so many were needed at once, while so many serve and
/// so many are parked: these may serve the next request as well. One more is ready for somebody else.
pub(super) fn warm(needed: usize, serving: usize, parked: usize) -> usize {
    needed.saturating_sub(serving + parked).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_needed_at_once_is_remembered_for_a_while() {
        let mut busy = Busy::new(Instant::now());
        assert_eq!(busy.needed(Instant::now()), 0);
        for _ in 0..8 {
            busy.begins(Instant::now());
        }
        for _ in 0..8 {
            busy.ends(Instant::now());
        }
        busy.begins(Instant::now());
        busy.ends(Instant::now());
        assert_eq!(busy.needed(Instant::now()), 8);
        tokio::time::advance(MEMORY / 2).await;
        assert_eq!(busy.needed(Instant::now()), 8);
        busy.begins(Instant::now());
        tokio::time::advance(MEMORY / 2).await;
        assert_eq!(busy.needed(Instant::now()), 1, "the one that still serves");
        busy.ends(Instant::now());
        tokio::time::advance(MEMORY * 2).await;
        assert_eq!(busy.needed(Instant::now()), 0);
    }

    #[test]
    fn those_that_serve_or_are_parked_count_and_one_is_always_ready() {
        assert_eq!((warm(0, 0, 0), warm(1, 0, 0), warm(8, 0, 0)), (1, 1, 8));
        assert_eq!((warm(8, 0, 3), warm(8, 2, 3), warm(8, 8, 0)), (5, 3, 1));
        assert_eq!((warm(8, 0, 8), warm(1, 1, 5)), (1, 1));
    }
}
