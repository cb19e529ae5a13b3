//! Drains: asked for, listed and ended by operators; how they stand on a node.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::drain::{
    ActiveWork, AgentDrain, CreateDrain, Drain, DrainEnd, DrainList, DrainState, DrainTarget, EndDrains,
    NodeDrain,
};
use groundcrew_protocol::operator::Node;
use groundcrew_protocol::wire::ErrorBody;
use http::StatusCode;
use serde::Deserialize;

use super::agent::expect_text;
use super::app::App;
use super::auth::{Operator, random};
use super::body::{Json, Query, json, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::live::{Live, LiveRun};
use crate::store::NewAudit;

/// Longest reason, and longest part of a label, in bytes.
const REASON_BYTES_MAX: usize = 500;
const LABEL_BYTES_MAX: usize = 256;
/// Longest time of a drain: a quarter. One that is to stay longer has no time.
const FOR_MS_MAX: u64 = 92 * 86_400_000;
/// Ended drains in a list that asks for them.
const ENDED_LISTED: u32 = 200;

/// Which drains.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DrainsQuery {
    /// True: also those that have ended lately.
    ended: bool,
}

/// Drains that hold nodes, and with `ended=true` those that have ended lately.
#[utoipa::path(get, path = "/api/v1/drains", tag = "drains", security(("operator" = [])), params(DrainsQuery),
    responses((status = 200, body = DrainList), (status = "4XX", body = ErrorBody)))]
pub async fn drains(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Query(query): Query<DrainsQuery>,
) -> Result<Response, ApiError> {
    let mut drains = match query.ended {
        true => app.store.drains_ended(ENDED_LISTED).await?,
        false => Vec::new(),
    };
    drains.extend(app.store.drains_active().await?);
    drains.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    Ok(ok(&DrainList { drains }))
}

/// Asks for a drain of a node, or of every node with a label. Their agents are told, and told again, until it ends.
#[utoipa::path(post, path = "/api/v1/drains", tag = "drains", security(("operator" = [])), request_body = CreateDrain,
    responses((status = 201, body = Drain), (status = "4XX", body = ErrorBody)))]
pub async fn add_drain(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(asked, _held): Json<CreateDrain>,
) -> Result<Response, ApiError> {
    expect_good(&app, &asked).await?;
    let CreateDrain { target, for_ms, run, reason, suppress_notification } = asked;
    let created = wall_now();
    let listened_ms = app.live.clock.read_ms(Instant::now());
    let drain = Drain {
        id: new_id(),
        target,
        by: operator.name.to_string(),
        reason: reason.trim().to_owned(),
        created,
        until: for_ms.map(|for_ms| created.plus(for_ms)),
        until_ms: for_ms.map(|for_ms| listened_ms.saturating_add(for_ms)),
        run,
        suppress_notification,
        ended: None,
    };
    let audit = NewAudit {
        at: created,
        actor: drain.by.clone(),
        action: "drain".to_owned(),
        run: drain.run.clone(),
        text: format!("{} of {}: {}", drain.id, drain.target, drain.reason),
    };
    app.store.add_drain(drain.clone(), audit).await?;
    Ok(json(StatusCode::CREATED, &drain))
}

async fn expect_good(app: &App, asked: &CreateDrain) -> Result<(), ApiError> {
    expect_text("reason", &asked.reason, REASON_BYTES_MAX)?;
    if asked.reason.chars().any(char::is_control) {
        return Err(ApiError::unfit(
            "field reason: found a control character, expected one line of text".to_owned(),
        ));
    }
    match &asked.target {
        DrainTarget::Node(name) if app.store.node(name).await?.is_none() => {
            let how = format!("make it with `groundcrewctl node put {name}`");
            return Err(ApiError::unfit(format!("field target.node: there is no node {name}; {how}")));
        }
        DrainTarget::Node(_) => {}
        DrainTarget::Label { key, value } => {
            expect_text("target.label.key", key, LABEL_BYTES_MAX)?;
            expect_text("target.label.value", value, LABEL_BYTES_MAX)?;
        }
    }
    if let Some(for_ms) = asked.for_ms.filter(|for_ms| !(1..=FOR_MS_MAX).contains(for_ms)) {
        return Err(ApiError::unfit(format!("field for_ms: found {for_ms}, expected 1 to {FOR_MS_MAX}")));
    }
    if let Some(run) = &asked.run
        && app.run(run).await?.0.ended().is_some()
    {
        return Err(ApiError::unfit(format!(
            "field run: run {run} has ended, and a drain for it would end at once"
        )));
    }
    Ok(())
}

