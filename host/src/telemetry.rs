//! The log and the metrics.

pub(crate) mod names;

use anyhow::{Context as _, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Bounds of the histograms' buckets, in seconds.
const SECONDS: [f64; 14] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0,
];

/// Bounds of the buckets for what the service itself takes, in seconds.
const SHORT: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Bounds of the buckets for tokens: those of OpenTelemetry's conventions for generative AI, powers of four.
const TOKENS: [f64; 14] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
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

/// Writes the lines of guests to standard error, for commands that try guests.
pub(crate) fn show_guests() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("guest=trace"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .without_time()
        .with_target(false)
        .with_level(false)
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
        .and_then(|builder| {
            let usage = Matcher::Full(names::TOKEN_USAGE.into());
            builder.set_buckets_for_metric(usage, &TOKENS)
        })
        .and_then(|builder| {
            let added = Matcher::Full(names::ADDED.into());
            builder.set_buckets_for_metric(added, &SHORT)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot start the metrics")?;
    for (name, what) in names::COUNTERS {
        metrics::describe_counter!(name, what);
    }
    for (name, what) in names::HISTOGRAMS {
        metrics::describe_histogram!(name, what);
    }
    for (name, what) in names::GAUGES {
        metrics::describe_gauge!(name, what);
    }
    metrics::gauge!(names::IN_FLIGHT).set(0);
    Ok(handle)
}

/// Makes the counters of these models exist from the start, at 0. A counter that only appears with its first
/// event hides that event from Prometheus's `rate()`.
pub(crate) fn begin_counting(models: &[String], backends: &[String]) {
    const CODES: [&str; 9] = [
        "invalid_request",
        "not_logged_in",
        "rate_limit_exceeded",
        "queue_full",
        "overloaded",
        "timeout",
        "backend_error",
        "guest_error",
        "client_left",
    ];
    for model in models {
        metrics::counter!(names::REQUESTS, "model" => model.clone(), "status" => "200")
            .increment(0);
        for code in CODES {
            metrics::counter!(names::ERRORS, "model" => model.clone(), "code" => code).increment(0);
        }
        for tokens in [
            names::INPUT,
            names::OUTPUT,
            names::CACHE_READ,
            names::CACHE_WRITE,
            names::REASONING,
        ] {
            metrics::counter!(tokens, "model" => model.clone()).increment(0);
        }
    }
    for backend in backends {
        for outcome in ["started", "failed"] {
            metrics::counter!(names::STARTS, "backend" => backend.clone(), "outcome" => outcome)
                .increment(0);
        }
    }
    for origin in ["new", "warm", "kept"] {
        metrics::counter!(names::PROCESSES, "origin" => origin).increment(0);
    }
    for (status, code) in [
        ("401", "invalid_api_key"),
        ("403", "access_denied"),
        ("404", "unknown_url"),
        ("405", "method_not_allowed"),
    ] {
        metrics::counter!(names::TURNED_AWAY, "status" => status, "code" => code).increment(0);
    }
    metrics::counter!(names::CONNECTIONS_REFUSED).increment(0);
}
