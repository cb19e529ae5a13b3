//! The orchestrator's drains: what operators want is compared with what agents say, as the task `drains` does it.

use groundcrew_orchestrator::run::decide::Input;
use groundcrew_orchestrator::run::state::WaitFor;
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{DrainId, RandomId};
use groundcrew_protocol::wire::Heartbeat;

use super::Server;

/// A drain of the node that holds until it is ended, or until its time is over.
#[derive(Debug, Clone)]
pub struct Wanted {
    id: DrainId,
    /// On the clock of listening.
    until_ms: Option<u64>,
}

/// What the agent last said of drains. It goes with the orchestrator's process, and with the agent's home.
#[derive(Debug)]
pub(super) struct Said {
    instance: Option<RandomId>,
    drains: Vec<DrainId>,
    max_age_ms: Option<u64>,
    /// It drains, and nothing of the run is active.
    waits: bool,
}

/// An agent that is heard holds a drain whose reason is over for no more heartbeats than this: a few answers are lost, a disk
/// refuses now and then, and orders wait for one another.
const OVERDUE_MAX: u32 = 40;

impl Server {
    /// What the node is to be drained for now.
    pub fn wanted(&self) -> Vec<DrainOrder> {
        let order = |drain: &Wanted| DrainOrder {
            id: drain.id.clone(),
            suppress_notification: false,
            reason: String::new(),
        };
        self.store.drains.iter().map(order).collect()
    }

    /// An operator drains the node, for a while or until somebody ends it.
    pub fn drain(&mut self, number: u64, for_ms: Option<u64>) {
        let id = format!("d-{number}").parse().expect("a drain's id");
        let until_ms = for_ms.map(|for_ms| self.listened_ms + for_ms);
        self.store.drains.push(Wanted { id, until_ms });
    }

    /// An operator ends the oldest drain. False where there is none.
    pub fn undrain(&mut self) -> bool {
        let some = !self.store.drains.is_empty();
        self.store.drains.drain(..usize::from(some));
        some
    }

    fn instance(&self) -> Option<RandomId> {
        self.store.run.claim.as_ref().and_then(|claim| claim.instance.clone())
    }

    pub(super) fn heard_of_drains(&mut self, heartbeat: &Heartbeat) {
        let is_wanted = |id: &DrainId| self.store.drains.iter().any(|drain| drain.id == *id);
        let over: Vec<DrainId> = heartbeat.drains.iter().filter(|id| !is_wanted(id)).cloned().collect();
        self.overdue.retain(|(claim, id), _| *claim == heartbeat.claim && over.contains(id));
        for id in over {
            let count = self.overdue.entry((heartbeat.claim, id.clone())).or_default();
            *count += 1;
            if *count > OVERDUE_MAX {
                self.broken.push(format!("drain {id} is over, and holds its node on"));
            }
        }
        let waits = !heartbeat.drain.is_empty() && heartbeat.stage.is_none();
        let (drains, max_age_ms) = (heartbeat.drains.clone(), heartbeat.drain_max_age_ms);
        self.said = Some(Said { instance: self.instance(), drains, max_age_ms, waits });
    }

    /// A pass of the task.
    pub(super) fn compare_drains(&mut self) {
        let listened_ms = self.listened_ms;
        self.store.drains.retain(|drain| drain.until_ms.is_none_or(|until_ms| listened_ms < until_ms));
        let instance = self.instance();
        // Another home: what the one before said is nothing to this one.
        let Some(said) = self.said.take().filter(|said| said.instance == instance) else { return };
        let (held, max_age_ms, waits) = (said.drains.clone(), said.max_age_ms, said.waits);
        self.said = Some(said);
        let wanted = self.wanted();
        let due = !(wanted.is_empty() && held.is_empty() && self.store.run.drains.is_empty());
        let compare = due.then_some(Input::Drains { wanted, held, max_age_ms });
        let waits_for = self.store.run.wait.as_ref().map(|wait| wait.what);
        let wait = match waits_for {
            Some(WaitFor::Result) if waits => Some(Input::AttemptWaits(true)),
            Some(WaitFor::Drain) if !waits => Some(Input::AttemptWaits(false)),
            Some(
                WaitFor::Result
                | WaitFor::Drain
                | WaitFor::Claim
                | WaitFor::Operator
                | WaitFor::Reboot
                | WaitFor::Successor
                | WaitFor::Farewell,
            )
            | None => None,
        };
        self.waited_for_drains += u32::from(matches!(wait, Some(Input::AttemptWaits(true))));
        for input in compare.into_iter().chain(wait) {
            if let Err(failure) = self.decide(input) {
                self.broken.push(format!("a comparison of drains was refused: {}", failure.text()));
            }
        }
    }
}
