//! Holds and their key, the power, and the end of the process.

use super::*;

#[test]
fn a_key_that_cannot_be_taken_out_is_tried_again_until_it_is_out() {
    let mut agent = holding();
    assert_eq!(agent.beat(directive(6, Command::Release, "Cancelled", "", 0)), ["key out"]);
    assert!(agent.on(Event::KeyRemoved(false)).is_empty());
    assert!(agent.core.memory().hold_key.is_some());
    assert_eq!(agent.on(Event::Reconcile(WallMs(5))), ["key out"]);
    assert!(agent.on(Event::KeyRemoved(true)).is_empty());
    assert!(agent.core.memory().hold_key.is_none());
    assert!(agent.on(Event::Reconcile(WallMs(5))).is_empty());
}

#[test]
fn a_key_ends_with_its_time_also_in_a_hold_and_before_any_claim() {
    let mut agent = holding();
    assert!(agent.on(Event::Reconcile(WallMs(i64::MAX - 1))).is_empty());
    assert_eq!(agent.on(Event::Reconcile(WallMs(i64::MAX))), ["key out"]);
    let mut next = Loop::new(facts(), agent.core.memory().clone());
    next.on(Event::Start(Vec::new()));
    assert!(next.on(Event::Reconcile(WallMs(0))).is_empty());
    assert_eq!(next.on(Event::Reconcile(WallMs(i64::MAX))), ["key out"]);
}

#[test]
fn an_agent_that_comes_back_into_a_hold_puts_the_key_in_where_a_crash_kept_it_out() {
    let memory = holding().core.memory().clone();
    let (mut next, done) = claimed_with(facts(), memory.clone(), Vec::new(), claim("FailedHolding", 0));
    assert_eq!(done, ["hold"]);
    assert_eq!(next.told(hold_key(i64::MAX)), ["key in"]);
    let (_, done) = claimed_with(facts(), memory, Vec::new(), claim("CPUStress", 1));
    assert_eq!(done, ["key out", "start CPUStress/1"]);
}

#[test]
fn a_key_that_could_not_be_put_in_is_asked_for_again() {
    let (mut agent, _) = claimed("FailedHolding", 0);
    agent.told(hold_key(i64::MAX));
    assert!(agent.on(Event::KeyInstalled(false)).is_empty());
    assert!(agent.after(SLOW_RETRY_MS - 1).is_empty());
    assert_eq!(agent.after(1), ["hold"]);
}

#[test]
fn a_key_that_comes_after_the_hold_began_arrives() {
    let (mut agent, done) = claimed("FailedHolding", 0);
    assert_eq!(done, ["hold"]);
    let none = || Reply::Hold(HoldAnswer::new(Vec::new(), WallMs(i64::MAX)));
    assert!(agent.told(none()).is_empty());
    for _ in 0..3 {
        assert!(agent.after(SLOW_RETRY_MS - 1).is_empty());
        assert_eq!(agent.after(1), ["hold"]);
        assert!(agent.told(none()).is_empty());
    }
    assert_eq!(agent.after(SLOW_RETRY_MS), ["hold"]);
    assert_eq!(agent.told(hold_key(i64::MAX)), ["key in"]);
    assert_eq!(agent.core.memory().hold_key.as_deref(), Some(KEY));
}

#[test]
fn a_key_that_was_replaced_or_taken_back_does_not_stay() {
    let mut agent = holding();
    assert_eq!(agent.after(SLOW_RETRY_MS), ["hold"]);
    let other = HoldAnswer::new(vec!["ssh-ed25519 other".into(), "ssh-ed25519 third".into()], WallMs(7));
    assert_eq!(agent.told(Reply::Hold(other)), ["key in"]);
    assert_eq!(agent.core.memory().hold_key.as_deref(), Some("ssh-ed25519 other\nssh-ed25519 third"));
    assert_eq!(agent.core.memory().hold_key_expires, WallMs(7));
    assert_eq!(agent.after(SLOW_RETRY_MS), ["hold"]);
    let none = || Reply::Hold(HoldAnswer::new(Vec::new(), WallMs(7)));
    assert_eq!(agent.told(none()), ["key out"]);
    // It is tried until it is out, also while the run goes on holding.
    assert!(agent.on(Event::KeyRemoved(false)).is_empty());
    assert_eq!(agent.on(Event::Reconcile(WallMs(5))), ["key out"]);
    assert!(agent.on(Event::KeyRemoved(true)).is_empty());
    assert_eq!(agent.core.memory().hold_key, None);
    assert!(agent.on(Event::Reconcile(WallMs(5))).is_empty());
}

