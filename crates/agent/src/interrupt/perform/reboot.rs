//! A reboot: asked for once, and proved by another boot id. [`proof::decide`] says what is to be done, from what lies on
//! the disk and which boot this is; here that is read, done and said.
//!
//! What came of the command itself is [`Came`]. Its exit status says little: 0 is a request that was taken, and may come to
//! nothing; a signal may be the reboot's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;

use super::{Job, Performing, Watched, unix_time};
use crate::errors;
use crate::interrupt::going_down::{self, Word};
use crate::interrupt::proof::{
    self, FoundRecord, OnDisk, Patience, Progress, Proof, Reboot, RebootRecord, ThisBoot,
};
use crate::interrupt::{boot_id, systemd_chroot};
use crate::package::flags;
use crate::package::rooted::Root;
use crate::package::session::{Ended, folder_of_root};
use crate::points;
use crate::process::tee;

/// What the name of a reboot's record has behind the flag's.
const RECORD_SUFFIX: &str = ".boot";
/// Greatest size of a flag or record that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The status of a command that a SIGTERM ended.
const TERMINATED: i32 = -15;

/// What came of the command that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It asked, or the machine goes down: a reboot may follow.
    Asked,
    /// Nobody knows whether it asked: the flag stays, and its grace decides.
    Unknown(NotKnown),
    /// It failed, or was never started.
    Failed,
}

/// Why nobody knows whether a command asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotKnown {
    /// It was ended together with the agent.
    CutOff,
    /// It was ended because it had run for too long.
    TooLate,
    /// It failed, and systemd gave no answer.
    Silent,
}

impl Came {
    /// From how the command ended, whether somebody asked the agent to end, and what systemd says of the machine, which is
    /// asked only where it counts: it may be absent, or hang.
    fn of(ended: &tee::Ended, agent_ends: bool, word: impl FnOnce() -> Word) -> Came {
        // -15 is no failure of a reboot, and of nothing else: what the reboot ends, it ends with SIGTERM, this command
        // among them. Taking the flag off then would ask again after the reboot, and again, without end. The other way
        // round the status proves nothing either, which is what the record is for. A signal of our own is not that one,
        // and how a command ends that we ask to end says no more: one that heeds it in its own way exits with what it likes.
        if ended.not_started.is_some() {
            return Came::Failed;
        }
        if matches!(ended.exit, 0 | TERMINATED) && !ended.ended_by_us {
            return Came::Asked;
        }
        match word() {
            Word::GoesDown => Came::Asked,
            Word::StaysUp | Word::NoSystemd | Word::Silent if ended.too_late => {
                Came::Unknown(NotKnown::TooLate)
            }
            // It was started, which is asking; SIGTERM to the agent after that is the reboot's, unless somebody knows better.
            Word::NoSystemd | Word::Silent if agent_ends && ended.ended_by_us => Came::Asked,
            Word::StaysUp | Word::NoSystemd | Word::Silent if agent_ends => Came::Unknown(NotKnown::CutOff),
            Word::Silent => Came::Unknown(NotKnown::Silent),
            Word::StaysUp | Word::NoSystemd => Came::Failed,
        }
    }
}

