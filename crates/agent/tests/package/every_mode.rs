//! SIGKILL and SIGTERM at every moment of every mode, and a second call that finishes the work.
//!
//! | mode | what the second call repeats |
//! | --- | --- |
//! | apply, post-interrupt | the step that ran when the first was killed; nothing where it was asked to end |
//! | config, upgrade, uninstall | every step, as their rule is |
//! | the checks | every check; what says that all was checked stands only where all was |

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::place::{COPY_DIR, FLAGS, Place, check_of, config, effect, names, step};
use crate::tracer::{self, At, Traced};

/// The steps of a mode.
const STEPS: [&str; 2] = ["a.sh", "b.sh"];
/// A call makes more system calls that change something than this: with fewer, the tracer sees too little.
const STOPS_MIN: usize = 40;

/// A mode with steps, and what is its own.
#[derive(Debug, Clone, Copy)]
struct Of {
    mode: &'static str,
    /// A step with a flag is skipped.
    skips: bool,
    /// The package's files go onto the host.
    installs: bool,
    /// The version that its check writes into the history.
    history: Option<&'static str>,
}

const APPLY: Of = Of { mode: "apply", skips: true, installs: true, history: Some("1.0.0") };
const CONFIG: Of = Of { mode: "config", skips: false, installs: true, history: None };
const UPGRADE: Of = Of { mode: "upgrade", skips: false, installs: true, history: Some("1.0.0") };
const UNINSTALL: Of = Of { mode: "uninstall", skips: false, installs: false, history: Some("uninstalled") };
const POST_INTERRUPT: Of = Of { mode: "post-interrupt", skips: true, installs: true, history: None };

impl Of {
    fn check(self) -> String {
        format!("{}-check", self.mode)
    }

    /// A place with a package that has this mode and a file for the host, which nobody has been called for yet.
    fn place(self) -> Place {
        let place = Place::new();
        for path in STEPS {
            place.write_step(path, &format!("{}; echo said; echo said >&2", effect(path)));
            place.write_step(&check_of(path), &effect(&check_of(path)));
        }
        let steps = STEPS.map(|path| step(path, &[], &[0]));
        let checks = STEPS.map(|path| step(&check_of(path), &[], &[0]));
        place.write_config(&config(json!({ (self.mode): steps, (self.check()): checks })));
        fs::create_dir_all(place.data().join("root_dir/etc/sample.d")).unwrap();
        fs::write(place.data().join("root_dir/etc/sample.d/10.conf"), "of the package").unwrap();
        place
    }

    /// The same, where the mode has been done.
    fn done(self) -> Place {
        let place = self.place();
        place.call(self.mode).succeed();
        place
    }
}

fn traced(place: &Place, mode: &str, stop: usize, what: At) -> Traced {
    tracer::run_unheard(place.call(mode), stop, what)
}

/// Does something at every moment of a mode, each time in a place of its own.
fn at_every_moment(mode: &str, what: At, place: impl Fn() -> Place, judge: impl Fn(&Place, &Traced, &str)) {
    let whole = traced(&place(), mode, usize::MAX, At::Nothing);
    assert_eq!(whole.exit, 0);
    assert!(whole.stops > STOPS_MIN, "{} moments: the tracer sees too little", whole.stops);
    for stop in 0..whole.stops {
        let place = place();
        let traced = traced(&place, mode, stop, what);
        judge(&place, &traced, &format!("{mode}, moment {stop}, before system call {:?}", traced.at));
    }
}

fn none() -> Vec<PathBuf> {
    Vec::new()
}

#[track_caller]
fn all_is_done(of: Of, place: &Place, moment: &str) {
    assert_eq!(place.flagged(), STEPS, "{moment}");
    assert_eq!(place.leftovers(), none(), "{moment}");
    let placed = fs::read_to_string(place.at("etc/sample.d/10.conf")).ok();
    assert_eq!(placed.as_deref(), of.installs.then_some("of the package"), "{moment}");
    assert_eq!(names(&place.at("opt/skyhook")), ["sample"], "{moment}");
    for path in STEPS {
        assert!(place.at(COPY_DIR).join("skyhook_dir").join(path).exists(), "{moment}");
    }
    for flag in names(&place.at(FLAGS)) {
        let text = fs::read_to_string(place.at(FLAGS).join(&flag)).unwrap();
        let whole = text.starts_with("last_run: ") && text.ends_with("\nstep_always_runs: False");
        assert!(whole, "{moment}: {flag}: {text}");
    }
}

