//! A collector of OpenTelemetry's traces on loopback: OTLP over HTTP, as protocol buffers.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

/// A running collector; it lives as long as the runtime.
#[derive(Clone, Debug)]
pub struct Collector {
    endpoint: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    /// Starts on a port of the system's choice.
    ///
    /// # Errors
    ///
    /// Fails if there is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let collector = Collector {
            endpoint: format!("http://{}/v1/traces", listener.local_addr()?),
            bodies: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(collector)
    }

    /// `IP:PORT`
    pub fn authority(&self) -> &str {
        let authority = self.endpoint.trim_start_matches("http://");
        authority.trim_end_matches("/v1/traces")
    }

    /// Where traces are sent.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What came, as it came.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.bodies.lock().expect("bodies").clone()
    }

    /// All spans that came.
    pub fn spans(&self) -> Vec<Span> {
        let decoded = |body: Bytes| ExportTraceServiceRequest::decode(body).expect("spans");
        let requests = self.bodies().into_iter().map(decoded);
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|of| of.scope_spans)
            .flat_map(|of| of.spans)
            .collect()
    }
}

/// The code of a span's status: 0 if it was not set, [`ERROR`] for an error.
pub fn status_code(span: &Span) -> i32 {
    span.status.as_ref().map_or(0, |status| status.code)
}

/// The code of a status that is an error.
pub const ERROR: i32 = 2;

/// An attribute of a span, as text.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if headers.get("content-type").map(|kind| kind.as_bytes()) != Some(b"application/x-protobuf") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    collector.bodies.lock().expect("bodies").push(body);
    StatusCode::OK
}
