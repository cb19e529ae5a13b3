//! The pods of agents, as an observer of their cluster keeps them up to date and passes read them. What happens in a
//! cluster is only ever the next state of this table: it does not matter in which order, how often or whether at all
//! an event came.

use std::collections::{BTreeMap, HashSet};

use groundcrew_protocol::agent_info::{AgentInfo, Ending, InfoPhase, RuntimeFact, RuntimeState};
use groundcrew_protocol::time::WallMs;

use crate::store::AgentFact;

/// The reason that is shown of a pod that is being deleted, where the cluster gives none.
pub const TERMINATING: &str = "Terminating";

/// A pod of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct PodSeen {
    /// What it says of the agent. Its life is called by the pod's uid.
    pub fact: AgentFact,
    /// Its own name.
    pub pod: String,
    /// When it was made: of two of one agent the later counts.
    pub created: WallMs,
    /// Which end of it this is, where it is one.
    pub end: String,
    /// What is not as it should be.
    pub warning: Option<String>,
}

impl PodSeen {
    /// The pod's uid.
    pub fn uid(&self) -> &str {
        self.fact.fact.life.runtime_id.as_deref().unwrap_or_default()
    }

    fn has_ended(&self) -> bool {
        matches!(self.fact.fact.state, RuntimeState::Ended { .. })
    }
}

/// All pods that are known of, by uid.
#[derive(Debug, Default)]
pub struct Pods {
    /// With the version of each, where the cluster's versions are numbers.
    pods: BTreeMap<String, (Option<u64>, PodSeen)>,
    /// Ends that no pass has read yet: they outlive the pod.
    unread: HashSet<String>,
    /// The cluster has been listed once.
    is_listed: bool,
    /// The greatest version that the last list showed.
    listed: Option<u64>,
    /// Pods that were deleted since then. A uid never comes back; an old event of it may.
    deleted: HashSet<String>,
}

impl Pods {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// Takes what a list shows: all there is. Ends that no pass has read stay until one has.
    pub fn replace(&mut self, listed: impl IntoIterator<Item = (Option<u64>, PodSeen)>) {
        self.is_listed = true;
        let mut before = std::mem::take(&mut self.pods);
        let unread = std::mem::take(&mut self.unread);
        before.retain(|uid, _| unread.contains(uid));
        self.deleted.clear();
        self.listed = None;
        let listed: Vec<_> = listed.into_iter().collect();
        let latest = listed.iter().filter_map(|(version, _)| *version).max();
        for (version, pod) in listed {
            before.remove(pod.uid());
            self.put(version, pod);
        }
        for (version, pod) in before.into_values() {
            self.put(version, pod);
        }
        self.listed = latest;
    }

    /// Takes what is said of one pod, unless something later is known. True where that changed something.
    pub fn put(&mut self, version: Option<u64>, pod: PodSeen) -> bool {
        let uid = pod.uid().to_owned();
        if let Some((known, before)) = self.pods.get(&uid)
            && (known.zip(version).is_some_and(|(known, version)| version < known) || *before == pod)
        {
            return false;
        }
        // Of one that the list does not show, only what came after the list is news.
        let is_old = version.zip(self.listed).is_some_and(|(version, listed)| version <= listed);
        if self.deleted.contains(&uid) || is_old && !self.pods.contains_key(&uid) {
            return false;
        }
        if pod.has_ended() {
            self.unread.insert(uid.clone());
        }
        self.pods.insert(uid, (version, pod));
        true
    }

    /// A pod was deleted, in the state that is given. One that had ended stays until a pass has read that.
    pub fn remove(&mut self, version: Option<u64>, pod: PodSeen) {
        let uid = pod.uid().to_owned();
        self.put(version, pod);
        self.deleted.insert(uid.clone());
        if !self.unread.contains(&uid) {
            self.pods.remove(&uid);
        }
    }

    /// Reads all of them, for a pass. `None` before the cluster was listed: until then nobody knows what there is.
    pub fn read(&mut self) -> Option<Table> {
        if !self.is_listed {
            return None;
        }
        self.unread.clear();
        let mut agents: BTreeMap<String, PodSeen> = BTreeMap::new();
        for (_, pod) in self.pods.values() {
            let key = super::row_key(&pod.fact.key);
            let is_later =
                agents.get(&key).is_none_or(|other| (other.created, other.uid()) < (pod.created, pod.uid()));
            if is_later {
                agents.insert(key, pod.clone());
            }
        }
        let ended = self.pods.values().filter(|(_, pod)| pod.has_ended()).map(|(_, pod)| pod.clone());
        Some(Table { agents, ended: ended.collect(), uids: self.pods.keys().cloned().collect() })
    }
}

/// What a pass reads of them.
#[derive(Debug)]
pub struct Table {
    /// Each agent by its latest pod.
    pub agents: BTreeMap<String, PodSeen>,
    /// Every pod that ended.
    pub ended: Vec<PodSeen>,
    /// All there are.
    pub uids: HashSet<String>,
}

/// That the pod of an agent is no more, and nobody saw how it ended but the agent itself, which may have said so.
/// Why a pod was about to go is in what is known of it, `Phase (Reason)`.
pub(super) fn deleted(known: &AgentFact, said: Option<&AgentInfo>, now: WallMs) -> AgentFact {
    let last = reason_in(&known.fact);
    let status = last.map_or_else(|| "Deleted".to_owned(), |reason| format!("Deleted ({reason})"));
    let (ending, detail) = match said.and_then(|said| said.phase.as_ref()) {
        Some(InfoPhase::Stopped) => (Ending::Stopped, String::new()),
        // Why is in its own words.
        Some(InfoPhase::Error) => (Ending::Error, String::new()),
        Some(
            InfoPhase::Created
            | InfoPhase::Provisioning
            | InfoPhase::Cloning
            | InfoPhase::Starting
            | InfoPhase::Running
            | InfoPhase::Stopping
            | InfoPhase::Ended
            | InfoPhase::Unknown(_),
        )
        | None => {
            let reason = last.unwrap_or("Deleted");
            (Ending::Error, format!("{reason}: its pod was deleted before it ended"))
        }
    };
    let reason = last.unwrap_or("Deleted").to_owned();
    let state = RuntimeState::Ended { ending, exit: None, reason, detail };
    // Whatever container wrote the file last, by whatever clock: it has gone with its pod.
    let at = now.max(said.and_then(|said| said.started_at).unwrap_or(now));
    let fact = RuntimeFact { state, container_status: status, at, ..known.fact.clone() };
    AgentFact { fact, ..known.clone() }
}

/// The reason in a container's status that a pod had which ran, where that is one.
fn reason_in(fact: &RuntimeFact) -> Option<&str> {
    let (_, reason) = fact.container_status.strip_suffix(')')?.split_once(" (")?;
    // That it is on its way out is no reason of it.
    (reason != TERMINATING).then_some(reason)
}
