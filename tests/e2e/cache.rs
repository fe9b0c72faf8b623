//! Answers that are given again.

use std::time::Duration;

use harness_tests::host::streamed_text;
use harness_tests::poll;
use reqwest::header::{CACHE_CONTROL, HeaderMap};
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

/// The first key, which opens the admin area.
const ADMIN: &str = "the key of the first one";

const LIMIT: Duration = Duration::from_secs(20);

/// A service with a cache and two keys, whose command line plays a script.
fn cached(script: &str, cache: &str) -> Fake {
    let home = tempfile::tempdir().unwrap();
    let rest = format!(
        "[cache]\nttl = \"1h\"\n{cache}\n[keys.one]\nkey = \"the key of the first one\"\nadmin = true\n[keys.two]\nkey = \"the key of the second one\"\n"
    );
    let config = Fake::config(home.path(), "", "") + &rest;
    Fake::start_in(home, script, &config)
}

fn question(text: &str) -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": text}]})
}

/// Asks, and returns what the cache did, and the body as text.
async fn ask(
    fake: &Fake,
    path: &str,
    key: &str,
    body: &Value,
    headers: HeaderMap,
) -> (String, String) {
    let request = fake
        .host
        .client()
        .post(fake.host.url(path))
        .bearer_auth(format!("the key of the {key} one"));
    let response = request.headers(headers).json(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let did = response
        .headers()
        .get("x-cache")
        .map(|value| value.to_str().unwrap().to_owned());
    (did.unwrap_or_default(), response.text().await.unwrap())
}

async fn chat(fake: &Fake, body: &Value) -> (String, String) {
    ask(
        fake,
        "/v1/chat/completions",
        "first",
        body,
        HeaderMap::new(),
    )
    .await
}

fn content(answer: &str) -> Value {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["choices"][0]["message"]["content"].clone()
}

#[tokio::test]
async fn a_repeated_request_is_answered_from_memory_streamed_or_not() {
    let fake = cached(ANSWER, "");
    let (did, first) = chat(&fake, &question("Hi")).await;
    assert_eq!((&*did, content(&first)), ("miss", json!("Hello there")));
    fake.play("#init\n#read\n#text Another\n#done\n");
    let (did, again) = chat(&fake, &question("Hi")).await;
    assert_eq!((&*did, content(&again)), ("hit", json!("Hello there")));
    let id = |answer: &str| serde_json::from_str::<Value>(answer).unwrap()["id"].clone();
    assert_ne!(id(&first), id(&again));
    let mut streamed = question("Hi");
    streamed["stream"] = true.into();
    let (did, stream) = chat(&fake, &streamed).await;
    assert_eq!((&*did, &*streamed_text(&stream)), ("hit", "Hello there"));
    assert!(stream.ends_with("data: [DONE]\n\n"));
    // The same question through another API.
    let responses = json!({"model": "fake", "input": "Hi", "store": false});
    let mut answers = Vec::new();
    for _ in 0..2 {
        let path = "/v1/responses";
        let (did, answer) = ask(&fake, path, "first", &responses, HeaderMap::new()).await;
        assert_eq!(did, "hit");
        answers.push(answer);
    }
    let text = |answer: &str| {
        serde_json::from_str::<Value>(answer).unwrap()["output"][0]["content"].clone()
    };
    assert_eq!(text(&answers[0]), text(&answers[1]));
    let (did, other) = chat(&fake, &question("Ho")).await;
    assert_eq!((&*did, content(&other)), ("miss", json!("Another")));
    fake.host.logged("origin=\"cache\"").await;
    let metrics = fake.host.client().get(fake.host.url("/metrics"));
    let metrics = metrics.bearer_auth(ADMIN).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for counted in [
        "cache_requests_total{result=\"hit\"} 4",
        "cache_requests_total{result=\"miss\"} 2",
        // Only those that took a process.
        "added_seconds_count 2",
    ] {
        let line = format!("claude_harness_{counted}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn an_answer_that_came_at_once_counts_with_all_of_its_text() {
    let text = "x".repeat(100_000);
    let fake = cached(&format!("#init\n#read\n#text {text}\n#done\n"), "");
    assert_eq!(chat(&fake, &question("Hi")).await.0, "miss");
    let metrics = fake.host.client().get(fake.host.url("/metrics"));
    let metrics = metrics.bearer_auth(ADMIN).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let mut lines = metrics.lines();
    let size = lines.find_map(|line| line.strip_prefix("claude_harness_cache_bytes "));
    let size: f64 = size.unwrap().parse().unwrap();
    assert!(size > 100_000.0, "{size}");
}

#[tokio::test]
async fn another_key_gets_an_answer_of_its_own_unless_it_is_set_otherwise() {
    for (setting, did) in [("", "miss"), ("across_keys = true", "hit")] {
        let fake = cached(ANSWER, setting);
        chat(&fake, &question("Hi")).await;
        let path = "/v1/chat/completions";
        let second = ask(&fake, path, "second", &question("Hi"), HeaderMap::new()).await;
        assert_eq!(second.0, did, "{setting}");
    }
}

#[tokio::test]
async fn who_wants_a_fresh_answer_gets_one_and_it_is_not_kept() {
    let fake = cached(ANSWER, "");
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, "max-age=0, No-Store".parse().unwrap());
    let path = "/v1/chat/completions";
    for _ in 0..2 {
        let fresh = ask(&fake, path, "first", &question("Hi"), headers.clone()).await;
        assert_eq!(fresh.0, "bypass");
    }
    assert_eq!(chat(&fake, &question("Hi")).await.0, "miss");
    let mut several = question("Hi");
    several["n"] = 2.into();
    assert_eq!(chat(&fake, &several).await.0, "bypass");
    let without = Fake::start(ANSWER);
    let answer = without.host.send(&question("Hi")).await;
    assert!(answer.headers().get("x-cache").is_none());
}

#[tokio::test]
async fn an_answer_that_did_not_end_by_itself_is_not_kept() {
    for script in [
        "#init\n#read\n#text cut\n{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"\",\"stop_reason\":\"max_tokens\",\"usage\":{}}\n",
        "#init\n#read\n#exit 3\n",
    ] {
        let fake = cached(script, "");
        let request = || {
            let request = fake
                .host
                .client()
                .post(fake.host.url("/v1/chat/completions"));
            request.bearer_auth(ADMIN).json(&question("Hi")).send()
        };
        request().await.unwrap().bytes().await.unwrap();
        fake.play(ANSWER);
        let (did, answer) = chat(&fake, &question("Hi")).await;
        assert_eq!(
            (&*did, content(&answer)),
            ("miss", json!("Hello there")),
            "{script}"
        );
    }
}

#[tokio::test]
async fn requests_that_are_equal_at_once_are_answered_by_one_process() {
    let fake = cached(
        "#init\n#read\n#text Hello\n#sleep 500\n#text  there\n#done\n",
        "",
    );
    let mut streamed = question("Hi");
    streamed["stream"] = true.into();
    let plain = question("Hi");
    let answers = tokio::join!(
        chat(&fake, &streamed),
        chat(&fake, &plain),
        chat(&fake, &streamed),
        chat(&fake, &plain)
    );
    let all = [answers.0, answers.1, answers.2, answers.3];
    let misses = all.iter().filter(|(did, _)| did == "miss").count();
    assert_eq!(misses, 1, "{all:?}");
    for (index, (_, answer)) in all.iter().enumerate() {
        match index % 2 {
            0 => assert_eq!(streamed_text(answer), "Hello there"),
            _ => assert_eq!(content(answer), json!("Hello there")),
        }
    }
    let (_, usage) = fake.host.get_with(ADMIN, "/admin/usage").await;
    let counted = (
        &usage["data"][0]["requests"],
        &usage["data"][0]["completion_tokens"],
    );
    assert_eq!(
        counted,
        (&json!(4), &json!(4)),
        "tokens count once: {usage}"
    );
    let asked = std::fs::read_to_string(fake.stdin()).unwrap();
    assert_eq!(asked.matches("\"type\":\"user\"").count(), 1, "{asked}");
}

#[tokio::test]
async fn the_last_reader_to_leave_ends_the_process_and_no_one_before() {
    let fake = cached("#init\n#read\n#text Hello\n#hang\n", "");
    let mut streamed = question("Hi");
    streamed["stream"] = true.into();
    let open = async || {
        let request = fake
            .host
            .client()
            .post(fake.host.url("/v1/chat/completions"));
        let request = request.bearer_auth(ADMIN).json(&streamed);
        let mut response = request.send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        response
    };
    let (first, mut second) = (open().await, open().await);
    let pid = *fake.started(1).await.last().unwrap();
    drop(first);
    // The second still gets its keep-alive or text; its process lives.
    second.chunk().await.unwrap();
    assert!(poll::is_alive(pid));
    drop(second);
    fake.all_gone(LIMIT).await;
    // What was written until then was spent, and counts once.
    poll::until("both in the ledger", LIMIT, async || {
        let (_, usage) = fake.host.get_with(ADMIN, "/admin/usage").await;
        let sum = usage["data"][0].clone();
        let told = (&sum["requests"], &sum["completion_tokens"]);
        (told == (&json!(2), &json!(2))).then_some(())
    })
    .await;
}
