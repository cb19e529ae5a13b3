//! A writing process is killed between any two of its steps, and at random moments. Whoever comes next finds
//! the old state or the new one, and nothing left over after a sweep.

mod common;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use common::{given_task, victim as victim_command};
use groundcrew_durable::agent_info::{self, open_own_home};
use groundcrew_durable::drain_marker::sighting::Now;
use groundcrew_durable::drain_marker::write::{Cancelled, When, Whom, begin, cancel};
use groundcrew_durable::fault::{Point, VARIABLE};
use groundcrew_durable::json::{self, read_json, update_json};
use groundcrew_durable::lock::HomeLock;
use groundcrew_durable::points;
use groundcrew_durable::records::{self, EndKind, RecordReader, RecordWriter};
use groundcrew_durable::whole::{self, LEFTOVER_PREFIX, create_folder, remove, sweep_leftovers, write_whole};

const SIGKILL: i32 = 9;
const OLD: &[u8] = b"the old content, which is longer than the new one\n";
const NEW: &[u8] = b"the new content\n";
const RECORDS: [&[u8]; 3] = [b"first", b"", b"third, which is somewhat longer"];
const FOURTH: &[u8] = b"fourth";

/// What a killed process was doing, each with a state before and a state after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    ReplaceFile,
    MakeFile,
    RemoveFile,
    MakeFolder,
    UpdateJson,
    UpdateAgentInfo,
    AppendRecord,
    AppendBehindTornTail,
    LockHome,
    BeginDrain,
    JoinDrain,
    CancelDrain,
}

/// When every drain here is asked for.
const WHEN: When<'static> = When {
    epoch: "boot:1",
    boot_id: "boot",
    now: Now { wall_ms: 1_782_907_200_000, boot_ms: 0 },
    max_age: std::time::Duration::from_secs(3600),
};

impl Task {
    const ALL: [Self; 12] = [
        Self::ReplaceFile,
        Self::MakeFile,
        Self::RemoveFile,
        Self::MakeFolder,
        Self::UpdateJson,
        Self::UpdateAgentInfo,
        Self::AppendRecord,
        Self::AppendBehindTornTail,
        Self::LockHome,
        Self::BeginDrain,
        Self::JoinDrain,
        Self::CancelDrain,
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| format!("{task:?}") == name)
    }

    /// Makes the state before.
    fn prepare(self, folder: &Path) {
        match self {
            Self::ReplaceFile | Self::RemoveFile => fs::write(folder.join("file"), OLD).unwrap(),
            Self::UpdateJson | Self::UpdateAgentInfo => {
                fs::write(folder.join("file"), "{\"count\":1,\"other\":[1]}").unwrap()
            }
            Self::AppendRecord | Self::AppendBehindTornTail => {
                let path = folder.join("file");
                let (mut writer, _) = RecordWriter::open(&path, &records::Options::default()).unwrap();
                for record in RECORDS {
                    writer.append(record).unwrap();
                }
                if self == Self::AppendBehindTornTail {
                    let whole = fs::read(&path).unwrap();
                    fs::write(&path, [&whole[..], &whole[..9]].concat()).unwrap();
                }
            }
            Self::JoinDrain | Self::CancelDrain => {
                begin(folder, &"first".parse().unwrap(), false, &WHEN).unwrap();
            }
            Self::MakeFile | Self::MakeFolder | Self::LockHome | Self::BeginDrain => {}
        }
    }

    /// Does it, in the process that is to be killed.
    fn run(self, folder: &Path) {
        let path = folder.join("file");
        match self {
            Self::ReplaceFile | Self::MakeFile => {
                write_whole(&path, NEW, &whole::Options::default()).unwrap()
            }
            Self::RemoveFile => assert!(remove(&path).unwrap()),
            Self::MakeFolder => create_folder(&path, 0o755).unwrap(),
            Self::UpdateJson => {
                increment(&path);
            }
            Self::UpdateAgentInfo => {
                let home = open_own_home(folder).unwrap();
                let two = |fields: &mut json::Fields| fields.insert("count".to_owned(), 2.into()).is_some();
                assert!(agent_info::update(home, &path, std::time::Duration::from_secs(60), two).unwrap());
            }
            Self::AppendRecord | Self::AppendBehindTornTail => {
                let (mut writer, _) = RecordWriter::open(&path, &records::Options::default()).unwrap();
                writer.append(FOURTH).unwrap();
                writer.sync().unwrap();
            }
            Self::LockHome => drop(HomeLock::acquire(folder).unwrap()),
            Self::BeginDrain | Self::JoinDrain => {
                begin(folder, &"second".parse().unwrap(), false, &WHEN).unwrap();
            }
            Self::CancelDrain => assert_eq!(cancel(folder, Whom::All, &WHEN).unwrap(), Cancelled::Gone),
        }
    }

    /// Whether the point lies on this task's way.
    fn passes(self, point: Point) -> bool {
        let (operation, _) = point.name().split_once('.').unwrap();
        match self {
            Self::ReplaceFile => operation == "whole",
            Self::MakeFile => operation == "whole" && point != points::WHOLE_OWNED,
            Self::RemoveFile => operation == "remove",
            Self::MakeFolder => operation == "folder",
            Self::UpdateJson | Self::UpdateAgentInfo => operation == "json" || operation == "whole",
            Self::AppendRecord => operation == "records" && point != points::RECORDS_CUT,
            Self::AppendBehindTornTail => operation == "records",
            Self::LockHome => operation == "home",
            Self::BeginDrain => operation == "marker" || operation == "whole" && point != points::WHOLE_OWNED,
            Self::JoinDrain => operation == "marker" || operation == "whole",
            Self::CancelDrain => {
                operation == "remove" || operation == "marker" && point != points::MARKER_WRITTEN
            }
        }
    }

    /// The first point at which the new state stands.
    fn turns_at(self) -> Point {
        match self {
            Self::ReplaceFile
            | Self::MakeFile
            | Self::UpdateJson
            | Self::UpdateAgentInfo
            | Self::BeginDrain
            | Self::JoinDrain => points::WHOLE_RENAMED,
            Self::RemoveFile | Self::CancelDrain => points::REMOVE_UNLINKED,
            Self::MakeFolder => points::FOLDER_MADE,
            Self::AppendRecord | Self::AppendBehindTornTail => points::RECORDS_APPENDED,
            Self::LockHome => points::HOME_LOCKED,
        }
    }

    /// Looks at what a next process finds, which must be wholly one state, and goes on from there.
    fn check(self, folder: &Path, turned: bool) {
        let path = folder.join("file");
        match self {
            Self::ReplaceFile => assert_eq!(fs::read(&path).unwrap(), if turned { NEW } else { OLD }),
            Self::MakeFile => assert_eq!(fs::read(&path).ok().as_deref(), turned.then_some(NEW)),
            Self::RemoveFile => assert_eq!(remove(&path).unwrap(), !turned),
            Self::MakeFolder => {
                assert_eq!(path.is_dir(), turned);
                create_folder(&path, 0o755).unwrap();
            }
            Self::UpdateJson | Self::UpdateAgentInfo => {
                let fields = read_json(&path, 1024).unwrap().unwrap();
                assert_eq!(fields["count"], if turned { 2 } else { 1 });
                assert_eq!(fields.keys().collect::<Vec<_>>(), ["count", "other"]);
                assert_eq!(increment(&path), if turned { 3 } else { 2 });
            }
            Self::AppendRecord | Self::AppendBehindTornTail => check_records(&path, turned),
            Self::LockHome => drop(HomeLock::acquire(folder).unwrap()),
            Self::BeginDrain => check_drain(folder, if turned { &["second"] } else { &[] }),
            Self::JoinDrain => check_drain(folder, if turned { &["first", "second"] } else { &["first"] }),
            Self::CancelDrain => check_drain(folder, if turned { &[] } else { &["first"] }),
        }
    }
}

