//! Readings of sensors and artifacts: what an agent sends beside results and logs.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use groundcrew_protocol::ids::{Attempt, Sha256Hex};
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::ArtifactView;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ErrorBody, SensorRequest, StreamAnswer};
use http::header;
use serde::Deserialize;

use super::agent::{expect_count, expect_room, expect_text, fence, taken};
use super::app::App;
use super::auth::{Agent, Operator, parse_run};
use super::body::{Json, Query, Raw, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::store::{NewArtifact, SensorBatch, Taken};

/// Longest kind, key or unit of a reading.
const WORD_BYTES_MAX: usize = 128;

/// Stores a batch of readings, once per stream and number.
#[utoipa::path(post, path = "/api/v1/runs/{run}/sensor", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = SensorRequest,
    responses((status = 200, body = StreamAnswer), (status = "4XX", body = ErrorBody),
        (status = 507, description = "The disk is nearly full", body = ErrorBody)))]
pub async fn sensor(
    State(app): State<Arc<App>>,
    agent: Agent,
    Json(request): Json<SensorRequest>,
) -> Result<Response, ApiError> {
    expect_count("samples", request.samples.len(), limits::SENSOR_SAMPLES_MAX)?;
    for (index, sample) in request.samples.iter().enumerate() {
        for (name, text) in [("kind", &sample.kind), ("key", &sample.key), ("unit", &sample.unit)] {
            if text.len() > WORD_BYTES_MAX {
                expect_text(&format!("samples[{index}].{name}"), text, WORD_BYTES_MAX)?;
            }
        }
    }
    fence(&app, &agent.run, request.claim)?;
    expect_room(&app, "sensor readings")?;
    let SensorRequest { claim, stream, seq, samples, gap, closes } = request;
    let count = samples.len() as u64;
    let run = agent.run.id.clone();
    let batch = SensorBatch { run, stream, seq, claim, at: wall_now(), samples, gap, closes };
    let stored = app.store.append_sensors(batch).await?;
    match stored {
        Taken::First => app.counters.sensor_samples.many(count),
        Taken::Repeated | Taken::OtherContent => {}
    }
    Ok(ok(&taken(stored, &format!("batch {seq} of this stream of readings"))?))
}

/// Which artifact.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutArtifactQuery {
    /// Its stage.
    stage: String,
    /// Its attempt.
    attempt: u32,
    /// Its name, at most 128 bytes.
    name: String,
    /// SHA-256 of its content.
    sha256: String,
}

/// Stores raw output of a tool: at most 16 MiB, 64 of an attempt.
#[utoipa::path(put, path = "/api/v1/runs/{run}/artifact", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run"), PutArtifactQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = StreamAnswer), (status = "4XX", body = ErrorBody),
        (status = 507, description = "The disk is nearly full", body = ErrorBody)))]
pub async fn put_artifact(
    State(app): State<Arc<App>>,
    agent: Agent,
    Query(query): Query<PutArtifactQuery>,
    Raw(content): Raw<{ limits::ARTIFACT_BYTES_MAX }>,
) -> Result<Response, ApiError> {
    let sha256: Sha256Hex =
        query.sha256.parse().map_err(|error| ApiError::bad(format!("query sha256: {error}")))?;
    expect_room(&app, "artifacts")?;
    let what = format!("artifact {}", query.name.chars().take(WORD_BYTES_MAX).collect::<String>());
    let stored = app.store.put_artifact(NewArtifact {
        run: agent.run.id.clone(),
        stage: Stage::from(query.stage),
        attempt: Attempt(query.attempt),
        name: query.name,
        sha256,
        at: wall_now(),
        content,
    });
    Ok(ok(&taken(stored.await?, &what)?))
}

/// The artifacts of a run.
#[utoipa::path(get, path = "/api/v1/runs/{run}/artifacts", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run")),
    responses((status = 200, body = Vec<ArtifactView>), (status = "4XX", body = ErrorBody)))]
pub async fn artifacts(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(run): Path<String>,
) -> Result<Response, ApiError> {
    let run = parse_run(&run)?;
    app.live_run(&run).await?;
    let rows = app.store.artifacts(&run).await?;
    let views = rows.into_iter().map(|row| ArtifactView {
        stage: row.stage,
        attempt: row.attempt,
        name: row.name,
        sha256: row.sha256,
        bytes: row.bytes,
        at: row.at,
    });
    Ok(ok(&views.collect::<Vec<_>>()))
}

/// Which artifact is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GetArtifactQuery {
    /// Its stage.
    stage: String,
    /// Its attempt.
    attempt: u32,
    /// Its name.
    name: String,
}

/// The content of an artifact, always as a download: what a tool wrote is not shown as a page of ours.
#[utoipa::path(get, path = "/api/v1/runs/{run}/artifact", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run"), GetArtifactQuery),
    responses((status = 200, description = "The content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = ErrorBody)))]
pub async fn get_artifact(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(run): Path<String>,
    Query(query): Query<GetArtifactQuery>,
) -> Result<Response, ApiError> {
    let run = parse_run(&run)?;
    app.live_run(&run).await?;
    let (stage, attempt) = (Stage::from(query.stage), Attempt(query.attempt));
    let rows = app.store.artifacts(&run).await?;
    let row = rows.iter().find(|row| row.stage == stage && row.attempt == attempt && row.name == query.name);
    let row = row.ok_or_else(|| ApiError::none(format!("run {run} has no such artifact")))?;
    let content = app.store.artifact_content(row).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, content).into_response())
}
