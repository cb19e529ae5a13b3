//! Agents as their runtimes know them: which there are, how each stands, and the files that say so.
//!
//! ```text
//!   homes      where homes lie, what their files say, what is written into them
//!   process    a process of this host that is held          local   what that says of an agent
//!   cgroup     whether the kernel ended one for want of memory
//!   pods       the pods of agents, as an observer of their cluster keeps them
//!   list       the rows that operators see
//! ```
//!
//! A pass looks at everything there is, brings it into the files, and gives what is to be stored and told. It takes no
//! input but the world and what the store knew, so that whatever failed in one is done by the next. Blocking; the task
//! `agents` calls it. It decides nothing about runs.

mod cgroup;
pub mod homes;
pub mod list;
mod local;
pub mod pods;
mod process;

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use groundcrew_protocol::agent_info::{
    AgentInfo, AgentLife, Clocks, RuntimeFact, RuntimeSource, RuntimeState, Staleness, reconcile, staleness,
};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::time::WallMs;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::causes;
use crate::run::runtime::RuntimeEnded;
use crate::store::{AgentFact, AgentKey};
use homes::{Hidden, Home, Homes};
use local::{Local, Seen, fact_of};
pub use pods::{PodSeen, Pods};

/// An agent that ended is shown for so long, as the store keeps it.
const ENDED_SHOWN_MS: u64 = crate::store::ENDED_AGENTS_MS;

/// What is known of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// What is stored of it.
    pub fact: AgentFact,
    /// What its file says, where that can be read.
    pub said: Option<AgentInfo>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// What a pass found.
#[derive(Debug, Default)]
pub struct Pass {
    /// To be stored.
    pub changed: Vec<AgentFact>,
    /// To be forgotten.
    pub forgotten: Vec<AgentKey>,
    /// To be told to the run whose claim names this runtime, if there is one. Most of them were told before.
    pub ends: Vec<RuntimeEnded>,
    /// Becomes readable where a process ends that is held since this pass: time for the next.
    pub begun: Vec<OwnedFd>,
    /// Files that could not be read or written.
    pub failures: u64,
    /// Homes beyond those that are looked at.
    pub left_out: u64,
    rows: BTreeMap<String, Known>,
    /// A cluster is observed, listed yet or not.
    observes_pods: bool,
    /// Folders of homes that could not be listed.
    hidden: Vec<Hidden>,
    /// Rows whose pods go by another name now.
    renamed: HashSet<String>,
}

/// What runtimes know of agents.
#[derive(Debug)]
pub struct Agents {
    homes: Option<Homes>,
    /// Absent where no cluster is observed.
    pods: Option<Mutex<Pods>>,
    local: Mutex<Local>,
    known: Mutex<BTreeMap<String, Known>>,
    failures: AtomicU64,
    /// Folders of homes that the last pass could not list: told once.
    hidden: Mutex<HashSet<PathBuf>>,
    /// Something has happened that the next pass should not wait for.
    pub wake: Notify,
}

/// The order of rows, and what one is known by.
fn row_key(key: &AgentKey) -> String {
    format!("{}\0{}\0{}", key.namespace, key.name, key.source)
}

impl Agents {
    /// Of this host, and of these homes; of a cluster too, where one is observed.
    pub fn new(homes: Option<Homes>, observes_pods: bool) -> Agents {
        Agents {
            homes,
            pods: observes_pods.then(Mutex::default),
            local: Mutex::new(Local::of_host()),
            known: Mutex::default(),
            failures: AtomicU64::new(0),
            hidden: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the table of pods to who observes them, or reads it.
    pub fn with_pods<T>(&self, work: impl FnOnce(&mut Pods) -> T) -> Option<T> {
        let mut pods = self.pods.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&mut pods))
    }

