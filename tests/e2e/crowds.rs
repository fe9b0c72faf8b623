//! Many clients, slow clients and endless output: what one of them does costs the others nothing, and
//! memory stays bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness_tests::host::Host;
use harness_tests::poll;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{ANSWER, Fake};

/// What the service may hold at most while it is pressed, in MB. Idle it has 20 to 50.
const MEMORY_MAX: u64 = 150;

fn hello() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "Say hi"}]})
}

/// The most memory that the service has held so far, in MB.
fn peak(fake: &Fake) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fake.host.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib / 1000
}

async fn is_quiet(fake: &Fake) {
    fake.load(0, 0).await;
    fake.all_gone(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_gigabyte_without_a_newline_is_cut_off() {
    let fake = Fake::start("#init\n#read\n#flood 1000000000\n");
    let started = Instant::now();
    let (status, answer) = fake.host.post(&hello()).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (502, &json!("backend_error"))
    );
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("`max_line`"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(20));
    is_quiet(&fake).await;
    assert!(peak(&fake) < MEMORY_MAX, "{} MB", peak(&fake));
}

#[tokio::test]
async fn an_endless_flood_on_stderr_is_read_and_forgotten() {
    let flood = format!("#stderr {}\n", "x".repeat(60_000)).repeat(2000);
    let fake = Fake::start(&format!("#init\n#read\n{flood}#text ok\n#done\n"));
    let (status, answer) = fake.host.post(&hello()).await;
    assert_eq!(status, 200, "{answer}");
    is_quiet(&fake).await;
    assert!(peak(&fake) < MEMORY_MAX, "{} MB", peak(&fake));
}

#[tokio::test]
async fn a_thousand_clients_that_say_nothing_cost_the_others_nothing() {
    let fake = Fake::start(ANSWER);
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(fake.host.authority()).await.unwrap());
    }
    for _ in 0..3 {
        assert_eq!(fake.host.post(&hello()).await.0, 200);
    }
    assert!(silent.iter().all(|client| client.peer_addr().is_ok()));
    assert!(peak(&fake) < MEMORY_MAX, "{} MB", peak(&fake));
    drop(silent);
    poll::until(
        "the end of their connections",
        Duration::from_secs(10),
        async || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", fake.host.pid())).unwrap();
            (open.count() < 200).then_some(())
        },
    )
    .await;
    is_quiet(&fake).await;
}

#[tokio::test]
async fn a_slow_reader_holds_its_own_stream_only() {
    let settings = "max_concurrent = 32";
    let fake = Fake::start_with("#init\n#read\n#burst 100000000\n", settings, "");
    let mut body = hello();
    body["stream"] = true.into();
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(fake.slow_client(&body).await);
    }
    fake.started(8).await;
    // A byte now and then, while others are served.
    for _ in 0..20 {
        for client in &mut slow {
            assert!(client.read_u8().await.is_ok());
        }
        fake.play(ANSWER);
        let started = Instant::now();
        assert_eq!(fake.host.post(&hello()).await.0, 200);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    assert!(peak(&fake) < MEMORY_MAX, "{} MB", peak(&fake));
    // Only the slow ones.
    fake.load(8, 0).await;
    drop(slow);
    is_quiet(&fake).await;
}

#[tokio::test]
async fn whoever_waits_in_the_queue_and_leaves_is_forgotten() {
    let settings = "max_concurrent = 1\nqueue = 2";
    let fake = Fake::start_with("#init\n#read\n#text a\n#hang\n", settings, "");
    let mut body = hello();
    body["stream"] = true.into();
    let holds = fake.host.send(&body).await;
    for _ in 0..3 {
        let waits = async {
            futures_util::future::join(fake.host.send(&body), fake.host.send(&body)).await
        };
        tokio::select! {
            _ = waits => panic!("there is no place"),
            () = fake.load(1, 2) => {}
        }
        fake.load(1, 0).await;
    }
    assert_eq!(
        fake.pids().len(),
        1,
        "nothing was started for those who left"
    );
    drop(holds);
    fake.play(ANSWER);
    assert_eq!(fake.host.post(&hello()).await.0, 200);
}

