//! The windows in which a login's plan counts usage.

use guests::report;
use serde::Serialize;

use super::account::{RateLimit, shown_time};

/// The shares from which on a window is warned of.
const WARN_FROM: f64 = 0.80;
const WARN_AGAIN_FROM: f64 = 0.95;

/// The most windows that are kept.
const WINDOWS_MAX: usize = 16;

/// How much of a window must be gone before a pace is told: at its very beginning, one request would look like a rush.
const PACE_FROM: f64 = 0.02;

/// A plan, as it was told last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// When it was told, in seconds since the Unix epoch.
    pub(crate) asked_at: u64,
    pub(crate) name: Option<String>,
    windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq)]
struct Window {
    name: String,
    display_name: Option<String>,
    utilization: Option<f64>,
    resets_at: Option<u64>,
    length: Option<u64>,
}

/// A window as it is now. What is not known is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct WindowState {
    /// Which one it is.
    pub(crate) name: String,
    /// Its name for people, if it is for something special.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// The share that is used, 0 to 1.
    pub(crate) utilization: Option<f64>,
    /// When it ends, in seconds since the Unix epoch.
    pub(crate) resets_at: Option<u64>,
    /// How long it is.
    pub(crate) length_seconds: Option<u64>,
    /// The share that is used against the share of the time that is gone. Above 1, the limit is reached before
    /// the window ends.
    pub(crate) pace: Option<f64>,
}

/// Little is left of a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// The window, and the threshold that it passed, in percent.
    pub(super) passed: (String, u32),
    pub(super) sentence: String,
}

impl Plan {
    /// The part of a report that may be passed on. It comes from a guest that has seen no request, but quotes a program.
    pub(super) fn checked(plan: report::Plan, now: u64) -> Self {
        let plain = |text: &str| basics::plain::line(text, 60);
        let windows = plan.windows.into_iter().take(WINDOWS_MAX);
        let windows = windows.map(|window| Window {
            name: plain(&window.name),
            display_name: window.display_name.as_deref().map(plain),
            utilization: window.utilization.and_then(share),
            resets_at: window.resets_at,
            length: window.length.filter(|length| *length > 0),
        });
        Plan {
            asked_at: now,
            name: plan.name.as_deref().map(plain),
            windows: windows.collect(),
        }
    }

    /// Takes note of what a request brought to light of one window.
    pub(super) fn note(&mut self, limit: &RateLimit) {
        let named = |window: &&mut Window| Some(&*window.name) == limit.r#type.as_deref();
        let Some(window) = self.windows.iter_mut().find(named) else {
            return;
        };
        window.utilization = limit.utilization.or(window.utilization);
        window.resets_at = limit.resets_at.or(window.resets_at);
    }

    /// The windows as they are at this time. Of one that has ended meanwhile, nothing is known.
    pub(crate) fn windows(&self, now: u64) -> Vec<WindowState> {
        let state = |window: &Window| {
            let is_over = window.resets_at.is_some_and(|end| end <= now);
            let is_known = |_: &f64| !is_over;
            let utilization = window.utilization.filter(is_known);
            WindowState {
                name: window.name.clone(),
                display_name: window.display_name.clone(),
                utilization,
                resets_at: window.resets_at.filter(|_| !is_over),
                length_seconds: window.length,
                pace: utilization.and_then(|used| window.pace(used, now)),
            }
        };
        self.windows.iter().map(state).collect()
    }

    /// The window that is used by at least so many percent, the fullest if there are several.
    pub(crate) fn fuller_than(&self, percent: u32, now: u64) -> Option<WindowState> {
        let used = |window: &WindowState| window.utilization.unwrap_or(0.0);
        let windows = self.windows(now).into_iter();
        windows
            .filter(|window| used(window) * 100.0 >= f64::from(percent))
            .max_by(|one, other| used(one).total_cmp(&used(other)))
    }

