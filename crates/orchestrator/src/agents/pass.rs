//! A pass over agents: what it finds, homes and their files first. That of a cluster's pods is `of_pods`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use groundcrew_protocol::agent_info::{AgentInfo, AgentLife, Clocks, RuntimeSource, Staleness, staleness};
use groundcrew_protocol::time::WallMs;
use rustix::time::{ClockId, clock_gettime};

use super::facts::{corrected, has_ended, is_recent, is_stored, settled};
use super::homes::{Hidden, Home, Homes};
use super::local::{Local, Seen, fact_of};
use super::{Known, row_key};
use crate::causes;
use crate::run::runtime::RuntimeEnded;
use crate::store::{AgentFact, AgentKey};

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
    pub(super) rows: BTreeMap<String, Known>,
    /// A cluster is observed, listed yet or not.
    pub(super) observes_pods: bool,
    /// Folders of homes that could not be listed.
    pub(super) hidden: Vec<Hidden>,
    /// By where they lie below the operator's folder, the homes of agents that are pods, with their rows.
    pub(super) homes_of_pods: HashMap<PathBuf, String>,
    /// Rows whose pods go by another name now.
    pub(super) renamed: HashSet<String>,
}

impl Pass {
    /// How many agents it found.
    pub fn agents(&self) -> usize {
        self.rows.len()
    }

    /// Finds out whose homes are those of pods: a template need not name the namespace.
    pub(super) fn find_homes_of_pods(&mut self, homes: &Homes, before: &BTreeMap<String, Known>) {
        // Of one that the cluster was not listed for yet it is known from before.
        let before = before.iter().filter(|(key, _)| self.observes_pods && !self.renamed.contains(*key));
        for (key, known) in before.chain(&self.rows) {
            let AgentKey { source, namespace, name } = &known.fact.key;
            if *source != RuntimeSource::Kubernetes {
                continue;
            }
            if let Some(home) = homes.home_of(namespace, name) {
                self.homes_of_pods.insert(home.place().to_owned(), key.clone());
            }
        }
    }

    /// Shows an agent of a cluster that was not listed yet as it was known, with its file's word, and by nothing else.
    fn show_home_of_pod(
        &mut self,
        homes: &Homes,
        home: &Home,
        pod_key: String,
        before: &BTreeMap<String, Known>,
    ) {
        let Some(known) = before.get(&pod_key).filter(|_| !self.rows.contains_key(&pod_key)) else { return };
        let said = homes.read(home).ok().flatten().map(|said| match has_ended(&known.fact.fact) {
            true => corrected(said, &known.fact.fact),
            false => said,
        });
        self.rows.insert(pod_key, Known { said, ..known.clone() });
    }

    pub(super) fn look_at_home(
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
        if let Some(pod_key) = self.homes_of_pods.get(home.place()).cloned() {
            self.show_home_of_pod(homes, home, pod_key, before);
            return;
        }
        let key = row_key(&agent);
        let known = before.get(&key);
        let (said, mut failure) = match homes.read(home) {
            Ok(said) => (said, None),
            Err(error) => (None, Some(error)),
        };
        let has_file = said.is_some() || failure.is_some();
        if !has_file && !known.is_some_and(|known| is_recent(&known.fact.fact, now)) {
            // No agent has lived here, or nobody remembers it.
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
        if !has_file && seen == Seen::Unknown && !known.is_some_and(|known| has_ended(&known.fact.fact)) {
            // Its file was taken away, and nobody can tell whether it lives.
            return;
        }
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
        if !has_file && seen == Seen::Runs {
            warnings.push("it runs, and its file is gone".to_owned());
        }
        warnings.extend(said.as_ref().and_then(|said| stale(said, seen, &local.epoch, now)));
        let run = said.as_ref().and_then(|said| said.run.clone());
        let run = run.or_else(|| known.and_then(|known| known.fact.run.clone()));
        let fact = AgentFact { key: agent, run, node: None, fact };
        if !known.is_some_and(|known| is_stored(&known.fact, &fact)) {
            self.changed.push(fact.clone());
        }
        self.rows.insert(key, Known { fact, said, warnings });
    }

    /// Brings what is known into the agent's file, where that is shared: what it says then, and what failed.
    pub(super) fn persist(
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

    /// Counts a file that could not be read or written, and tells it once. What is shown of it.
    pub(super) fn failed(
        &mut self,
        path: &Path,
        error: &groundcrew_durable::Error,
        known: Option<&Known>,
    ) -> String {
        self.failures += 1;
        let text = format!("its file is not kept: {}", causes::chain(error));
        if !known.is_some_and(|known| known.warnings.contains(&text)) {
            tracing::warn!(path = %path.display(), error = causes::chain(error), "agent-info.json not reconciled");
        }
        text
    }

    /// Keeps what is known of an agent that this pass has not met: one that ended for as long as it is shown, one of a
    /// cluster until that was listed.
    pub(super) fn keep(&mut self, key: &str, known: &Known, now: WallMs) {
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

/// Why nobody should rely on what a file says, where that is so.
pub(super) fn stale(said: &AgentInfo, seen: Seen, epoch: &str, now: WallMs) -> Option<String> {
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
