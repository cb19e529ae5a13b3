//! An agent takes hold of a run (rule 3 of the design).

use groundcrew_protocol::check::{Check, Judged, Limit, Observation, Verdict};
use groundcrew_protocol::ids::{Attempt, BootId, ClaimNumber, Generation, Sha256Hex};
use groundcrew_protocol::limits;
use groundcrew_protocol::plan::names;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, Command, DirectiveOutcome, HomeKind, IntentKind, StageAttempt,
};

use super::step::{AGENT, ORCHESTRATOR, Step};
use super::{Answer, Change, Refused};
use crate::run::state::{AttemptRecord, Claim, Fate, HeldFor, Machine, RESETS_KEPT_MAX, Reset, Standing};

/// Decides a claim.
pub(super) fn claim(
    mut step: Step,
    request: &ClaimRequest,
    protocol: u32,
    bearer: &Sha256Hex,
) -> Result<Change, Refused> {
    let token = token_of(&step, request, protocol, bearer)?;
    if is_same_call(&step, request, &token) {
        let answer = answer(&step);
        return Ok(step.done(answer));
    }
    check_token(&step, request, protocol, bearer, &token)?;
    let changes_hands = check_hands(&step, request, protocol)?;

    let old = step.run.claim.clone();
    grant(&mut step, request, protocol, token);
    if changes_hands {
        note_change_of_hands(&mut step, old.as_ref(), request);
    }
    know_attempts(&mut step, request);
    let rebooted = compare_boots(&mut step, old.as_ref(), request);
    drop_stale_directives(&mut step);
    match rebooted {
        Boot::Proved => pass_interrupt(&mut step, request),
        Boot::Same | Boot::Reset => {}
    }
    resume(&mut step, request);
    step.run.restored = false;
    let answer = answer(&step);
    Ok(step.done(answer))
}

/// The token under which the claim will speak.
fn token_of(
    step: &Step,
    request: &ClaimRequest,
    protocol: u32,
    bearer: &Sha256Hex,
) -> Result<Sha256Hex, Refused> {
    if protocol == 1 {
        return Ok(bearer.clone());
    }
    let missing = |field: &str| {
        Refused::Unfit(format!(
            "claim of run {}: found no `{field}`, expected one in protocol {protocol}",
            step.run.id
        ))
    };
    if request.instance.is_none() {
        return Err(missing("instance"));
    }
    if request.session.is_none() {
        return Err(missing("session"));
    }
    request.token_sha256.clone().ok_or_else(|| missing("token_sha256"))
}

/// The same process asks again because an answer was lost: it gets the claim that it has.
fn is_same_call(step: &Step, request: &ClaimRequest, token: &Sha256Hex) -> bool {
    step.run.claim.as_ref().is_some_and(|claim| {
        request.session.is_some()
            && claim.session == request.session
            && claim.instance == request.instance
            && claim.token == *token
            && claim.boot == request.boot_id
            && request.known_claim <= claim.number
            && !step.run.restored
    })
}

fn machine_of(request: &ClaimRequest) -> Machine {
    let mut macs = request.macs.clone();
    macs.sort();
    macs.dedup();
    Machine { serial: request.serial.clone(), macs }
}

/// True where the claim comes from the machine that claimed before, as far as both say what they are.
fn is_same_machine(step: &Step, request: &ClaimRequest) -> bool {
    let Some(known) = &step.run.machine else {
        return true;
    };
    let machine = machine_of(request);
    let serial_fits = match (&known.serial, &machine.serial) {
        (Some(before), Some(now)) => before == now,
        (None, _) | (_, None) => true,
    };
    let shares_mac = known.macs.iter().any(|mac| machine.macs.contains(mac));
    serial_fits && (shares_mac || known.macs.is_empty() || machine.macs.is_empty())
}

