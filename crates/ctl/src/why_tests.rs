use serde_json::{Value, json};

use super::*;
use crate::sample::{NOW, view, wait};

fn sentences(changes: Value) -> String {
    of(&view(changes), NOW).sentences.join(" ")
}

const OPERATOR: (&str, &str) = ("an operator to retry, override, cancel or release", "the run is cancelled");

#[test]
fn a_walking_run_says_what_it_does_and_until_when() {
    assert_eq!(
        sentences(json!({})),
        "The run is at CPUStress, attempt 1, for 30 s of 2 min. Its agent is running, stress-ng on 2 CPUs, last \
         heard 4 s ago. It waits for the result of the attempt in flight, since 30 s. If that has not come by \
         22:29:20 UTC (in 16 min): the run is held (by then the limits are over)."
    );
}

#[test]
fn a_run_that_nobody_claimed_says_so_and_how_to_get_a_token() {
    let changes = json!({"agent": null, "claim": 0, "state": "InventoryCheck", "stage": "Inventory", "attempt": 0,
        "last_heard": null, "wait": wait("an agent to claim the run", "the run is held")});
    let why = of(&view(changes), NOW);
    assert!(why.sentences[0].starts_with("No agent has claimed the run yet"), "{why:?}");
    assert!(why.sentences[0].contains("begins with Inventory"), "{why:?}");
    assert!(why.sentences[1].starts_with("It waits for an agent to claim the run, since 30 s."), "{why:?}");
    assert_eq!(why.commands[0].0, "run token r-7f3k9q2m");
}

#[test]
fn a_refused_machine_is_no_machine_that_never_asked() {
    let refused =
        "12:00:00: the run is for node rack1-node7 (serial ABC123), and this machine is another (MAC 02:00)";
    let changes = json!({"agent": null, "claim": 0, "state": "InventoryCheck", "stage": "Inventory", "attempt": 0,
        "last_heard": null, "wait": wait("an agent to claim the run", "the run is held"), "wrong_machine": refused});
    let why = of(&view(changes), NOW);
    let expected = format!("An agent asked for the run and was refused. {refused}.");
    assert_eq!(why.sentences[0], expected);
    assert!(why.commands.iter().all(|(command, _)| !command.starts_with("run token")), "{why:?}");
}

#[test]
fn a_machine_that_nobody_can_tell_from_another_is_said_to_be_one() {
    let unproved = "the node is registered with serial ABC123; its agent could not read a serial";
    let view = view(json!({"machine_unproved": unproved}));
    let why = of(&view, NOW).sentences.join(" ");
    let wanted = format!("It is not proved that this machine is rack1-node7. T{}.", &unproved[1..]);
    assert!(why.contains(&wanted), "{why}");
}

#[test]
fn an_offline_agent_comes_first() {
    let text = sentences(json!({"agent": "offline", "last_heard": NOW.0 - 45_000}));
    let wanted = "The run is at CPUStress, attempt 1, and its agent is offline: last heard 45 s ago.";
    assert!(text.starts_with(wanted), "{text}");
    let text = sentences(json!({"agent": "offline", "last_heard": null}));
    assert!(text.contains("not heard since the orchestrator started"), "{text}");
}

#[test]
fn every_kind_of_hold_gives_its_reason_and_what_an_operator_can_do() {
    for (reason, agent, wanted) in [
        (
            "CPUStress came out fail: 2 miscompares",
            json!("holding"),
            "CPUStress came out fail: 2 miscompares.",
        ),
        ("CPUStress came out inconclusive: stress-ng is missing", json!("holding"), "stress-ng is missing."),
        (
            "the agent was silent for 15m in CPUStress",
            json!("offline"),
            "ends by itself when the agent speaks",
        ),
        ("CPUStress gave no result within 17m", json!("running"), "CPUStress gave no result within 17m."),
        (
            "the agent crashed 3 times in CPUStress",
            json!("claimed"),
            "The agent crashed 3 times in CPUStress.",
        ),
        ("two agents fight for the claim", json!("running"), "Two agents fight for the claim."),
        ("no agent claimed the run within 24h", json!(null), "No agent has ever claimed it."),
        ("a reboot was asked for and not seen within 30m", json!("offline"), "A reboot was asked for"),
        (
            "a reboot was asked for 3 times and the machine is still in the same boot",
            json!("running"),
            "still in the same boot.",
        ),
        ("", json!("holding"), "No reason was given."),
    ] {
        let changes = json!({"state": "FailedHolding", "reason": reason, "agent": agent,
            "wait": wait(OPERATOR.0, OPERATOR.1)});
        let why = of(&view(changes), NOW);
        let text = why.sentences.join(" ");
        assert!(text.starts_with("The run is held at CPUStress. "), "{text}");
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("It waits for an operator to retry"), "{text}");
        assert!(text.contains("23:13:20 UTC (in 1 h): the run is cancelled."), "{text}");
        let commands: Vec<&str> = why.commands.iter().map(|(command, _)| command.as_str()).collect();
        assert!(commands.iter().any(|command| command.starts_with("run retry r-7f3k9q2m")), "{commands:?}");
        for wanted in ["run override", "run release", "run cancel"] {
            assert!(commands.iter().any(|command| command.starts_with(wanted)), "{wanted}: {commands:?}");
        }
    }
}

