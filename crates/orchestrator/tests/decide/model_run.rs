//! Random orders of everything that can happen to a run, checked against the model after every step.

use std::collections::BTreeSet;

use groundcrew_orchestrator::run::decide::{Answer, HoldSaid, Input, OrderKind, Refused};
use groundcrew_orchestrator::run::state::{HoldKey, Run, Standing, WaitFor};
use groundcrew_protocol::ids::{Attempt, BootId, ClaimNumber, DirectiveId, Sha256Hex, SinkName};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::{
    ClaimRequest, DirectiveOutcome, DirectiveReport, Intent, Shutdown, StageAttempt,
};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseError};

use crate::bench::*;
use crate::model::{Fence, Model, Place, check_document, check_ends, place};
use crate::model_ops::{Op, any_op, stages};

fn sink_named(number: usize) -> SinkName {
    ["ops", "chat", "team"][number].parse().unwrap()
}

/// A home on a machine: what an agent has, and what it was told.
#[derive(Debug, Clone)]
struct Home {
    request: ClaimRequest,
    /// Attempts that it has begun.
    started: BTreeSet<(String, u32)>,
    /// Outcomes that it keeps.
    outcomes: Vec<StageAttempt>,
    in_flight: Option<StageAttempt>,
    /// True once this process was answered to a claim: before that it does nothing that it is told.
    has_claimed: bool,
}

struct World {
    bench: Bench,
    model: Model,
    homes: Vec<Home>,
    backup: (Run, Model),
    /// Counts what must differ: boots, processes, homes.
    fresh: u64,
    token: Sha256Hex,
}

type Checked = Result<(), TestCaseError>;

impl World {
    fn new() -> World {
        let bench = Bench::new(profile(&["Inventory", "Interrupt:reboot", "CPUStress"], "shutdown"));
        let model = Model::new(&bench.run);
        let home = |n| Home {
            request: agent(n),
            started: BTreeSet::new(),
            outcomes: Vec::new(),
            in_flight: None,
            has_claimed: false,
        };
        let backup = (bench.run.clone(), model.clone());
        // The second home is on the first one's machine.
        let mut homes: Vec<Home> = [1, 2, 3].map(home).to_vec();
        homes[1].request.serial = homes[0].request.serial.clone();
        homes[1].request.macs = homes[0].request.macs.clone();
        homes[1].request.boot_id = homes[0].request.boot_id.clone();
        World { bench, model, homes, backup, fresh: 100, token: boot_token() }
    }

    fn boot(&mut self) -> BootId {
        self.fresh += 1;
        boot(self.fresh)
    }

