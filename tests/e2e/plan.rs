//! How much of the login's plan is used.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness_tests::anthropic::Proxy;
use harness_tests::fake_api::FakeApi;
use harness_tests::host::Host;
use harness_tests::{poll, real_cli};
use serde_json::{Value, json};

use crate::cli::ONE_AT_A_TIME;
use crate::fake::Fake;

const SOON: Duration = Duration::from_secs(30);
const HOUR: u64 = 3600;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// An instant so many seconds ahead, as Anthropic's API writes it.
fn ahead(seconds: u64) -> String {
    let at = SystemTime::now() + Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_micros(at).to_string();
    text.replace('Z', "+00:00")
}

/// The windows of a backend, once there are any.
async fn windows(host: &Host, backend: &str) -> Value {
    poll::until("the plan's windows", SOON, async || {
        let (status, plans) = host.get("/admin/plan").await;
        assert_eq!(status, 200, "{plans}");
        let plan = plans["backends"][backend].clone();
        plan["windows"][0].is_object().then_some(plan)
    })
    .await
}

#[tokio::test]
async fn the_windows_of_a_subscription_are_told() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for version in real_cli::VERSIONS {
        let Some(program) = real_cli::find(version, "the_windows_of_a_subscription_are_told")
        else {
            continue;
        };
        let (api, home) = (
            FakeApi::start().await.unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let proxy = Proxy::start(&api, home.path()).await.unwrap();
        let reset = ahead(4 * HOUR);
        api.set_usage(json!({
            "five_hour": {"utilization": 42.0, "resets_at": reset},
            "seven_day": {"utilization": 96.0, "resets_at": ahead(24 * HOUR)},
            "seven_day_opus": null,
            "extra_usage": {"is_enabled": false, "utilization": null},
        }));
        let login = json!({"claudeAiOauth": {
            "accessToken": "any", "refreshToken": "any", "expiresAt": (now() + 8 * HOUR) * 1000,
            "scopes": ["user:inference", "user:profile"], "subscriptionType": "max",
        }});
        let claude = home.path().join("claude");
        std::fs::create_dir(&claude).unwrap();
        std::fs::write(claude.join(".credentials.json"), login.to_string()).unwrap();
        let config = format!(
            "[backends.claude]\ncommand = \"{}\"\nenv = {{ ANTHROPIC_BASE_URL = \"{}\", HTTPS_PROXY = \"{}\", NODE_EXTRA_CA_CERTS = \"{}\", CLAUDE_CONFIG_DIR = \"{}\" }}\n",
            program.display(),
            api.url(),
            proxy.url,
            proxy.certificate.display(),
            claude.display(),
        );
        let host = Host::start_in(home, &config);
        let plan = windows(&host, "claude").await;
        assert_eq!(plan["name"], "max", "{version}: {plan}");
        let [five, week] = &plan["windows"].as_array().unwrap()[..] else {
            panic!("{version}: {plan}");
        };
        assert_eq!(
            (&five["name"], &five["utilization"]),
            (&json!("five_hour"), &json!(0.42))
        );
        assert!(five["pace"].as_f64().unwrap() > 1.9, "{version}: {five}");
        assert_eq!(week["name"], "seven_day");
        let (_, health) = host.get("/health").await;
        let claude = &health["backends"]["claude"];
        assert_eq!(
            (&health["status"], &claude["plan"]["name"]),
            (&json!("degraded"), &json!("max"))
        );
        let warning = claude["warnings"][0].as_str().unwrap();
        assert!(
            warning.starts_with("96 % of the plan's window `seven_day` is used, until "),
            "{warning}"
        );
        assert_eq!(claude["introduction"]["version"], version);
        assert_eq!(claude["introduction"]["login"]["is_logged_in"], true);
        assert_eq!(claude["introduction"]["lacks"], json!([]));
        let (_, metrics) = host.text("/metrics").await;
        let line =
            r#"claude_harness_plan_used_ratio{backend="claude",window="five_hour",of=""} 0.42"#;
        assert!(metrics.contains(line), "{metrics}");
        host.logged("96 % of the plan's window").await;
    }
}

#[tokio::test]
async fn without_plan_windows_nothing_is_asked_and_nothing_is_known() {
    let fake = Fake::start_with("#init", "plan_windows = false", "");
    let (status, plans) = fake.host.get("/admin/plan").await;
    let unknown = json!({"name": null, "asked_at": null, "windows": [], "rate_limit": null});
    assert_eq!(
        (status, &plans["backends"]["fake"]),
        (200, &unknown),
        "{plans}"
    );
}

#[tokio::test]
async fn an_idle_process_is_asked_and_then_serves_on() {
    // The first request comes before the backend was asked what it offers, and takes its only place. So the plan was
    // not asked for when the process is kept.
    let script = format!(
        "#slow-login 500\n#init\n#read\n#sleep 1500\n#whole One\n#usage {{\"five_hour\": {{\"utilization\": 7, \"resets_at\": \"{}\"}}}}\n#read\n#whole Two\n",
        ahead(HOUR)
    );
    let fake = Fake::start_with(&script, "continue_for = \"60s\"\nmax_concurrent = 1", "");
    let (status, answer) = fake.host.ask("fake", "a").await;
    assert_eq!(status, 200, "{answer}");
    let plan = windows(&fake.host, "fake").await;
    assert_eq!(plan["windows"][0]["utilization"], 0.07, "{plan}");
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "One"},
        {"role": "user", "content": "b"},
    ]);
    let (status, answer) = fake
        .host
        .post(&json!({"model": "fake", "messages": messages}))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], "Two");
    assert_eq!(fake.pids().len(), 1, "one process served all");
    // What is known is new, so nobody is asked again.
    let (_, again) = fake.host.get("/admin/plan").await;
    assert_eq!(again["backends"]["fake"]["asked_at"], plan["asked_at"]);
}

#[tokio::test]
async fn a_key_with_a_part_of_the_plan_is_refused_when_that_is_used() {
    let script = format!(
        "#slow-login 500\n#init\n#read\n#sleep 1500\n#whole One\n#usage {{\"five_hour\": {{\"utilization\": 85, \"resets_at\": \"{}\"}}}}\n#read\n#whole Two\n",
        ahead(HOUR)
    );
    let keys = "[keys.n8n]\nkey = \"the key of a workflow\"\nplan_percent = 80\n[keys.mine]\nkey = \"the key of the owner\"\nplan_percent = 90\nadmin = true\n";
    let fake = Fake::start_with(&script, "continue_for = \"60s\"\nmax_concurrent = 1", keys);
    let ask = async |key: &str| {
        let request = fake
            .host
            .client()
            .post(fake.host.url("/v1/chat/completions"));
        let body = json!({"model": "fake", "messages": [{"role": "user", "content": "Hi"}]});
        request.bearer_auth(key).json(&body).send().await.unwrap()
    };
    // As long as nobody knows the plan, nobody is refused.
    assert_eq!(ask("the key of a workflow").await.status(), 200);
    poll::until("the plan's windows", SOON, async || {
        let (_, told) = fake
            .host
            .get_with("the key of the owner", "/admin/plan")
            .await;
        (told["backends"]["fake"]["windows"][0]["utilization"] == 0.85).then_some(())
    })
    .await;
    let refused = ask("the key of a workflow").await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    let error: Value = refused.json().await.unwrap();
    let told = error["error"]["message"].as_str().unwrap();
    assert!(told.contains("`five_hour` is used by 85 %"), "{told}");
    assert_eq!(ask("the key of the owner").await.status(), 200);
}