    /// Takes in what the store knew, before the first pass.
    pub fn load(&self, facts: Vec<AgentFact>) {
        let known = |fact: AgentFact| Known { fact, said: None, warnings: Vec::new() };
        *self.known() = facts.into_iter().map(|fact| (row_key(&fact.key), known(fact))).collect();
    }

    /// All that is known, in order.
    pub fn rows(&self) -> Vec<Known> {
        self.known().values().cloned().collect()
    }

    /// Files that could not be read or written, counted by passes since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What a pass found is stored: it is what is known from now on.
    pub fn stored(&self, pass: &mut Pass) {
        *self.known() = std::mem::take(&mut pass.rows);
    }

    fn note_hidden(&self, hidden: &[Hidden]) {
        let mut told = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        for Hidden { folder, error, .. } in hidden.iter().filter(|one| !told.contains(&one.folder)) {
            tracing::warn!(path = %folder.display(), %error, "homes of agents in it are not looked at");
        }
        *told = hidden.iter().map(|one| one.folder.clone()).collect();
    }

    /// A pass. `claims` are the processes that agents of runs call themselves.
    ///
    /// # Errors
    /// Where the operator's own folder of homes cannot be listed.
    pub fn look(&self, claims: &[AgentRuntime], now: WallMs) -> std::io::Result<Pass> {
        let before = self.known().clone();
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pass = Pass { observes_pods: self.pods.is_some(), ..Pass::default() };
        if let Some(table) = self.with_pods(Pods::read).flatten() {
            pass.look_at_pods(self.homes.as_ref(), table, &before, now);
        }
        if let Some(homes) = &self.homes {
            let found = homes.found()?;
            pass.left_out = found.left_out;
            for home in found.homes {
                pass.look_at_home(homes, &home, &before, &mut local, now);
            }
            pass.failures += found.hidden.len() as u64;
            self.note_hidden(&found.hidden);
            pass.hidden = found.hidden;
        }
        for (key, known) in &before {
            pass.keep(key, known, now);
        }
        let processes = pass.rows.values().filter(|known| known.fact.key.source == RuntimeSource::Local);
        let known = processes.filter_map(|known| {
            let fact = &known.fact.fact;
            end_of(fact, fact.life.runtime_id.as_deref()?)
        });
        // Ends of pods are told above, and only while the cluster shows what there is: a stored one may be of a container
        // that has a successor in its pod.
        let known: Vec<RuntimeEnded> = known.collect();
        pass.ends.extend(known);
        let told: HashSet<AgentRuntime> = pass.ends.iter().map(|end| end.runtime.clone()).collect();
        for runtime in claims {
            // Told by a claim alone: nobody knows where its numbers mean what they mean here. Where its home is known,
            // the agent's own word counts, as it does there.
            let seen = local.look(&runtime.id, None);
            if matches!(seen, Seen::Ended { .. }) && !told.contains(runtime) {
                let life = AgentLife { runtime_id: Some(runtime.id.clone()), ..AgentLife::default() };
                pass.ends.extend(end_of(&fact_of(life, &AgentInfo::default(), seen, now), &runtime.id));
            }
        }
        pass.begun = local.end_pass();
        self.failures.fetch_add(pass.failures, Ordering::Relaxed);
        Ok(pass)
    }
}

impl Pass {
    /// How many agents it found.
    pub fn agents(&self) -> usize {
        self.rows.len()
    }

