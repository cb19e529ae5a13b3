//! Since when this boot knows a marker, for one that carries no time to trust, and whether it lapsed.
//!
//! An agent that is started again must not begin to count anew, or a marker without a time would outlive any number
//! of restarts; so the first sight is kept in the home, beside the marker. A marker that lapsed stays so, whatever the
//! wall clock does afterwards, until somebody writes it anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::read::{Absence, Against, Drain, Found, Identity, has_trusted_time, judge, look};
use crate::error::{Error, Result};
use crate::json::read_json;
use crate::whole::{Options, write_whole};

/// The file's name in the home.
pub const FILE_NAME: &str = "drain-seen.json";

/// Three short fields.
const BYTES_MAX: u64 = 4096;

/// Reads a home's marker again and again, and remembers of it what the marker does not say.
#[derive(Debug)]
pub struct Reader {
    home: PathBuf,
    boot_id: String,
    max_age: Duration,
    known: Option<Sighting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    identity: Identity,
    boot_id: String,
    first_seen_ms: u64,
    lapsed: bool,
}

/// What a look at the marker came to.
#[derive(Debug)]
pub struct Looked {
    /// Whether it drains.
    pub drain: Drain,
    /// This marker lapsed now: to be said, once.
    pub lapses_now: bool,
    /// What had to be kept in the home and could not be: the marker counts anew after a restart of the agent.
    pub unkept: Option<Error>,
}

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Unix time in milliseconds.
    pub wall_ms: i64,
    /// Milliseconds since this machine booted, with those in which it slept.
    pub boot_ms: u64,
}

impl Now {
    /// Asks the machine.
    pub fn read() -> Self {
        let millis = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
        };
        let boot_ms = u64::try_from(millis(ClockId::Boottime)).unwrap_or(0);
        Self { wall_ms: millis(ClockId::Realtime), boot_ms }
    }
}

impl Reader {
    /// A reader of the marker in `home`, in the boot `boot_id` (empty where that cannot be read).
    pub fn new(home: &Path, boot_id: &str, max_age: Duration) -> Self {
        let known = load(home);
        Self { home: home.to_owned(), boot_id: boot_id.to_owned(), max_age, known }
    }

    /// Looks and judges, and keeps what has to be kept.
    pub fn look(&mut self, epoch: &str, now: Now) -> Looked {
        let found = look(&self.home);
        let before = self.known.clone();
        let (drain, lapses_now) = self.weigh(&found, epoch, now);
        let unkept = match &self.known {
            Some(sighting) if self.known != before => store(&self.home, sighting).err(),
            Some(_) | None => None,
        };
        Looked { drain, lapses_now, unkept }
    }

    /// Judges without keeping anything: for whoever is not the agent.
    pub fn peek(&mut self, epoch: &str, now: Now) -> Drain {
        let found = look(&self.home);
        self.judge(&found, epoch, now)
    }

    /// Judges what was found, without keeping anything.
    pub(super) fn judge(&mut self, found: &Found, epoch: &str, now: Now) -> Drain {
        self.weigh(found, epoch, now).0
    }

    fn weigh(&mut self, found: &Found, epoch: &str, now: Now) -> (Drain, bool) {
        let Found::Marker(marker) = found else {
            return (self.judged(found, epoch, now, Duration::ZERO), false);
        };
        let mut sighting = self.known.clone().filter(|known| {
            known.identity == marker.identity && (known.lapsed || known.boot_id == self.boot_id)
        });
        let known_for = sighting.as_ref().map_or(0, |known| now.boot_ms.saturating_sub(known.first_seen_ms));
        let mut drain = self.judged(found, epoch, now, Duration::from_millis(known_for));
        let was_lapsed = sighting.as_ref().is_some_and(|known| known.lapsed);
        if let (Drain::Active(active), true) = (&drain, was_lapsed) {
            let (age, principal) = (active.age, active.principal.clone());
            drain = Drain::Absent(Absence::Lapsed { age, principal });
        }
        let lapses = matches!(drain, Drain::Absent(Absence::Lapsed { .. }));
        // Only what the marker itself does not say is kept, so that an ordinary drain writes nothing besides.
        let ages_by_sight = matches!(drain, Drain::Active(_)) && !has_trusted_time(marker, now.wall_ms);
        if sighting.is_none() && (lapses || ages_by_sight) {
            let (identity, boot_id) = (marker.identity.clone(), self.boot_id.clone());
            sighting = Some(Sighting { identity, boot_id, first_seen_ms: now.boot_ms, lapsed: false });
        }
        if let Some(mut sighting) = sighting {
            sighting.lapsed |= lapses;
            self.known = Some(sighting);
        }
        (drain, lapses && !was_lapsed)
    }

    fn judged(&self, found: &Found, epoch: &str, now: Now, known_for: Duration) -> Drain {
        judge(found, &Against { epoch, wall_ms: now.wall_ms, known_for, max_age: self.max_age })
    }
}

fn store(home: &Path, sighting: &Sighting) -> Result<()> {
    let fields = json!({
        "marker": sighting.identity.as_str(),
        "boot_id": sighting.boot_id,
        "first_seen_boot_ms": sighting.first_seen_ms,
        "lapsed": sighting.lapsed,
    });
    write_whole(&home.join(FILE_NAME), fields.to_string().as_bytes(), &Options::default())
}

/// What was kept. Where that cannot be read nothing was: the marker is then seen for the first time.
fn load(home: &Path) -> Option<Sighting> {
    let fields = read_json(&home.join(FILE_NAME), BYTES_MAX).ok()??;
    Some(Sighting {
        identity: Identity::from_text(fields.get("marker")?.as_str()?),
        boot_id: fields.get("boot_id")?.as_str()?.to_owned(),
        first_seen_ms: fields.get("first_seen_boot_ms")?.as_u64()?,
        lapsed: fields.get("lapsed")?.as_bool()?,
    })
}

#[cfg(test)]
mod tests;
