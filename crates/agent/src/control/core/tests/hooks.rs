//! Hooks of the node as the loop begins and ends them.

use groundcrew_protocol::profile::{HookCommand, InterruptKind, InterruptSettings, StageSpec};
use groundcrew_protocol::wire::Phase;

use super::drains::marker;
use super::*;
use crate::control::hooks::Which;

fn hooks() -> Hooks {
    let command = || Some(HookCommand { argv: vec!["x".to_owned()], deadline_ms: 1_000 });
    Hooks { before_drain: command(), after_drain: command(), on_completed: command(), on_hold: command() }
}

/// A claimed loop of a node with hooks.
fn at(state: &str, attempt: u32) -> (Loop, Vec<String>) {
    let mut agent = Loop::new(facts(), memory());
    agent.core = agent.core.with_hooks(hooks(), Kept::default());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    let done = agent.told(claim(state, attempt));
    (agent, done)
}

#[test]
fn a_drain_waits_for_its_hook_and_the_next_stage_for_the_end_of_the_drain() {
    let (mut agent, _) = at("CPUStress", 1);
    assert!(agent.drains(marker(&["ann"])).is_empty(), "a stage is in flight");
    assert_eq!(agent.core.active_hook(), Some((Which::BeforeDrain, String::new())));
    assert_eq!(agent.on(Event::StageEnded), ["keep CPUStress/1", "result CPUStress/1", "hook drain.before"]);
    let beat = agent.core.heartbeat("", false, WallMs(0)).unwrap();
    assert_eq!(beat.drain, "asked for by ann; drain.before is not done yet");
    agent.told(taken("GPU", 1, 1));
    assert!(agent.on(Event::HookEnded(Err("no budget".to_owned()))).is_empty());
    let beat = agent.core.heartbeat("", false, WallMs(0)).unwrap();
    assert!(beat.drain.ends_with("drain.before failed 1 times, is tried again: no budget"), "{}", beat.drain);
    let wake_ms = agent.core.hook_wake_ms().unwrap();
    assert_eq!(agent.after(wake_ms - agent.now_ms), ["hook drain.before"]);
    assert!(agent.core.is_active());
    agent.on(Event::HookEnded(Ok(())));
    assert!(!agent.core.is_active() && agent.phase() == Phase::Draining);
    // The undo goes beside the stage: nobody waits for it.
    assert_eq!(agent.undrains(), ["start GPU/1", "hook drain.after"]);
}

#[test]
fn a_hold_has_its_hook_once_the_marker_was_read_for_it() {
    let (mut agent, done) = at("FailedHolding", 0);
    assert_eq!(done, ["hold", "hook ready.on_hold"]);
    assert!(agent.core.is_active());
    agent.on(Event::HookEnded(Ok(())));
    assert!(!agent.core.is_active() && agent.after(1).is_empty());
    let mut agent = Loop::new(facts(), memory());
    agent.core = agent.core.with_hooks(hooks(), Kept::default());
    agent.marker = marker(&["ann"]);
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    // The look for the hold's hook finds a drain, whose own hook goes first.
    assert_eq!(agent.told(claim("FailedHolding", 0)), ["hold", "hook drain.before"]);
}

#[test]
fn the_agent_ends_its_hook_before_it_ends() {
    let (mut agent, _) = at("FailedHolding", 0);
    assert_eq!(agent.on(Event::Stop), ["end hook"]);
    assert_eq!(agent.on(Event::HookEnded(Err("told to end".to_owned()))), ["exit"]);
    // Asked twice, it waits for nothing.
    let (mut agent, _) = at("FailedHolding", 0);
    agent.on(Event::Stop);
    assert_eq!(agent.on(Event::Stop), ["exit"]);
}

#[test]
fn an_abort_undoes_a_drain_before_the_agent_ends() {
    let abort = || directive(3, Command::Abort, "Cancelled", "", 0);
    // In the drain of a stage, which ends with it: nobody else would undo it.
    let (mut agent, _) = at_draining(hooks());
    agent.on(Event::HookEnded(Ok(())));
    assert_eq!(agent.beat(abort()), ["end Displaced"]);
    assert_eq!(agent.on(Event::StageEnded), ["drop Interrupt:it/1", "hook drain.after"]);
    assert!(agent.on(Event::HookEnded(Err("no API server".to_owned()))).is_empty());
    for expected in [Vec::new(), vec!["exit"]] {
        agent.now_ms = agent.core.hook_wake_ms().unwrap();
        assert_eq!(agent.on(Event::Tick), ["hook drain.after"]);
        assert_eq!(agent.on(Event::HookEnded(Err(String::new()))), expected, "a bounded number of tries");
    }
    // One that succeeds is the last thing that happens.
    let (mut agent, _) = at_draining(hooks());
    assert_eq!(agent.beat(abort()), ["end hook"]);
    assert_eq!(agent.on(Event::HookEnded(Err("told to end".to_owned()))), ["hook drain.after"]);
    assert_eq!(agent.on(Event::HookEnded(Ok(()))), ["exit"]);
    assert!(!agent.core.leaves_owed());
    // Somebody's drain that holds on is his, and whoever asks twice waits for nothing.
    let (mut agent, _) = at("FailedHolding", 0);
    agent.on(Event::HookEnded(Ok(())));
    agent.drains(marker(&["ann"]));
    agent.on(Event::HookEnded(Ok(())));
    let actions = agent
        .actions(Event::Heartbeat { claim: agent.core.claim().unwrap(), answered: Ok(Box::new(abort())) });
    let says = |action: &Action| {
        if let Action::SayOfHook(Which::AfterDrain, LogLevel::Error, text) = action {
            Some(text.clone())
        } else {
            None
        }
    };
    let said: Vec<String> = actions.iter().filter_map(says).collect();
    assert!(said.len() == 1 && said[0].contains("a drain holds, asked for by ann"), "{said:?}");
    assert_eq!(actions.last(), Some(&Action::Exit));
    assert!(agent.core.leaves_owed(), "the next agent is to come");
    let (mut agent, _) = at_draining(hooks());
    agent.on(Event::HookEnded(Ok(())));
    agent.beat(abort());
    agent.on(Event::StageEnded);
    assert_eq!(agent.on(Event::Stop), ["exit"]);
}

