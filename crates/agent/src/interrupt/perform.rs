//! Performs an interrupt: each of its commands once for a resource id, by flags, and a reboot by proof.
//!
//! A flag is written before its command runs and taken off where the command fails: an agent that is killed in between
//! does not run it twice, and one that failed does not look done. A reboot has a record beside its flag, from which
//! [`proof::decide`] says whether it came.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use jiff::Timestamp;
use rustix::fs::FileType;

use super::proof::{self, FoundRecord, OnDisk, Patience, Progress, Proof, Reboot, RebootRecord, ThisBoot};
use super::{Interrupt, boot_id, going_down, systemd_chroot};
use crate::package::flags;
use crate::package::logs::Logs;
use crate::package::pyrepr;
use crate::package::rooted::{Link, Root};
use crate::package::session::{Ended, Session};
use crate::package::step::{clean_logs, handles, open_logs};
use crate::process::ControlData;
use crate::process::tee::{self, Command};

/// What a flag's name ends in.
const FLAG_SUFFIX: &str = ".complete";
/// What the name of a reboot's record has behind the flag's.
const RECORD_SUFFIX: &str = ".boot";
/// Greatest size of a flag or record that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The status of a command that a SIGTERM ended.
const TERMINATED: i32 = -15;

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
            if self.session.cancel.is_asked() {
                return Ok(Ended::Failed);
            }
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
        flags::set(self.root, &job.flag, &unix_time())?;
        let ended = match self.execute(job, None) {
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

    fn reboot(&mut self, job: &Job) -> anyhow::Result<Ended> {
        let boot_id = match boot_id::read(Path::new(groundcrew_durable::epoch::PROC)) {
            Ok(id) => Some(id),
            Err(error) => {
                let why = crate::errors::chain(&error);
                self.session.warn(&format!("{why}: a reboot cannot be proved, the flag alone counts"));
                None
            }
        };
        let disk = self.on_disk(job)?;
        let mut now = ThisBoot { boot_id, boottime_s: boottime_s(), stopping: false };
        let settings = &self.session.settings;
        let patience = Patience { grace: settings.reboot_grace, asks_max: settings.reboot_limit };
        let mut decided = proof::decide(&disk, &now, patience);
        // systemd is asked only where its word counts: it may be absent, or hang.
        if matches!(decided, Reboot::Lapsed { .. }) && going_down::is(self.session) {
            now.stopping = true;
            decided = proof::decide(&disk, &now, patience);
        }
        match decided {
            Reboot::Ask { asks, flagged } => self.ask(job, &disk, &now, asks, flagged),
            Reboot::Done(proof) => {
                self.say_skipped(job);
                if let Proof::FlagWithUselessRecord(what) = proof {
                    let record = self.root.host_path(&record_of(job));
                    self.session.warn(&format!("{}: {what}; the flag alone counts", record.display()));
                }
                Ok(Ended::Done)
            }
            Reboot::Pending { asked_s_ago } => {
                self.say_skipped(job);
                self.session.warn(&format!(
                    "{}: asked for {asked_s_ago:.0} s ago under this boot; the machine has not rebooted yet",
                    job.name
                ));
                self.await_reboot(job, asked_s_ago)
            }
            Reboot::Lapsed { asked_s_ago, asks } => {
                self.session.warn(&format!(
                    "{}: asked for {asked_s_ago:.0} s ago ({asks} of {} times) and the machine never rebooted; its flag \
                     is taken off, and the next pass asks again",
                    job.name, patience.asks_max
                ));
                flags::remove(self.root, &job.flag)?;
                Ok(Ended::Failed)
            }
            Reboot::Exhausted { asks } => {
                let record = self.root.host_path(&record_of(job));
                self.session.warn(&format!(
                    "{}: asked for {asks} times and the machine never rebooted; it is not asked again. See why `{}` does \
                     nothing there, then remove {} to begin anew",
                    job.name,
                    job.command.join(" "),
                    record.display()
                ));
                Ok(Ended::Failed)
            }
        }
    }

    /// Asks for a reboot. The record is durable before the flag, and both before the command.
    fn ask(
        &mut self,
        job: &Job,
        disk: &OnDisk,
        now: &ThisBoot,
        asks: u32,
        flagged: bool,
    ) -> anyhow::Result<Ended> {
        if let Some(why) = systemd_chroot::would_ignore(self.root, &self.session.call.root_mount) {
            self.session.warn(&format!("{}: not asked for: {why}", job.name));
            if flagged {
                flags::remove(self.root, &job.flag)?;
            }
            return Ok(Ended::Failed);
        }
        let flag = match (&disk.flag, flagged) {
            (Some(flag), true) => flag.clone(),
            _ => unix_time(),
        };
        let record = now.boot_id.as_ref().map(|boot_id| RebootRecord {
            boot_id: boot_id.clone(),
            asked_at: Timestamp::now().to_string(),
            asks,
            state: Progress::Intended,
            flag: flag.clone(),
            boottime_s: now.boottime_s,
        });
        if let Some(record) = &record {
            self.write_record(job, record)?;
        }
        flags::set(self.root, &job.flag, &flag)?;
        // Whoever has asked for a reboot and gets SIGTERM must not hold it up: the command gets no grace.
        let Some(ended) = self.execute(job, Some(Duration::ZERO))? else {
            // An earlier process may have asked: what it left stands.
            if !flagged {
                flags::remove(self.root, &job.flag)?;
                self.forget_ask(job, disk)?;
            }
            return Ok(Ended::Failed);
        };
        // -15 is no failure of a reboot, and of nothing else: what the reboot ends, it ends with SIGTERM, this command
        // among them. Taking the flag off then would ask again after the reboot, and again, without end. The other way
        // round the status proves nothing either, which is what the record is for. How a command ends that is asked to
        // end together with the agent says no more: one that heeds the signal in its own way exits with what it likes.
        let exit = ended.exit;
        let asked_to_end = ended.not_started.is_none() && self.session.cancel.is_asked();
        // An earlier process that was killed may have asked as well: a second request may then be refused by a machine
        // that is about to do what the first one said.
        let mut asked_before = || flagged && going_down::is(self.session);
        if exit != 0 && exit != TERMINATED && !asked_to_end && !asked_before() {
            self.say_failed(job, exit);
            flags::remove(self.root, &job.flag)?;
            self.forget_ask(job, disk)?;
            return Ok(Ended::Failed);
        }
        if let Some(record) = record {
            let record = RebootRecord {
                state: Progress::Asked,
                asked_at: Timestamp::now().to_string(),
                boottime_s: boottime_s(),
                ..record
            };
            self.write_record(job, &record)?;
        }
        self.await_reboot(job, 0.0)
    }

    /// Stays for the SIGTERM of a reboot that was asked for. An exit status of 0 is what an operator takes for done.
    fn await_reboot(&mut self, job: &Job, asked_s_ago: f64) -> anyhow::Result<Ended> {
        let wait = self.session.settings.reboot_wait;
        let began = boottime_s();
        if wait.is_zero() || self.session.wait(wait) {
            return Ok(Ended::Done);
        }
        let seconds = asked_s_ago + boottime_s() - began;
        self.session.warn(&format!("{}: asked for {seconds:.0} s ago, not seen yet", job.name));
        Ok(Ended::Failed)
    }

    /// `None` where SIGTERM came first and nothing was started.
    fn execute(&mut self, job: &Job, term_grace: Option<Duration>) -> anyhow::Result<Option<tee::Ended>> {
        let files = open_logs(self.session, &mut self.logs, &format!("interrupts/{}", job.name));
        let found = self.root.metadata(&self.copy_dir, Link::Follow)?;
        let directory = if found.is_some_and(|found| found.kind == FileType::Directory) {
            self.copy_dir.clone()
        } else {
            self.session.warn(&format!(
                "{} is no folder in the root mount: {} runs in /",
                self.copy_dir.display(),
                job.name
            ));
            PathBuf::from("/")
        };
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
        let command =
            Command { program, write_command: true, stdout_log, stderr_log, term_grace, record: &mut record };
        if self.session.cancel.is_asked() {
            return Ok(None);
        }
        let ended = self.session.tee.run(command);
        self.session.tell(&ended.notes);
        clean_logs(self.session, &mut self.logs, files, &job.name);
        Ok(Some(ended))
    }

    fn say_skipped(&mut self, job: &Job) {
        let id = self.session.id.text().to_owned();
        self.session.say(&format!("Skipping interrupt {} because it was already run for {id}", job.name));
    }

    fn say_failed(&mut self, job: &Job, exit: i32) {
        self.session.say(&format!("INTERRUPT FAILED: {} return_code: {exit}", pyrepr::texts(&job.command)));
    }

    fn on_disk(&self, job: &Job) -> anyhow::Result<OnDisk> {
        let flag = self.root.read(&job.flag, FILE_BYTES_MAX)?;
        let flag = flag.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let record = match self.root.read(&record_of(job), FILE_BYTES_MAX)? {
            None => FoundRecord::None,
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => FoundRecord::Read(record),
                Err(error) => FoundRecord::Malformed(format!("it is no record of a reboot ({error})")),
            },
        };
        Ok(OnDisk { flag, record })
    }

    fn write_record(&self, job: &Job, record: &RebootRecord) -> anyhow::Result<()> {
        let text = serde_json::to_string(record).context("forming the record of a reboot")?;
        flags::set(self.root, &record_of(job), &text)
            .context("writing the record of a reboot, which was not asked for")
    }

    /// A command that failed asked for nothing: the count stays what it was. Also where the flag of an earlier process is
    /// taken off, which may have asked: a limit that starts again with each of those would be none.
    fn forget_ask(&self, job: &Job, disk: &OnDisk) -> anyhow::Result<()> {
        match &disk.record {
            FoundRecord::Read(before) => self.write_record(job, before),
            FoundRecord::Malformed(_) | FoundRecord::None => {
                flags::remove(self.root, &record_of(job)).map(drop).map_err(Into::into)
            }
        }
    }
}

fn record_of(job: &Job) -> PathBuf {
    let mut path = job.flag.clone().into_os_string();
    path.push(RECORD_SUFFIX);
    path.into()
}

/// Now as Python's `str(time.time())` has it.
fn unix_time() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:?}", since.as_secs_f64())
}

/// Seconds since the boot, suspended time included.
fn boottime_s() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
