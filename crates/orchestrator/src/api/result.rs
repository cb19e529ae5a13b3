//! What an agent is about to do, and what came out of an attempt.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::{ErrorBody, Intent, IntentAnswer, ResultAnswer, ResultRequest};

use super::agent::{advance, expect_count, expect_text};
use super::app::App;
use super::auth::Agent;
use super::body::{Json, ok};
use super::error::ApiError;
use crate::run::decide::{Answer, Input};

/// Disks that one intent may name.
const DISKS_MAX: usize = 1_024;

/// Records what the agent is about to do and cannot take back. It acts only once this is answered with 200.
#[utoipa::path(post, path = "/api/v1/runs/{run}/intent", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = Intent,
    responses((status = 200, body = IntentAnswer), (status = "4XX", body = ErrorBody)))]
pub async fn intent(
    State(app): State<Arc<App>>,
    agent: Agent,
    Json(intent, _held): Json<Intent>,
) -> Result<Response, ApiError> {
    expect_count("disks", intent.disks.len(), DISKS_MAX)?;
    advance(&app, &agent.run, Input::Intent(intent)).await?;
    app.live.hear(&agent.run);
    Ok(ok(&IntentAnswer { acknowledged: true }))
}

/// Takes the outcome of an attempt, judges it, and says where the run stands now. The first of an attempt stands;
/// later ones are kept as evidence and answered alike.
#[utoipa::path(post, path = "/api/v1/runs/{run}/result", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = ResultRequest,
    responses((status = 200, body = ResultAnswer), (status = "4XX", body = ErrorBody)))]
pub async fn result(
    State(app): State<Arc<App>>,
    agent: Agent,
    Json(result, _held): Json<ResultRequest>,
) -> Result<Response, ApiError> {
    expect_bounded(&result)?;
    let landed = advance(&app, &agent.run, Input::Result(Box::new(result))).await?;
    app.live.hear(&agent.run);
    app.counters.results.one();
    let Answer::Result(answer) = landed.answer else {
        unreachable!("a result that was not refused is answered as one");
    };
    let (generation, _pins, _edition) = app.live.announced();
    Ok(ok(&ResultAnswer { generation, ..answer }))
}

fn expect_bounded(result: &ResultRequest) -> Result<(), ApiError> {
    expect_count("checks", result.checks.len(), limits::CHECKS_MAX)?;
    expect_text("summary", &result.summary, limits::CHECK_TEXT_BYTES_MAX)?;
    expect_text("message", &result.message, limits::CHECK_TEXT_BYTES_MAX)?;
    for (index, check) in result.checks.iter().enumerate() {
        let field = |name: &str| format!("checks[{index}].{name}");
        for (name, text) in [
            ("name", check.name.as_str()),
            ("component", check.component.as_deref().unwrap_or_default()),
            ("observed", check.observed.describe().as_str()),
            ("reason", check.reason.as_str()),
            ("evidence", check.evidence.as_str()),
        ] {
            expect_text(&field(name), text, limits::CHECK_TEXT_BYTES_MAX)?;
        }
    }
    Ok(())
}