fn killed(of: Of) {
    at_every_moment(
        of.mode,
        At::Kill,
        || of.place(),
        |place, killed, moment| {
            // A step whose end the agent waits for may end sooner or later, and with it the call has more moments or fewer.
            if killed.at.is_some() {
                assert_eq!(killed.exit, -9, "{moment}");
            }
            let flagged = place.flagged();
            let second = place.call(of.mode).run();
            assert_eq!(second.exit, 0, "{moment}: {second:#?}");
            let effects = place.effects();
            for path in STEPS {
                let times = effects.get(path).copied().unwrap_or_default();
                let may_be_twice = !of.skips || !flagged.contains(&path.to_owned());
                assert!(times == 1 || (times == 2 && may_be_twice), "{moment}: {path} ran {times} times");
            }
            let repeated = effects.values().sum::<usize>() - STEPS.len();
            assert!(repeated <= 1 || !of.skips, "{moment}: {effects:?}");
            all_is_done(of, place, moment);
        },
    );
}

fn asked_to_end(of: Of) {
    at_every_moment(
        of.mode,
        At::Terminate,
        || of.place(),
        |place, asked, moment| {
            let (done, effects) = (place.flagged().len(), place.effects());
            match asked.exit {
                0 => assert_eq!(done, STEPS.len(), "{moment}"),
                1 => assert!(done < STEPS.len(), "{moment}"),
                // Before it has said what is to become of the signal.
                -15 => assert_eq!((done, effects.len()), (0, 0), "{moment}"),
                other => panic!("{moment}: it ended with {other}"),
            }
            // The step that ran was waited for, and flagged: what is flagged has run once, and nothing else has begun.
            assert_eq!(effects.len(), done, "{moment}: {effects:?}");
            if asked.exit >= 0 {
                assert_eq!(place.leftovers(), none(), "{moment}");
            }
            place.call(of.mode).succeed();
            let times =
                |path: &str| if of.skips { 1 } else { effects.get(path).copied().unwrap_or_default() + 1 };
            let expected: BTreeMap<String, usize> = STEPS.map(|path| (path.to_owned(), times(path))).into();
            assert_eq!(place.effects(), expected, "{moment}");
            all_is_done(of, place, moment);
            if of.skips {
                let again = place.call(of.mode).succeed();
                assert_eq!(again.stdout.matches("Skipping ").count(), STEPS.len(), "{moment}: {again:#?}");
                assert_eq!(place.effects(), expected, "{moment}");
            }
        },
    );
}

/// The versions in the history, the latest first.
fn history(place: &Place) -> Vec<String> {
    let Ok(bytes) = fs::read(place.at("etc/skyhook/history/sample.json")) else { return Vec::new() };
    let history: Value = serde_json::from_slice(&bytes).expect("it is never half written");
    let entries = history["history"].as_array().unwrap();
    let versions: Vec<String> =
        entries.iter().map(|entry| entry["version"].as_str().unwrap().to_owned()).collect();
    assert_eq!(history["current-version"].as_str(), versions.first().map(String::as_str));
    versions
}

fn is_all_checked(of: Of, place: &Place) -> bool {
    place.at("etc/skyhook/flags").join(format!("{}_ALL_CHECKED", of.check())).exists()
}

fn checks_run(place: &Place) -> usize {
    let effects = place.effects();
    STEPS.iter().map(|path| effects.get(&check_of(path)).copied().unwrap_or_default()).sum()
}

/// What a whole call of the checks has left, which may be the `calls`th that came to its end.
#[track_caller]
fn all_is_checked(of: Of, place: &Place, calls: std::ops::RangeInclusive<usize>, moment: &str) {
    let results = fs::read_to_string(place.at("etc/skyhook/flags/check_results")).unwrap();
    assert_eq!(results, "a_check.sh False\nb_check.sh False", "{moment}");
    assert!(is_all_checked(of, place), "{moment}");
    let versions = history(place);
    match of.history {
        None => assert_eq!(versions, Vec::<String>::new(), "{moment}"),
        Some(version) => {
            assert!(versions.iter().all(|found| found == version), "{moment}: {versions:?}");
            assert!(calls.contains(&versions.len()), "{moment}: {versions:?}");
            assert_eq!(names(&place.at("etc/skyhook/history")), ["sample.json"], "{moment}");
        }
    }
    // What is not installed was not run.
    let flagged: &[&str] = if of.mode == UNINSTALL.mode { &[] } else { &STEPS };
    assert_eq!(place.flagged(), flagged, "{moment}");
    assert_eq!(place.leftovers(), none(), "{moment}");
}

