//! `groundcrewctl up` with programs that stand in for the real ones: what it leaves behind, however it ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// A program that is written by one thread while another one forks cannot be started by the first.
static WRITES_OR_STARTS: Mutex<()> = Mutex::new(());

const PROFILE: &str = "name = \"p\"\n[[stage]]\nname = \"Inventory\"\ndeadline = \"1m\"\n";
/// Says its process id into the pipe, which it holds open for as long as it lives.
const HANGS: &str = "exec 3>\"$LIFE\"\necho $$ >&3\nexec sleep 60";

/// A folder for one test.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// With a `groundcrewd` that does what the script says.
    fn new(groundcrewd: &str) -> Stage {
        let stage = Stage { folder: tempfile::tempdir().unwrap() };
        let _alone = WRITES_OR_STARTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        fs::create_dir(stage.path("bin")).unwrap();
        fs::create_dir(stage.path("tmp")).unwrap();
        for (name, script) in [("groundcrewd", groundcrewd), ("groundcrew", "exit 9")] {
            let path = stage.path("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(stage.path("p.toml"), PROFILE).unwrap();
        mknodat(CWD, stage.path("life"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, more: &[&str]) -> Child {
        let _alone = WRITES_OR_STARTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Command::new(env!("CARGO_BIN_EXE_groundcrewctl"))
            .arg("up")
            .arg("--bin-dir")
            .arg(self.path("bin"))
            .arg("--profile")
            .arg(self.path("p.toml"))
            .arg("--report-dir")
            .arg(self.path("report"))
            .args(more)
            .env("TMPDIR", self.path("tmp"))
            .env("LIFE", self.path("life"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn finished(&self, more: &[&str]) -> Output {
        self.start(more).wait_with_output().unwrap()
    }

    /// The pipe that the program holds open, once it does.
    fn life(&self) -> BufReader<File> {
        let mut life = BufReader::new(File::open(self.path("life")).unwrap());
        let mut line = String::new();
        life.read_line(&mut line).unwrap();
        assert!(line.trim().parse::<u32>().is_ok(), "{line:?}");
        life
    }

    fn temporaries(&self) -> usize {
        fs::read_dir(self.path("tmp")).unwrap().count()
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until whoever held the pipe open is gone.
fn expect_gone(mut life: BufReader<File>) {
    let mut rest = Vec::new();
    life.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn an_orchestrator_that_does_not_start_is_shown_with_its_last_lines() {
    let stage = Stage::new("echo the disk is on fire >&2\nexit 3");
    let output = stage.finished(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the disk is on fire"), "{stderr}");
    assert!(stderr.contains("ended before it listened: exit code 3"), "{stderr}");
    assert_eq!(stage.temporaries(), 0);
    assert!(stage.path("report/groundcrewd.log").exists());
}

#[test]
fn after_a_signal_nothing_is_left_behind() {
    for (sent, code, keep) in
        [(Signal::INT, 130, &[][..]), (Signal::TERM, 143, &[][..]), (Signal::INT, 130, &["--keep"][..])]
    {
        let stage = Stage::new(HANGS);
        let child = stage.start(keep);
        let life = stage.life();
        signal(&child, sent);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        expect_gone(life);
        assert_eq!(stage.temporaries(), 0);
    }
}

#[test]
fn a_killed_up_takes_its_programs_along_and_the_next_one_its_folder() {
    let stage = Stage::new(HANGS);
    let mut child = stage.start(&[]);
    let life = stage.life();
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    expect_gone(life);
    assert_eq!(stage.temporaries(), 1, "a kill leaves no time to remove it");
    let child = stage.start(&[]);
    let life = stage.life();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("which an earlier `up` had to leave"));
    expect_gone(life);
    assert_eq!(stage.temporaries(), 0);
}

#[test]
fn what_up_cannot_begin_with_is_a_wrong_call() {
    let stage = Stage::new("exit 3");
    let bin = stage.path("bin").display().to_string();
    let output = stage.finished(&["--data", &bin]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("new or empty"), "{stderr}");
    fs::write(stage.path("p.toml"), "name = \"p\"\n").unwrap();
    let output = stage.finished(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("line 1, stage"), "{stderr}");
    fs::remove_file(stage.path("bin/groundcrew")).unwrap();
    fs::write(stage.path("p.toml"), PROFILE).unwrap();
    let output = stage.finished(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("--bin-dir"), "{stderr}");
    assert_eq!(stage.temporaries(), 0);
}
