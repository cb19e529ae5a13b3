//! A stage that asks to reboot the machine: what is acknowledged before, and what keeps it from it.

use super::*;

const STAGE: &str = "Interrupt:kernel";

/// A loop with an interrupt in flight.
fn interrupting(facts: Facts) -> Loop {
    let (agent, started) = claimed_with(facts, memory(), Vec::new(), claim(STAGE, 1));
    assert_eq!(started, ["start Interrupt:kernel/1"]);
    agent
}

fn volatile() -> Facts {
    Facts { home: HomeKind::Volatile, ..facts() }
}

#[test]
fn a_machine_reboots_after_the_spools_and_an_acknowledged_intent() {
    let mut agent = interrupting(volatile());
    assert_eq!(agent.on(Event::LeaveWanted(Asked::Reboot)), ["flush"]);
    assert!(agent.after(1).is_empty(), "nothing is said before the spools have arrived");
    let actions = agent.core.step(Event::Flushed(true), agent.now_ms);
    let intent = actions.iter().find_map(|action| match action {
        Action::Send(Call::Intent(intent)) => Some(intent.clone()),
        _other => None,
    });
    let intent = intent.expect("the intent is said");
    assert_eq!(
        (intent.stage, intent.attempt, intent.claim),
        (Some(STAGE.into()), Attempt(1), ClaimNumber(3))
    );
    assert_eq!((intent.boot_id.to_string().as_str(), intent.kind.as_str()), (BOOT, "reboot"));
    // An answer that was lost is asked for again.
    assert!(agent.fails(Failure::Soon(String::new())).is_empty());
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["intent reboot"]);
    assert_eq!(agent.told(Reply::Intent), ["leave"]);
    assert!(agent.after(BACKOFF_MAX_MS).is_empty(), "it is said once");
    // The SIGTERM of the reboot ends the stage without an outcome, and then the agent.
    assert_eq!(agent.on(Event::Stop), ["end Stop"]);
    let shutdown = agent.core.heartbeat("", false, WallMs(0)).unwrap().shutdown;
    assert_eq!(shutdown.unwrap().cut_off, None, "it asked for this itself");
    assert_eq!(agent.on(Event::StageEnded), ["drop Interrupt:kernel/1", "exit"]);
}

#[test]
fn a_machine_does_not_reboot_without_permission_boot_spools_or_intent() {
    let mut forbidden = interrupting(Facts { reboot_allowed: false, ..facts() });
    assert_eq!(
        forbidden.on(Event::LeaveWanted(Asked::Reboot)),
        ["no leave: this agent's settings do not allow a reboot"]
    );
    let mut unproved = interrupting(Facts { boot_id: None, ..facts() });
    assert_eq!(unproved.on(Event::LeaveWanted(Asked::Reboot)), ["no leave: the boot id cannot be read"]);
    let mut lossy = interrupting(volatile());
    lossy.on(Event::LeaveWanted(Asked::Reboot));
    assert_eq!(
        lossy.on(Event::Flushed(false)),
        ["no leave: what this volatile home holds has not arrived at the orchestrator in time"]
    );
    // One whose disk has failed since is no better, though it began as a durable one.
    let mut failed = interrupting(facts());
    failed.on(Event::LeaveWanted(Asked::Reboot));
    assert!(failed.on(Event::HomeFailed).is_empty());
    assert_eq!(
        failed.on(Event::Flushed(false)),
        ["no leave: what this home with its failed disk holds has not arrived at the orchestrator in time"]
    );
    let mut arrived = interrupting(facts());
    arrived.on(Event::LeaveWanted(Asked::Reboot));
    arrived.on(Event::HomeFailed);
    assert_eq!(arrived.on(Event::Flushed(true)), ["intent reboot"]);
    // A durable home keeps over the reboot what has not arrived.
    let mut durable = interrupting(facts());
    durable.on(Event::LeaveWanted(Asked::Reboot));
    assert_eq!(durable.on(Event::Flushed(false)), ["intent reboot"]);
    assert_eq!(durable.fails(Failure::Refused("422".into())), ["no leave: the orchestrator refuses it: 422"]);
    // The stage then ends with that reason, and its outcome is told.
    assert_eq!(durable.on(Event::StageEnded), ["keep Interrupt:kernel/1", "result Interrupt:kernel/1"]);
}

