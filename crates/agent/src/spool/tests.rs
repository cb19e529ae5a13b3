//! Nothing that was appended is missing or doubled, whatever happens to messages and processes.

mod killed;
pub(crate) mod model;
mod property;

use std::fs;
use std::path::Path;
use std::time::Instant;

use groundcrew_protocol::ids::{ClaimNumber, RunId};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogLevel, LogRequest, SensorRequest};

use super::*;
use model::Model;

const MIB: u64 = 1024 * 1024;

fn run() -> RunId {
    "r-1".parse().unwrap()
}

fn line(text: impl Into<String>) -> LogLine {
    LogLine { ts: "2026-01-01T00:00:00Z".into(), level: LogLevel::Info, stage: None, text: text.into() }
}

/// Opens the log spool below a home and says nothing unexpected.
fn open(home: &Path, bytes_max: u64) -> Spool {
    fs::create_dir_all(home.join("spool")).unwrap();
    let (spool, notes) = Spool::open_in(&home.join("spool"), &run(), Kind::Log, bytes_max).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    spool
}

fn is_empty(home: &Path) -> bool {
    fs::read_dir(home.join("spool")).unwrap().next().is_none()
}

/// Sends everything that can be sent.
fn drain(spool: &Spool, model: &mut Model, now: Instant) {
    while let Some(message) = spool.next_message(now).unwrap() {
        let answer = model.receive(&message).answer();
        spool.answered(&message, answer).unwrap();
    }
}

#[test]
fn a_message_is_what_the_protocol_says() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path(), MIB);
    let now = Instant::now();
    let lines = [line("a \"quoted\" \u{1} line"), LogLine { stage: Some("CPUStress".into()), ..line("ä") }];
    for line in &lines {
        spool.append_line_at(line, now).unwrap();
    }
    assert_eq!(spool.next_message(now).unwrap(), None);
    let message = spool.next_message(now + CHUNK_AGE).unwrap().unwrap();
    assert_eq!(spool.next_message(now).unwrap().as_ref(), Some(&message));
    let request: LogRequest = serde_json::from_slice(&message.body(ClaimNumber(7))).unwrap();
    let expected = LogRequest {
        claim: ClaimNumber(7),
        stream: Some(message.stream().clone()),
        seq: 0,
        lines: lines.to_vec(),
        gap: None,
        closes: false,
    };
    assert_eq!(request, expected);
    spool.answered(&message, Answer::Taken).unwrap();
    spool.finish();
    let message = spool.next_message(now).unwrap().unwrap();
    let request: LogRequest = serde_json::from_slice(&message.body(ClaimNumber(7))).unwrap();
    assert!(request.closes && request.seq == 1 && request.lines.is_empty(), "{request:?}");
    spool.answered(&message, Answer::Taken).unwrap();
    assert!(is_empty(home.path()));
}

#[test]
fn readings_are_sent_in_batches_and_what_is_no_number_is_left_out() {
    let home = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open_in(home.path(), &run(), Kind::Sensor, MIB).unwrap();
    let now = Instant::now();
    let sample = |value: f64| SensorSample {
        kind: "temperature".into(),
        key: "cpu".into(),
        value,
        unit: "°C".into(),
        ts: WallMs(5),
    };
    let samples: Vec<SensorSample> = (0..SENSOR_SAMPLES_MAX + 10).map(|at| sample(at as f64)).collect();
    spool.append_samples_at(&samples, now).unwrap();
    spool.append_samples_at(&[sample(f64::NAN)], now).unwrap();
    spool.finish();
    let mut found = Vec::new();
    while let Some(message) = spool.next_message(now).unwrap() {
        let request: SensorRequest = serde_json::from_slice(&message.body(ClaimNumber(1))).unwrap();
        assert!(request.samples.len() <= SENSOR_SAMPLES_MAX);
        found.extend(request.samples);
        spool.answered(&message, Answer::Taken).unwrap();
    }
    assert_eq!(found, samples);
}