/// A boot token is good once. Afterwards it is good again only while the run waits for this very machine to boot.
fn check_token(
    step: &Step,
    request: &ClaimRequest,
    protocol: u32,
    bearer: &Sha256Hex,
    token: &Sha256Hex,
) -> Result<(), Refused> {
    let run = &step.run;
    let of_claim = run.claim.as_ref().is_some_and(|claim| claim.token == *bearer);
    if *bearer != run.boot_token && !of_claim {
        return Err(Refused::WrongToken { run: run.id.clone() });
    }
    let Some(claim) = &run.claim else {
        return if run.boot_token_spent { Err(spent(step, "and its claim is gone")) } else { Ok(()) };
    };
    let same_home = of_claim || claim.token == *token;
    if !run.boot_token_spent || same_home || (protocol == 1 && claim.protocol == 1) {
        return Ok(());
    }
    if !is_same_machine(step, request) {
        return Err(spent(step, "it was used from another machine"));
    }
    if request.boot_id.is_none() || request.boot_id == claim.boot {
        return Err(spent(step, "and this is no later boot than the last claim's"));
    }
    if !awaits_boot(step) && step.now.quiet_ms() < limits::FRESH_MS {
        return Err(spent(step, "and the agent that claimed with it is alive"));
    }
    Ok(())
}

fn spent(step: &Step, why: &str) -> Refused {
    Refused::TokenSpent { run: step.run.id.clone(), why: why.to_owned() }
}

fn awaits_boot(step: &Step) -> bool {
    step.run.intent.as_ref().is_some_and(|intent| intent.kind == IntentKind::Reboot)
}

/// Says whether the claim changes hands, and refuses while the one who has it is alive.
fn check_hands(step: &Step, request: &ClaimRequest, protocol: u32) -> Result<bool, Refused> {
    let Some(claim) = &step.run.claim else {
        return Ok(false);
    };
    let same_machine = is_same_machine(step, request);
    let rebooted = request.boot_id.is_some() && request.boot_id != claim.boot && same_machine;
    let same_home = if protocol == 1 {
        claim.protocol == 1 && claim.ip == request.ip
    } else {
        claim.instance == request.instance && same_machine
    };
    // A home that knows the current claim is its holder's, started again. One that does not know a claim which
    // has never spoken is the holder's too: the answer was lost. Any other copy of the home is somebody else.
    let successor = same_home && (protocol == 1 || request.known_claim >= claim.number || !claim.spoke);
    if successor || (rebooted && awaits_boot(step)) {
        return Ok(false);
    }
    if step.now.quiet_ms() < limits::FRESH_MS {
        return Err(Refused::ClaimedElsewhere {
            run: step.run.id.clone(),
            ip: claim.ip.clone(),
            since: claim.since,
            quiet_ms: step.now.quiet_ms(),
            current: claim.number,
        });
    }
    // A machine that lost its home with its power is no second agent.
    Ok(!rebooted)
}

fn grant(step: &mut Step, request: &ClaimRequest, protocol: u32, token: Sha256Hex) {
    let known = step.run.claims.max(request.known_claim);
    let number = ClaimNumber(known.0.saturating_add(1));
    step.run.claims = number;
    step.run.boot_token_spent = true;
    if step.run.machine.is_none() {
        step.run.machine = Some(machine_of(request));
    }
    step.run.claim = Some(Claim {
        number,
        protocol,
        instance: request.instance.clone(),
        session: request.session.clone(),
        token,
        boot: request.boot_id.clone(),
        ip: request.ip.clone(),
        home: request.home.clone().unwrap_or(HomeKind::Volatile),
        since: step.now.wall,
        spoke: false,
    });
    step.tell("claimed", AGENT, format!("claim {number} by the agent at {}", request.ip));
}

fn note_change_of_hands(step: &mut Step, old: Option<&Claim>, request: &ClaimRequest) {
    let now_ms = step.now.listened_ms;
    step.run.hands_changed_ms.retain(|at_ms| now_ms.saturating_sub(*at_ms) < limits::CLAIM_CHANGES_WINDOW_MS);
    step.run.hands_changed_ms.push(now_ms);
    let from = old.map(|claim| claim.ip.clone()).unwrap_or_default();
    step.tell(
        "hands_changed",
        AGENT,
        format!("the claim went from the agent at {from} to the one at {}", request.ip),
    );
    let walking = matches!(step.run.standing, Standing::Walking);
    if walking && step.run.hands_changed_ms.len() >= limits::CLAIM_CHANGES_MAX {
        step.close_attempt(Fate::Replaced);
        step.hold(HeldFor::ClaimFight { between: [from, request.ip.clone()] }, ORCHESTRATOR);
        step.run.hands_changed_ms.clear();
    }
}

