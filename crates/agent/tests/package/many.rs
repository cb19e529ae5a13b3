//! A package of ten thousand steps.

use serde_json::json;

use crate::place::{FLAGS, LOGS, Place, config, names, step};

const STEPS: usize = 10_000;

#[test]
fn ten_thousand_steps_each_run_once_and_are_flagged() {
    let place = Place::new();
    let count = STEPS;
    let steps: Vec<_> = (0..count).map(|number| step("a.sh", &[&number.to_string()], &[0])).collect();
    place.write_config(&config(json!({ "apply": steps, "apply-check": [step("a_check.sh", &[], &[0])] })));
    // Without another process in it, so that it is the agent that is kept busy.
    place.write_step("a.sh", "echo $1 >>/effects/log");
    place.write_step("a_check.sh", "exit 0");
    let began = std::time::Instant::now();
    let outcome = place.call("apply").succeed();
    println!("{count} steps took {:?}", began.elapsed());
    assert_eq!(outcome.said().len(), count);
    let effects = place.effects();
    assert!(effects.len() == count && effects.values().all(|times| *times == 1));
    // A slash in the base64 of a flag makes a folder, so they are counted all the way down.
    let files =
        crate::place::tree(&place.at(FLAGS)).into_values().filter(|what| what.contains(" file ")).count();
    assert_eq!(files, count);
    // Of one step's runs five are kept: a log and its errors each.
    assert_eq!(names(&place.at(LOGS)).len(), 5 * 2);
    assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
    let again = place.call("apply").succeed();
    assert_eq!(again.stdout.matches("Skipping a.sh because ").count(), count);
    assert_eq!(place.effects(), effects);
}