    fn apply(&mut self, op: &Op) -> Checked {
        match op {
            Op::Claim { home, bearer, answer_lost, old } => self.claim(*home, *bearer, *answer_lost, *old),
            Op::Restart(home) => {
                self.fresh += 1;
                self.homes[*home].request.session = Some(id(self.fresh));
                self.homes[*home].request.runtime = Some(AgentRuntime::pod(&format!("pod-{}", self.fresh)));
                (self.homes[*home].in_flight, self.homes[*home].has_claimed) = (None, false);
                Ok(())
            }
            Op::Reboot(home) => {
                self.homes[*home].request.boot_id = Some(self.boot());
                self.apply(&Op::Restart(*home))
            }
            Op::LoseHome(home) => self.lose_home(*home),
            Op::Clone { from, to } => self.clone_home(*from, *to),
            Op::Fight => {
                for (from, to) in [(0, 2), (2, 0), (0, 2)] {
                    self.apply(&Op::Clone { from, to })?;
                    self.apply(&Op::Pass { span_ms: 30 * SECOND, looks: false })?;
                    self.apply(&Op::Claim { home: to, bearer: 2, answer_lost: false, old: false })?;
                }
                Ok(())
            }
            Op::Report { home, claim_off, stage, attempt_off, current, outcome } => {
                self.report(*home, *claim_off, *stage, *attempt_off, *current, *outcome)
            }
            Op::Heard { home, claim_off, reports } => self.heard(*home, *claim_off, reports),
            Op::ShutsDown { home, claim_off, said } => self.shuts_down(*home, *claim_off, *said),
            Op::Settle { back, sink, told } => self.settle(*back, *sink, *told),
            Op::Intent { home, kind, current } => self.intent(*home, *kind, *current),
            Op::Hold { home } => {
                let claim = self.claim_of(*home, 0);
                let said = HoldSaid { host_keys: vec!["ssh-ed25519 A".into()], user: None };
                let key = Some(HoldKey::Made { public: format!("ssh-ed25519 {home}"), sealed: "…".into() });
                self.put(Input::Hold { claim, said, key }, false).map(|_| ())
            }
            Op::Order { order, stage, reason } => self.order(*order, *stage, *reason),
            Op::End { home, end } => {
                let runtime = self.homes[*home].request.runtime.clone().unwrap();
                self.put(end_of(runtime, &end.to_string()), false).map(|_| ())
            }
            Op::NewBootToken(n) => self.new_boot_token(*n),
            Op::Drains { wanted, held } => {
                let ids = ["d-0", "d-1", "d-2", "d-3"];
                let of = |bits: u8| -> Vec<&str> {
                    ids.iter()
                        .enumerate()
                        .filter(|(bit, _)| bits & (1 << bit) != 0)
                        .map(|(_, id)| *id)
                        .collect()
                };
                self.put(drains(&of(*wanted), &of(*held)), false).map(|_| ())
            }
            Op::AttemptWaits(waits) => self.put(Input::AttemptWaits(*waits), false).map(|_| ()),
            Op::Backup => {
                self.backup = (self.bench.run.clone(), self.model.clone());
                Ok(())
            }
            Op::Restore => {
                (self.bench.run, self.model) = self.backup.clone();
                self.put(Input::Restored, false).map(|_| ())
            }
            Op::Pass { span_ms, looks } => {
                self.bench.now.listened_ms += span_ms;
                self.bench.now.wall = self.bench.now.wall.plus(*span_ms);
                if *looks { self.put(Input::Deadline, false).map(|_| ()) } else { Ok(()) }
            }
        }
    }

    fn lose_home(&mut self, home: usize) -> Checked {
        self.fresh += 1;
        let (fresh, home) = (self.fresh, &mut self.homes[home]);
        home.request.instance = Some(id(fresh));
        home.request.session = Some(id(1 << 40 | fresh));
        home.request.token_sha256 = Some(Sha256Hex::of(&fresh.to_le_bytes()));
        home.request.known_claim = ClaimNumber(0);
        (home.in_flight, home.outcomes, home.started) = (None, Vec::new(), BTreeSet::new());
        home.has_claimed = false;
        Ok(())
    }

    fn clone_home(&mut self, from: usize, to: usize) -> Checked {
        let machine = self.homes[to].request.clone();
        let mut copy = self.homes[from].clone();
        (copy.request.serial, copy.request.macs) = (machine.serial, machine.macs);
        (copy.request.ip, copy.request.boot_id) = (machine.ip, machine.boot_id);
        self.homes[to] = copy;
        self.apply(&Op::Restart(to))
    }

    fn new_boot_token(&mut self, n: u8) -> Checked {
        let token = Sha256Hex::of(&[n]);
        if self.put(Input::NewBootToken { token: token.clone(), by: "olga".into() }, false)?.is_ok() {
            self.token = token;
        }
        Ok(())
    }

    fn settle(&mut self, back: u64, sink: usize, told: bool) -> Checked {
        let number = self.bench.run.notices_made.saturating_sub(back);
        let outcome = if told { Ok(()) } else { Err("x".into()) };
        self.put(Input::NoticeSettled { number, sink: sink_named(sink), outcome }, false).map(|_| ())
    }

    fn shuts_down(&mut self, home: usize, claim_off: i64, said: u8) -> Checked {
        let claim = self.claim_of(home, claim_off);
        let known = self.bench.run.claim.as_ref().is_some_and(|claim| claim.shuts_down.is_some());
        let before = self.bench.run.notices.clone();
        let cut_off = self.homes[home].in_flight.clone();
        let said = Shutdown { cut_off, drained: said & 1 != 0, suppress_notification: said & 2 != 0 };
        let input = Input::ShutsDown { claim, said, fleet: vec![sink_named(0), sink_named(1)] };
        if self.put(input, false)?.is_ok() {
            prop_assert!(!known || self.bench.run.notices == before, "one shutdown is told once");
        }
        Ok(())
    }