/// A new id: `d-` and twelve hexadecimal digits. It names a holder, and is no secret.
fn new_id() -> groundcrew_protocol::ids::DrainId {
    let text = format!("d-{}", groundcrew_protocol::ids::hex(&random::<6>()));
    text.parse().expect("letters and digits after a letter and a dash are a drain id")
}

/// Ends a drain, or every drain with exactly this target. Their agents are told, also one that is away when it comes.
#[utoipa::path(post, path = "/api/v1/drains/end", tag = "drains", security(("operator" = [])),
    request_body = EndDrains,
    responses((status = 200, description = "Those that were ended", body = DrainList),
        (status = "4XX", body = ErrorBody)))]
pub async fn end_drains(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(which, _held): Json<EndDrains>,
) -> Result<Response, ApiError> {
    let by = operator.name.to_string();
    let end = DrainEnd { at: wall_now(), why: format!("ended by {by}") };
    let drains = app.store.end_drains(which.clone(), end, move |drain| end_audit(drain, &by)).await?;
    if drains.is_empty() {
        return Err(ApiError::none(none_ended(&app, &which).await?));
    }
    Ok(ok(&DrainList { drains }))
}

/// The row of the audit trail for a drain that ended.
pub fn end_audit(drain: &Drain, actor: &str) -> NewAudit {
    let end = drain.ended.as_ref();
    let why = end.map_or("", |end| end.why.as_str());
    NewAudit {
        at: end.map_or_else(wall_now, |end| end.at),
        actor: actor.to_owned(),
        action: "end_drain".to_owned(),
        run: drain.run.clone(),
        text: format!("{} of {}: {why}", drain.id, drain.target),
    }
}

/// Why nothing was ended, and what holds the node instead.
async fn none_ended(app: &App, which: &EndDrains) -> Result<String, ApiError> {
    let target = match which {
        EndDrains::Id(id) => return Ok(format!("there is no active drain {id}")),
        EndDrains::Target(target) => target,
    };
    let mut text = format!("there is no active drain of {target}");
    if let DrainTarget::Node(name) = target
        && let Some(node) = app.store.node(name).await?
    {
        let others = of_node(&app.store.drains_active().await?, &node);
        for other in others {
            text.push_str(&format!("; it is held by {}, of {}", other.id, other.target));
        }
    }
    Ok(text)
}

fn of_node(drains: &[Drain], node: &Node) -> Vec<Drain> {
    drains.iter().filter(|drain| drain.target.covers(&node.name, &node.labels)).cloned().collect()
}

/// How the drains of a node stand; `None` where there is nothing to say.
pub async fn of(app: &App, node: &Node) -> Result<Option<NodeDrain>, ApiError> {
    let drains = of_node(&app.store.drains_active().await?, node);
    let agents = app.live.all().into_iter().filter(|live| live.node == node.name);
    let agents: Vec<AgentDrain> = agents.filter_map(|live| agent_of(&app.live, &live)).collect();
    Ok(stand(&drains, &agents).map(|state| NodeDrain { state, drains, agents }))
}

/// What an agent says; `None` where there is none, and for one whose run has ended and that is gone.
fn agent_of(live: &Live, known: &LiveRun) -> Option<AgentDrain> {
    let agent = live.agent_word(known)?;
    let state = known.state();
    if agent == OFFLINE && state.ended.is_some() {
        return None;
    }
    let said = state.said.clone();
    let refused: Vec<String> = state.drains.iter().filter_map(|told| told.refused.clone()).collect();
    drop(state);
    let active = said.as_ref().and_then(|said| {
        said.active.clone().map(|active| ActiveWork {
            stage: active.stage,
            attempt: active.attempt,
            activity: said.activity.clone(),
        })
    });
    Some(AgentDrain {
        run: known.id.clone(),
        agent,
        drain: said.as_ref().map(|said| said.drain.clone()).unwrap_or_default(),
        holds: said.map(|said| said.drains).unwrap_or_default(),
        refused: refused.join("; "),
        active,
        last_heard: live.last_heard(known),
    })
}

