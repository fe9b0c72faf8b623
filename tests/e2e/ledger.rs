//! What was used is told after a restart, too, and says nothing of what was asked.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use harness_tests::host::{Host, program};
use harness_tests::poll;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake::Fake;

/// A word that no other text has.
const MARK: &str = "ultramarine-7261";

/// An answer that cost something, with the mark in it.
fn answer() -> String {
    let result = json!({
        "type": "result", "subtype": "success", "is_error": false, "result": "", "stop_reason": "end_turn",
        "total_cost_usd": 0.0123,
        "usage": {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 7},
    });
    format!("#init\n#read\n#text {MARK}\n{result}\n")
}

fn hi(stream: bool) -> Value {
    json!({"model": "fake", "stream": stream, "messages": [{"role": "user", "content": MARK}]})
}

/// Runs `claude-harness usage` with a service's configuration.
fn usage(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    let command = command.arg("usage").args(arguments).arg("--config");
    let command = command.arg(home.join("harness.toml")).env_clear();
    command.env("HOME", home).output().unwrap()
}

fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All files of a folder whose names begin like this.
fn files(folder: &Path, begin: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begin));
    named
        .map(|entry| std::fs::read(entry.path()).unwrap())
        .collect()
}

#[tokio::test]
async fn requests_are_added_up_and_a_restart_goes_on_with_the_sums() {
    let mut fake = Fake::start_with(&answer(), "", "state_dir = \"state\"\n");
    for stream in [false, true] {
        let answered = fake.host.send(&hi(stream)).await;
        assert_eq!(answered.status(), 200);
        answered.bytes().await.unwrap();
    }
    let (status, _) = fake.host.ask("unknown-7261", MARK).await;
    assert_eq!(status, 404);
    let responses = fake.host.client().post(fake.host.url("/v1/responses"));
    let body = json!({"model": "fake", "input": MARK, "store": false});
    let answered = responses.json(&body).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    answered.bytes().await.unwrap();
    let (status, told) = fake.host.get("/admin/usage?by=api,model").await;
    assert_eq!(status, 200, "{told}");
    let sums = told["data"].as_array().unwrap();
    let names: Vec<_> = sums
        .iter()
        .map(|sum| (&sum["api"], &sum["model"]))
        .collect();
    let (chat, responses) = (json!("chat"), json!("responses"));
    let (none, named) = (json!(""), json!("fake"));
    assert_eq!(
        names,
        [(&chat, &none), (&chat, &named), (&responses, &named)]
    );
    let sum = &sums[1];
    assert_eq!(
        (
            &sum["requests"],
            &sum["failed"],
            &sum["prompt_tokens"],
            &sum["completion_tokens"]
        ),
        (&json!(2), &json!(0), &json!(38), &json!(6)),
        "{sum}"
    );
    assert_eq!(sum["cost_usd"], 0.0246, "{sum}");
    assert_eq!(
        (&sums[0]["failed"], &sums[0]["cost_usd"]),
        (&json!(1), &Value::Null)
    );
    fake.host.signal(Signal::TERM);
    assert_eq!(fake.host.wait(), Some(0));
    let home = fake.host.take_home();
    let config = Fake::config(home.path(), "", "state_dir = \"state\"\n");
    let csv = stdout(usage(home.path(), &["--by", "model", "--format", "csv"]));
    let lines: Vec<&str> = csv.lines().collect();
    assert!(
        lines[0].starts_with("model,requests,failed,prompt_tokens"),
        "{csv}"
    );
    assert!(
        lines[2].starts_with("fake,3,0,57,9,21,0,0.036900,"),
        "{csv}"
    );
    let again = Host::start_in(home, &config);
    assert_eq!(again.ask("fake", MARK).await.0, 200);
    let (_, told) = again.get("/admin/usage?by=model").await;
    assert_eq!(told["data"][1]["requests"], 4, "{told}");
    let table = stdout(usage(again.home(), &[]));
    assert!(table.starts_with("day         requests  failed"), "{table}");
    let written = files(&again.home().join("state"), "usage.sqlite");
    assert!(!written.is_empty());
    for file in written {
        for word in [MARK, "unknown-7261"] {
            let found = file.windows(word.len()).any(|part| part == word.as_bytes());
            assert!(!found, "the ledger has {word}");
        }
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_the_way_out() {
    let fake = Fake::start_with(&answer(), "", "state_dir = \"state\"\n");
    for (query, param, says) in [
        ("by=hour", "by", "`day`, `model`, `key` or `api`"),
        ("since=2026-02-31", "since", "2026-11-29"),
        ("format=xml", "format", "`json` or `csv`"),
    ] {
        let (status, error) = fake.host.get(&format!("/admin/usage?{query}")).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{error}"
        );
        assert!(
            error["error"]["message"].as_str().unwrap().contains(says),
            "{error}"
        );
    }
    assert_eq!(fake.host.get("/admin/usage?form=csv").await.0, 400);
    let empty = usage(
        fake.host.home(),
        &["--since", "2026-11-01", "--format", "json"],
    );
    assert_eq!(stdout(empty), "[]\n");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_costs_no_request_and_is_told() {
    let home = tempfile::tempdir().unwrap();
    // A file where the ledger's folder should be.
    std::fs::write(home.path().join("books"), "").unwrap();
    let ledger = "[ledger]\npath = \"books/usage.sqlite\"\n";
    let config = Fake::config(home.path(), "", "") + ledger;
    let fake = Fake::start_in(home, &answer(), &config);
    assert_eq!(fake.host.ask("fake", "Hi").await.0, 200);
    let limit = Duration::from_secs(20);
    poll::until("the problem in /health", limit, async || {
        let (_, health) = fake.host.get("/health").await;
        let problem = health["ledger"]["problem"].as_str()?;
        assert_eq!(health["status"], "degraded");
        problem.contains("cannot make the folder").then_some(())
    })
    .await;
    fake.host
        .logged("requests are served, and not accounted for")
        .await;
    std::fs::remove_file(fake.host.home().join("books")).unwrap();
    poll::until("the ledger", limit, async || {
        let (_, told) = fake.host.get("/admin/usage").await;
        (told["data"][0]["requests"] == 1).then_some(())
    })
    .await;
    // What is configured while the service runs counts at once.
    fake.host.reconfigure(&(config + "enabled = false\n"));
    fake.host.reload().await;
    let (status, error) = fake.host.get("/admin/usage").await;
    assert_eq!(status, 400, "{error}");
}
