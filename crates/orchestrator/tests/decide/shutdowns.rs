//! An agent that shuts down in order: who is told of what, once.

use groundcrew_orchestrator::run::decide::{Input, OrderKind};
use groundcrew_orchestrator::run::notice::{Audience, Heard, NOTICES_MAX, whom};
use groundcrew_orchestrator::run::state::HeldFor;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, SinkName};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ClaimRequest, Shutdown, StageAttempt, Unheard};

use crate::bench::*;

fn sink(name: &str) -> SinkName {
    name.parse().unwrap()
}

fn told(bench: &Bench) -> Vec<(String, Audience)> {
    let due = bench.run.notices.last().map(|notice| notice.to.clone()).unwrap_or_default();
    due.into_iter().map(|due| (due.sink.to_string(), due.audience)).collect()
}

/// A run that names `team`, beside a fleet of `ops`; the agent's attempt 1 of Inventory is in flight.
fn bench() -> Bench {
    let mut bench = Bench::claimed();
    bench.run.notify = vec![sink("team")];
    bench
}

fn cut(attempt: u32) -> Option<StageAttempt> {
    Some(StageAttempt { stage: inventory(), attempt: Attempt(attempt) })
}

/// The home's next process claims.
fn starts_again(bench: &mut Bench, life: u64) {
    let request = ClaimRequest { session: Some(id(life)), known_claim: bench.run.claims, ..agent(1) };
    bench.claim_again(&request).unwrap();
}

fn says(bench: &mut Bench, said: Shutdown) {
    let claim = bench.run.claims;
    bench.put(&Input::ShutsDown { claim, said, fleet: vec![sink("ops")] }).unwrap();
}

fn text(bench: &Bench) -> &str {
    let event = bench.events.iter().find(|event| event.kind == "agent_shutdown");
    &event.expect("the shutdown is an event").text
}

#[test]
fn each_sink_is_told_once_and_only_an_explicitly_quiet_marker_silences_the_fleet() {
    use Audience::{Fleet, Run};
    let (ops, team, both) = (sink("ops"), sink("team"), sink("both"));
    let (fleet, own) = ([ops, both.clone()], [team, both]);
    let cases = [
        (true, false, vec![("team", Run), ("both", Run), ("ops", Fleet)]),
        (false, false, vec![("ops", Fleet), ("both", Fleet)]),
        (true, true, vec![("team", Run), ("both", Run)]),
        (false, true, vec![]),
    ];
    for (is_active, is_quiet, expected) in cases {
        let due = whom(&fleet, &own, is_active, is_quiet);
        let found: Vec<(&str, Audience)> = due.iter().map(|due| (due.sink.as_str(), due.audience)).collect();
        assert_eq!(found, expected, "active {is_active}, quiet {is_quiet}");
    }
}

#[test]
fn a_run_that_was_cut_off_is_told_whatever_the_marker_says() {
    for (drained, quiet) in [(false, false), (true, false), (true, true)] {
        let mut bench = bench();
        says(&mut bench, Shutdown { cut_off: cut(1), drained, suppress_notification: quiet });
        let mut expected = vec![("team".to_owned(), Audience::Run)];
        if !quiet {
            expected.push(("ops".to_owned(), Audience::Fleet));
        }
        assert_eq!(told(&bench), expected);
        let text = text(&bench);
        assert!(text.contains("(it was told to stop): Inventory, attempt 1, is cut off"), "{text}");
        assert!(text.contains("To resume, start the agent on node node-1 again"), "{text}");
        assert_eq!(text.contains("the fleet is not told, as the node's drain marker asks"), quiet, "{text}");
    }
}

#[test]
fn a_run_in_a_drain_that_was_waited_for_is_no_active_one() {
    let mut bench = bench();
    says(&mut bench, Shutdown { cut_off: None, drained: true, suppress_notification: false });
    assert_eq!(told(&bench), [("ops".to_owned(), Audience::Fleet)]);
    assert!(text(&bench).contains("nothing is cut off"), "{}", text(&bench));
    let mut quiet = self::bench();
    says(&mut quiet, Shutdown { cut_off: None, drained: true, suppress_notification: true });
    assert!(quiet.run.notices.is_empty() && quiet.told("agent_shutdown"));
    // Between two stages, with no drain, it is.
    let mut between = self::bench();
    says(&mut between, Shutdown::default());
    assert_eq!(told(&between).len(), 2);
}