    fn heard(&mut self, home: usize, claim_off: i64, reports: &[(u64, u8)]) -> Checked {
        let claim = self.claim_of(home, claim_off);
        let words = [
            DirectiveOutcome::Doing,
            DirectiveOutcome::Done,
            DirectiveOutcome::Refused,
            DirectiveOutcome::TooLate,
            DirectiveOutcome::Unknown("later".into()),
        ];
        let made = self.bench.run.directives_made;
        let report = |(back, word): &(u64, u8)| DirectiveReport {
            id: DirectiveId(made.saturating_sub(*back)),
            outcome: words[usize::from(*word)].clone(),
            reason: String::new(),
        };
        let directives = reports.iter().map(report).collect();
        self.put(Input::Heard { claim, directives }, false).map(|_| ())
    }

    fn intent(&mut self, home: usize, kind: usize, current: bool) -> Checked {
        let standing_at = self.bench.run.stage().spec.name.clone();
        let stage = current.then_some(standing_at);
        let attempt = self.bench.run.attempt().map_or(Attempt(1), |attempt| attempt.number);
        let kind = ["reboot", "reboot", "poweroff", "wipe"][kind].to_owned().into();
        let boot_id = self.homes[home].request.boot_id.clone().unwrap();
        let claim = self.claim_of(home, 0);
        self.put(Input::Intent(Intent { claim, stage, attempt, kind, boot_id, disks: vec![] }), false)
            .map(|_| ())
    }

    /// True for the process that was given the claim. After a restore one that was displaced in the life that is
    /// forgotten may name the same number: its token keeps it out before anything is decided.
    fn holds_the_claim(&self, home: usize) -> bool {
        let home = &self.homes[home];
        let session = self.bench.run.claim.as_ref().and_then(|claim| claim.session.as_ref());
        home.has_claimed && session == home.request.session.as_ref()
    }

    fn claim_of(&self, home: usize, off: i64) -> ClaimNumber {
        ClaimNumber(self.homes[home].request.known_claim.0.saturating_add_signed(off))
    }

    /// Decides, and holds the answer and the document against the model.
    fn put(&mut self, input: Input, passes: bool) -> Result<Result<Answer, Refused>, TestCaseError> {
        let before = self.bench.run.clone();
        let answer = self.bench.put(&input);
        self.check_fence(&before, &input, answer.as_ref().err())?;
        let change = match answer {
            Ok(change) => change,
            Err(refused) => {
                prop_assert_eq!(&self.bench.run, &before);
                return Ok(Err(refused));
            }
        };
        let taken = change.result.as_ref().map(|kept| kept.taken.clone());
        let places = self.model.places(&before, &input, taken.as_ref(), passes);
        let now_at = place(&change.run);
        prop_assert!(places.contains(&now_at), "{now_at:?} is none of {places:?} after {input:?}");
        if before.ended().is_some() {
            prop_assert_eq!(&before.standing, &change.run.standing, "what has ended stays as it ended");
        }
        let mut checked = self.model.learn(&before, &change.run, &input, taken.as_ref());
        if change.run != before {
            checked = checked
                .and_then(|()| check_document(&change.run))
                .and_then(|()| check_ends(&change.run, self.bench.now));
        }
        checked.map_err(|rule| TestCaseError::fail(format!("{rule}: {:#?} after {input:?}", change.run)))?;
        Ok(Ok(change.answer))
    }

    fn check_fence(&self, before: &Run, input: &Input, refused: Option<&Refused>) -> Checked {
        let claim = match input {
            Input::Result(request) => request.claim,
            Input::Heard { claim, .. } | Input::Hold { claim, .. } | Input::ShutsDown { claim, .. } => *claim,
            Input::Intent(intent) => intent.claim,
            Input::Claim { .. }
            | Input::Order { .. }
            | Input::Drains { .. }
            | Input::AttemptWaits(_)
            | Input::Deadline
            | Input::NoticeSettled { .. }
            | Input::RuntimeEnded(_)
            | Input::NewBootToken { .. }
            | Input::Restored => return Ok(()),
        };
        let found = match refused {
            Some(Refused::NotClaimed { .. }) => Fence::NotClaimed,
            Some(Refused::OldClaim { .. }) => Fence::Old,
            Some(Refused::UnknownClaim { .. }) => Fence::Unknown,
            Some(Refused::Unfit { .. } | Refused::Order { .. }) | None => Fence::Current,
            Some(
                other @ (Refused::ClaimedElsewhere { .. }
                | Refused::WrongMachine { .. }
                | Refused::TokenSpent { .. }
                | Refused::WrongToken { .. }),
            ) => return Err(TestCaseError::fail(format!("{other} to {input:?}"))),
        };
        prop_assert_eq!(found, self.model.fence(before, claim.0), "{:?}", input);
        Ok(())
    }

