//! What must hold of every decision, checked beside it.

use groundcrew_agent::control::core::Failure;
use groundcrew_orchestrator::run::decide::{Change, Input, decide};
use groundcrew_orchestrator::run::state::{Claim, Fate, HeldFor, IntentRecord, Run, Standing, WaitFor};
use groundcrew_protocol::ids::{Attempt, BootId, ClaimNumber, Sha256Hex};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ClaimRequest, Heartbeat, HeartbeatAnswer, Intent, IntentKind, LogRequest};

use super::{Request, Response, Server, Store};

/// An idle agent settles a directive within so many heartbeats: a network that loses one in seven leaves a few
/// tries, and directives wait for one another.
const TOLD_MAX: u32 = 30;

impl Server {
    /// A directive is repeated until its outcome is known, and an idle agent soon says it.
    pub(super) fn check_directives(&mut self, heartbeat: &Heartbeat) {
        let live: Vec<_> = self.store.run.directives.iter().map(|one| (heartbeat.claim, one.id)).collect();
        self.told.retain(|known, _| live.contains(known));
        for known in live {
            let count = self.told.entry(known).or_default();
            // The power stays on for a drain, and for a hook, which may take as long as its deadline.
            let is_idle = heartbeat.stage.is_none() && heartbeat.drain.is_empty() && !self.from_hook;
            *count = if is_idle { *count + 1 } else { 0 };
            if *count > TOLD_MAX {
                self.broken.push(format!("directive {} is never settled", known.1));
            }
        }
    }

    /// A spent boot token is good again only from the machine that used it, on another boot, with the claim silent.
    pub(super) fn check_token(&mut self, before: &Run, request: &ClaimRequest, bearer: &Sha256Hex) {
        let Some(claim) = before.claim.as_ref().filter(|_| before.boot_token_spent) else {
            return;
        };
        let same_home = request.token_sha256.as_ref() == Some(&claim.token) || *bearer == claim.token;
        let serial = before.machine.as_ref().and_then(|machine| machine.serial.clone());
        let fits = serial == request.serial && claim.boot != request.boot_id;
        if *bearer == before.boot_token && !same_home && !fits {
            self.broken.push(format!("the spent boot token let {:?} in", request.serial));
        }
    }

    /// The claim under which a request was made, where a later one counts.
    pub(super) fn old_claim_of(&self, request: &Request) -> Option<ClaimNumber> {
        let claim = match request {
            Request::Hello | Request::Claim(..) => return None,
            Request::Result(result, _) => result.claim,
            Request::Intent(intent, _) => intent.claim,
            Request::Hold(claim, _) => *claim,
            Request::Heartbeat(heartbeat, _) => heartbeat.claim,
            Request::Log(body, ..) => {
                let request: LogRequest = serde_json::from_slice(body).expect("it is of its form");
                request.claim
            }
        };
        let current = self.store.run.claim.as_ref()?.number;
        (claim < current).then_some(claim)
    }

    /// Everything that a message may change.
    pub(super) fn kept(&self) -> Kept {
        let Store { run, first, evidence, generation: _, logs, drains: _ } = &self.store;
        let counts = [first.len(), evidence.len(), logs.chunks.len(), self.acknowledged.len()];
        Kept { run: run.clone(), counts, heard_ms: self.heard_ms }
    }

    /// An older claim changes nothing, whatever it says: the run, the results, the lines, when the agent was heard.
    pub(super) fn check_old_claim(&mut self, claim: ClaimNumber, before: &Kept, response: &Response) {
        let refused = match response {
            Response::Control(answered) => answered.is_err(),
            Response::Heartbeat(_, answered) => answered.is_err(),
            Response::Log(answered) => answered.is_err(),
        };
        if !refused || self.kept() != *before {
            let run = &self.store.run;
            self.broken.push(format!("claim {claim} changed something while {} counts", run.claims));
        }
    }

    /// An older claim is refused: checked against the run itself, beside what `decide` says.
    pub(super) fn fences(&mut self, claim: ClaimNumber) {
        let current = self.store.run.claim.as_ref().map_or(ClaimNumber(0), |claim| claim.number);
        if claim < current {
            let input = Input::Heard { claim, directives: Vec::new() };
            if decide(&self.store.run, &input, self.now()).is_ok() {
                self.broken.push(format!("claim {claim} was let in while {current} counts"));
            }
        }
    }

