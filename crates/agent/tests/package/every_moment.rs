//! SIGKILL and SIGTERM at every moment of a call, and a second call that finishes the work: an interrupt's here, those of
//! the modes in `every_mode`.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::place::{COPY_DIR, Place, effect};
use crate::tracer::{self, At};

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
        place.write_program("systemctl", "echo \"$*\" >>/effects/log");
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
