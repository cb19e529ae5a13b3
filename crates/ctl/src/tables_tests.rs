use serde_json::json;

use super::*;
use crate::sample::{NOW, view};

fn reader(width: usize, colour: bool) -> Reader {
    Reader { width, height: 24, colour, is_terminal: true }
}

fn list(reasons: &[&str]) -> RunList {
    let runs = reasons.iter().map(|reason| view(json!({"reason": reason, "state": "FailedHolding"})).summary);
    RunList { runs: runs.collect(), next: Some("r-last".parse().unwrap()) }
}

#[test]
fn a_list_of_runs_has_a_line_for_each_and_says_where_it_goes_on() {
    let text = runs(&list(&["CPUStress came out fail", ""]), &reader(160, false), NOW);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("RUN") && lines[0].contains("VERDICT"), "{text}");
    assert!(lines[1].contains("FailedHolding") && lines[1].contains("CPUStress came out fail"), "{text}");
    assert!(lines[2].contains("waits for the result of the attempt in flight, in 16 min"), "{text}");
    assert_eq!(lines[3], "There are more: --after r-last");
}

#[test]
fn tables_fit_the_terminal_and_lose_nothing() {
    let long = "stage CPUStress failed: 2 miscompares, expected at most 0; throttled for 40 % of the time";
    for width in [80, 100, 120] {
        let text = runs(&list(&[long]), &reader(width, false), NOW);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        for whole in ["r-7f3k9q2m", "FailedHolding", "rack1-node7", "miscompares", "throttled"] {
            assert!(text.contains(whole), "{width}: {text}");
        }
    }
}

/// Every table, with rows of ordinary length.
fn every_table(reader: &Reader) -> Vec<String> {
    let of = |value: serde_json::Value| value.to_string();
    let read = |text: &str| -> Vec<TaskView> { serde_json::from_str(text).unwrap() };
    let nodes_of = json!({"nodes": [{"name": "rack1-node7", "serial": "SN-0123456789", "labels": {"rack": "1"},
        "macs": ["52:54:00:aa:bb:01", "52:54:00:aa:bb:02"]}], "next": null});
    let token = json!([{"name": "ann@desk", "created": 0, "revoked": 1000}]);
    let artifact = json!([{"stage": "CPUStress", "attempt": 1, "name": "stress-ng.yaml", "sha256": "ab".repeat(32),
        "bytes": 4096, "at": 0}]);
    let task = json!([{"name": "deadlines", "healthy": false, "said": "the store is full and takes nothing", "passes": 7,
        "failures": 2, "last": 0}]);
    let row = json!({"rows": [{"id": 8, "at": 0, "actor": "ann@desk", "action": "override", "run": "r-7f3k9q2m",
        "text": "known and harmless, the cable is ordered"}], "next": null});
    vec![
        runs(&list(&["stage CPUStress failed: 2 miscompares"]), reader, NOW),
        nodes(&serde_json::from_str(&of(nodes_of)).unwrap(), reader),
        stages(&view(json!({})).stages, reader, NOW),
        tokens(&serde_json::from_str::<Vec<TokenView>>(&of(token)).unwrap(), reader, NOW),
        artifacts(&serde_json::from_str::<Vec<ArtifactView>>(&of(artifact)).unwrap(), reader, NOW),
        tasks(&read(&of(task)), reader, NOW),
        audit(&serde_json::from_str(&of(row)).unwrap(), reader, NOW),
    ]
}

