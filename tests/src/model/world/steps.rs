//! What must hold after every step. What can only be broken by one kind of step is checked where that step is made: a start of
//! a stage in `act`, a chunk of log and its answer in `logs` and `lines`, a decision and an old claim in `server`.

use super::super::agent::Machine;
use super::super::server::Store;
use super::World;

impl World {
    /// Notes what does not hold.
    pub(super) fn check(&mut self) {
        self.broken.append(&mut self.server.broken);
        let store = &self.server.store;
        let lost = self.machines.iter().filter_map(|machine| lost_outcome(machine, store));
        self.broken.extend(lost);
    }
}

/// An outcome that a home keeps as acknowledged and that is in the store neither as the one that stands nor as evidence. A
/// home that has yet to hear of a restore keeps what was acknowledged before it.
fn lost_outcome(machine: &Machine, store: &Store) -> Option<String> {
    let home = machine.home.as_ref().filter(|home| home.memory.generation == store.generation)?;
    let (entry, tag) = home.outbox.iter().find(|(entry, tag)| {
        let which = (entry.stage.clone(), entry.attempt);
        let is_kept = || store.evidence.contains(&(entry.stage.clone(), entry.attempt, *tag));
        entry.acknowledged && store.first.get(&which) != Some(tag) && !is_kept()
    })?;
    let (stage, attempt) = (&entry.stage, entry.attempt);
    Some(format!("outcome {tag} ({stage} attempt {attempt}) is kept as acknowledged and is not stored"))
}
