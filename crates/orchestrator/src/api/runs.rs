//! Runs, for operators: made, listed, shown, deleted, and given a new boot token.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use groundcrew_protocol::ids::{NodeName, RunId, SinkName, TokenText};
use groundcrew_protocol::operator::{CreateRun, RunCreated, RunList, RunSummary, RunView};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::State as RunState;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::ErrorBody;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::agent::expect_count;
use super::app::{App, finish};
use super::auth::{Operator, parse_run, random};
use super::body::{Json, Query, json, ok};
use super::error::ApiError;
use super::nodes::{page_limit, parse};
use super::{run_packages, view};
use crate::causes;
use crate::live::clock::wall_now;
use crate::notify::sinks::SINKS_MAX;
use crate::run::advance::{self, AdvanceError};
use crate::run::decide::{Input, NewRun};
use crate::run::state::Machine;
use crate::store::{NewAudit, StoredRun};

/// Runs that one list looks through for a filter; past them it answers what it found and where it stood.
const LOOKED_THROUGH_MAX: usize = 5_000;
/// Runs of the same node that have not ended, and that the maker of another is told of.
const GOING_TOLD_MAX: u32 = 10;
/// Ids that are tried for a new run before its maker is told: two runs of the same 64th of a second collide in one of a
/// million cases.
const ID_TRIES_MAX: u32 = 4;

/// Which runs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Only runs of this node.
    node: Option<String>,
    /// Only runs that stand here: a state, or `going` for those that have not ended.
    state: Option<String>,
    /// Begin after this run: `next` of the page before.
    after: Option<String>,
    /// At most so many, 1 to 500.
    limit: Option<u32>,
}

/// Runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", security(("operator" = [])), params(RunsQuery),
    responses((status = 200, body = RunList), (status = "4XX", body = ErrorBody)))]
pub async fn runs(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Query(query): Query<RunsQuery>,
) -> Result<Response, ApiError> {
    let node = query.node.as_deref().map(|text| parse("query node", text)).transpose()?;
    let after = query.after.as_deref().map(|text| parse("query after", text)).transpose()?;
    let limit = page_limit(query.limit)?;
    Ok(ok(&list(&app, node.as_ref(), query.state.as_deref(), after, limit).await?))
}

/// A part of the list of runs.
pub async fn list(
    app: &App,
    node: Option<&NodeName>,
    state: Option<&str>,
    after: Option<RunId>,
    limit: u32,
) -> Result<RunList, ApiError> {
    let wanted = |summary: &RunSummary| match state {
        None => true,
        Some("going") => !summary.state.is_ended(),
        Some(state) => summary.state == RunState::from(state.to_owned()),
    };
    let (mut runs, mut next, mut looked) = (Vec::new(), after, 0);
    while runs.len() < limit as usize && looked < LOOKED_THROUGH_MAX {
        let room = limit - u32::try_from(runs.len()).expect("a page has at most 500 runs");
        // A filter lets few through: look at many at a time.
        let room = if state.is_some() { 500 } else { room };
        let page = app.store.runs(node, next.as_ref(), room).await?;
        looked += page.runs.len();
        let mut last = None;
        for stored in &page.runs {
            match summary_of(app, stored) {
                Ok(summary) if wanted(&summary) => runs.push(summary),
                Ok(_unwanted) => {}
                // The others are listed; whoever asks for this one is told.
                Err(error) => {
                    tracing::error!(run = %stored.id, error = causes::chain(&error), "run left out of a list");
                }
            }
            last = Some(stored.id.clone());
            if runs.len() == limit as usize {
                break;
            }
        }
        let read_all = last.as_ref() == page.runs.last().map(|stored| &stored.id);
        next = if read_all { page.next } else { last };
        if next.is_none() {
            break;
        }
    }
    Ok(RunList { runs, next })
}

fn summary_of(app: &App, stored: &StoredRun) -> Result<RunSummary, AdvanceError> {
    let run = advance::read(stored)?;
    let known = app.live.get(&run.id).unwrap_or_else(|| app.live.glimpse(&run, stored.version));
    Ok(view::summary(&run, &app.live, &known))
}

