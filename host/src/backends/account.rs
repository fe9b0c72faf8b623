//! What an account runs into: the end of its login, and its limits.

use std::time::{Duration, SystemTime};

use guests::report::{self, RateLimitStatus};
use serde::Serialize;
use tokio::time::Instant;

use super::plan::share;

/// The state of an account's limits, as a request brought it to light. That a limit is reached is a hint: it counts until
/// the reset, and no longer than until the next success.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub(crate) struct RateLimit {
    pub(super) status: RateLimitStatus,
    pub(super) r#type: Option<String>,
    /// Seconds since the Unix epoch.
    pub(super) resets_at: Option<u64>,
    /// How much of it is used, 0 to 1.
    pub(super) utilization: Option<f64>,
    /// When it is reset, by a clock that nobody sets.
    #[serde(skip)]
    until: Instant,
}

/// A limit as numbers.
pub(crate) struct LimitMetrics {
    pub(crate) reached: bool,
    /// 0 to 1.
    pub(crate) used: Option<f64>,
    /// Seconds since the Unix epoch.
    pub(crate) resets_at: Option<u64>,
}

/// An RFC 3339 instant in seconds since the Unix epoch.
pub(super) fn unix_time(instant: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(instant).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

/// An instant as people read it, to the minute.
pub(super) fn shown_time(unix: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    let text = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
    let minutes = text.and_then(|text| Some(text.get(..16)?.replace('T', " ") + " UTC"));
    minutes.unwrap_or_else(|| format!("{unix} s after 1970"))
}

/// What to say of a login that ends soon: within `notice`.
pub(super) fn login_warning(end: u64, now: u64, notice: Duration, login: &str) -> Option<String> {
    const DAY: u64 = 24 * 3600;
    let left = end.saturating_sub(now);
    let renew = format!("run `{login}` as the user of this service");
    let at = shown_time(end);
    if left == 0 {
        Some(format!("the login has probably ended, at {at}: {renew}"))
    } else if left <= notice.as_secs() {
        let days = left.div_ceil(DAY);
        Some(format!(
            "the login ends within {days} days, at {at}: {renew}"
        ))
    } else {
        None
    }
}

/// The names of limits that are passed on as they are.
const LIMITS: [&str; 7] = [
    "five_hour",
    "seven_day",
    "seven_day_opus",
    "seven_day_sonnet",
    "monthly",
    "overage",
    "usage",
];

/// The furthest ahead that a limit's reset is believed, in seconds. A monthly limit resets within 31 days.
const RESET_MOST: u64 = 40 * 24 * 3600;

/// The furthest ahead that a login's end is believed, in seconds. A login lasts some 30 days, a token a year.
const LOGIN_MOST: u64 = 400 * 24 * 3600;

/// How long a limit counts as reached if nobody says when it is reset.
const RESET_UNKNOWN: Duration = Duration::from_secs(300);

const MINUTE: u64 = 60;

/// When a login ends, to the minute. None if that is too far ahead to be true.
pub(super) fn login_end(end: u64, now: u64) -> Option<u64> {
    (end <= now.saturating_add(LOGIN_MOST)).then_some(end / MINUTE * MINUTE)
}

impl RateLimit {
    /// The part of a guest's report that may be passed on. A guest that has seen a request might put words
    /// of it into the report.
    pub(super) fn checked(limit: report::RateLimit, now: u64) -> Self {
        let name = limit.name.map(|name| {
            let known = LIMITS.into_iter().find(|known| *known == name);
            known.unwrap_or("other").to_owned()
        });
        let resets_at = limit
            .resets_at
            .map(|at| at.div_ceil(MINUTE).saturating_mul(MINUTE));
        let resets_at = resets_at.filter(|at| *at <= now.saturating_add(RESET_MOST));
        let left = resets_at.map(|at| Duration::from_secs(at.saturating_sub(now)));
        RateLimit {
            status: limit.status,
            r#type: name,
            resets_at,
            utilization: limit.utilization.and_then(share),
            until: Instant::now() + left.unwrap_or(RESET_UNKNOWN),
        }
    }

    /// Whether it was reached when it was last heard of.
    pub(super) fn was_reached(&self) -> bool {
        self.status == RateLimitStatus::Rejected
    }

    /// Whether its reset lies ahead.
    pub(super) fn is_ahead(&self) -> bool {
        Instant::now() < self.until
    }

    /// Whether it was reached, and has been reset since this instant.
    pub(super) fn was_reset_since(&self, instant: Option<Instant>) -> bool {
        let is_new = instant.is_none_or(|instant| instant < self.until);
        self.was_reached() && !self.is_ahead() && is_new
    }

    /// What the metrics say of it.
    pub(crate) fn metrics(&self) -> LimitMetrics {
        LimitMetrics {
            reached: self.was_reached() && self.is_ahead(),
            used: self.utilization,
            resets_at: self.resets_at,
        }
    }

    /// The warning to show if the limit is reached and not yet reset.
    pub(super) fn warning(&self) -> Option<String> {
        if !self.was_reached() || !self.is_ahead() {
            return None;
        }
        let name = self.r#type.as_deref().unwrap_or("usage");
        let until = self.resets_at.map(shown_time);
        let until = until.map_or(String::new(), |at| format!(" until {at}"));
        Some(format!("the account's `{name}` limit is reached{until}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_login_is_warned_of_in_time() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let end = unix_time("2026-12-24T18:00:00.000Z").unwrap();
        let warned = |before_days: u64| {
            login_warning(
                end,
                end - before_days * 24 * 3600,
                week,
                "claude auth login",
            )
        };
        assert_eq!(warned(8), None);
        let text = warned(6).unwrap();
        assert!(
            text.contains("within 6 days, at 2026-12-24 18:00 UTC"),
            "{text}"
        );
        assert!(
            login_warning(end, end + 5, week, "x")
                .unwrap()
                .contains("ended")
        );
        assert_eq!(unix_time("soon"), None);
    }
}
