//! Processes that wait for a request: warm ones, and those that a conversation may go on in.

use std::time::{Duration, Instant};

use harness_tests::poll;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

const SOON: Duration = Duration::from_secs(10);

fn hello() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "Say hi"}]})
}

/// Waits until so many processes wait for requests, warm and kept.
async fn waiting(fake: &Fake, warm: u64, kept: u64) {
    let what = format!("{warm} warm and {kept} kept processes");
    poll::until(&what, SOON, async || {
        let (_, health) = fake.host.get("/health").await;
        let backend = &health["backends"]["fake"];
        (backend["warm"] == warm && backend["kept"] == kept).then_some(())
    })
    .await;
}

/// Sends so many requests at once, and wants an answer to each.
async fn all_are_answered(fake: &Fake, count: usize) {
    let body = hello();
    let all = (0..count).map(|_| fake.host.post(&body));
    for (status, answer) in futures_util::future::join_all(all).await {
        assert_eq!(status, 200, "{answer}");
    }
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn processes_of_configured_models_are_warm_from_the_start_and_used_once() {
    let fake = Fake::start_with(ANSWER, "warm = 2", "");
    waiting(&fake, 2, 0).await;
    let first = fake.started(2).await;
    assert_eq!(fake.host.post(&hello()).await.0, 200);
    // Both that were warm, and the one that took the place of the one that was taken.
    let all = fake.started(3).await;
    waiting(&fake, 2, 0).await;
    assert_eq!(all[..2], first);
    poll::until("the end of the one that answered", SOON, async || {
        (!poll::is_alive(all[0])).then_some(())
    })
    .await;
    assert!(all[1..].iter().all(|pid| poll::is_alive(*pid)));
    let (_, metrics) = fake.host.text("/metrics").await;
    assert!(
        metrics.contains("claude_harness_processes_total{origin=\"warm\"} 1"),
        "{metrics}"
    );
    let waiting = "claude_harness_processes_waiting{backend=\"fake\",kind=\"warm\"} 2";
    assert!(metrics.contains(waiting), "{metrics}");
}

#[tokio::test]
async fn other_models_are_warm_after_their_first_use() {
    let fake = Fake::start_with(ANSWER, "warm = 1", "");
    waiting(&fake, 1, 0).await;
    assert_eq!(fake.host.ask("claude-x", "hi").await.0, 200);
    waiting(&fake, 2, 0).await;
    // The warm one of the configured model, the one that served, and the one that is warm now.
    assert_eq!(fake.started(3).await.len(), 3);
    assert_eq!(fake.host.ask("claude-x", "hi").await.0, 200);
    waiting(&fake, 2, 0).await;
    assert_eq!(
        fake.started(4).await.len(),
        4,
        "one to refill, none to serve"
    );
}

#[tokio::test]
async fn what_a_request_sets_beside_the_model_is_warm_after_its_second_use() {
    let fake = Fake::start_with(ANSWER, "warm = 1", "");
    waiting(&fake, 1, 0).await;
    let mut body = hello();
    body["reasoning_effort"] = "high".into();
    assert_eq!(fake.host.post(&body).await.0, 200);
    assert_eq!(fake.started(2).await.len(), 2);
    assert_eq!(fake.host.post(&body).await.0, 200);
    waiting(&fake, 2, 0).await;
    assert_eq!(fake.started(4).await.len(), 4);
    assert_eq!(fake.host.post(&body).await.0, 200);
    waiting(&fake, 2, 0).await;
    assert_eq!(fake.started(5).await.len(), 5);
}

#[tokio::test]
async fn a_request_goes_before_a_process_that_might_be_kept() {
    let fake = Fake::start_with(
        "#init\n#read\n#sleep 200\n#whole One\n#hang\n",
        "max_concurrent = 4\ncontinue_for = \"60s\"\nqueue_timeout = \"5s\"",
        "max_processes = 2",
    );
    all_are_answered(&fake, 6).await;
}

#[tokio::test]
async fn warm_processes_that_die_together_are_replaced_within_the_bounds() {
    let fake = Fake::start_with(
        "#read\n#exit 1\n",
        "warm = 2\nmax_concurrent = 2\nqueue_timeout = \"5s\"",
        "max_processes = 2",
    );
    waiting(&fake, 2, 0).await;
    fake.play(ANSWER);
    let body = hello();
    let (one, other) = tokio::join!(fake.host.post(&body), fake.host.post(&body));
    assert_eq!((one.0, other.0), (200, 200), "{} {}", one.1, other.1);
}

#[tokio::test]
async fn fewer_processes_after_a_change_of_the_configuration() {
    let fake = Fake::start_with(ANSWER, "warm = 4", "");
    waiting(&fake, 4, 0).await;
    let change = |backend: &str, rest: &str| {
        let config = Fake::config(fake.host.home(), backend, rest);
        fake.host.reconfigure(&config);
        fake.host.signal(Signal::HUP);
    };
    change("warm = 2", "");
    waiting(&fake, 2, 0).await;
    change("warm = 2", "max_processes = 1");
    waiting(&fake, 1, 0).await;
    change("warm = 0\ncontinue_for = \"1h\"", "");
    waiting(&fake, 0, 0).await;
    fake.play(CHAT);
    assert_eq!(fake.host.post(&hello()).await.0, 200);
    waiting(&fake, 0, 1).await;
    // What is kept already is not kept for longer than it may be now.
    change("warm = 0", "");
    waiting(&fake, 0, 0).await;
}

#[tokio::test]
async fn what_a_kept_process_prints_later_is_not_the_next_answer() {
    let late = "#init\n#read\n#whole One\n#sleep 100\n#text late\n#child\n#read\n#whole Two\n";
    let fake = Fake::start_with(late, "continue_for = \"30s\"", "");
    fake.host.post(&chat(&[("user", "a")])).await;
    waiting(&fake, 0, 1).await;
    // The child says that what comes before it is printed.
    fake.started(2).await;
    let goes_on = chat(&[("user", "a"), ("assistant", "One"), ("user", "b")]);
    let (_, answer) = fake.host.post(&goes_on).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Two");
    assert_eq!(fake.pids().len(), 2);
}

#[tokio::test]
async fn a_warm_process_that_died_is_replaced_unseen() {
    let fake = Fake::start_with(ANSWER, "warm = 1", "");
    let first = fake.started(1).await;
    waiting(&fake, 1, 0).await;
    kill(first[0]);
    let second = fake.started(2).await;
    waiting(&fake, 1, 0).await;
    kill(second[1]);
    for stream in [false, true] {
        let mut body = hello();
        body["stream"] = stream.into();
        assert_eq!(fake.host.post(&body).await.0, 200);
    }
}

#[tokio::test]
async fn a_warm_process_that_somebody_stopped_is_replaced_unseen() {
    let fake = Fake::start_with(ANSWER, "warm = 1", "");
    let first = fake.started(1).await;
    waiting(&fake, 1, 0).await;
    kill_process(Pid::from_raw(first[0]).unwrap(), Signal::STOP).unwrap();
    assert_eq!(fake.host.post(&hello()).await.0, 200);
}

#[tokio::test]
async fn a_process_that_dies_before_it_says_anything_is_replaced_once() {
    let fake = Fake::start_with("#read\n#exit 1\n", "warm = 1", "");
    waiting(&fake, 1, 0).await;
    fake.play(ANSWER);
    assert_eq!(fake.host.post(&hello()).await.0, 200, "by another one");
    fake.host.logged("was replaced").await;
    // The other one fails too: that is the answer.
    let fake = Fake::start_with("#read\n#exit 1\n", "warm = 1", "");
    waiting(&fake, 1, 0).await;
    let (status, answer) = fake.host.post(&hello()).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (502, &json!("backend_error"))
    );
}

