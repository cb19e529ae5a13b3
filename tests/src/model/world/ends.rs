//! What must hold at the end.

use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::stage::Stage;

use super::World;

impl World {
    /// The end of the world: everything that is still to be sent is sent, and then it all adds up.
    pub(super) fn end(&mut self) -> Result<(), String> {
        for agent in 0..self.machines.len() {
            self.empty_spool(agent)?;
        }
        self.check();
        if let Some(broken) = self.broken.first() {
            return Err(broken.clone());
        }
        for agent in 0..self.machines.len() {
            if self.machines[agent].core.as_ref().is_some_and(|core| core.claim().is_some()) {
                self.check_lines(agent)?;
            }
        }
        self.check_streams()?;
        self.tally.proved = self.server.proved;
        self.tally.waited = self.server.waited_for_drains;
        self.tally.missed = self.server.missed;
        self.tally.resets_seen = self.server.resets_seen;
        self.check_end()
    }

    /// At the end: what a surviving home keeps as acknowledged is in the store, and what it could not say is refused, by name.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        for machine in &self.machines {
            let claimed = machine.core.as_ref().is_some_and(|core| core.claim().is_some());
            if !claimed {
                continue; // Displaced, or gone: it keeps what it has.
            }
            for (((stage, attempt), tag), acknowledged) in machine.outcomes() {
                let stage = Stage::from(stage);
                let attempt = Attempt(attempt);
                let first = self.server.store.first.get(&(stage.clone(), attempt)) == Some(&tag);
                let kept = self.server.store.evidence.contains(&(stage.clone(), attempt, tag));
                if acknowledged && !first && !kept {
                    return Err(format!(
                        "outcome {tag} ({stage} attempt {attempt}) was acknowledged and is lost"
                    ));
                }
                if !acknowledged {
                    return Err(format!("outcome {tag} ({stage} attempt {attempt}) was never acknowledged"));
                }
            }
        }
        Ok(())
    }
}
