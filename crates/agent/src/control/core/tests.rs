//! What each event in each situation makes the loop do. Random orders are the model test's.

use groundcrew_durable::drain_marker::read::{Absence, Drain};
use groundcrew_protocol::hold::HoldAnswer;
use groundcrew_protocol::ids::{Generation, Sha256Hex, TokenText};
use groundcrew_protocol::limits::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, SLOW_RETRY_MS};
use groundcrew_protocol::profile::AtEnd;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimAnswer, Command, DirectiveOutcome, HeartbeatAnswer, HelloAnswer, HomeKind, ResultAnswer, Taken,
};

use super::*;
use crate::control::sight::Sight;

const BOOT: &str = "11111111-1111-4111-8111-111111111111";
const OTHER_BOOT: &str = "22222222-2222-4222-8222-222222222222";
const KEY: &str = "ssh-ed25519 AAAA";
/// A loop with its clock, which says in short words what it does.
struct Loop {
    core: Core,
    now_ms: u64,
    /// What a look at the marker sees, each with the next number.
    marker: Drain,
    looks: u64,
}

fn facts() -> Facts {
    Facts {
        instance: RandomIds::of(1),
        session: RandomIds::of(2),
        boot_id: Some(BOOT.parse().unwrap()),
        boot_epoch: String::new(),
        home: HomeKind::Durable,
        installed: true,
        ip: String::new(),
        serial: None,
        runtime: None,
        macs: Vec::new(),
        power_allowed: true,
        reboot_allowed: true,
        keys_allowed: true,
        drain_max_age_ms: 3_600_000,
    }
}

struct RandomIds;
impl RandomIds {
    fn of(byte: u8) -> groundcrew_protocol::ids::RandomId {
        groundcrew_protocol::ids::RandomId::from_bytes([byte; 16])
    }
}

fn word(action: &Action) -> Option<String> {
    let named = |which: &StageAttempt| format!("{}/{}", which.stage, which.attempt);
    let text = match action {
        Action::Say(..) | Action::Persist(_) | Action::LookForDrain(_) => return None,
        Action::KeepHooks(_) | Action::SayOfHook(..) => return None,
        Action::StartHook(start) => format!("hook {}", start.which.key()),
        Action::EndHook => "end hook".to_owned(),
        Action::BeginDrain(_, order) => format!("drain {}", order.id),
        Action::EndDrain(_, order) => format!("undrain {}", order.id),
        Action::Send(Call::Hello) => "hello".to_owned(),
        Action::Send(Call::Claim { by_boot_token: true, .. }) => "claim by boot token".to_owned(),
        Action::Send(Call::Claim { .. }) => "claim".to_owned(),
        Action::Send(Call::Result { entry, .. }) => format!("result {}/{}", entry.stage, entry.attempt),
        Action::Send(Call::Intent(intent)) => format!("intent {}", intent.kind),
        Action::Send(Call::Hold { .. }) => "hold".to_owned(),
        Action::StartStage(start) => format!("start {}/{}", start.stage, start.attempt),
        Action::EndStage(by) => format!("end {by:?}"),
        Action::KeepOutcome(entry) => format!("keep {}/{}", entry.stage, entry.attempt),
        Action::DropOutcome(which) => format!("drop {}", named(which)),
        Action::Acknowledge(which) => format!("acknowledge {}", named(which)),
        Action::Reoffer => "reoffer".to_owned(),
        Action::ForgetRun => "forget".to_owned(),
        Action::Refuse(which, _) => format!("refuse {}", named(which)),
        Action::InstallKey { .. } => "key in".to_owned(),
        Action::RemoveKey(_) => "key out".to_owned(),
        Action::Flush => "flush".to_owned(),
        Action::Leave(Ok(())) => "leave".to_owned(),
        // The first clause says what it was.
        Action::Leave(Err(why)) => {
            format!("no leave: {}", why.split([',', '(']).next().unwrap_or_default().trim_end())
        }
        Action::PowerOff => "power off".to_owned(),
        Action::Exit => "exit".to_owned(),
    };
    Some(text)
}

impl Loop {
    fn new(facts: Facts, memory: Memory) -> Loop {
        let marker = Drain::Absent(Absence::NoMarker);
        Loop { core: Core::new(facts, memory, 7), now_ms: 1_000, marker, looks: 0 }
    }

    fn on(&mut self, event: Event) -> Vec<String> {
        self.actions(event).iter().filter_map(word).collect()
    }

