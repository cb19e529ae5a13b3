//! Outcomes that the orchestrator must have: on the disk before they are sent, and kept until the run ends.
//!
//! ```text
//!   put ──> outbox/ ──acknowledge──> kept/ ──forget_run──> gone
//!              └──────refuse───────> refused/   (for people; the reason lies beside it)
//! ```
//!
//! The control loop owns this and asks it; the disk is touched on the I/O thread alone. Where the disk fails,
//! outcomes stay in memory, bounded, and [`Outbox::retry`] writes them when it can. A crash between the
//! answer and the move to `kept/` has the outcome sent once more, which the orchestrator answers `repeated`.

mod store;

use std::sync::Arc;

use groundcrew_durable::Error;
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::limits::OUTBOX_MAX;
use groundcrew_protocol::order;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{OutboxEntry, ResultRequest};

use crate::home::Home;
use crate::io_thread::{IoError, IoThread};
use store::{Place, Store};

/// Outcomes that are held in memory while the disk fails. Each is at most one message of the wire, 1 MiB, and
/// a run that goes on without its disk makes one a stage.
const IN_MEMORY_MAX: usize = 32;

/// What became of an outcome that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It outlives the agent, and, in a durable home, the machine's power.
    Durable,
    /// The disk failed: it lives as long as this process.
    InMemory,
    /// This attempt has an outcome already, which stands.
    AlreadyThere,
}

impl Put {
    /// Where it is kept, behind `the outcome is kept`.
    pub fn describe(self) -> &'static str {
        match self {
            Put::Durable => "on the disk",
            Put::InMemory => "in memory alone, as the disk failed: it lives as long as this agent",
            Put::AlreadyThere => "already, from this attempt, and stands",
        }
    }
}

/// Why an outcome was not taken, or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// So many wait for an answer that there is no room.
    #[error("the outbox is full: {unacknowledged} outcomes wait for the orchestrator")]
    Full {
        /// How many.
        unacknowledged: usize,
    },
    /// The disk will not.
    #[error("the outbox")]
    Disk {
        /// What it says.
        #[from]
        source: IoError<Error>,
    },
}

/// What is known of one outcome.
#[derive(Debug)]
struct Known {
    entry: OutboxEntry,
    /// Greater for a later one.
    order: u64,
    /// Its content, while no disk has it.
    in_memory: Option<Arc<ResultRequest>>,
    /// It is acknowledged, and its file does not lie in `kept/` yet.
    moves: bool,
}

/// The outcomes of one run.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    io: IoThread,
    known: Vec<Known>,
}

