//! Drains: nothing new starts, what is in flight ends, and nobody is told of an idle that a start is about to break.

use std::time::Duration;

use groundcrew_durable::drain_marker::Principal;
use groundcrew_durable::drain_marker::read::{Active, EpochMatch, Holder, Identity, Marker};
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::wire::Phase;

use super::*;

pub(super) fn marker(holders: &[&str]) -> Drain {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(groundcrew_durable::drain_marker::path_in(home.path()), "{}").unwrap();
    let identity: Identity = match groundcrew_durable::drain_marker::read::look(home.path()) {
        groundcrew_durable::drain_marker::read::Found::Marker(Marker { identity, .. }) => identity,
        other => panic!("{other:?}"),
    };
    let holder = |name: &&str| Holder {
        principal: name.parse().unwrap(),
        requested_at: None,
        suppress_notification: false,
    };
    Drain::Active(Box::new(Active {
        identity,
        principal: Principal::default(),
        holders: holders.iter().map(holder).collect(),
        requested_at: None,
        age: Duration::ZERO,
        max_age: Duration::from_secs(3600),
        epoch: EpochMatch::Same,
        suppress_notification: false,
        defect: None,
    }))
}

fn order(id: &str) -> DrainOrder {
    DrainOrder { id: id.parse().unwrap(), suppress_notification: false, reason: String::new() }
}

impl Loop {
    /// The watcher tells what it sees from now on.
    pub(super) fn drains(&mut self, marker: Drain) -> Vec<String> {
        self.marker = marker;
        let sight = self.sight();
        self.on(Event::Drain(sight))
    }

    pub(super) fn undrains(&mut self) -> Vec<String> {
        self.drains(Drain::Absent(Absence::NoMarker))
    }

    pub(super) fn phase(&self) -> Phase {
        self.core.heartbeat("busy", false, WallMs(0)).unwrap().phase
    }
}

#[test]
fn what_is_in_flight_ends_and_nothing_new_starts_until_the_drain_is_over() {
    let mut agent = walking();
    assert!(agent.drains(marker(&["ann", "orchestrator:d-1"])).is_empty());
    let beat = agent.core.heartbeat("busy", false, WallMs(0)).unwrap();
    assert_eq!((beat.phase, beat.activity.as_str()), (Phase::Draining, "busy"));
    assert_eq!(beat.drain, "asked for by ann, orchestrator:d-1");
    assert_eq!(beat.drains, ["d-1".parse().unwrap()]);
    assert!(agent.core.waits_for_drain().is_none(), "a stage is in flight");
    assert_eq!(agent.on(Event::StageEnded), ["keep CPUStress/1", "result CPUStress/1"]);
    assert_eq!(agent.told(taken("GPU", 1, 1)), ["acknowledge CPUStress/1"]);
    assert_eq!(agent.activity(), "drained, asked for by ann, orchestrator:d-1: GPU waits for its end");
    assert!(agent.core.active().is_none() && agent.core.waits_for_drain().unwrap().stage == Stage::Gpu);
    assert!(agent.after(60_000).is_empty());
    assert!(!agent.core.memory().has_started(&Stage::Gpu, Attempt(1)), "it was never begun");
    assert_eq!(agent.undrains(), ["start GPU/1"]);
    assert_eq!(agent.phase(), Phase::Running);
}

#[test]
fn a_start_is_registered_before_the_marker_is_read_and_withdrawn_where_that_drains() {
    let mut agent = Loop::new(facts(), memory());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    let actions = agent.core.step(Event::Answered(Ok(claim("CPUStress", 1))), agent.now_ms);
    assert_eq!(actions.last(), Some(&Action::LookForDrain(1)));
    let is_begun = |agent: &Loop| agent.core.memory().has_started(&Stage::CpuStress, Attempt(1));
    assert!(agent.core.active().is_some() && agent.core.in_flight().is_none() && !is_begun(&agent));
    // What else happens meanwhile starts nothing, and asks for no second look.
    assert!(agent.core.step(Event::Tick, agent.now_ms).is_empty());
    agent.marker = marker(&["ann"]);
    let sight = agent.sight();
    assert!(agent.on(Event::Looked { look: 1, sight: Some(sight) }).is_empty());
    assert!(agent.core.active().is_none() && !is_begun(&agent));
    assert_eq!(agent.phase(), Phase::Draining);
    assert_eq!(agent.undrains(), ["start CPUStress/1"]);
    assert!(is_begun(&agent));
}