    /// What it does, also after the looks that a start asks for.
    fn actions(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.core.step(event, self.now_ms);
        let look = |action: &Action| if let Action::LookForDrain(look) = action { Some(*look) } else { None };
        for look in actions.iter().filter_map(look).collect::<Vec<_>>() {
            let sight = Some(self.sight());
            actions.extend(self.core.step(Event::Looked { look, sight }, self.now_ms));
        }
        actions
    }

    fn sight(&mut self) -> Sight {
        self.looks += 1;
        Sight { number: self.looks, drain: self.marker.clone() }
    }

    fn told(&mut self, reply: Reply) -> Vec<String> {
        self.on(Event::Answered(Ok(reply)))
    }

    fn fails(&mut self, failure: Failure) -> Vec<String> {
        self.on(Event::Answered(Err(failure)))
    }

    fn after(&mut self, span_ms: u64) -> Vec<String> {
        self.now_ms += span_ms;
        self.on(Event::Tick)
    }

    fn beat(&mut self, answer: HeartbeatAnswer) -> Vec<String> {
        let claim = self.core.claim().unwrap();
        self.on(Event::Heartbeat { claim, answered: Ok(Box::new(answer)) })
    }

    fn beat_fails(&mut self, failure: Failure) -> Vec<String> {
        let claim = self.core.claim().unwrap();
        self.on(Event::Heartbeat { claim, answered: Err(failure) })
    }

    /// What the next heartbeat reports.
    fn reports(&self) -> Vec<(u64, DirectiveOutcome)> {
        let beat = self.core.heartbeat("", false, WallMs(0)).unwrap();
        beat.directives.into_iter().map(|report| (report.id.0, report.outcome)).collect()
    }

    fn activity(&self) -> String {
        self.core.heartbeat("busy", false, WallMs(0)).unwrap().activity
    }
}

fn memory() -> Memory {
    Memory::new("r-1".parse().unwrap(), [7; 32])
}

fn state(text: &str) -> State {
    State::from(text.to_owned())
}

fn claim_answer(stands: &str, attempt: u32) -> ClaimAnswer {
    ClaimAnswer {
        claim: ClaimNumber(3),
        stages: Vec::new(),
        current_state: state(stands),
        attempt: Attempt(attempt),
        iperf_port: None,
        expected_disks: Vec::new(),
        non_destructive: true,
        stage_settings: Vec::new(),
        stored_packages: Vec::new(),
        operator_retries: 0,
        drains: Vec::new(),
        planned_checks: Vec::new(),
        cancelled_attempts: Vec::new(),
        at_end: AtEnd::Stay,
        ended_boot: None,
        generation: Generation(1),
        server_time: WallMs(0),
        pins: Vec::new(),
    }
}

fn claim(stands: &str, attempt: u32) -> Reply {
    Reply::Claim(Box::new(claim_answer(stands, attempt)))
}

fn taken(stands: &str, attempt: u32, generation: u64) -> Reply {
    Reply::Result(Box::new(ResultAnswer {
        taken: Taken::First,
        next_state: state(stands),
        attempt: Attempt(attempt),
        planned_checks: Vec::new(),
        generation: Generation(generation),
    }))
}

fn hold_key(expires_ms: i64) -> Reply {
    Reply::Hold(HoldAnswer::new(vec![KEY.into()], WallMs(expires_ms)))
}

fn stands_at(stands: &str) -> HeartbeatAnswer {
    HeartbeatAnswer { state: Some(state(stands)), generation: Generation(1), ..HeartbeatAnswer::default() }
}

fn directive(id: u64, command: Command, stands: &str, stage: &str, attempt: u32) -> HeartbeatAnswer {
    let stage = (!stage.is_empty()).then(|| Stage::from(stage));
    let (cmd, directive, attempt) = (Some(command), Some(DirectiveId(id)), Attempt(attempt));
    HeartbeatAnswer { cmd, directive, stage, attempt, ..stands_at(stands) }
}

/// A loop whose claim was answered, and what it did then.
fn claimed_with(facts: Facts, memory: Memory, outbox: Vec<OutboxEntry>, reply: Reply) -> (Loop, Vec<String>) {
    let mut agent = Loop::new(facts, memory);
    assert_eq!(agent.on(Event::Start(outbox)), ["hello"]);
    let hello =
        HelloAnswer { protocol: 2, generation: Generation(1), server_time: WallMs(0), pins: Vec::new() };
    let asked = agent.told(Reply::Hello(hello));
    assert!(asked == ["claim"] || asked == ["claim by boot token"], "{asked:?}");
    let done = agent.told(reply);
    (agent, done)
}

