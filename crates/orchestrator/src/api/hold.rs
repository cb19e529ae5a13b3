//! A hold: the keys that its agent is given, and the one that was made for it, for operators.
//!
//! Keys that operators have registered are preferred. Where there is none, the first request of a hold makes a key for it
//! ([`crate::pair`]); later ones get the same. Its private half leaves the store for an operator's token alone, each time with
//! a row of the audit trail, and is destroyed by the decision that ends the hold.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use groundcrew_protocol::hold::{HoldAnswer, HoldRequest, RunHoldKey};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::ErrorBody;
use http::{HeaderValue, header};

use super::agent::{advance, expect_count};
use super::app::App;
use super::auth::{Agent, Operator, parse_run};
use super::body::{Json, ok};
use super::error::ApiError;
use super::hold_key::registered;
use crate::live::clock::wall_now;
use crate::pair::{self, Pair};
use crate::run::decide::{HoldSaid, Input};
use crate::run::state::{HoldKey, Run, Standing};
use crate::store::NewAudit;
use crate::{causes, tls};

/// Host keys that a machine may have.
const HOST_KEYS_MAX: usize = 64;
/// What a failure that nobody expects leaves to say.
const REGISTER: &str =
    "`groundcrewctl hold-key set FILE` registers a key of yours, which lets you in within five minutes";

/// Gives an agent in a hold the keys that let operators in.
#[utoipa::path(post, path = "/api/v1/runs/{run}/hold", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = HoldRequest,
    responses((status = 200, body = HoldAnswer), (status = "4XX", body = ErrorBody)))]
pub async fn hold(
    State(app): State<Arc<App>>,
    agent: Agent,
    Json(request, _held): Json<HoldRequest>,
) -> Result<Response, ApiError> {
    expect_count("host_keys", request.host_keys.len(), HOST_KEYS_MAX)?;
    let HoldRequest { claim, host_keys, user, .. } = request;
    let said = HoldSaid { host_keys, user };
    let asks = Input::Hold { claim, said: said.clone(), key: None };
    let mut landed = advance(&app, &agent.run, asks).await?;
    app.live.hear(&agent.run);
    let mut lines: Vec<String> =
        registered(&app.store).await?.into_iter().map(|key| key.authorized_key).collect();
    if lines.is_empty() {
        if landed.run.hold_key.as_ref().and_then(HoldKey::public).is_none() {
            let key = Some(make(app.certificates.key().clone(), landed.run.id.clone()).await);
            landed = advance(&app, &agent.run, Input::Hold { claim, said, key }).await?;
        }
        lines.extend(landed.run.hold_key.as_ref().and_then(HoldKey::public).cloned());
    }
    Ok(ok(&HoldAnswer::new(lines, expires_at(&landed.run))))
}

/// When the hold ends at the latest, by itself.
fn expires_at(run: &Run) -> WallMs {
    let until = run.wait.as_ref().map(|wait| wait.until);
    until.unwrap_or_else(|| wall_now().plus(run.profile.limits.hold))
}

/// Makes a key, or says why not: the run goes on without one.
async fn make(file: tls::seal::KeyFile, run: RunId) -> HoldKey {
    let made = on_a_thread(move || pair::make(&file, &run)).await;
    match made {
        Ok(Pair { public, sealed }) => HoldKey::Made { public, sealed },
        Err(error) => {
            let why = causes::chain(&error);
            tracing::error!(why, "no SSH key could be made for a hold");
            HoldKey::Failed { why }
        }
    }
}

/// Reads the key file where that may block.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("nobody cancels it, and it panics nowhere")
}

/// Hands out the key that was made for the hold of a run: its private half, and what ssh needs besides. It takes an operator's
/// token, since a session of the dashboard is good for reading alone; each time is a row of the audit trail.
#[utoipa::path(post, path = "/api/v1/runs/{run}/hold-key", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run")),
    responses((status = 200, body = RunHoldKey), (status = "4XX", body = ErrorBody)))]
pub async fn hand_out(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(run): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse_run(&run)?;
    let (run, _version) = app.run(&id).await?;
    expect_held(&run)?;
    let names: Vec<String> =
        registered(&app.store).await?.into_iter().map(|key| key.name.to_string()).collect();
    let pair = expect_key(&run, &names)?;
    let (public_key, file) = (pair.public.clone(), app.certificates.key().clone());
    let opened = {
        let id = id.clone();
        on_a_thread(move || pair::open(&file, &id, &pair)).await
    };
    let private_key = opened.map_err(|error| {
        let why = causes::chain(&error);
        tracing::error!(run = %id, why, "the key of a hold cannot be handed out");
        ApiError::conflict("sealed", format!("the key of this hold cannot be handed out: {why}. {REGISTER}"))
    })?;
    let audit = NewAudit {
        at: wall_now(),
        actor: operator.name.to_string(),
        action: "hand_out_hold_key".to_owned(),
        run: Some(id.clone()),
        text: format!("the private half of {public_key}"),
    };
    app.store.audit(audit).await?;
    let mut answer = ok(&RunHoldKey {
        run: id,
        private_key,
        public_key,
        expires_at: expires_at(&run),
        user: run.hold_user.clone(),
        ip: run.claim.as_ref().map(|claim| claim.ip.clone()).unwrap_or_default(),
        host_keys: run.host_keys.clone(),
    });
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// 410 after the end of the run, 409 where it is not held.
fn expect_held(run: &Run) -> Result<(), ApiError> {
    let error = match run.standing {
        Standing::Held { .. } => return Ok(()),
        Standing::Walking => ApiError::conflict(
            "not_held",
            format!("run {} is {}, not held: it has no key", run.id, run.state()),
        ),
        Standing::Completed { .. } | Standing::Cancelled { .. } => ApiError::gone(format!(
            "run {} has ended ({}): the key of its hold, if it had one, is destroyed",
            run.id,
            run.state()
        )),
    };
    Err(error.at(run.state()))
}

/// The key that lets operators into this hold, where it is one that was made for it.
fn expect_key(run: &Run, registered: &[String]) -> Result<Pair, ApiError> {
    if !registered.is_empty() {
        let names = registered.join(", ");
        return Err(ApiError::conflict(
            "registered",
            format!("registered keys let operators into this hold ({names}): log in with one of them"),
        ));
    }
    match &run.hold_key {
        Some(HoldKey::Made { public, sealed }) => Ok(Pair { public: public.clone(), sealed: sealed.clone() }),
        Some(HoldKey::Failed { why }) => Err(ApiError::conflict(
            "no_key",
            format!("no key could be made for this hold: {why}. It is tried every five minutes; {REGISTER}"),
        )),
        None => Err(ApiError::conflict(
            "not_asked",
            "the agent has not asked for the key of this hold yet; it does once it is heard again, and every five minutes",
        )),
    }
}