/// How an agent is called that was not heard for three heartbeats.
const OFFLINE: &str = "offline";

/// How drains and agents of a node stand together. Pure. A drain that somebody asked for on the node itself shows too.
fn stand(drains: &[Drain], agents: &[AgentDrain]) -> Option<DrainState> {
    let present = || agents.iter().filter(|agent| agent.agent != OFFLINE);
    let lacks = |agent: &AgentDrain| drains.iter().any(|drain| !agent.holds.contains(&drain.id));
    let drained = || present().filter(|agent| !agent.drain.is_empty());
    if drains.is_empty() {
        if present().any(|agent| !agent.holds.is_empty()) {
            return Some(DrainState::Leaving);
        }
        drained().next()?;
    } else if present().next().is_none() {
        return Some(DrainState::NoAgent);
    } else if present().any(|agent| lacks(agent) && !agent.refused.is_empty()) {
        return Some(DrainState::Refused);
    } else if present().any(|agent| lacks(agent) || agent.drain.is_empty()) {
        return Some(DrainState::Asked);
    }
    if drained().any(|agent| agent.active.is_some()) {
        Some(DrainState::Draining)
    } else {
        Some(DrainState::Idle)
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::ids::{Attempt, DrainId};
    use groundcrew_protocol::stage::Stage;
    use groundcrew_protocol::time::WallMs;

    use super::*;

    fn drain(id: &str) -> Drain {
        Drain {
            id: id.parse().unwrap(),
            target: DrainTarget::Node("n1".parse().unwrap()),
            by: "ann".into(),
            reason: String::new(),
            created: WallMs(0),
            until: None,
            until_ms: None,
            run: None,
            suppress_notification: false,
            ended: None,
        }
    }

    fn agent(word: &str, drain: &str, holds: &[&str], refused: &str, busy: bool) -> AgentDrain {
        let active = ActiveWork { stage: Stage::CpuStress, attempt: Attempt(1), activity: String::new() };
        AgentDrain {
            run: "r-1".parse().unwrap(),
            agent: word.into(),
            drain: drain.into(),
            holds: holds.iter().map(|id| id.parse::<DrainId>().unwrap()).collect(),
            refused: refused.into(),
            active: busy.then_some(active),
            last_heard: None,
        }
    }

    #[test]
    fn how_drains_and_agents_stand_together() {
        use DrainState::{Asked, Draining, Idle, Leaving, NoAgent, Refused};
        let both = ["d-1", "d-2"];
        let cases: [(&[&str], Vec<AgentDrain>, Option<DrainState>); 13] = [
            (&[], vec![], None),
            (&[], vec![agent("running", "", &[], "", true)], None),
            // Somebody on the node itself asked for it.
            (&[], vec![agent("draining", "by ops", &[], "", true)], Some(Draining)),
            (&[], vec![agent("draining", "by ops", &[], "", false)], Some(Idle)),
            (&[], vec![agent("draining", "x", &["d-1"], "", false)], Some(Leaving)),
            (&["d-1"], vec![], Some(NoAgent)),
            (&["d-1"], vec![agent("offline", "x", &["d-1"], "", false)], Some(NoAgent)),
            (&["d-1"], vec![agent("running", "", &[], "", true)], Some(Asked)),
            (&["d-1"], vec![agent("running", "", &[], "unknown", true)], Some(Refused)),
            (&both, vec![agent("draining", "x", &["d-1"], "", false)], Some(Asked)),
            (&both, vec![agent("draining", "x", &both, "", true)], Some(Draining)),
            (&both, vec![agent("draining", "x", &both, "", false)], Some(Idle)),
            // The marker holds, and the control loop has not seen it yet: nobody may act on that.
            (&["d-1"], vec![agent("running", "", &["d-1"], "", false)], Some(Asked)),
        ];
        for (drains, agents, expected) in cases {
            let drains: Vec<Drain> = drains.iter().map(|id| drain(id)).collect();
            assert_eq!(stand(&drains, &agents), expected, "{drains:?} {agents:?}");
        }
    }
}
