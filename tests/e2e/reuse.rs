//! Processes that are taken back to serve another conversation of the same caller.

use std::time::{Duration, Instant};

use harness_tests::poll;
use serde_json::{Value, json};

use crate::fake::Fake;

const SOON: Duration = Duration::from_secs(10);

/// What a process does that serves one question, and then takes it back in this way.
fn script(how: &str, then: &str) -> String {
    format!("#init\n#read\n#whole One\n#rewind {how}\n{then}")
}

fn start(how: &str, then: &str) -> Fake {
    Fake::start_with(&script(how, then), "continue_for = \"30s\"", "")
}

fn chat(messages: &[(&str, &str)]) -> Value {
    let messages = messages.iter();
    let messages = messages.map(|(role, content)| json!({"role": role, "content": content}));
    json!({"model": "fake", "messages": messages.collect::<Vec<_>>()})
}

async fn ask(fake: &Fake, messages: &[(&str, &str)]) -> String {
    let (status, answer) = fake.host.post(&chat(messages)).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str();
    text.unwrap().to_owned()
}

/// Waits until a process is kept.
async fn kept(fake: &Fake) {
    poll::until("a kept process", SOON, async || {
        let (_, health) = fake.host.get("/health").await;
        (health["backends"]["fake"]["kept"] == 1).then_some(())
    })
    .await;
}

/// The lines that all processes have read.
fn read(fake: &Fake) -> Vec<Value> {
    let text = std::fs::read_to_string(fake.stdin()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn rewinds(fake: &Fake) -> usize {
    let lines = read(fake);
    let rewinds = lines
        .iter()
        .filter(|line| line["request"]["subtype"] == "rewind_conversation");
    rewinds.count()
}

#[tokio::test]
async fn a_new_question_takes_the_place_of_the_one_before() {
    let fake = start("yes", "#read\n#whole Two\n");
    assert_eq!(ask(&fake, &[("user", "a")]).await, "One");
    kept(&fake).await;
    assert_eq!(ask(&fake, &[("user", "b")]).await, "Two");
    assert_eq!(fake.pids().len(), 1, "one process served both");
    let lines = read(&fake);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[2]["request"]["target_message_uuid"], lines[1]["uuid"]);
    assert_ne!(lines[3]["uuid"], lines[1]["uuid"]);
    let (_, metrics) = fake.host.text("/metrics").await;
    assert!(
        metrics.contains("claude_harness_processes_total{origin=\"rewound\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_edited_turn_is_taken_back_with_all_behind_it() {
    let then = "#rewind yes\n#read\n#whole Three\n";
    let fake = Fake::start_with(
        &format!("#init\n#read\n#whole One\n#read\n#whole Two\n#rewind yes\n{then}"),
        "continue_for = \"30s\"",
        "",
    );
    assert_eq!(ask(&fake, &[("user", "a")]).await, "One");
    kept(&fake).await;
    let second = [("user", "a"), ("assistant", "One"), ("user", "b")];
    assert_eq!(ask(&fake, &second).await, "Two");
    kept(&fake).await;
    assert_eq!(ask(&fake, &[("user", "A")]).await, "Three");
    assert_eq!(fake.pids().len(), 1);
    let lines = read(&fake);
    let target = |at: usize| lines[at]["request"]["target_message_uuid"].clone();
    assert_eq!(
        (target(3), target(4)),
        (lines[2]["uuid"].clone(), lines[1]["uuid"].clone())
    );
}

#[tokio::test]
async fn what_a_process_does_not_take_back_is_asked_of_a_fresh_one() {
    let fake = start("no", "#hang\n");
    assert_eq!(ask(&fake, &[("user", "a")]).await, "One");
    kept(&fake).await;
    assert_eq!(
        ask(&fake, &[("user", "b")]).await,
        "One",
        "the client notices nothing"
    );
    assert_eq!((fake.pids().len(), rewinds(&fake)), (2, 1));
    kept(&fake).await;
    assert_eq!(ask(&fake, &[("user", "c")]).await, "One");
    assert_eq!(
        (fake.pids().len(), rewinds(&fake)),
        (3, 1),
        "it is not asked again"
    );
}

#[tokio::test]
async fn a_process_that_answers_wrongly_or_dies_is_replaced_unseen() {
    for (how, then) in [
        ("other", "#hang\n"),
        ("twice", "#hang\n"),
        ("yes", "#exit 1\n"),
        ("yes", "#read\n#exit 1\n"),
        ("yes", "rubbish\n#hang\n"),
    ] {
        let fake = start(how, then);
        assert_eq!(ask(&fake, &[("user", "a")]).await, "One");
        kept(&fake).await;
        assert_eq!(ask(&fake, &[("user", "b")]).await, "One", "{how} {then}");
        assert_eq!(fake.pids().len(), 2, "{how} {then}");
    }
}

#[tokio::test]
async fn a_process_that_does_not_answer_is_replaced_in_time() {
    let fake = start("silent", "#hang\n");
    assert_eq!(ask(&fake, &[("user", "a")]).await, "One");
    kept(&fake).await;
    let asked = Instant::now();
    assert_eq!(ask(&fake, &[("user", "b")]).await, "One");
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(fake.pids().len(), 2);
}

/// A request that a word of `stop` ends, and one that takes its place.
async fn cut_then_another(how: &str) -> (Fake, String) {
    let script = format!(
        "#init\n#read\n#text One STOP two\n#interrupted {how}\n#rewind yes\n#read\n#whole Other\n"
    );
    let fake = Fake::start_with(&script, "continue_for = \"30s\"", "");
    let mut body = chat(&[("user", "a")]);
    body["stop"] = json!(["STOP"]);
    let (status, answer) = fake.host.post(&body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], "One ");
    if how != "never" {
        kept(&fake).await;
    }
    // In a fresh process, the script begins anew.
    let mut body = chat(&[("user", "b")]);
    body["stop"] = json!(["STOP"]);
    let (status, answer) = fake.host.post(&body).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str();
    (fake, text.unwrap().to_owned())
}

#[tokio::test]
async fn a_process_whose_answer_was_cut_is_brought_to_rest_and_used_again() {
    for how in ["first", "last"] {
        let (fake, text) = cut_then_another(how).await;
        assert_eq!((text.as_str(), fake.pids().len()), ("Other", 1), "{how}");
        let kinds: Vec<_> = read(&fake)
            .iter()
            .map(|line| {
                line["request"]["subtype"]
                    .as_str()
                    .unwrap_or("user")
                    .to_owned()
            })
            .collect();
        let expected = [
            "initialize",
            "user",
            "interrupt",
            "rewind_conversation",
            "user",
        ];
        assert_eq!(kinds, expected, "{how}");
    }
}

#[tokio::test]
async fn a_process_that_does_not_come_to_rest_ends() {
    let (fake, text) = cut_then_another("never").await;
    assert_eq!((text.as_str(), fake.pids().len()), ("One ", 2));
    poll::until("the end of both", SOON, async || {
        let mut pids = fake.pids().into_iter();
        (!pids.any(poll::is_alive)).then_some(())
    })
    .await;
    // The place is given back when the service has seen the end.
    fake.load(0, 0).await;
}