    /// The windows of which little is left.
    pub(super) fn warnings(&self, now: u64) -> Vec<Warning> {
        let windows = self.windows(now).into_iter();
        let warned = windows.filter_map(|window| {
            let used = window.utilization.filter(|used| *used >= WARN_FROM)?;
            let threshold = if used < WARN_AGAIN_FROM { 80 } else { 95 };
            let until = match window.resets_at {
                Some(at) => format!(", until {}", shown_time(at)),
                None => String::new(),
            };
            let of = match &window.display_name {
                Some(name) => format!(" of {name}"),
                None => String::new(),
            };
            let percent = (used * 100.0).floor();
            let sentence = format!(
                "{percent} % of the plan's window `{}`{of} is used{until}",
                window.name
            );
            Some(Warning {
                passed: (window.name + &of, threshold),
                sentence,
            })
        });
        warned.collect()
    }

    /// Whether this window is known not to be used up.
    pub(super) fn has_room(&self, name: Option<&str>, now: u64) -> bool {
        let mut windows = self.windows(now).into_iter();
        windows.any(|window| {
            Some(&*window.name) == name && window.utilization.is_some_and(|used| used < 1.0)
        })
    }
}

impl Window {
    fn pace(&self, used: f64, now: u64) -> Option<f64> {
        let (end, length) = (self.resets_at?, self.length?);
        let left = end.saturating_sub(now).min(length);
        let gone = (length - left) as f64 / length as f64;
        (gone >= PACE_FROM).then(|| (used / gone * 100.0).round() / 100.0)
    }
}

/// A share, to the percent.
pub(super) fn share(part: f64) -> Option<f64> {
    let rounded = (part.clamp(0.0, 1.0) * 100.0).round() / 100.0;
    part.is_finite().then_some(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const NOW: u64 = 1_800_000_000;

    fn plan(utilization: Option<f64>, resets_at: Option<u64>) -> Plan {
        let window = report::PlanWindow {
            name: "five_hour".into(),
            display_name: None,
            utilization,
            resets_at,
            length: Some(5 * HOUR),
        };
        let told = report::Plan {
            name: Some("max".into()),
            windows: vec![window],
        };
        Plan::checked(told, NOW)
    }

    #[test]
    fn the_pace_is_the_share_used_against_the_share_of_time_gone() {
        let pace = |used, left| plan(Some(used), Some(NOW + left)).windows(NOW)[0].pace;
        assert_eq!(pace(0.5, 4 * HOUR), Some(2.5));
        assert_eq!(pace(0.5, HOUR), Some(0.63));
        // The window has only just begun.
        assert_eq!(pace(0.01, 5 * HOUR - 60), None);
        // Its end lies further ahead than it is long.
        assert_eq!(pace(0.5, 50 * HOUR), None);
    }

    #[test]
    fn what_is_missing_is_unknown_and_so_is_a_window_that_has_ended() {
        let unknown = &plan(None, None).windows(NOW)[0];
        assert_eq!((unknown.utilization, unknown.pace), (None, None));
        let ended = &plan(Some(0.9), Some(NOW + 10)).windows(NOW + 10)[0];
        assert_eq!((ended.utilization, ended.resets_at), (None, None));
        assert_eq!(plan(Some(f64::NAN), None).windows(NOW)[0].utilization, None);
    }

    #[test]
    fn warnings_begin_at_80_and_95_percent() {
        let warned = |used| plan(Some(used), Some(NOW + HOUR)).warnings(NOW);
        assert_eq!(warned(0.79), []);
        let [warning] = &warned(0.8)[..] else {
            panic!("no warning");
        };
        assert_eq!(warning.passed.1, 80);
        assert_eq!(
            warning.sentence,
            "80 % of the plan's window `five_hour` is used, until 2027-01-15 09:00 UTC"
        );
        assert_eq!(warned(0.95)[0].passed.1, 95);
        assert_eq!(plan(Some(0.99), Some(NOW)).warnings(NOW), []);
    }
}