/// Makes a run and its boot token, which is shown this once.
#[utoipa::path(post, path = "/api/v1/runs", tag = "runs", security(("operator" = [])), request_body = CreateRun,
    responses((status = 201, body = RunCreated), (status = "4XX", body = ErrorBody),
        (status = 507, description = "The disk is nearly full", body = ErrorBody)))]
pub async fn create_run(
    State(app): State<Arc<App>>,
    operator: Operator,
    headers: HeaderMap,
    Json(request, _held): Json<CreateRun>,
) -> Result<Response, ApiError> {
    if app.store.disk_state().is_full() {
        return Err(ApiError::full(
            "the orchestrator's disk is nearly full: no new runs until there is room",
        ));
    }
    let CreateRun { node, profile, notify } = request;
    expect_sinks(&app, &notify)?;
    let Some(known) = app.store.node(&node).await? else {
        let how = format!("make it with `groundcrewctl node put {node}`");
        return Err(ApiError::unfit(format!("field node: there is no node {node}; {how}")));
    };
    let node_is = Machine { serial: known.serial, macs: known.macs };
    let Some(row) = app.store.profile(&profile).await? else {
        let how = format!("make it with `groundcrewctl profile put FILE`; {profile} is the name in the file");
        return Err(ApiError::unfit(format!("field profile: there is no profile {profile}; {how}")));
    };
    // Before the run is made: where this fails, no token is lost.
    let going = list(&app, Some(&node), Some("going"), None, GOING_TOLD_MAX).await?;
    // Nobody deletes a package before the run that uses it is there, also where nobody waits for the answer any more.
    let packages = app.packages.clone().read_owned().await;
    let made = finish(async move {
        let made = make_run(&app, &headers, &operator, (node, node_is), row.profile, notify).await;
        drop(packages);
        made
    });
    let mut created = made.await?;
    created.also_going = going.runs.into_iter().map(|run| run.run).collect();
    Ok(json(StatusCode::CREATED, &created))
}

