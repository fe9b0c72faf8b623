//! The names of all metrics, and what each means.

/// A metric: its name, and a sentence for `/metrics`.
pub(crate) type Metric = (&'static str, &'static str);

/// Requests that were answered or failed, by model and status.
pub(crate) const REQUESTS: &str = "claude_harness_requests_total";
/// Requests that failed, by model and code.
pub(crate) const ERRORS: &str = "claude_harness_request_errors_total";
/// Requests that were turned away before they were read, by status and code.
pub(crate) const TURNED_AWAY: &str = "claude_harness_requests_turned_away_total";
/// Connections that were not taken.
pub(crate) const CONNECTIONS_REFUSED: &str = "claude_harness_connections_refused_total";
/// Requests being answered.
pub(crate) const IN_FLIGHT: &str = "claude_harness_requests_in_flight";
/// Seconds to the first piece of the answer, by model.
pub(crate) const FIRST_TOKEN: &str = "gen_ai_server_time_to_first_token_seconds";
/// Seconds to the end of the answer, by model and outcome.
pub(crate) const DURATION: &str = "gen_ai_server_request_duration_seconds";
/// Seconds for each token of an answer after the first piece, by model.
pub(crate) const PER_TOKEN: &str = "gen_ai_server_time_per_output_token_seconds";
/// Tokens of an answer, by model and by whether they were read or written.
pub(crate) const TOKEN_USAGE: &str = "gen_ai_client_token_usage";
/// Seconds that a request waited for a place, by backend.
pub(crate) const QUEUE_WAIT: &str = "claude_harness_queue_wait_seconds";
/// Tokens that were read, by model.
pub(crate) const INPUT: &str = "claude_harness_input_tokens_total";
/// Tokens that were written, by model.
pub(crate) const OUTPUT: &str = "claude_harness_output_tokens_total";
/// Of the input, what was read from the API's cache.
pub(crate) const CACHE_READ: &str = "claude_harness_cache_read_input_tokens_total";
/// Of the input, what was written to the API's cache.
pub(crate) const CACHE_WRITE: &str = "claude_harness_cache_write_input_tokens_total";
/// Of the output, what the model thought.
pub(crate) const REASONING: &str = "claude_harness_reasoning_output_tokens_total";
/// Processes that were given a request, by where they came from.
pub(crate) const PROCESSES: &str = "claude_harness_processes_total";
/// Processes that were started, by backend and what came of it.
pub(crate) const STARTS: &str = "claude_harness_process_starts_total";
/// Processes that wait for a request, by backend and what they wait for.
pub(crate) const WAITING: &str = "claude_harness_processes_waiting";
/// The number of the guest set that serves.
pub(crate) const GENERATION: &str = "claude_harness_guest_generation";
/// Guests, and configurations, that were not taken up.
pub(crate) const GUESTS_REJECTED: &str = "claude_harness_guests_rejected";
/// Calls of guests that broke a bound or a rule, by guest.
pub(crate) const GUEST_FAILURES: &str = "claude_harness_guest_failures_total";
/// Requests that the cache was asked for, by what it did.
pub(crate) const CACHE_REQUESTS: &str = "claude_harness_cache_requests_total";
/// Bytes that the cache holds.
pub(crate) const CACHE_SIZE: &str = "claude_harness_cache_bytes";
/// How long the service itself took until a request asked for a process.
pub(crate) const ADDED: &str = "claude_harness_added_seconds";
/// Spans of traces that could not be sent.
pub(crate) const SPANS_LOST: &str = "claude_harness_spans_lost_total";
/// Requests that are missing in the ledger.
pub(crate) const LEDGER_LOST: &str = "claude_harness_ledger_lost_total";
/// Calls of guests, by guest.
pub(crate) const GUEST_CALLS: &str = "claude_harness_guest_calls_total";
/// Microseconds that calls of guests took, by guest.
pub(crate) const GUEST_TIME: &str = "claude_harness_guest_call_microseconds_total";
/// Calls of guests that trapped or broke a bound, by guest.
pub(crate) const GUEST_TRAPS: &str = "claude_harness_guest_traps_total";
/// The version that runs.
pub(crate) const BUILD: &str = "claude_harness_build_info";
/// Whether the service is being shut down.
pub(crate) const DRAINING: &str = "claude_harness_draining";
/// Whether a backend can serve.
pub(crate) const UP: &str = "claude_harness_backend_up";
/// Requests that a backend answers.
pub(crate) const BACKEND_IN_FLIGHT: &str = "claude_harness_backend_requests_in_flight";
/// Requests that wait for a backend.
pub(crate) const QUEUED: &str = "claude_harness_backend_requests_queued";
/// Requests that a backend answers at once, at most.
pub(crate) const MAX_CONCURRENT: &str = "claude_harness_backend_max_concurrent";
/// When a backend's login ends.
pub(crate) const LOGIN_END: &str = "claude_harness_login_expires_timestamp_seconds";
/// Whether a limit of the account is reached.
pub(crate) const LIMIT_REACHED: &str = "claude_harness_rate_limit_reached";
/// How much of a limit of the account is used.
pub(crate) const LIMIT_USED: &str = "claude_harness_rate_limit_used_ratio";
/// When a limit of the account is reset.
pub(crate) const LIMIT_RESET: &str = "claude_harness_rate_limit_reset_timestamp_seconds";

/// How much of a window of the plan is used.
pub(crate) const PLAN_USED: &str = "claude_harness_plan_used_ratio";
/// How fast a window of the plan is used.
pub(crate) const PLAN_PACE: &str = "claude_harness_plan_pace_ratio";
/// When a window of the plan ends.
pub(crate) const PLAN_RESET: &str = "claude_harness_plan_reset_timestamp_seconds";