#[tokio::test]
async fn keys_take_turns() {
    let settings = "max_concurrent = 1\nqueue = 10";
    let keys = "api_keys = [\"crowd\", \"single\"]";
    let fake = Fake::start_with("#init\n#read\n#text a\n#hang\n", settings, keys);
    let send = async |key: &str, stream: bool| {
        let asks = json!([{"role": "user", "content": format!("I am {key}")}]);
        let body = json!({"model": "fake", "stream": stream, "messages": asks});
        let url = fake.host.url("/v1/chat/completions");
        let request = fake.host.client().post(url).bearer_auth(key);
        let response = request.json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response
    };
    let ask = async |key: &str| drop(send(key, false).await.bytes().await);
    // The only place is taken until both are in line.
    let holds = send("crowd", true).await;
    fake.play(ANSWER);
    let crowd = futures_util::future::join_all((0..5).map(|_| ask("crowd")));
    let single = async {
        fake.load(1, 5).await;
        ask("single").await;
    };
    let opens = async {
        fake.load(1, 6).await;
        drop(holds);
    };
    tokio::join!(crowd, single, opens);
    // What the processes read, one after the other: whoever held the place, one of his own, the other key.
    let read = std::fs::read_to_string(fake.stdin()).unwrap();
    let asked: Vec<&str> = read.lines().filter(|line| line.contains("I am")).collect();
    let place = asked.iter().position(|line| line.contains("I am single"));
    assert_eq!((asked.len(), place), (7, Some(2)), "{read}");
}

#[tokio::test]
async fn idle_connections_give_way_to_those_that_ask() {
    let host = Host::start_with_descriptors(1024, "api_keys = [\"a key of some length\"]\n");
    let mut idle = Vec::new();
    for number in 0..900 {
        let mut connection = TcpStream::connect(host.authority()).await.unwrap();
        if number % 2 == 0 {
            // Some of them have begun a head, and do not go on.
            let _ = connection.write_all(b"GET /health HTTP/1.1\r\nx: ").await;
        }
        idle.push(connection);
        if number % 100 == 99 {
            let begun = Instant::now();
            let response = host
                .client()
                .get(host.url("/v1/models"))
                .bearer_auth("a key of some length");
            assert_eq!(response.send().await.unwrap().status(), 200);
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{number}: {:?}",
                begun.elapsed()
            );
        }
    }
}

#[tokio::test]
async fn a_head_has_a_bound() {
    let fake = Fake::start(ANSWER);
    let mut client = TcpStream::connect(fake.host.authority()).await.unwrap();
    let head = format!(
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n",
        "x".repeat(100_000)
    );
    let _ = client.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn callers_without_a_key_are_told_apart_by_their_program() {
    let fake = Fake::start_with("#init\n#read\n#hang\n", "max_concurrent = 1\nqueue = 4", "");
    let (body, shed) = (hello(), AtomicUsize::new(0));
    // The service's own probe may have the only place for a moment.
    let first = fake.slow_client(&body).await;
    fake.started(1).await;
    let flood = futures_util::future::join_all((0..19).map(|_| async {
        if fake.host.post(&body).await.0 == 429 {
            shed.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let other = async {
        // One is served, four wait, fifteen had to go.
        fake.load(1, 4).await;
        let url = fake.host.url("/v1/chat/completions");
        let request = fake.host.client().post(url).json(&body);
        request
            .header("user-agent", "another program")
            .send()
            .await
            .unwrap()
            .status()
    };
    let gives_way = poll::until(
        "one of the crowd gives way",
        Duration::from_secs(30),
        async || (shed.load(Ordering::Relaxed) == 16).then_some(()),
    );
    tokio::select! {
        _ = flood => unreachable!("nobody is answered"),
        status = other => panic!("the other caller was turned away with {status}"),
        () = gives_way => {}
    }
    drop(first);
}
