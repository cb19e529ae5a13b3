//! The hooks of the node, as the control loop sees its drains and its run. What runs when is decided in
//! [`crate::control::hooks`].

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::profile::Hooks;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::LogLevel;

use super::{Action, Core, StartHook};
use crate::control::hooks::{Came, Desk, Do, Ends, Kept, Place, Seen, Which};
use crate::control::sight::why_drained;

/// How long the undo of a stage's drain waits for somebody to say where the run goes on, in milliseconds: another such stage
/// may follow at once, and workloads that came back would be in its way. Longer than a claim takes; an orchestrator that is
/// away holds up no undo.
const UNDO_WAITS_MS: u64 = 60_000;
/// Characters of a hook's failure that heartbeats and statuses repeat.
const WHY_CHARS_MAX: usize = 120;

/// The desk, and what the loop has to know besides.
#[derive(Debug)]
pub(super) struct NodeHooks {
    desk: Desk,
    /// The look at the marker that the desk waits for.
    look: Option<u64>,
    /// Since when nobody has said where the run goes on.
    unknown_since_ms: Option<u64>,
}

impl NodeHooks {
    /// Of a node that has none.
    pub(super) fn none(run: &RunId) -> NodeHooks {
        NodeHooks::new(run, "", Hooks::default(), Kept::default())
    }

    pub(super) fn new(run: &RunId, epoch: &str, hooks: Hooks, kept: Kept) -> NodeHooks {
        let desk = Desk::new(run.clone(), epoch.to_owned(), hooks, kept);
        NodeHooks { desk, look: None, unknown_since_ms: None }
    }
}

impl Core {
    /// The hook that is active, and what is to be said of it where it has failed.
    pub fn active_hook(&self) -> Option<(Which, String)> {
        let which = self.hooks.desk.active(self.drain_holds())?;
        let failed = self.hooks.desk.failed(which).map(|(tries, why)| {
            let why: String = why.chars().take(WHY_CHARS_MAX).collect();
            format!("failed {tries} times, is tried again: {why}")
        });
        Some((which, failed.unwrap_or_default()))
    }

    /// True while a drain holds, whosever.
    pub(super) fn drain_holds(&self) -> bool {
        self.drained().is_some() || self.stages_drain().is_some()
    }

    /// True while a hook runs.
    pub(super) fn runs_hook(&self) -> bool {
        self.hooks.desk.is_running()
    }

    /// When the loop wants to be woken for its hooks, in milliseconds of the driver's clock.
    pub fn hook_wake_ms(&self) -> Option<u64> {
        let waits = self.hooks.desk.waits_for_place() && !self.drain_holds();
        let undo_ms = self.hooks.unknown_since_ms.filter(|_| waits).map(|since_ms| since_ms + UNDO_WAITS_MS);
        // The later one: what has to be waited for twice is waited for until then.
        [undo_ms, self.hooks.desk.wake_ms()]
            .into_iter()
            .flatten()
            .max()
            .filter(|_| !self.exiting || self.undoes)
    }

    /// True where a hook is to be run before the power goes.
    pub(super) fn hook_keeps_power(&self, state: Option<&State>) -> bool {
        let seen = Seen { place: place_of(state), ..self.seen_by_hooks(0) };
        self.hooks.desk.keeps_power(&seen)
    }

    /// True where this agent's end waits for an undo. One that fails holds it up for three tries.
    pub(super) fn undo_keeps_up(&self) -> bool {
        self.hooks.desk.keeps_up(&self.seen_by_hooks(0))
    }

    /// True where an abort leaves something to be undone, for which another agent is to come.
    pub fn leaves_owed(&self) -> bool {
        self.undoes && (self.hooks.desk.owes() || self.memory.hold_key.is_some())
    }

    /// It is undone by the next agent, once no drain holds.
    pub(super) fn say_what_is_owed(&mut self) {
        if self.undoes && self.memory.hold_key.is_some() {
            let text = "keys of the hold are still in authorized_keys: this agent ends with a failure, and the next one takes them out";
            self.say(LogLevel::Error, text);
        }
        if self.undoes && self.hooks.desk.owes() {
            let why = match self.drained() {
                Some(active) => format!("a drain holds, {}", why_drained(active)),
                None => "it has failed too often".to_owned(),
            };
            let text = format!(
                "is owed and not run, {why}: this agent ends with a failure, and the next one runs it"
            );
            self.say_of_hook(Which::AfterDrain, LogLevel::Error, text);
        }
    }

