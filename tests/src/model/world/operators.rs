//! Operators: in the chaos they order at random, in the calm they want the run to end well.

use groundcrew_orchestrator::run::decide::OrderKind;
use groundcrew_orchestrator::run::state::{HeldFor, Standing};
use groundcrew_protocol::ids::TokenText;

use super::{CHAOS_MS, Happening, World};

impl World {
    pub(super) fn operator(&mut self) {
        let next_ms = if self.is_chaos() { 60_000 + self.random.below(600_000) } else { 60_000 };
        self.put(next_ms, Happening::Operator);
        if !self.server_up {
            return;
        }
        if !self.is_chaos() {
            return self.help();
        }
        let order = match self.random.below(20) {
            0..=9 => OrderKind::Retry,
            10..=13 => OrderKind::Override,
            14 => OrderKind::Cancel,
            15 => OrderKind::Release,
            _ => return,
        };
        let done = self.server.order(order, "because");
        self.note(format!("operator: {order:?}: {}", done.map_or_else(|why| why, |()| "done".into())));
    }

    /// In the calm the operator wants the run to end well.
    fn help(&mut self) {
        if self.machines.iter().all(|machine| machine.core.is_none()) {
            self.put(1, Happening::StartAgent { agent: 0 });
        }
        // Nobody means a drain to last for ever. Those on the node are forgotten, and lapse.
        while self.server.undrain() {
            self.note("operator: ends a drain".into());
        }
        let silent_ms = self.server.listened_ms.saturating_sub(self.server.heard_ms);
        let unheard = silent_ms > 20 * 60_000 || self.server.store.run.claim.is_none();
        if unheard && self.now_ms > CHAOS_MS + 1_800_000 && self.random.chance(10) {
            let token = TokenText::boot(self.random.bytes32());
            self.note("operator: makes a new boot token".into());
            self.server.new_boot_token(token);
        }
        let Standing::Held { why, .. } = self.server.store.run.standing.clone() else {
            return;
        };
        let reset = !self.server.store.run.stage().resets.is_empty();
        let order = match why {
            HeldFor::Verdict { .. } if reset => OrderKind::Override,
            HeldFor::Silence { .. } => return,
            HeldFor::Verdict { .. }
            | HeldFor::OverDeadline { .. }
            | HeldFor::Drained { .. }
            | HeldFor::Crashes { .. }
            | HeldFor::Stopped { .. }
            | HeldFor::ClaimFight { .. }
            | HeldFor::NeverClaimed { .. }
            | HeldFor::InService { .. }
            | HeldFor::RebootNotSeen { .. }
            | HeldFor::RebootsMissed { .. } => OrderKind::Retry,
        };
        let done = self.server.order(order, "mended");
        self.note(format!("operator: {order:?}: {}", done.map_or_else(|why| why, |()| "done".into())));
    }
}
