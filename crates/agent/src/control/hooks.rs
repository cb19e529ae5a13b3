//! When which hook of the node runs, and what is still owed. Pure: the control loop says what it sees, and does what comes
//! of it.
//!
//! ```text
//!   a drain holds ──▶ nothing else is active ──▶ the debt is kept ──▶ drain.before, until it succeeds ──▶ drained
//!   none holds    ──▶ a debt?  drain.after, until it succeeds ──▶ the debt is struck off
//!                 └─▶ none: ready.on_completed or ready.on_hold, once for each end and each hold, until it succeeds
//! ```
//!
//! What a `before` has done is undone whoever dies meanwhile: the debt is on the disk before the hook runs, and is struck off
//! after the undo has succeeded. A `before` that has not succeeded counts as active, so that nobody who asked for the drain
//! acts before it has. One hook runs at a time. One that starts something new, any but `before`, is registered as active
//! first, then the marker is read, as for a stage.

use std::time::Duration;

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::profile::{HookCommand, Hooks};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;

/// Its name in the home.
pub const FILE: &str = "hooks.json";
/// The first pause after a failed try, and the longest. Something else must come right meanwhile: a budget of disruptions, a
/// controller that is being restarted.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_LONGEST: Duration = Duration::from_secs(300);
/// A hook that failed so often holds up no power-off any longer, and no end of the agent.
const TRIES_BEFORE_END: u32 = 3;

/// A hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// `drain.before`.
    BeforeDrain,
    /// `drain.after`.
    AfterDrain,
    /// `ready.on_completed`.
    OnCompleted,
    /// `ready.on_hold`.
    OnHold,
}

impl Which {
    /// Its key in the file of hooks.
    pub fn key(self) -> &'static str {
        match self {
            Which::BeforeDrain => "drain.before",
            Which::AfterDrain => "drain.after",
            Which::OnCompleted => "ready.on_completed",
            Which::OnHold => "ready.on_hold",
        }
    }
}

/// What outlives the agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What a `before` that was begun owes.
    #[serde(default)]
    pub owes: Option<Debt>,
    /// The end or hold of a run that its hook was run for.
    #[serde(default)]
    pub told: Option<Told>,
    /// What a newer version wrote, kept for it.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A `before` was begun and is not undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Debt {
    /// It succeeded, and no undo of it was begun since.
    #[serde(default)]
    pub is_drained: bool,
    /// Only a stage's drain has asked for it: the run may go on with another one.
    #[serde(default)]
    pub is_stages: bool,
    /// The boot epoch under which it was begun: what a boot starts anew, only another `before` takes off again.
    #[serde(default)]
    pub epoch: String,
    /// What undoes it, as the file of hooks said then; the file counts where it still names one.
    #[serde(default)]
    pub after: Option<HookCommand>,
}

/// A hook of `[ready]` that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// For which run.
    pub run: RunId,
    /// Which.
    pub which: Which,
}

/// Where the run stands, as far as hooks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nobody has said.
    Unknown,
    /// On its way, or cancelled.
    Walking,
    /// At its end or in a hold, which this hook is for.
    At(Which),
}

/// What the control loop sees.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// A drain holds.
    pub drains: bool,
    /// It is a stage's own, and nobody else's.
    pub is_stages: bool,
    /// A stage is in flight.
    pub is_busy: bool,
    /// It is known where the run goes on, or was waited for: no other stage's drain follows at once.
    pub is_placed: bool,
    /// Where the run stands.
    pub place: Place,
    /// Whether the agent ends.
    pub ends: Ends,
}

/// Whether the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It does not.
    No,
    /// It does, and nothing more is begun: the next one goes on.
    Now,
    /// It does, and no other one comes by itself: what is owed is undone before.
    Undone,
}

impl Ends {
    /// Whether it lets this hook run.
    fn lets(self, which: Which) -> bool {
        match self {
            Ends::No => true,
            Ends::Now => false,
            Ends::Undone => which == Which::AfterDrain,
        }
    }
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Do {
    /// Keep this, durably, before anything that follows.
    Keep(Kept),
    /// Read the marker for the hook that is registered.
    Look,
    /// Run a hook.
    Start(Which, HookCommand),
    /// End the hook that runs.
    End,
}

/// What came of a hook that ran.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    /// It succeeded; this is to be kept.
    Done(Kept),
    /// It was ended because nobody needed it any more, and said this.
    Ended(String),
    /// It failed, and is tried again after the pause.
    Failed {
        /// Why.
        why: String,
        /// How often so far, without a success between.
        tries: u32,
        /// How long until then.
        pause: Duration,
    },
}

#[derive(Debug, Clone, PartialEq)]
struct Failed {
    which: Which,
    tries: u32,
    again_ms: u64,
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Rest,
    /// Registered; the marker is being read.
    Enters(Which),
    /// The marker was read and does not drain; good for this step alone.
    Clear(Which),
    Runs {
        which: Which,
        is_ended: bool,
    },
}

