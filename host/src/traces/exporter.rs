//! Sends spans, and tells once when that begins to fail and when it works again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use reqwest::blocking::Client;

use crate::telemetry::names;
use crate::tls;

/// How long sending some spans may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The exporter of the library, and what is known of it.
#[derive(Debug)]
pub(super) struct Watched {
    exporter: SpanExporter,
    endpoint: String,
    is_failing: AtomicBool,
}

impl Watched {
    pub(super) fn new(endpoint: &str) -> Result<Self> {
        tls::choose();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client()?)
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            .build()?;
        Ok(Watched {
            exporter,
            endpoint: endpoint.to_owned(),
            is_failing: AtomicBool::new(false),
        })
    }
}

/// A client that goes to the endpoint itself: a proxy of the environment is none of the operator's choice here, and would
/// get the headers. It has a runtime of its own, which must not be made in another one's thread.
fn client() -> Result<Client> {
    let build = || Client::builder().timeout(TIMEOUT).no_proxy().build();
    let built = thread::Builder::new().spawn(build)?.join();
    let built = built.map_err(|_| anyhow!("the client of HTTP cannot be made"))?;
    Ok(built?)
}

impl opentelemetry_sdk::trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        let endpoint = &self.endpoint;
        match &sent {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint, "traces are sent again");
                }
            }
            Err(error) => {
                metrics::counter!(names::SPANS_LOST).increment(count as u64);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(endpoint, %error,
                        "traces cannot be sent, and are lost meanwhile (`[traces] endpoint`)");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
