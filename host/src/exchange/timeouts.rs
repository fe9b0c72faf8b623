//! The time limits of an exchange.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::TimeoutConfig;
use crate::failure::{Failure, Kind};

/// Measures the time that an exchange takes.
pub(super) struct Timeouts {
    runs: bool,
    begun: Instant,
    /// When the process was given the request: later than `begun` if another one took its place.
    started: Instant,
    heard: Option<Instant>,
    config: TimeoutConfig,
}

/// When to give up.
pub(super) struct Limit {
    pub(super) at: Instant,
    /// The setting that says so, and its value.
    setting: &'static str,
    value: Duration,
    what: &'static str,
}

impl Timeouts {
    pub(super) fn new(config: TimeoutConfig) -> Self {
        let now = Instant::now();
        Timeouts {
            runs: false,
            begun: now,
            started: now,
            heard: None,
            config,
        }
    }

    /// Starts the clock, unless it runs already: from now on somebody waits for the answer. A request of
    /// several choices first begins all its exchanges, one by one; that time does not count.
    pub(super) fn run(&mut self) {
        if !self.runs {
            self.runs = true;
            self.begun = Instant::now();
            self.started = self.begun;
        }
    }

    /// Another process took the place of the first: `start_timeout` and `first_output_timeout` begin again.
    pub(super) fn restart(&mut self) {
        self.started = Instant::now();
        self.heard = None;
    }

    /// The process printed something.
    pub(super) fn heard(&mut self) {
        self.heard = Some(Instant::now());
    }

    /// The limit that will be reached first. `answering` is whether a piece of the answer has come.
    pub(super) fn next(&self, answering: bool) -> Limit {
        let limit = |from: Instant, value, setting, what| Limit {
            at: from + value,
            setting,
            value,
            what,
        };
        let output = match self.heard {
            None => limit(
                self.started,
                self.config.start,
                "start_timeout",
                "say anything",
            ),
            Some(last) => limit(last, self.config.silence, "silence_timeout", "go on"),
        };
        let first = limit(
            self.started,
            self.config.first_output,
            "first_output_timeout",
            "begin its answer",
        );
        let whole = limit(self.begun, self.config.request, "request_timeout", "answer");
        let first = (!answering).then_some(first);
        let mut soonest = output;
        for other in first.into_iter().chain([whole]) {
            if other.at < soonest.at {
                soonest = other;
            }
        }
        soonest
    }
}

impl Limit {
    /// The request's failure once the time is over.
    pub(super) fn failure(&self, stderr: String) -> Failure {
        let message = format!(
            "the backend took too long to {}: `{}` is {:?}",
            self.what, self.setting, self.value
        );
        Failure::new(Kind::Timeout, message)
            .with_stderr(stderr)
            .logged()
    }
}