#[test]
fn readings_that_were_let_go_are_counted_in_front_of_the_next() {
    let home = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open_in(home.path(), &run(), Kind::Sensor, MIB).unwrap();
    let now = Instant::now();
    let ts = WallMs(5);
    let sample = SensorSample { kind: "fan".into(), key: "f1".into(), value: 900.0, unit: "rpm".into(), ts };
    for _ in 0..2 {
        spool.append_samples_at(std::slice::from_ref(&sample), now).unwrap();
        spool.finish();
    }
    let refused = spool.next_message(now).unwrap().unwrap();
    spool.answered(&refused, Answer::Refused("413".into())).unwrap();
    let mut told = Vec::new();
    while let Some(message) = spool.next_message(now).unwrap() {
        let request: SensorRequest = serde_json::from_slice(&message.body(ClaimNumber(1))).unwrap();
        told.extend(request.gap);
        spool.answered(&message, Answer::Taken).unwrap();
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].chunks, told[0].bytes, told[0].why.as_str()), (1, refused.bytes() as u64, "413"));
}

#[test]
fn a_chunk_is_closed_by_its_size_and_stays_under_the_greatest_body() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path(), 64 * MIB);
    let now = Instant::now();
    // The worst that a line can be: every byte is six in JSON.
    let text = "\u{1}".repeat(LOG_LINE_BYTES_MAX);
    for _ in 0..9 {
        spool.append_line_at(&line(text.clone()), now).unwrap();
    }
    let message = spool.next_message(now).unwrap().unwrap();
    let body = message.body(ClaimNumber(u64::MAX));
    assert!(body.len() <= groundcrew_protocol::limits::LOG_BODY_BYTES_MAX, "{}", body.len());
    let request: LogRequest = serde_json::from_slice(&body).unwrap();
    assert_eq!(request.lines.iter().map(|line| line.text.len()).sum::<usize>(), LOG_CHUNK_BYTES);
    spool.answered(&message, Answer::Taken).unwrap();
    for _ in 0..LOG_LINES_MAX + 1 {
        spool.append_line_at(&line(""), now).unwrap();
    }
    let message = spool.next_message(now).unwrap().unwrap();
    let request: LogRequest = serde_json::from_slice(&message.body(ClaimNumber(1))).unwrap();
    assert_eq!(request.lines.len(), LOG_LINES_MAX);
}

#[test]
fn a_long_line_is_cut_at_the_edge_of_a_character_and_says_so() {
    let cut = cut_line(&line("ä".repeat(LOG_LINE_BYTES_MAX))).unwrap();
    assert!(cut.text.len() <= LOG_LINE_BYTES_MAX, "{}", cut.text.len());
    let kept = cut.text.chars().filter(|c| *c == 'ä').count();
    assert!(
        cut.text.ends_with(&format!("[{} bytes cut]", 2 * LOG_LINE_BYTES_MAX - 2 * kept)),
        "{}",
        cut.text
    );
    assert_eq!(cut_line(&line("x".repeat(LOG_LINE_BYTES_MAX))), None);
}

#[test]
fn a_refused_chunk_leaves_a_gap_in_front_of_the_next_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let spool = open(home.path(), MIB);
    let now = Instant::now();
    spool.append_line_at(&line("refused"), now).unwrap();
    spool.append_line_at(&line("taken"), now + CHUNK_AGE).unwrap();
    let refused = spool.next_message(now).unwrap().unwrap();
    spool.answered(&refused, Answer::Refused("413".into())).unwrap();
    drop(spool);
    let spool = open(home.path(), MIB);
    let next = spool.next_message(now).unwrap().unwrap();
    let gap = next.gap.clone().unwrap();
    assert_eq!((next.seq, gap.chunks, gap.bytes, gap.why.as_str()), (1, 1, refused.bytes() as u64, "413"));
    drain(&spool, &mut model, now);
    assert_eq!(model.lines(), ["taken"]);
    assert!(is_empty(home.path()));
}