#[test]
fn every_table_fits_a_narrow_terminal_and_loses_no_word() {
    let words = |text: &str| -> std::collections::BTreeSet<String> {
        let letters = without_styles(text).replace(':', " ");
        letters.split_whitespace().map(str::to_owned).collect()
    };
    for width in [30, 40, 60] {
        for colour in [false, true] {
            let wide = every_table(&reader(1_000, false));
            for (text, wide) in every_table(&reader(width, colour)).iter().zip(&wide) {
                let plain = without_styles(text);
                assert!(!plain.contains('\u{1b}'), "{plain:?}");
                for line in plain.lines() {
                    assert!(line.chars().count() <= width, "{width}: {line:?} in\n{plain}");
                }
                // In columns a word may be broken; in blocks, whose first word is a head with a colon, none is.
                if plain.split_whitespace().next().is_some_and(|word| word.ends_with(':')) {
                    let (_heads, rows) = wide.split_once('\n').unwrap();
                    let lost: Vec<String> = words(rows).difference(&words(text)).cloned().collect();
                    assert!(lost.is_empty(), "{width}: {lost:?} is missing in\n{plain}");
                }
            }
        }
    }
}

#[test]
fn colours_are_there_only_where_they_are_wanted() {
    let plain = runs(&list(&["x"]), &reader(120, false), NOW);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let coloured = runs(&list(&["x"]), &reader(120, true), NOW);
    assert!(coloured.contains('\u{1b}'), "{coloured:?}");
}

#[test]
fn a_run_is_shown_with_its_wait_its_agent_and_its_stages() {
    let text = run(&view(json!({"gaps": ["stream 3f: 2 chunks"]})), &reader(80, false), NOW);
    for part in [
        "Run r-7f3k9q2m of node rack1-node7, profile burn-in",
        "Waits for   the result of the attempt in flight",
        "  since     22:12:50 UTC (30 s ago)",
        "  until     22:29:20 UTC (in 16 min)",
        "  then      the run is held",
        "running, stress-ng on 2 CPUs at 10.0.0.7 (claim 1), last heard 4 s ago",
        "Log gap     stream 3f: 2 chunks",
        "✓ pass",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text_of = |changes| run(&view(changes), &reader(80, false), NOW);
    assert!(text_of(json!({"machine_unproved": "no serial"})).contains("Machine     not proved: no serial"));
    let first = text.lines().take(4).collect::<Vec<_>>().join("\n");
    assert!(first.contains("CPUStress, attempt 1"), "{first}");
}

#[test]
fn a_stage_took_what_the_report_says_it_took() {
    let mut view = view(json!({}));
    view.stages[0].took_ms = Some(1_200);
    let line =
        |view: &RunView| stages(&view.stages, &reader(80, false), NOW).lines().nth(1).unwrap().to_owned();
    assert!(line(&view).contains("1.2 s"), "{}", line(&view));
    view.stages[0].took_ms = None;
    assert!(line(&view).contains("5.0 s"), "{}", line(&view));
}

#[test]
fn other_runs_of_the_node_are_a_warning_beside_the_new_one() {
    let mut made: RunCreated =
        serde_json::from_value(json!({"run": "r-3", "kernel_arguments": "groundcrew.run=r-3",
        "boot_token": format!("gcb_{}", "ab".repeat(32))}))
        .unwrap();
    assert!(!created(&made).contains("Warning"));
    made.also_going = vec!["r-1".parse().unwrap(), "r-2".parse().unwrap()];
    assert!(created(&made).contains("not ended: r-1 r-2."), "{}", created(&made));
}

#[test]
fn foreign_text_does_not_steer_the_terminal() {
    let steering =
        json!({"reason": "a\u{1b}[2J", "activity": "\u{1b}c", "gaps": ["\u{9b}1m"], "agent": "x\r"});
    let text = run(&view(steering.clone()), &reader(100, false), NOW);
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    let list = RunList { runs: vec![view(steering).summary], next: None };
    let text = runs(&list, &reader(100, false), NOW);
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
}

#[test]
fn nothing_at_all_is_said_as_such() {
    let empty = NodeList { nodes: vec![], next: None };
    assert!(nodes(&empty, &reader(80, false)).contains("node put"));
    assert_eq!(runs(&RunList { runs: vec![], next: None }, &reader(80, false), NOW), "No runs.\n");
}