/// The hooks of a node.
#[derive(Debug)]
pub struct Desk {
    run: RunId,
    epoch: String,
    hooks: Hooks,
    kept: Kept,
    at: At,
    failed: Option<Failed>,
    pauses: Backoff,
}

impl Desk {
    /// The hooks of a node, and what an earlier agent of this home has left.
    pub fn new(run: RunId, epoch: String, hooks: Hooks, mut kept: Kept) -> Desk {
        let pauses = Backoff::new(PAUSE_FIRST, PAUSE_LONGEST, PAUSE_LONGEST);
        if let Some(debt) = kept.owes.as_mut().filter(|debt| epoch.is_empty() || debt.epoch != epoch) {
            debt.is_drained = false;
        }
        Desk { run, epoch, hooks, kept, at: At::Rest, failed: None, pauses }
    }

    /// True where a drain has to be preceded by something that has not been done.
    fn owes_before(&self) -> bool {
        self.hooks.before_drain.is_some() && !self.kept.owes.as_ref().is_some_and(|debt| debt.is_drained)
    }

    /// The hook that is active: it runs, is about to, or a drain waits for it.
    pub fn active(&self, drains: bool) -> Option<Which> {
        match self.at {
            At::Enters(which) | At::Clear(which) | At::Runs { which, .. } => Some(which),
            At::Rest => (drains && self.owes_before()).then_some(Which::BeforeDrain),
        }
    }

    /// True while a hook runs.
    pub fn is_running(&self) -> bool {
        matches!(self.at, At::Runs { .. })
    }

    /// How often the hook has failed, and why the last time.
    pub fn failed(&self, which: Which) -> Option<(u32, &str)> {
        let failed = self.failed.as_ref().filter(|failed| failed.which == which);
        failed.map(|failed| (failed.tries, failed.why.as_str()))
    }

    /// When a hook that failed is tried again, on the loop's clock.
    pub fn wake_ms(&self) -> Option<u64> {
        self.failed.as_ref().filter(|_| !self.is_running()).map(|failed| failed.again_ms)
    }

    /// True where a hook is to be run before the power goes, or a drain holds, whose undo is one. A hook that fails keeps it
    /// on for three tries.
    pub fn keeps_power(&self, seen: &Seen) -> bool {
        let wanted = self.wanted(&Seen { is_placed: true, ..*seen });
        seen.drains || self.is_running() || wanted.is_some_and(|which| !self.is_tried(which))
    }

    /// True where the agent's end waits for the undo of what is owed. One that fails holds it up for three tries.
    pub fn keeps_up(&self, seen: &Seen) -> bool {
        let wanted = self.wanted(seen).filter(|which| seen.ends != Ends::No && seen.ends.lets(*which));
        wanted.is_some_and(|which| self.command(which).is_some() && !self.is_tried(which))
    }

    /// True where something is to be undone, and it is known how.
    pub fn owes(&self) -> bool {
        self.kept.owes.is_some() && self.command(Which::AfterDrain).is_some()
    }

    fn is_tried(&self, which: Which) -> bool {
        self.failed(which).is_some_and(|(tries, _)| tries >= TRIES_BEFORE_END)
    }

    fn wanted(&self, seen: &Seen) -> Option<Which> {
        if seen.drains {
            return self.owes_before().then_some(Which::BeforeDrain);
        }
        if let Some(debt) = &self.kept.owes {
            return (seen.is_placed || !debt.is_stages).then_some(Which::AfterDrain);
        }
        let Place::At(which) = seen.place else { return None };
        let is_told = self.told() == Some(which);
        self.command(which).filter(|_| !is_told).map(|_| which)
    }

    fn told(&self) -> Option<Which> {
        self.kept.told.as_ref().filter(|told| told.run == self.run).map(|told| told.which)
    }

    fn command(&self, which: Which) -> Option<&HookCommand> {
        match which {
            Which::BeforeDrain => self.hooks.before_drain.as_ref(),
            Which::AfterDrain => {
                let kept = || self.kept.owes.as_ref().and_then(|debt| debt.after.as_ref());
                self.hooks.after_drain.as_ref().or_else(kept)
            }
            Which::OnCompleted => self.hooks.on_completed.as_ref(),
            Which::OnHold => self.hooks.on_hold.as_ref(),
        }
    }

    /// True where an undo waits until it is known where the run goes on.
    pub fn waits_for_place(&self) -> bool {
        self.kept.owes.as_ref().is_some_and(|debt| debt.is_stages)
    }

