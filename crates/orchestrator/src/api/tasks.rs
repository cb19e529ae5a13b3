//! How the tasks do that the orchestrator keeps up beside answering, and the certificate that one of them rotates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::operator::{CertificateView, TaskView};
use groundcrew_protocol::wire::ErrorBody;

use super::app::App;
use super::auth::Operator;
use super::body::ok;
use super::error::ApiError;
use crate::live::clock::wall_now;

/// What every task last said. Written by the tasks, read by anyone.
#[derive(Debug, Default)]
pub struct Board {
    tasks: Mutex<BTreeMap<&'static str, TaskView>>,
}

impl Board {
    /// Notes how a pass ended.
    pub fn note(&self, name: &'static str, outcome: Result<String, String>) {
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        let task = tasks.entry(name).or_insert_with(|| TaskView {
            name: name.to_owned(),
            healthy: true,
            said: String::new(),
            passes: 0,
            failures: 0,
            last: None,
        });
        task.passes += 1;
        task.healthy = outcome.is_ok();
        task.failures += u64::from(outcome.is_err());
        task.said = outcome.unwrap_or_else(|error| error);
        task.last = Some(wall_now());
    }

    /// All tasks, by name.
    pub fn views(&self) -> Vec<TaskView> {
        self.tasks.lock().expect("no holder of this lock panics").values().cloned().collect()
    }
}

/// How the tasks do.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "orchestrator", security(("operator" = [])),
    responses((status = 200, body = Vec<TaskView>), (status = "4XX", body = ErrorBody)))]
pub async fn tasks(State(app): State<Arc<App>>, _operator: Operator) -> Response {
    ok(&app.tasks.views())
}

/// The certificate that is served, and how its rotation stands.
#[utoipa::path(get, path = "/api/v1/certificate", tag = "orchestrator", security(("operator" = [])),
    responses((status = 200, body = CertificateView), (status = "4XX", body = ErrorBody)))]
pub async fn certificate(State(app): State<Arc<App>>, _operator: Operator) -> Result<Response, ApiError> {
    let fingerprint = app.served.fingerprint();
    // From the file, and not from what the task has announced: who has just made it is told that it is under way.
    let files = app.clone();
    let next = tokio::task::spawn_blocking(move || files.certificates.next()).await;
    let next = next.expect("reading two files does not panic");
    let next = next.map_err(|error| ApiError::internal("reading the next certificate", &error))?;
    let next = next.map(|next| next.fingerprint).filter(|next| *next != fingerprint);
    let waiting_for = match &next {
        Some(next) => app.agents_without(next).await?,
        None => Vec::new(),
    };
    let earliest_in_s = next.as_ref().map(|next| app.announcing_ms_left(next).div_ceil(1_000));
    Ok(ok(&CertificateView { fingerprint, next, waiting_for, earliest_in_s }))
}