#[test]
fn a_key_goes_out_where_the_run_is_gone_and_where_another_claim_counts() {
    for failure in [Failure::Gone(String::new()), Failure::OldClaim(String::new())] {
        let is_gone = matches!(failure, Failure::Gone(_));
        let mut agent = holding();
        let done = agent.beat_fails(failure);
        assert!(done.iter().any(|done| done == "key out"), "{done:?}");
        assert!(agent.on(Event::KeyRemoved(false)).is_empty());
        assert_eq!(agent.on(Event::Reconcile(WallMs(5))), ["key out"], "gone: {is_gone}");
    }
}

#[test]
fn an_abort_that_leaves_a_key_in_calls_for_another_agent() {
    for is_out in [true, false] {
        let mut agent = holding();
        let done = agent.beat(directive(6, Command::Abort, "Cancelled", "", 0));
        assert!(done.iter().any(|done| done == "key out"), "{done:?}");
        agent.on(Event::KeyRemoved(is_out));
        assert_eq!(agent.core.leaves_owed(), !is_out);
        // The next one knows of it from the home, and takes it out once it is told where the run stands.
        let memory = agent.core.memory().clone();
        let (mut next, done) = claimed_with(facts(), memory, Vec::new(), claim("Cancelled", 0));
        assert_eq!(done.iter().any(|done| done == "key out"), !is_out, "{done:?}");
        assert!(next.on(Event::KeyRemoved(true)).is_empty() && next.core.memory().hold_key.is_none());
    }
}

#[test]
fn keys_that_are_too_many_are_not_taken() {
    let (mut agent, _) = claimed("FailedHolding", 0);
    let long = format!("ssh-rsa {}", "A".repeat(4_000));
    assert!(agent.told(Reply::Hold(HoldAnswer::new(vec![long; 7], WallMs(i64::MAX)))).is_empty());
    assert_eq!(agent.core.memory().hold_key, None);
}

#[test]
fn a_hold_call_that_is_lost_is_made_again() {
    let (mut agent, done) = claimed("FailedHolding", 0);
    assert_eq!(done, ["hold"]);
    assert!(agent.fails(Failure::Soon(String::new())).is_empty());
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["hold"]);
}

#[test]
fn without_a_place_for_keys_none_is_put_in() {
    let facts = Facts { keys_allowed: false, ..facts() };
    let (mut agent, _) = claimed_with(facts, memory(), Vec::new(), claim("FailedHolding", 0));
    assert!(agent.told(hold_key(i64::MAX)).is_empty());
}

#[test]
fn a_run_is_over_once_its_end_is_known_and_every_outcome_acknowledged() {
    let (mut agent, _) = claimed("CPUStress", 1);
    assert!(!agent.core.is_over());
    agent.on(Event::StageEnded);
    agent.beat(stands_at("Cancelled"));
    assert!(!agent.core.is_over(), "an outcome is still to be sent");
    agent.told(taken("Cancelled", 0, 1));
    assert!(agent.core.is_over());
    // A restored store may know it as it stood before.
    agent.beat_fails(Failure::UnknownClaim(String::new()));
    agent.after(BACKOFF_MAX_MS);
    agent.told(claim("CPUStress", 2));
    assert!(!agent.core.is_over());
    let (mut gone, _) = claimed("CPUStress", 1);
    gone.beat_fails(Failure::Gone(String::new()));
    assert!(!gone.core.is_over(), "its stage is not ended yet");
    gone.on(Event::StageEnded);
    assert!(gone.core.is_over());
}

fn shutdown() -> HeartbeatAnswer {
    directive(3, Command::Shutdown, "Completed", "", 0)
}

/// A loop that saw its run end.
fn ended(facts: Facts) -> Loop {
    let (mut agent, _) = claimed_with(facts, memory(), Vec::new(), claim("CPUStress", 1));
    agent.on(Event::StageEnded);
    assert_eq!(agent.told(taken("Completed", 0, 1)), ["acknowledge CPUStress/1"]);
    agent
}