    fn look_at_home(
        &mut self,
        homes: &Homes,
        home: &Home,
        before: &BTreeMap<String, Known>,
        local: &mut Local,
        now: WallMs,
    ) {
        let agent = AgentKey {
            source: RuntimeSource::Local,
            namespace: home.namespace.clone(),
            name: home.name.clone(),
        };
        let of_pod = AgentKey { source: RuntimeSource::Kubernetes, ..agent.clone() };
        let pod_key = row_key(&of_pod);
        if self.rows.contains_key(&pod_key) {
            return;
        }
        if let Some(known) =
            before.get(&pod_key).filter(|_| self.observes_pods && !self.renamed.contains(&pod_key))
        {
            // The cluster was not listed yet: it is shown as it was known, with its file's word, and by nothing else.
            let said = homes.read(home).ok().flatten().map(|said| match has_ended(&known.fact.fact) {
                true => corrected(said, &known.fact.fact),
                false => said,
            });
            self.rows.insert(pod_key, Known { said, ..known.clone() });
            return;
        }
        let key = row_key(&agent);
        let known = before.get(&key);
        let (said, mut failure) = match homes.read(home) {
            Ok(said) => (said, None),
            Err(error) => (None, Some(error)),
        };
        if said.is_none() && failure.is_none() {
            // No agent has lived here, or its file was taken away: then what is known of it stays as it is.
            return;
        }
        let life = match (&said, known) {
            (Some(said), _) => AgentLife::of(said),
            (None, Some(known)) => known.fact.fact.life.clone(),
            (None, None) => AgentLife::default(),
        };
        let seen = match &life.runtime_id {
            Some(id) => local.look(id, life.epoch.as_deref()),
            None => Seen::Unknown,
        };
        let word = said.clone().unwrap_or_default();
        let fact = settled(known.map(|known| &known.fact.fact), fact_of(life, &word, seen, now));
        let mut said = said;
        if failure.is_none() {
            match homes.persist(home, &fact) {
                Ok(after) => said = after.or(said),
                Err(error) => {
                    failure = Some(error);
                    // What is known is shown all the same.
                    said = said.map(|said| corrected(said, &fact));
                }
            }
        }
        let mut warnings: Vec<String> =
            failure.map(|error| self.failed(&homes.path(home), &error, known)).into_iter().collect();
        warnings.extend(said.as_ref().and_then(|said| stale(said, seen, &local.epoch, now)));
        let run = said.as_ref().and_then(|said| said.run.clone());
        let run = run.or_else(|| known.and_then(|known| known.fact.run.clone()));
        let fact = AgentFact { key: agent, run, node: None, fact };
        if !known.is_some_and(|known| is_stored(&known.fact, &fact)) {
            self.changed.push(fact.clone());
        }
        self.rows.insert(key, Known { fact, said, warnings });
    }

    /// Looks at the agents of a cluster, each by its latest pod. What was known of a pod that is no more has ended,
    /// whoever has the agent's name by now; whether it is there is judged by its uid.
    fn look_at_pods(
        &mut self,
        homes: Option<&Homes>,
        table: pods::Table,
        before: &BTreeMap<String, Known>,
        now: WallMs,
    ) {
        let pods::Table { mut agents, ended, uids } = table;
        self.ends.extend(ended.iter().filter_map(|pod| end_of(&pod.fact.fact, &pod.end)));
        for (key, pod) in latest_of(ended) {
            let Some(successor) = agents.get_mut(&key).filter(|pod| leaves_files_alone(&pod.fact.fact))
            else {
                continue;
            };
            let (_, warning) = self.persist(homes, &pod.fact, before.get(&key));
            successor.warning = successor.warning.take().or(warning);
        }
        for (key, known) in before {
            let Some(uid) = known.fact.fact.life.runtime_id.as_deref() else { continue };
            if known.fact.key.source != RuntimeSource::Kubernetes {
                continue;
            }
            if uids.contains(uid) {
                // Its pod is there by another name: it is shown as that.
                if !agents.contains_key(key) {
                    self.renamed.insert(key.clone());
                }
                continue;
            }
            let fact = gone(homes, known, now);
            self.ends.extend(end_of(&fact.fact, uid));
            if agents.contains_key(key) {
                // It has a successor, whose row follows. What fails here is logged.
                self.persist(homes, &fact, Some(known));
            } else if is_recent(&fact.fact, now) {
                self.look_at_pod(homes, fact, None, Some(known), now);
            }
        }
        for (key, pod) in agents {
            self.look_at_pod(homes, pod.fact, pod.warning, before.get(&key), now);
        }
    }

