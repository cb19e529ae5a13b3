//! `groundcrewctl up`, which is what `cargo xtask up` becomes: to Completed, and what it leaves behind however it ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Handle, Load, Process, Terminal, binary};
use rustix::process::Signal;

use crate::profiles::{INVENTORY_AND_LOAD, LOAD};

const INVENTORY: &str = "name = \"inventory\"\n[[stage]]\nname = \"Inventory\"\n";
/// Columns and rows of the terminal.
const SIZE: (u16, u16) = (100, 30);

/// A machine on which somebody calls `up`: its load, its temporary folder, its home. What is left of it goes with the test.
struct Place {
    load: Load,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        for name in ["bin", "tmp", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("the folder is ours");
        }
        let load = Load::install(folder.path(), &folder.path().join("bin"));
        Place { load, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `up` with a profile, as it is called from a shell whose settings ask for what `up` never does.
    fn command(&self, profile: &str, more: &[&str]) -> Command {
        let file = self.path("profile.toml");
        std::fs::write(&file, profile).expect("the folder is ours");
        let ctl = binary("groundcrewctl");
        let mut command = Command::new(&ctl);
        command
            .arg("up")
            .arg("--bin-dir")
            .arg(ctl.parent().expect("a program lies in a folder"))
            .arg("--profile")
            .arg(file)
            .arg("--report-dir")
            .arg(self.path("report"))
            .args(more)
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("TMPDIR", self.path("tmp"))
            .env("HOME", self.path("home"))
            .env("GROUNDCREW_ALLOW_REBOOT", "yes")
            .env("GROUNDCREW_ALLOW_POWER", "yes")
            .env("GROUNDCREW_AUTHORIZED_KEYS", self.path("home/.ssh/authorized_keys"));
        command
    }

    fn start(&self, profile: &str, more: &[&str]) -> Process {
        Process::start("up", &mut self.command(profile, more))
    }

    fn start_on_terminal(&self, profile: &str) -> (Process, Terminal) {
        Process::start_on_terminal("up", self.command(profile, &[]), SIZE)
    }

    /// Processes that have anything to do with this place, by their command line or environment.
    fn processes(&self) -> Vec<Handle> {
        let ours = self.folder.path().to_str().expect("the path is UTF-8").as_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("there is a /proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // One that has ended meanwhile has neither; nor has one that only waits to be reaped.
            let of = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let says = |text: Vec<u8>| text.windows(ours.len()).any(|window| window == ours);
            if says(of("cmdline")) || says(of("environ")) {
                found.push(Handle::on(pid));
            }
        }
        found
    }

    fn names_in(&self, folder: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path(folder)).expect("the folder is ours");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Nothing runs any more, and there is nothing on the disk but the folder of the report.
    fn expect_nothing_left(&self, report: &[&str]) {
        let left: Vec<i32> = self.processes().iter().map(Handle::pid).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
        assert_eq!(self.names_in("tmp"), BTreeSet::new());
        assert_eq!(self.names_in("home"), BTreeSet::new());
        assert_eq!(self.names_in("report"), report.iter().map(|name| (*name).to_owned()).collect());
    }

    fn report(&self) -> Report {
        let bytes = std::fs::read(self.path("report/report.json")).expect("the report is there");
        serde_json::from_slice(&bytes).expect("it is a report")
    }
}

impl Drop for Place {
    /// A test that failed leaves nothing running either.
    fn drop(&mut self) {
        for process in self.processes() {
            process.signal(Signal::KILL);
        }
    }
}

/// The socket on which the orchestrator of an `up` listens, known by its inode: its port may be another's afterwards.
struct Listener {
    inode: String,
}

impl Listener {
    /// The one of the page's address, which must be open.
    fn of(up: &Process) -> Listener {
        let page = up.wait_for_line("Page  https://127.0.0.1:");
        let port = page.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next());
        let port: u16 = port.and_then(|port| port.parse().ok()).expect("the page has a port");
        let local = format!("0100007F:{port:04X}");
        let sockets = sockets();
        let fields = sockets.iter().find(|fields| fields[1] == local && fields[3] == LISTENS);
        Listener { inode: fields.expect("it listens there")[9].clone() }
    }

    fn is_open(&self) -> bool {
        sockets().iter().any(|fields| fields[9] == self.inode)
    }
}

/// The state of a socket that listens, in /proc/net/tcp (proc(5)).
const LISTENS: &str = "0A";

/// The fields of /proc/net/tcp.
fn sockets() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("there is a /proc");
    text.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// The report's folder after a run that has ended or is held, and after one that was stopped.
const WHOLE: [&str; 4] = ["groundcrew.log", "groundcrewd.log", "report.html", "report.json"];
const LOGS: [&str; 2] = ["groundcrew.log", "groundcrewd.log"];

fn said(up: &Process) -> String {
    up.lines().join("\n")
}

fn has_line(up: &Process, wanted: &str) -> bool {
    up.lines().iter().any(|line| line.trim_end() == wanted)
}

#[test]
fn up_walks_to_completed_in_plain_lines_and_does_it_again() {
    let place = Place::new();
    let mut runs = BTreeSet::new();
    for _ in 0..2 {
        let mut up = place.start(INVENTORY, &[]);
        let status = up.wait();
        let said = said(&up);
        assert_eq!(status.code(), Some(0), "{said}");
        assert_eq!(up.lines().last().map(String::as_str), Some("Completed"), "{said}");
        assert!(!said.contains(['\u{1b}', '\r']), "a pipe is no terminal: {said:?}");
        for part in ["  created  ", "  stage_started  ", "✓ pass   Inventory"] {
            assert!(said.contains(part), "{part:?} is not in:\n{said}");
        }
        // The end names the page once more, behind the report.
        let report = up.lines().into_iter().skip_while(|line| !line.starts_with("Report  "));
        assert!(report.skip(1).any(|line| line.starts_with("Page    https://127.0.0.1:")), "{said}");
        for name in ["report.html", "report.json"] {
            assert!(said.contains(&place.path("report").join(name).display().to_string()), "{said}");
        }
        let report = place.report();
        assert_eq!(report.state, State::Completed);
        runs.insert(report.run.expect("the orchestrator names the run").to_string());
        place.expect_nothing_left(&WHOLE);
    }
    assert_eq!(runs.len(), 2, "the second one showed the report of the first");
}

