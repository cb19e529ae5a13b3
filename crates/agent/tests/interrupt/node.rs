//! A node's root mount, in which a shell runs and nothing else is, and calls of the built agent for it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::programs::write_program;
use crate::shell_root;

/// What has not come after this never comes.
const STUCK: Duration = Duration::from_secs(120);
/// Nothing tells that a file has come.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// Longer than any test.
pub const LONG_S: &str = "86400";
pub const ID: &str = "customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1_sample_1.0.0";
pub const SKIPPED: &str = "Skipping interrupt node_restart_0 because it was already run for customer-";
/// A program that is there until somebody ends it.
pub const BLOCK: &str = "read x <>/fifo";
/// The agent is killed once the flag is durable, before the command is started.
pub const KILLED_BEFORE_THE_COMMAND: (&str, &str) = ("GROUNDCREW_FAULT", "interrupt.flagged");
/// A grace that is over at once.
pub const NO_GRACE: (&str, &str) = ("GROUNDCREW_REBOOT_GRACE_S", "0");

pub struct Node {
    folder: tempfile::TempDir,
    interrupt: Value,
}

impl Node {
    pub fn new(interrupt: Value) -> Node {
        assert!(rustix::process::geteuid().is_root(), "entering a root mount needs root");
        let node = Node { folder: tempfile::tempdir().unwrap(), interrupt };
        std::fs::create_dir(node.root()).unwrap();
        shell_root::add_program(&node.root(), shell_root::SHELL);
        mknodat(CWD, node.root().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        node
    }

    pub fn with_reboot(script: &str) -> Node {
        let node = Node::new(json!({ "type": "node_restart" }));
        node.program("reboot", script);
        node
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Puts a program into the root's folder of programs, or one below it.
    pub fn program(&self, name: &str, script: &str) {
        let file = self.root().join("programs").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_program(&file, script);
    }

    pub fn start(&self, settings: &[(&str, &str)]) -> Child {
        self.command_in("/", settings).spawn().unwrap()
    }

    pub fn command_in(&self, copy_dir: &str, settings: &[(&str, &str)]) -> Command {
        self.dressed(Command::new(env!("CARGO_BIN_EXE_groundcrew")), copy_dir, settings)
    }

    /// A call through another program, whose arguments end with the agent's.
    pub fn command_under(&self, around: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(around[0]);
        command.args(&around[1..]).arg(env!("CARGO_BIN_EXE_groundcrew"));
        self.dressed(command, "/", settings)
    }

    fn dressed(&self, mut command: Command, copy_dir: &str, settings: &[(&str, &str)]) -> Command {
        let own = |name| File::create(self.folder.path().join(name)).unwrap();
        let data =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.interrupt.to_string());
        command
            .args(["package", "interrupt"])
            .arg(self.root())
            .args([copy_dir, &data])
            .env_clear()
            // Nothing outside of the root can be meant.
            .env("PATH", "/programs")
            .env("SKYHOOK_RESOURCE_ID", ID)
            .env("COPY_RESOLV", "false")
            // Where it is not heeded, a test would last for longer than anybody waits.
            .env("SKYHOOK_AGENT_TERM_GRACE_S", LONG_S)
            .envs(settings.iter().copied())
            .stdout(own("stdout"))
            .stderr(own("stderr"));
        command
    }

    /// A call to its end: its exit status.
    pub fn call(&self, settings: &[(&str, &str)]) -> i32 {
        end_of(self.start(settings))
    }

    /// A call to its end, through another program.
    pub fn call_under(&self, around: &[&str], settings: &[(&str, &str)]) -> i32 {
        end_of(self.command_under(around, settings).spawn().unwrap())
    }

    pub fn said(&self, stream: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(stream)).unwrap_or_default()
    }

    /// The flag of a command, by its name: `node_restart_0`.
    pub fn flag_of(&self, command: &str) -> PathBuf {
        self.root().join(format!("etc/skyhook/interrupts/flags/{ID}/{command}.complete"))
    }

    pub fn flag(&self) -> PathBuf {
        self.flag_of("node_restart_0")
    }

    pub fn record_file(&self) -> PathBuf {
        self.flag().with_extension("complete.boot")
    }

    /// All of the record.
    pub fn whole_record(&self) -> Option<Value> {
        let text = std::fs::read(self.record_file()).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Changes a field of the record.
    pub fn change_record(&self, field: &str, value: Value) {
        let mut record = self.whole_record().expect("there is a record");
        record[field] = value;
        std::fs::write(self.record_file(), record.to_string()).unwrap();
    }

    /// The record's state and how often was asked.
    pub fn record(&self) -> Option<(String, u64)> {
        let record = self.whole_record()?;
        Some((record["state"].as_str().unwrap().to_owned(), record["asks"].as_u64().unwrap()))
    }

    pub fn is_asked(&self) -> bool {
        self.record().is_some_and(|(state, _)| state == "asked")
    }

    /// What programs have written to a file of the root, which they append to.
    pub fn written(&self, file: &str) -> String {
        std::fs::read_to_string(self.root().join(file)).unwrap_or_default()
    }
}

/// A pipe that nobody reads and that has no room: whoever writes to it waits. Its reading end, and its other.
pub fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (unread, mut full) = std::io::pipe().unwrap();
    // As large as the agent makes it, or there would be room again.
    rustix::pipe::fcntl_setpipe_size(&full, 1 << 20).unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    (unread, full)
}

/// Whether a process has said what is to become of SIGTERM.
pub fn heeds_sigterm(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("proc(5) has it");
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < STUCK, "never came: {what}");
        std::thread::sleep(ASK_AGAIN);
    }
}

pub fn send_sigterm(to: &Child) {
    kill_process(Pid::from_raw(to.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
}

/// The exit status of a call, or the negative number of a signal.
pub fn end_of(mut child: Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let mut status = None;
    eventually("the agent's end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let status = status.unwrap();
    status.code().unwrap_or_else(|| -status.signal().unwrap())
}
