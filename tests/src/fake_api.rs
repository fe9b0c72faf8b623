//! A fake of Anthropic's Messages API on loopback.
//!
//! What it does is told by a word `scenario:NAME` in the last message of the user; without one
//! it answers with two deltas. It keeps the bodies of all requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A running fake; it lives as long as the runtime.
#[derive(Clone)]
pub struct FakeApi {
    url: String,
    requests: Arc<Mutex<Vec<Recorded>>>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its body's size in bytes.
    pub size: usize,
    /// Its body.
    pub body: Value,
}

impl FakeApi {
    /// Starts on a port of the system's choice.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let api = FakeApi {
            url,
            requests: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/messages", post(messages))
            .route("/requests", get(recorded))
            .fallback(any(|| async { StatusCode::NOT_FOUND }))
            .with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(api)
    }

    /// What to set `ANTHROPIC_BASE_URL` to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The requests that came and that `wanted` picks by their body's text.
    pub fn requests(&self, wanted: &str) -> Vec<Recorded> {
        let requests = self.requests.lock().expect("the requests");
        requests
            .iter()
            .filter(|r| r.body.to_string().contains(wanted))
            .cloned()
            .collect()
    }
}

impl Recorded {
    /// Role and texts of each message, without what the CLI itself puts in.
    pub fn conversation(&self) -> Vec<(String, Vec<String>)> {
        let messages = self.body["messages"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let of_clients = messages
            .iter()
            .filter(|message| message["role"] != "system");
        of_clients
            .map(|message| {
                (
                    message["role"].as_str().unwrap_or("").to_owned(),
                    texts(&message["content"]),
                )
            })
            .collect()
    }

    /// The texts of the system prompt, without what the CLI itself puts in.
    pub fn system(&self) -> Vec<String> {
        let texts = texts(&self.body["system"]);
        texts
            .into_iter()
            .filter(|t| !t.starts_with("x-anthropic-") && !t.starts_with("You are a Claude agent"))
            .collect()
    }
}

fn texts(content: &Value) -> Vec<String> {
    let of_the_cli = |text: &String| text.starts_with("<system-reminder>");
    let texts: Vec<String> = match content {
        Value::String(text) => vec![text.clone()],
        Value::Array(blocks) => blocks
            .iter()
            .filter_map(|b| b["text"].as_str())
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter(|text| !of_the_cli(text)).collect()
}

async fn recorded(State(api): State<FakeApi>) -> String {
    let requests = api.requests.lock().expect("the requests");
    Value::from(requests.iter().map(|r| r.body.clone()).collect::<Vec<_>>()).to_string()
}

async fn messages(State(api): State<FakeApi>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Recorded {
        size: body.len(),
        body: request.clone(),
    };
    let scenario = scenario(&asked);
    api.requests.lock().expect("the requests").push(asked);
    let subscription = headers.contains_key(header::AUTHORIZATION);
    match scenario.as_str() {
        "429" if subscription => limited(),
        "429" => error(429, "rate_limit_error", "slow down"),
        "401" => error(401, "authentication_error", "invalid bearer token"),
        "403" => error(403, "permission_error", "not allowed"),
        "404" => error(404, "not_found_error", "no such model"),
        "500" => error(500, "api_error", "internal error"),
        "529" => error(529, "overloaded_error", "Overloaded"),
        "too-long" => error(
            400,
            "invalid_request_error",
            "prompt is too long: 300000 tokens > 200000 maximum",
        ),
        "bad-request" => error(400, "invalid_request_error", "something is wrong"),
        other => events(script(other)),
    }
}

/// The word behind `scenario:` in the last message of the user.
fn scenario(request: &Recorded) -> String {
    let conversation = request.conversation();
    let last = conversation
        .iter()
        .rfind(|(role, _)| role == "user")
        .map(|(_, texts)| texts.join(" "));
    let word = last
        .as_deref()
        .and_then(|text| text.split_once("scenario:"));
    let name = word.map(|(_, rest)| {
        rest.split(|c: char| c.is_whitespace() || c == '"')
            .next()
            .unwrap_or_default()
    });
    name.unwrap_or("hello").to_owned()
}

fn error(status: u16, kind: &str, message: &str) -> Response {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"});
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (
        StatusCode::from_u16(status).expect("a status"),
        headers,
        body.to_string(),
    )
        .into_response()
}

/// What a subscription's used-up limit looks like.
fn limited() -> Response {
    let mut response = error(
        429,
        "rate_limit_error",
        "This request would exceed your account's rate limit.",
    );
    let reset = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
        + 3600;
    for (name, value) in [
        ("anthropic-ratelimit-unified-status", "rejected".to_owned()),
        ("anthropic-ratelimit-unified-reset", reset.to_string()),
        (
            "anthropic-ratelimit-unified-representative-claim",
            "five_hour".to_owned(),
        ),
        (
            "anthropic-ratelimit-unified-5h-status",
            "rejected".to_owned(),
        ),
        (
            "anthropic-ratelimit-unified-5h-utilization",
            "1.0".to_owned(),
        ),
        ("anthropic-ratelimit-unified-5h-reset", reset.to_string()),
    ] {
        response
            .headers_mut()
            .insert(name, value.parse().expect("a header"));
    }
    response
}

/// A step of a streamed answer.
enum Step {
    Event(Value),
    Wait(Duration),
    /// The connection breaks.
    Break,
}

fn script(scenario: &str) -> Vec<Step> {
    let mut steps = vec![Step::Event(message_start())];
    match scenario {
        "thinking" => {
            steps.extend(block(
                0,
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                &[
                    json!({"type": "thinking_delta", "thinking": "Let me "}),
                    json!({"type": "thinking_delta", "thinking": "think."}),
                    json!({"type": "signature_delta", "signature": "c2ln"}),
                ],
            ));
            steps.extend(text_block(1, &["Done ", "thinking."]));
            steps.extend(end("end_turn", 12));
        }
        "mid-stream-error" => {
            let mut text = text_block(0, &["Half an ", "answer"]);
            text.pop();
            steps.extend(text);
            let failed =
                json!({"type": "error", "error": {"type": "api_error", "message": "it broke"}});
            steps.push(Step::Event(failed));
        }
        "break" => {
            steps.extend(text_block(0, &["Half"]));
            // What was sent shall arrive before the break does.
            steps.push(Step::Wait(Duration::from_millis(300)));
            steps.push(Step::Break);
        }
        "max_tokens" => {
            steps.extend(text_block(0, &["Cut ", "off"]));
            steps.extend(end("max_tokens", 2));
        }
        "slow" => {
            for i in 0..100 {
                steps.extend(text_block(i, &["tick "]));
                steps.push(Step::Wait(Duration::from_millis(100)));
            }
            steps.extend(end("end_turn", 100));
        }
        "silent" => steps.push(Step::Wait(Duration::from_secs(60))),
        "long" => {
            let words: Vec<String> = (0..2000).map(|i| format!("w{i} ")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            steps.extend(text_block(0, &words));
            steps.extend(end("end_turn", 2000));
        }
        "unicode" => {
            steps.extend(text_block(
                0,
                &["Gr\u{fc}\u{df}e ", "\u{1f600}", "\u{2028}", " \u{0}end"],
            ));
            steps.extend(end("end_turn", 5));
        }
        "refusal" => {
            steps.extend(text_block(0, &["I cannot"]));
            steps.extend(end("refusal", 2));
        }
        _ => {
            steps.extend(text_block(0, &["Hello", " there"]));
            steps.extend(end("end_turn", 7));
        }
    }
    steps
}

fn message_start() -> Value {
    json!({"type": "message_start", "message": {
        "id": "msg_fake", "type": "message", "role": "assistant", "model": "claude-fake-1", "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 1},
    }})
}

fn text_block(index: u32, pieces: &[&str]) -> Vec<Step> {
    let deltas: Vec<Value> = pieces
        .iter()
        .map(|text| json!({"type": "text_delta", "text": text}))
        .collect();
    block(index, json!({"type": "text", "text": ""}), &deltas)
}

fn block(index: u32, start: Value, deltas: &[Value]) -> Vec<Step> {
    let mut steps =
        vec![json!({"type": "content_block_start", "index": index, "content_block": start})];
    steps.extend(
        deltas
            .iter()
            .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
    );
    steps.push(json!({"type": "content_block_stop", "index": index}));
    steps.into_iter().map(Step::Event).collect()
}

fn end(reason: &str, output_tokens: u64) -> Vec<Step> {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    let usage = json!({"output_tokens": output_tokens});
    vec![
        Step::Event(json!({"type": "message_delta", "delta": delta, "usage": usage})),
        Step::Event(json!({"type": "message_stop"})),
    ]
}

fn events(steps: Vec<Step>) -> Response {
    let body = stream::unfold(steps.into_iter(), |mut steps| async {
        loop {
            match steps.next()? {
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Break => return Some((Err(std::io::Error::other("broken")), steps)),
                Step::Event(event) => {
                    let kind = event["type"].as_str().unwrap_or_default();
                    return Some((Ok(format!("event: {kind}\ndata: {event}\n\n")), steps));
                }
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(body),
    )
        .into_response()
}
