//! An agent takes hold of a run (rule 3 of the design): who may, and what it is told.

use groundcrew_protocol::ids::{ClaimNumber, Generation, Sha256Hex, SinkName};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{ClaimAnswer, ClaimRequest, HomeKind, IntentKind, StageAttempt};
use groundcrew_protocol::{PROTOCOL, PROTOCOL_OLDEST, limits};

use super::identity::{self, Identity};
use super::step::{AGENT, ORCHESTRATOR, Step, cut};
use super::{Answer, Change, Refused, SpentFor, UnfitFor, heard, notice, rejoin};
use crate::run::state::{Claim, Fate, HeldFor, MACS_KEPT_MAX, Machine, NAME_CHARS_MAX, StageRecord};

/// How far beyond the store's last claim an agent's may be. After a restore it is a few; a number far beyond
/// would use up the numbers that are left.
const CLAIMS_AHEAD_MAX: u64 = 1 << 32;

/// Decides a claim.
pub(super) fn claim(
    mut step: Step,
    request: &ClaimRequest,
    protocol: u32,
    bearer: &Sha256Hex,
    fleet: &[SinkName],
) -> Result<Change, Refused> {
    let token = token_of(&step, request, protocol, bearer)?;
    check_bearer(&step, bearer)?;
    check_machine(&step, request)?;
    if is_same_call(&step, request, protocol, &token) {
        heard::end_silence(&mut step);
        let answer = answer(&step);
        return Ok(step.done(answer));
    }
    let use_of_token = check_token(&step, request, protocol, bearer, &token)?;
    check_known_claim(&step, request)?;
    let changes_hands = check_hands(&step, request, protocol)?;

    if let Some(unheard) = &request.unheard {
        notice::shut_down_unheard(&mut step, unheard, fleet);
    }
    let old = step.run.claim.clone();
    grant(&mut step, request, protocol, token);
    note_use_of_token(&mut step, old.as_ref(), request, use_of_token);
    if changes_hands {
        note_change_of_hands(&mut step, old.as_ref(), request);
    }
    rejoin::rejoin(&mut step, old.as_ref(), request);
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
    let run = &step.run.id;
    if !(PROTOCOL_OLDEST..=PROTOCOL).contains(&protocol) {
        let text = format!(
            "claim of run {run}: found protocol {protocol}, expected {PROTOCOL_OLDEST} to {PROTOCOL}"
        );
        return Err(Refused::unfit(UnfitFor::Protocol, text));
    }
    if protocol == 1 {
        return Ok(bearer.clone());
    }
    let missing = |why, field: &str| {
        let text = format!("claim of run {run}: found no `{field}`, expected one in protocol {protocol}");
        Refused::unfit(why, text)
    };
    if request.instance.is_none() {
        return Err(missing(UnfitFor::NoInstance, "instance"));
    }
    if request.session.is_none() {
        return Err(missing(UnfitFor::NoSession, "session"));
    }
    request.token_sha256.clone().ok_or_else(|| missing(UnfitFor::NoTokenHash, "token_sha256"))
}

/// Nothing is told to somebody who shows neither of the run's tokens.
fn check_bearer(step: &Step, bearer: &Sha256Hex) -> Result<(), Refused> {
    let run = &step.run;
    if *bearer == run.boot_token || run.claim.as_ref().is_some_and(|claim| claim.token == *bearer) {
        return Ok(());
    }
    Err(Refused::WrongToken { run: run.id.clone() })
}

/// A run is its node's. What the operator has not said of the node, or the machine cannot say of itself, is no mismatch:
/// the latter is told, and is a check of the first stage.
fn check_machine(step: &Step, request: &ClaimRequest) -> Result<(), Refused> {
    let (node_is, machine) = (&step.run.node_is, machine_of(request, &step.run.node_is));
    match identity::compare(node_is, &machine) {
        Identity::Unregistered | Identity::Proved(_) | Identity::Unproved(_) => return Ok(()),
        Identity::Other => {}
    }
    Err(Refused::WrongMachine {
        run: step.run.id.clone(),
        node: step.run.node.clone(),
        expected: node_is.describe(),
        found: machine.describe(),
    })
}