    fn claim(&mut self, home: usize, bearer: usize, answer_lost: bool, old: bool) -> Checked {
        let who = &self.homes[home];
        let mut request = who.request.clone();
        if old {
            request.known_claim = ClaimNumber(request.known_claim.0.saturating_sub(1));
        }
        let kept = |known: &StageAttempt| entry(known.stage.clone(), known.attempt.0, request.known_claim.0);
        request.outbox = who.outcomes.iter().map(kept).collect();
        request.started = who.started.iter().map(|(stage, n)| of(stage.as_str().into(), *n)).collect();
        request.in_flight = who.in_flight.clone();
        let own = request.token_sha256.clone().unwrap();
        let is_own = self.bench.run.claim.as_ref().is_some_and(|claim| claim.token == own);
        let bearer = match bearer {
            0 => Sha256Hex::of(b"wrong"),
            1 => self.token.clone(),
            _ if is_own => own,
            _ => self.token.clone(),
        };
        let before = self.bench.run.clone();
        let quiet_ms = self.bench.now.quiet_ms();
        let is_right =
            bearer == before.boot_token || before.claim.as_ref().is_some_and(|c| c.token == bearer);
        let request_too = Box::new(request.clone());
        let input = Input::Claim { request: request_too, protocol: 2, bearer, fleet: Vec::new() };
        let answer = match self.put(input, false)? {
            Err(_) => return Ok(()),
            Ok(Answer::Claim(answer)) => answer,
            Ok(other) => return Err(TestCaseError::fail(format!("{other:?} to a claim"))),
        };
        prop_assert!(is_right, "a wrong token was taken");
        if let Some(claim) = &before.claim {
            let same_process = claim.session == request.session;
            prop_assert!(answer.claim > claim.number || (same_process && answer.claim == claim.number));
            prop_assert!(answer.claim > request.known_claim || answer.claim == claim.number);
            let another = claim.instance != request.instance && claim.boot == request.boot_id;
            let is_alive = quiet_ms < 30 * SECOND && before.end().is_none();
            prop_assert!(!another || !is_alive, "another home took a claim that is alive");
        }
        prop_assert_eq!(&answer.current_state, &self.bench.run.state());
        if answer_lost {
            return Ok(());
        }
        self.homes[home].request.known_claim = answer.claim;
        self.homes[home].has_claimed = true;
        self.obey(home, &answer.current_state, answer.attempt)
    }

    /// The agent was told an attempt: it has its outcome, is at it, or begins it, and never a second time.
    fn obey(&mut self, home: usize, state: &State, attempt: Attempt) -> Checked {
        let who = &mut self.homes[home];
        let Some(stage) = state.agent_stage().filter(|_| attempt != Attempt(0)) else {
            who.in_flight = None;
            return Ok(());
        };
        let told = StageAttempt { stage: stage.clone(), attempt };
        if who.outcomes.contains(&told) || who.in_flight.as_ref() == Some(&told) {
            return Ok(());
        }
        let is_new = who.started.insert((stage.to_string(), attempt.0));
        prop_assert!(is_new, "{stage} attempt {attempt} starts a second time in one home");
        who.in_flight = Some(told);
        Ok(())
    }

