//! Two calls for one package, the second at every moment of the first: what they write and run never meets.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::place::{Place, effect};
use crate::tracer;

/// What a call says while another one has the turn.
const WAITS: &str = "waiting for another call for sample 1.0.0 to end";
/// A call makes more system calls that change something than this: with fewer, the tracer sees too little.
const STOPS_MIN: usize = 40;

/// A step that says where another runs beside it, and where it is told to hold begins, and ends only when it may.
fn place() -> Place {
    let place = Place::new();
    place.add_program("/bin/rm");
    let alone = "( set -C; : >/effects/running ) 2>/effects/why || { echo overlap >>/effects/log; exit 0; }";
    let held = "[ -z \"$HOLD\" ] || { : >/effects/begun; while ! [ -e /effects/go ]; do :; done; }";
    place.package(&[("a.sh", &format!("{alone}; {held}; {}; rm /effects/running", effect("a.sh")))]);
    fs::create_dir_all(place.data().join("root_dir/etc/sample.d")).unwrap();
    fs::write(place.data().join("root_dir/etc/sample.d/10.conf"), "of the package").unwrap();
    place
}

/// Reads until the call says that it waits (true) or has ended (false).
fn waits(said: &mut impl BufRead) -> bool {
    said.lines().any(|line| line.unwrap().contains(WAITS))
}

/// Starts a call whose step holds, and comes back once that has begun, or the call waits for another or has ended.
fn second_beside(place: &Place) -> Child {
    let mut command = place.call("apply").env("HOLD", "1").into_command();
    let mut second = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(second.stderr.take().unwrap());
    let (waiting, begun) = (Arc::new(AtomicBool::new(false)), place.at("effects/begun"));
    std::thread::spawn({
        let waiting = Arc::clone(&waiting);
        move || {
            waiting.store(waits(&mut said), Ordering::Relaxed);
            // Read on: a call whose words nobody takes may say so.
            said.lines().map_while(Result::ok).for_each(drop);
        }
    });
    while !begun.exists() && !waiting.load(Ordering::Relaxed) && second.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    second
}

#[test]
fn a_second_call_at_any_moment_of_a_first_neither_joins_it_nor_fails() {
    let moments = {
        let place = place();
        let mut command = place.call("apply").into_command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut moments = 0;
        assert_eq!(tracer::at_each_change(command, || moments += 1), 0);
        moments
    };
    assert!(moments > STOPS_MIN, "{moments} moments: the tracer sees too little");
    for moment in 0..moments {
        let place = place();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut first = place.call("apply").into_command();
        first.stdout(Stdio::null()).stderr(writer);
        let go = place.at("effects/go");
        // The first goes on while the second's step holds, and that may end once the first has said that it waits.
        let releasing = std::thread::spawn({
            let go = go.clone();
            move || {
                let mut said = BufReader::new(reader);
                waits(&mut said);
                fs::write(go, "").unwrap();
                said.lines().for_each(|line| drop(line.unwrap()));
            }
        });
        let (mut seen, mut second) = (0, None);
        let exit = tracer::at_each_change(first, || {
            if seen == moment {
                second = Some(second_beside(&place));
            }
            seen += 1;
        });
        releasing.join().unwrap();
        // A step whose end the agent waits for may end sooner, and with it the call has fewer moments.
        let second = second.map_or(0, |mut second| second.wait().unwrap().code().unwrap_or(-1));
        assert_eq!((exit, second), (0, 0), "moment {moment}");
        assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into(), "moment {moment}");
        assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new(), "moment {moment}");
    }
}

#[test]
fn what_a_step_has_changed_on_the_host_stays_as_it_is_while_the_step_runs() {
    let place = place();
    let edits =
        "echo edited >/etc/sample.d/10.conf; : >/effects/begun; while ! [ -e /effects/go ]; do :; done";
    let sees = "read -r text </etc/sample.d/10.conf; echo \"$text\" >>/effects/log";
    place.write_step("a.sh", &format!("{edits}; {sees}"));
    let mut first = place.call("apply").start();
    first.until_exists(&place.at("effects/begun"));
    let mut command = place.call("apply").into_command();
    let mut second = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(second.stderr.take().unwrap());
    assert!(waits(&mut said), "it ended beside the first");
    fs::write(place.at("effects/go"), "").unwrap();
    assert_eq!(first.end().exit, 0);
    said.lines().for_each(|line| drop(line.unwrap()));
    assert!(second.wait().unwrap().success());
    assert_eq!(place.effects(), [("edited".to_owned(), 1)].into());
}