#[test]
fn an_ended_run_says_how_and_what_is_left_to_do() {
    let ended = NOW.0 - 120_000;
    let end =
        json!({"state": "Completed", "ended": ended, "wait": null, "verdict": "warn", "agent": "offline"});
    assert_eq!(sentences(end.clone()), "The run is Completed with the verdict warn; it ended 2 min ago.");
    // An agent that stays is told to somebody who believes that all is over.
    let mut stays = end;
    stays["agent"] = json!("ended");
    let text = sentences(stays);
    assert!(
        text.contains("Its agent at 10.0.0.7 is still there (ended, last heard 4 s ago): it idles"),
        "{text}"
    );
    let farewell = wait("the agent to confirm the end of the run", "the directive is given up");
    let text = sentences(json!({"state": "Cancelled", "ended": ended, "wait": farewell,
        "reason": "cancelled by ada: wrong rack", "directives": ["release"]}));
    assert!(text.starts_with("The run was cancelled 2 min ago. Cancelled by ada: wrong rack."), "{text}");
    assert!(text.contains("the directive is given up"), "{text}");
    assert!(text.contains("The agent was told to release and has not said yet"), "{text}");
}

#[test]
fn what_was_overridden_is_said_with_its_reason() {
    let mut view = view(json!({}));
    view.stages[0].verdict = Some(groundcrew_protocol::check::Verdict::Fail);
    view.stages[0].overridden = Some("known bad DIMM, on order".into());
    let text = of(&view, NOW).sentences.join(" ");
    let wanted = "Inventory, which came out fail, was overridden: Known bad DIMM, on order.";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn a_reboot_the_orchestrators_own_stages_and_unknown_ones_have_words() {
    let text = sentences(json!({"agent": "offline",
        "wait": wait("the machine to come back from its reboot", "the run is held")}));
    assert!(text.contains("It waits for the machine to come back from its reboot, since 30 s."), "{text}");
    // An agent that is offline because its machine reboots is no cause for alarm.
    let rebooting = json!({"run": "r-7f3k9q2m", "stage": "Interrupt:kernel", "attempt": 1, "asked": NOW.0 - 30_000,
        "boot_id": "11111111-1111-4111-8111-111111111111", "until": NOW.0 + 3_600_000});
    let text = sentences(
        json!({"agent": "offline", "state": "Interrupt:kernel", "stage": "Interrupt:kernel",
        "rebooting": rebooting, "wait": wait("the machine to come back from its reboot", "the run is held")}),
    );
    let wanted = "The machine reboots for Interrupt:kernel, attempt 1: that was asked for 30 s ago under boot id 11111111-";
    assert!(text.starts_with(wanted) && !text.contains("offline"), "{text}");
    assert!(
        text.contains("It waits for the machine to come back from its reboot, since 30 s. If that"),
        "{text}"
    );
    let text = sentences(json!({"state": "SpecValidate", "stage": "SpecValidate", "wait": null}));
    assert!(text.starts_with("The orchestrator itself is at SpecValidate"), "{text}");
    let text = sentences(json!({"state": "Teleport", "stage": "Teleport", "wait": null}));
    assert!(text.starts_with("The run stands at Teleport, which this version does not know."), "{text}");
}

#[test]
fn a_wait_that_is_over_does_not_promise_the_past() {
    let over = json!({"for": "the result of the attempt in flight", "since": NOW.0 - 3_600_000,
        "until": NOW.0 - 60_000, "then": "the run is held"});
    let text = sentences(json!({"wait": over}));
    assert!(text.contains("That was due by 22:12:20 UTC (1 min ago): the run is held, as soon as"), "{text}");
}

#[test]
fn gaps_and_skew_are_said_and_nothing_steers_the_terminal() {
    let text = sentences(json!({"gaps": ["stream 3f: chunks 4 to 6", "a\u{1b}[2J"], "skew_ms": -7_500,
        "activity": "x\u{1b}]0;t\u{7}"}));
    assert!(text.contains("There are 2 gaps in the log: stream 3f: chunks 4 to 6;"), "{text}");
    assert!(text.contains("clock is 7.5 s off"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
