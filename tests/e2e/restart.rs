//! The service ends, starts again or reads its configuration again: no request is lost, and nothing
//! is left.

use std::net::TcpListener;
use std::time::Duration;

use futures_util::StreamExt;
use harness_tests::poll;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{ANSWER, Fake};

const SOON: Duration = Duration::from_secs(10);

/// An answer that takes a while.
const SLOW: &str = "#init\n#read\n#text a\n#sleep 2000\n#text b\n#done\n";

fn hello(stream: bool) -> Value {
    json!({"model": "fake", "stream": stream, "messages": [{"role": "user", "content": "Say hi"}]})
}

/// Begins a stream, and gives what is to come.
async fn begin(fake: &Fake) -> impl Future<Output = String> {
    let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
    let mut all = stream.next().await.unwrap().unwrap().to_vec();
    async move {
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(all).unwrap()
    }
}

#[tokio::test]
async fn whoever_comes_while_the_service_drains_is_told_to_come_back() {
    let mut fake = Fake::start(SLOW);
    let rest = begin(&fake).await;
    fake.host.signal(Signal::TERM);
    fake.host.logged("draining").await;
    let response = fake.host.send(&hello(false)).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "shutting_down");
    assert_eq!(fake.host.get("/health").await.1["status"], "down");
    assert!(rest.await.ends_with("data: [DONE]\n\n"));
    assert_eq!(fake.host.wait(), Some(0));
}

#[tokio::test]
async fn whoever_has_just_connected_is_still_answered() {
    let mut fake = Fake::start(ANSWER);
    let mut connection = TcpStream::connect(fake.host.authority()).await.unwrap();
    // Connections are taken in their order: this answer means that the one before is taken too.
    fake.host.get("/health").await;
    fake.host.signal(Signal::TERM);
    fake.host.logged("told to stop").await;
    let request = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(fake.host.wait(), Some(0));
}

#[tokio::test]
async fn a_restart_on_a_given_socket_refuses_nobody() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = Fake::start_on(&socket, SLOW);
    let address = socket.local_addr().unwrap();
    assert_eq!(first.host.authority(), address.to_string());
    let rest = begin(&first).await;
    first.host.signal(Signal::TERM);
    first.host.logged("draining").await;
    // It waits for the next service.
    let waits = tokio::spawn({
        let request = first
            .host
            .client()
            .post(first.host.url("/v1/chat/completions"));
        let request = request.json(&hello(false));
        async move { request.send().await.unwrap().status() }
    });
    assert!(rest.await.ends_with("data: [DONE]\n\n"));
    assert_eq!(first.host.wait(), Some(0));
    assert!(!waits.is_finished());
    let _second = Fake::start_on(&socket, ANSWER);
    assert_eq!(waits.await.unwrap(), 200);
}

#[tokio::test]
async fn the_configuration_is_read_again_without_losing_a_request() {
    let fake = Fake::start(SLOW);
    let rest = begin(&fake).await;
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = Fake::config(
        fake.host.home(),
        "max_concurrent = 1\nqueue = 0",
        "max_body = \"1KiB\"",
    );
    let config = config.replace(
        "[models.fake]",
        "[models.other]\nbackend = \"fake\"\n[models.fake]",
    );
    fake.host.reconfigure(&config);
    fake.host.add_address(&port.to_string());
    fake.host.signal(Signal::HUP);
    fake.host.logged("the configuration was read again").await;
    // The one in flight counts among the new limits.
    let (status, answer) = fake.host.post(&hello(false)).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (429, &json!("queue_full"))
    );
    assert!(rest.await.ends_with("data: [DONE]\n\n"));
    fake.play(ANSWER);
    poll::until("a free place", SOON, async || {
        let (_, health) = fake.host.get("/health").await;
        let backend = &health["backends"]["fake"];
        assert_eq!(backend["max_concurrent"], 1);
        (backend["in_flight"] == 0).then_some(())
    })
    .await;
    assert_eq!(fake.host.ask("other", "hi").await.0, 200);
    assert_eq!(fake.host.ask("fake", &"x".repeat(2000)).await.0, 413);
    poll::until("the other address", SOON, async || {
        let response = fake.host.client().get(format!("http://{port}/health"));
        response.send().await.ok().map(drop)
    })
    .await;
    // A file of keys is read again on demand, though the configuration itself is as before.
    let keys = fake.host.home().join("keys");
    std::fs::write(&keys, "k1").unwrap();
    let config = Fake::config(fake.host.home(), "", "api_keys_file = \"keys\"");
    fake.host.reconfigure(&config);
    fake.host.signal(Signal::HUP);
    let with = async |key: &str| {
        let request = fake.host.client().get(fake.host.url("/v1/models"));
        request.bearer_auth(key).send().await.unwrap().status() == 200
    };
    poll::until("the first key", SOON, async || {
        (with("k1").await && !with("k2").await).then_some(())
    })
    .await;
    std::fs::write(&keys, "k2").unwrap();
    fake.host.signal(Signal::HUP);
    poll::until("the second key", SOON, async || {
        (with("k2").await && !with("k1").await).then_some(())
    })
    .await;
    // What is wrong changes nothing, and is told.
    fake.host.reconfigure("max_body = 5\n");
    fake.host.signal(Signal::HUP);
    poll::until("the reason", SOON, async || {
        let (_, health) = fake.host.get("/health").await;
        let reason = health["configuration"]["rejected"].as_str()?;
        reason.contains("`max_body`").then_some(())
    })
    .await;
    assert!(with("k2").await);
}

#[tokio::test]
async fn what_left_its_group_ends_too() {
    let mut fake = Fake::start(&format!("#stray\n{ANSWER}"));
    assert_eq!(fake.host.post(&hello(false)).await.0, 200);
    fake.all_gone(Duration::from_secs(20)).await;
    fake.play("#stray\n#init\n#read\n#text a\n#hang\n");
    let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    fake.host.kill();
    fake.all_gone(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn what_an_earlier_service_left_is_ended_at_the_start() {
    let mut fake = Fake::start("#ignore-term\n#stray\n#child\n#init\n#read\n#text a\n#hang\n");
    let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    let left = fake.started(3).await;
    // The warden is killed first: nothing is there to end the rest.
    let children = format!("/proc/{0}/task/{0}/children", fake.host.pid());
    let children = std::fs::read_to_string(children).unwrap();
    let warden = children.split_whitespace().find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with("warden\0")
    });
    let warden: i32 = warden.unwrap().parse().unwrap();
    kill_process(Pid::from_raw(fake.host.pid()).unwrap(), Signal::STOP).unwrap();
    kill_process(Pid::from_raw(warden).unwrap(), Signal::KILL).unwrap();
    // From then on any service that starts may end them, that of another test too.
    assert!(left.iter().all(|pid| poll::is_alive(*pid)));
    fake.host.kill();
    let _next = Fake::start(ANSWER);
    fake.all_gone(Duration::from_secs(5)).await;
}
