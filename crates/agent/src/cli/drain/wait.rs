//! Waits until nothing is active, and keeps the drain alive meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use groundcrew_durable::drain_marker::Principal;
use groundcrew_durable::drain_marker::read::{Active, Drain};
use groundcrew_durable::drain_marker::write::{self, Renewed};
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
    /// Whose drain the last renewal was of, where nobody was named.
    kept: Option<Principal>,
    rules: Rules,
    last: Option<Instant>,
}

impl<'a> Renewal<'a> {
    /// Of one principal's drain; without a name, of the one that a plain `begin` asks for, else of the newest.
    pub fn new(home: &'a Path, whom: Option<&'a Principal>, rules: Rules) -> Renewal<'a> {
        Renewal { home, whom, kept: None, rules, last: None }
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
        self.last = Some(Instant::now());
        let when = self.rules.now();
        let mut renewed = write::renew(self.home, self.whom.or(self.kept.as_ref()), &when)?;
        if let (Renewed::Lapsed(Drain::Active(_)), None) = (&renewed, self.whom) {
            // That one asks no more, somebody else does: it is still a drain that is waited for.
            renewed = write::renew(self.home, None, &when)?;
        }
        Ok(match renewed {
            Renewed::Fresh(principal) => {
                self.kept = Some(principal);
                None
            }
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
    use groundcrew_durable::drain_marker::read::Found;
    use groundcrew_durable::drain_marker::read::look;

    use super::*;

    #[test]
    fn without_a_name_one_drain_is_kept_up_and_the_next_where_that_is_taken_off() {
        let home = tempfile::tempdir().unwrap();
        let rules = Rules { epoch: "b:1".into(), boot_id: "b".into(), max_age: Duration::from_secs(3600) };
        let who = |name: &str| name.parse::<Principal>().unwrap();
        let begin = |name: &str| drop(write::begin(home.path(), &who(name), false, &rules.now()).unwrap());
        begin("dead");
        begin("ann");
        let mut renewal = Renewal::new(home.path(), None, rules.clone());
        let mut keep = || {
            renewal.last = None;
            let over = renewal.keep().unwrap();
            (renewal.kept.as_ref().map(ToString::to_string), over)
        };
        assert_eq!(keep(), (Some("ann".to_owned()), None));
        begin("bob");
        assert_eq!(keep(), (Some("ann".to_owned()), None), "whoever comes later is not taken for the asker");
        write::cancel(home.path(), write::Whom::One(&who("ann")), &rules.now()).unwrap();
        assert_eq!(keep(), (Some("bob".to_owned()), None));
        write::cancel(home.path(), write::Whom::All, &rules.now()).unwrap();
        assert!(keep().1.is_some() && look(home.path()) == Found::Nothing);
    }

    #[test]
    fn what_is_waited_for_is_said_at_once_and_every_thirty_seconds() {
        let cases = [(None, true), (Some(0), false), (Some(29_999), false), (Some(30_000), true)];
        for (ago_ms, expected) in cases {
            assert_eq!(is_to_be_said(ago_ms.map(Duration::from_millis)), expected, "{ago_ms:?}");
        }
    }
}
