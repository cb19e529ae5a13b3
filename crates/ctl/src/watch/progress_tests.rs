use serde_json::{Value, json};

use super::*;
use crate::sample::{NOW, view};

fn event(id: u64, kind: &str, text: &str, state: &str) -> (&'static str, Value) {
    let event = json!({"id": id, "run": "r-7f3k9q2m", "at": NOW.0, "kind": kind, "actor": "orchestrator", "text": text,
        "state": state});
    ("event", event)
}

fn agent() -> (&'static str, Value) {
    ("agent", json!({"agent": "running", "activity": "stress-ng on 2 CPUs", "drain": ""}))
}

fn log(stage: &str, texts: &[&str]) -> (&'static str, Value) {
    let line =
        |text: &&str| json!({"ts": "2023-11-14T22:13:20Z", "level": "info", "stage": stage, "text": text});
    ("log", json!({"stage": stage, "lines": texts.iter().map(line).collect::<Vec<_>>()}))
}

fn tell(progress: &mut Progress, (name, data): (&str, Value)) -> Vec<String> {
    let telling = parse(name, &data.to_string()).unwrap();
    progress.take(telling).iter().map(ToString::to_string).collect()
}

fn see(progress: &mut Progress, state: &str) -> Vec<String> {
    let lines = progress.take(Telling::View(Box::new(view(json!({"state": state})))));
    lines.iter().map(ToString::to_string).collect()
}

#[test]
fn a_run_is_followed_from_its_history_to_its_end() {
    let mut progress = Progress::new(false);
    assert_eq!(see(&mut progress, "CPUStress"), ["Run r-7f3k9q2m of node rack1-node7, profile burn-in"]);
    let told = tell(&mut progress, event(3, "claimed", "claim 1 by the agent at 10.0.0.7", "InventoryCheck"));
    assert_eq!(told, ["22:13:20  claimed        claim 1 by the agent at 10.0.0.7"]);
    assert!(!progress.wants_view(), "history makes no view stale");
    tell(&mut progress, agent());
    assert!(progress.wants_view(), "it may have moved while the history was told");
    see(&mut progress, "CPUStress");
    assert_eq!(progress.end(), None);
    assert_eq!(progress.agent_words(), "stress-ng on 2 CPUs");
    tell(&mut progress, event(9, "completed", "every stage was passed", "Completed"));
    assert!(progress.wants_view());
    assert_eq!(progress.end(), None, "an event alone ends nothing");
    see(&mut progress, "Completed");
    assert_eq!(progress.end(), Some(End::Completed));
    assert_eq!(progress.last_event(), 9);
}

#[test]
fn a_hold_of_the_past_ends_nothing_and_one_of_now_does() {
    let mut progress = Progress::new(false);
    see(&mut progress, "CPUStress");
    tell(&mut progress, event(4, "held", "CPUStress came out fail", "FailedHolding"));
    tell(&mut progress, event(5, "retried", "by ada", "CPUStress"));
    tell(&mut progress, agent());
    see(&mut progress, "CPUStress");
    assert_eq!(progress.end(), None);
    tell(&mut progress, event(6, "held", "CPUStress came out fail", "FailedHolding"));
    see(&mut progress, "FailedHolding");
    assert_eq!(progress.end(), Some(End::Held));
}

#[test]
fn through_holds_only_an_end_ends() {
    let mut progress = Progress::new(true);
    see(&mut progress, "FailedHolding");
    tell(&mut progress, agent());
    see(&mut progress, "FailedHolding");
    assert_eq!(progress.end(), None);
    tell(&mut progress, event(6, "cancelled", "by ada", "Cancelled"));
    see(&mut progress, "Cancelled");
    assert_eq!(progress.end(), Some(End::Cancelled));
}

#[test]
fn an_ended_run_is_told_in_whole_before_it_ends() {
    let mut progress = Progress::new(false);
    see(&mut progress, "Completed");
    assert_eq!(progress.end(), None, "its history has not come yet");
    tell(&mut progress, event(1, "created", "by ada", "InventoryCheck"));
    tell(&mut progress, agent());
    see(&mut progress, "Completed");
    assert_eq!(progress.end(), Some(End::Completed));
}

#[test]
fn a_broken_connection_is_said_once_and_repeats_nothing() {
    let mut progress = Progress::new(false);
    see(&mut progress, "CPUStress");
    tell(&mut progress, event(7, "claimed", "claim 1", "CPUStress"));
    tell(&mut progress, agent());
    see(&mut progress, "CPUStress");
    let lost = |why: &str| Telling::Lost(why.to_owned());
    let texts: Vec<String> = progress.take(lost("refused")).into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["Connection lost: refused"]);
    assert!(progress.take(lost("refused")).is_empty(), "it is news only once");
    assert!(progress.is_lost() && progress.end().is_none());
    assert_eq!(see(&mut progress, "Completed"), ["Connected again."]);
    assert!(tell(&mut progress, event(7, "claimed", "claim 1", "CPUStress")).is_empty());
    assert_eq!(tell(&mut progress, event(8, "completed", "done", "Completed")).len(), 1);
    assert_eq!(progress.end(), None, "what was missed is told first");
    tell(&mut progress, agent());
    see(&mut progress, "Completed");
    assert_eq!(progress.end(), Some(End::Completed));
}

#[test]
fn an_agent_that_speaks_may_still_have_lines_after_the_end() {
    for (agent, wanted) in
        [(json!(null), false), (json!("offline"), false), (json!("error"), false), (json!("ended"), true)]
    {
        let mut progress = Progress::new(false);
        assert!(!progress.agent_may_write());
        progress.take(Telling::View(Box::new(view(json!({"state": "Completed", "agent": agent})))));
        assert_eq!(progress.agent_may_write(), wanted, "{agent}");
    }
}

#[test]
fn the_tail_is_that_of_the_stage_that_wrote_last_and_is_bounded() {
    let mut progress = Progress::new(false);
    assert_eq!(tell(&mut progress, log("Inventory", &["a"])), ["          Inventory | a"]);
    tell(&mut progress, log("CPUStress", &["b\u{1b}[2J", "c"]));
    assert_eq!(progress.tail().collect::<Vec<_>>(), ["b [2J", "c"]);
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    tell(&mut progress, log("CPUStress", &many.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(progress.tail().len(), TAIL_LINES_MAX);
    assert_eq!(progress.tail().next_back(), Some("99"));
}

#[test]
fn a_gap_is_said_and_what_is_new_to_us_is_let_be() {
    let mut progress = Progress::new(false);
    let told = tell(&mut progress, ("gap", json!({"first_kept": 40})));
    assert_eq!(told, ["Events before number 40 are no longer kept."]);
    assert!(tell(&mut progress, ("weather", json!({"sun": 1}))).is_empty());
    assert!(parse("event", "{}").is_err());
}