#[tokio::test]
async fn a_command_line_that_does_not_live_costs_no_busy_loop() {
    let fake = Fake::start_with("#exit 1\n", "warm = 4", "");
    let started = Instant::now();
    fake.started(3).await;
    fake.host.logged("end before a request takes them").await;
    let seconds = started.elapsed().as_secs_f64();
    let (count, most) = (fake.pids().len(), 8.0 + 4.0 * seconds);
    assert!((count as f64) < most, "{count} processes in {seconds} s");
}

#[tokio::test]
async fn nothing_is_started_ahead_without_a_login_and_the_next_request_after_it_is_answered() {
    let out = "#logged-out\n#init\n#read\n{\"type\":\"result\",\"is_error\":true,\"result\":\"Not logged in\"}\n";
    let fake = Fake::start_with(out, "warm = 2", "");
    poll::until("the state of the login", SOON, async || {
        let (_, health) = fake.host.get("/health").await;
        (health["backends"]["fake"]["status"] == "logged_out").then_some(())
    })
    .await;
    waiting(&fake, 0, 0).await;
    assert_eq!(fake.host.post(&hello()).await.0, 401);
    fake.play(ANSWER);
    assert_eq!(fake.host.post(&hello()).await.0, 200);
    waiting(&fake, 2, 0).await;
}

