//! What is known of a backend, after what is reported of it.

use serde_json::json;

use guests::report::{RateLimit, RateLimitStatus};

use super::*;
use crate::profiles::PROFILES;

fn offer(id: &str, display_name: Option<&str>) -> ModelOffer {
    ModelOffer {
        id: id.into(),
        resolved: None,
        display_name: display_name.map(Into::into),
    }
}

fn limits(id: &str, context_length: u64) -> Report {
    Report::ModelLimits(ModelLimits {
        id: id.into(),
        context_length: Some(context_length),
        max_output_tokens: None,
    })
}

#[test]
fn only_names_of_models_are_taken() {
    let status = Status::new(PROFILES[0]);
    let models = ["opus", "default", "-p"].map(|id| offer(id, None));
    status.observe(Report::Models(models.into()), Reporter::Probe);
    status.observe(Report::Version("1".into()), Reporter::Probe);
    let ids: Vec<_> = status.offers().into_iter().map(|m| m.id).collect();
    assert_eq!(ids, ["opus"]);
    assert_eq!(status.version(), None);
}

#[test]
fn limits_of_models_and_of_the_account_are_kept() {
    let status = Status::new(PROFILES[0]);
    let reset = unix_now() + 3600;
    let request = Reporter::Request { model: "m" };
    let limit = RateLimit {
        status: RateLimitStatus::Rejected,
        name: Some("five_hour".into()),
        resets_at: Some(reset),
        utilization: None,
    };
    status.observe(Report::RateLimit(limit), request);
    status.observe(limits("m", 7), request);
    status.observe(limits("a b", 7), request);
    assert_eq!(status.model_limits("m").unwrap().context_length, Some(7));
    assert_eq!(status.model_limits("a b"), None);
    let warnings = status.warnings(Duration::ZERO, "x");
    assert!(
        warnings[0].contains("`five_hour` limit is reached until"),
        "{warnings:?}"
    );
}

#[test]
fn what_a_guest_that_saw_a_request_reports_carries_no_text_of_it() {
    let status = Status::new(PROFILES[0]);
    let models = [
        offer("opus", Some("Opus 4.5 (best)")),
        offer("x", Some("<img onerror>")),
    ];
    status.observe(Report::Models(models.into()), Reporter::Probe);
    assert_eq!(
        status.offer("opus").unwrap().display_name.unwrap(),
        "Opus 4.5 (best)"
    );
    assert_eq!(status.offer("x").unwrap().display_name, None);
    let (before, request) = (status.offers(), Reporter::Request { model: "opus" });
    let limit = RateLimit {
        status: RateLimitStatus::Allowed,
        name: Some("the-prompt".into()),
        resets_at: Some(u64::MAX),
        utilization: Some(0.123456),
    };
    for report in [
        Report::Version("7365637265742e".into()),
        Report::Models(vec![offer("736563726574", Some("the prompt"))]),
        limits("opus", 199_783),
        limits("other", 1),
        Report::RateLimit(limit),
        // In the year 9999.
        Report::LoginEndsAt(253_370_764_800),
    ] {
        status.observe(report, request);
    }
    assert_eq!((status.offers(), status.version()), (before, None));
    assert!(
        status.wants_probe(),
        "other models are asked for, not believed"
    );
    assert_eq!(
        status.model_limits("opus").unwrap().context_length,
        Some(199_000)
    );
    assert_eq!(
        (status.model_limits("other"), status.login_ends()),
        (None, None)
    );
    let limit = json!(status.rate_limit().unwrap());
    assert_eq!(
        limit,
        json!({"status": "allowed", "type": "other", "resets_at": null, "utilization": 0.12})
    );
    status.observe(limits("opus", 5), request);
    assert_eq!(
        status.model_limits("opus").unwrap().context_length,
        Some(199_000)
    );
}

/// A limit that was reached, with its reset so many seconds ahead by the clock on the wall.
fn reached(reset: Option<i64>) -> Report {
    let at = |ahead| unix_now().saturating_add_signed(ahead);
    Report::RateLimit(RateLimit {
        status: RateLimitStatus::Rejected,
        name: Some("five_hour".into()),
        resets_at: reset.map(at),
        utilization: Some(1.0),
    })
}

fn told(status: &Status) -> bool {
    let told = !status.warnings(Duration::ZERO, "x").is_empty();
    let metrics = status
        .rate_limit()
        .is_some_and(|limit| limit.metrics().reached);
    assert_eq!(told, metrics);
    told
}

const REQUEST: Reporter<'_> = Reporter::Request { model: "m" };
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_limit_ends_with_its_reset_by_a_clock_that_nobody_sets() {
    let status = Status::new(PROFILES[0]);
    status.observe(reached(Some(3600)), REQUEST);
    assert!(told(&status));
    tokio::time::advance(HOUR - Duration::from_secs(1)).await;
    assert!(told(&status));
    // Resets are told to the minute, rounded up.
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(!told(&status));
    // Now the plan is looked at, though nobody asks.
    assert!(status.wants_plan(false));
    status.asks_plan();
    assert!(!status.wants_plan(false));
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_every_limit() {
    let status = Status::new(PROFILES[0]);
    for reset in [Some(3600), Some(30 * 24 * 3600), None] {
        status.observe(reached(reset), REQUEST);
        assert!(told(&status), "{reset:?}");
        status.answered();
        assert!(!told(&status), "{reset:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_a_credible_reset_does_not_stay() {
    // No reset, one that lies years ahead, and one that has passed, as when a clock was wrong.
    for (reset, holds) in [
        (None, true),
        (Some(400 * 24 * 3600), true),
        (Some(-3600), false),
    ] {
        let status = Status::new(PROFILES[0]);
        status.observe(reached(reset), REQUEST);
        assert_eq!(told(&status), holds, "{reset:?}");
        tokio::time::advance(Duration::from_secs(301)).await;
        assert!(!told(&status), "{reset:?}");
    }
}

fn plan(used: f64) -> Report {
    let window = guests::report::PlanWindow {
        name: "five_hour".into(),
        display_name: None,
        utilization: Some(used),
        resets_at: Some(unix_now() + 3600),
        length: Some(5 * 3600),
    };
    Report::Plan(guests::report::Plan {
        name: None,
        windows: vec![window],
    })
}

#[tokio::test(start_paused = true)]
async fn the_plan_ends_a_limit_that_was_reset_early_and_only_that() {
    let status = Status::new(PROFILES[0]);
    status.observe(reached(Some(3600)), REQUEST);
    status.observe(plan(1.0), Reporter::Probe);
    assert!(told(&status));
    status.observe(plan(0.01), Reporter::Probe);
    assert!(!told(&status));
    // A guest that has seen a request cannot speak of the plan.
    status.observe(plan(0.99), REQUEST);
    assert!(!told(&status));
}

#[tokio::test(start_paused = true)]
async fn the_plan_is_asked_for_while_somebody_uses_the_backend_or_asks() {
    let status = Status::new(PROFILES[0]);
    assert!(status.wants_plan(true) && !status.wants_plan(false));
    status.asks_plan();
    status.answered();
    assert!(!status.wants_plan(true), "it was asked for just now");
    tokio::time::advance(PLAN_TTL).await;
    assert!(status.wants_plan(false));
    status.asks_plan();
    tokio::time::advance(PLAN_TTL).await;
    assert!(!status.wants_plan(false), "nobody has used it since");
}