/// After a restore the agent may have started attempts that the store has forgotten: later ones get higher
/// numbers, and an outcome that it kept for one of them counts as that attempt's.
fn know_attempts(step: &mut Step, request: &ClaimRequest) {
    for known in &request.started {
        if let Some(stage) = step.run.stages.iter_mut().find(|stage| stage.spec.name == known.stage) {
            // Bounded, so that a lie cannot use up the numbers.
            let highest = Attempt(stage.attempts_made.0.saturating_add(1_000));
            if known.attempt > stage.attempts_made && known.attempt <= highest {
                stage.attempts_made = known.attempt;
            }
        }
    }
    if !step.run.restored {
        return;
    }
    let walking = matches!(step.run.standing, Standing::Walking);
    let stage = &step.run.stages[step.run.at];
    let name = stage.spec.name.clone();
    let last = stage.attempts.last().map_or(Attempt(0), |attempt| attempt.number);
    let offered = request
        .outbox
        .iter()
        .filter(|entry| entry.stage == name && entry.attempt > last)
        .max_by_key(|e| e.attempt);
    if let (true, Some(entry)) = (walking, offered) {
        step.close_attempt(Fate::Replaced);
        let now = step.now;
        let stage = &mut step.run.stages[step.run.at];
        stage.attempts_made = stage.attempts_made.max(entry.attempt);
        stage.attempts.push(AttemptRecord {
            number: entry.attempt,
            claim: entry.made_under,
            began: now.wall,
            began_ms: now.listened_ms,
            ended: None,
            fate: Fate::InFlight,
            flags: Default::default(),
        });
        step.tell(
            "attempt_known_again",
            AGENT,
            format!("{name}: attempt {} was made before the restore", entry.attempt),
        );
    }
}

/// How the boot of a claim compares with the one before.
enum Boot {
    /// The same, or nobody can tell.
    Same,
    /// Another, after a reboot that was asked for.
    Proved,
    /// Another, and nobody asked for it.
    Reset,
}

fn compare_boots(step: &mut Step, old: Option<&Claim>, request: &ClaimRequest) -> Boot {
    let (Some(from), Some(to)) = (old.and_then(|claim| claim.boot.clone()), request.boot_id.clone()) else {
        return Boot::Same;
    };
    if from == to {
        return Boot::Same;
    }
    let asked = step.run.intent.as_ref().filter(|intent| intent.boot == from);
    match asked.map(|intent| intent.kind.clone()) {
        Some(IntentKind::Reboot) => {
            step.tell(
                "reboot_proved",
                AGENT,
                format!("the boot id went from {from} to {to}, as was asked for"),
            );
            Boot::Proved
        }
        Some(IntentKind::PowerOff) => Boot::Same,
        Some(IntentKind::Wipe | IntentKind::Unknown(_)) | None => {
            note_reset(step, from, to);
            Boot::Reset
        }
    }
}

/// A reset that nobody asked for is a failed check of the attempt in flight.
fn note_reset(step: &mut Step, from: BootId, to: BootId) {
    let open = step.run.attempt().filter(|attempt| attempt.fate.is_open()).map(|attempt| attempt.number);
    let Some(attempt) = open else {
        return step.tell(
            "reset",
            AGENT,
            format!("the boot id went from {from} to {to}, with no stage in flight"),
        );
    };
    let text = format!("the boot id went from {from} to {to} in attempt {attempt}, and nobody asked for it");
    let seen = step.now.wall;
    let resets = &mut step.run.stages[step.run.at].resets;
    if resets.len() < RESETS_KEPT_MAX {
        resets.push(Reset { attempt, from, to, seen });
    }
    step.tell("unexpected_reset", AGENT, text);
}

/// A reboot that an interrupt asked for was seen: that is the interrupt's outcome, unless the agent has kept one.
fn pass_interrupt(step: &mut Step, request: &ClaimRequest) {
    let Some(intent) = step.run.intent.take() else {
        return;
    };
    let name = step.run.stage().spec.name.clone();
    let open = step.run.attempt().filter(|attempt| attempt.fate.is_open()).map(|attempt| attempt.number);
    let is_current = intent.stage.as_ref() == Some(&name) && open == Some(intent.attempt);
    let is_interrupt = matches!(name, Stage::Interrupt { .. });
    if !is_current || !is_interrupt || holds_outcome(request, &name, intent.attempt) {
        return;
    }
    let check = Check::of(
        names::REBOOTED,
        None,
        Observation::Found { text: "another boot id".to_owned() },
        Limit::equal_to("another boot id"),
    );
    let judged = Judged { verdict: Verdict::Pass, checks: vec![check] };
    step.close_attempt(Fate::Done(Verdict::Pass));
    step.run.stages[step.run.at].verdict = Some(Verdict::Pass);
    step.tell("result", ORCHESTRATOR, format!("{name}: pass, by the reboot that was seen"));
    step.own.push((name, intent.attempt, judged));
    step.go_on();
}