#[tokio::test]
async fn what_waits_is_bounded_in_age_number_and_memory() {
    let fake = Fake::start_with(ANSWER, "warm = 1\nwarm_max_age = \"1s\"", "");
    fake.started(3).await;
    waiting(&fake, 1, 0).await;

    let fake = Fake::start_with(ANSWER, "warm = 8\nmax_concurrent = 2", "max_processes = 3");
    waiting(&fake, 3, 0).await;
    // A request of another launch line has a place all the same.
    let mut body = hello();
    body["max_tokens"] = 5.into();
    assert_eq!(fake.host.post(&body).await.0, 200);

    let fake = Fake::start_with(ANSWER, "warm = 8", "warm_memory = \"330MiB\"");
    waiting(&fake, 2, 0).await;
}

#[tokio::test]
async fn more_requests_than_processes_wait_for_one() {
    let fake = Fake::start_with(
        "#init\n#read\n#text a\n#sleep 200\n#done\n",
        "max_concurrent = 4",
        "max_processes = 1",
    );
    all_are_answered(&fake, 4).await;
}

#[tokio::test]
async fn requests_for_several_answers_do_not_wait_for_one_another() {
    let fake = Fake::start_with(
        "#init\n#read\n#text a\n#hang\n",
        "max_concurrent = 8\nqueue_timeout = \"20s\"",
        "max_processes = 2",
    );
    let mut body = hello();
    body["stream"] = true.into();
    let singles = (fake.host.send(&body).await, fake.host.send(&body).await);
    fake.started(2).await;
    fake.play(ANSWER);
    let mut body = hello();
    body["n"] = 2.into();
    let doubles = futures_util::future::join(fake.host.post(&body), fake.host.post(&body));
    let opens = async {
        fake.load(6, 0).await;
        drop(singles);
    };
    let ((one, other), ()) = tokio::join!(doubles, opens);
    for (status, answer) in [one, other] {
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn fewer_processes_while_all_are_busy_and_requests_wait() {
    let fake = Fake::start_with(
        "#init\n#read\n#text a\n#hang\n",
        "max_concurrent = 4",
        "max_processes = 2",
    );
    let mut stream = hello();
    stream["stream"] = true.into();
    let first = fake.host.send(&stream).await;
    let second = fake.host.send(&stream).await;
    let pids = fake.started(2).await;
    fake.play(ANSWER);
    let config = Fake::config(fake.host.home(), "max_concurrent = 4", "max_processes = 1");
    let body = hello();
    let mut third = std::pin::pin!(fake.host.post(&body));
    let fewer = async {
        fake.load(3, 0).await;
        fake.host.reconfigure(&config);
        fake.host.signal(Signal::HUP);
        fake.host.logged("the configuration was read again").await;
        drop(first);
        poll::until("the end of the first", SOON, async || {
            (pids.iter().filter(|pid| poll::is_alive(**pid)).count() == 1).then_some(())
        })
        .await;
    };
    tokio::select! {
        (status, _) = &mut third => panic!("answered beside the second: {status}"),
        () = fewer => {}
    }
    let early = tokio::time::timeout(Duration::from_millis(500), &mut third).await;
    assert!(early.is_err(), "answered beside the second: {early:?}");
    drop(second);
    assert_eq!(third.await.0, 200);
}

/// Two answers, if the conversation goes on.
const CHAT: &str = "#init\n#read\n#whole One\n#read\n#whole Two\n#read\n#whole Three\n";

fn chat(messages: &[(&str, &str)]) -> Value {
    let messages: Vec<Value> = messages
        .iter()
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect();
    json!({"model": "fake", "messages": messages})
}

#[tokio::test]
async fn a_conversation_goes_on_in_the_process_that_holds_it() {
    let fake = Fake::start_with(CHAT, "continue_for = \"30s\"", "");
    let first = chat(&[("system", "Be brief"), ("user", "a")]);
    let (_, answer) = fake.host.post(&first).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "One");
    waiting(&fake, 0, 1).await;
    let second = [
        ("system", "Be brief"),
        ("user", "a"),
        ("assistant", "One"),
        ("user", "b"),
    ];
    let (_, stream) = fake.host.stream(&chat(&second)).await;
    assert_eq!(harness_tests::host::streamed_text(&stream), "Two");
    let third = [&second[..], &[("assistant", "Two"), ("user", "c")]].concat();
    let (_, answer) = fake.host.post(&chat(&third)).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Three");
    assert_eq!(fake.pids().len(), 1, "one process served all of it");
    let read = std::fs::read_to_string(fake.stdin()).unwrap();
    assert_eq!(read.lines().count(), 4, "nothing was said twice: {read}");
}

#[tokio::test]
async fn another_opening_or_launch_has_a_process_of_its_own() {
    let fake = Fake::start_with(CHAT, "continue_for = \"30s\"", "");
    let history = [
        ("system", "Be brief"),
        ("user", "a"),
        ("assistant", "One"),
        ("user", "b"),
    ];
    let others = [
        chat(&[
            ("system", "Be long"),
            ("user", "a"),
            ("assistant", "One"),
            ("user", "b"),
        ]),
        chat(&[("user", "a"), ("assistant", "One"), ("user", "b")]),
        {
            let mut body = chat(&history);
            body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
            body
        },
        {
            let mut body = chat(&history);
            body["max_tokens"] = 5000.into();
            body
        },
        {
            let mut body = chat(&history);
            body["response_format"] = json!({"type": "json_object"});
            body
        },
    ];
    let (_, answer) = fake.host.post(&chat(&history[..2])).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "One");
    waiting(&fake, 0, 1).await;
    let kept = fake.pids()[0];
    for other in others {
        let replay = "#init\n#read\n{\"type\":\"result\",\"is_error\":false}\n#read\n";
        fake.play(&format!("{replay}#whole x\n"));
        let before = fake.pids().len();
        fake.host.post(&other).await;
        assert!(fake.pids().len() > before, "{other}");
        assert!(poll::is_alive(kept));
    }
    let (_, answer) = fake.host.post(&chat(&history)).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Two");
}

