//! Heartbeats: answered from memory unless they change something.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::{ErrorBody, Heartbeat, HeartbeatAnswer};
use http::StatusCode;

use super::agent::{advance, expect_count};
use super::app::App;
use super::auth::Agent;
use super::body::{Json, json_bytes};
use super::error::ApiError;
use crate::live::drains::DRAINS_SAID_MAX;
use crate::live::{Beat, LiveRun};
use crate::run::decide::Input;

/// Greatest heartbeat: its texts and 64 reports of directives, several times over.
const BODY_BYTES_MAX: usize = 128 * 1024;
/// Certificates that an agent knows at a time.
const PINS_MAX: usize = 16;

/// Says that the agent lives, what it does and what became of directives; answered with what it is to do.
#[utoipa::path(post, path = "/api/v1/runs/{run}/heartbeat", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = Heartbeat,
    responses((status = 200, body = HeartbeatAnswer), (status = "4XX", body = ErrorBody)))]
pub async fn heartbeat(
    State(app): State<Arc<App>>,
    agent: Agent,
    Json(heartbeat, _held): Json<Heartbeat, BODY_BYTES_MAX>,
) -> Result<Response, ApiError> {
    expect_count("directives", heartbeat.directives.len(), limits::DIRECTIVES_REMEMBERED)?;
    expect_count("drains", heartbeat.drains.len(), DRAINS_SAID_MAX)?;
    expect_count("pins_known", heartbeat.pins_known.len(), PINS_MAX)?;
    if let Some(said) = &heartbeat.shutdown
        && agent.run.state().is_first_of_shutdown(&heartbeat)
    {
        let (claim, fleet) = (heartbeat.claim, app.notices.sinks.of_fleet());
        advance(&app, &agent.run, Input::ShutsDown { claim, said: said.clone(), fleet }).await?;
    }
    let answer = match app.live.beat(&agent.run, &heartbeat) {
        Beat::Answer(answer) => {
            app.counters.heartbeats.one();
            answer
        }
        Beat::Prepare => {
            app.counters.heartbeats.one();
            let (run, _version) = app.run(&agent.run.id).await?;
            app.live.answer(&agent.run, &run)
        }
        Beat::Decide => {
            app.counters.heartbeats_decided.one();
            let Heartbeat { claim, directives, .. } = heartbeat;
            let landed = advance(&app, &agent.run, Input::Heard { claim, directives }).await?;
            app.live.answer(&agent.run, &landed.run)
        }
    };
    note(&app, &agent.run).await;
    Ok(json_bytes(StatusCode::OK, answer))
}

/// Stores on which day an agent was heard and which certificates it knows, when either changed.
pub(super) async fn note(app: &App, live: &LiveRun) {
    let Some(seen) = app.live.to_note(live) else { return };
    match app.store.note_agent(seen.clone()).await {
        Ok(()) => live.state().note(&seen),
        // The next heartbeat tries again; a rotation waits for it meanwhile.
        Err(error) => tracing::warn!(run = %live.id, %error, "agent not noted"),
    }
}