    /// Brings what is known into the agent's file, where that is shared: what it says then, and what failed.
    fn persist(
        &mut self,
        homes: Option<&Homes>,
        fact: &AgentFact,
        known: Option<&Known>,
    ) -> (Option<AgentInfo>, Option<String>) {
        let home = homes.and_then(|homes| Some((homes, homes.home_of(&fact.key.namespace, &fact.key.name)?)));
        let Some((homes, home)) = home else { return (None, None) };
        match homes.persist(&home, &fact.fact) {
            Ok(said) => (said, None),
            Err(error) => (None, Some(self.failed(&homes.path(&home), &error, known))),
        }
    }

    fn look_at_pod(
        &mut self,
        homes: Option<&Homes>,
        mut fact: AgentFact,
        warning: Option<String>,
        known: Option<&Known>,
        now: WallMs,
    ) {
        let stored = known.filter(|known| is_stored(&known.fact, &fact));
        fact.fact.at = match (stored, has_ended(&fact.fact)) {
            (Some(stored), true) => stored.fact.fact.at,
            (None, true) => fact.fact.at,
            (_, false) => now,
        };
        let mut warnings: Vec<String> = warning.into_iter().collect();
        let (said, failure) = self.persist(homes, &fact, known);
        warnings.extend(failure);
        // Whatever boot its container has, it is none that this host can compare.
        warnings.extend(said.as_ref().and_then(|said| stale(said, Seen::Unknown, "", now)));
        if stored.is_none() {
            self.changed.push(fact.clone());
        }
        self.rows.insert(row_key(&fact.key), Known { fact, said, warnings });
    }

    /// Counts a file that could not be read or written, and tells it once. What is shown of it.
    fn failed(&mut self, path: &Path, error: &groundcrew_durable::Error, known: Option<&Known>) -> String {
        self.failures += 1;
        let text = format!("its file is not kept: {}", causes::chain(error));
        if !known.is_some_and(|known| known.warnings.contains(&text)) {
            tracing::warn!(path = %path.display(), error = causes::chain(error), "agent-info.json not reconciled");
        }
        text
    }

    /// Keeps what is known of an agent that this pass has not met: one that ended for as long as it is shown, one of a
    /// cluster until that was listed.
    fn keep(&mut self, key: &str, known: &Known, now: WallMs) {
        if self.rows.contains_key(key) {
            return;
        }
        let is_observed = self.observes_pods && known.fact.key.source == RuntimeSource::Kubernetes;
        let has_ended = has_ended(&known.fact.fact);
        // Nor is one gone whose home cannot be looked for.
        let is_hidden = known.fact.key.source == RuntimeSource::Local
            && self.hidden.iter().any(|folder| folder.may_hold(&known.fact.key.namespace));
        let is_shown = if has_ended { is_recent(&known.fact.fact, now) } else { is_observed || is_hidden };
        if is_shown && !self.renamed.contains(key) {
            self.rows.insert(key.to_owned(), Known { said: None, warnings: Vec::new(), ..known.clone() });
        } else {
            self.forgotten.push(known.fact.key.clone());
        }
    }
}

/// Of several pods that ended each agent's last: which of them a file should speak of that no living one has written.
fn latest_of(mut ended: Vec<PodSeen>) -> BTreeMap<String, PodSeen> {
    ended.sort_by(|one, other| (one.created, one.uid()).cmp(&(other.created, other.uid())));
    ended.into_iter().map(|pod| (row_key(&pod.fact.key), pod)).collect()
}

/// Whether a pod in this state changes no file, so that the end of the one before stands in it.
fn leaves_files_alone(fact: &RuntimeFact) -> bool {
    match fact.state {
        RuntimeState::Deferring | RuntimeState::Waiting { .. } => true,
        RuntimeState::Running | RuntimeState::Halted | RuntimeState::Ended { .. } => false,
    }
}