    /// True where somebody has said where the run goes on, and nothing that was done since is still to be told.
    fn is_placed(&self) -> bool {
        let is_told = self.outbox.iter().all(|entry| entry.acknowledged);
        self.memory.gone || (self.claim.is_some() && self.target.is_some() && is_told)
    }

    fn seen_by_hooks(&self, now_ms: u64) -> Seen {
        let was_waited_for = |since_ms: u64| now_ms.saturating_sub(since_ms) >= UNDO_WAITS_MS;
        Seen {
            drains: self.drain_holds(),
            is_stages: self.drained().is_none(),
            // After an abort it goes on nowhere.
            is_placed: self.undoes || self.hooks.unknown_since_ms.is_none_or(was_waited_for),
            is_busy: self.in_flight.is_some(),
            place: match self.claim {
                Some(_) => place_of(self.state()),
                None => Place::Unknown,
            },
            ends: match (self.exiting, self.undoes) {
                (false, _) => Ends::No,
                (true, false) => Ends::Now,
                (true, true) => Ends::Undone,
            },
        }
    }

    /// Does what the desk says, once everything else of the step is decided.
    pub(super) fn tend_hooks(&mut self, now_ms: u64) {
        self.hooks.unknown_since_ms = match self.is_placed() {
            true => None,
            false => self.hooks.unknown_since_ms.or(Some(now_ms)),
        };
        let seen = self.seen_by_hooks(now_ms);
        for todo in self.hooks.desk.step(&seen, now_ms) {
            match todo {
                Do::Keep(kept) => self.actions.push(Action::KeepHooks(Box::new(kept))),
                Do::Look => {
                    let look = self.next_look();
                    self.hooks.look = Some(look);
                    self.actions.push(Action::LookForDrain(look));
                }
                Do::Start(which, command) => {
                    let reason = self.reason_of(which);
                    self.say_of_hook(which, LogLevel::Info, format!("starts, {reason}"));
                    let start = StartHook { which, command, reason };
                    self.actions.push(Action::StartHook(Box::new(start)));
                }
                Do::End => self.actions.push(Action::EndHook),
            }
        }
    }

    fn reason_of(&self, which: Which) -> String {
        let run = &self.memory.run;
        match which {
            Which::BeforeDrain => self.why_drain_holds(),
            Which::AfterDrain => "the drain is over".to_owned(),
            Which::OnCompleted => format!("run {run} is completed"),
            Which::OnHold => format!("run {run} is held"),
        }
    }

    fn say_of_hook(&mut self, which: Which, level: LogLevel, text: String) {
        self.actions.push(Action::SayOfHook(which, level, text));
    }

    /// The look that the desk waits for was made.
    pub(super) fn looked_for_hook(&mut self, look: u64) {
        if self.hooks.look == Some(look) {
            self.hooks.look = None;
            let drains = self.drain_holds();
            self.hooks.desk.looked(drains);
        }
    }

    pub(super) fn hook_ended(&mut self, done: Result<(), String>, now_ms: u64) {
        let random = (self.next_random() >> 32) as u32;
        let Some((which, came)) = self.hooks.desk.ended(done, now_ms, random) else { return };
        match came {
            Came::Done(kept) => {
                self.actions.push(Action::KeepHooks(Box::new(kept)));
                self.say_of_hook(which, LogLevel::Info, "is done".to_owned());
            }
            Came::Ended(why) => self.say_of_hook(which, LogLevel::Warn, format!("was ended: {why}")),
            Came::Failed { why, tries, pause } => {
                let seconds = pause.as_secs_f64();
                let text = format!("try {tries} failed, the next follows in {seconds:.0} s: {why}");
                self.say_of_hook(which, LogLevel::Error, text);
            }
        }
    }
}

fn place_of(state: Option<&State>) -> Place {
    match state {
        None => Place::Unknown,
        Some(State::FailedHolding) => Place::At(Which::OnHold),
        Some(State::Completed) => Place::At(Which::OnCompleted),
        Some(State::Cancelled | State::At(_)) => Place::Walking,
    }
}
