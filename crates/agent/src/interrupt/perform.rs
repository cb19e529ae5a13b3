//! Performs an interrupt: each of its commands once for a resource id, by flags, and a reboot by proof.
//!
//! A flag is written before its command runs and taken off where the command fails: an agent that is killed in between
//! does not run it twice, and one that failed does not look done. A reboot ([`reboot`]) has a record beside its flag.

mod reboot;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::FileType;

use super::Interrupt;
use crate::package::flags;
use crate::package::logs::Logs;
use crate::package::pyrepr;
use crate::package::rooted::{Link, Root};
use crate::package::session::{Ended, Session};
use crate::package::step::{clean_logs, handles, open_logs};
use crate::points;
use crate::process::ControlData;
use crate::process::tee::{self, Command};

/// What a flag's name ends in.
const FLAG_SUFFIX: &str = ".complete";

/// Runs the interrupt that the call names.
///
/// # Errors
/// What stops it before or between commands and is no failure of one: an interrupt that cannot be read, a disk that
/// cannot be written to.
pub(crate) fn run(session: &mut Session, root: &Root) -> anyhow::Result<Ended> {
    let Some(text) = session.call.interrupt.clone() else {
        bail!("interrupt: found no data, expected base64 of a JSON object as a last argument");
    };
    let interrupt = Interrupt::inflate(&text)?;
    let copy_dir = session.copy_dir()?;
    let places = session.places(session.id.package(), session.id.version())?;
    let folder = places.interrupt_flags(session.id.text())?;
    // All that can be refused has been: from here on something is written.
    if let Some(resolv) = session.read_resolv(root)? {
        resolv.copy(root)?;
    }
    root.create_folders(&folder)?;
    let other = format!("interrupt of {}", session.id.text());
    let Some(_turn) = session.take_turn(&other, || Ok(root.try_lock(&folder)?))? else {
        return Ok(Ended::Failed);
    };
    root.sweep(&folder)?;
    if interrupt == Interrupt::NoOp {
        let flag = folder.join(format!("{}{FLAG_SUFFIX}", interrupt.kind()));
        flags::set(root, &flag, &unix_time())?;
        return Ok(Ended::Done);
    }
    let logs = Logs::new(root, places.logs());
    Performing { session, root, copy_dir, folder, logs, kind: interrupt.kind() }.run(&interrupt)
}

/// An interrupt with commands.
struct Performing<'a> {
    session: &'a mut Session,
    root: &'a Root,
    copy_dir: PathBuf,
    folder: PathBuf,
    logs: Logs<'a>,
    kind: &'static str,
}

/// How a command is watched while it runs.
#[derive(Default)]
struct Watched<'a> {
    /// How long it may go on after SIGTERM, where that is another time than a step's.
    term_grace: Option<Duration>,
    /// How long it may run.
    time_max: Option<Duration>,
    /// Told once it runs.
    started: Option<&'a mut dyn FnMut()>,
}

/// One command of it.
struct Job {
    /// `node_restart_0`
    name: String,
    command: Vec<String>,
    flag: PathBuf,
}

impl Performing<'_> {
    fn run(mut self, interrupt: &Interrupt) -> anyhow::Result<Ended> {
        for (index, command) in interrupt.commands().into_iter().enumerate() {
            let name = format!("{}_{index}", self.kind);
            let flag = self.folder.join(format!("{name}{FLAG_SUFFIX}"));
            let job = Job { name, command, flag };
            let ended = match interrupt {
                Interrupt::NodeRestart => self.reboot(&job)?,
                Interrupt::NoOp
                | Interrupt::ServiceRestart { .. }
                | Interrupt::RestartAllServices
                | Interrupt::ScriptInterrupt => self.once(&job)?,
            };
            if ended == Ended::Failed {
                return Ok(Ended::Failed);
            }
        }
        Ok(Ended::Done)
    }

    /// A command that is done when it has ended well.
    fn once(&mut self, job: &Job) -> anyhow::Result<Ended> {
        if self.root.exists(&job.flag)? {
            self.say_skipped(job);
            return Ok(Ended::Done);
        }
        // Only what is left undone makes a failure of SIGTERM.
        if self.session.cancel.is_asked() {
            return Ok(Ended::Failed);
        }
        flags::set(self.root, &job.flag, &unix_time())?;
        groundcrew_durable::fault::point(points::INTERRUPT_FLAGGED);
        let ended = match self.execute(job, Watched::default()) {
            Ok(ended) => ended,
            Err(error) => {
                // It was not run: left behind, the flag would say for ever that it was.
                flags::remove(self.root, &job.flag)
                    .context("taking back the flag of a command that was not run")?;
                return Err(error);
            }
        };
        match ended {
            Some(ended) if ended.exit == 0 => return Ok(Ended::Done),
            Some(ended) => self.say_failed(job, ended.exit),
            None => {}
        }
        // Left behind it would say for ever that this was done.
        flags::remove(self.root, &job.flag)?;
        Ok(Ended::Failed)
    }

    /// `None` where SIGTERM came first and nothing was started.
    fn execute(&mut self, job: &Job, watched: Watched<'_>) -> anyhow::Result<Option<tee::Ended>> {
        let files = open_logs(self.session, &mut self.logs, &format!("interrupts/{}", job.name));
        let directory = self.directory()?.unwrap_or_else(|| {
            self.session.warn(&format!(
                "{} is no folder in the root mount: {} runs in /",
                self.copy_dir.display(),
                job.name
            ));
            PathBuf::from("/")
        });
        let program = ControlData {
            argv: job.command.iter().map(Into::into).collect(),
            environment: std::env::vars_os().collect(),
            root: self.session.entered_root(),
            directory,
            no_chmod: true,
        };
        let [stdout_log, stderr_log] = handles(self.root, files.as_ref());
        // Nobody looks for a command that outlived its agent: a reboot ends it, and a service's restart may be repeated.
        let mut record = |_pid| Ok(());
        let Watched { term_grace, time_max, started } = watched;
        let command = Command {
            program,
            write_command: true,
            stdout_log,
            stderr_log,
            term_grace,
            record: &mut record,
            started: started.map(|started| -> &mut dyn FnMut() { started }),
            time_max,
        };
        if self.session.cancel.is_asked() {
            return Ok(None);
        }
        let ended = self.session.tee.run(command);
        self.session.tell(&ended.notes);
        clean_logs(self.session, &mut self.logs, files, &job.name);
        Ok(Some(ended))
    }

    /// Where commands run; `None` where there is no such folder, so that they run in `/`.
    fn directory(&self) -> anyhow::Result<Option<PathBuf>> {
        let found = self.root.metadata(&self.copy_dir, Link::Follow)?;
        let is_folder = found.is_some_and(|found| found.kind == FileType::Directory);
        Ok(is_folder.then(|| self.copy_dir.clone()))
    }

    fn say_skipped(&mut self, job: &Job) {
        let id = self.session.id.text().to_owned();
        self.session.say(&format!("Skipping interrupt {} because it was already run for {id}", job.name));
    }

    fn say_failed(&mut self, job: &Job, exit: i32) {
        self.session.say(&format!("INTERRUPT FAILED: {} return_code: {exit}", pyrepr::texts(&job.command)));
    }
}

/// Now as Python's `str(time.time())` has it.
fn unix_time() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:?}", since.as_secs_f64())
}