    /// What to do where this is seen.
    pub fn step(&mut self, seen: &Seen, now_ms: u64) -> Vec<Do> {
        let mut todo = Vec::new();
        self.forget(seen, &mut todo);
        if let At::Runs { which, is_ended } = &mut self.at {
            let is_moot = *which == Which::BeforeDrain && !seen.drains;
            if (!seen.ends.lets(*which) || is_moot) && !std::mem::replace(is_ended, true) {
                todo.push(Do::End);
            }
            return todo; // Its end is told; nothing else is begun before.
        }
        let wanted = self.wanted(seen).filter(|which| seen.ends.lets(*which));
        let clear = match self.at {
            At::Clear(which) => Some(which),
            At::Rest | At::Enters(_) | At::Runs { .. } => None,
        };
        if !matches!((self.at, wanted), (At::Enters(which), Some(wanted)) if which == wanted) {
            self.at = At::Rest;
        }
        let Some(which) = wanted else {
            self.failed = None;
            return todo;
        };
        if self.failed.as_ref().is_some_and(|failed| failed.which != which) {
            self.failed = None;
        }
        if self.failed.as_ref().is_some_and(|failed| failed.again_ms > now_ms) {
            return todo;
        }
        match (self.command(which).cloned(), which) {
            // Nothing undoes it: nothing is owed.
            (None, _) => {
                self.kept.owes = None;
                todo.push(Do::Keep(self.kept.clone()));
            }
            (Some(_), Which::BeforeDrain) if seen.is_busy => {}
            (Some(command), Which::BeforeDrain) => {
                self.owe(seen);
                self.start(which, command, &mut todo);
            }
            (Some(command), Which::AfterDrain | Which::OnCompleted | Which::OnHold) => {
                if clear == Some(which) {
                    self.start(which, command, &mut todo);
                } else if self.at == At::Rest {
                    self.at = At::Enters(which);
                    todo.push(Do::Look);
                }
            }
        }
        todo
    }

    /// A run that goes on from its hold is told of the next one.
    fn forget(&mut self, seen: &Seen, todo: &mut Vec<Do>) {
        let is_past = match seen.place {
            Place::Unknown => false,
            Place::Walking => true,
            Place::At(which) => self.told().is_some_and(|told| told != which),
        };
        if is_past && self.kept.told.take().is_some() {
            todo.push(Do::Keep(self.kept.clone()));
        }
    }

    /// What the `before` that is about to begin owes.
    fn owe(&mut self, seen: &Seen) {
        let known = self.kept.owes.take().and_then(|debt| debt.after);
        let after = self.hooks.after_drain.clone().or(known);
        let (is_stages, epoch) = (seen.is_stages, self.epoch.clone());
        self.kept.owes = Some(Debt { is_drained: false, is_stages, epoch, after });
    }

    /// Runs a hook; what it owes is written first, also where it is known: it may never have reached the disk.
    fn start(&mut self, which: Which, command: HookCommand, todo: &mut Vec<Do>) {
        match which {
            Which::BeforeDrain => todo.push(Do::Keep(self.kept.clone())),
            Which::AfterDrain => {
                // From here on nobody can tell how much of it is undone.
                self.kept.owes.iter_mut().for_each(|debt| debt.is_drained = false);
                todo.push(Do::Keep(self.kept.clone()));
            }
            Which::OnCompleted | Which::OnHold => {}
        }
        self.at = At::Runs { which, is_ended: false };
        todo.push(Do::Start(which, command));
    }

    /// The marker was read for the hook that is registered: whether it drains.
    pub fn looked(&mut self, drains: bool) {
        if let At::Enters(which) = self.at {
            self.at = if drains { At::Rest } else { At::Clear(which) };
        }
    }

    /// The hook that ran has ended: which, and what came of it. `None` where none ran.
    pub fn ended(&mut self, done: Result<(), String>, now_ms: u64, random: u32) -> Option<(Which, Came)> {
        let At::Runs { which, is_ended } = self.at else { return None };
        self.at = At::Rest;
        let came = match done {
            Ok(()) => {
                self.pauses.reset();
                self.failed = None;
                self.settle(which);
                Came::Done(self.kept.clone())
            }
            Err(why) if is_ended => Came::Ended(why),
            Err(why) => {
                let tries = self.failed(which).map_or(0, |(tries, _)| tries) + 1;
                if tries == 1 {
                    self.pauses.reset();
                }
                let pause = self.pauses.pause(random);
                let again_ms = now_ms.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
                self.failed = Some(Failed { which, tries, again_ms, why: why.clone() });
                Came::Failed { why, tries, pause }
            }
        };
        Some((which, came))
    }

    fn settle(&mut self, which: Which) {
        match which {
            Which::BeforeDrain => {
                if let Some(debt) = &mut self.kept.owes {
                    debt.is_drained = true;
                }
            }
            Which::AfterDrain => {
                self.kept.owes = None;
                // It has brought workloads back, which the hook of a hold had kept off: that one is run again.
                self.kept.told.take_if(|told| told.which == Which::OnHold);
            }
            Which::OnCompleted | Which::OnHold => {
                self.kept.told = Some(Told { run: self.run.clone(), which });
            }
        }
    }
}

#[cfg(test)]
mod tests;
