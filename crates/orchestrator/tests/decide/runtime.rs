//! The pod or process of an agent ends in the middle of a run.

use groundcrew_orchestrator::run::decide::OrderKind;
use groundcrew_orchestrator::run::state::{Fate, HeldFor, WaitFor};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{ClaimRequest, Taken};

use crate::bench::*;

/// The agent in its next pod, with the same home.
fn successor(n: u64, known: u64) -> ClaimRequest {
    let mut request = restarted(agent(1), known);
    request.session = Some(id(9_000 + n));
    request.runtime = Some(pod(n));
    request
}

/// The agent in its next pod, whose home went with the one before.
fn without_home(n: u64) -> ClaimRequest {
    let mut request = successor(n, 0);
    let other = reborn(request.clone(), n);
    (request.instance, request.session, request.token_sha256) =
        (other.instance, other.session, other.token_sha256);
    request
}

fn pod(n: u64) -> AgentRuntime {
    AgentRuntime::pod(&format!("pod-{n}"))
}

/// Its agent has ended, a while into its stage.
fn ended() -> Bench {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    bench.now.listened_ms += MINUTE;
    assert!(bench.put(&end_of(pod(1), "1")).unwrap().changed);
    bench
}

#[test]
fn the_run_waits_for_a_successor_and_says_why() {
    let mut bench = ended();
    assert!(bench.told("agent_ended"));
    assert_eq!(bench.at(), (walking(inventory()), 1, IN_FLIGHT));
    assert_eq!(bench.waits_for(), Some(WaitFor::Successor));
    assert_eq!(bench.waits_ms(), SILENCE - MINUTE, "silence began with the last word, not with the end");
    assert_eq!(
        bench.run.waits_for().unwrap(),
        "a successor of the agent; its pod ended: error (OOMKilled), exit status 137"
    );
    // A reconciler tells the same again and again.
    assert!(!bench.put(&end_of(pod(1), "1")).unwrap().changed);

    bench.claim_again(&successor(2, 1)).unwrap();
    assert!(bench.told("crashed"));
    assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
    assert_eq!(bench.waits_for(), Some(WaitFor::Result));
    assert_eq!(bench.run.end(), None);
    // The older pod's end is no news of the successor.
    for end in ["1", "2"] {
        assert!(!bench.put(&end_of(pod(1), end)).unwrap().changed);
    }
}

#[test]
fn only_silence_and_crashes_hold_it() {
    let mut bench = ended();
    bench.pass(SILENCE - MINUTE - 1);
    assert_eq!(bench.run.state(), walking(inventory()));
    bench.pass(1);
    assert_eq!(bench.why(), &HeldFor::Silence { limit_ms: SILENCE });
    let reason = bench.run.reason();
    assert!(reason.ends_with("; its pod ended: error (OOMKilled), exit status 137"), "{reason}");
    bench.claim_again(&successor(2, 1)).unwrap();
    assert_eq!(bench.run.state(), walking(inventory()), "as after any silence");

    let mut bench = ended();
    for n in 2..=3 {
        bench.claim_again(&successor(n, n - 1)).unwrap();
        assert_eq!(bench.run.state(), walking(inventory()));
        bench.put(&end_of(pod(n), "1")).unwrap();
    }
    bench.claim_again(&successor(4, 3)).unwrap();
    assert_eq!(bench.why(), &HeldFor::Crashes { count: 3 });
}

#[test]
fn pods_that_lose_their_home_follow_each_other_at_once_and_are_no_fight() {
    let mut bench = ended();
    for n in 2..=3 {
        // With the boot token, which is spent, on the same boot, seconds after the one before was heard.
        bench.claim(&without_home(n)).unwrap();
        assert!(bench.told("boot_token_reused") && !bench.told("hands_changed"));
        assert_eq!(bench.run.state(), walking(inventory()));
        bench.put(&end_of(pod(n), "1")).unwrap();
    }
    bench.claim(&without_home(4)).unwrap();
    assert_eq!(bench.why(), &HeldFor::Crashes { count: 3 });

    // Nobody has ended: the same claim is refused.
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    assert!(bench.claim(&without_home(2)).is_err());
    // And from another machine it is, whoever ended.
    assert!(ended().claim(&agent(2)).is_err());
}

