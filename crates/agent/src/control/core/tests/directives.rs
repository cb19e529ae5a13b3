//! Directives: done once, repeated until their outcome is known.

use super::*;

#[test]
fn a_cancelled_stage_ends_its_outcome_is_sent_and_the_directive_is_done_once() {
    let mut agent = walking();
    let cancel = || directive(9, Command::CancelStage, "CPUStress", "CPUStress", 1);
    assert_eq!(agent.beat(cancel()), ["end Operator"]);
    assert_eq!(agent.reports(), [(9, DirectiveOutcome::Doing)]);
    assert!(agent.beat(cancel()).is_empty());
    assert_eq!(agent.on(Event::StageEnded), ["keep CPUStress/1", "result CPUStress/1"]);
    assert_eq!(agent.reports().last(), Some(&(9, DirectiveOutcome::Done)));
    // The heartbeat with that report was lost: the directive comes again, and so does its outcome.
    assert!(agent.beat(stands_at("CPUStress")).is_empty());
    assert!(agent.beat(cancel()).is_empty());
    assert_eq!(agent.reports(), [(9, DirectiveOutcome::Done)]);
    assert!(agent.told(taken("Cancelled", 0, 1)).iter().any(|done| done == "acknowledge CPUStress/1"));
}

#[test]
fn what_cannot_be_done_is_reported_so() {
    let cases = [
        (Command::CancelStage, "CPUStress", 2, DirectiveOutcome::TooLate),
        (Command::CancelStage, "GPU", 1, DirectiveOutcome::TooLate),
        (Command::Shutdown, "", 0, DirectiveOutcome::Refused),
        (Command::Unknown("dance".into()), "", 0, DirectiveOutcome::Refused),
    ];
    for (command, stage, attempt, outcome) in cases {
        let mut agent = walking();
        assert!(agent.beat(directive(5, command.clone(), "CPUStress", stage, attempt)).is_empty());
        assert_eq!(agent.reports(), [(5, outcome)], "{command} {stage}");
    }
    let cases = [
        ("", 2, DirectiveOutcome::Refused),
        ("Quantum", 2, DirectiveOutcome::Refused),
        ("Reporting", 1, DirectiveOutcome::Refused),
    ];
    for (stage, attempt, outcome) in cases {
        let mut agent = holding();
        assert!(agent.beat(directive(5, Command::RetryStage, "FailedHolding", stage, attempt)).is_empty());
        assert_eq!(agent.reports(), [(5, outcome)], "{stage}");
    }
}

#[test]
fn a_retry_from_a_hold_that_fails_again_holds_again() {
    for command in [Command::RetryStage, Command::Continue] {
        let mut agent = holding();
        let retry = || directive(6, command.clone(), "CPUStress", "CPUStress", 2);
        assert_eq!(agent.beat(retry()), ["key out", "start CPUStress/2"]);
        assert!(agent.on(Event::KeyRemoved(true)).is_empty());
        assert!(agent.beat(retry()).is_empty());
        assert_eq!(agent.reports(), [(6, DirectiveOutcome::Done)]);
        agent.on(Event::StageEnded);
        assert_eq!(agent.told(taken("FailedHolding", 0, 1)), ["acknowledge CPUStress/2", "hold"]);
        assert_eq!(agent.told(hold_key(i64::MAX)), ["key in"]);
    }
}

#[test]
fn a_completed_retry_goes_on_to_the_end() {
    let mut agent = holding();
    agent.beat(directive(6, Command::RetryStage, "CPUStress", "CPUStress", 2));
    agent.on(Event::StageEnded);
    assert_eq!(agent.told(taken("GPU", 1, 1)), ["acknowledge CPUStress/2", "start GPU/1"]);
    agent.on(Event::StageEnded);
    assert_eq!(agent.told(taken("Completed", 0, 1)), ["acknowledge GPU/1"]);
    assert!(agent.activity().starts_with("the run has ended (Completed)"), "{}", agent.activity());
}