#[test]
fn other_content_under_the_present_stream_is_sent_under_a_new_id() {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let spool = open(home.path(), MIB);
    let mut now = Instant::now();
    for text in ["a", "b", "c"] {
        spool.append_line_at(&line(text), now).unwrap();
        now += CHUNK_AGE;
    }
    let first = spool.next_message(now).unwrap().unwrap();
    spool.answered(&first, model.receive(&first).answer()).unwrap();
    let second = spool.next_message(now).unwrap().unwrap();
    model.put_other(&second);
    drain(&spool, &mut model, now);
    spool.append_line_at(&line("d"), now).unwrap();
    drop(spool);
    // The new id is remembered.
    let spool = open(home.path(), MIB);
    drain(&spool, &mut model, now);
    assert_eq!(model.lines(), ["a", "b", "c", "d"]);
    assert_eq!(model.streams(), 2);
    assert!(is_empty(home.path()));
}

#[test]
fn what_a_power_cut_took_from_the_end_is_no_conflict() {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let spool = open(home.path(), MIB);
    let now = Instant::now();
    for text in ["a", "b"] {
        spool.append_line_at(&line(text), now).unwrap();
    }
    let sent = spool.next_message(now + CHUNK_AGE).unwrap().unwrap();
    model.receive(&sent);
    drop(spool);
    let folder = fs::read_dir(home.path().join("spool")).unwrap().next().unwrap().unwrap().path();
    let segment = folder.join("00000000.rec");
    let whole = fs::read(&segment).unwrap();
    for bytes in 0..whole.len() {
        fs::write(&segment, &whole[..bytes]).unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&home.path().join("spool"), &copy.path().join("spool"));
        let mut model = model.clone();
        let spool = open(copy.path(), MIB);
        drain(&spool, &mut model, now);
        assert_eq!(model.lines(), ["a", "b"], "cut to {bytes} bytes");
        assert!(is_empty(copy.path()));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn damage_in_the_middle_is_a_gap_and_said() {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let spool = open(home.path(), MIB);
    let mut now = Instant::now();
    for number in 0..60 {
        spool.append_line_at(&line(format!("{number} {}", "x".repeat(1000))), now).unwrap();
        now += CHUNK_AGE;
    }
    drop(spool);
    let folder = fs::read_dir(home.path().join("spool")).unwrap().next().unwrap().unwrap().path();
    let segment = folder.join("00000001.rec");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&segment, bytes).unwrap();
    let (spool, notes) = Spool::open_in(&home.path().join("spool"), &run(), Kind::Log, MIB).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("00000001.rec is damaged"), "{notes:?}");
    drain(&spool, &mut model, now);
    let gaps = model.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].chunks + model.lines().len() as u64, 60);
    assert!(gaps[0].bytes > 0 && gaps[0].why.contains("damaged"), "{gaps:?}");
}

#[test]
fn a_disk_that_fails_is_counted_and_told_once_it_is_better() {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let spool = open(home.path(), MIB);
    let now = Instant::now();
    fs::remove_dir(home.path().join("spool")).unwrap();
    fs::write(home.path().join("spool"), "in the way").unwrap();
    for _ in 0..3 {
        assert!(matches!(spool.append_line_at(&line("lost"), now), Err(SpoolError::Disk { .. })));
    }
    assert_eq!(spool.status().lost_items, 3);
    fs::remove_file(home.path().join("spool")).unwrap();
    fs::create_dir(home.path().join("spool")).unwrap();
    spool.append_line_at(&line("back"), now).unwrap();
    assert_eq!(spool.status().lost_items, 0);
    spool.finish();
    drain(&spool, &mut model, now);
    assert_eq!(model.lines(), ["back"]);
    let gaps = model.gaps();
    assert!(gaps.len() == 1 && gaps[0].bytes == 12 && gaps[0].why.starts_with("3 lines"), "{gaps:?}");
}