/// The same process asks again because an answer was lost: it gets the claim that it has.
///
/// An agent of protocol 1 does not name its process. As long as it has not spoken under the claim, it does not
/// know that it has it.
fn is_same_call(step: &Step, request: &ClaimRequest, protocol: u32, token: &Sha256Hex) -> bool {
    step.run.claim.as_ref().is_some_and(|claim| {
        let same_process = if protocol == 1 {
            !claim.spoke && claim.ip == cut(&request.ip, NAME_CHARS_MAX)
        } else {
            request.session.is_some() && claim.session == request.session
        };
        same_process
            && claim.protocol == protocol
            && claim.instance == request.instance
            && claim.token == *token
            && claim.boot == request.boot_id
            && request.known_claim <= claim.number
            && !step.run.restored
    })
}

/// What a claim says of its machine. Of very many addresses those are kept that `known` has, which they are compared with.
fn machine_of(request: &ClaimRequest, known: &Machine) -> Machine {
    let mut macs = request.macs.clone();
    macs.sort();
    macs.dedup();
    macs.sort_by_key(|mac| !known.macs.contains(mac));
    macs.truncate(MACS_KEPT_MAX);
    Machine { serial: request.serial.as_ref().map(|serial| cut(serial, NAME_CHARS_MAX)), macs }
}

/// True where the claim comes from a machine, which must say so: what is known of it, the claim must name too.
fn is_surely_from(known: Option<&Machine>, request: &ClaimRequest) -> bool {
    let Some(known) = known else {
        return false;
    };
    let machine = machine_of(request, known);
    let says_nothing = known.serial.is_none() && known.macs.is_empty();
    let serial_fits = match (&known.serial, &machine.serial) {
        (Some(before), Some(now)) => identity::is_same_serial(before, now),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let macs_fit = known.macs.is_empty() || known.macs.iter().any(|mac| machine.macs.contains(mac));
    !says_nothing && serial_fits && macs_fit
}

/// True where nothing says that the claim comes from another machine than a claim before: neither a serial nor, where both
/// name some, the addresses. Whoever takes a claim from somebody who may be alive is measured by this one: copies of a
/// virtual machine have one serial between them, and an address each.
fn may_be_from(known: &Machine, request: &ClaimRequest) -> bool {
    let machine = machine_of(request, known);
    let serial_fits = match (&known.serial, &machine.serial) {
        (Some(before), Some(now)) => identity::is_same_serial(before, now),
        (None, _) | (_, None) => true,
    };
    let shares_mac = known.macs.iter().any(|mac| machine.macs.contains(mac));
    serial_fits && (shares_mac || known.macs.is_empty() || machine.macs.is_empty())
}

/// True where a claim under another boot may be of the machine that was to boot. As of the run's node, a serial decides
/// alone: interfaces come and go with a boot, and addresses with their drivers.
pub(super) fn may_have_booted(known: &Machine, request: &ClaimRequest) -> bool {
    match identity::compare(known, &machine_of(request, known)) {
        Identity::Unregistered | Identity::Proved(_) | Identity::Unproved(_) => true,
        Identity::Other => false,
    }
}

/// What a claim does with the boot token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UseOfToken {
    /// It shows its run token, or repeats its own use.
    None,
    /// It spends the boot token.
    Spends,
    /// It uses a spent one again, after a boot.
    Again,
}