#[test]
fn a_stage_that_was_ended_gets_no_leave_whatever_is_answered() {
    let mut agent = interrupting(facts());
    agent.on(Event::LeaveWanted(Asked::Reboot));
    assert_eq!(agent.on(Event::Flushed(true)), ["intent reboot"]);
    assert_eq!(agent.beat_fails(Failure::OldClaim(String::new())), ["end Displaced"]);
    assert!(agent.told(Reply::Intent).is_empty());
    assert_eq!(agent.on(Event::StageEnded), ["drop Interrupt:kernel/1"]);
    // Nor does one that asks only after its end was ordered.
    let mut stopping = interrupting(facts());
    stopping.on(Event::Stop);
    assert!(stopping.on(Event::LeaveWanted(Asked::Reboot)).is_empty());
    assert!(stopping.on(Event::Flushed(true)).is_empty());
}

#[test]
fn an_intent_that_was_said_under_a_lost_claim_is_said_again_under_the_next() {
    let mut agent = interrupting(facts());
    agent.on(Event::LeaveWanted(Asked::Reboot));
    assert_eq!(agent.on(Event::Flushed(true)), ["intent reboot"]);
    assert!(agent.beat_fails(Failure::UnknownClaim(String::new())).is_empty());
    // It was acknowledged by a life of the store that may have forgotten it.
    assert!(agent.told(Reply::Intent).is_empty());
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["claim"]);
    assert_eq!(agent.told(claim(STAGE, 1)), ["intent reboot"]);
    assert_eq!(agent.told(Reply::Intent), ["leave"]);
}

#[test]
fn outcomes_that_a_restore_brought_back_are_told_before_the_intent() {
    let mut agent = interrupting(facts());
    agent.core.outbox.push(OutboxEntry {
        stage: Stage::Inventory,
        attempt: Attempt(1),
        made_under: ClaimNumber(1),
        acknowledged: false,
    });
    assert_eq!(agent.on(Event::LeaveWanted(Asked::Reboot)), ["flush", "result Inventory/1"]);
    assert!(agent.on(Event::Flushed(true)).is_empty());
    assert_eq!(agent.told(taken(STAGE, 1, 1)), ["acknowledge Inventory/1", "intent reboot"]);
}

#[test]
fn a_wipe_is_said_with_its_disks_and_waits_for_its_acknowledgement_alone() {
    let wipes = || Event::LeaveWanted(Asked::Wipe(vec!["S1".into(), "S2".into()]));
    let (mut agent, started) = claimed_with(volatile(), memory(), Vec::new(), claim("Storage", 1));
    assert_eq!(started, ["start Storage/1"]);
    let actions = agent.core.step(wipes(), agent.now_ms);
    let intent = actions.iter().find_map(|action| match action {
        Action::Send(Call::Intent(intent)) => Some(intent.clone()),
        _other => None,
    });
    let intent = intent.expect("nothing of a wipe is lost with the power: nothing is flushed first");
    assert_eq!(
        (intent.kind.as_str(), intent.disks.as_slice()),
        ("wipe", &["S1".to_owned(), "S2".to_owned()][..])
    );
    assert_eq!(agent.told(Reply::Intent), ["leave"]);
    // It goes on in this stage: an end of the agent cuts it off.
    agent.on(Event::Stop);
    let shutdown = agent.core.heartbeat("", false, WallMs(0)).unwrap().shutdown;
    assert!(shutdown.unwrap().cut_off.is_some());
    let (mut refused, _) = claimed_with(facts(), memory(), Vec::new(), claim("Storage", 1));
    assert_eq!(refused.on(wipes()), ["intent wipe"]);
    let why = "no leave: the orchestrator refuses it: 422: lapsed";
    assert_eq!(refused.fails(Failure::Refused("422: lapsed".into())), [why]);
}