/// All counters.
pub(super) const COUNTERS: [Metric; 19] = [
    (
        REQUESTS,
        "Chat completions that were answered or failed, by model and status",
    ),
    (ERRORS, "Chat completions that failed, by model and code"),
    (
        TURNED_AWAY,
        "Requests of any kind that were turned away unread, by status and code",
    ),
    (
        CONNECTIONS_REFUSED,
        "Connections that were not taken, because their peer had as many as it may",
    ),
    (INPUT, "Tokens read, those of caches included"),
    (OUTPUT, "Tokens written, those of thinking included"),
    (
        CACHE_READ,
        "Of the input tokens, those read from the API's cache",
    ),
    (
        CACHE_WRITE,
        "Of the input tokens, those written to the API's cache",
    ),
    (REASONING, "Of the output tokens, those of thinking"),
    (
        PROCESSES,
        "Processes that were given a request, by origin: new, warm, kept or rewound",
    ),
    (
        STARTS,
        "Processes that were started, by backend and outcome",
    ),
    (
        GUEST_FAILURES,
        "Calls of guests that broke a bound or a rule",
    ),
    (GUEST_CALLS, "Calls of guests"),
    (
        GUEST_TIME,
        "Microseconds that calls of guests took, by the clock",
    ),
    (GUEST_TRAPS, "Calls of guests that trapped or broke a bound"),
    (
        CACHE_REQUESTS,
        "Requests while there is a cache, by result: hit, miss or bypass",
    ),
    (SPANS_LOST, "Spans of traces that could not be sent"),
    (
        LEDGER_LOST,
        "Requests that are missing in the ledger, because it could not be written",
    ),
    (
        "process_cpu_seconds_total",
        "Processor time used by the service, in seconds",
    ),
];

/// All histograms.
pub(super) const HISTOGRAMS: [Metric; 6] = [
    (FIRST_TOKEN, "Seconds to the first piece of the answer"),
    (
        DURATION,
        "Seconds to the end, by outcome: answered, refused (4xx), failed (5xx) or left",
    ),
    (
        PER_TOKEN,
        "Seconds for each output token after the first piece",
    ),
    (
        TOKEN_USAGE,
        "Tokens of a request, by gen_ai_token_type: input or output",
    ),
    (QUEUE_WAIT, "Seconds that requests waited for a place"),
    (
        ADDED,
        "Seconds from a request's last byte until it asks for a process, without the wait for a place",
    ),
];

/// All gauges.
pub(super) const GAUGES: [Metric; 22] = [
    (
        IN_FLIGHT,
        "Chat completions being read, waiting or answered",
    ),
    (
        WAITING,
        "Processes that wait for a request, by backend and kind: warm or kept",
    ),
    (CACHE_SIZE, "Bytes that the cache of answers holds"),
    (GENERATION, "The number of the guest set that serves"),
    (
        GUESTS_REJECTED,
        "Guests, and configurations, that were not taken up",
    ),
    (BUILD, "Always 1; the label is the version"),
    (DRAINING, "1 while the service is being shut down"),
    (UP, "1 while a backend can serve"),
    (BACKEND_IN_FLIGHT, "Places of a backend that are taken"),
    (QUEUED, "Requests that wait for a place of a backend"),
    (MAX_CONCURRENT, "Places of a backend"),
    (LOGIN_END, "When the login ends, in seconds since 1970"),
    (
        LIMIT_REACHED,
        "1 while a usage limit of the account is reached",
    ),
    (LIMIT_USED, "How much of the usage limit is used, 0 to 1"),
    (
        LIMIT_RESET,
        "When the usage limit is reset, in seconds since 1970",
    ),
    (
        PLAN_USED,
        "How much of a window of the login's plan is used, 0 to 1, by backend, window and what it is of",
    ),
    (
        PLAN_PACE,
        "The share of the window that is used against the share of its time that is gone: above 1, the limit comes first",
    ),
    (
        PLAN_RESET,
        "When the window of the plan ends, in seconds since 1970",
    ),
    (
        "process_start_time_seconds",
        "When the service started, in seconds since 1970",
    ),
    (
        "process_resident_memory_bytes",
        "Resident memory of the service",
    ),
    ("process_open_fds", "Open descriptors of the service"),
    ("process_max_fds", "Descriptors that the service may have"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a text that begin like the names of metrics.
    fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| {
            word.starts_with("claude_harness_")
                || word.starts_with("process_")
                || word.starts_with("gen_ai_client_")
                || word.starts_with("gen_ai_server_")
        })
    }

    #[test]
    fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
        let known = COUNTERS.iter().chain(&GAUGES).chain(&HISTOGRAMS);
        let known: Vec<&str> = known.map(|(name, _)| *name).collect();
        for text in [
            include_str!("../../../deploy/grafana.json"),
            include_str!("../../../deploy/alerts.yaml"),
        ] {
            assert!(metrics_in(text).count() > 5);
            for word in metrics_in(text) {
                let of_histogram = ["_bucket", "_sum", "_count"].iter();
                let is_known = known.contains(&word)
                    || of_histogram
                        .filter_map(|end| word.strip_suffix(end))
                        .any(|name| HISTOGRAMS.iter().any(|(known, _)| *known == name));
                assert!(is_known, "there is no metric {word}");
            }
        }
    }

    #[test]
    fn the_reference_has_every_metric() {
        let reference = include_str!("../../../docs/reference/metrics.md");
        let all = COUNTERS.iter().chain(&GAUGES).chain(&HISTOGRAMS);
        for (name, _) in all.filter(|(name, _)| !name.starts_with("process_")) {
            let short = name.strip_prefix("claude_harness_").unwrap_or(name);
            assert!(reference.contains(&format!("`{short}`")), "{name}");
        }
    }
}