#[test]
fn a_retry_waits_for_what_is_in_flight() {
    let mut agent = walking();
    let retry = || directive(8, Command::RetryStage, "CPUStress", "CPUStress", 2);
    assert!(agent.beat(retry()).is_empty());
    assert!(agent.reports().is_empty());
    assert_eq!(agent.beat(directive(7, Command::CancelStage, "CPUStress", "CPUStress", 1)), ["end Operator"]);
    agent.on(Event::StageEnded);
    assert_eq!(agent.told(taken("CPUStress", 2, 1)), ["acknowledge CPUStress/1", "start CPUStress/2"]);
    // It was started from the result's answer: the order is done, also while the outcome is on its way.
    agent.on(Event::StageEnded);
    assert!(agent.beat(retry()).is_empty());
    assert!(agent.reports().contains(&(8, DirectiveOutcome::Done)));
}

#[test]
fn an_order_for_the_attempt_in_flight_keeps_no_other_waiting() {
    let mut agent = walking();
    agent.beat(directive(7, Command::RetryStage, "CPUStress", "CPUStress", 1));
    assert_eq!(agent.reports(), [(7, DirectiveOutcome::Done)]);
    assert_eq!(agent.beat(directive(8, Command::CancelStage, "CPUStress", "CPUStress", 1)), ["end Operator"]);
}

#[test]
fn an_order_for_an_attempt_that_was_made_is_too_late() {
    let mut agent = walking();
    agent.on(Event::StageEnded);
    agent.told(taken("GPU", 1, 1));
    agent.beat(directive(7, Command::RetryStage, "GPU", "CPUStress", 1));
    assert_eq!(agent.reports(), [(7, DirectiveOutcome::TooLate)]);
}

#[test]
fn an_allowance_stays_with_its_attempt_while_an_older_outcome_is_sent() {
    let mut agent = walking();
    agent.on(Event::StageEnded);
    let flags = OverrideFlags { wipe: true, ..OverrideFlags::default() };
    let order = directive(6, Command::RetryStage, "CPUStress", "CPUStress", 2);
    assert!(agent.beat(HeartbeatAnswer { override_flags: Some(flags.clone()), ..order }).is_empty());
    let actions = agent.actions(Event::Answered(Ok(taken("CPUStress", 2, 1))));
    let started = actions.iter().find_map(|action| match action {
        Action::StartStage(start) => Some(start.flags.clone()),
        _ => None,
    });
    assert_eq!(started, Some(flags));
}

#[test]
fn what_was_done_before_a_restart_is_not_done_again() {
    let mut agent = holding();
    agent.beat(directive(6, Command::Release, "Cancelled", "", 0));
    let memory = agent.core.memory().clone();
    let (mut next, _) = claimed_with(facts(), memory, Vec::new(), claim("FailedHolding", 0));
    assert!(next.beat(directive(6, Command::Release, "FailedHolding", "", 0)).is_empty());
    assert_eq!(next.reports(), [(6, DirectiveOutcome::Done)]);
}

#[test]
fn an_order_does_not_wait_for_a_key_that_cannot_be_asked_for() {
    let (mut agent, _) = claimed("FailedHolding", 0);
    assert!(agent.fails(Failure::Slow("403".into())).is_empty());
    let retry = directive(6, Command::RetryStage, "CPUStress", "CPUStress", 2);
    assert_eq!(agent.beat(retry), ["start CPUStress/2"]);
}

#[test]
fn abort_ends_the_stage_and_the_agent() {
    let mut agent = walking();
    assert_eq!(agent.beat(directive(4, Command::Abort, "Cancelled", "", 0)), ["end Displaced"]);
    assert_eq!(agent.reports(), [(4, DirectiveOutcome::Done)]);
    assert_eq!(agent.on(Event::StageEnded), ["drop CPUStress/1", "exit"]);
    let mut idle = holding();
    assert_eq!(idle.beat(directive(4, Command::Abort, "Cancelled", "", 0)), ["key out", "exit"]);
}
