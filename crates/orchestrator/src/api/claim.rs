//! An agent's first words: hello and claim.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::wire::{ClaimAnswer, ClaimRequest, ErrorBody, Hello, HelloAnswer};
use groundcrew_protocol::{PROTOCOL, PROTOCOL_OLDEST, limits};
use http::{HeaderMap, StatusCode};

use super::agent::{advance, expect_count, expect_text};
use super::app::App;
use super::auth::Boot;
use super::body::{Json, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::run::decide::{Answer, Input};

/// A machine has a few hundred interfaces at most.
const MACS_MAX: usize = 1_024;
/// Longest serial, version, address or epoch that an agent may name.
const TEXT_BYTES_MAX: usize = 256;

/// Agrees upon a protocol. Changes nothing that is stored.
#[utoipa::path(post, path = "/api/v1/runs/{run}/hello", tag = "agent", security(("boot" = []), ("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = Hello,
    responses((status = 200, body = HelloAnswer), (status = "4XX", body = ErrorBody)))]
pub async fn hello(
    State(app): State<Arc<App>>,
    boot: Boot,
    Json(hello, _held): Json<Hello>,
) -> Result<Response, ApiError> {
    expect_count("macs", hello.macs.len(), MACS_MAX)?;
    expect_text("serial", hello.serial.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)?;
    expect_text("agent_version", &hello.agent_version, TEXT_BYTES_MAX)?;
    let protocol = hello.protocol_max.min(PROTOCOL);
    if protocol < hello.protocol_min.max(PROTOCOL_OLDEST) {
        return Err(ApiError::unfit(format!(
            "the agent speaks protocols {} to {}, this orchestrator {PROTOCOL_OLDEST} to {PROTOCOL}; bring the older of \
             the two up to date",
            hello.protocol_min, hello.protocol_max
        )));
    }
    boot.run.state().hello = Some(protocol);
    tracing::info!(run = %boot.run.id, version = hello.agent_version, protocol, "hello");
    let (generation, pins, _edition) = app.live.announced();
    Ok(ok(&HelloAnswer { protocol, generation, server_time: wall_now(), pins }))
}

/// Takes hold of the run. The same call again gets the same claim.
#[utoipa::path(post, path = "/api/v1/runs/{run}/claim", tag = "agent", security(("boot" = []), ("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = ClaimRequest,
    responses((status = 200, body = ClaimAnswer), (status = "4XX", body = ErrorBody)))]
pub async fn claim(
    State(app): State<Arc<App>>,
    boot: Boot,
    headers: HeaderMap,
    Json(request, _held): Json<ClaimRequest>,
) -> Result<Response, ApiError> {
    expect_count("outbox", request.outbox.len(), limits::OUTBOX_MAX)?;
    expect_count("macs", request.macs.len(), MACS_MAX)?;
    for (field, text) in [
        ("ip", &request.ip),
        ("boot_epoch", &request.boot_epoch),
        ("serial", request.serial.as_ref().unwrap_or(&String::new())),
    ] {
        expect_text(field, text, TEXT_BYTES_MAX)?;
    }
    if let Some(runtime) = &request.runtime {
        expect_text("runtime.source", runtime.source.as_str(), TEXT_BYTES_MAX)?;
        expect_text("runtime.id", &runtime.id, TEXT_BYTES_MAX)?;
    }
    let protocol = protocol_of(&request, boot.run.state().hello);
    let (bearer, fleet) = (boot.digest.hex(), app.notices.sinks.of_fleet());
    let input = Input::Claim { request: Box::new(request), protocol, bearer, fleet };
    let landed = advance(&app, &boot.run, input).await;
    if let Err(error) = &landed
        && error.status() == StatusCode::FORBIDDEN
    {
        // Nothing of it is stored, and the operator who waits for the node must see why nothing comes.
        tracing::warn!(run = %boot.run.id, %error, "claim from another machine refused");
        boot.run.state().wrong_machine = Some(format!("{}: {error}", wall_now()));
    }
    let landed = landed?;
    boot.run.state().wrong_machine = None;
    app.live.hear(&boot.run);
    // Also an agent that dies before its first heartbeat is one that a rotation of the certificate waits for.
    super::heartbeat::note(&app, &boot.run).await;
    app.counters.claims.one();
    let Answer::Claim(answer) = landed.answer else {
        unreachable!("a claim that was not refused is answered as one");
    };
    let (generation, pins, _edition) = app.live.announced();
    let mut answer = ClaimAnswer {
        generation,
        pins,
        server_time: wall_now(),
        iperf_port: app.iperf3.map(|server| server.port),
        drains: app.live.drains.of(&boot.run.node),
        ..*answer
    };
    super::iperf3::resolve(&mut answer.stage_settings, &headers, app.iperf3);
    Ok(ok(&answer))
}

/// The protocol that a claim is made in: what its hello agreed upon, and where that never came or was another's,
/// what the claim itself shows.
fn protocol_of(request: &ClaimRequest, hello: Option<u32>) -> u32 {
    let is_newer = request.token_sha256.is_some() || request.session.is_some() || request.instance.is_some();
    match (is_newer, hello) {
        (true, _) => PROTOCOL,
        (false, Some(agreed)) => agreed,
        (false, None) => PROTOCOL_OLDEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_what_was_agreed_or_what_the_claim_shows() {
        let old: ClaimRequest = serde_json::from_str(r#"{"ip": "10.0.0.7"}"#).unwrap();
        let new: ClaimRequest =
            serde_json::from_str(&format!(r#"{{"token_sha256": "{}"}}"#, "a".repeat(64))).unwrap();
        assert_eq!(protocol_of(&old, None), 1);
        assert_eq!(protocol_of(&old, Some(1)), 1);
        // Such a claim is refused for what is missing in it.
        assert_eq!(protocol_of(&old, Some(2)), 2);
        assert_eq!(protocol_of(&new, None), 2);
        assert_eq!(protocol_of(&new, Some(1)), 2);
    }
}