fn claimed(stands: &str, attempt: u32) -> (Loop, Vec<String>) {
    claimed_with(facts(), memory(), Vec::new(), claim(stands, attempt))
}

/// A loop with attempt 1 of CPUStress in flight.
fn walking() -> Loop {
    let (agent, done) = claimed("CPUStress", 1);
    assert_eq!(done, ["start CPUStress/1"]);
    agent
}

/// A loop in a hold, with the key in.
fn holding() -> Loop {
    let (mut agent, done) = claimed("FailedHolding", 0);
    assert_eq!(done, ["hold"]);
    assert_eq!(agent.told(hold_key(i64::MAX)), ["key in"]);
    assert!(agent.on(Event::KeyInstalled(true)).is_empty());
    agent
}

#[test]
fn a_hello_that_fails_does_not_keep_the_claim_waiting() {
    let mut agent = Loop::new(facts(), memory());
    assert_eq!(agent.on(Event::Start(Vec::new())), ["hello"]);
    assert_eq!(agent.fails(Failure::Slow("404".into())), ["claim by boot token"]);
}

#[test]
fn where_the_run_stands_says_what_a_claim_leads_to() {
    let cases: [(&str, u32, &[&str], &str); 8] = [
        ("InventoryCheck", 1, &["start Inventory/1"], "busy"),
        ("Package:a/apply", 4, &["start Package:a/apply/4"], "busy"),
        ("FailedHolding", 0, &["hold"], "held: waits for an operator (retry, override, cancel or release)"),
        ("SpecValidate", 0, &[], "waits for the orchestrator: SpecValidate"),
        ("Reporting", 0, &[], "waits for the orchestrator: Reporting"),
        (
            "Completed",
            0,
            &[],
            "the run has ended (Completed); this agent idles until it is stopped or told to shut down",
        ),
        (
            "Cancelled",
            0,
            &[],
            "the run has ended (Cancelled); this agent idles until it is stopped or told to shut down",
        ),
        ("Quantum", 1, &[], "parked: this agent knows no state Quantum"),
    ];
    for (stands, attempt, actions, activity) in cases {
        let (agent, done) = claimed(stands, attempt);
        assert_eq!(done, actions, "{stands}");
        assert_eq!(agent.activity(), activity, "{stands}");
    }
}

#[test]
fn the_end_of_a_run_is_no_warning_and_a_hold_is() {
    for (stands, wanted) in [("Completed", LogLevel::Info), ("FailedHolding", LogLevel::Warn)] {
        let mut agent = Loop::new(facts(), memory());
        agent.on(Event::Start(Vec::new()));
        agent.fails(Failure::Soon(String::new()));
        let actions = agent.core.step(Event::Answered(Ok(claim(stands, 0))), 2_000);
        let mut said = actions.into_iter().filter_map(|action| match action {
            Action::Say(level, text) => Some((level, text)),
            _ => None,
        });
        let (level, text) = said.next_back().unwrap();
        assert_eq!(level, wanted, "{text}");
        assert_eq!(text, agent.activity());
    }
}

#[test]
fn the_start_of_an_attempt_is_on_disk_before_it_runs_and_never_repeated() {
    let mut agent = Loop::new(facts(), memory());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    let actions = agent.actions(Event::Answered(Ok(claim("CPUStress", 1))));
    let at = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let persisted = at(
        &|action| matches!(action, Action::Persist(memory) if memory.has_started(&Stage::CpuStress, Attempt(1))),
    );
    assert!(persisted < at(&|action| matches!(action, Action::StartStage(_))));
    // The next agent is given the same attempt and has no outcome of it: it claims again as another process.
    let memory = agent.core.memory().clone();
    let (mut next, done) = claimed_with(facts(), memory, Vec::new(), claim("CPUStress", 1));
    assert!(done.is_empty(), "{done:?}");
    let session = next.core.facts().session.clone();
    assert_ne!(session, facts().session);
    assert_eq!(next.after(BACKOFF_MAX_MS), ["claim"]);
    assert_eq!(next.told(claim("CPUStress", 2)), ["start CPUStress/2"]);
}

