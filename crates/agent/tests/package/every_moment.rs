//! SIGKILL and SIGTERM at every moment of a call, and a second call that finishes the work.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::place::{COPY_DIR, Place, check_of, effect, names};
use crate::tracer::{self, At, Traced};

const STEPS: [&str; 3] = ["a.sh", "b.sh", "c.sh"];

/// A place with a package of three steps and a file for the host, which nobody has been called for yet.
fn place() -> Place {
    let place = Place::new();
    let scripts = STEPS.map(|path| format!("{}; echo said; echo said >&2", effect(path)));
    let steps: Vec<(&str, &str)> = STEPS.iter().copied().zip(scripts.iter().map(String::as_str)).collect();
    place.package(&steps);
    for path in STEPS {
        place.write_step(&check_of(path), &effect(&check_of(path)));
    }
    fs::create_dir_all(place.data().join("root_dir/etc/sample.d")).unwrap();
    fs::write(place.data().join("root_dir/etc/sample.d/10.conf"), "of the package").unwrap();
    place
}

fn traced(place: &Place, mode: &str, stop: usize, what: At) -> Traced {
    let mut command = place.call(mode).into_command();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    tracer::run(command, stop, what)
}

/// How often a call stops that nobody disturbs.
fn stops_of(prepare: impl Fn(&Place), mode: &str) -> usize {
    let place = place();
    prepare(&place);
    let whole = traced(&place, mode, usize::MAX, At::Nothing);
    assert_eq!(whole.exit, 0);
    assert!(whole.stops > 50, "{} moments: the tracer sees too little", whole.stops);
    whole.stops
}

#[track_caller]
fn all_is_applied(place: &Place) {
    assert_eq!(place.flagged(), STEPS);
    assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(fs::read_to_string(place.at("etc/sample.d/10.conf")).unwrap(), "of the package");
    assert_eq!(names(&place.at("opt/skyhook")), ["sample"]);
    for path in STEPS {
        assert!(place.at(COPY_DIR).join("skyhook_dir").join(path).exists());
    }
    for flag in names(&place.at(crate::place::FLAGS)) {
        let text = fs::read_to_string(place.at(crate::place::FLAGS).join(&flag)).unwrap();
        assert!(
            text.starts_with("last_run: ") && text.ends_with("\nstep_always_runs: False"),
            "{flag}: {text}"
        );
    }
    let before = place.effects();
    let again = place.call("apply").succeed();
    assert_eq!(again.stdout.matches("Skipping ").count(), STEPS.len(), "{again:#?}");
    assert_eq!(place.effects(), before);
}

#[test]
fn killed_at_any_moment_a_second_call_finishes_and_repeats_at_most_the_step_that_ran() {
    for stop in 0..stops_of(|_| {}, "apply") {
        let place = place();
        let killed = traced(&place, "apply", stop, At::Kill);
        let moment = format!("moment {stop}, before system call {:?}", killed.at);
        // A step whose end the agent waits for may end sooner or later, and with it the call has more moments or fewer.
        if killed.at.is_some() {
            assert_eq!(killed.exit, -9, "{moment}");
        }
        let flagged_before = place.flagged();
        let second = place.call("apply").run();
        assert_eq!(second.exit, 0, "{moment}: {second:#?}");
        let effects = place.effects();
        for path in STEPS {
            let times = effects.get(path).copied().unwrap_or_default();
            let may_be_twice = !flagged_before.contains(&path.to_owned());
            assert!(times == 1 || (times == 2 && may_be_twice), "{moment}: {path} ran {times} times");
        }
        let ran: usize = effects.values().sum();
        assert!(ran <= STEPS.len() + 1, "{moment}: {effects:?}");
        all_is_applied(&place);
    }
}

#[test]
fn asked_to_end_at_any_moment_a_second_call_finishes_and_repeats_nothing() {
    for stop in 0..stops_of(|_| {}, "apply") {
        let place = place();
        let asked = traced(&place, "apply", stop, At::Terminate);
        let moment = format!("moment {stop}, before system call {:?}", asked.at);
        let done = place.flagged().len();
        match asked.exit {
            0 => assert_eq!(done, STEPS.len(), "{moment}"),
            1 => assert!(done < STEPS.len(), "{moment}"),
            // Before it has said what is to become of the signal.
            -15 => assert_eq!((done, place.effects().len()), (0, 0), "{moment}"),
            other => panic!("{moment}: it ended with {other}"),
        }
        if asked.exit >= 0 {
            assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new(), "{moment}");
        }
        place.call("apply").succeed();
        let once = STEPS.map(|path| (path.to_owned(), 1));
        assert_eq!(place.effects(), once.into(), "{moment}");
        all_is_applied(&place);
    }
}

