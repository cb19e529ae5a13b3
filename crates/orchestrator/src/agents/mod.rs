//! Agents as their runtimes know them: which there are, how each stands, and the files that say so.
//!
//! ```text
//!   homes      where homes lie, what their files say, what is written into them
//!   process    a process of this host that is held          local   what that says of an agent
//!   cgroup     whether the kernel ended one for want of memory
//!   pods       the pods of agents, as an observer of their cluster keeps them
//!   pass       what a pass finds, in homes      of_pods    and in a cluster      facts   what follows from it: pure
//!   list       the rows that operators see
//! ```
//!
//! A pass looks at everything there is, brings it into the files, and gives what is to be stored and told. It takes no
//! input but the world and what the store knew, so that whatever failed in one is done by the next. Blocking; the task
//! `agents` calls it. It decides nothing about runs.

mod cgroup;
mod facts;
pub mod homes;
pub mod list;
mod local;
mod of_pods;
mod pass;
pub mod pods;
mod process;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use groundcrew_protocol::agent_info::{AgentInfo, AgentLife, RuntimeSource};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::time::WallMs;
use tokio::sync::Notify;

use crate::run::runtime::RuntimeEnded;
use crate::store::{AgentFact, AgentKey};
use facts::end_of;
use homes::{Hidden, Homes};
use local::{Local, Seen, fact_of};
pub use pass::Pass;
pub use pods::{PodSeen, Pods};

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

/// All that is known, in order.
type Rows = Arc<BTreeMap<String, Known>>;

/// What runtimes know of agents.
#[derive(Debug)]
pub struct Agents {
    homes: Option<Homes>,
    /// Absent where no cluster is observed.
    pods: Option<Mutex<Pods>>,
    local: Mutex<Local>,
    /// What is stored: what the next pass begins with.
    known: Mutex<Rows>,
    /// What the last pass found: what everybody is shown, before any run is told of it.
    shown: Mutex<Rows>,
    failures: AtomicU64,
    /// Folders of homes that the last pass could not list: told once.
    hidden: Mutex<HashSet<PathBuf>>,
    /// Something has happened that the next pass should not wait for.
    pub wake: Notify,
}

fn get(rows: &Mutex<Rows>) -> Rows {
    rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn put(rows: &Mutex<Rows>, new: Rows) {
    *rows.lock().unwrap_or_else(PoisonError::into_inner) = new;
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
            shown: Mutex::default(),
            failures: AtomicU64::new(0),
            hidden: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Gives the table of pods to who observes them, or reads it.
    pub fn with_pods<T>(&self, work: impl FnOnce(&mut Pods) -> T) -> Option<T> {
        let mut pods = self.pods.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&mut pods))
    }

    /// Takes in what the store knew, before the first pass.
    pub fn load(&self, facts: Vec<AgentFact>) {
        let known = |fact: AgentFact| Known { fact, said: None, warnings: Vec::new() };
        let rows: BTreeMap<String, Known> =
            facts.into_iter().map(|fact| (row_key(&fact.key), known(fact))).collect();
        put(&self.known, Arc::new(rows));
        put(&self.shown, get(&self.known));
    }

    /// All that is known, in order.
    pub fn rows(&self) -> Vec<Known> {
        get(&self.shown).values().cloned().collect()
    }

    /// Files that could not be read or written, counted by passes since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Shows what a pass found. Its files say so already, and runs are told of it afterwards, so that whoever learns of an
    /// end from one of them finds it in the others.
    pub fn show(&self, pass: &mut Pass) {
        put(&self.shown, Arc::new(std::mem::take(&mut pass.rows)));
    }

    /// What is shown is stored: it is what is known from now on.
    pub fn stored(&self) {
        put(&self.known, get(&self.shown));
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
        let before = get(&self.known);
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pass = Pass { observes_pods: self.pods.is_some(), ..Pass::default() };
        if let Some(table) = self.with_pods(Pods::read).flatten() {
            pass.look_at_pods(self.homes.as_ref(), table, &before, now);
        }
        if let Some(homes) = &self.homes {
            pass.find_homes_of_pods(homes, &before);
            let found = homes.found()?;
            pass.left_out = found.left_out;
            for home in found.homes {
                pass.look_at_home(homes, &home, &before, &mut local, now);
            }
            pass.failures += found.hidden.len() as u64;
            self.note_hidden(&found.hidden);
            pass.hidden = found.hidden;
        }
        for (key, known) in before.iter() {
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_pods;
