//! The real command lines, taken back and handed results: what reaches the API is what a fresh process would send.

use std::time::{Duration, Instant};

use harness_tests::dice::Dice;
use harness_tests::{poll, real_cli};
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real};

const KEEP: &str = "warm = 0\ncontinue_for = \"60s\"";

/// How long the mixture runs, in seconds, and how it is mixed; set REUSE_SECONDS and REUSE_SEED for more.
const MIX_SECONDS: u64 = 30;

/// After so many requests a process is retired (`host/src/pool/idle.rs`).
const REQUESTS_MAX: usize = 500;

/// However slow the machine is, so many steps are made: by then, each kind of request has come.
const STEPS_MIN: usize = 12;

/// A service that keeps processes and one that does not, in front of the same version.
struct Pair {
    keeping: Real,
    plain: Real,
}

/// What a request gave: the answer's message, and what reached the API.
#[derive(Debug, PartialEq)]
struct Given {
    message: Value,
    finish_reason: Value,
    usage: Value,
    at_the_api: Value,
}

async fn pairs(test: &str) -> Vec<Pair> {
    let mut all = Vec::new();
    for version in real_cli::VERSIONS {
        if let Some(program) = real_cli::find(version, test) {
            all.push(Pair {
                keeping: Real::start(version, &program, KEEP, "").await,
                plain: Real::start(version, &program, "", "").await,
            });
        }
    }
    all
}