/// Those who hold the marker after a crash are these, and the next asker finds its lock free.
fn check_drain(folder: &Path, expected: &[&str]) {
    let third = "third".parse().unwrap();
    let body = begin(folder, &third, false, &WHEN).unwrap();
    let holders: Vec<&String> = body["holders"].as_object().unwrap().keys().collect();
    assert_eq!(holders, [expected, &["third"]].concat());
    let ended = cancel(folder, Whom::One(&third), &WHEN).unwrap();
    assert_eq!(ended == Cancelled::Gone, expected.is_empty(), "{ended:?}");
}

fn check_records(path: &Path, turned: bool) {
    let mut expected: Vec<&[u8]> = RECORDS.to_vec();
    expected.extend(turned.then_some(FOURTH));
    assert_eq!(all_records(path).0, expected);
    let (mut writer, opened) = RecordWriter::open(path, &records::Options::default()).unwrap();
    assert_eq!(opened.records, expected.len() as u64);
    writer.append(b"fifth").unwrap();
    expected.push(b"fifth");
    let (found, end) = all_records(path);
    assert_eq!((found, end), (expected.iter().map(|record| record.to_vec()).collect(), EndKind::Clean));
}

fn all_records(path: &Path) -> (Vec<Vec<u8>>, EndKind) {
    let mut reader = RecordReader::open(path, 1024).unwrap().unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        found.push(record.to_vec());
    }
    (found, reader.end().unwrap().kind)
}

/// Adds one to `count` and returns the sum.
fn increment(path: &Path) -> u64 {
    let mut sum = 0;
    let options = json::Options { lock_wait: std::time::Duration::from_secs(60), ..json::Options::default() };
    update_json(path, &options, |fields| {
        sum = fields.get("count").and_then(|count| count.as_u64()).unwrap_or(0) + 1;
        fields.insert("count".to_owned(), sum.into());
        true
    })
    .unwrap();
    sum
}

#[test]
#[ignore = "run by the other tests, in the process that they kill"]
fn victim() {
    let Some((task, folder)) = given_task() else { return };
    match task.as_str() {
        "loop" => write_versions(&folder.join("file")),
        "increment" => {
            for _ in 0..1000 {
                increment(&folder.join("file"));
            }
        }
        name => Task::named(name).expect("a task of this file").run(&folder),
    }
}

