//! A process that is killed while it appends and sends: what `append` returned for arrives, once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use groundcrew_durable::fault;
use groundcrew_protocol::ids::ClaimNumber;

use super::model::{Model, Taken};
use super::{Answer, MIB, Spool, drain, is_empty, line, open};
use crate::points;

const HOME: &str = "SPOOL_TEST_HOME";
const LINES: usize = 400;
/// So small that segments are made and dropped, where the test wants that.
const SMALL: u64 = 128 * 1024;

/// The writing process. It is a test only so that the binary can be run again with its name.
#[test]
#[ignore = "run by the tests of this file, as a process of its own"]
fn writer() {
    let home = PathBuf::from(std::env::var_os(HOME).unwrap());
    let bytes_max = std::env::var("SPOOL_TEST_BYTES").unwrap().parse().unwrap();
    let first: usize = std::env::var("SPOOL_TEST_FIRST").unwrap().parse().unwrap();
    let spool = open(&home, bytes_max);
    let mut now = Instant::now();
    let sends_every: usize = std::env::var("SPOOL_TEST_SENDS_EVERY").unwrap().parse().unwrap();
    let mut out = std::io::stdout().lock();
    // The test's name stands at the front of this line.
    writeln!(out).unwrap();
    for number in first..first + LINES {
        spool.append_line_at(&line(format!("{number:06}{}", "x".repeat(number * 37 % 3000))), now).unwrap();
        writeln!(out, "appended {number}").unwrap();
        now += std::time::Duration::from_millis(700);
        if number % sends_every == sends_every - 1 {
            send_one(&spool, &mut out, now);
        }
        if number % 50 == 49 {
            spool.sync().unwrap();
        }
    }
    spool.finish();
    while spool.status().streams > 0 {
        send_one(&spool, &mut out, now);
    }
    writeln!(out, "ended").unwrap();
}

/// The message goes to the parent through the pipe; it is answered at once.
fn send_one(spool: &Spool, out: &mut impl Write, now: Instant) {
    let Some(message) = spool.next_message(now).unwrap() else { return };
    writeln!(out, "sent {}", String::from_utf8(message.body(ClaimNumber(1)).to_vec()).unwrap()).unwrap();
    spool.answered(&message, Answer::Taken).unwrap();
}

/// When the writer is killed.
enum Death {
    At(String),
    AfterLines(usize),
    Never,
}

/// Runs a writer, gives the model what it sent, and returns the numbers for which `append` returned.
fn run_writer(
    home: &Path,
    first: usize,
    bytes_max: u64,
    death: &Death,
    model: &mut Model,
) -> (Vec<usize>, bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "spool::tests::killed::writer", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(HOME, home).env("SPOOL_TEST_FIRST", first.to_string());
    command.env("SPOOL_TEST_BYTES", bytes_max.to_string());
    let sends_every = if bytes_max == SMALL { 50 } else { 5 };
    command.env("SPOOL_TEST_SENDS_EVERY", sends_every.to_string());
    if let Death::At(point) = death {
        command.env(fault::VARIABLE, point);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut appended = Vec::new();
    for (at, text) in BufReader::new(child.stdout.take().unwrap()).lines().enumerate() {
        let text = text.unwrap();
        if let Some(number) = text.strip_prefix("appended ").and_then(|number| number.parse().ok()) {
            appended.push(number);
        } else if let Some(body) = text.strip_prefix("sent ") {
            // A line that the kill cut in two never arrived.
            if body.ends_with('}') {
                assert_ne!(model.receive_body(body.as_bytes()), Taken::Other, "{body}");
            }
        }
        if matches!(death, Death::AfterLines(lines) if at == *lines) {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    let was_killed = status.signal() == Some(9);
    assert!(was_killed || status.success(), "{status}");
    (appended, was_killed)
}

fn texts(model: &Model) -> Vec<usize> {
    model.lines().iter().map(|text| text[..6].parse().unwrap()).collect()
}

/// Kills one writer, lets the next one live, and looks at what arrived.
fn check(death: &Death) -> bool {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let (mut appended, was_killed) = run_writer(home.path(), 0, 64 * MIB, death, &mut model);
    let (later, killed_again) = run_writer(home.path(), 10_000, 64 * MIB, &Death::Never, &mut model);
    assert!(!killed_again && later.len() == LINES);
    appended.extend(later);
    assert!(is_empty(home.path()), "everything was sent");
    let arrived = texts(&model);
    assert!(arrived.is_sorted_by(|one, next| one < next), "doubled or out of order");
    let extra: Vec<&usize> = arrived.iter().filter(|number| !appended.contains(number)).collect();
    // At most the one that was in the spool when the process died, before it could say so.
    assert!(extra.len() <= 1, "{extra:?}");
    let missing: Vec<&usize> = appended.iter().filter(|number| !arrived.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing");
    model.check_whole();
    was_killed
}

#[test]
fn a_writer_that_is_killed_at_any_point_loses_and_doubles_nothing() {
    let passed = [
        points::SPOOL_APPENDED,
        points::SPOOL_SEGMENT_MADE,
        points::SPOOL_ACKNOWLEDGED,
        points::SPOOL_CLOSED,
    ];
    let durable = groundcrew_durable::points::ALL.iter().filter(|point| {
        let name = point.name();
        ["whole.", "records.", "folder."].iter().any(|operation| name.starts_with(operation))
    });
    let mut deaths = 0;
    for point in passed.iter().chain(durable) {
        for count in [1, 3] {
            deaths += u32::from(check(&Death::At(format!("{}:{count}", point.name()))));
        }
    }
    assert!(deaths > 20, "the points were passed only {deaths} times");
}

#[test]
fn a_writer_that_is_killed_at_any_moment_loses_and_doubles_nothing() {
    let deaths = (0..20).filter(|round| check(&Death::AfterLines(round * 23 + 1))).count();
    assert!(deaths > 10, "{deaths}");
}

#[test]
fn a_writer_that_is_killed_while_it_drops_the_middle_leaves_an_honest_gap() {
    for count in 1..4 {
        let home = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let death = Death::At(format!("{}:{count}", points::SPOOL_GAP_WRITTEN.name()));
        let (_, was_killed) = run_writer(home.path(), 0, SMALL, &death, &mut model);
        assert!(was_killed, "nothing was dropped");
        let spool = open(home.path(), SMALL);
        drain(&spool, &mut model, Instant::now());
        assert!(is_empty(home.path()));
        assert!(texts(&model).is_sorted_by(|one, next| one < next));
        model.check_gaps_add_up();
    }
}
