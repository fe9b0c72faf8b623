//! A fake of Anthropic's Messages API on loopback.
//!
//! What it does is told by a word `scenario:NAME` in the last message of the user that has one;
//! without one it answers as a well-meaning model would: see `model`. What the real API would
//! refuse, it refuses: see `rules`. It keeps the bodies of all requests.

mod model;
mod rules;
mod script;

use std::sync::{Arc, Mutex};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::stream;
use script::Step;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A running fake; it lives as long as the runtime.
#[derive(Clone)]
pub struct FakeApi {
    url: String,
    requests: Arc<Mutex<Vec<Recorded>>>,
    usage: Arc<Mutex<Value>>,
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
            usage: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/messages", post(messages))
            .route("/api/oauth/usage", get(usage))
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

    /// What it says from now on of the windows of the login's plan.
    pub fn set_usage(&self, windows: Value) {
        *self.usage.lock().expect("the usage") = windows;
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

    /// Role and blocks of each message, without what the CLI itself puts in.
    pub fn blocks(&self) -> Value {
        let of_the_cli = |block: &Value| {
            let text = block["text"].as_str().unwrap_or_default();
            text.starts_with("<system-reminder>")
        };
        let messages = self.body["messages"].as_array().cloned();
        let messages = messages.unwrap_or_default().into_iter();
        messages
            .filter(|message| message["role"] != "system")
            .map(|mut message| {
                let blocks = message["content"].as_array_mut();
                let blocks = blocks.map(std::mem::take).unwrap_or_default();
                let blocks = blocks.into_iter().filter(|block| !of_the_cli(block));
                let blocks = blocks.map(|mut block| {
                    if let Some(fields) = block.as_object_mut() {
                        fields.remove("cache_control");
                    }
                    block
                });
                json!([message["role"], blocks.collect::<Vec<_>>()])
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

async fn usage(State(api): State<FakeApi>) -> String {
    api.usage.lock().expect("the usage").to_string()
}

async fn messages(State(api): State<FakeApi>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Recorded {
        size: body.len(),
        body: request.clone(),
    };
    let scenario = scenario(&asked);
    api.requests.lock().expect("the requests").push(asked);
    if let Some(wrong) = rules::broken_by(&request) {
        return error(400, "invalid_request_error", &wrong);
    }
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
        other => events(script::of(other, &request)),
    }
}

/// The word behind `scenario:` in the last message of the user that has one.
fn scenario(request: &Recorded) -> String {
    let conversation = request.conversation();
    let said = conversation.iter().rev().filter(|(role, _)| role == "user");
    let mut words = said.filter_map(|(_, texts)| {
        let text = texts.join(" ");
        let (_, rest) = text.split_once("scenario:")?;
        let end = |c: char| c.is_whitespace() || c == '"';
        Some(rest.split(end).next().unwrap_or_default().to_owned())
    });
    words.next().unwrap_or_default()
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
