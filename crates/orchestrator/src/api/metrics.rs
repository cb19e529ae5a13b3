//! Counters since the start, and `GET /metrics` in the text form that Prometheus reads.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use super::app::App;
use super::auth::Operator;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn one(&self) {
        self.many(1);
    }

    /// Counts several.
    pub fn many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Heartbeats that were answered from memory.
    pub heartbeats: Counter,
    /// Heartbeats that changed a run.
    pub heartbeats_decided: Counter,
    /// Claims that were taken.
    pub claims: Counter,
    /// Results that were taken.
    pub results: Counter,
    /// Lines of log that were stored.
    pub log_lines: Counter,
    /// Log messages that were stored before.
    pub log_repeated: Counter,
    /// Readings of sensors that were stored.
    pub sensor_samples: Counter,
    /// Notices that a sink took.
    pub notices_sent: Counter,
    /// Notices that were given up.
    pub notices_failed: Counter,
    /// Requests without a good token.
    pub unauthorized: Counter,
    /// Requests beyond the rate.
    pub too_often: Counter,
}

/// Counters and gauges in the text form that Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "orchestrator", security(("operator" = [])),
    responses((status = 200, description = "Counters and gauges, as Prometheus reads them", content_type = "text/plain", body = String)))]
pub async fn metrics(State(app): State<Arc<App>>, _operator: Operator) -> Response {
    let counters = &app.counters;
    let mut text = String::new();
    for (name, help, counter) in [
        ("heartbeats_total", "Heartbeats answered from memory", &counters.heartbeats),
        ("heartbeats_decided_total", "Heartbeats that changed a run", &counters.heartbeats_decided),
        ("claims_total", "Claims taken", &counters.claims),
        ("results_total", "Results taken", &counters.results),
        ("log_lines_total", "Lines of log stored", &counters.log_lines),
        ("log_repeated_total", "Log messages that were stored before", &counters.log_repeated),
        ("sensor_samples_total", "Readings of sensors stored", &counters.sensor_samples),
        ("notices_sent_total", "Notices of shutdowns that a sink took", &counters.notices_sent),
        ("notices_failed_total", "Notices of shutdowns that were given up", &counters.notices_failed),
        ("unauthorized_total", "Requests without a good token", &counters.unauthorized),
        ("too_often_total", "Requests beyond the rate", &counters.too_often),
    ] {
        put(&mut text, name, help, "counter", counter.get());
    }
    let help = "Files agent-info.json that could not be read or written, one a pass";
    put(&mut text, "agent_info_failures_total", help, "counter", app.agents.failures());
    put(&mut text, "runs_known", "Runs held in memory", "gauge", app.live.count() as u64);
    let unhealthy = app.tasks.views().iter().filter(|task| !task.healthy).count();
    put(&mut text, "tasks_unhealthy", "Tasks whose last pass failed", "gauge", unhealthy as u64);
    let full = u64::from(app.store.disk_state().is_full());
    put(&mut text, "disk_full", "1 where logs and new runs are refused for want of room", "gauge", full);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn put(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    writeln!(
        text,
        "# HELP groundcrew_{name} {help}\n# TYPE groundcrew_{name} {kind}\ngroundcrew_{name} {value}"
    )
    .expect("writing to a String never fails");
}

/// Says that the server answers, to anyone: the one route beside the login page that needs no token. It tells nothing else,
/// neither a version nor how the store or the tasks do; `/metrics` and `/api/v1/tasks` say that to operators.
#[utoipa::path(get, path = "/healthz", tag = "orchestrator",
    responses((status = 200, description = "The server answers", content_type = "text/plain", body = String)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}
