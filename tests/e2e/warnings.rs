//! What health warns of before it bites: the end of the login, and limits of the account.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness_tests::poll;
use serde_json::{Value, json};

use crate::fake::Fake;

/// An instant some days from now, as JavaScript writes it.
fn days_from_now(days: u64) -> String {
    let output = std::process::Command::new("date")
        .args([
            "-u",
            "-d",
            &format!("{days} days"),
            "+%Y-%m-%dT%H:%M:%S.000Z",
        ])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn backend(health: &Value) -> &Value {
    &health["backends"]["fake"]
}

#[tokio::test]
async fn a_login_that_ends_soon_is_a_warning_and_no_failure() {
    let soon = Fake::start(&format!("#login-ends {}\n", days_from_now(3)));
    let (status, health) = soon.host.get("/health").await;
    assert_eq!(
        (status, &health["status"]),
        (200, &json!("degraded")),
        "{health}"
    );
    let warning = backend(&health)["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("within 3 days") && warning.contains("fake-cli auth login"),
        "{warning}"
    );
    soon.host.logged("the login ends within 3 days").await;

    let later = Fake::start(&format!("#login-ends {}\n", days_from_now(20)));
    let (_, health) = later.host.get("/health").await;
    assert_eq!(
        (&health["status"], backend(&health).get("warnings")),
        (&json!("ok"), None)
    );
    assert!(backend(&health)["login_expires_at"].is_u64(), "{health}");

    let careful = Fake::start_with(
        &format!("#login-ends {}\n", days_from_now(20)),
        "login_warning = \"30d\"",
        "",
    );
    let (_, health) = careful.host.get("/health").await;
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn what_an_answer_tells_of_login_and_limits_shows_in_health() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let limit = json!({"type": "rate_limit_event", "rate_limit_info": {
        "status": "rejected", "resetsAt": now + 3600, "rateLimitType": "five_hour", "utilization": 1.0}});
    let result = json!({"type": "result", "is_error": true, "api_error_status": 429, "result": "You've hit your limit",
        "credential_expires_at": days_from_now(2)});
    let fake = Fake::start(&format!("#init\n#read\n{limit}\n{result}\n"));
    for (status, setting) in [(429, ""), (503, "rate_limit_status = 503")] {
        let fake = Fake::start_with(&format!("#init\n#read\n{limit}\n{result}\n"), "", setting);
        let response = fake
            .host
            .send(&json!({"model": "fake", "messages": [{"role": "user", "content": "x"}]}))
            .await;
        assert_eq!(response.status(), status);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let wait: u64 = header("retry-after").parse().unwrap();
        assert!((3500..=3600).contains(&wait), "until the reset: {wait}");
        assert_eq!(header("x-should-retry"), "false", "no client waits an hour");
    }
    fake.host.ask("fake", "x").await;
    let health = poll::until("the warnings", Duration::from_secs(5), async || {
        let (_, health) = fake.host.get("/health").await;
        let warnings = backend(&health)["warnings"].as_array().map_or(0, Vec::len);
        (warnings == 2).then_some(health)
    })
    .await;
    assert_eq!(
        backend(&health)["rate_limit"]["status"],
        "rejected",
        "{health}"
    );
    assert!(
        health
            .to_string()
            .contains("`five_hour` limit is reached until")
    );
    assert_eq!(health["status"], "degraded");
}
