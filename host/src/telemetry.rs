//! The log and the metrics.

use anyhow::{Context as _, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// The names of all metrics.
pub(crate) mod names {
    /// Connections that were not taken, because their peer has as many as it may.
    pub(crate) const CONNECTIONS_REFUSED: &str = "claude_harness_connections_refused_total";
    /// Requests that were answered or failed, by model and status.
    pub(crate) const REQUESTS: &str = "claude_harness_requests_total";
    /// Requests that failed, by model and code.
    pub(crate) const ERRORS: &str = "claude_harness_request_errors_total";
    /// Requests being answered.
    pub(crate) const IN_FLIGHT: &str = "claude_harness_requests_in_flight";
    /// Seconds to the first piece of the answer, by model.
    pub(crate) const FIRST_TOKEN: &str = "claude_harness_time_to_first_token_seconds";
    /// Seconds to the end of the answer, by model.
    pub(crate) const DURATION: &str = "claude_harness_request_duration_seconds";
    /// Tokens, by model and kind.
    pub(crate) const TOKENS: &str = "claude_harness_tokens_total";
    /// Processes that were given a request, by where they came from.
    pub(crate) const PROCESSES: &str = "claude_harness_processes_total";
    /// Processes that wait for a request, by backend and what they wait for.
    pub(crate) const WAITING: &str = "claude_harness_processes_waiting";
    /// The number of the guest set that serves.
    pub(crate) const GENERATION: &str = "claude_harness_guest_generation";
}

/// Bounds of the histograms' buckets, in seconds.
const SECONDS: [f64; 14] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0,
];

/// Writes the log to standard error. What is written is set by `CLAUDE_HARNESS_LOG`, such as
/// `debug` or `info,request=warn`; without it, everything from `info` on.
pub fn start_log() {
    let wanted = std::env::var("CLAUDE_HARNESS_LOG").unwrap_or_default();
    let filter = match wanted.trim() {
        "" => EnvFilter::new("info"),
        wanted => EnvFilter::try_new(wanted).unwrap_or_else(|error| {
            eprintln!("claude-harness: CLAUDE_HARNESS_LOG is ignored: {error}; write a level (debug, info, warn, error), or several such as info,request=warn");
            EnvFilter::new("info")
        }),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

/// Starts to count.
///
/// # Errors
///
/// Fails if this process counts already.
pub fn start_metrics() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot start the metrics")?;
    metrics::describe_counter!(names::REQUESTS, "Requests that were answered or failed");
    metrics::describe_counter!(names::ERRORS, "Requests that failed");
    metrics::describe_gauge!(names::IN_FLIGHT, "Requests being answered");
    metrics::describe_histogram!(
        names::FIRST_TOKEN,
        "Seconds to the first piece of the answer"
    );
    metrics::describe_histogram!(names::DURATION, "Seconds to the end of the answer");
    metrics::describe_counter!(names::TOKENS, "Tokens");
    metrics::describe_counter!(names::PROCESSES, "Processes that were given a request");
    metrics::describe_gauge!(names::WAITING, "Processes that wait for a request");
    metrics::describe_gauge!(names::GENERATION, "The number of the guest set that serves");
    metrics::gauge!(names::IN_FLIGHT).set(0);
    Ok(handle)
}