/// A boot token is good once. Afterwards it is good again only while the run waits for this very machine to boot.
fn check_token(
    step: &Step,
    request: &ClaimRequest,
    protocol: u32,
    bearer: &Sha256Hex,
    token: &Sha256Hex,
) -> Result<UseOfToken, Refused> {
    let run = &step.run;
    if *bearer == run.boot_token && !run.boot_token_spent {
        return Ok(UseOfToken::Spends);
    }
    let Some(claim) = &run.claim else {
        return Err(spent(step, SpentFor::ClaimGone, "and its claim is gone"));
    };
    let same_home = claim.token == *bearer || claim.token == *token;
    if same_home || (protocol == 1 && claim.protocol == 1) {
        return Ok(UseOfToken::None);
    }
    if !is_surely_from(run.machine.as_ref(), request) {
        return Err(spent(
            step,
            SpentFor::OtherMachine,
            "this machine does not show the serial and an address of the one that used it",
        ));
    }
    if run.end().is_some() {
        // The agent that spent it is gone, and nobody but a successor on its machine gets here.
        return Ok(UseOfToken::Again);
    }
    if request.boot_id.is_none() || request.boot_id == claim.boot {
        return Err(spent(step, SpentFor::NoLaterBoot, "and this is no later boot than the last claim's"));
    }
    let left_ms = limits::FRESH_MS.saturating_sub(step.now.quiet_ms());
    if !awaits_boot(step) && left_ms > 0 {
        // The machine is the right one and has booted since: all that is missing is that its last words are old.
        return Err(Refused::TokenSpent {
            run: run.id.clone(),
            why: SpentFor::HeardLately,
            text: format!("and the agent that claimed with it was heard {} ms ago", step.now.quiet_ms()),
            ended: run.ended().is_some(),
            retry_after_ms: Some(left_ms),
        });
    }
    Ok(UseOfToken::Again)
}

fn spent(step: &Step, why: SpentFor, text: &str) -> Refused {
    let ended = step.run.ended().is_some();
    Refused::TokenSpent { run: step.run.id.clone(), why, text: text.to_owned(), ended, retry_after_ms: None }
}

fn awaits_boot(step: &Step) -> bool {
    step.run.intent.as_ref().is_some_and(|intent| intent.kind == IntentKind::Reboot)
}

fn check_known_claim(step: &Step, request: &ClaimRequest) -> Result<(), Refused> {
    let (known, last) = (request.known_claim, step.run.claims);
    if known.0.saturating_sub(last.0) > CLAIMS_AHEAD_MAX {
        let text = format!(
            "claim of run {}: found known_claim {known}, expected one near {last}, the last claim here",
            step.run.id
        );
        return Err(Refused::unfit(UnfitFor::KnownClaim, text));
    }
    Ok(())
}

