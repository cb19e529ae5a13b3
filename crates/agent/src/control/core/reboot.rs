//! A stage in flight asks for leave to reboot the machine (rule 4 of the design): first everything that a reboot would lose
//! is acknowledged, then the intent, and only then the stage is told that it may.

use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::wire::{Intent, IntentKind, LogLevel};

use super::{Action, Call, Core, InFlight, Power, Under};

impl Core {
    /// The stage in flight, where it has got so far with its reboot and nobody has ended it.
    fn asking(&mut self, so_far: Power) -> Option<&mut InFlight> {
        self.in_flight.as_mut().filter(|one| one.ended_by.is_none() && one.reboot == so_far)
    }

    /// The stage in flight asks.
    pub(super) fn reboot_wanted(&mut self) {
        if !self.facts.reboot_allowed {
            return self.refuse_reboot(
                "this agent's settings do not allow a reboot (--allow-reboot, GROUNDCREW_ALLOW_REBOOT=yes)",
            );
        }
        if self.facts.boot_id.is_none() {
            return self.refuse_reboot("the boot id cannot be read, so a reboot could not be proved");
        }
        if let Some(one) = self.asking(Power::Untouched) {
            one.reboot = Power::Wanted;
            self.actions.push(Action::Flush);
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
            one.reboot = Power::Flushed;
        } else {
            self.refuse_reboot(lost);
        }
        true
    }

    /// Says what the stage is about to do, where that is its turn.
    pub(super) fn say_reboot(&mut self, claim: ClaimNumber) {
        let boot_id = self.facts.boot_id.clone();
        let (Some(one), Some(boot_id)) = (self.asking(Power::Flushed), boot_id) else {
            return;
        };
        let (stage, attempt) = (Some(one.stage.clone()), one.attempt);
        let intent = Intent { claim, stage, attempt, kind: IntentKind::Reboot, boot_id, disks: Vec::new() };
        self.send(Under::Intent, Call::Intent(intent));
    }

    /// The intent is acknowledged. One that was said under a claim that is over meanwhile is said again under the next.
    pub(super) fn reboot_acknowledged(&mut self) {
        if self.claim.is_none() {
            return;
        }
        if let Some(one) = self.asking(Power::Flushed) {
            one.reboot = Power::Acknowledged;
            let text = format!("the machine reboots for {}", one.stage);
            self.say(LogLevel::Warn, text);
            self.actions.push(Action::Leave(Ok(())));
        }
    }

    /// The intent is refused for good. True where it was a stage's.
    pub(super) fn reboot_intent_refused(&mut self, why: &str) -> bool {
        let is_ours = self.asking(Power::Flushed).is_some();
        if is_ours {
            self.refuse_reboot(&format!("the orchestrator refuses it: {why}"));
        }
        is_ours
    }

    fn refuse_reboot(&mut self, why: &str) {
        if let Some(one) = &mut self.in_flight {
            one.reboot = Power::Untouched;
            self.actions.push(Action::Leave(Err(why.to_owned())));
        }
    }
}