impl Outbox {
    /// Reads what an earlier agent left. Blocks: before the loop starts. The second value is what has to be
    /// said: files that were broken or another run's, and are now elsewhere.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(home: &Home, io: IoThread) -> Result<(Outbox, Vec<String>), Error> {
        let store = Store::new(home.path(), &home.run().run);
        let mut notes = Vec::new();
        let mut known = Vec::new();
        for place in [Place::Outbox, Place::Kept] {
            for (order, result) in store.read_all(place, &mut notes)? {
                let (stage, attempt, made_under) = (result.stage, result.attempt, result.made_under);
                let acknowledged = place == Place::Kept;
                let entry = OutboxEntry { stage, attempt, made_under, acknowledged };
                known.push(Known { entry, order, in_memory: None, moves: false });
            }
        }
        // A crash in the middle of a move cannot leave both; a copied file can. What is unanswered goes first.
        order::sort_by_key(&mut known, |known| (known.entry.acknowledged, known.order));
        let mut seen = std::collections::HashSet::new();
        known.retain(|known| seen.insert((known.entry.stage.clone(), known.entry.attempt)));
        order::sort_by_key(&mut known, |known| known.order);
        Ok((Outbox { store, io, known }, notes))
    }

    /// All outcomes in the order in which they were made, acknowledged ones too: what a claim lists.
    pub fn entries(&self) -> Vec<OutboxEntry> {
        self.known.iter().map(|known| known.entry.clone()).collect()
    }

    /// How many outcomes live in memory only.
    pub fn in_memory(&self) -> usize {
        self.known.iter().filter(|known| known.in_memory.is_some()).count()
    }

    /// Takes an outcome; its `claim` is not kept, since it is the sender's. It may be sent once this returns.
    ///
    /// # Errors
    /// [`OutboxError::Full`]: it was not taken. A failing disk is no error here, see [`Put::InMemory`].
    pub async fn put(&mut self, result: ResultRequest) -> Result<Put, OutboxError> {
        if self.find(&result.stage, result.attempt).is_some() {
            return Ok(Put::AlreadyThere);
        }
        self.make_room().await?;
        let order = self.known.last().map_or(0, |last| last.order + 1);
        let entry = OutboxEntry {
            stage: result.stage.clone(),
            attempt: result.attempt,
            made_under: result.made_under,
            acknowledged: false,
        };
        let result = Arc::new(result);
        self.known.push(Known { entry, order, in_memory: Some(result.clone()), moves: false });
        let at = self.known.len() - 1;
        Ok(if self.write(at, order, result).await { Put::Durable } else { Put::InMemory })
    }

    /// The content of an outcome, to be sent under the present claim; `None` where there is no such outcome.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn load(
        &self,
        stage: &Stage,
        attempt: Attempt,
    ) -> Result<Option<Arc<ResultRequest>>, OutboxError> {
        let Some(at) = self.find(stage, attempt) else { return Ok(None) };
        let known = &self.known[at];
        if let Some(result) = &known.in_memory {
            return Ok(Some(result.clone()));
        }
        let (store, stage) = (self.store.clone(), stage.clone());
        let read = move || store.read(&stage, attempt);
        Ok(self.io.run("reading an outcome", read).await?.map(Arc::new))
    }

    /// The orchestrator has it: it is kept until the run ends. What the disk says to that goes into the
    /// home's health, and [`retry`](Self::retry) tries again.
    pub async fn acknowledge(&mut self, stage: &Stage, attempt: Attempt) {
        let Some(at) = self.find(stage, attempt) else { return };
        let known = &mut self.known[at];
        known.entry.acknowledged = true;
        known.moves = true;
        if known.in_memory.is_none() {
            self.move_to_kept(at).await;
        }
    }

    /// The orchestrator will never take it: it goes to `refused/` with the reason beside it, for people.
    ///
    /// # Errors
    /// Those of the disk; the outcome has left the outbox all the same, so that it goes on.
    pub async fn refuse(&mut self, stage: &Stage, attempt: Attempt, why: &str) -> Result<(), OutboxError> {
        let Some(at) = self.find(stage, attempt) else { return Ok(()) };
        let known = self.known.remove(at);
        let (store, stage, why) = (self.store.clone(), stage.clone(), why.to_owned());
        let order = known.order;
        let move_it = move || {
            if let Some(result) = known.in_memory {
                store.write(order, &result)?;
            }
            store.refuse(&stage, attempt, &why)
        };
        Ok(self.io.run("moving an outcome to refused/", move_it).await?)
    }

    /// The run has ended and is told everything: acknowledged outcomes are no longer needed.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn forget_run(&mut self) -> Result<(), OutboxError> {
        let (gone, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.known).into_iter().partition(|known| known.entry.acknowledged);
        self.known = rest;
        let store = self.store.clone();
        let entries: Vec<OutboxEntry> = gone.into_iter().map(|known| known.entry).collect();
        let forget = move || entries.iter().try_for_each(|entry| store.remove(&entry.stage, entry.attempt));
        Ok(self.io.run("removing outcomes of an ended run", forget).await?)
    }

    /// Another life of the orchestrator's store may have forgotten what an earlier one acknowledged: everything that
    /// is kept goes back into the outbox, to be sent again. What the disk says goes into the home's health.
    pub async fn reoffer(&mut self) {
        for at in 0..self.known.len() {
            let known = &mut self.known[at];
            if !known.entry.acknowledged {
                continue;
            }
            known.entry.acknowledged = false;
            known.moves = false;
            if known.in_memory.is_some() {
                continue;
            }
            let (store, entry) = (self.store.clone(), known.entry.clone());
            let offer = move || store.offer(&entry.stage, entry.attempt);
            // Where this fails the file stays in kept/, from which it is read and sent all the same.
            let _in_the_health = self.io.run("moving an outcome back to outbox/", offer).await;
        }
    }

    /// Writes what lives in memory only, and makes the moves that failed. To be called now and then.
    pub async fn retry(&mut self) {
        for at in 0..self.known.len() {
            if let Some(result) = self.known[at].in_memory.clone() {
                let order = self.known[at].order;
                if !self.write(at, order, result).await {
                    return;
                }
            }
            if self.known[at].moves {
                self.move_to_kept(at).await;
            }
        }
    }

    fn find(&self, stage: &Stage, attempt: Attempt) -> Option<usize> {
        self.known.iter().position(|known| known.entry.stage == *stage && known.entry.attempt == attempt)
    }

    /// Lets the oldest acknowledged outcomes go until there is room for one more.
    async fn make_room(&mut self) -> Result<(), OutboxError> {
        let unacknowledged = self.known.iter().filter(|known| !known.entry.acknowledged).count();
        if unacknowledged >= OUTBOX_MAX || self.in_memory() >= IN_MEMORY_MAX {
            return Err(OutboxError::Full { unacknowledged });
        }
        while self.known.len() >= OUTBOX_MAX {
            let oldest = self.known.iter().position(|known| known.entry.acknowledged);
            let known = self.known.remove(oldest.expect("not all of them wait for an answer"));
            let store = self.store.clone();
            let remove = move || store.remove(&known.entry.stage, known.entry.attempt);
            // Its file is only offered once more after a restart, which changes nothing.
            drop(self.io.run("removing an old outcome", remove).await);
        }
        Ok(())
    }

    /// True once the disk has it. The health knows why not.
    async fn write(&mut self, at: usize, order: u64, result: Arc<ResultRequest>) -> bool {
        let store = self.store.clone();
        let written = self.io.run("writing an outcome", move || store.write(order, &result)).await.is_ok();
        if written {
            self.known[at].in_memory = None;
        }
        written
    }

    async fn move_to_kept(&mut self, at: usize) {
        let (store, entry) = (self.store.clone(), self.known[at].entry.clone());
        let keep = move || store.keep(&entry.stage, entry.attempt);
        if self.io.run("moving an outcome to kept/", keep).await.is_ok() {
            self.known[at].moves = false;
        }
    }
}

#[cfg(test)]
mod tests;
