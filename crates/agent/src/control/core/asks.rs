//! A stage in flight asks for leave to do what cannot be taken back (rule 4 of the design): the orchestrator acknowledges the
//! intent, and only then the stage is told that it may. Before a reboot, everything that it would lose is acknowledged too.

use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::wire::{Intent, IntentKind, LogLevel};

use super::{Action, Asked, Call, Core, InFlight, Power, Under};

impl Core {
    /// The stage in flight, where it has got so far with what it asks for and nobody has ended it.
    fn asking(&mut self, so_far: Power) -> Option<&mut InFlight> {
        self.in_flight.as_mut().filter(|one| one.ended_by.is_none() && one.so_far == so_far)
    }

    /// The stage in flight asks.
    pub(super) fn leave_wanted(&mut self, asked: Asked) {
        if asked == Asked::Reboot && !self.facts.reboot_allowed {
            return self.refuse_leave(
                "this agent's settings do not allow a reboot (--allow-reboot, GROUNDCREW_ALLOW_REBOOT=yes)",
            );
        }
        if self.facts.boot_id.is_none() {
            return self.refuse_leave("the boot id cannot be read, so a reboot could not be proved");
        }
        let reboots = asked == Asked::Reboot;
        if let Some(one) = self.asking(Power::Untouched) {
            one.asked = Some(asked);
            one.so_far = if reboots { Power::Wanted } else { Power::Flushed };
            self.actions.extend(reboots.then_some(Action::Flush));
        }
    }

    /// Outbox and spool are acknowledged, or not within their time. True where a stage has waited for that.
    pub(super) fn flushed_for_reboot(&mut self, whole: bool) -> bool {
        let is_kept = whole || self.outlives_power();
        let lost = self.would_be_lost();
        let Some(one) = self.asking(Power::Wanted) else {
            return false;
        };
        if is_kept {
            one.so_far = Power::Flushed;
        } else {
            self.refuse_leave(lost);
        }
        true
    }

    /// Says what the stage is about to do, where that is its turn.
    pub(super) fn say_asked(&mut self, claim: ClaimNumber) {
        let boot_id = self.facts.boot_id.clone();
        let (Some(one), Some(boot_id)) = (self.asking(Power::Flushed), boot_id) else {
            return;
        };
        let (kind, disks) = match &one.asked {
            Some(Asked::Wipe(disks)) => (IntentKind::Wipe, disks.clone()),
            Some(Asked::Reboot) | None => (IntentKind::Reboot, Vec::new()),
        };
        let (stage, attempt) = (Some(one.stage.clone()), one.attempt);
        let intent = Intent { claim, stage, attempt, kind, boot_id, disks };
        self.send(Under::Intent, Call::Intent(intent));
    }

    /// The intent is acknowledged. One that was said under a claim that is over meanwhile is said again under the next.
    pub(super) fn asked_acknowledged(&mut self) {
        if self.claim.is_none() {
            return;
        }
        if let Some(one) = self.asking(Power::Flushed) {
            one.so_far = Power::Acknowledged;
            let text = match &one.asked {
                Some(Asked::Wipe(disks)) => format!("{} writes over {}", one.stage, disks.join(", ")),
                Some(Asked::Reboot) | None => format!("the machine reboots for {}", one.stage),
            };
            self.say(LogLevel::Warn, text);
            self.actions.push(Action::Leave(Ok(())));
        }
    }

    /// The intent is refused for good. True where it was a stage's.
    pub(super) fn asked_refused(&mut self, why: &str) -> bool {
        let is_ours = self.asking(Power::Flushed).is_some();
        if is_ours {
            self.refuse_leave(&format!("the orchestrator refuses it: {why}"));
        }
        is_ours
    }

    fn refuse_leave(&mut self, why: &str) {
        if let Some(one) = &mut self.in_flight {
            (one.so_far, one.asked) = (Power::Untouched, None);
            self.actions.push(Action::Leave(Err(why.to_owned())));
        }
    }
}