    fn report(
        &mut self,
        home: usize,
        claim_off: i64,
        stage: usize,
        attempt_off: i64,
        current: bool,
        outcome: Outcome,
    ) -> Checked {
        let mut told = StageAttempt { stage: stages()[stage].clone(), attempt: Attempt(1) };
        if current && let Some(in_flight) = self.homes[home].in_flight.clone() {
            told = in_flight;
        } else if let Some(kept) = self.homes[home].outcomes.iter().find(|known| known.stage == told.stage) {
            told = kept.clone();
        }
        if attempt_off == 0 && self.homes[home].in_flight.as_ref() == Some(&told) {
            // It is on the disk before it is sent.
            self.homes[home].outcomes.push(told.clone());
            self.homes[home].in_flight = None;
        }
        let attempt = u32::try_from(i64::from(told.attempt.0) + attempt_off).unwrap_or(0);
        let claim = self.claim_of(home, claim_off).0;
        let request = self.bench.outcome(claim, told.stage.clone(), attempt, outcome);
        match self.put(Input::Result(Box::new(request)), outcome == Outcome::Pass)? {
            Ok(Answer::Result(answer)) if attempt_off == 0 && self.holds_the_claim(home) => {
                self.obey(home, &answer.next_state, answer.attempt)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn order(&mut self, order: OrderKind, stage: Option<usize>, reason: bool) -> Checked {
        let before = self.bench.run.clone();
        let named = stage.map(|index| before.stages[index].spec.name.clone());
        let reason = if reason { "x" } else { "" };
        // Reporting is no stage to retry, and a run is never held there.
        let takes = self.model.takes_order(&before, order, stage, reason)
            && !(order == OrderKind::Retry && stage == Some(3));
        let has_room = before.directives.len() + 2 <= 16;
        let input = Input::Order { order, stage: named, reason: reason.into(), by: "olga".into() };
        let is_taken = self.put(input, false)?.is_ok();
        prop_assert!(is_taken == takes || (!is_taken && !has_room), "{order:?} taken: {is_taken}");
        Ok(())
    }
}

/// Cases when nobody says how many with `PROPTEST_CASES`.
const CASES: u32 = 2_000;
/// Where the seed of a failing case is kept. It is tried again first, and belongs into the repository.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decide/model_run.proptest-regressions");

fn config() -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok();
    let cases = said.map_or(CASES, |said| {
        said.parse().unwrap_or_else(|_| panic!("PROPTEST_CASES: found {said:?}, expected a whole number"))
    });
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS)) as _);
    ProptestConfig { cases, failure_persistence, max_shrink_iters: 100_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_orders_of_everything_keep_the_rules(ops in prop::collection::vec(any_op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op)?;
        }
    }
}

#[test]
fn the_model_reaches_every_place() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut completed, mut cancelled, mut offered, mut kinds) = (0, 0, 0, BTreeSet::new());
    let (mut succeeded, mut contradicted) = (0, 0);
    for _ in 0..1_500 {
        let ops = prop::collection::vec(any_op(), 1..60).new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        for op in &ops {
            world.apply(op).unwrap();
            if let Standing::Held { why, .. } = &world.bench.run.standing {
                kinds.insert(serde_json::to_value(why).unwrap()["kind"].to_string());
            }
            succeeded += usize::from(world.bench.waits_for() == Some(WaitFor::Successor));
            contradicted += usize::from(world.bench.told("agent_speaks"));
            offered += usize::from(!world.bench.run.offered.is_empty());
        }
        completed += usize::from(place(&world.bench.run) == Place::Completed);
        cancelled += usize::from(place(&world.bench.run) == Place::Cancelled);
    }
    assert!(completed > 0 && cancelled > 0 && offered > 0, "{completed} {cancelled} {offered}");
    assert!(succeeded > 0 && contradicted > 0, "{succeeded} {contradicted}");
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}

/// Found at random: under one number, a process of the life that a restore has forgotten and one of the new life.
#[test]
fn a_process_of_the_forgotten_life_is_not_the_one_that_was_given_its_number() {
    let claim = |home, bearer| Op::Claim { home, bearer, answer_lost: false, old: false };
    let report = |current, stage| Op::Report {
        home: 0,
        claim_off: 0,
        stage,
        attempt_off: 0,
        current,
        outcome: Outcome::Pass,
    };
    let ops = [
        claim(0, 1),
        Op::Backup,
        Op::Restart(0),
        claim(0, 2),
        report(true, 0),
        report(true, 0),
        Op::Order { order: OrderKind::Cancel, stage: None, reason: true },
        report(false, 0),
        Op::Restore,
        Op::Reboot(1),
        Op::Pass { span_ms: 30 * SECOND, looks: false },
        claim(1, 1),
        report(false, 0),
        report(false, 1),
    ];
    let mut world = World::new();
    for op in &ops {
        world.apply(op).unwrap();
    }
    let number = |home: usize| world.homes[home].request.known_claim;
    assert_eq!((number(0), number(1)), (ClaimNumber(2), ClaimNumber(2)));
    assert!(world.holds_the_claim(1) && !world.holds_the_claim(0));
    let token = |home: usize| world.homes[home].request.token_sha256.clone();
    assert_ne!(token(0), token(1), "the token tells them apart, and is asked first");
}