#[test]
fn killed_at_any_moment_checks_are_never_half_said() {
    let applied = |place: &Place| drop(place.call("apply").succeed());
    let flags = |place: &Place| place.at("etc/skyhook/flags");
    for stop in 0..stops_of(applied, "apply-check") {
        let place = place();
        applied(&place);
        let killed = traced(&place, "apply-check", stop, At::Kill);
        let moment = format!("moment {stop}, before system call {:?}", killed.at);
        if flags(&place).join("apply-check_ALL_CHECKED").exists() {
            let effects = place.effects();
            for path in STEPS {
                assert_eq!(effects.get(&check_of(path)), Some(&1), "{moment}: all is said to be checked");
            }
        }
        place.call("apply-check").succeed();
        let results = fs::read_to_string(flags(&place).join("check_results")).unwrap();
        assert_eq!(results, "a_check.sh False\nb_check.sh False\nc_check.sh False", "{moment}");
        assert!(flags(&place).join("apply-check_ALL_CHECKED").exists(), "{moment}");
        let history = fs::read(place.at("etc/skyhook/history/sample.json")).unwrap();
        let history: Value = serde_json::from_slice(&history).unwrap();
        assert_eq!(history["current-version"], "1.0.0", "{moment}");
        assert!(matches!(history["history"].as_array().unwrap().len(), 1 | 2), "{moment}");
        assert_eq!(names(&place.at("etc/skyhook/history")), ["sample.json"], "{moment}");
        assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new(), "{moment}");
    }
}

#[test]
fn killed_while_a_step_runs_the_next_call_waits_for_it() {
    let place = Place::new();
    let script = "echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done; ".to_owned();
    place.package(&[("a.sh", &(script + &effect("a.sh"))), ("b.sh", &effect("b.sh"))]);
    let mut first = place.call("apply").start();
    first.until_exists(&place.at("effects/begun"));
    first.signal(rustix::process::Signal::KILL);
    assert_eq!(first.end().exit, -9);
    fs::remove_file(place.at("effects/begun")).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = place.call("apply").into_command();
    command.stdout(Stdio::null()).stderr(writer);
    let mut second = command.spawn().unwrap();
    drop(command);
    // It says that it waits, and only then may the step go on.
    let mut said = Vec::new();
    let mut byte = [0];
    while std::io::Read::read(&mut reader, &mut byte).unwrap() == 1 {
        said.push(byte[0]);
        if String::from_utf8_lossy(&said).contains("a.sh of an agent that is gone still runs as process ") {
            break;
        }
    }
    assert!(!said.is_empty() && !place.at("effects/begun").exists(), "{}", String::from_utf8_lossy(&said));
    fs::write(place.at("effects/go"), "").unwrap();
    assert!(second.wait().unwrap().success());
    // Once by the step that was left, once by the one that was started after it.
    assert_eq!(place.effects(), [("a.sh".to_owned(), 2), ("b.sh".to_owned(), 1)].into());
    assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn killed_at_any_moment_an_interrupts_commands_never_run_twice() {
    let data = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        json!({ "type": "service_restart", "services": ["one", "two"] }).to_string(),
    );
    let prepared = || {
        let place = Place::new();
        place.package(&[("a.sh", "exit 0")]);
        let systemctl = place.at("bin/systemctl");
        fs::write(&systemctl, "#!/bin/sh\necho \"$*\" >>/effects/log\n").unwrap();
        fs::set_permissions(&systemctl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        place
    };
    let call = |place: &Place| {
        let root = place.root();
        place.call_with(&["interrupt", root.to_str().unwrap(), COPY_DIR, &data])
    };
    let traced = |place: &Place, stop, what| {
        let mut command = call(place).into_command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        tracer::run(command, stop, what)
    };
    let whole = traced(&prepared(), usize::MAX, At::Nothing);
    assert_eq!(whole.exit, 0);
    for stop in 0..whole.stops {
        let place = prepared();
        let killed = traced(&place, stop, At::Kill);
        let moment = format!("moment {stop}, before system call {:?}", killed.at);
        call(&place).succeed();
        let effects = place.effects();
        let times: Vec<usize> = ["daemon-reload", "restart one", "restart two"]
            .map(|command| effects.get(command).copied().unwrap_or_default())
            .into();
        // The flag stands before the command runs: the one that was about to run may never have, and none ran twice.
        assert!(times.iter().all(|times| *times <= 1), "{moment}: {effects:?}");
        assert!(times.iter().filter(|times| **times == 0).count() <= 1, "{moment}: {effects:?}");
        assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new(), "{moment}");
    }
}