#[test]
fn a_look_is_good_for_the_start_that_asked_for_it_alone() {
    let mut agent = Loop::new(facts(), memory());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    agent.core.step(Event::Answered(Ok(claim("CPUStress", 1))), agent.now_ms);
    let beat = directive(9, Command::RetryStage, "GPU", "GPU", 4);
    let claim = agent.core.claim().unwrap();
    let actions = agent.core.step(Event::Heartbeat { claim, answered: Ok(Box::new(beat)) }, agent.now_ms);
    assert_eq!(actions.last(), Some(&Action::LookForDrain(2)));
    let sight = agent.sight();
    assert!(agent.on(Event::Looked { look: 1, sight: Some(sight) }).is_empty());
    let sight = agent.sight();
    assert_eq!(agent.on(Event::Looked { look: 2, sight: Some(sight) }), ["start GPU/4"]);
    // One whose claim is over starts nothing, and is registered no more.
    let mut agent = Loop::new(facts(), memory());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    agent.core.step(Event::Answered(Ok(super::claim("CPUStress", 1))), agent.now_ms);
    agent.beat_fails(Failure::OldClaim(String::new()));
    assert!(agent.core.active().is_none());
    let sight = agent.sight();
    assert!(agent.on(Event::Looked { look: 1, sight: Some(sight) }).is_empty());
}

#[test]
fn an_older_look_that_is_told_late_changes_nothing() {
    let mut agent = walking();
    let none = agent.sight();
    agent.drains(marker(&["ann"]));
    agent.on(Event::Drain(none));
    assert_eq!(agent.phase(), Phase::Draining);
    // A disk that does not answer leaves what was last seen.
    agent.on(Event::StageEnded);
    agent.told(taken("GPU", 1, 1));
    assert!(agent.on(Event::Looked { look: 7, sight: None }).is_empty());
    assert_eq!(agent.phase(), Phase::Draining);
}

#[test]
fn a_disk_that_does_not_answer_holds_up_no_start_for_ever() {
    let mut agent = Loop::new(facts(), memory());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    agent.core.step(Event::Answered(Ok(claim("CPUStress", 1))), agent.now_ms);
    assert_eq!(agent.on(Event::Looked { look: 1, sight: None }), ["start CPUStress/1"]);
}

#[test]
fn the_end_of_the_agent_wins_over_the_end_of_the_drain() {
    let mut agent = walking();
    agent.drains(marker(&["ann"]));
    assert_eq!(agent.on(Event::Stop), ["end Stop"]);
    assert_eq!(agent.phase(), Phase::Stopping);
    assert!(agent.undrains().is_empty());
    assert_eq!(agent.phase(), Phase::Stopping);
    assert_eq!(agent.on(Event::StageEnded), ["drop CPUStress/1", "exit"]);
}

#[test]
fn an_agent_that_is_stopped_while_a_stage_waits_says_that_it_was_not_begun() {
    let mut agent = walking();
    agent.drains(marker(&["ann"]));
    agent.on(Event::StageEnded);
    agent.told(taken("GPU", 1, 1));
    assert_eq!(agent.on(Event::Stop), ["exit"]);
    let stopped = agent.core.memory().stopped.clone();
    assert_eq!(stopped, Some(StageAttempt { stage: Stage::Gpu, attempt: Attempt(1) }));
}

#[test]
fn drains_that_a_claim_names_are_in_the_marker_before_it_is_read_for_the_first_stage() {
    let mut agent = Loop::new(facts(), memory());
    agent.on(Event::Start(Vec::new()));
    agent.fails(Failure::Soon(String::new()));
    let answer = ClaimAnswer { drains: vec![order("d-1")], ..claim_answer("CPUStress", 1) };
    let actions = agent.core.step(Event::Answered(Ok(Reply::Claim(Box::new(answer)))), agent.now_ms);
    let at = |wanted: &Action| actions.iter().position(|action| action == wanted).unwrap();
    assert!(at(&Action::BeginDrain(None, order("d-1"))) < at(&Action::LookForDrain(1)));
}

#[test]
fn a_directive_to_drain_is_done_once_the_marker_is_written_and_refused_where_it_cannot_be() {
    let drain = |id: u64, command: Command| HeartbeatAnswer {
        drain: Some(order("d-1")),
        ..directive(id, command, "CPUStress", "", 0)
    };
    let changed = |id: u64, done| Event::DrainChanged { order: Some(DirectiveId(id)), done };
    let mut agent = walking();
    assert_eq!(agent.beat(drain(5, Command::Drain)), ["drain d-1"]);
    assert!(agent.beat(drain(5, Command::Drain)).is_empty(), "it is being done");
    assert!(agent.reports().is_empty());
    agent.on(changed(5, Ok(())));
    assert_eq!(agent.reports(), [(5, DirectiveOutcome::Done)]);
    assert_eq!(agent.beat(drain(6, Command::Undrain)), ["undrain d-1"]);
    agent.on(changed(6, Err("read-only".to_owned())));
    assert_eq!(agent.reports(), [(6, DirectiveOutcome::Refused)]);
    let bare = directive(7, Command::Drain, "CPUStress", "", 0);
    assert!(agent.beat(bare).is_empty());
    assert_eq!(agent.reports(), [(7, DirectiveOutcome::Refused)]);
}
