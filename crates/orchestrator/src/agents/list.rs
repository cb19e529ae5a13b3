//! The list of agents that operators see. No I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use groundcrew_protocol::agent_info::{
    AgentInfo, AgentList, AgentView, InfoPhase, RuntimeFact, RuntimeState, heard, reconcile,
};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::runtime::{AgentRuntime, RuntimeSource};
use groundcrew_protocol::time::WallMs;

use super::Known;
use crate::live::{Live, LiveRun, offline_after_ms};

/// Agents in one answer: with a few hundred bytes each, less than a report may hold.
const LISTED_MAX: usize = 20_000;

/// All agents: those that a runtime knows, and those of runs that none does.
pub fn list(known: Vec<Known>, live: &Live) -> AgentList {
    let runs = live.all();
    let of_claim = |run: &Arc<LiveRun>| run.state().claim.as_ref().and_then(|claim| claim.runtime.clone());
    let by_runtime: HashMap<AgentRuntime, Arc<LiveRun>> =
        runs.iter().filter_map(|run| Some((of_claim(run)?, run.clone()))).collect();
    let mut covered: HashSet<RunId> = HashSet::new();
    let mut named: HashSet<RunId> = HashSet::new();
    let mut agents = Vec::with_capacity(known.len());
    for one in known {
        // The run whose claim is this very life of the agent.
        let source = one.fact.key.source.clone();
        let runtime = one.fact.fact.life.runtime_id.clone().map(|id| AgentRuntime { source, id });
        let run = runtime.and_then(|runtime| by_runtime.get(&runtime));
        covered.extend(run.map(|run| run.id.clone()));
        let said = one.said.as_ref().and_then(|said| said.run.clone());
        named.extend(said.or_else(|| one.fact.run.clone()));
        agents.push(row(one, run.map(Arc::as_ref), live));
    }
    // One that has ended is listed as its successor, where that is known by the run's name.
    let has_successor = |run: &LiveRun| named.contains(&run.id) && run.state().end().is_some();
    let others = runs.iter().filter(|run| !covered.contains(&run.id) && !has_successor(run));
    agents.extend(others.filter_map(|run| claimed(run, live)));
    agents.sort_by(|one, other| {
        (&one.namespace, &one.name, &one.run).cmp(&(&other.namespace, &other.name, &other.run))
    });
    let left_out = agents.len().saturating_sub(LISTED_MAX) as u64;
    agents.truncate(LISTED_MAX);
    AgentList { agents, left_out }
}

fn row(known: Known, run: Option<&LiveRun>, live: &Live) -> AgentView {
    let Known { fact, said, mut warnings } = known;
    let info = said.unwrap_or_else(|| {
        // Its file is out of reach: what it says to the orchestrator, and what its runtime knows over that.
        let mut info = run.map(|run| word_of(run, live)).unwrap_or_default();
        if let Some(change) = reconcile(&info, &fact.fact) {
            change.apply_to(&mut info);
        }
        if is_of_lost_node(&fact.fact) {
            // What it said before is no news of it.
            info.detail = None;
        }
        let (phase, detail) = without_word(&fact.fact, &warnings);
        info.phase = info.phase.or(phase);
        info.detail = info.detail.or(detail);
        info
    });
    warnings.extend(run.and_then(|run| silence(run, live)));
    AgentView {
        namespace: fact.key.namespace,
        name: fact.key.name,
        runtime: info.runtime.clone().map(RuntimeSource::from).or(Some(fact.key.source)),
        runtime_id: fact.fact.life.runtime_id,
        node: fact.node.or_else(|| run.map(|run| run.node.to_string())),
        container_status: fact.fact.container_status,
        run: info.run.clone().or(fact.run),
        phase: info.shown_phase(),
        activity: info.activity,
        detail: info.detail.unwrap_or_default(),
        stage: info.stage,
        last_seen: info.last_seen,
        warnings,
    }
}

/// Whether the cluster does not know what became of it.
fn is_of_lost_node(fact: &RuntimeFact) -> bool {
    let is_lost = fact.container_status.contains('(') || fact.container_status == "Unknown";
    fact.source == RuntimeSource::Kubernetes && fact.state == RuntimeState::Deferring && is_lost
}

/// How an agent shows that has said nothing yet: as its runtime knows it, or why that cannot tell.
fn without_word(fact: &RuntimeFact, warnings: &[String]) -> (Option<InfoPhase>, Option<String>) {
    match &fact.state {
        RuntimeState::Running => (Some(InfoPhase::Running), None),
        RuntimeState::Waiting { reason } => (Some(InfoPhase::Starting), Some(reason.clone())),
        RuntimeState::Deferring if fact.source == RuntimeSource::Kubernetes => {
            (None, warnings.first().cloned())
        }
        RuntimeState::Deferring | RuntimeState::Halted | RuntimeState::Ended { .. } => (None, None),
    }
}

/// The agent of a run, where it has claimed it and has not gone in order with its end.
fn claimed(run: &LiveRun, live: &Live) -> Option<AgentView> {
    let info = {
        let is_ended = run.state().ended.is_some();
        let is_silent = live.quiet_ms(run) >= offline_after_ms();
        (!(is_ended && is_silent)).then(|| word_of(run, live))?
    };
    let state = run.state();
    let runtime = state.claim.as_ref()?.runtime.clone();
    drop(state);
    Some(AgentView {
        namespace: String::new(),
        name: run.node.to_string(),
        runtime: runtime.as_ref().map(|runtime| runtime.source.clone()),
        runtime_id: runtime.map(|runtime| runtime.id),
        node: Some(run.node.to_string()),
        run: Some(run.id.clone()),
        stage: info.stage,
        phase: info.phase,
        activity: info.activity,
        detail: info.detail.unwrap_or_default(),
        container_status: String::new(),
        last_seen: info.last_seen,
        warnings: silence(run, live).into_iter().collect(),
    })
}

/// What the agent of a run says of itself, in the words of its file; how it ended, where that is known.
fn word_of(run: &LiveRun, live: &Live) -> AgentInfo {
    let last_seen: Option<WallMs> = live.last_heard(run);
    let state = run.state();
    let said = state.said.as_ref();
    let stage = said.and_then(|said| said.active.as_ref()).map(|active| active.stage.clone());
    let (phase, activity) = said.map(|said| heard(&said.phase, stage.as_ref())).unzip();
    let mut info = AgentInfo {
        phase,
        activity: activity.flatten(),
        detail: said.map(|said| said.activity.clone()),
        run: Some(run.id.clone()),
        stage,
        claim: state.claim.as_ref().map(|claim| claim.number),
        last_seen,
        ..AgentInfo::default()
    };
    if let Some(end) = state.end() {
        (info.phase, info.activity) = (Some(end.phase()), None);
    }
    info
}

/// That nobody hears an agent that should be heard.
fn silence(run: &LiveRun, live: &Live) -> Option<String> {
    let quiet_ms = live.quiet_ms(run);
    let state = run.state();
    let counts = state.ended.is_none() && state.claim.is_some() && state.end().is_none();
    (counts && quiet_ms >= offline_after_ms())
        .then(|| format!("it is offline: not heard for {} s", quiet_ms / 1000))
}
