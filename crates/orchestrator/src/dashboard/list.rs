//! The list of runs.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::operator::{RunList, RunSummary, WaitView};
use groundcrew_protocol::stage::State as RunState;
use groundcrew_protocol::time::WallMs;
use maud::{Markup, html};
use serde::Deserialize;

use super::{Page, Reader, refused};
use crate::api::app::App;
use crate::api::body::Query;
use crate::api::error::ApiError;
use crate::api::runs;

/// Runs of a page.
const RUNS: u32 = 50;
/// Seconds after which the list is asked for again.
pub(super) const REFRESH_S: u32 = 5;

/// Which part of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    after: Option<String>,
}

/// The list of runs, newest first.
pub async fn page(
    State(app): State<Arc<App>>,
    reader: Reader,
    query: Result<Query<ListQuery>, ApiError>,
) -> Response {
    match load(&app, reader, query).await {
        Ok(list) => {
            Page { refresh_s: REFRESH_S, ..Page::new("Runs", render(&list, &unhealthy(&app))) }.render()
        }
        Err(error) => refused(error),
    }
}

async fn load(
    app: &App,
    reader: Reader,
    query: Result<Query<ListQuery>, ApiError>,
) -> Result<RunList, ApiError> {
    reader?;
    let Query(query) = query?;
    let after = query.after.as_deref().map(crate::api::auth::parse_run).transpose()?;
    runs::list(app, None, None, after, RUNS).await
}

/// Tasks that fail, each with what it says.
pub(super) fn unhealthy(app: &App) -> Vec<String> {
    let failing = app.tasks.views().into_iter().filter(|task| !task.healthy);
    failing.map(|task| format!("{}: {}", task.name, task.said)).collect()
}

fn render(list: &RunList, unhealthy: &[String]) -> Markup {
    html! {
        h1 { "Runs" }
        @for text in unhealthy { p.bad { "Task " (text) } }
        @if list.runs.is_empty() {
            p { "There is no run. " code { "groundcrewctl run create NODE PROFILE" } " makes one." }
        } @else {
            table {
                thead { tr { th { "Run" } th { "Node" } th { "Profile" } th { "State" } th { "Verdict" } th { "Waits for" } th { "Agent" } th { "Made" } } }
                tbody { @for run in &list.runs { (row(run)) } }
            }
        }
        @if let Some(next) = &list.next { p { a href={ "/?after=" (next) } { "Older runs" } } }
    }
}

fn row(run: &RunSummary) -> Markup {
    html! {
        tr {
            td { a href={ "/runs/" (run.run) } { (run.run) } }
            td { (run.node) }
            td { (run.profile) }
            td { (state(run)) }
            td { @if let Some(verdict) = run.verdict { span class={ "verdict " (verdict) } { (verdict) } } }
            td { @if let Some(wait) = &run.wait { (wait_text(wait)) } }
            td { (run.agent.as_deref().unwrap_or("–")) }
            td.dim { (moment(run.created)) }
        }
    }
}

/// Where a run stands, and why where it does not walk.
pub fn state(run: &RunSummary) -> Markup {
    let class = match run.state {
        RunState::FailedHolding => "state held",
        RunState::Completed => "state completed",
        RunState::Cancelled => "state cancelled",
        RunState::At(_) => "state walking",
    };
    html! {
        span class=(class) { (run.state) }
        @if run.state == RunState::FailedHolding { @if let Some(stage) = &run.stage { " at " (stage) } }
        @if !run.reason.is_empty() { div.dim { (run.reason) } }
    }
}

/// What is waited for, since when, until when, and what then.
pub fn wait_text(wait: &WaitView) -> Markup {
    html! {
        (wait.r#for)
        div.dim { "since " (moment(wait.since)) ", until " (moment(wait.until)) ", then " (wait.then) }
    }
}

/// A moment to the second.
pub fn moment(at: WallMs) -> String {
    WallMs(at.0.div_euclid(1_000) * 1_000).to_string().replace(".000Z", "Z").replace('T', " ")
}