/// Says whether the claim changes hands, and refuses while the one who has it is alive.
fn check_hands(step: &Step, request: &ClaimRequest, protocol: u32) -> Result<bool, Refused> {
    let Some(claim) = &step.run.claim else {
        return Ok(false);
    };
    let same_machine = may_be_from(&claim.machine, request);
    let booted = request.boot_id.is_some() && request.boot_id != claim.boot;
    let same_home = if protocol == 1 {
        claim.protocol == 1 && claim.ip == cut(&request.ip, NAME_CHARS_MAX)
    } else {
        claim.instance == request.instance && same_machine
    };
    // A home that knows the current claim is its holder's, started again. One that does not know a claim which
    // has never spoken is the holder's too: the answer was lost. Any other copy of the home is somebody else.
    let successor = same_home && (protocol == 1 || request.known_claim >= claim.number || !claim.spoke);
    // Whose pod or process has ended is no second agent beside its successor on the machine.
    let took_its_place = same_machine && step.run.end().is_some();
    if successor || took_its_place || (booted && same_machine && awaits_boot(step)) {
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
    // A machine that lost its home with its power is no second agent, nor is one that was to boot and did so with other
    // addresses. Only silence lets the latter in: its serial alone may be a copy's, beside a holder that is alive.
    let came_back = same_machine || (awaits_boot(step) && may_have_booted(&claim.machine, request));
    Ok(!(booted && came_back))
}

fn grant(step: &mut Step, request: &ClaimRequest, protocol: u32, token: Sha256Hex) {
    let known = step.run.claims.max(request.known_claim);
    let number = ClaimNumber(known.0.saturating_add(1));
    let ip = cut(&request.ip, NAME_CHARS_MAX);
    let in_same_pod = step.run.claim.as_ref().filter(|claim| claim.runtime == request.runtime);
    let ended_before = in_same_pod.and_then(|claim| {
        claim.end.as_ref().map(|end| end.end.clone()).or_else(|| claim.ended_before.clone())
    });
    // The same process, which claims again while it ends, ends once.
    let known =
        step.run.claim.take().filter(|claim| request.session.is_some() && claim.session == request.session);
    let shuts_down = known.and_then(|claim| claim.shuts_down);
    step.run.claims = number;
    step.run.claim = Some(Claim {
        number,
        protocol,
        instance: request.instance.clone(),
        session: request.session.clone(),
        token,
        boot: request.boot_id.clone(),
        machine: machine_of(request, &step.run.node_is),
        ip: ip.clone(),
        home: match &request.home {
            Some(HomeKind::Durable) => HomeKind::Durable,
            // What is not said to be durable is not trusted to be.
            Some(HomeKind::Volatile | HomeKind::Unknown(_)) | None => HomeKind::Volatile,
        },
        installed: request.installed,
        since: step.now.wall,
        listened_ms: step.now.listened_ms,
        spoke: false,
        runtime: request.runtime.clone(),
        end: None,
        ended_before,
        shuts_down,
    });
    step.tell("claimed", AGENT, format!("claim {number} by the agent at {ip}"));
    if let Some(why) = identity::unproved(&step.run) {
        step.tell("machine_unproved", ORCHESTRATOR, why);
    }
}

fn note_use_of_token(step: &mut Step, old: Option<&Claim>, request: &ClaimRequest, use_of_token: UseOfToken) {
    let after = match old.is_some_and(|claim| claim.end.is_some()) {
        true => "after the agent before had ended",
        false => "after another boot of its machine",
    };
    match use_of_token {
        UseOfToken::None => {}
        UseOfToken::Spends => {
            step.run.boot_token_spent = true;
            step.run.machine = Some(machine_of(request, &step.run.node_is));
        }
        UseOfToken::Again => {
            let ip = cut(&request.ip, NAME_CHARS_MAX);
            let text = format!("the spent boot token was used again from {ip}, {after}");
            step.tell("boot_token_reused", AGENT, text);
        }
    }
}

fn note_change_of_hands(step: &mut Step, old: Option<&Claim>, request: &ClaimRequest) {
    let now_ms = step.now.listened_ms;
    let hands = &mut step.run.hands_changed_ms;
    hands.retain(|at_ms| now_ms.saturating_sub(*at_ms) < limits::CLAIM_CHANGES_WINDOW_MS);
    hands.push(now_ms);
    if hands.len() > limits::CLAIM_CHANGES_MAX {
        hands.remove(0);
    }
    let (from, to) =
        (old.map(|claim| claim.ip.clone()).unwrap_or_default(), cut(&request.ip, NAME_CHARS_MAX));
    step.tell("hands_changed", AGENT, format!("the claim went from the agent at {from} to the one at {to}"));
    if step.is_on_its_way() && step.run.hands_changed_ms.len() >= limits::CLAIM_CHANGES_MAX {
        step.close_attempt(Fate::Replaced);
        step.hold(HeldFor::ClaimFight { between: [from, to] }, ORCHESTRATOR);
        step.run.hands_changed_ms.clear();
    }
}

/// The answer. The caller fills in what is not the run's: generation, time, pins, the iperf3 port.
fn answer(step: &Step) -> Answer {
    let run = &step.run;
    let (current_state, attempt, planned_checks) = step.standing_for_agent();
    let closed = |stage: &StageRecord| -> Vec<StageAttempt> {
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
            .map(|spec| run.profile.settled(spec))
            .collect(),
        stored_packages: run.profile.stored_packages().cloned().collect(),
        planned_checks,
        cancelled_attempts: run.stages.iter().flat_map(closed).collect(),
        operator_retries: run.operator_retries,
        at_end: run.profile.at_end.clone(),
        ended_boot: run.ended_boot().cloned(),
        generation: Generation(0),
        server_time: WallMs(0),
        pins: Vec::new(),
        drains: Vec::new(),
    }))
}
