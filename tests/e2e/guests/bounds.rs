//! What guests cost others, and what their processes cost them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness_tests::host::{Host, assert_refused};
use harness_tests::poll;
use serde_json::{Value, json};

use super::{PATIENCE, Swapped, config, hello, hostile_component};

#[tokio::test]
async fn each_bound_of_a_guest_fails_one_request_and_no_more() {
    let hostile = hostile_component();
    let swapped = Swapped::start(
        "hostile",
        "#read\n#text x\n#hang",
        &[("hostile.wasm", &hostile)],
    );
    let configure = async |behaviour: Value| {
        swapped
            .host
            .reconfigure(&config(swapped.host.home(), "hostile", &behaviour));
        swapped.host.reload().await
    };
    for (at, deed, expected) in [
        ("open", "spin", "it ran for more than"),
        ("start", "spin", "it ran for more than"),
        ("output", "spin", "it ran for more than"),
        ("start", "allocate", "it wanted more than 64 MiB of memory"),
        ("start", "huge", "memory"),
        ("start", "many", "it returned more than"),
        ("start", "overflow", "it trapped"),
        ("open", "trap", "it trapped"),
        ("output", "panic", "it trapped"),
        ("start", "two-ends", "an effect came after the end"),
        ("start", "after-end", "an effect came after the end"),
        (
            "start",
            "bad-annotation",
            "an annotation has a value that is no JSON",
        ),
        (
            "launch-options",
            "inject",
            "it wants a value for the launch option `effort` that the profile does not allow",
        ),
    ] {
        let mut behaviour = json!({"at": at, "do": deed});
        if at == "output" {
            behaviour["write"] = json!([
                r#"{"type":"control_request","request_id":"a","request":{"subtype":"interrupt"}}"#
            ]);
        }
        let report = configure(behaviour).await;
        assert_eq!(report["rejected"], json!({}), "{at} {deed}");
        let started = Instant::now();
        let (status, answer) = swapped.host.post(&hello()).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (502, &json!("guest_error")),
            "{at} {deed}: {answer}"
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{at} {deed}: {message}");
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{at} {deed} took {:?}",
            started.elapsed()
        );
        configure(json!({"answer": "calm"})).await;
        let (status, answer) = swapped.host.post(&hello()).await;
        assert_eq!(
            (status, &answer["choices"][0]["message"]["content"]),
            (200, &json!("calm1")),
            "after {at} {deed}"
        );
    }
    configure(json!({"at": "start", "do": "chatter"})).await;
    swapped.host.post(&hello()).await;
    swapped.host.ask("gone", "x").await;
    let log = swapped.host.logged("code=model_not_found").await;
    let chatter: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("chatter chatter"))
        .collect();
    assert_eq!(chatter.len(), 32);
    assert!(
        chatter.iter().all(|line| line.contains("DEBUG")),
        "they are for those who debug"
    );
    assert!(chatter.iter().all(|line| line.len() < 2500));
}

#[tokio::test]
async fn guests_that_spin_hold_nobody_else_up() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    let spin = config(
        swapped.host.home(),
        "hostile",
        &json!({"at": "open", "do": "spin"}),
    );
    swapped.host.reconfigure(&spin);
    swapped.host.reload().await;
    let body = hello();
    let spinning = futures_util::future::join_all((0..8).map(|_| swapped.host.post(&body)));
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            swapped.host.get("/v1/models").await;
            slowest = slowest.max(started.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(spinning, others);
    assert!(answers.iter().all(|(status, _)| *status == 502));
    assert!(
        slowest < Duration::from_millis(1500),
        "another route took {slowest:?}"
    );
    // What such a guest does from now on gives way to everything.
    assert_eq!(processor_time(&swapped.host, "suspect-guest"), (19, 0));
    assert_eq!(swapped.host.post(&body).await.0, 502);
    let (nice, ticks) = processor_time(&swapped.host, "suspect-guest");
    assert!(nice == 19 && ticks >= 10, "nice {nice}, {ticks} ticks");
}

/// How nice the service's threads of this name are, and their processor time so far, in hundredths of a second.
fn processor_time(host: &Host, name: &str) -> (i64, i64) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let stats = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<i64> = fields.split(' ').filter_map(|it| it.parse().ok()).collect();
        // Without the state, the first of these is the parent: proc_pid_stat(5), field 4.
        head.ends_with(name)
            .then(|| (fields[19 - 4], fields[14 - 4] + fields[15 - 4]))
    });
    stats.fold((0, 0), |(_, sum), (nice, ticks)| (nice, sum + ticks))
}