    pub(super) fn check_change(&mut self, before: &Run, change: &Change, input: &Input) {
        let mut broken = |what: String| self.broken.push(format!("{what} (after {input:?})"));
        let after = &change.run;
        if after.claims < before.claims {
            broken("claim numbers went back".into());
        }
        if before.ended().is_some() && after.standing != before.standing {
            broken("an ended run changed".into());
        }
        if after.ended().is_none() && after.wait.is_none() {
            broken("a run that has not ended waits for nothing".into());
        }
        if !change.changed && after != before {
            broken("a change was called none".into());
        }
        let open =
            after.stages.iter().flat_map(|stage| &stage.attempts).filter(|one| one.fate == Fate::InFlight);
        if open.count() > 1 {
            broken("two attempts are in flight".into());
        }
        for stage in &after.stages {
            let mut last = Attempt(0);
            for attempt in &stage.attempts {
                if attempt.number <= last || attempt.number > stage.attempts_made {
                    broken(format!("attempts of {} are out of order", stage.spec.name));
                }
                last = attempt.number;
            }
        }
    }

    /// An acknowledged intent is in the store.
    pub(super) fn check_intent(&mut self, change: &Change, intent: &Intent) {
        let is_stored = self.store.run.intent.as_ref().is_some_and(|known| {
            known.kind == intent.kind
                && known.stage == intent.stage
                && known.attempt == intent.attempt
                && known.boot == intent.boot_id
        });
        if !is_stored || change.run != self.store.run {
            self.broken.push(format!("an intent to {} was acknowledged and is not stored", intent.kind));
        }
    }

    /// While the holder of the claim is fresh, nobody else gets it; and a holder is not kept from his own claim.
    pub(super) fn check_elsewhere(
        &mut self,
        before: &Run,
        request: &ClaimRequest,
        failure: Option<&Failure>,
    ) {
        let Some(claim) = &before.claim else { return };
        let is_holder = claim.session == request.session && claim.token_is(request);
        if matches!(failure, Some(Failure::Elsewhere(_))) && is_holder {
            self.broken.push("the process that has the claim was told that it is claimed elsewhere".into());
        }
    }

    /// What a claim says of its machine's boot: a reboot that was asked for proves the interrupt and nothing else
    /// does; any other reset of the machine in an attempt is noted in it.
    pub(super) fn check_boots(&mut self, before: &Run, request: &ClaimRequest, change: &Change) {
        let fresh = self.now().quiet_ms() < limits::FRESH_MS;
        let proved = change.own.iter().any(|(stage, ..)| matches!(stage, Stage::Interrupt { .. }));
        let awaited = before.intent.as_ref().filter(|intent| intent.kind == IntentKind::Reboot);
        let Some(claim) = &before.claim else {
            if proved {
                self.broken.push("a reboot was proved before anybody had claimed".into());
            }
            return;
        };
        let other_home = claim.instance != request.instance || claim.machine.serial != request.serial;
        let rebooted = changed_boot(claim, request);
        if fresh && other_home && !(awaited.is_some() && rebooted.is_some()) {
            self.broken.push(format!("{:?} took the claim while its holder was fresh", request.serial));
        }
        let open = open_attempt(before);
        let asked = awaited.filter(|intent| Some(&intent.boot) == claim.boot.as_ref());
        if proved {
            self.proved += 1;
            let fits =
                asked.is_some_and(|intent| Some((intent.stage.clone(), intent.attempt)) == named(&open));
            if !fits || rebooted.is_none() {
                self.broken.push("an interrupt passed without the reboot that it had asked for".into());
            }
        }
        let (Some(to), Some((stage, attempt))) = (rebooted, open) else { return };
        if before.ended().is_some()
            || unheard(before, request, &stage, attempt)
            || unbegun(before, request, &stage, attempt)
        {
            return;
        }
        if let Some(intent) = asked {
            let kept = request.outbox.iter().any(|one| one.stage == stage && one.attempt == attempt);
            if intent.stage.as_ref() == Some(&stage) && intent.attempt == attempt && !proved && !kept {
                self.broken.push(format!("the reboot to {to} that {stage} had asked for was not seen"));
            }
            return;
        }
        let powered_off = before.intent.as_ref().is_some_and(|intent| {
            intent.kind == IntentKind::PowerOff && Some(&intent.boot) == claim.boot.as_ref()
        });
        if before.restored || powered_off {
            return;
        }
        self.resets_seen += 1;
        let noted = change.run.stages[before.at].resets.iter().any(|reset| reset.to == to);
        if !noted && before.stage().resets.len() < groundcrew_orchestrator::run::state::RESETS_KEPT_MAX {
            self.broken.push(format!("{stage} attempt {attempt}: the reset to {to} was not noted"));
        }
    }

