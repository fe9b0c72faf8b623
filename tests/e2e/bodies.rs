//! What the bodies of requests cost.

use std::time::{Duration, Instant};

use harness_tests::host::assert_refused;
use harness_tests::poll;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{ANSWER, Fake};

const MIB: usize = 1 << 20;

/// A line of `/proc/PID/status`, in bytes.
fn memory(fake: &Fake, line: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fake.host.pid())).unwrap();
    let line = status
        .lines()
        .find(|known| known.starts_with(line))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// Has the highest memory count from now on.
fn forget_peak(fake: &Fake) {
    std::fs::write(format!("/proc/{}/clear_refs", fake.host.pid()), "5").unwrap();
}

/// `unit` again and again, to a size.
fn filled(unit: &str, size: usize) -> String {
    unit.repeat(size / unit.len())
}

/// Bodies of about `size` bytes, each with the status that it gets.
fn bodies(size: usize) -> Vec<(&'static str, u16, String)> {
    let user = r#"{"role":"user","content":"x"}"#;
    let nested = "[".repeat(100) + "0" + &"]".repeat(100) + ",";
    let with = |field: &str| format!(r#"{{"model":"fake","messages":[{user}],{field}}}"#);
    let messages = |list: &str| format!(r#"{{"model":"fake","messages":[{list}]}}"#);
    let said = |text: &str| messages(&format!(r#"{{"role":"user","content":"{text}"}}"#));
    vec![
        (
            "nested arrays that nobody reads",
            200,
            with(&format!(r#""x":[{}0]"#, filled(&nested, size))),
        ),
        (
            "nested arrays in a field of the table",
            400,
            with(&format!(
                r#""metadata":{{"x":[{}0]}}"#,
                filled(&nested, size)
            )),
        ),
        (
            "nested arrays in a message",
            400,
            messages(&format!(
                r#"{{"role":"user","content":[{}0]}}"#,
                filled(&nested, size)
            )),
        ),
        (
            "empty objects as messages",
            400,
            messages(&(filled("{},", size) + "{}")),
        ),
        (
            "numbers as tools",
            400,
            with(&format!(r#""tools":[{}0]"#, filled("0,", size))),
        ),
        (
            "tools with large schemas",
            400,
            with(&format!(
                r#""tools":[{{"type":"function","function":{{"name":"f","parameters":{{"enum":[{}0]}}}}}}]"#,
                filled("[0],", size)
            )),
        ),
        (
            "many fields",
            400,
            format!("{{{}\"model\":\"fake\"}}", filled("\"a\":0,", size)),
        ),
        (
            "one field that comes again and again",
            400,
            format!("{{{}\"model\":\"fake\"}}", filled("\"a\":[],", size)),
        ),
        ("levels without end", 400, "[".repeat(size)),
        (
            "a system prompt",
            200,
            messages(&format!(
                r#"{{"role":"system","content":"{}"}},{user}"#,
                filled("word ", size)
            )),
        ),
        ("plain text", 200, said(&filled("word ", size))),
        ("letters of two bytes", 200, said(&filled("ü", size))),
        (
            "escaped control characters",
            200,
            said(&filled("\\u0001", size)),
        ),
    ]
}

#[tokio::test]
async fn a_body_costs_at_most_eight_times_its_size_whatever_it_holds() {
    /// What the service takes beside, in bytes: code, threads, the bounded trees.
    const BESIDE: usize = 64 * MIB;
    let size = 24 * MIB;
    let fake = Fake::start_with(ANSWER, "", "");
    fake.host.ask("fake", "warm up").await;
    for (what, status, body) in bodies(size) {
        forget_peak(&fake);
        let request = fake
            .host
            .client()
            .post(fake.host.url("/v1/chat/completions"));
        let response = request.body(body).send().await.unwrap();
        assert_eq!(
            response.status(),
            status,
            "{what}: {}",
            response
                .text()
                .await
                .unwrap()
                .chars()
                .take(300)
                .collect::<String>()
        );
        let peak = memory(&fake, "VmHWM");
        println!("{what}: {} MiB", peak / MIB);
        assert!(peak < 8 * size + BESIDE, "{what} took {} MiB", peak / MIB);
    }
    poll::until(
        "the memory goes back",
        Duration::from_secs(30),
        async || (memory(&fake, "VmRSS") < 2 * BESIDE).then_some(()),
    )
    .await;
}

#[tokio::test]
async fn bodies_together_stay_within_their_memory_and_small_ones_wait_for_none() {
    let fake = Fake::start_with(
        "#read\n#hang\n",
        "",
        "max_body_memory = \"64MiB\"\nclient_timeout = \"2s\"",
    );
    let large =
        json!({"model": "fake", "messages": [{"role": "user", "content": "x".repeat(6 * MIB)}]});
    // One that takes three quarters of the memory, for as long as it is served.
    let first = fake.slow_client(&large).await;
    fake.started(1).await;
    let begun = Instant::now();
    let (status, answer) = fake.host.post(&large).await;
    assert_refused(&(status, answer), (503, "overloaded"), "max_body_memory");
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "it waited for its turn"
    );
    let small = fake
        .slow_client(&json!({"model": "fake", "messages": [{"role": "user", "content": "x"}]}))
        .await;
    fake.started(2).await;
    drop((first, small));
}

#[tokio::test]
async fn a_body_that_trickles_ends_though_it_never_pauses() {
    let fake = Fake::start_with(ANSWER, "", "client_timeout = \"2s\"");
    let mut client = TcpStream::connect(fake.host.authority()).await.unwrap();
    client
        .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
        .await
        .unwrap();
    let begun = Instant::now();
    let (mut from, mut to) = client.split();
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if to.write_all(b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = [0; 512];
    let count = tokio::select! {
        count = from.read(&mut answer) => count.unwrap(),
        () = trickle => unreachable!(),
    };
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("too slowly"),
        "{answer}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

/// Functions with patterns that are dear to compile.
fn dear_tools(count: usize, patterns: usize, pattern: &str) -> Value {
    let tool = |i: usize| {
        let properties = (0..patterns).map(|p| {
            (
                format!("p{p}"),
                json!({"pattern": format!("{pattern}|{i}{p}")}),
            )
        });
        let properties: serde_json::Map<_, _> = properties.collect();
        json!({"type": "function", "function": {"name": format!("f{i}"), "strict": true,
            "parameters": {"type": "object", "properties": properties}}})
    };
    (0..count).map(tool).collect()
}

#[tokio::test]
async fn schemas_are_bounded_for_the_whole_request_and_compiled_apart() {
    let fake = Fake::start(ANSWER);
    fake.host.ask("fake", "warm up").await;
    let ask = |tools: Value| json!({"model": "fake", "messages": [{"role": "user", "content": "x"}], "tools": tools});
    forget_peak(&fake);
    let (status, answer) = fake
        .host
        .post(&ask(dear_tools(20, 100, "(a{60}){60}")))
        .await;
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("tools[1].function.parameters")),
        "{answer}"
    );
    let (status, answer) = fake
        .host
        .post(&ask(dear_tools(10, 10, "(a{60}){60}")))
        .await;
    assert_eq!(status, 200, "{answer}");
    let peak = memory(&fake, "VmHWM");
    assert!(peak < 150 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test]
async fn a_check_of_an_answer_ends_in_time() {
    // Patterns that go back and forth for long before they fit.
    let patterns: Vec<Value> = (0..99)
        .map(|n| json!({"pattern": format!("^(?:(?:(?=[ab])(?:a|b|ab))*c|a|x|{n})")}))
        .collect();
    let schema = json!({"type": "object", "properties": {"s": {"items": {"allOf": patterns}}}});
    let arguments = json!({"s": vec!["ab".repeat(13); 3000]}).to_string();
    let call = json!({"type": "stream_event", "event": {"type": "content_block_start", "index": 0,
        "content_block": {"type": "tool_use", "id": "t1", "name": "mcp__client__f", "input": {}}}});
    let arguments = json!({"type": "stream_event", "event": {"type": "content_block_delta", "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": arguments}}});
    let end = json!({"type": "stream_event", "event": {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}});
    let start = json!({"type": "stream_event", "event": {"type": "message_start", "message": {"id": "m", "model": "fake"}}});
    let stop = json!({"type": "stream_event", "event": {"type": "content_block_stop", "index": 0}});
    let script = format!("#init\n#read\n{start}\n{call}\n{arguments}\n{stop}\n{end}\n#hang\n");
    let fake = Fake::start_with(&script, "request_timeout = \"3s\"", "");
    let request = json!({"model": "fake", "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}]});
    let begun = Instant::now();
    let (status, answer) = fake.host.post(&request).await;
    assert_refused(
        &(status, answer),
        (502, "schema_not_met"),
        "takes more than",
    );
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}
