//! `groundcrew vet` as a built binary: real processes, a script in place of stress-ng.

mod programs;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use programs::write_program;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stress-ng");
/// Says its number and that of a helper, then loads nothing for ever.
const ENDLESS: &str = "sleep 1000 & echo \"$$ $!\" >pids.new; mv pids.new pids; wait";

/// A folder with a profile and a fake stress-ng.
struct Place(tempfile::TempDir);

impl Place {
    fn new(script: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let fake = folder.path().join("stress-ng");
        let find_yaml = "for word; do [ \"$last\" = --yaml ] && yaml=$word; last=$word; done";
        let there = format!("cd {}", folder.path().display());
        write_program(&fake, &format!("{there}\n{find_yaml}\n{script}"));
        let profile =
            "name = \"p\"\n[[stage]]\nname = \"CPUStress\"\n[stage.cpu_stress]\nduration = \"1s\"\n";
        std::fs::write(folder.path().join("p.toml"), profile).unwrap();
        Place(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn vet(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_groundcrew"));
        command
            .args(["vet", "--profile", "p.toml"])
            .args(more)
            .current_dir(self.path())
            .env("PATH", format!("{}:/usr/bin:/bin", self.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn output(&self, more: &[&str]) -> Output {
        self.vet(more).output().unwrap()
    }

    /// Starts it, and waits until the fake runs: its number and its helper's.
    fn start_endless(&self) -> (Child, [i32; 2]) {
        let mut vet = self.vet(&[]).spawn().unwrap();
        let mut shown = BufReader::new(vet.stderr.take().unwrap()).lines();
        assert_eq!(shown.next().unwrap().unwrap(), "CPUStress: begins");
        let pids = loop {
            match std::fs::read_to_string(self.path().join("pids")) {
                Ok(text) => break text,
                Err(_) => assert!(vet.try_wait().unwrap().is_none(), "it ended before its tool ran"),
            }
        };
        // The rest of what it shows must not fill the pipe.
        std::thread::spawn(move || shown.count());
        let mut pids = pids.split_whitespace().map(|pid| pid.parse().unwrap());
        (vet, [pids.next().unwrap(), pids.next().unwrap()])
    }
}

#[test]
fn a_second_vet_in_one_folder_is_refused_and_harms_the_first_not() {
    let place = Place::new(ENDLESS);
    let (mut first, pids) = place.start_endless();
    let second = place.output(&[]);
    assert_eq!(second.status.code(), Some(2), "the machine has not failed");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("one vet at a time") && said.contains(&first.id().to_string()), "{said}");
    assert!(!said.contains("left running"), "{said}");
    for pid in pids {
        assert!(!is_gone(pid), "the second vet ended a process of the first");
    }
    kill_process(Pid::from_child(&first), Signal::INT).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(130));
}

fn is_gone(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']),
        Err(_) => true,
    }
}

#[test]
fn a_passed_machine_exits_0_with_table_and_files() {
    let place = Place::new(&format!("sleep 1; cp {FIXTURES}/healthy.yaml \"$yaml\""));
    let output = place.output(&["--report", "out"]);
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{shown}{said}");
    assert!(shown.contains("CPUStress") && shown.contains("out/report.html"), "{shown}");
    assert!(said.starts_with("CPUStress: begins\n"), "{said}");
    for name in ["report.json", "report.html", "CPUStress-stress-ng.yaml"] {
        assert!(place.path().join("out").join(name).is_file(), "{name}");
    }
    assert!(!place.path().join("out/work").exists());
}

/// Only a machine that failed exits 1, and only one that was judged and reported well exits 0.
#[test]
fn what_keeps_a_vet_from_judging_or_reporting_is_inconclusive() {
    let healthy = format!("sleep 1; cp {FIXTURES}/healthy.yaml \"$yaml\"");
    let place = Place::new(&healthy);
    std::fs::write(place.path().join("taken"), "a file").unwrap();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = place.output(&["--report", "taken/out"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("make the folder") && said(&output).contains("taken/out"),
        "{}",
        said(&output)
    );

    // A report that cannot be written: the table is there, the files are not.
    std::fs::create_dir_all(place.path().join("out/report.json/in-the-way")).unwrap();
    let output = place.output(&["--report", "out"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("out/report.json"), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("✓ pass   CPUStress"));

    let failing = Place::new(&format!("cat {FIXTURES}/verify-failed.err >&2; exit 2"));
    std::fs::create_dir_all(failing.path().join("out/report.json/in-the-way")).unwrap();
    let output = failing.output(&["--report", "out"]);
    assert_eq!(output.status.code(), Some(1), "it failed, whatever became of its report: {}", said(&output));
}

#[test]
fn whoever_closes_the_pipe_has_read_enough() {
    let place = Place::new(&format!("sleep 1; cp {FIXTURES}/healthy.yaml \"$yaml\""));
    for more in [&[][..], &["--json"]] {
        let mut vet = place.vet(more).stderr(Stdio::null()).spawn().unwrap();
        drop(vet.stdout.take());
        assert_eq!(vet.wait().unwrap().code(), Some(0), "{more:?}");
    }
    for words in [
        &["--help"][..],
        &["--version"],
        &["vet", "--help"],
        &["agent", "--help"],
        &["status", "--help"],
        &["drain", "--help"],
        &["package", "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut help = Command::new(env!("CARGO_BIN_EXE_groundcrew"));
        let output = help.args(words).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn json_alone_goes_to_standard_output() {
    let place = Place::new(&format!("cat {FIXTURES}/verify-failed.err >&2; exit 2"));
    let output = place.output(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["verdict"], &report["stages"][0]["checks"][0]["observed"]["value"]),
        (&"fail".into(), &12.0.into())
    );
}

#[test]
fn a_missing_tool_exits_2_and_a_bad_call_64() {
    let place = Place::new("");
    std::fs::remove_file(place.path().join("stress-ng")).unwrap();
    let output = place.vet(&[]).env("PATH", place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stress-ng is not installed (looked in "));
    assert_eq!(place.output(&["--nonsense"]).status.code(), Some(64));
    // A profile is what the caller gives: that it is bad or missing says nothing of the machine.
    assert_eq!(place.output(&["--profile", "missing.toml"]).status.code(), Some(64));
    std::fs::write(place.path().join("p.toml"), "name = \"p\"\n[[stage]]\nname = \"CPUStres\"\n").unwrap();
    let output = place.output(&[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CPUStress meant?"));
}

#[test]
fn an_interrupt_ends_the_tool_and_reports_what_was_done() {
    let place = Place::new(ENDLESS);
    let (vet, pids) = place.start_endless();
    kill_process(Pid::from_child(&vet), Signal::INT).unwrap();
    let output = vet.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(pids.iter().all(|pid| is_gone(*pid)), "{pids:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("stage cancelled by operator"));
}

#[test]
fn what_a_killed_vet_left_running_is_ended_by_the_next() {
    let place = Place::new(ENDLESS);
    let (mut vet, [tool, helper]) = place.start_endless();
    let handle = pidfd_open(Pid::from_raw(tool).unwrap(), PidfdFlags::empty()).unwrap();
    vet.kill().unwrap();
    assert_eq!(vet.wait().unwrap().signal(), Some(9));
    // The kernel ends the tool with its parent; what the tool had started lives on.
    let mut polled = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, None).unwrap();
    assert!(!is_gone(helper));
    write_program(&place.path().join("stress-ng"), "exit 3");
    let output = place.output(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ended 1 processes of stress-ng that an earlier vet left running"), "{said}");
    assert!(is_gone(helper));
}