#[test]
fn a_shutdown_is_told_once_for_each_life_of_an_agent() {
    let mut bench = bench();
    says(&mut bench, Shutdown { cut_off: cut(1), ..Shutdown::default() });
    assert_eq!(bench.run.notices.len(), 1);
    // Again, as its answer was lost, and with other words.
    for said in [Shutdown { cut_off: cut(1), ..Shutdown::default() }, Shutdown::default()] {
        says(&mut bench, said);
        assert!(bench.events.is_empty() && bench.run.notices.len() == 1);
    }
    // The same process claims again while it ends.
    bench.claim_again(&agent(1)).unwrap();
    says(&mut bench, Shutdown::default());
    assert_eq!(bench.run.notices.len(), 1);
    // The next one that is started is another, and its stop another.
    starts_again(&mut bench, 77);
    says(&mut bench, Shutdown::default());
    assert_eq!(bench.run.notices.len(), 2);
}

/// The home's next process claims, and says what the one before had to say.
fn starts_again_after(bench: &mut Bench, life: u64, before: u64, said: &Shutdown) -> ClaimRequest {
    let unheard = Some(Unheard { session: id(before), said: said.clone() });
    let request =
        ClaimRequest { session: Some(id(life)), known_claim: bench.run.claims, unheard, ..agent(1) };
    bench.claim_again(&request).unwrap();
    request
}

#[test]
fn a_shutdown_that_nobody_heard_is_told_once_with_the_next_claim() {
    let said = Shutdown { cut_off: cut(1), ..Shutdown::default() };
    let first = 100; // No process of the bench.
    let mut bench = bench();
    let request = starts_again_after(&mut bench, 77, first, &said);
    assert_eq!(told(&bench), [("team".to_owned(), Audience::Run), ("ops".to_owned(), Audience::Fleet)]);
    assert_eq!(bench.run.notices[0].heard, Heard::Late);
    let told = text(&bench);
    assert!(told.contains("had shut down unheard, before it claimed again (it was told to stop): Inventory, attempt 1, is cut off"), "{told}");
    assert!(told.contains("Nothing is to be done: an agent on node node-1 has the run again"), "{told}");
    // The answer was lost: the same process asks again, or it died and the next one says it too.
    bench.claim_again(&request).unwrap();
    assert!(!bench.told("agent_shutdown") && bench.run.notices.len() == 1);
    starts_again_after(&mut bench, 78, first, &said);
    assert!(!bench.told("agent_shutdown") && bench.run.notices.len() == 1);
    // Its own end is another one.
    says(&mut bench, Shutdown::default());
    assert!(bench.told("agent_shutdown") && bench.run.notices.len() == 2);
    // It was heard, and its answer lost.
    starts_again_after(&mut bench, 79, 78, &Shutdown::default());
    assert!(!bench.told("agent_shutdown") && bench.run.notices.len() == 2);
}

#[test]
fn a_shutdown_that_is_told_late_is_as_quiet_as_its_marker_was_and_meets_a_run_that_was_held_for_silence() {
    let quiet = Shutdown { cut_off: cut(1), drained: true, suppress_notification: true };
    let mut silent = bench();
    silent.pass(SILENCE);
    assert!(matches!(silent.why(), HeldFor::Silence { .. }));
    starts_again_after(&mut silent, 77, 100, &quiet);
    assert_eq!(told(&silent), [("team".to_owned(), Audience::Run)]);
    assert!(text(&silent).contains("Inventory, attempt 1, is cut off"), "{}", text(&silent));
    // In a drain that was waited for.
    let mut idle = bench();
    starts_again_after(&mut idle, 77, 100, &Shutdown { cut_off: None, ..quiet });
    assert!(idle.run.notices.is_empty() && idle.told("agent_shutdown"));
}