#[test]
fn the_power_goes_after_the_spools_and_an_acknowledged_intent() {
    let mut agent = ended(facts());
    assert_eq!(agent.beat(shutdown()), ["flush"]);
    assert!(agent.beat(shutdown()).is_empty());
    assert_eq!(agent.reports(), [(3, DirectiveOutcome::Doing)]);
    assert_eq!(agent.on(Event::Flushed(false)), ["intent poweroff"]);
    assert!(agent.fails(Failure::Soon(String::new())).is_empty());
    assert_eq!(agent.after(BACKOFF_FIRST_MS), ["intent poweroff"]);
    assert_eq!(agent.told(Reply::Intent), ["power off"]);
    assert_eq!(agent.reports().last(), Some(&(3, DirectiveOutcome::Done)));
    assert!(agent.after(BACKOFF_MAX_MS).is_empty());
}

#[test]
fn the_power_stays_on_without_permission_spools_intent_or_boot() {
    let mut forbidden = ended(Facts { power_allowed: false, ..facts() });
    assert!(forbidden.beat(shutdown()).is_empty());
    assert_eq!(forbidden.reports(), [(3, DirectiveOutcome::Refused)]);

    let mut volatile = ended(Facts { home: HomeKind::Volatile, ..facts() });
    assert_eq!(volatile.beat(shutdown()), ["flush"]);
    assert!(volatile.on(Event::Flushed(false)).is_empty());
    assert_eq!(volatile.reports().last(), Some(&(3, DirectiveOutcome::Refused)));

    let mut failed = ended(facts());
    assert_eq!(failed.beat(shutdown()), ["flush"]);
    failed.on(Event::HomeFailed);
    assert!(failed.on(Event::Flushed(false)).is_empty());
    assert_eq!(failed.reports().last(), Some(&(3, DirectiveOutcome::Refused)));

    let mut refused = ended(facts());
    refused.beat(shutdown());
    refused.on(Event::Flushed(true));
    assert!(refused.fails(Failure::Refused("422".into())).is_empty());
    assert_eq!(refused.reports().last(), Some(&(3, DirectiveOutcome::Refused)));

    for boot in [None, Some(OTHER_BOOT)] {
        let ended_boot = boot.map(|text| text.parse().unwrap());
        let answer = ClaimAnswer { ended_boot, ..claim_answer("Completed", 0) };
        let (mut other, _) = claimed_with(facts(), memory(), Vec::new(), Reply::Claim(Box::new(answer)));
        assert!(other.beat(shutdown()).is_empty(), "{boot:?}");
        assert_eq!(other.reports(), [(3, DirectiveOutcome::Refused)], "{boot:?}");
    }
    let answer = ClaimAnswer { ended_boot: Some(BOOT.parse().unwrap()), ..claim_answer("Completed", 0) };
    let (mut same, _) = claimed_with(facts(), memory(), Vec::new(), Reply::Claim(Box::new(answer)));
    assert_eq!(same.beat(shutdown()), ["flush"]);
}

#[test]
fn the_power_stays_on_while_a_drain_holds_and_a_power_off_makes_way_for_one() {
    use super::drains::marker;
    // Somebody was told that nothing is active.
    let mut agent = ended(facts());
    agent.drains(marker(&["ann"]));
    assert!(!agent.core.is_active());
    // That it waits is said: the order that ends the drain goes out once this one was spoken of.
    assert!(agent.beat(shutdown()).is_empty());
    assert_eq!(agent.reports(), [(3, DirectiveOutcome::Doing)]);
    assert!(agent.activity().ends_with("which waits for the drain to end"), "{}", agent.activity());
    agent.undrains();
    assert_eq!(agent.beat(shutdown()), ["flush"]);
    // A marker that is seen later finds it active, and ends it at the next step that can be taken back.
    assert!(agent.core.is_active());
    agent.drains(marker(&["ann"]));
    assert!(agent.core.is_active(), "the spools are being flushed");
    assert!(agent.on(Event::Flushed(true)).is_empty() && !agent.core.is_active());
    agent.undrains();
    assert_eq!(agent.beat(shutdown()), ["flush"]);
    assert_eq!(agent.on(Event::Flushed(true)), ["intent poweroff"]);
    agent.drains(marker(&["ann"]));
    assert!(agent.core.is_active(), "the intent is under way");
    assert!(agent.told(Reply::Intent).is_empty() && !agent.core.is_active());
    // Without an orchestrator it makes way too.
    agent.undrains();
    assert_eq!(agent.beat(shutdown()), ["flush"]);
    agent.on(Event::Flushed(true));
    agent.fails(Failure::Soon(String::new()));
    assert!(agent.core.is_active() && agent.drains(marker(&["ann"])).is_empty() && !agent.core.is_active());
    agent.undrains();
    agent.now_ms += BACKOFF_MAX_MS;
    assert_eq!(agent.beat(shutdown()), ["flush"]);
    agent.on(Event::Flushed(true));
    assert_eq!(agent.told(Reply::Intent), ["power off"]);
    assert_eq!(agent.reports().last(), Some(&(3, DirectiveOutcome::Done)));
}

