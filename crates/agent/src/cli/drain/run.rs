//! Holds a drain over a command: begin, wait, run, cancel, whatever happens on the way.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

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

/// How often a command is looked after that the system does not tell the end of.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// `groundcrew drain run -- COMMAND`.
pub(super) fn run(asked: &Asked) -> anyhow::Result<Ended> {
    let cancel = termination::on(libc::SIGTERM).context("handling SIGTERM")?;
    termination::on(libc::SIGINT).context("handling SIGINT")?;
    let own = || format!("drain-run:{}", std::process::id()).parse().expect("a word and a number are a name");
    let principal: Principal = asked.principal.clone().unwrap_or_else(own);
    let rules = Rules::of(asked);
    write::begin(&asked.home, &principal, asked.quiet, &rules.now())?;
    let ended = held(asked, &principal, &rules, &cancel);
    // Whatever came of it, and what came of it stands. One that cannot be taken off lapses, because nobody renews it.
    if let Err(error) = write::cancel(&asked.home, Whom::One(&principal), &rules.now()) {
        let why = crate::errors::chain(&error);
        console::complain(format_args!("groundcrew drain: taking the drain off: {why}; it lapses by itself"));
    }
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
    let follows = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let status = attend(&mut child, follows.ok().as_ref(), &mut renewal, cancel)?;
    Ok(Ended::As(code_of(status)))
}

/// Waits for the end of the command, whatever fails meanwhile: it must not go on undrained. The drain is renewed, and who asks
/// this process to end asks the command. Without `follows` the command is looked after each second.
///
/// # Errors
/// Where the system knows no such child any more.
fn attend(
    child: &mut Child,
    follows: Option<&OwnedFd>,
    renewal: &mut Renewal<'_>,
    cancel: &Cancel,
) -> anyhow::Result<ExitStatus> {
    let (mut told, mut said) = (false, false);
    loop {
        if let Some(status) = child.try_wait().context("waiting for the command")? {
            return Ok(status);
        }
        if cancel.is_asked() && !told {
            told = true;
            // It may run as somebody else.
            if let Err(errno) = kill_process(Pid::from_child(child), Signal::TERM) {
                console::complain(format_args!(
                    "groundcrew drain: telling the command to end: {errno}; it goes on"
                ));
            }
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
        pause(follows, (!told).then_some(cancel), renewal.period());
    }
}

/// Waits for the end of the command, for whoever asks this process to end, or for the time.
fn pause(follows: Option<&OwnedFd>, cancel: Option<&Cancel>, span: Duration) {
    let span = if follows.is_some() { span } else { span.min(LOOK_AGAIN) };
    let limit = Timespec::try_from(span).expect("some minutes fit");
    let ends = follows.map(|end| PollFd::new(end, PollFlags::IN));
    // Once told, it would be readable for ever.
    let asks = cancel.map(|cancel| PollFd::new(cancel, PollFlags::IN));
    let mut waits: Vec<PollFd<'_>> = ends.into_iter().chain(asks).collect();
    match poll(&mut waits, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(_) => std::thread::sleep(LOOK_AGAIN.min(span)),
    }
}

/// The status of a command as a shell gives it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_whose_end_nobody_tells_is_waited_for_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let max_age = Duration::from_secs(3600);
        let rules = Rules { epoch: "b:1".into(), boot_id: "b".into(), max_age };
        let who: Principal = "ann".parse().unwrap();
        write::begin(home.path(), &who, false, &rules.now()).unwrap();
        let cancel = Cancel::new().unwrap();
        let mut renewal = Renewal::new(home.path(), Some(&who), rules);
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        assert_eq!(code_of(attend(&mut child, None, &mut renewal, &cancel).unwrap()), 7);
    }
}