#[test]
fn a_crash_is_no_shutdown() {
    let mut bench = bench();
    starts_again(&mut bench, 77);
    assert!(bench.run.notices.is_empty() && !bench.told("agent_shutdown"));
}

#[test]
fn what_the_agent_names_is_believed_where_the_run_waits_for_it() {
    for other in [cut(7), Some(StageAttempt { stage: Stage::Unknown("x".into()), attempt: Attempt(1) })] {
        let mut bench = bench();
        says(&mut bench, Shutdown { cut_off: other, drained: true, suppress_notification: false });
        assert!(text(&bench).contains("nothing is cut off"), "{}", text(&bench));
        assert_eq!(told(&bench), [("ops".to_owned(), Audience::Fleet)]);
    }
}

#[test]
fn a_known_stop_says_so() {
    // The reboot that an interrupt asked for.
    let mut bench = Bench::new(profile(&["Interrupt:reboot", "CPUStress"], "stay"));
    bench.run.notify = vec![sink("team")];
    bench.claim(&agent(1)).unwrap();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    says(&mut bench, Shutdown::default());
    let told_of_reboot = text(&bench);
    assert!(told_of_reboot.contains("for the reboot that the run asked for"), "{told_of_reboot}");
    assert!(told_of_reboot.contains("Nothing is to be done"), "{told_of_reboot}");
    assert_eq!(told(&bench).len(), 2, "only a marker silences");
    // An operator's abort: the run has ended, and has no event of what follows.
    let mut aborted = self::bench();
    aborted.order(OrderKind::Abort, None, "enough").unwrap();
    says(&mut aborted, Shutdown { cut_off: cut(1), ..Shutdown::default() });
    assert!(!aborted.told("agent_shutdown"));
    let notice = aborted.run.notices.last().unwrap();
    assert_eq!(
        (notice.why.word(), notice.resume.as_str()),
        ("aborted", "The run has ended: there is nothing to resume")
    );
    assert_eq!(told(&aborted), [("ops".to_owned(), Audience::Fleet)]);
    // Held for a decision: nothing was at work.
    let mut held = Bench::held();
    held.run.notify = vec![sink("team")];
    says(&mut held, Shutdown::default());
    assert_eq!(told(&held), [("ops".to_owned(), Audience::Fleet)]);
    assert!(text(&held).contains("The run stays held"), "{}", text(&held));
}

#[test]
fn what_became_of_a_notice_is_told_once_and_then_forgotten() {
    let mut bench = bench();
    says(&mut bench, Shutdown { cut_off: cut(1), ..Shutdown::default() });
    let settle = |bench: &mut Bench, name: &str, outcome: Result<(), String>| {
        bench.put(&Input::NoticeSettled { number: 1, sink: sink(name), outcome }).unwrap()
    };
    assert!(settle(&mut bench, "team", Ok(())).changed && bench.told("notice_sent"));
    assert!(!settle(&mut bench, "team", Ok(())).changed, "settled before");
    assert!(!settle(&mut bench, "nobody", Ok(())).changed);
    settle(&mut bench, "ops", Err("connecting: refused".into()));
    assert_eq!(bench.events[0].kind, "notice_failed");
    assert_eq!(bench.events[0].text, "sink ops was not told of the agent's shutdown: connecting: refused");
    assert!(bench.run.notices.is_empty());
    assert!(!settle(&mut bench, "ops", Ok(())).changed);
}

#[test]
fn notices_that_nobody_takes_are_bounded_and_said() {
    let mut bench = bench();
    let mut given_up = 0;
    for life in 0..NOTICES_MAX as u64 + 2 {
        starts_again(&mut bench, 100 + life);
        bench.run.standing = groundcrew_orchestrator::run::state::Standing::Walking;
        says(&mut bench, Shutdown::default());
        given_up += bench.events.iter().filter(|event| event.kind == "notice_failed").count();
    }
    assert_eq!(bench.run.notices.len(), NOTICES_MAX);
    assert_eq!(given_up, 2 * 2, "two notices for two sinks");
    assert_eq!(bench.run.claims, ClaimNumber(NOTICES_MAX as u64 + 3));
}