#[test]
fn a_marker_that_nobody_has_seen_yet_is_read_for_the_power_off() {
    let mut agent = ended(facts());
    let claim = agent.core.claim().unwrap();
    let beat = || Event::Heartbeat { claim, answered: Ok(Box::new(shutdown())) };
    let actions = agent.core.step(beat(), agent.now_ms);
    let asked = |action: &Action| if let Action::LookForDrain(look) = action { Some(*look) } else { None };
    let look = actions.iter().find_map(asked);
    assert!(agent.on(Event::Flushed(true)).is_empty(), "the disk has not answered yet");
    agent.marker = super::drains::marker(&["ann"]);
    let sight = Some(agent.sight());
    let look = look.expect("the marker is read");
    assert!(agent.on(Event::Looked { look, sight }).is_empty() && !agent.core.is_active());
}

#[test]
fn an_intent_of_an_earlier_claim_switches_nothing_off() {
    let mut agent = ended(facts());
    agent.beat(shutdown());
    assert_eq!(agent.on(Event::Flushed(true)), ["intent poweroff"]);
    assert!(agent.beat_fails(Failure::OldClaim(String::new())).is_empty());
    assert!(agent.told(Reply::Intent).is_empty());
    assert_eq!(agent.after(SLOW_RETRY_MS), ["claim"]);
    assert!(agent.told(claim("Completed", 0)).is_empty());
}

#[test]
fn a_stop_ends_the_stage_then_the_process_and_a_second_one_does_not_wait() {
    let mut agent = walking();
    assert_eq!(agent.on(Event::Stop), ["end Stop"]);
    assert_eq!(agent.on(Event::StageEnded), ["drop CPUStress/1", "exit"]);
    let mut impatient = walking();
    impatient.on(Event::Stop);
    assert_eq!(impatient.on(Event::Stop), ["exit"]);
}

#[test]
fn a_stop_is_on_disk_before_the_stage_ends_and_the_next_claim_alone_says_it() {
    let mut agent = walking();
    let actions = agent.core.step(Event::Stop, 2_000);
    let at = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let stopped = Some(StageAttempt { stage: Stage::CpuStress, attempt: Attempt(1) });
    let noted = at(&|action| matches!(action, Action::Persist(memory) if memory.stopped == stopped));
    assert!(noted < at(&|action| matches!(action, Action::EndStage(EndedBy::Stop))));

    let memory = agent.core.memory().clone();
    let mut next = Loop::new(facts(), memory);
    next.on(Event::Start(Vec::new()));
    let actions = next.core.step(Event::Answered(Err(Failure::Soon(String::new()))), next.now_ms);
    let said = actions.iter().find_map(|action| match action {
        Action::Send(Call::Claim { request, .. }) => Some(request.stopped.clone()),
        _other => None,
    });
    assert_eq!(said, Some(stopped));
    assert_eq!(next.told(claim("CPUStress", 2)), ["start CPUStress/2"]);
    assert_eq!(next.core.memory().stopped, None);

    // Nothing was in flight: there is nothing to say.
    let mut holding = holding();
    assert_eq!(holding.on(Event::Stop), ["exit"]);
    assert_eq!(holding.core.memory().stopped, None);
}

#[test]
fn a_heartbeat_says_that_the_home_failed_and_what_is_waited_for() {
    let agent = holding();
    let beat = agent.core.heartbeat("busy", true, WallMs(9)).unwrap();
    assert!(beat.home_failed && beat.activity.starts_with("held"), "{beat:?}");
    assert_eq!(beat.wall, WallMs(9));
}

#[test]
fn a_run_that_is_gone_leaves_nothing_and_touches_no_power() {
    let mut agent = walking();
    agent.on(Event::StageEnded);
    assert_eq!(agent.beat_fails(Failure::Gone(String::new())), ["refuse CPUStress/1", "forget"]);
    assert!(agent.fails(Failure::Gone(String::new())).is_empty());
    assert!(agent.core.memory().gone);
    assert!(agent.after(SLOW_RETRY_MS - 1).is_empty());
    assert_eq!(agent.after(1), ["claim"]);
}
