//! Holds a drain over a command: begin, wait, run, cancel, whatever happens on the way.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use anyhow::Context;
use groundcrew_durable::drain_marker::Principal;
use groundcrew_durable::drain_marker::write::{self, Whom};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::agent::Rules;
use super::wait::{Renewal, until_idle};
use super::{Asked, Ended, begin};
use crate::console;
use crate::process::{Cancel, termination};

/// `groundcrew drain run -- COMMAND`.
pub(super) fn run(asked: &Asked) -> anyhow::Result<Ended> {
    let cancel = termination::on(libc::SIGTERM).context("handling SIGTERM")?;
    termination::on(libc::SIGINT).context("handling SIGINT")?;
    let own = || format!("drain-run:{}", std::process::id()).parse().expect("a word and a number are a name");
    let principal: Principal = asked.principal.clone().unwrap_or_else(own);
    let rules = Rules::of(asked);
    write::begin(&asked.home, &principal, asked.quiet, &rules.now())?;
    let ended = held(asked, &principal, &rules, &cancel);
    // Whatever came of it. One that cannot be taken off lapses, because nobody renews it.
    write::cancel(&asked.home, Whom::One(&principal), &rules.now()).context("taking the drain off")?;
    ended
}

fn held(asked: &Asked, principal: &Principal, rules: &Rules, cancel: &Cancel) -> anyhow::Result<Ended> {
    match begin::confirmed(&asked.home, principal) {
        Ended::Done => {}
        other => return Ok(other),
    }
    let mut renewal = Renewal::new(&asked.home, Some(principal), rules.clone());
    match until_idle(asked, &mut renewal, Some(cancel))? {
        Ended::Done => {}
        other => return Ok(other),
    }
    let (program, arguments) = asked.command.split_first().context("there is no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("starting {}", program.to_string_lossy()))?;
    let status = attend(&mut child, &mut renewal, cancel)?;
    Ok(Ended::As(code_of(status)))
}

/// Waits for the end of the command. Meanwhile the drain is renewed, and who asks this process to end asks the command.
fn attend(child: &mut Child, renewal: &mut Renewal<'_>, cancel: &Cancel) -> anyhow::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("following the command")?;
    let (mut told, mut said) = (false, false);
    loop {
        if let Some(status) = child.try_wait().context("waiting for the command")? {
            return Ok(status);
        }
        if cancel.is_asked() && !told {
            told = true;
            kill_process(pid, Signal::TERM).context("ending the command")?;
        }
        match renewal.keep() {
            Ok(None) => {}
            // The command runs already: that it is drained no more is said, and does not end it.
            Ok(Some(why)) if !said => {
                said = true;
                console::complain(format_args!("groundcrew drain: {why}; the command goes on"));
            }
            Err(error) if !said => {
                said = true;
                console::complain(format_args!(
                    "groundcrew drain: renewing the drain: {error:#}; the command goes on"
                ));
            }
            Ok(Some(_)) | Err(_) => {}
        }
        let limit = Timespec::try_from(renewal.period())?;
        let (ends, asks) = (PollFd::new(&end, PollFlags::IN), PollFd::new(cancel, PollFlags::IN));
        // Once told, it would be readable for ever.
        let waited =
            if told { poll(&mut [ends], Some(&limit)) } else { poll(&mut [ends, asks], Some(&limit)) };
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("waiting for the command"),
        }
    }
}

/// The status of a command as a shell gives it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