#[test]
fn what_was_acknowledged_is_remembered_by_the_next_sync_also_when_nothing_new_comes() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path(), MIB);
    let now = Instant::now();
    spool.append_line_at(&line("a"), now).unwrap();
    spool.append_line_at(&line("b"), now + CHUNK_AGE).unwrap();
    spool.sync().unwrap();
    assert!(!spool.status().unsynced);
    let message = spool.next_message(now).unwrap().unwrap();
    spool.answered(&message, Answer::Taken).unwrap();
    assert!(spool.status().unsynced);
    spool.sync().unwrap();
    assert!(!spool.status().unsynced);
    drop(spool);
    let next = open(home.path(), MIB).next_message(now).unwrap().unwrap();
    assert_eq!(next.seq(), 1);
}

#[test]
fn another_run_s_spool_is_moved_aside() {
    let home = tempfile::tempdir().unwrap();
    open(home.path(), MIB).append_line_at(&line("a"), Instant::now()).unwrap();
    let other: RunId = "r-2".parse().unwrap();
    let (spool, notes) = Spool::open_in(&home.path().join("spool"), &other, Kind::Log, MIB).unwrap();
    assert_eq!(spool.status().streams, 0);
    assert!(notes.len() == 1 && notes[0].contains("r-1"), "{notes:?}");
    assert_eq!(fs::read_dir(home.path().join("runs/r-1")).unwrap().count(), 1);
}

#[test]
fn a_stream_without_its_description_is_sent_again_whole() {
    let home = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let spool = open(home.path(), MIB);
    let now = Instant::now();
    spool.append_line_at(&line("a"), now).unwrap();
    let message = spool.next_message(now + CHUNK_AGE).unwrap().unwrap();
    spool.answered(&message, model.receive(&message).answer()).unwrap();
    spool.append_line_at(&line("b"), now).unwrap();
    spool.sync().unwrap();
    drop(spool);
    let folder = fs::read_dir(home.path().join("spool")).unwrap().next().unwrap().unwrap().path();
    fs::write(folder.join("stream.json"), "{").unwrap();
    let (spool, notes) = Spool::open_in(&home.path().join("spool"), &run(), Kind::Log, MIB).unwrap();
    assert_eq!(notes.len(), 1);
    drain(&spool, &mut model, now);
    assert_eq!(model.lines(), ["a", "b"]);
    assert!(is_empty(home.path()));
}

#[tokio::test]
async fn the_loop_s_lines_keep_their_order_and_what_does_not_fit_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path(), MIB);
    let io = IoThread::start(crate::io_thread::HomeHealth::default()).unwrap();
    let sender = LineSender::new(spool.clone(), io.clone());
    let (release, released) = std::sync::mpsc::channel::<()>();
    assert!(io.post(move || released.recv().unwrap()));
    for number in 0..200 {
        sender.send_line(line(number.to_string()));
    }
    let lost = spool.status().lost_items;
    assert!(lost > 0 && lost < 200, "{lost}");
    release.send(()).unwrap();
    io.run("waiting", || Ok::<_, std::io::Error>(())).await.unwrap();
    sender.send_line(line("last"));
    io.run("waiting", || Ok::<_, std::io::Error>(())).await.unwrap();
    spool.finish();
    let mut model = Model::default();
    drain(&spool, &mut model, Instant::now());
    let mut expected: Vec<String> = (0..200 - lost).map(|number| number.to_string()).collect();
    expected.push("last".into());
    assert_eq!(model.lines(), expected);
    let gap: u64 = model.gaps().iter().map(|gap| gap.bytes).sum();
    assert_eq!(gap, (200 - lost..200).map(|number| number.to_string().len() as u64).sum::<u64>());
}