impl Performing<'_> {
    pub(super) fn reboot(&mut self, job: &Job) -> anyhow::Result<Ended> {
        let boot_id = match boot_id::read(Path::new(groundcrew_durable::epoch::PROC)) {
            Ok(id) => Some(id),
            Err(error) => {
                let why = errors::chain(&error);
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
                let when = match asked_s_ago < 0.0 {
                    true => {
                        "at a moment that this boot has yet to reach, as after a resumed snapshot".to_owned()
                    }
                    false => format!("{asked_s_ago:.0} s ago"),
                };
                self.session.warn(&format!(
                    "{}: asked for {when} ({asks} of {} times) and the machine never rebooted; its flag is taken off, \
                     and the next pass asks again",
                    job.name, patience.asks_max
                ));
                flags::remove(self.root, &job.flag)?;
                Ok(Ended::Failed)
            }
            Reboot::Exhausted { asks } => {
                let record = self.root.host_path(&record_of(job));
                self.session.warn(&format!(
                    "{}: asked for {asks} times and no reboot was proved; it is not asked again. See why `{}` does \
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
        // What was not asked for is left so. One that was asked for is another matter: its SIGTERM is the reboot's.
        if self.session.cancel.is_asked() {
            return Ok(Ended::Failed);
        }
        if let Some(why) = self.would_be_ignored()? {
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
            write_record(self.root, job, record)
                .context("writing the record of a reboot, which is not asked for")?;
        }
        flags::set(self.root, &job.flag, &flag)?;
        groundcrew_durable::fault::point(points::INTERRUPT_FLAGGED);
        let began = boottime_s();
        let ended = match self.run_request(job, record) {
            Ok(Some(ended)) => ended,
            not_run @ (Ok(None) | Err(_)) => {
                // An earlier process may have asked: what it left stands.
                if !flagged {
                    self.take_back(job, disk)
                        .context("taking back the flag of a reboot that was not asked for")?;
                }
                return not_run.map(|_| Ended::Failed);
            }
        };
        let agent_ends = self.session.cancel.is_asked();
        match Came::of(&ended, agent_ends, || going_down::word(self.session)) {
            Came::Asked => self.await_reboot(job, boottime_s() - began),
            Came::Unknown(why) => {
                let command = job.command.join(" ");
                let why = match why {
                    NotKnown::CutOff => format!(
                        "SIGTERM came while `{command}` ran, and nothing says that the machine is going down"
                    ),
                    NotKnown::TooLate => format!(
                        "`{command}` had not ended after {} s (GROUNDCREW_REBOOT_COMMAND_S), and was ended",
                        self.session.settings.reboot_command_max.as_secs_f64()
                    ),
                    NotKnown::Silent => format!(
                        "`{command}` failed with {}, and systemd does not say whether the machine is going down",
                        ended.exit
                    ),
                };
                self.session.warn(&format!(
                    "{}: {why}: whether a reboot was asked for is not known, and the flag stays",
                    job.name
                ));
                Ok(Ended::Failed)
            }
            Came::Failed => {
                self.say_failed(job, ended.exit);
                self.take_back(job, disk)?;
                Ok(Ended::Failed)
            }
        }
    }

    /// Why systemd would do nothing, where it would.
    fn would_be_ignored(&self) -> anyhow::Result<Option<String>> {
        let directory = self.directory()?.unwrap_or_else(|| PathBuf::from("/"));
        let (search_path, told) = (std::env::var_os("PATH"), std::env::var_os(systemd_chroot::IGNORE));
        let given = systemd_chroot::Given {
            search_path: search_path.as_deref(),
            directory: &directory,
            ignore_chroot: told.as_deref(),
        };
        let host = folder_of_root(&self.session.call.root_mount);
        Ok(systemd_chroot::would_ignore(self.root, host, given))
    }

    /// Runs the command, and notes once it runs that a reboot is asked for.
    fn run_request(&mut self, job: &Job, record: Option<RebootRecord>) -> anyhow::Result<Option<tee::Ended>> {
        let root = self.root;
        let note = |record: RebootRecord| {
            let asked_at = Timestamp::now().to_string();
            let asked = RebootRecord { state: Progress::Asked, asked_at, boottime_s: boottime_s(), ..record };
            write_record(root, job, &asked)
        };
        let mut noted = None;
        let mut started = || noted = record.clone().map(note);
        let watched = Watched {
            // Whoever has asked for a reboot and gets SIGTERM must not hold it up: the command gets no grace.
            term_grace: Some(Duration::ZERO),
            time_max: Some(self.session.settings.reboot_command_max),
            started: Some(&mut started),
        };
        let ended = self.execute(job, watched)?;
        let was_started = ended.as_ref().is_some_and(|ended| ended.not_started.is_none());
        if noted.is_none() && was_started {
            // Nobody waited for its start, because the agent was asked to end.
            noted = record.map(note);
        }
        if let Some(Err(error)) = noted {
            // What stands is that it was intended: under this boot it is asked for again, which reboots no second time.
            self.session
                .warn(&format!("{}: asked for, which could not be written down: {error:#}", job.name));
        }
        Ok(ended)
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

    /// A command that failed asked for nothing: the flag goes, and the count stays what it was. Also where the flag of an
    /// earlier process is taken off, which may have asked: a limit that starts again with each of those would be none.
    fn take_back(&self, job: &Job, disk: &OnDisk) -> anyhow::Result<()> {
        flags::remove(self.root, &job.flag)?;
        match &disk.record {
            FoundRecord::Read(before) => write_record(self.root, job, before)
                .context("writing the record of an earlier request back, after one that failed"),
            FoundRecord::Malformed(_) | FoundRecord::None => {
                flags::remove(self.root, &record_of(job)).map(drop).map_err(Into::into)
            }
        }
    }
}

fn write_record(root: &Root, job: &Job, record: &RebootRecord) -> anyhow::Result<()> {
    let text = serde_json::to_string(record).context("forming the record of a reboot")?;
    Ok(flags::set(root, &record_of(job), &text)?)
}

fn record_of(job: &Job) -> PathBuf {
    let mut path = job.flag.clone().into_os_string();
    path.push(RECORD_SUFFIX);
    path.into()
}

/// Seconds since the boot, suspended time included.
fn boottime_s() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_the_command_depends_on_who_ended_it_and_on_systemds_word() {
        let plain = |exit| tee::Ended {
            exit,
            not_started: None,
            ended_by_us: false,
            too_late: false,
            notes: Vec::new(),
        };
        let by_us = |exit| tee::Ended { ended_by_us: true, ..plain(exit) };
        let too_late = |exit| tee::Ended { too_late: true, ..by_us(exit) };
        let not_started = tee::Ended { not_started: Some("none".to_owned()), ..plain(1) };
        let (cut_off, late) = (Came::Unknown(NotKnown::CutOff), Came::Unknown(NotKnown::TooLate));
        let silent = Came::Unknown(NotKnown::Silent);
        let (asked, failed) = (Came::Asked, Came::Failed);
        // How it ended, whether the agent is to end, and what follows where systemd says that the machine stays up, where there
        // is none, and where it says nothing.
        for (what, ended, agent_ends, follows) in [
            ("it has asked", plain(0), false, [asked, asked, asked]),
            ("it has asked, and SIGTERM came", plain(0), true, [asked, asked, asked]),
            ("the reboot's SIGTERM", plain(-15), false, [asked, asked, asked]),
            ("the reboot's SIGTERM, to both", plain(-15), true, [asked, asked, asked]),
            ("our SIGTERM", by_us(-15), true, [cut_off, asked, asked]),
            ("our SIGTERM, heeded in its own way", by_us(3), true, [cut_off, asked, asked]),
            ("our SIGKILL", by_us(-9), true, [cut_off, asked, asked]),
            ("our SIGTERM, and ended well", by_us(0), true, [cut_off, asked, asked]),
            ("ended just before our SIGTERM", plain(3), true, [cut_off, cut_off, cut_off]),
            ("it hung", too_late(-15), false, [late, late, late]),
            ("it hung, and ended well when told", too_late(0), false, [late, late, late]),
            ("it hung, and SIGTERM came", too_late(-9), true, [late, late, late]),
            ("it failed", plain(1), false, [failed, failed, silent]),
            ("another signal", plain(-9), false, [failed, failed, silent]),
        ] {
            let words = [Word::StaysUp, Word::NoSystemd, Word::Silent];
            assert_eq!(words.map(|word| Came::of(&ended, agent_ends, || word)), follows, "{what}");
            assert_eq!(Came::of(&ended, agent_ends, || Word::GoesDown), Came::Asked, "{what}");
        }
        assert_eq!(Came::of(&not_started, true, || Word::GoesDown), Came::Failed);
    }
}
