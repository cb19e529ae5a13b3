//! Waits until nothing is active, and keeps the drain alive meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use groundcrew_durable::drain_marker::Principal;
use groundcrew_durable::drain_marker::read::{Active, Drain};
use groundcrew_durable::drain_marker::write::{self, Renewed, Whom};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::agent::{self, Rules};
use super::{Asked, Ended, say};
use crate::control::sight::why_absent;
use crate::process::Cancel;

/// Time between two questions.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Time between two lines that say what is waited for.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// A marker is renewed at least this often, and four times within its greatest age.
const RENEW: Duration = Duration::from_secs(300);

/// Keeps a drain alive.
pub(super) struct Renewal<'a> {
    home: &'a Path,
    whom: Option<&'a Principal>,
    rules: Rules,
    last: Option<Instant>,
}

impl<'a> Renewal<'a> {
    /// Of one principal's drain, or of everybody's.
    pub fn new(home: &'a Path, whom: Option<&'a Principal>, rules: Rules) -> Renewal<'a> {
        Renewal { home, whom, rules, last: None }
    }

    /// How often it is due.
    pub fn period(&self) -> Duration {
        RENEW.min(self.rules.max_age / 4)
    }

    /// Renews where it is time. `Some`: there is no drain to renew, and why.
    pub fn keep(&mut self) -> anyhow::Result<Option<String>> {
        if self.last.is_some_and(|last| last.elapsed() < self.period()) {
            return Ok(None);
        }
        let whom = self.whom.map_or(Whom::All, Whom::One);
        self.last = Some(Instant::now());
        Ok(match write::renew(self.home, whom, &self.rules.now())? {
            Renewed::Fresh => None,
            Renewed::Lapsed(Drain::Absent(absence)) => {
                Some(format!("the drain is over: {}", why_absent(&absence)))
            }
            Renewed::Lapsed(Drain::Active(active)) => Some(not_ours(&active)),
        })
    }
}

fn not_ours(active: &Active) -> String {
    let names: Vec<&str> = active.holders.iter().map(|holder| holder.principal.as_str()).collect();
    format!("the drain was asked for by {} alone", names.join(", "))
}

/// `groundcrew drain wait`.
pub(super) fn wait(asked: &Asked) -> anyhow::Result<Ended> {
    let mut renewal = Renewal::new(&asked.home, asked.principal.as_ref(), Rules::of(asked));
    let ended = until_idle(asked, &mut renewal, None)?;
    if let Ended::Done = ended {
        say("nothing is active")?;
    }
    Ok(ended)
}

/// Waits until the agent drains and nothing is active. Somebody who asks `cancel` ends it with status 130.
pub(super) fn until_idle(
    asked: &Asked,
    renewal: &mut Renewal<'_>,
    cancel: Option<&Cancel>,
) -> anyhow::Result<Ended> {
    let began = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        if let Some(why) = renewal.keep()? {
            return Ok(Ended::NotDraining(why));
        }
        let waits_for = match agent::status(&asked.home) {
            Ok(status) if status.is_idle() => return Ok(Ended::Done),
            Ok(status) if status.drain.is_fresh && !status.drain.draining => {
                return Ok(Ended::NotDraining(format!("the agent does not drain: {}", status.drain.why)));
            }
            Ok(status) if status.waits_for.is_empty() => {
                format!("the agent, which is {}", status.gateway_state)
            }
            Ok(status) => status.waits_for,
            // One that is being started again comes back and drains on.
            Err(why) => format!("the agent ({why})"),
        };
        if asked.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            return Ok(Ended::Timeout(waits_for));
        }
        if is_to_be_said(said.map(|said| said.elapsed())) {
            said = Some(Instant::now());
            say(format_args!("waits for {waits_for}"))?;
        }
        let left = asked.timeout.map_or(ASK_AGAIN, |timeout| timeout.saturating_sub(began.elapsed()));
        if pause(ASK_AGAIN.min(left).min(renewal.period()), cancel)? {
            return Ok(Ended::As(130));
        }
    }
}

/// Whether it is time to say what is waited for, where that was said so long ago.
fn is_to_be_said(said: Option<Duration>) -> bool {
    said.is_none_or(|ago| ago >= SAY_AGAIN)
}

/// Waits; true where somebody asked to end.
fn pause(span: Duration, cancel: Option<&Cancel>) -> anyhow::Result<bool> {
    let Some(cancel) = cancel else {
        std::thread::sleep(span);
        return Ok(false);
    };
    match poll(&mut [PollFd::new(cancel, PollFlags::IN)], Some(&Timespec::try_from(span)?)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(cancel.is_asked()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_at_once_and_every_thirty_seconds() {
        let cases = [(None, true), (Some(0), false), (Some(29_999), false), (Some(30_000), true)];
        for (ago_ms, expected) in cases {
            assert_eq!(is_to_be_said(ago_ms.map(Duration::from_millis)), expected, "{ago_ms:?}");
        }
    }
}