#[test]
fn the_power_waits_for_the_hook_of_the_end() {
    let (mut agent, _) = at("CPUStress", 1);
    agent.on(Event::StageEnded);
    assert_eq!(agent.told(taken("Completed", 0, 1)), ["acknowledge CPUStress/1", "hook ready.on_completed"]);
    let shutdown = || directive(3, Command::Shutdown, "Completed", "", 0);
    assert!(agent.beat(shutdown()).is_empty(), "it runs");
    agent.on(Event::HookEnded(Ok(())));
    assert_eq!(agent.beat(shutdown()), ["flush"]);
}

/// A claim whose run stands at an interrupt that drains the node.
fn at_draining(hooks: Hooks) -> (Loop, Vec<String>) {
    let name: Stage = "Interrupt:it".into();
    let interrupt = InterruptSettings {
        name: "it".to_owned(),
        kind: InterruptKind::NoOp,
        services: Vec::new(),
        drain: true,
        root_mount: "/".to_owned(),
        reboot_ms: None,
    };
    let spec = StageSpec { interrupt: Some(interrupt), ..StageSpec::of(name) };
    let mut agent = Loop::new(facts(), memory());
    agent.core = agent.core.with_hooks(hooks, Kept::default());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    let answer = ClaimAnswer { stage_settings: vec![spec], ..claim_answer("Interrupt:it", 1) };
    let done = agent.told(Reply::Claim(Box::new(answer)));
    (agent, done)
}

#[test]
fn a_stage_that_drains_starts_after_the_hook_and_its_drain_ends_with_it() {
    let (mut agent, done) = at_draining(hooks());
    assert_eq!(done, ["hook drain.before"]);
    let beat = agent.core.heartbeat("", false, WallMs(0)).unwrap();
    assert_eq!((beat.phase, beat.stage), (Phase::Draining, None), "it was not begun, so no deadline runs");
    assert!(beat.drain.starts_with("Interrupt:it, attempt 1, drains the node for itself"), "{}", beat.drain);
    assert!(agent.after(600_000).is_empty());
    assert_eq!(agent.on(Event::HookEnded(Ok(()))), ["start Interrupt:it/1"]);
    assert!(agent.core.holds_own_drain().is_some() && agent.phase() == Phase::Draining);
    // A drain of somebody else has it counted, and outlives it.
    agent.drains(marker(&["ann"]));
    assert!(agent.core.holds_own_drain().is_none() && agent.core.active().is_some());
    agent.undrains();
    // It is over with the stage, whatever came of it; the undo waits for where the run goes on.
    assert_eq!(agent.on(Event::StageEnded), ["keep Interrupt:it/1", "result Interrupt:it/1"]);
    assert!(agent.core.stages_drain().is_none() && agent.phase() == Phase::Running);
    assert_eq!(
        agent.told(taken("FailedHolding", 0, 1)),
        ["acknowledge Interrupt:it/1", "hold", "hook drain.after"]
    );
    assert_eq!(agent.on(Event::HookEnded(Ok(()))), ["hook ready.on_hold"]);
}

#[test]
fn a_marker_goes_before_a_stages_own_drain_and_is_not_touched_by_it() {
    let (mut agent, _) = at_draining(hooks());
    agent.drains(marker(&["ann"]));
    agent.on(Event::HookEnded(Ok(())));
    assert!(!agent.core.is_active(), "whoever asked may act");
    assert_eq!(agent.undrains(), ["start Interrupt:it/1"], "its own drain holds on, and the hook is done");
}

#[test]
fn without_hooks_a_stages_drain_holds_nothing_up() {
    let (agent, done) = at_draining(Hooks::default());
    assert_eq!(done, ["start Interrupt:it/1"]);
    assert_eq!(agent.phase(), Phase::Draining);
}

#[test]
fn an_agent_that_starts_where_no_such_stage_is_next_undoes_what_one_has_left() {
    let owes = |agent: &mut Loop| {
        let kept = r#"{"owes": {"is_drained": true, "is_stages": true, "epoch": "boot:1"}}"#;
        agent.core = Core::new(facts(), memory(), 7).with_hooks(hooks(), serde_json::from_str(kept).unwrap());
        agent.on(Event::Start(Vec::new()));
    };
    let mut agent = Loop::new(facts(), memory());
    owes(&mut agent);
    agent.fails(Failure::Soon(String::new()));
    assert_eq!(agent.told(claim("CPUStress", 1)), ["start CPUStress/1", "hook drain.after"]);
    // Nobody answers: the undo waits for a minute and no longer.
    let mut agent = Loop::new(facts(), memory());
    owes(&mut agent);
    assert!(agent.fails(Failure::Slow(String::new())).iter().all(|done| !done.contains("hook")));
    let wake_ms = agent.core.hook_wake_ms().unwrap();
    agent.now_ms = wake_ms;
    assert!(agent.on(Event::Tick).contains(&"hook drain.after".to_owned()));
}