fn tools() -> Value {
    let function = |name: &str| {
        json!({"type": "function", "function": {
        "name": name, "description": "Looks up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}})
    };
    json!([function("get_weather"), function("get_time")])
}

fn body(messages: &[Value], with_tools: bool) -> Value {
    let mut body = json!({"model": "claude-sonnet", "messages": messages});
    if with_tools {
        body["tools"] = tools();
    }
    body
}

/// Sends a request, and looks what it gave.
async fn send(real: &Real, body: &Value) -> Given {
    let (status, mut answer) = real.host.post(body).await;
    assert_eq!(status, 200, "{}: {answer}", real.version);
    let choice = answer["choices"][0].take();
    let mut message = choice["message"].clone();
    // Ids of calls are those of the fake API, which counts messages: the same in both.
    let last = real.api.requests("").pop().unwrap();
    if let Some(fields) = message.as_object_mut() {
        fields.remove("refusal");
    }
    Given {
        message,
        finish_reason: choice["finish_reason"].clone(),
        usage: answer["usage"].clone(),
        at_the_api: json!({"messages": last.blocks(), "system": without_fingerprint(&last.body["system"]),
            "tools": last.body["tools"], "model": last.body["model"], "thinking": last.body["thinking"],
            "max_tokens": last.body["max_tokens"], "output_config": last.body["output_config"]}),
    }
}

/// The system prompt without the fingerprint of the session.
fn without_fingerprint(system: &Value) -> Value {
    let blocks = system.as_array().into_iter().flatten();
    let text = |block: &Value| block["text"].as_str().unwrap_or_default().to_owned();
    blocks
        .map(text)
        .filter(|text| !text.starts_with("x-anthropic-billing-header"))
        .collect()
}

impl Pair {
    /// Sends a request to both services, which must give the same, and returns the message.
    async fn both(&self, body: &Value, what: &str) -> Value {
        let kept = send(&self.keeping, body).await;
        let fresh = send(&self.plain, body).await;
        assert_eq!(kept, fresh, "{} {what}", self.keeping.version);
        self.at_rest().await;
        fresh.message
    }

    /// Goes on with a question whose answer is cut, and which no later request holds.
    async fn cut(&self, talk: &[Value]) {
        let last = talk.last();
        if last.is_some_and(|said| said["tool_calls"].is_array()) {
            return;
        }
        let mut cut = body(&[talk, &[user("scenario:slow cutmark")]].concat(), true);
        cut["stop"] = json!(["tick"]);
        for real in [&self.keeping, &self.plain] {
            let (status, answer) = real.host.post(&cut).await;
            assert_eq!(status, 200, "{}: {answer}", real.version);
        }
        self.at_rest().await;
    }

    /// Waits until the process is kept, or retired. Until then it has its place.
    async fn at_rest(&self) {
        poll::until("a process at rest", Duration::from_secs(10), async || {
            let (_, health) = self.keeping.host.get("/health").await;
            (health["backends"]["claude"]["in_flight"] == 0).then_some(())
        })
        .await;
    }

    /// How many requests had a process from there.
    async fn served(&self, origin: &str) -> usize {
        let (_, metrics) = self.keeping.host.text("/metrics").await;
        let name = format!("claude_harness_processes_total{{origin=\"{origin}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse().expect("a count"))
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[tokio::test]
async fn turns_are_taken_back_and_the_api_gets_what_a_fresh_process_sends() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for pair in pairs("turns_are_taken_back").await {
        let mut talk = vec![user("one")];
        for question in ["two", "three", "four"] {
            let said = pair.both(&body(&talk, false), "goes on").await;
            talk.extend([said, user(question)]);
        }
        assert_eq!(pair.served("kept").await, 2);
        // The same question once more, an edit two turns back, a branch, and a new conversation.
        pair.both(&body(&talk, false), "asks").await;
        pair.both(&body(&talk, false), "asks again").await;
        let edited = [&talk[..2], &[user("two, but different")]].concat();
        pair.both(&body(&edited, false), "edits").await;
        let branch = [&talk[..4], &[user("three, but different")]].concat();
        pair.both(&body(&branch, false), "branches").await;
        assert!(pair.served("rewound").await >= 3);
        pair.both(&body(&[user("something else")], false), "is new")
            .await;
        pair.both(&body(&[user("something else again")], false), "is new")
            .await;
        let (new, rewound) = (pair.served("new").await, pair.served("rewound").await);
        match pair.keeping.version {
            // It keeps its first turn, says so once, and is not asked again.
            "2.1.197" => assert_eq!(new, 2, "{rewound}"),
            _ => assert_eq!(new, 1, "{rewound}"),
        }
    }
}

#[tokio::test]
async fn results_are_handed_to_the_process_that_waits_for_them() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for pair in pairs("results_are_handed_in").await {
        for (prompt, results) in [
            ("What is the weather?", vec!["rain"]),
            ("scenario:two-calls", vec!["rain", "noon"]),
        ] {
            let mut talk = vec![user(prompt)];
            let kept = pair.served("kept").await;
            let said = pair.both(&body(&talk, true), "calls").await;
            let calls = said["tool_calls"].as_array().unwrap().clone();
            assert_eq!(calls.len(), results.len());
            talk.push(said);
            // In any order.
            for (call, result) in calls.iter().zip(&results).rev() {
                talk.push(json!({"role": "tool", "tool_call_id": call["id"], "content": result}));
            }
            let ordered = in_order_of_calls(&talk, calls.len());
            let said = pair.both(&body(&ordered, true), "hands in").await;
            assert_eq!(
                pair.served("kept").await,
                kept + 1,
                "{}",
                pair.keeping.version
            );
            let text = said["content"].as_str().unwrap();
            assert!(text.contains("rain"), "{text}");
            let again = [&ordered[..], &[said, user("Thanks")]].concat();
            pair.both(&body(&again, true), "goes on after it").await;
            assert_eq!(
                pair.served("kept").await,
                kept + 2,
                "{}",
                pair.keeping.version
            );
            // Other results than those that are waited for, and a question instead of results.
            pair.both(&body(&talk[..1], true), "calls again").await;
            pair.both(&body(&[user("Never mind")], true), "takes the call back")
                .await;
        }
    }
}

#[tokio::test]
async fn a_replayed_turn_with_a_call_is_taken_back_whole() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for pair in pairs("a_replayed_turn_with_a_call").await {
        let first = [
            user("one"),
            json!({"role": "assistant", "content": "first"}),
        ];
        let call = json!({"id": "call_1", "type": "function",
            "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}});
        let called = [
            user("What is the weather?"),
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": "call_1", "content": "rain"}),
        ];
        let asked = [&first[..], &called].concat();
        let said = pair.both(&body(&asked, true), "brings results").await;
        let goes_on = [&asked[..], &[said, user("Thanks")]].concat();
        pair.both(&body(&goes_on, true), "goes on").await;
        let edited = [&first[..], &[user("something else")]].concat();
        pair.both(&body(&edited, true), "takes the call back").await;
        let served = [pair.served("rewound").await, pair.served("new").await];
        assert_eq!(served, [1, 1], "{}", pair.keeping.version);
        // The same with a call that is followed by more when it is replayed.
        pair.both(&body(&goes_on, true), "replays it").await;
        pair.both(&body(&edited, true), "takes both back").await;
        let served = [pair.served("rewound").await, pair.served("new").await];
        assert_eq!(served, [3, 1], "{}", pair.keeping.version);
        let lines = pair.keeping.host.log();
        assert!(!lines.contains("of no use"), "{}", pair.keeping.version);
    }
}

/// The results in the order of their calls. A replayed conversation keeps the client's order, and a process that waits
/// has that of the calls.
fn in_order_of_calls(talk: &[Value], calls: usize) -> Vec<Value> {
    let mut ordered = talk.to_vec();
    let at = ordered.len() - calls;
    ordered[at..].reverse();
    ordered
}

#[tokio::test]
async fn a_turn_that_was_cut_is_taken_back() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for pair in pairs("a_turn_that_was_cut_is_taken_back").await {
        let mut talk = vec![user("one")];
        let said = pair.both(&body(&talk, false), "begins").await;
        talk.push(said);
        let cuts = [
            ("scenario:slow", "stop", json!(["tick"])),
            ("scenario:max_tokens", "max_tokens", json!(100)),
            ("scenario:refusal", "seed", json!(1)),
        ];
        for (question, field, value) in cuts {
            let mut cut = body(&[&talk[..], &[user(question)]].concat(), false);
            cut[field] = value;
            for real in [&pair.keeping, &pair.plain] {
                let (status, answer) = real.host.post(&cut).await;
                assert_eq!(status, 200, "{}: {answer}", real.version);
            }
            pair.at_rest().await;
            let rewound = pair.served("rewound").await;
            let next = [&talk[..], &[user(&format!("after {field}"))]].concat();
            let mut next = body(&next, false);
            if field == "max_tokens" {
                // It is part of the launch.
                next[field] = cut[field].clone();
            }
            pair.both(&next, &format!("after {question}")).await;
            let now = pair.served("rewound").await;
            assert_eq!(now, rewound + 1, "{} {question}", pair.keeping.version);
        }
    }
}

#[tokio::test]
async fn a_process_that_waits_for_results_ends_without_asking_the_api() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for version in real_cli::VERSIONS {
        let Some(program) = real_cli::find(version, "a_process_that_waits_for_results_ends") else {
            continue;
        };
        let short = "warm = 0\ncontinue_for = \"1s\"";
        let real = Real::start(version, &program, short, "").await;
        let asked = body(&[user("What is the weather?")], true);
        assert_eq!(send(&real, &asked).await.finish_reason, "tool_calls");
        let pid = poll::until("the process", Duration::from_secs(5), async || {
            let log = real.host.log();
            let line = log
                .lines()
                .find(|line| line.contains("a process serves a request"))?;
            line.split("pid=")
                .nth(1)?
                .split(' ')
                .next()?
                .parse::<i32>()
                .ok()
        })
        .await;
        poll::until("its end", Duration::from_secs(10), async || {
            (!poll::is_alive(pid)).then_some(())
        })
        .await;
        assert_eq!(
            real.api.requests("What is the weather?").len(),
            1,
            "{version}"
        );
    }
}

#[tokio::test]
async fn a_mixture_of_everything_is_what_fresh_processes_send() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let number = |name: &str, or: u64| {
        let set = std::env::var(name).ok();
        set.and_then(|text| text.parse().ok()).unwrap_or(or)
    };
    let seconds = number("REUSE_SECONDS", MIX_SECONDS);
    for pair in pairs("a_mixture_of_everything").await {
        let mut dice = Dice(number("REUSE_SEED", 7));
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut talk: Vec<Value> = Vec::new();
        let mut step = 0;
        while step < STEPS_MIN || Instant::now() < until {
            step += 1;
            if dice.roll(6) == 0 {
                pair.cut(&talk).await;
            }
            let what = mix(&mut talk, &mut dice, step);
            let said = pair
                .both(&body(&talk, true), &format!("step {step}: {what}"))
                .await;
            no_mark_of_others(&pair.keeping, &body(&talk, true), step);
            talk.push(said);
        }
        let (kept, rewound) = (pair.served("kept").await, pair.served("rewound").await);
        let new = pair.served("new").await;
        println!(
            "{}: {step} steps, {kept} kept, {rewound} rewound, {new} new",
            pair.keeping.version
        );
        assert!(
            kept > 1 && rewound > 0,
            "{step} steps, {kept} kept, {rewound} rewound, {new} new"
        );
        let retired = (kept + rewound + new) / REQUESTS_MAX;
        assert!(
            new < 4 + retired || pair.keeping.version == "2.1.197",
            "{new} of {step} were new"
        );
    }
}

/// A word that is in the messages of one step only, and in those that go on from it.
fn mark(step: usize) -> String {
    format!("mark{step}x")
}

/// Nothing of what the API got last, in any field, is from a step that the request does not hold.
fn no_mark_of_others(real: &Real, body: &Value, steps: usize) {
    let (asked, sent) = (
        body.to_string(),
        real.api.requests("").pop().unwrap().body.to_string(),
    );
    let cut = "cutmark".to_owned();
    for mark in (1..=steps).map(mark).chain([cut]) {
        assert!(
            asked.contains(&mark) || !sent.contains(&mark),
            "{}: {mark}",
            real.version
        );
    }
}

/// Makes a conversation, which ends with an answer, one that wants an answer.
fn mix(talk: &mut Vec<Value>, dice: &mut Dice, step: usize) -> &'static str {
    let mark = mark(step);
    let calls = talk
        .last()
        .and_then(|said| said["tool_calls"].as_array().cloned());
    let question = match dice.roll(3) {
        0 => user(&format!("What is the weather, {mark}?")),
        _ => user(&format!("Tell me, {mark}.")),
    };
    if let Some(calls) = calls.filter(|_| dice.roll(4) > 0) {
        for call in calls {
            let content = format!("rain {mark}");
            talk.push(json!({"role": "tool", "tool_call_id": call["id"], "content": content}));
        }
        return "hands in";
    }
    let questions: Vec<usize> = (0..talk.len())
        .filter(|i| talk[*i]["role"] == "user")
        .collect();
    let open = talk
        .last()
        .is_some_and(|said| said["tool_calls"].is_array());
    match dice.roll(6) {
        _ if questions.is_empty() => {
            talk.push(question);
            "begins"
        }
        0 | 1 if !open => {
            talk.push(question);
            "goes on"
        }
        2 => {
            talk.truncate(questions[questions.len() - 1] + 1);
            "asks again"
        }
        3 => {
            talk.truncate(questions[dice.roll(questions.len())]);
            talk.push(question);
            "edits"
        }
        4 => {
            *talk = vec![question];
            "is new"
        }
        _ => {
            talk.truncate(questions[questions.len() - 1]);
            talk.push(question);
            "edits the last"
        }
    }
}