#[test]
fn failures_of_a_claim_are_asked_again_soon_or_in_five_minutes() {
    let text = String::new;
    let soon = [Failure::Soon(text()), Failure::Elsewhere(text())];
    let slow =
        [Failure::Slow(text()), Failure::OldClaim(text()), Failure::Refused(text()), Failure::Gone(text())];
    for (failure, least_ms, most_ms) in soon
        .into_iter()
        .map(|one| (one, BACKOFF_FIRST_MS * 3 / 4 - 1, BACKOFF_FIRST_MS))
        .chain(slow.into_iter().map(|one| (one, SLOW_RETRY_MS - 1, SLOW_RETRY_MS)))
    {
        let mut agent = Loop::new(facts(), memory());
        agent.on(Event::Start(Vec::new()));
        assert_eq!(agent.fails(Failure::Soon(text())), ["claim by boot token"]);
        let forgets = matches!(failure, Failure::Gone(_));
        assert_eq!(agent.fails(failure.clone()), if forgets { vec!["forget"] } else { vec![] });
        assert!(agent.after(least_ms).is_empty(), "{failure:?}");
        assert_eq!(agent.after(most_ms - least_ms), ["claim by boot token"], "{failure:?}");
    }
}

#[test]
fn pauses_grow_to_30_s_and_a_claim_alone_does_not_shorten_them() {
    let (mut agent, _) = claimed_with(facts(), memory(), vec![entry("CPUStress", 1)], claim("CPUStress", 1));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        agent.fails(Failure::UnknownClaim(String::new()));
        let wake_ms = agent.core.wake_ms().unwrap();
        pauses.push(wake_ms - agent.now_ms);
        assert_eq!(agent.after(wake_ms - agent.now_ms), ["claim"]);
        assert_eq!(agent.told(claim("CPUStress", 1)), ["result CPUStress/1"]);
    }
    for (pause_ms, most_ms) in pauses.iter().zip([2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
        let least_ms = BACKOFF_FIRST_MS.max(most_ms / 2);
        assert!((least_ms..=most_ms).contains(pause_ms), "{pauses:?}");
    }
}

fn entry(stage: &str, attempt: u32) -> OutboxEntry {
    let (stage, attempt) = (Stage::from(stage), Attempt(attempt));
    OutboxEntry { stage, attempt, made_under: ClaimNumber(2), acknowledged: false }
}

#[test]
fn a_run_token_that_is_not_accepted_gives_way_to_the_boot_token_and_then_to_patience() {
    let mut known = memory();
    known.claimed = true;
    known.token = TokenText::run([7; 32]);
    let mut agent = Loop::new(facts(), known);
    agent.on(Event::Start(Vec::new()));
    assert_eq!(agent.fails(Failure::Soon(String::new())), ["claim"]);
    assert_eq!(agent.fails(Failure::Unauthorized(String::new())), ["claim by boot token"]);
    assert!(agent.fails(Failure::Unauthorized(String::new())).is_empty());
    assert!(agent.after(SLOW_RETRY_MS - 1).is_empty());
    assert_eq!(agent.after(1), ["claim"]);
}

#[test]
fn an_outcome_is_kept_then_sent_until_it_is_answered_then_the_walk_goes_on() {
    let mut agent = walking();
    assert_eq!(agent.on(Event::StageEnded), ["keep CPUStress/1", "result CPUStress/1"]);
    assert!(agent.fails(Failure::Soon(String::new())).is_empty());
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["result CPUStress/1"]);
    assert_eq!(agent.told(taken("GPU", 1, 1)), ["acknowledge CPUStress/1", "start GPU/1"]);
}

#[test]
fn a_result_that_is_refused_for_good_goes_aside_and_the_agent_asks_where_the_run_stands() {
    let mut agent = walking();
    agent.on(Event::StageEnded);
    assert_eq!(agent.fails(Failure::Refused("422".into())), ["refuse CPUStress/1"]);
    assert_eq!(agent.after(BACKOFF_MAX_MS), ["claim"]);
}

#[test]
fn another_generation_has_everything_offered_again_and_acknowledges_what_was_sent() {
    let acknowledged = OutboxEntry { acknowledged: true, ..entry("Inventory", 1) };
    let outbox = vec![acknowledged, entry("CPUStress", 1)];
    let (mut agent, done) = claimed_with(facts(), memory(), outbox, claim("CPUStress", 1));
    assert_eq!(done, ["result CPUStress/1"]);
    let restored = HeartbeatAnswer { generation: Generation(2), ..stands_at("CPUStress") };
    assert_eq!(agent.beat(restored), ["reoffer"]);
    // The answer to what was under way is of that outcome, not of the first that waits.
    assert_eq!(agent.told(taken("GPU", 1, 2)), ["acknowledge CPUStress/1", "claim"]);
    let answer = ClaimAnswer { generation: Generation(2), claim: ClaimNumber(4), ..claim_answer("GPU", 1) };
    assert_eq!(agent.told(Reply::Claim(Box::new(answer))), ["result Inventory/1"]);
}