/// A run names sinks that are there: one that is not would tell nobody, and nobody would know.
fn expect_sinks(app: &App, notify: &[SinkName]) -> Result<(), ApiError> {
    expect_count("notify", notify.len(), SINKS_MAX)?;
    let sinks = &app.notices.sinks;
    match notify.iter().find(|name| sinks.get(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(ApiError::unfit(format!(
            "field notify: there is no sink {name}; the file that `groundcrewd serve --notify` reads has: {}",
            sinks.names()
        ))),
    }
}

async fn make_run(
    app: &Arc<App>,
    headers: &HeaderMap,
    operator: &Operator,
    (node, node_is): (NodeName, Machine),
    profile: Profile,
    notify: Vec<SinkName>,
) -> Result<RunCreated, ApiError> {
    let profile = run_packages::frozen(app, profile).await?;
    let token = TokenText::boot(random());
    for _try in 0..ID_TRIES_MAX {
        let new = NewRun {
            id: new_run_id(wall_now()),
            node: node.clone(),
            node_is: node_is.clone(),
            profile: profile.clone(),
            boot_token: token.sha256(),
            by: operator.name.to_string(),
            notify: notify.clone(),
        };
        match app.create(new).await {
            Ok(landed) => return Ok(created(app, headers, landed.run.id.clone(), token)),
            Err(AdvanceError::Taken(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::not_now("no free id was found for the run; ask again"))
}

/// `r-` and twelve of 32 letters and digits that are not mistaken for each other. Eight of them say when the run was made,
/// to a 64th of a second, so that later runs sort later: runs that are made together are worked on together, and stand
/// side by side in every index, where a commit then writes one page for many of them. Four are random. An id is no
/// secret; tokens are.
fn new_run_id(made: WallMs) -> RunId {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    const TIME_LETTERS: u32 = 8;
    let ticks = u64::try_from(made.0).unwrap_or(0) * 64 / 1_000;
    let of_time = (0..TIME_LETTERS).rev().map(|place| (ticks >> (5 * place)) as usize % 32);
    let bytes: [u8; 4] = random();
    let of_chance = bytes.iter().map(|byte| usize::from(*byte) % 32);
    let text: String = of_time.chain(of_chance).map(|index| char::from(LETTERS[index])).collect();
    format!("r-{text}").parse().expect("letters and digits after a letter and a dash are a run id")
}

fn created(app: &App, headers: &HeaderMap, run: RunId, boot_token: TokenText) -> RunCreated {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("ORCHESTRATOR");
    let url = app.url.clone().unwrap_or_else(|| format!("https://{host}"));
    let (_generation, pins, _edition) = app.live.announced();
    let pins: Vec<&str> = pins.iter().map(|pin| pin.as_str()).collect();
    let kernel_arguments = format!(
        "groundcrew.url={url} groundcrew.run={run} groundcrew.token={} groundcrew.fpr={}",
        boot_token.as_str(),
        pins.join(",")
    );
    RunCreated { run, boot_token, kernel_arguments, also_going: Vec::new() }
}

/// A run in full.
#[utoipa::path(get, path = "/api/v1/runs/{run}", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run")),
    responses((status = 200, body = RunView), (status = "4XX", body = ErrorBody)))]
pub async fn get_run(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(run): Path<String>,
) -> Result<Response, ApiError> {
    let run = parse_run(&run)?;
    Ok(ok(&full_view(&app, &run).await?))
}

/// A run in full, as [`get_run`] answers it.
pub async fn full_view(app: &App, run: &RunId) -> Result<RunView, ApiError> {
    let (run, version) = app.run(run).await?;
    let known = app.live.update(&run, version);
    let gaps = app.store.logs().gaps(&run.id, app.live.speaks(&known)).await?;
    Ok(view::view(&run, &app.live, &known, gaps))
}

/// Deletes a run that has ended, with its logs, readings and artifacts. Agents that ask for it get 410.
#[utoipa::path(delete, path = "/api/v1/runs/{run}", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run")),
    responses((status = 204, description = "It is deleted"), (status = "4XX", body = ErrorBody)))]
pub async fn delete_run(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(run): Path<String>,
) -> Result<StatusCode, ApiError> {
    let run = parse_run(&run)?;
    app.run(&run).await?;
    let audit = NewAudit {
        at: wall_now(),
        actor: operator.name.to_string(),
        action: "delete_run".to_owned(),
        run: Some(run.clone()),
        text: String::new(),
    };
    app.store.delete_run(&run, audit).await?;
    app.live.forget(&run);
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new boot token for a run, which takes the place of the old one.
#[utoipa::path(post, path = "/api/v1/runs/{run}/token", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run")),
    responses((status = 200, body = RunCreated), (status = "4XX", body = ErrorBody)))]
pub async fn reissue_token(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let run = parse_run(&run)?;
    let live = app.live_run(&run).await?;
    let token = TokenText::boot(random());
    let input = Input::NewBootToken { token: token.sha256(), by: operator.name.to_string() };
    super::agent::advance(&app, &live, input).await?;
    Ok(ok(&created(&app, &headers, run, token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_run_has_a_later_id_and_those_of_one_moment_differ() {
        const NOW: i64 = 1_790_000_000_000;
        let ids: Vec<RunId> = (0..100).map(|tick| new_run_id(WallMs(NOW + tick * 16))).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(new_run_id(WallMs(NOW * 2)) > ids[99], "in the year 2083");
        let of_one_moment: std::collections::HashSet<RunId> =
            (0..10).map(|_| new_run_id(WallMs(NOW))).collect();
        assert!(of_one_moment.len() > 1, "{of_one_moment:?}");
        assert_eq!(ids[0].as_str().len(), 14);
        assert!(new_run_id(WallMs(-1)).as_str().starts_with("r-00000000"));
    }
}