fn checks_killed(of: Of) {
    at_every_moment(
        &of.check(),
        At::Kill,
        || of.done(),
        |place, killed, moment| {
            if killed.at.is_some() {
                assert_eq!(killed.exit, -9, "{moment}");
            }
            if is_all_checked(of, place) {
                assert_eq!(checks_run(place), STEPS.len(), "{moment}: all is said to be checked");
            }
            place.call(&of.check()).succeed();
            all_is_checked(of, place, 1..=2, moment);
        },
    );
}

fn checks_asked_to_end(of: Of) {
    at_every_moment(
        &of.check(),
        At::Terminate,
        || of.done(),
        |place, asked, moment| {
            let (ran, checked) = (checks_run(place), is_all_checked(of, place));
            let calls = match asked.exit {
                0 => {
                    assert_eq!((ran, checked), (STEPS.len(), true), "{moment}");
                    2
                }
                1 => {
                    assert!(ran < STEPS.len() && !checked, "{moment}: {ran} ran");
                    assert_eq!(history(place), Vec::<String>::new(), "{moment}");
                    1
                }
                -15 => {
                    assert_eq!((ran, checked), (0, false), "{moment}");
                    1
                }
                other => panic!("{moment}: it ended with {other}"),
            };
            if asked.exit >= 0 {
                assert_eq!(place.leftovers(), none(), "{moment}");
            }
            place.call(&of.check()).succeed();
            assert_eq!(checks_run(place), ran + STEPS.len(), "{moment}");
            all_is_checked(of, place, calls..=calls, moment);
        },
    );
}

/// A test for each mode and each of the two signals, so that they run side by side.
macro_rules! every_moment {
    ($($test:ident: $judge:ident($of:ident);)*) => {
        $(
            #[test]
            fn $test() {
                $judge($of);
            }
        )*
    };
}

every_moment! {
    apply_that_is_killed_goes_on: killed(APPLY);
    apply_that_is_asked_to_end_goes_on: asked_to_end(APPLY);
    config_that_is_killed_is_done_by_the_next: killed(CONFIG);
    config_that_is_asked_to_end_is_done_by_the_next: asked_to_end(CONFIG);
    upgrade_that_is_killed_is_done_by_the_next: killed(UPGRADE);
    upgrade_that_is_asked_to_end_is_done_by_the_next: asked_to_end(UPGRADE);
    uninstall_that_is_killed_is_done_by_the_next: killed(UNINSTALL);
    uninstall_that_is_asked_to_end_is_done_by_the_next: asked_to_end(UNINSTALL);
    post_interrupt_that_is_killed_goes_on: killed(POST_INTERRUPT);
    post_interrupt_that_is_asked_to_end_goes_on: asked_to_end(POST_INTERRUPT);
    apply_check_that_is_killed_is_never_half_said: checks_killed(APPLY);
    apply_check_that_is_asked_to_end_is_never_half_said: checks_asked_to_end(APPLY);
    config_check_that_is_killed_is_never_half_said: checks_killed(CONFIG);
    config_check_that_is_asked_to_end_is_never_half_said: checks_asked_to_end(CONFIG);
    upgrade_check_that_is_killed_is_never_half_said: checks_killed(UPGRADE);
    upgrade_check_that_is_asked_to_end_is_never_half_said: checks_asked_to_end(UPGRADE);
    uninstall_check_that_is_killed_is_never_half_said: checks_killed(UNINSTALL);
    uninstall_check_that_is_asked_to_end_is_never_half_said: checks_asked_to_end(UNINSTALL);
    post_interrupt_check_that_is_killed_is_never_half_said: checks_killed(POST_INTERRUPT);
    post_interrupt_check_that_is_asked_to_end_is_never_half_said: checks_asked_to_end(POST_INTERRUPT);
}