#[test]
fn what_is_kept_can_be_asked_and_ended_as_it_was_said() {
    let place = Place::new();
    let mut up = place.start(INVENTORY, &["--keep"]);
    let status = up.wait();
    let said = said(&up);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(has_line(&up, "Completed") && said.contains("Still running, as --keep asks."), "{said}");

    let rest_of = |start: &str| {
        let line = up.lines().into_iter().find_map(|line| Some(line.trim().strip_prefix(start)?.to_owned()));
        line.unwrap_or_else(|| panic!("no line begins with {start:?}:\n{said}"))
    };
    let kept: Vec<i32> = rest_of("kill ").split(' ').map(|pid| pid.parse().expect("a number")).collect();
    let kept: Vec<Handle> = kept.into_iter().map(Handle::on).collect();
    assert_eq!(kept.len(), 2, "{said}");
    // The agent is told neither what the caller's environment allows nor where root's keys are.
    let agent = std::fs::read(format!("/proc/{}/environ", kept[0].pid())).expect("the agent lives");
    let agent = String::from_utf8_lossy(&agent);
    let folder = rest_of("rm -r ");
    assert!(agent.contains(&format!("GROUNDCREW_AUTHORIZED_KEYS={folder}/authorized_keys\0")), "{agent}");
    assert!(!agent.contains("ALLOW"), "{agent}");

    let settings = rest_of("export ");
    let mut list = Command::new(binary("groundcrewctl"));
    list.args(["run", "list"]).envs(settings.split(' ').filter_map(|setting| setting.split_once('=')));
    let mut list = Process::start("run list", &mut list);
    assert!(list.wait().success(), "{}", self::said(&list));
    assert_eq!(list.count_of("Completed"), 1, "{}", self::said(&list));

    for process in &kept {
        process.signal(Signal::TERM);
        process.wait_gone();
    }
    std::fs::remove_dir_all(folder).expect("it is there, and ours");
    place.expect_nothing_left(&WHOLE);
}

#[test]
fn an_interrupt_in_the_middle_of_a_stage_leaves_nothing_behind() {
    let mut place = Place::new();
    let mut up = place.start(INVENTORY_AND_LOAD, &[]);
    let load = place.load.started();
    up.wait_for_line("Inventory | pass: memory");
    let helper = place.load.bear_child();
    let listener = Listener::of(&up);
    assert!(listener.is_open() && place.processes().len() >= 4, "{:?}", place.processes());
    up.signal(Signal::INT);
    assert_eq!(up.wait().code(), Some(130), "{}", said(&up));
    assert!(!has_line(&up, "Completed"), "{}", said(&up));
    assert!(load.is_gone() && helper.is_gone());
    assert!(!listener.is_open(), "somebody holds the socket open");
    place.expect_nothing_left(&LOGS);
    // The one folder that stays is said.
    let report = place.path("report").display().to_string();
    assert!(up.count_of(&report) > 0, "{}", said(&up));
}

#[test]
fn a_stage_that_fails_is_not_completed() {
    let mut place = Place::new();
    let mut up = place.start(LOAD, &[]);
    place.load.started();
    place.load.fail();
    assert_eq!(up.wait().code(), Some(1), "{}", said(&up));
    let said = said(&up);
    assert!(!said.contains("Completed"), "{said}");
    for part in ["✗ fail", "The run is held at CPUStress.", "miscompares", "With --keep everything stays up"]
    {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert_eq!(place.report().state, State::FailedHolding);
    place.expect_nothing_left(&WHOLE);
}

#[test]
fn on_a_terminal_a_stage_has_a_bar_and_the_tail_of_its_log() {
    let mut place = Place::new();
    let (mut up, terminal) = place.start_on_terminal(INVENTORY_AND_LOAD);
    place.load.started();
    place.load.print(40);
    // In one picture a stage that is done, one that is in flight with its bar, and the newest line of its log.
    let picture = up.wait_for_line("line 40");
    for part in ["✓ Inventory", "CPUStress", "──", " of 10 min"] {
        assert!(picture.contains(part), "{part:?} is not in {picture:?}");
    }
    assert!(!terminal.echoes_control(), "a ^C would be written between the bars");
    place.load.pass();
    assert_eq!(up.wait().code(), Some(0), "{}", said(&up));
    assert!(has_line(&up, "Completed"), "{}", said(&up));
    assert!(terminal.echoes_control(), "the terminal is left as it was");
    place.expect_nothing_left(&WHOLE);
}

#[test]
fn control_c_on_the_terminal_leaves_nothing_behind() {
    let mut place = Place::new();
    let (mut up, mut terminal) = place.start_on_terminal(LOAD);
    let load = place.load.started();
    up.wait_for_line("──");
    let listener = Listener::of(&up);
    terminal.interrupt();
    assert_eq!(up.wait().code(), Some(130), "{}", said(&up));
    assert!(!has_line(&up, "Completed"), "{}", said(&up));
    assert!(load.is_gone() && !listener.is_open());
    assert!(terminal.echoes_control(), "the terminal is left as it was");
    place.expect_nothing_left(&LOGS);
}
