//! Gauges that are set only when somebody asks for the metrics: the state of the service, of its backends and
//! of its process.

use std::fs;

use crate::backends::plan::Plan;
use crate::backends::status::Health;
use crate::failure::unix_now;
use crate::service::Service;
use crate::telemetry::names;

/// Sets all of these gauges to their current values.
pub(super) fn renew(service: &Service) {
    metrics::gauge!(names::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
    let snapshot = service.snapshot();
    let guests = &snapshot.guests;
    for guest in guests.serving.values() {
        let (name, taken) = (|| guest.name.clone(), guest.taken());
        metrics::counter!(names::GUEST_CALLS, "guest" => name()).absolute(taken.calls);
        let micros = u64::try_from(taken.time.as_micros()).unwrap_or(u64::MAX);
        metrics::counter!(names::GUEST_TIME, "guest" => name()).absolute(micros);
        metrics::counter!(names::GUEST_TRAPS, "guest" => name()).absolute(taken.broken);
    }
    metrics::gauge!(names::GENERATION).set(guests.generation as f64);
    let problems = [&guests.folder_problem, &snapshot.config_problem];
    let rejected = guests.rejected.len() + problems.into_iter().flatten().count();
    metrics::gauge!(names::GUESTS_REJECTED).set(rejected as f64);
    metrics::gauge!(names::DRAINING).set(f64::from(u8::from(service.is_draining())));
    metrics::counter!(names::LEDGER_LOST).absolute(service.books.ledger.lost());
    if let Some(cache) = service.caches.with(snapshot.config.cache.as_ref()) {
        metrics::gauge!(names::CACHE_SIZE).set(cache.size() as f64);
    }
    backends(service);
    process(service.started_at);
}

fn backends(service: &Service) {
    for backend in &service.snapshot().backends {
        let name = || backend.config.name.clone();
        let set = |gauge: &'static str, value: f64| {
            metrics::gauge!(gauge, "backend" => name()).set(value);
        };
        let up = backend.status.health() == Health::Ready;
        set(names::UP, f64::from(u8::from(up)));
        set(
            names::BACKEND_IN_FLIGHT,
            backend.admission.in_flight() as f64,
        );
        set(names::QUEUED, backend.admission.queued() as f64);
        let most = backend.config.admission.max_concurrent;
        set(names::MAX_CONCURRENT, most as f64);
        let (warm, kept) = service.pool.count(&backend.config.name);
        for (kind, count) in [("warm", warm), ("kept", kept)] {
            metrics::gauge!(names::WAITING, "backend" => name(), "kind" => kind).set(count as f64);
        }
        if let Some(end) = backend.status.login_ends() {
            set(names::LOGIN_END, end as f64);
        }
        if let Some(limit) = backend.status.rate_limit() {
            let limit = limit.metrics();
            set(names::LIMIT_REACHED, f64::from(u8::from(limit.reached)));
            if let Some(used) = limit.used {
                set(names::LIMIT_USED, used);
            }
            if let Some(reset) = limit.resets_at {
                set(names::LIMIT_RESET, reset as f64);
            }
        }
        plan(&name(), backend.status.plan());
    }
}

/// The windows of a backend's plan. What is not known has no value (NaN).
fn plan(backend: &str, plan: Option<Plan>) {
    for window in plan.iter().flat_map(|plan| plan.windows(unix_now())) {
        let labels = [
            ("backend", backend.to_owned()),
            ("window", window.name),
            ("of", window.display_name.unwrap_or_default()),
        ];
        let set = |gauge: &'static str, value: Option<f64>| {
            metrics::gauge!(gauge, &labels).set(value.unwrap_or(f64::NAN));
        };
        set(names::PLAN_USED, window.utilization);
        set(names::PLAN_PACE, window.pace);
        set(names::PLAN_RESET, window.resets_at.map(|at| at as f64));
    }
}

/// The usual metrics of a process, under the names that Prometheus's own client libraries use.
fn process(started_at: u64) {
    metrics::gauge!("process_start_time_seconds").set(started_at as f64);
    let page = rustix::param::page_size() as f64;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    if let Some(pages) = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<f64>().ok())
    {
        metrics::gauge!("process_resident_memory_bytes").set(pages * page);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(descriptors.count() as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        metrics::gauge!("process_max_fds").set(limit as f64);
    }
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    if let Ok(used) = std::time::Duration::try_from(used) {
        metrics::counter!("process_cpu_seconds_total").absolute(used.as_secs());
    }
}