#[test]
fn an_agent_that_speaks_all_the_same_takes_it_back_until_it_is_silent() {
    let mut bench = ended();
    bench.heard(1, &[]).unwrap();
    assert!(bench.told("agent_speaks"));
    assert_eq!((bench.waits_for(), bench.run.end()), (Some(WaitFor::Result), None));
    assert!(!bench.put(&end_of(pod(1), "1")).unwrap().changed, "it spoke a moment ago");
    // Another end of the same pod is news: its container was started again, and ended again.
    assert!(bench.put(&end_of(pod(1), "2")).unwrap().changed);
    assert_eq!(bench.waits_for(), Some(WaitFor::Successor));

    // Where the word was a last one under way, its silence tells, long before its limit.
    let mut bench = ended();
    let (taken, ..) = bench.report(1, inventory(), 1, Outcome::Pass);
    assert_eq!(taken, Taken::First);
    assert_eq!(bench.at(), (walking(stress()), 1, IN_FLIGHT));
    assert_eq!(bench.waits_for(), Some(WaitFor::Result));
    bench.now.listened_ms += 30 * SECOND;
    bench.put(&end_of(pod(1), "1")).unwrap();
    assert_eq!(bench.waits_for(), Some(WaitFor::Successor));
    assert_eq!(bench.waits_ms(), SILENCE - 30 * SECOND);
}

#[test]
fn a_container_s_end_is_no_news_of_its_successor_in_the_same_pod() {
    let next = |bench: &mut Bench| {
        let mut request = successor(2, 1);
        request.runtime = Some(pod(1));
        bench.claim_again(&request).unwrap();
        bench.heard(2, &[]).unwrap();
    };
    // Told before the successor claimed, as its pod still shows it; or first seen afterwards.
    for is_told in [true, false] {
        let mut bench = if is_told { ended() } else { Bench::claimed() };
        next(&mut bench);
        let since = bench.run.claim.as_ref().unwrap().since;
        let seen = match is_told {
            true => end_of(pod(1), "1"),
            false => end_at(pod(1), "1", WallMs(since.0 - 1)),
        };
        assert!(!bench.put(&seen).unwrap().changed, "{is_told}");
        assert_eq!((bench.waits_for(), bench.run.end()), (Some(WaitFor::Result), None));
        // Whoever is silent with it may be the one that ended, by another clock.
        bench.now.listened_ms += 30 * SECOND;
        assert!(bench.put(&seen).unwrap().changed, "{is_told}");
        // The successor's own end is told at once.
        let mut bench = if is_told { ended() } else { Bench::claimed() };
        next(&mut bench);
        assert!(bench.put(&end_of(pod(1), "2")).unwrap().changed);
        assert_eq!(bench.waits_for(), Some(WaitFor::Successor));
    }
}

#[test]
fn an_outcome_that_the_successor_has_is_taken() {
    let mut bench = ended();
    let mut request = successor(2, 1);
    request.outbox = vec![entry(inventory(), 1, 1)];
    bench.claim_again(&request).unwrap();
    assert!(!bench.told("crashed"));
    assert_eq!(bench.waits_for(), Some(WaitFor::Result));
    let mut outcome = bench.outcome(2, inventory(), 1, Outcome::Pass);
    outcome.made_under.0 = 1;
    let (answer, _) = bench.result(outcome).unwrap();
    assert_eq!((answer.taken, answer.next_state), (Taken::First, walking(stress())));
}

#[test]
fn a_reboot_that_was_asked_for_is_waited_for_as_before() {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    bench.intent(1, "reboot", Some((inventory(), 1)), 1).unwrap();
    bench.put(&end_of(pod(1), "1")).unwrap();
    assert_eq!(bench.waits_for(), Some(WaitFor::Reboot));
    assert!(bench.run.end().is_some());
}

#[test]
fn a_stage_that_an_operator_orders_of_an_agent_that_ended_waits_for_its_successor() {
    let mut bench = Bench::held();
    bench.put(&end_of(pod(1), "1")).unwrap();
    assert_eq!(bench.run.state(), State::FailedHolding);
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
    assert_eq!(bench.waits_for(), Some(WaitFor::Successor));
    bench.claim_again(&successor(2, 1)).unwrap();
    assert_eq!(bench.at(), (walking(inventory()), 3, IN_FLIGHT));
    let fate = bench.run.stage().attempts[1].fate;
    assert_eq!((fate, bench.run.stage().crashes), (Fate::Replaced, 0), "it was never begun");
}

#[test]
fn silence_that_began_anew_is_waited_for_again() {
    let mut bench = ended();
    let since = bench.run.wait.as_ref().unwrap().since;
    // The orchestrator was started again: what it heard before counts no more.
    bench.now.listened_ms += SILENCE;
    bench.now.heard_ms = bench.now.listened_ms - SECOND;
    bench.pass(0);
    assert_eq!(bench.waits_for(), Some(WaitFor::Successor));
    assert_eq!((bench.waits_ms(), bench.run.wait.as_ref().unwrap().since), (SILENCE - SECOND, since));
}

#[test]
fn what_has_ended_changes_by_nothing() {
    let mut bench = Bench::claimed();
    for stage in [inventory(), stress(), reboot()] {
        bench.report(1, stage, 1, Outcome::Pass);
    }
    assert_eq!(bench.run.state(), State::Completed);
    assert!(!bench.put(&end_of(pod(1), "1")).unwrap().changed);
}
