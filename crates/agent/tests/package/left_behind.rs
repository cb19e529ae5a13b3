//! A call whose agent was killed while its step ran on, and the call after it. Every other moment is in `every_mode`,
//! `every_moment_of_interrupts` and `every_moment_of_reboots`.

use std::fs;
use std::process::Stdio;

use crate::place::{Place, effect};

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
