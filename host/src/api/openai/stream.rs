//! An answer as server-sent events: one frame of the body, and so one write, for each event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use guests::completion::FinishReason;
use processes::Processes;
use serde::Serialize;
use serde_json::json;

use super::error;
use super::wire::delta_value;
use crate::ascii_json;
use crate::config::{HttpConfig, KeepAliveForm};
use crate::dispatch::answer::Answer;
use crate::dispatch::choices::Choices;
use crate::dispatch::output_schema::OutputSchema;
use crate::dispatch::request_log::RequestLog;
use crate::dispatch::{Answers, Head};
use crate::exchange::Event;
use crate::failure::Failure;

/// Tells nginx, and what imitates it, to pass each event on at once.
pub(in crate::api) const NO_BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// How one stream is written.
pub(super) struct Settings {
    keep_alive: Duration,
    form: KeepAliveForm,
    include_usage: bool,
}

impl Settings {
    pub(super) fn new(http: &HttpConfig, include_usage: bool) -> Self {
        Settings {
            keep_alive: http.keep_alive,
            form: http.keep_alive_form,
            include_usage,
        }
    }
}

/// A response whose body owns the exchanges: when the client goes, all of it goes.
pub(super) async fn response(
    answers: Answers,
    settings: Settings,
    first: Option<(usize, Event)>,
    log: RequestLog,
    processes: Arc<Processes>,
) -> Response {
    let Answers {
        head,
        choices,
        output,
        ..
    } = answers;
    let count = choices.len();
    let kept = match output.is_empty() {
        true => Vec::new(),
        false => std::iter::repeat_with(Answer::default)
            .take(count)
            .collect(),
    };
    let mut events = Events {
        head,
        settings,
        choices: Some(choices),
        kept,
        output,
        log,
        processes,
        frames: VecDeque::new(),
    };
    for index in 0..count {
        events.chunk(index, json!({"role": "assistant", "content": ""}), None);
    }
    if let Some((index, event)) = first {
        events.take(index, event).await;
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
    choices: Option<Choices>,
    /// What was sent of each choice, if it must be checked at its end.
    kept: Vec<Answer>,
    output: OutputSchema,
    log: RequestLog,
    processes: Arc<Processes>,
    /// Events that are ready to be sent.
    frames: VecDeque<Bytes>,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let choices = self.choices.as_mut()?;
            match tokio::time::timeout(self.settings.keep_alive, choices.next()).await {
                Ok(Some((index, event))) => self.take(index, event).await,
                Ok(None) => self.done(),
                Err(_) => self.keep_alive(),
            }
        }
    }

    async fn take(&mut self, index: usize, event: Event) {
        match event {
            Event::Delta(delta) => {
                self.log.delta(delta.size());
                if let Some(kept) = self.kept.get_mut(index) {
                    kept.push(delta.clone());
                }
                self.chunk(index, delta_value(delta), None);
            }
            Event::Finish(outcome) => self.finish(index, outcome.finish_reason).await,
            Event::Fail(failure) => self.fail(&failure),
        }
    }

    async fn finish(&mut self, index: usize, reason: FinishReason) {
        if let Some(kept) = self.kept.get(index)
            && let Err(failure) = self.output.check(&self.processes, kept, reason).await
        {
            return self.fail(&failure);
        }
        self.chunk(index, json!({}), Some(reason));
    }

    /// All choices are finished.
    fn done(&mut self) {
        let usage = self.choices.take().and_then(|choices| choices.usage());
        if self.settings.include_usage {
            let chunk = frame(&self.head.usage_chunk(usage.as_ref()));
            self.frames.push_back(chunk);
        }
        self.frames
            .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.log.finished(usage);
    }

    /// The status line was sent already, so the failure becomes an event of the stream. Nothing follows it, not
    /// even `[DONE]`: clients would take that for success.
    fn fail(&mut self, failure: &Failure) {
        self.choices = None;
        self.frames.push_back(frame(&error::body(failure)));
        self.log.failed(failure, StatusCode::OK.as_u16());
    }

    fn keep_alive(&mut self) {
        match self.settings.form {
            KeepAliveForm::Chunk => {
                let running = self.choices.as_ref().map_or(0, Choices::running);
                self.chunk(running, json!({}), None);
            }
            KeepAliveForm::Comment => self
                .frames
                .push_back(Bytes::from_static(b": keep-alive\n\n")),
        }
    }

    fn chunk(&mut self, index: usize, delta: serde_json::Value, finish: Option<FinishReason>) {
        let usage = self.settings.include_usage;
        let chunk = frame(&self.head.chunk(index, delta, finish, usage));
        self.frames.push_back(chunk);
    }
}

fn frame(value: &impl Serialize) -> Bytes {
    let json = ascii_json::to_vec(value);
    [b"data: ", json.as_slice(), b"\n\n"].concat().into()
}
