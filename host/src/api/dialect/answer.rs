//! The answer to a chat completion, in the form of a dialect's API: piece by piece, or whole.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use guests::admit::Guest;
use guests::completion::{Delta, Outcome};
use guests::dialect::DialectCall;
use guests::http::HttpHead;

use super::failure::http_failure;
use super::{Call, Refused, add_headers, harmless, run};
use crate::api::openai;
use crate::config::Config;
use crate::dispatch::Answers;
use crate::dispatch::answer::Answer;
use crate::dispatch::choices::Choices;
use crate::dispatch::output_schema::OutputSchema;
use crate::dispatch::request_log::RequestLog;
use crate::exchange::Event;
use crate::failure::{Failure, Kind};
use crate::service::Service;

/// The longest answer in one piece, in bytes. The longest answers of a model are below one MiB.
const ANSWER_MAX: usize = 64 << 20;

/// An answer on its way through a dialect.
struct Writer {
    service: Arc<Service>,
    /// The settings that the call began with.
    config: Arc<Config>,
    guest: Arc<Guest>,
    /// None once the answer has ended, or the dialect broke a bound.
    call: Option<Box<DialectCall>>,
    /// None once the answer has ended.
    choices: Option<Choices>,
    output: OutputSchema,
    /// What came of each choice, if it must be checked at its end.
    kept: Vec<Answer>,
    /// Bytes of the answer so far.
    size: usize,
    log: RequestLog,
}

/// Answers. Fails only before the status line was sent.
pub(super) async fn response(
    of: &Call,
    call: Box<DialectCall>,
    answers: Answers,
    log: RequestLog,
) -> Result<Response, Box<Refused>> {
    let Answers {
        choices, output, ..
    } = answers;
    let kept = match output.is_empty() {
        true => 0,
        false => choices.len(),
    };
    let mut writer = Writer {
        service: of.service.clone(),
        config: of.snapshot.config.clone(),
        guest: call.guest().clone(),
        call: Some(call),
        choices: Some(choices),
        output,
        kept: std::iter::repeat_with(Answer::default).take(kept).collect(),
        size: 0,
        log,
    };
    match writer.begun().await {
        Ok((Some(head), first)) => Ok(streamed(writer, head, first)),
        Ok((None, first)) => match writer.whole(first).await {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                Ok(([(header::CONTENT_TYPE, json)], body).into_response())
            }
            Err(failure) => Err(writer.refused(failure)),
        },
        Err(failure) => Err(writer.refused(failure)),
    }
}

