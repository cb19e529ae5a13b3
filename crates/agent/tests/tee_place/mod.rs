//! A folder with a tee in it, and steps made of shell scripts.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use groundcrew_agent::process::stamper::{Label, PREFIX_BYTES};
use groundcrew_agent::process::tee::{Command, Ended, Helper, Log, ParentStream, Settings, Tee};
use groundcrew_agent::process::{Cancel, ControlData};

use crate::programs::write_script;

/// The default of `SKYHOOK_AGENT_BUFFER_LIMIT`.
const READ_BYTES: usize = 8192;

pub struct Place {
    pub tee: Tee,
    cancel: Cancel,
    folder: tempfile::TempDir,
    runs: u32,
}

impl Place {
    pub fn new() -> Place {
        Place::make(None, Helper::other(env!("CARGO_BIN_EXE_groundcrew")), Duration::ZERO)
    }

    pub fn with_grace(grace: Duration) -> Place {
        Place::make(None, Helper::other(env!("CARGO_BIN_EXE_groundcrew")), grace)
    }

    pub fn with_helper(helper: Helper) -> Place {
        Place::make(None, helper, Duration::ZERO)
    }

    pub fn with_stdout(stdout: OwnedFd, grace: Duration) -> Place {
        Place::make(Some(stdout), Helper::other(env!("CARGO_BIN_EXE_groundcrew")), grace)
    }

    fn make(stdout: Option<OwnedFd>, helper: Helper, term_grace: Duration) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::new().unwrap();
        let file = |name: &str| OwnedFd::from(File::create(folder.path().join(name)).unwrap());
        let stdout = ParentStream::new("stdout", stdout.unwrap_or_else(|| file("stdout")), cancel.clone());
        let stderr = ParentStream::new("stderr", file("stderr"), cancel.clone());
        let settings = Settings { helper, read_bytes: READ_BYTES, term_grace, cancel: cancel.clone() };
        Place { tee: Tee::new(settings, stdout, stderr), cancel, folder, runs: 0 }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A step that is a shell script, not yet executable, in this folder.
    pub fn step(&self, script: &str) -> ControlData {
        let path = self.path().join("apply.sh");
        write_script(&path, &format!("#!/bin/sh\n{script}\n"));
        ControlData {
            argv: vec![path.into(), "one".into(), "two words".into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hi".into())],
            root: None,
            directory: self.path().to_owned(),
            no_chmod: false,
        }
    }

    pub fn run(&mut self, script: &str) -> Ended {
        let step = self.step(script);
        self.run_step(step, false)
    }

    /// Runs a script after which another one is likely to follow.
    pub fn run_before_another(&mut self, script: &str) -> Ended {
        let program = self.step(script);
        let (stdout_log, stderr_log) = self.new_logs();
        let record = &mut |_pid| Ok(());
        let command = Command {
            program,
            write_command: false,
            stdout_log,
            stderr_log,
            term_grace: None,
            record,
            started: None,
            time_max: None,
        };
        self.tee.run_before_another(command)
    }

    pub fn run_step(&mut self, program: ControlData, write_command: bool) -> Ended {
        let (stdout_log, stderr_log) = self.new_logs();
        let record = &mut |_pid| Ok(());
        self.tee.run(Command {
            program,
            write_command,
            stdout_log,
            stderr_log,
            term_grace: None,
            record,
            started: None,
            time_max: None,
        })
    }

    pub fn run_recorded(
        &mut self,
        program: ControlData,
        record: &mut dyn FnMut(u32) -> io::Result<()>,
    ) -> Ended {
        let (stdout_log, stderr_log) = self.new_logs();
        self.tee.run(Command {
            program,
            write_command: false,
            stdout_log,
            stderr_log,
            term_grace: None,
            started: None,
            time_max: None,
            record,
        })
    }

    pub fn run_logged(
        &mut self,
        program: ControlData,
        stdout_log: Option<Log>,
        stderr_log: Option<Log>,
    ) -> Ended {
        let record = &mut |_pid| Ok(());
        self.tee.run(Command {
            program,
            write_command: false,
            stdout_log,
            stderr_log,
            term_grace: None,
            started: None,
            time_max: None,
            record,
        })
    }

    /// Runs a script, and asks the agent to end once it has made the file `begun`.
    pub fn run_and_ask(&mut self, script: &str) -> Ended {
        self.asked_once_begun(|place| place.run(script))
    }

    /// The same with a grace of its own.
    pub fn run_and_ask_with_grace(&mut self, script: &str, grace: Duration) -> Ended {
        let program = self.step(script);
        let (stdout_log, stderr_log) = self.new_logs();
        let term_grace = Some(grace);
        let record = &mut |_pid| Ok(());
        let command = Command {
            program,
            write_command: false,
            stdout_log,
            stderr_log,
            term_grace,
            record,
            started: None,
            time_max: None,
        };
        self.asked_once_begun(|place| place.tee.run(command))
    }

    /// Does something, and asks the agent to end once that has made the file `begun`.
    pub fn asked_once_begun<T>(&mut self, what: impl FnOnce(&mut Place) -> T) -> T {
        let (begun, cancel) = (self.path().join("begun"), self.cancel.clone());
        let asking = std::thread::spawn(move || {
            while !begun.exists() {
                std::thread::yield_now();
            }
            cancel.ask();
        });
        let done = what(self);
        asking.join().unwrap();
        done
    }

    fn new_logs(&mut self) -> (Option<Log>, Option<Log>) {
        self.runs += 1;
        let log = |label| {
            let path = self.log_path(label);
            Some(Log::new(File::create(&path).unwrap(), path))
        };
        (log(Label::Out), log(Label::Err))
    }

    /// Where the last run's log is.
    pub fn log_path(&self, label: Label) -> PathBuf {
        let name = match label {
            Label::Out => format!("{}.log", self.runs),
            Label::Err => format!("{}.log.err", self.runs),
        };
        self.path().join(name)
    }

    /// The last run's logs.
    pub fn logs(&self) -> [String; 2] {
        [Label::Out, Label::Err].map(|label| without_stamps(&self.log_path(label)))
    }

    /// All that was written to the agent's standard output, where it is a file.
    pub fn stdout(&self) -> String {
        without_stamps(&self.path().join("stdout"))
    }

    /// The agent's two streams, and the last run's logs.
    pub fn all(&self) -> [String; 4] {
        let [out_log, err_log] = self.logs();
        [self.stdout(), without_stamps(&self.path().join("stderr")), out_log, err_log]
    }
}

/// A file with `@` in place of each stamp.
pub fn without_stamps(path: &Path) -> String {
    let text = String::from_utf8(std::fs::read(path).unwrap()).expect("it is UTF-8 always");
    let mut rest = text.as_str();
    let mut replaced = String::new();
    let is_label = |text: &str| text.starts_with("[out]") || text.starts_with("[err]");
    while let Some(at) = rest.find('[') {
        let (before, from) = rest.split_at(at);
        replaced += before;
        let stamp = from.get(5..PREFIX_BYTES);
        let shape = stamp.map(|text| text.replace(|c: char| c.is_ascii_digit(), "0"));
        if is_label(from) && shape.as_deref() == Some("0000-00-00T00:00:00.000000 ") {
            replaced += &format!("{}@ ", &from[..5]);
            rest = &from[PREFIX_BYTES..];
        } else {
            replaced.push('[');
            rest = &from[1..];
        }
    }
    replaced + rest
}