    /// An attempt of which a new process has nothing is a crash, counted, and another attempt takes its place; one of
    /// which it has the outcome, or which goes on, stands. It is no crash where the agent was stopped in order, or where it is
    /// back from a reboot that has not come.
    pub(super) fn check_crash(&mut self, before: &Run, request: &ClaimRequest, change: &Change) {
        let (Some(claim), Some((stage, attempt))) = (&before.claim, open_attempt(before)) else { return };
        let fight = matches!(&change.run.standing, Standing::Held { why: HeldFor::ClaimFight { .. }, .. });
        let same_call = change.run.claims == claim.number;
        let proved = change.own.iter().any(|(stage, ..)| matches!(stage, Stage::Interrupt { .. }));
        if fight || same_call || proved || before.restored || unheard(before, request, &stage, attempt) {
            return;
        }
        // One that a restore has forgotten takes the place of whatever is in flight.
        if request.outbox.iter().any(|one| one.stage == stage && one.attempt > attempt) {
            return;
        }
        let kept = request.outbox.iter().any(|one| one.stage == stage && one.attempt == attempt);
        let goes_on =
            request.in_flight.as_ref().is_some_and(|one| one.stage == stage && one.attempt == attempt);
        let stands = open_attempt(&change.run) == Some((stage.clone(), attempt));
        let counted = change.run.stages[before.at].crashes == before.stage().crashes + 1;
        let missed = missed_reboot(before, request, &stage, attempt);
        let stopped =
            request.stopped.as_ref().is_some_and(|one| one.stage == stage && one.attempt == attempt);
        self.missed += u32::from(missed && !(kept || goes_on));
        let waited = unbegun(before, request, &stage, attempt);
        let crashes = !(kept || goes_on || missed || stopped || waited);
        if (kept || goes_on) != stands || crashes != counted {
            self.broken.push(format!(
                "{stage} attempt {attempt}: kept {kept}, goes on {goes_on}, stopped {stopped}, reboot missed {missed}, waited \
                 for a drain {waited}, stands {stands}, crash counted {counted}"
            ));
        }
        // What was asked for may come yet: it is remembered for the attempt that takes its place.
        let awaits = |intent: &IntentRecord| {
            Some(&intent.boot) == request.boot_id.as_ref()
                && open_attempt(&change.run) == Some((stage.clone(), intent.attempt))
        };
        let holds = matches!(change.run.standing, Standing::Held { .. });
        if missed && !(kept || goes_on || holds || change.run.intent.as_ref().is_some_and(awaits)) {
            self.broken.push(format!("{stage}: the reboot that was asked for under this boot is forgotten"));
        }
    }

    /// A claim that changes hands too often holds the run.
    pub(super) fn check_hands(&mut self, change: &Change) {
        let since_ms = self.listened_ms.saturating_sub(limits::CLAIM_CHANGES_WINDOW_MS);
        let changes = change.run.hands_changed_ms.iter().filter(|at_ms| **at_ms > since_ms).count();
        if changes >= limits::CLAIM_CHANGES_MAX && matches!(change.run.standing, Standing::Walking) {
            self.broken.push(format!("the claim changed hands {changes} times, and nothing holds the run"));
        }
    }

    /// Nothing waits past its deadline, and no claim is silent for longer than the profile lets it.
    pub(super) fn check_waits(&mut self) {
        let now = self.now();
        let run = &self.store.run;
        let walks = matches!(run.standing, Standing::Walking);
        let waits_for_agent =
            run.wait.as_ref().is_some_and(|wait| matches!(wait.what, WaitFor::Result | WaitFor::Drain));
        let silent = walks && waits_for_agent && now.quiet_ms() >= run.profile.limits.silence;
        if let Some(wait) = run.wait.as_ref().filter(|wait| wait.until_ms <= now.listened_ms) {
            self.broken.push(format!("the run waits on for {:?} past its deadline", wait.what));
        } else if silent {
            self.broken.push("the claim was silent for too long, and nothing holds the run".into());
        }
    }

