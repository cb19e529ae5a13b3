//! One run, followed live: the page is rendered once, and a script keeps it true from the run's events.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use groundcrew_protocol::operator::{RunView, StageView};
use groundcrew_protocol::report::SensorSeries;
use maud::{Markup, html};

use super::list::{moment, state, wait_text};
use super::{Page, Reader, refused, spark};
use crate::api::app::App;
use crate::api::auth::parse_run;
use crate::api::error::ApiError;
use crate::api::runs::full_view;
use crate::store::Wanted;

const SCRIPT: &str = include_str!("run.js");
/// Sensors that are drawn: those that became hottest.
const SENSORS_MAX: usize = 8;

/// Batches of readings that are drawn, the latest: about three hours of them. The report has them all.
const BATCHES_MAX: u32 = 2_000;

/// A run.
pub async fn page(State(app): State<Arc<App>>, reader: Reader, Path(run): Path<String>) -> Response {
    match load(&app, reader, &run).await {
        Ok((view, sensors)) => {
            let title = format!("{} on {}", view.summary.run, view.summary.node);
            Page { script: Some(SCRIPT), ..Page::new(title, render(&view, &sensors)) }.render()
        }
        Err(error) => refused(error),
    }
}

async fn load(app: &App, reader: Reader, run: &str) -> Result<(RunView, Vec<SensorSeries>), ApiError> {
    reader?;
    let run = parse_run(run)?;
    let view = full_view(app, &run).await?;
    let wanted = Wanted { kind: Some("temperature"), batches_max: Some(BATCHES_MAX) };
    let (mut hottest, _left_out) = app.store.sensors(&run, wanted).await?;
    hottest.sort_by(|a, b| highest(b).total_cmp(&highest(a)));
    hottest.truncate(SENSORS_MAX);
    Ok((view, hottest))
}

fn highest(series: &SensorSeries) -> f64 {
    series.points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max)
}

fn render(view: &RunView, sensors: &[SensorSeries]) -> Markup {
    let run = &view.summary;
    html! {
        h1 data-run=(run.run) id="run" { (run.run) " on " (run.node) }
        dl {
            dt { "State" } dd id="state" { (state(run)) }
            dt { "Waits for" } dd id="wait" { @if let Some(wait) = &run.wait { (wait_text(wait)) } @else { "nothing" } }
            dt { "Agent" }
            dd {
                span id="agent" { (run.agent.as_deref().unwrap_or("none yet")) } " "
                span.dim id="activity" { (view.activity) }
                @if !view.ip.is_empty() { span.dim { " at " (view.ip) ", claim " (view.claim) } }
                div.bad id="home" { @if view.home_failed { "its home has failed" } }
                div.bad id="machine" { (view.wrong_machine.as_deref().unwrap_or_default()) }
                div.bad id="unproved" { (view.machine_unproved.as_deref().unwrap_or_default()) }
                @if let Some(skew_ms) = view.skew_ms { div.bad { "its clock is off by " (skew_ms) " ms" } }
            }
            dt { "Host keys" } dd id="keys" { @for key in &view.host_keys { code { (key) } } }
            dt { "Profile" } dd { (run.profile) }
            dt { "Made" } dd { (moment(run.created)) }
            dt { "Report" }
            dd {
                a href={ "/api/v1/runs/" (run.run) "/report?format=html" } { "page" } " · "
                a href={ "/api/v1/runs/" (run.run) "/report" } { "JSON" } " · "
                a href={ "/api/v1/runs/" (run.run) "/logs?format=text&limit=10000" } { "log" }
            }
        }
        @if !view.gaps.is_empty() {
            h2 { "Gaps in the log" }
            ul { @for gap in &view.gaps { li.bad { (gap) } } }
        }
        h2 { "Stages" }
        table {
            thead { tr { th { "Stage" } th { "Verdict" } th { "Attempts" } th { "Began" } th { "Ended" } th { "Overridden" } } }
            tbody id="stages" { @for stage in &view.stages { (stage_row(stage)) } }
        }
        @if !sensors.is_empty() {
            h2 { "Temperatures of the last hours" }
            div.sparks { @for series in sensors { @if let Some(line) = spark::line(series) { (line) } } }
        }
        h2 { "Events" }
        ol id="events" {}
        h2 { "Log" }
        pre id="log" {}
        noscript { p { "Without scripts this page does not follow the run; load it again." } }
    }
}

fn stage_row(stage: &StageView) -> Markup {
    html! {
        tr {
            td { (stage.stage) }
            td { @if let Some(verdict) = stage.verdict { span class={ "verdict " (verdict) } { (verdict) } } }
            td { (stage.attempts) }
            td.dim { @if let Some(began) = stage.began { (moment(began)) } }
            td.dim { @if let Some(ended) = stage.ended { (moment(ended)) } }
            td { (stage.overridden.as_deref().unwrap_or_default()) }
        }
    }
}