fn run(command: &mut Command) -> (ExitStatus, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&said).into_owned())
}

fn names_in(folder: &Path) -> Vec<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn leftovers_in(folder: &Path) -> usize {
    names_in(folder).iter().filter(|name| name.to_str().unwrap().starts_with(LEFTOVER_PREFIX)).count()
}

#[test]
fn a_process_killed_at_any_point_leaves_the_old_state_or_the_new_one() {
    let place_of = |wanted: Point| points::ALL.iter().position(|point| *point == wanted).unwrap();
    // Where a temporary file exists.
    let leaves = place_of(points::WHOLE_CREATED)..place_of(points::WHOLE_RENAMED);
    for (place, &point) in points::ALL.iter().enumerate() {
        let tasks: Vec<Task> = Task::ALL.into_iter().filter(|task| task.passes(point)).collect();
        assert!(!tasks.is_empty(), "no task here passes {}", point.name());
        for task in tasks {
            let home = tempfile::tempdir().unwrap();
            task.prepare(home.path());
            let mut command = victim_command(&[], &format!("{task:?}"), home.path());
            let (status, said) = run(command.env(VARIABLE, point.name()));
            assert_eq!(status.signal(), Some(SIGKILL), "{task:?} did not come to {}: {said}", point.name());

            // The points of whole writes and removals come before those of the locks around them in the list, but between
            // them in time.
            let is_around = ["json.", "marker."].iter().any(|around| point.name().starts_with(around));
            let turned = [points::JSON_WRITTEN, points::MARKER_WRITTEN].contains(&point)
                || !is_around && place >= place_of(task.turns_at());
            let left = u64::from(leaves.contains(&place));
            assert_eq!(leftovers_in(home.path()) as u64, left, "{task:?} at {}", point.name());
            task.check(home.path(), turned);
            let swept = sweep_leftovers(home.path()).unwrap();
            assert_eq!((swept.removed, swept.in_use), (left, 0), "{task:?} at {}", point.name());
            assert_eq!(leftovers_in(home.path()), 0);
        }
    }
}

#[test]
fn a_point_that_is_not_reached_ends_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut command = victim_command(&[], "MakeFile", home.path());
    let (status, said) = run(command.env(VARIABLE, format!("{}:2", points::WHOLE_SYNCED.name())));
    assert!(status.success(), "{said}");
    assert_eq!(fs::read(home.path().join("file")).unwrap(), NEW);
    let mut command = victim_command(&[], "MakeFile", home.path());
    let (status, said) = run(command.env(VARIABLE, "whole.synced:never"));
    assert!(!status.success() && said.contains("expected NAME or NAME:COUNT"), "{said}");
}

/// Version `number` of the file: its length differs from that of its neighbours, its bytes from all others'.
fn version(number: u64) -> Vec<u8> {
    let lines = 1 + (number * 37) % 500;
    (0..lines).flat_map(|line| format!("{number} {line} of {lines}\n").into_bytes()).collect()
}

/// Writes version after version, says each that is durable, and never ends by itself before it is killed.
fn write_versions(path: &Path) {
    let first = fs::read(path).map_or(0, |bytes| number_of(&bytes));
    for number in first + 1.. {
        write_whole(path, &version(number), &whole::Options::default()).unwrap();
        println!("durable {number}");
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Splitmix64: repeatable, and good enough to choose moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[test]
fn a_looping_writer_killed_two_hundred_times_leaves_whole_versions() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    let mut random = Random(20_251_117);
    let mut swept = 0;
    for round in 0..200 {
        let mut command = victim_command(&[], "loop", home.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let mut durable_lines = lines.by_ref().filter_map(|line| line.strip_prefix("durable ")?.parse().ok());
        let said: u64 =
            durable_lines.nth(random.below(8) as usize).expect("the writer writes until it is killed");
        // Not a wait for anything: it only moves the moment of the kill to somewhere inside a write.
        (0..random.below(400_000)).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
        let said = durable_lines.last().unwrap_or(said);

        let found = fs::read(&path).unwrap();
        let number = number_of(&found);
        assert_eq!(found, version(number), "round {round}");
        // What was said to be durable is there, and at most the one write under way more.
        assert!(number == said || number == said + 1, "round {round}: {number} stands, {said} was said");
        swept += sweep_leftovers(home.path()).unwrap().removed;
        assert_eq!(names_in(home.path()), ["file"], "round {round}");
    }
    assert!(swept > 0, "no kill fell between the making and the renaming of a temporary file");
}

#[test]
fn two_processes_lose_no_increment_under_the_lock() {
    let home = tempfile::tempdir().unwrap();
    let path: PathBuf = home.path().join("file");
    fs::write(&path, "{\"unknown\":{\"z\":1,\"a\":2}}").unwrap();
    let start = || {
        let mut command = victim_command(&[], "increment", home.path());
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let children = [start(), start()];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let fields = read_json(&path, 1024).unwrap().unwrap();
    assert_eq!(fields["count"], 2000);
    assert_eq!(fields["unknown"].to_string(), "{\"z\":1,\"a\":2}");
    assert_eq!(leftovers_in(home.path()), 0);
}