#[tokio::test]
async fn nobody_goes_on_with_the_conversation_of_another_key() {
    let fake = Fake::start_with(
        CHAT,
        "continue_for = \"30s\"",
        "api_keys = [\"k1\", \"k2\"]",
    );
    let ask = async |key: &str, messages: &[(&str, &str)]| {
        let request = fake
            .host
            .client()
            .post(fake.host.url("/v1/chat/completions"));
        let request = request.bearer_auth(key).json(&chat(messages));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(ask("k1", &[("user", "a")]).await, "One");
    waiting(&fake, 0, 1).await;
    fake.play("#init\n#read\n{\"type\":\"result\",\"is_error\":false}\n#read\n#whole New\n");
    let goes_on = [("user", "a"), ("assistant", "One"), ("user", "b")];
    assert_eq!(ask("k2", &goes_on).await, "New");
    assert_eq!(ask("k1", &goes_on).await, "Two");
}

#[tokio::test]
async fn a_kept_process_goes_after_its_time_and_may_be_dead_when_it_is_wanted() {
    let fake = Fake::start_with(CHAT, "continue_for = \"300ms\"", "");
    fake.host.post(&chat(&[("user", "a")])).await;
    fake.all_gone(SOON).await;

    let fake = Fake::start_with(CHAT, "continue_for = \"30s\"", "");
    fake.host.post(&chat(&[("user", "a")])).await;
    waiting(&fake, 0, 1).await;
    fake.play("#init\n#read\n{\"type\":\"result\",\"is_error\":false}\n#read\n#whole New\n");
    kill(fake.pids()[0]);
    let goes_on = chat(&[("user", "a"), ("assistant", "One"), ("user", "b")]);
    let (_, answer) = fake.host.post(&goes_on).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "New");
}