#[tokio::test]
async fn a_guest_that_thinks_about_what_a_process_holds_delays_no_answer() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    let behaviour = json!({"at": "hold", "do": "spin", "answer": "calm"});
    swapped
        .host
        .reconfigure(&config(swapped.host.home(), "hostile", &behaviour));
    swapped.host.reload().await;
    let started = Instant::now();
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
    // A call for a whole request may take ten times 200 ms.
    assert!(
        started.elapsed() < Duration::from_millis(1500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_request_goes_on_in_a_fresh_process_if_the_idle_one_is_of_no_use() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    let behaviour = json!({"at": "resume", "do": "unfit", "answer": "calm"});
    let config = config(swapped.host.home(), "hostile", &behaviour);
    swapped.host.reconfigure(&config);
    swapped.host.reload().await;
    for request in 0..3 {
        let (status, answer) = swapped.host.post(&hello()).await;
        assert_eq!(
            (status, &answer["choices"][0]["message"]["content"]),
            (200, &json!("calm1")),
            "request {request}: a session of its own answers it"
        );
        poll::until("the process to be kept", PATIENCE, async || {
            let (_, health) = swapped.host.get("/health").await;
            (health["backends"]["fake"]["kept"] == 1).then_some(())
        })
        .await;
    }
    let log = swapped.host.log();
    assert_eq!(
        log.matches("an idle process was of no use: it was told to")
            .count(),
        2
    );
    let late = json!({"at": "start", "do": "unfit"});
    swapped
        .host
        .reconfigure(&self::config(swapped.host.home(), "hostile", &late));
    swapped.host.reload().await;
    let (status, answer) = swapped.host.post(&hello()).await;
    assert_refused(
        &(status, answer),
        (502, "guest_error"),
        "it gave up a process that had begun to answer, or that was started for it",
    );
}

/// How long requests for a path take while something else goes on: the 99th of a hundred.
async fn slowest_but_one(host: &Host, path: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        host.get(path).await;
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    times.sort();
    times[98]
}

#[tokio::test]
async fn sixteen_guests_that_spin_at_each_line_hold_nobody_else_up() {
    let hostile = hostile_component();
    let swapped = Swapped::start(
        "hostile",
        "#read\n#text x\n#hang",
        &[("hostile.wasm", &hostile)],
    );
    let interrupt =
        r#"{"type":"control_request","request_id":"a","request":{"subtype":"interrupt"}}"#;
    let spin = config(
        swapped.host.home(),
        "hostile",
        &json!({"at": "output", "do": "spin", "write": [interrupt]}),
    );
    swapped
        .host
        .reconfigure(&format!("{spin}\n[backends.demo]\nprofile = \"demo\"\n"));
    swapped.host.reload().await;
    let alone = slowest_but_one(&swapped.host, "/v1/models").await;
    let stop = AtomicBool::new(false);
    let body = hello();
    let spinning = futures_util::future::join_all((0..16).map(|_| async {
        let mut refused = 0;
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(swapped.host.post(&body).await.0, 502);
            refused += 1;
        }
        refused
    }));
    let others = async {
        let beside = slowest_but_one(&swapped.host, "/v1/models").await;
        let started = Instant::now();
        assert_eq!(swapped.host.ask("demo", "x").await.0, 200);
        stop.store(true, Ordering::Relaxed);
        (beside, started.elapsed())
    };
    let (refused, (beside, answer)) = tokio::join!(spinning, others);
    println!("{alone:?} alone, {beside:?} beside; an answer in {answer:?}");
    assert!(
        refused.iter().all(|count| *count > 0),
        "each of them had its turn: {refused:?}"
    );
    assert!(
        beside < alone + Duration::from_millis(250),
        "{alone:?} alone, {beside:?} beside"
    );
    assert!(answer < Duration::from_secs(2), "{answer:?}");
}

#[tokio::test]
async fn what_a_guest_does_on_trial_counts_for_nobody_else() {
    let swapped = Swapped::start(
        "hostile",
        "#hang",
        &[("hostile.wasm", &hostile_component())],
    );
    let behaviour = json!({"answer": "x"});
    swapped
        .host
        .reconfigure(&config(swapped.host.home(), "hostile", &behaviour));
    swapped.host.reload().await;
    for (at, deed) in [("start", "trap"), ("open", "spin"), ("start", "two-ends")].repeat(3) {
        let trial = json!({
            "request": hello(), "configs": {"hostile": {"at": at, "do": deed}},
        });
        let sent = swapped.host.client().post(swapped.host.url("/admin/run"));
        let answer = sent.json(&trial).send().await.unwrap();
        assert_eq!(answer.status(), 502, "{at} {deed}");
    }
    let (_, listed) = swapped.host.get("/admin/guests").await;
    let calls = &listed["guests"]["hostile"]["calls"];
    assert_eq!(
        (&calls["traps"], &calls["last_error"]),
        (&json!(0), &Value::Null),
        "{listed}"
    );
    let (status, answer) = swapped.host.post(&hello()).await;
    assert_eq!(status, 200, "{answer}");
}