    /// What an operator ordered is told until its outcome is known.
    pub(super) fn check_told(&mut self, answer: &HeartbeatAnswer) {
        if answer.cmd.is_none() && !self.store.run.directives.is_empty() {
            self.broken.push("a directive is open, and the heartbeat's answer does not name one".into());
        }
    }

    /// A stage in which its machine was reset does not pass; its result holds the run.
    pub(super) fn check_reset_holds(&mut self, before: &Run, is_first: bool) {
        let held = matches!(&self.store.run.standing, Standing::Held { why: HeldFor::Verdict { .. }, .. });
        if is_first && !before.stage().resets.is_empty() && !held {
            self.broken.push(format!("{} passed although its machine was reset", before.stage().spec.name));
        }
    }
}

/// What a message may change. Results and lines are never taken away, so that their numbers tell.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    run: Run,
    counts: [usize; 4],
    heard_ms: u64,
}

trait TokenIs {
    fn token_is(&self, request: &ClaimRequest) -> bool;
}

impl TokenIs for Claim {
    fn token_is(&self, request: &ClaimRequest) -> bool {
        request.token_sha256.as_ref() == Some(&self.token)
    }
}

/// The boot that the claim's own machine is in now, where it is another.
fn changed_boot(claim: &Claim, request: &ClaimRequest) -> Option<BootId> {
    let same_machine = claim.machine.serial == request.serial;
    request
        .boot_id
        .clone()
        .filter(|boot| same_machine && claim.boot.is_some() && claim.boot.as_ref() != Some(boot))
}

/// True where the open attempt has asked for a reboot, and the claim comes from the very boot that was to end.
fn missed_reboot(before: &Run, request: &ClaimRequest, stage: &Stage, attempt: Attempt) -> bool {
    before.intent.as_ref().is_some_and(|intent| {
        intent.kind == IntentKind::Reboot
            && (intent.stage.as_ref(), intent.attempt) == (Some(stage), attempt)
            && Some(&intent.boot) == request.boot_id.as_ref()
    })
}

fn open_attempt(run: &Run) -> Option<(Stage, Attempt)> {
    let attempt = run.attempt().filter(|attempt| attempt.fate == Fate::InFlight)?;
    Some((run.stage().spec.name.clone(), attempt.number))
}

fn named(open: &Option<(Stage, Attempt)>) -> Option<(Option<Stage>, Attempt)> {
    open.clone().map(|(stage, attempt)| (Some(stage), attempt))
}

/// An attempt that waited for the end of a drain, and that its agent has not begun since: its end counts against nobody.
fn unbegun(before: &Run, request: &ClaimRequest, stage: &Stage, attempt: Attempt) -> bool {
    let of_it =
        |known: &groundcrew_protocol::wire::StageAttempt| known.stage == *stage && known.attempt == attempt;
    let begun = request.started.iter().any(of_it)
        || request.in_flight.as_ref().is_some_and(of_it)
        || request.outbox.iter().any(|one| one.stage == *stage && one.attempt == attempt);
    before.wait.as_ref().is_some_and(|wait| wait.what == WaitFor::Drain) && !begun
}

/// An attempt that was ordered of an agent which never heard of it, and so was not begun under any boot.
fn unheard(before: &Run, request: &ClaimRequest, stage: &Stage, attempt: Attempt) -> bool {
    let of_it =
        |known: &groundcrew_protocol::wire::StageAttempt| known.stage == *stage && known.attempt == attempt;
    let intended = before
        .intent
        .as_ref()
        .is_some_and(|intent| intent.stage.as_ref() == Some(stage) && intent.attempt == attempt);
    let begun = intended
        || request.started.iter().any(of_it)
        || request.in_flight.as_ref().is_some_and(of_it)
        || request.outbox.iter().any(|one| one.stage == *stage && one.attempt == attempt);
    let ordered = before
        .directives
        .iter()
        .any(|one| one.stage.as_ref() == Some(stage) && one.attempt == attempt && one.said.is_none());
    ordered && !begun
}
