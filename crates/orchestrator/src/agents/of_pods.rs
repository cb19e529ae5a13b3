//! What a pass does with the pods of a cluster, as their observer keeps them.

use std::collections::BTreeMap;

use groundcrew_protocol::agent_info::{RuntimeFact, RuntimeSource, RuntimeState};
use groundcrew_protocol::time::WallMs;

use super::facts::{end_of, has_ended, is_recent, is_stored};
use super::homes::Homes;
use super::local::Seen;
use super::pass::{Pass, stale};
use super::pods::{self, PodSeen};
use super::{Known, row_key};
use crate::store::AgentFact;

impl Pass {
    /// Looks at the agents of a cluster, each by its latest pod. What was known of a pod that is no more has ended,
    /// whoever has the agent's name by now; whether it is there is judged by its uid.
    pub(super) fn look_at_pods(
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