/// What holds of a pod that is no more: the end that was known, or that it was deleted, with the agent's own word of how
/// it ended, which may have come while nobody watched.
fn gone(homes: Option<&Homes>, known: &Known, now: WallMs) -> AgentFact {
    let fact = &known.fact;
    if has_ended(&fact.fact) {
        return fact.clone();
    }
    let home = homes.and_then(|homes| Some((homes, homes.home_of(&fact.key.namespace, &fact.key.name)?)));
    // A file that cannot be read is told where the end is to come into it.
    let said = home.and_then(|(homes, home)| homes.read(&home).ok().flatten()).or_else(|| known.said.clone());
    let of_it = said.filter(|said| said.runtime_id.is_none() || said.runtime_id == fact.fact.life.runtime_id);
    pods::deleted(fact, of_it.as_ref(), now)
}

fn is_recent(fact: &RuntimeFact, now: WallMs) -> bool {
    fact.at.plus(ENDED_SHOWN_MS) > now
}

/// What is known after `fact` was seen: an end is final for its life, with what was known of it when it was first seen.
fn settled(before: Option<&RuntimeFact>, fact: RuntimeFact) -> RuntimeFact {
    match before {
        Some(before) if has_ended(before) && before.life.runtime_id == fact.life.runtime_id => {
            RuntimeFact { life: fact.life.or(before.life.clone()), ..before.clone() }
        }
        Some(_) | None => fact,
    }
}

/// What a file would say, if it could be written.
fn corrected(mut said: AgentInfo, fact: &RuntimeFact) -> AgentInfo {
    if let Some(change) = reconcile(&said, fact) {
        change.apply_to(&mut said);
    }
    said
}

/// Whether what is stored says all that `fact` does but when it was seen.
fn is_stored(stored: &AgentFact, fact: &AgentFact) -> bool {
    let timeless =
        AgentFact { fact: RuntimeFact { at: stored.fact.at, ..fact.fact.clone() }, ..fact.clone() };
    *stored == timeless
}

fn has_ended(fact: &RuntimeFact) -> bool {
    match fact.state {
        RuntimeState::Ended { .. } => true,
        RuntimeState::Deferring
        | RuntimeState::Waiting { .. }
        | RuntimeState::Running
        | RuntimeState::Halted => false,
    }
}

/// What a run is told of an end; `None` where there is none. The same end always has the same id.
fn end_of(fact: &RuntimeFact, end: &str) -> Option<RuntimeEnded> {
    let id = fact.life.runtime_id.clone()?;
    match &fact.state {
        RuntimeState::Ended { ending, exit, reason, .. } => Some(RuntimeEnded {
            runtime: AgentRuntime { source: fact.source.clone(), id },
            end: end.to_owned(),
            ending: *ending,
            reason: reason.clone(),
            exit: *exit,
            at: fact.at,
        }),
        RuntimeState::Deferring
        | RuntimeState::Waiting { .. }
        | RuntimeState::Running
        | RuntimeState::Halted => None,
    }
}

/// Why nobody should rely on what a file says, where that is so.
fn stale(said: &AgentInfo, seen: Seen, epoch: &str, now: WallMs) -> Option<String> {
    let up = clock_gettime(ClockId::Boottime);
    let up_ms = i128::from(up.tv_sec) * 1000 + i128::from(up.tv_nsec) / 1_000_000;
    let lives = match seen {
        Seen::Runs => Some(true),
        Seen::Ended { .. } => Some(false),
        Seen::Unknown => None,
    };
    let clocks = Clocks { wall: now, up_ms: u64::try_from(up_ms).ok(), epoch: epoch.to_owned(), lives };
    match staleness(said, &clocks) {
        Staleness::Stale { why, .. } => Some(format!("what it says is stale: {why}")),
        Staleness::Final | Staleness::Fresh { .. } => None,
    }
}

#[cfg(test)]
mod tests;