/// A response whose body owns the exchanges: when the client goes, all of it goes.
fn streamed(writer: Writer, head: HttpHead, first: String) -> Response {
    let pieces = stream::unfold((writer, Some(first)), |(mut writer, first)| async {
        let piece = match first {
            Some(first) => Ok(first),
            None => writer.next().await?,
        };
        Some((piece.map(Bytes::from), (writer, None)))
    });
    let status = StatusCode::from_u16(head.status)
        .ok()
        .filter(StatusCode::is_success);
    let mut response =
        (status.unwrap_or(StatusCode::OK), Body::from_stream(pieces)).into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::try_from(head.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let (name, value) = openai::NO_BUFFERING;
    headers.insert(name, value);
    add_headers(&mut response, head.headers);
    harmless(&mut response);
    response
}

impl Writer {
    /// Has the dialect begin, and waits for the first piece, for at most `hold`, so that a failure has its true status.
    async fn begun(&mut self) -> Result<(Option<HttpHead>, String), Failure> {
        // While the backend works, and not when there is a piece to be sent.
        let head = self.with(DialectCall::begin).await?;
        let hold = self.config.http.hold;
        let first = match &mut self.choices {
            Some(choices) => tokio::time::timeout(hold, choices.next())
                .await
                .ok()
                .flatten(),
            None => None,
        };
        if let Some((_, Event::Fail(failure))) = first {
            return Err(failure);
        }
        let text = match first {
            Some((index, event)) => self.take(index, event).await?,
            None => String::new(),
        };
        Ok((head, text))
    }

    /// The next piece of a stream. None at its end. An error breaks the connection off: the client must not take what it
    /// has for the whole.
    async fn next(&mut self) -> Option<io::Result<String>> {
        let keep_alive = self.config.http.keep_alive;
        loop {
            let choices = self.choices.as_mut()?;
            let piece = match tokio::time::timeout(keep_alive, choices.next()).await {
                Ok(Some((index, event))) => self.take(index, event).await,
                Ok(None) => self.finished().await,
                Err(_) => self.with(DialectCall::keep_alive).await,
            };
            match piece {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(text)),
                Err(failure) => return Some(self.failed(&failure).await),
            }
        }
    }

    /// The whole answer.
    async fn whole(&mut self, first: String) -> Result<String, Failure> {
        nothing_early(&first)?;
        while let Some(choices) = &mut self.choices {
            let next = choices.next().await;
            let text = match next {
                Some((index, event)) => self.take(index, event).await?,
                None => return self.finished().await,
            };
            nothing_early(&text)?;
        }
        Err(Failure::new(Kind::Internal, "the answer has no end"))
    }

    async fn take(&mut self, index: usize, event: Event) -> Result<String, Failure> {
        match event {
            Event::Delta(delta) => self.delta(index, delta).await,
            Event::Finish(outcome) => self.end_choice(index, outcome).await,
            Event::Fail(failure) => Err(failure),
        }
    }

    async fn delta(&mut self, index: usize, delta: Delta) -> Result<String, Failure> {
        self.log.delta(delta.size());
        self.size = self.size.saturating_add(delta.size());
        if self.size > ANSWER_MAX {
            let message = format!("the answer is longer than {ANSWER_MAX} bytes");
            return Err(Failure::new(Kind::Backend, message));
        }
        if let Some(kept) = self.kept.get_mut(index) {
            kept.push(delta.clone());
        }
        let choice = index as u32;
        self.with(move |call| call.take(choice, &[delta])).await
    }

    async fn end_choice(&mut self, index: usize, outcome: Outcome) -> Result<String, Failure> {
        if let Some(kept) = self.kept.get(index) {
            let processes = &self.service.processes;
            self.output
                .check(processes, kept, outcome.finish_reason)
                .await?;
        }
        let choice = index as u32;
        self.with(move |call| call.end_choice(choice, &outcome))
            .await
    }

    /// All choices are finished.
    async fn finished(&mut self) -> Result<String, Failure> {
        let usage = self.choices.take().and_then(|choices| choices.usage());
        let (call, size) = (self.call()?, self.size);
        let text = run(&self.service, &self.guest, move || call.finish(size)).await?;
        self.log.finished(usage);
        Ok(text)
    }

    /// The status line was sent already, so the failure becomes the last piece of the body.
    async fn failed(&mut self, failure: &Failure) -> io::Result<String> {
        self.choices = None;
        self.log.failed(failure, StatusCode::OK.as_u16());
        let limit = self.config.http.rate_limit_status;
        let told = http_failure(failure, openai::error::status(failure, limit).as_u16());
        let unsaid = || io::Error::other("the dialect cannot say that the answer failed");
        let call = self.call.take().ok_or_else(unsaid)?;
        let last = run(&self.service, &self.guest, move || call.fail(&told)).await;
        last.ok().filter(|text| !text.is_empty()).ok_or_else(unsaid)
    }

    fn refused(self, failure: Failure) -> Box<Refused> {
        Box::new(Refused {
            failure,
            log: self.log,
        })
    }

    fn call(&mut self) -> Result<Box<DialectCall>, Failure> {
        let lost = || Failure::new(Kind::Internal, "the dialect's call is over").logged();
        self.call.take().ok_or_else(lost)
    }

    /// Calls the dialect. One that breaks a bound is not called again.
    async fn with<T: Send + 'static>(
        &mut self,
        what: impl FnOnce(&mut DialectCall) -> Result<T, guests::GuestError> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut call = self.call()?;
        let called = run(&self.service, &self.guest, move || {
            let told = what(&mut call)?;
            Ok((call, told))
        });
        let (call, told) = called.await?;
        self.call = Some(call);
        Ok(told)
    }
}

/// An answer in one piece comes from `finish` alone.
fn nothing_early(text: &str) -> Result<(), Failure> {
    match text.is_empty() {
        true => Ok(()),
        false => {
            let message = "the dialect wrote a piece of an answer that comes whole";
            Err(Failure::new(Kind::Guest, message).logged())
        }
    }
}