#[test]
fn the_new_generation_is_on_disk_only_after_the_outcomes_are_offered() {
    let mut known = memory();
    known.generation = Generation(1);
    let (mut agent, _) = claimed_with(facts(), known, Vec::new(), claim("CPUStress", 1));
    let claim = agent.core.claim().unwrap();
    let restored = HeartbeatAnswer { generation: Generation(2), ..stands_at("CPUStress") };
    let beat = Event::Heartbeat { claim, answered: Ok(Box::new(restored)) };
    let actions = agent.core.step(beat, agent.now_ms);
    let offered = actions.iter().position(|action| *action == Action::Reoffer).unwrap();
    let persisted = actions
        .iter()
        .position(|action| matches!(action, Action::Persist(memory) if memory.generation == Generation(2)));
    assert!(offered < persisted.unwrap());
}

#[test]
fn a_later_claim_ends_the_stage_and_the_agent_asks_again_in_five_minutes() {
    for by_heartbeat in [true, false] {
        let mut agent = walking();
        if by_heartbeat {
            assert_eq!(agent.beat_fails(Failure::OldClaim(String::new())), ["end Displaced"]);
            assert_eq!(agent.on(Event::StageEnded), ["drop CPUStress/1"]);
        } else {
            agent.on(Event::StageEnded);
            assert!(agent.fails(Failure::OldClaim(String::new())).is_empty());
        }
        assert!(agent.core.heartbeat("", false, WallMs(0)).is_none());
        assert!(agent.after(SLOW_RETRY_MS - 1).is_empty());
        assert_eq!(agent.after(1), ["claim"]);
    }
}

#[test]
fn an_answer_under_a_claim_that_is_over_changes_no_pause_and_no_key() {
    for late in
        [Err(Failure::OldClaim(String::new())), Err(Failure::Soon(String::new())), Ok(hold_key(i64::MAX))]
    {
        let (mut agent, done) = claimed("FailedHolding", 0);
        assert_eq!(done, ["hold"]);
        assert!(agent.beat_fails(Failure::OldClaim(String::new())).is_empty());
        assert!(agent.on(Event::Answered(late)).is_empty());
        assert!(agent.after(SLOW_RETRY_MS - 1).is_empty());
        assert_eq!(agent.after(1), ["claim"]);
    }
}

#[test]
fn a_boot_token_that_is_not_good_yet_is_shown_again_when_the_answer_says() {
    for (after_s, pause_ms) in [(12, 12_000), (0, BACKOFF_FIRST_MS), (86_400, SLOW_RETRY_MS)] {
        let mut agent = Loop::new(facts(), memory());
        agent.on(Event::Start(Vec::new()));
        assert_eq!(agent.fails(Failure::Soon(String::new())), ["claim by boot token"]);
        assert!(agent.fails(Failure::NotYet { text: "401".into(), after_s }).is_empty());
        assert!(agent.after(pause_ms - 1).is_empty(), "{after_s}");
        assert_eq!(agent.after(1), ["claim by boot token"], "{after_s}");
    }
}

#[test]
fn a_claim_elsewhere_ends_what_is_in_flight() {
    let mut agent = walking();
    assert!(agent.beat_fails(Failure::UnknownClaim(String::new())).is_empty());
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["claim"]);
    assert_eq!(agent.fails(Failure::Elsewhere("10.0.0.2".into())), ["end Displaced"]);
}

#[test]
fn a_stage_in_flight_goes_on_under_a_new_claim_or_makes_way() {
    for (stands, attempt, done) in [("CPUStress", 1, vec![]), ("CPUStress", 2, vec!["end Displaced"])] {
        let mut agent = walking();
        agent.beat_fails(Failure::UnknownClaim(String::new()));
        agent.after(BACKOFF_FIRST_MS);
        assert_eq!(agent.told(claim(stands, attempt)), done);
    }
}

#[test]
fn the_orchestrators_word_counts_where_the_two_disagree_for_three_heartbeats() {
    let mut agent = walking();
    for _ in 0..2 {
        assert!(agent.beat(stands_at("FailedHolding")).is_empty());
    }
    assert!(agent.beat(stands_at("CPUStress")).is_empty());
    for _ in 0..3 {
        assert!(agent.beat(stands_at("FailedHolding")).is_empty());
    }
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["claim"]);
    assert_eq!(agent.told(claim("FailedHolding", 0)), ["end Displaced"]);
    assert_eq!(agent.on(Event::StageEnded), ["drop CPUStress/1", "hold"]);
}

mod asks;
mod directives;
mod drains;
mod ends;
mod hooks;
mod leaving;
mod pins;