fn holds_outcome(request: &ClaimRequest, stage: &Stage, attempt: Attempt) -> bool {
    request.outbox.iter().any(|entry| entry.stage == *stage && entry.attempt == attempt)
}

/// At a new claim the state itself says what to do: what ordered it for an attempt is past.
fn drop_stale_directives(step: &mut Step) {
    let (past, kept) = std::mem::take(&mut step.run.directives).into_iter().partition(|directive| {
        matches!(directive.command, Command::CancelStage | Command::RetryStage | Command::Continue)
    });
    step.run.directives = kept;
    // Whether the agent had begun decides below whether its attempt counts as a crash.
    let past: Vec<crate::run::state::Directive> = past;
    let began = |said: &Option<DirectiveOutcome>| said.is_some();
    let open = step.run.attempt().filter(|attempt| attempt.fate.is_open()).map(|attempt| attempt.number);
    let unheard = past.iter().any(|directive| {
        directive.command != Command::CancelStage
            && Some(directive.attempt) == open
            && !began(&directive.said)
    });
    if unheard {
        step.close_attempt(Fate::Replaced);
    }
}

/// Goes on from where the run stands.
fn resume(step: &mut Step, request: &ClaimRequest) {
    match &step.run.standing {
        Standing::Held { why: HeldFor::Silence { .. }, .. } => {
            step.run.standing = Standing::Walking;
            step.tell("resumed", AGENT, "the agent is back; the hold for its silence is over".to_owned());
        }
        Standing::Held { .. } | Standing::Completed { .. } | Standing::Cancelled { .. } => return,
        Standing::Walking => {}
    }
    let name = step.run.stage().spec.name.clone();
    let Some(open) =
        step.run.attempt().filter(|attempt| attempt.fate.is_open()).map(|attempt| attempt.number)
    else {
        return step.give_attempt();
    };
    let going_on = request.in_flight == Some(StageAttempt { stage: name.clone(), attempt: open });
    if holds_outcome(request, &name, open) || going_on {
        return step.wait_for_result();
    }
    // Given out in the very decision that made this claim, after a proved reboot.
    let claim = step.run.claims;
    if step.run.attempt().is_some_and(|attempt| attempt.claim == claim) {
        return;
    }
    step.close_attempt(Fate::Crashed);
    let stage = &mut step.run.stages[step.run.at];
    stage.crashes = stage.crashes.saturating_add(1);
    let count = stage.crashes;
    step.tell("crashed", AGENT, format!("{name}: the agent came back without an outcome of attempt {open}"));
    if count >= step.run.profile.limits.crashes {
        step.hold(HeldFor::Crashes { count }, ORCHESTRATOR);
    } else {
        step.give_attempt();
    }
}

/// The answer. The caller fills in what is not the run's: generation, time, pins, the iperf3 port.
fn answer(step: &Step) -> Answer {
    let run = &step.run;
    let (current_state, attempt, planned_checks) = step.standing_for_agent();
    let closed = |stage: &crate::run::state::StageRecord| -> Vec<StageAttempt> {
        let given_up = |fate: Fate| matches!(fate, Fate::Cancelled | Fate::Replaced | Fate::Crashed);
        let attempts = stage.attempts.iter().filter(|attempt| given_up(attempt.fate));
        attempts
            .map(|attempt| StageAttempt { stage: stage.spec.name.clone(), attempt: attempt.number })
            .collect()
    };
    Answer::Claim(Box::new(ClaimAnswer {
        claim: run.claims,
        stages: run.stages.iter().map(|stage| stage.spec.name.clone()).collect(),
        current_state,
        attempt,
        iperf_port: None,
        expected_disks: run.profile.expected.disks.clone(),
        non_destructive: run.profile.write.disks.is_empty(),
        stage_settings: run
            .profile
            .stages
            .iter()
            .filter(|spec| !spec.name.is_orchestrators())
            .cloned()
            .collect(),
        planned_checks,
        cancelled_attempts: run.stages.iter().flat_map(closed).collect(),
        at_end: run.profile.at_end.clone(),
        ended_boot: run.ended_boot().cloned(),
        generation: Generation(0),
        server_time: WallMs(0),
        pins: Vec::new(),
    }))
}
