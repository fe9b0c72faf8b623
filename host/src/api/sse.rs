//! An answer as server-sent events: one frame of the body, and so one write, for each event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;

use super::error;
use super::observed::Record;
use super::wire::{Head, delta_value};
use crate::ascii_json;
use crate::config::{Http, KeepAliveForm};
use crate::exchange::{Event, Exchange};
use crate::failure::Failure;
use crate::guests::types;

/// Tells nginx, and what imitates it, to pass each event on at once.
const NO_BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// How one stream looks.
pub(super) struct Settings {
    keep_alive: Duration,
    form: KeepAliveForm,
    include_usage: bool,
}

impl Settings {
    pub(super) fn new(http: &Http, include_usage: bool) -> Self {
        Settings {
            keep_alive: http.keep_alive,
            form: http.keep_alive_form,
            include_usage,
        }
    }
}

/// A response whose body owns the exchange: when the client goes, all of it goes.
pub(super) fn response(
    head: Head,
    settings: Settings,
    exchange: Exchange,
    first: Option<Event>,
    record: Record,
) -> Response {
    let mut events = Events {
        head,
        settings,
        exchange: Some(exchange),
        record,
        frames: VecDeque::new(),
    };
    events.chunk(json!({"role": "assistant", "content": ""}), None);
    if let Some(event) = first {
        events.take(event);
    }
    let frames = stream::unfold(events, |mut events| async {
        let frame = events.next().await?;
        Some((Ok::<_, Infallible>(frame), events))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        NO_BUFFERING,
    ];
    (headers, Body::from_stream(frames)).into_response()
}

/// The events of one answer.
struct Events {
    head: Head,
    settings: Settings,
    /// None once the answer has ended.
    exchange: Option<Exchange>,
    record: Record,
    /// Events that are ready to be sent.
    frames: VecDeque<Bytes>,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let exchange = self.exchange.as_mut()?;
            match tokio::time::timeout(self.settings.keep_alive, exchange.next()).await {
                Ok(event) => self.take(event),
                Err(_) => self.keep_alive(),
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Delta(delta) => {
                self.record.delta();
                self.chunk(delta_value(delta), None);
            }
            Event::Finish(outcome) => self.finish(&outcome),
            Event::Fail(failure) => self.fail(&failure),
        }
    }

    fn finish(&mut self, outcome: &types::Outcome) {
        self.exchange = None;
        self.chunk(json!({}), Some(outcome.finish_reason));
        if self.settings.include_usage {
            let chunk = frame(&self.head.usage_chunk(outcome.usage.as_ref()));
            self.frames.push_back(chunk);
        }
        self.frames
            .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.record.finished(outcome);
    }

    /// The status line is gone, so the failure is an event, and nothing follows it: an end that
    /// looked complete would be taken for success.
    fn fail(&mut self, failure: &Failure) {
        self.exchange = None;
        self.frames.push_back(frame(&error::body(failure)));
        self.record.failed(failure, StatusCode::OK);
    }

    fn keep_alive(&mut self) {
        match self.settings.form {
            KeepAliveForm::Chunk => self.chunk(json!({}), None),
            KeepAliveForm::Comment => self
                .frames
                .push_back(Bytes::from_static(b": keep-alive\n\n")),
        }
    }

    fn chunk(&mut self, delta: serde_json::Value, finish: Option<types::FinishReason>) {
        let chunk = frame(&self.head.chunk(delta, finish, self.settings.include_usage));
        self.frames.push_back(chunk);
    }
}

fn frame(value: &impl Serialize) -> Bytes {
    let json = ascii_json::to_vec(value);
    [b"data: ", json.as_slice(), b"\n\n"].concat().into()
}
