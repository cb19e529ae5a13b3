//! Reading the marker: what stands there ([`look`]), and whether it drains ([`judge`]), which is pure.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use serde_json::Value;

use super::{BYTES_MAX, FILE_NAME, Principal, path_in};
use crate::error::{Error, Result};
use crate::folder::{Place, require_file, stat_of};
use crate::json::Fields;

/// A time before 2020, when none of this existed, is that of a clock that nobody has set: such a marker ages from
/// when it was first seen.
const TRUSTED_FROM_MS: i64 = 1_577_836_800_000;

/// How far a writer's clock may be ahead of ours before its time is believed no more. Both are mostly one machine's.
const AHEAD_MS_MAX: i64 = 60_000;

/// What stands at the marker's place.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Nobody can tell, because the home itself cannot be looked into.
    Unseen {
        /// What the system said.
        why: String,
    },
    /// A marker, whatever it is.
    Marker(Marker),
}

/// A marker as found.
#[derive(Debug, Clone, PartialEq)]
pub struct Marker {
    /// Its fields; none where it is malformed.
    pub body: Fields,
    /// Why it counts as one without fields.
    pub defect: Option<String>,
    /// Which marker it is.
    pub identity: Identity,
}

/// Tells one writing of the marker from the next, also where both say the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(String);

impl Identity {
    /// As text, which is opaque.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn of(stat: &Stat, bytes: &[u8]) -> Self {
        // The types of these fields differ between machines.
        #[allow(clippy::useless_conversion)]
        let (seconds, nanos) = (i64::from(stat.st_mtime), stat.st_mtime_nsec);
        Self(format!("{}.{seconds}.{nanos}.{:08x}", stat.st_ino, crc32fast::hash(bytes)))
    }
}

/// Looks at the marker in `home`. Never fails and never waits for a fifo or follows a link: a marker that is no
/// readable regular file, or holds no JSON object in UTF-8, is one without fields.
pub fn look(home: &Path) -> Found {
    let path = path_in(home);
    let place = match Place::of(&path) {
        Ok(place) => place,
        Err(error) => return nothing_or_unseen(&error),
    };
    let stat = match place.stat(&place.name) {
        Ok(Some(stat)) => stat,
        Ok(None) => return Found::Nothing,
        Err(error) => return nothing_or_unseen(&error),
    };
    match content(&place) {
        // Taken away between the two calls.
        Ok(None) => Found::Nothing,
        Ok(Some((stat, bytes))) => {
            let identity = Identity::of(&stat, &bytes);
            match parse(&bytes) {
                Ok(body) => Found::Marker(Marker { body, defect: None, identity }),
                Err(defect) => Found::Marker(Marker { body: Fields::new(), defect: Some(defect), identity }),
            }
        }
        Err(error) => {
            let identity = Identity::of(&stat, &[]);
            Found::Marker(Marker { body: Fields::new(), defect: Some(chain(&error)), identity })
        }
    }
}

fn nothing_or_unseen(error: &Error) -> Found {
    match error {
        Error::Io { source, .. }
            if [Errno::NOENT, Errno::NOTDIR]
                .map(|e| Some(e.raw_os_error()))
                .contains(&source.raw_os_error()) =>
        {
            Found::Nothing
        }
        error => Found::Unseen { why: chain(error) },
    }
}

fn chain(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The bytes, with the identity of the very file that they were read from.
fn content(place: &Place) -> Result<Option<(Stat, Vec<u8>)>> {
    let Some(file) = place.open_file(&place.name, OFlags::RDONLY, Mode::empty())? else { return Ok(None) };
    let stat = stat_of(&file, &place.path)?;
    require_file(&place.path, &stat)?;
    let mut bytes = Vec::new();
    let mut limited = File::from(file).take(BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(Error::io("reading", &place.path))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Error::TooLarge { path: place.path.clone(), bytes_max: BYTES_MAX });
    }
    Ok(Some((stat, bytes)))
}

/// The fields, or why there are none.
pub(super) fn parse(bytes: &[u8]) -> std::result::Result<Fields, String> {
    let text = str::from_utf8(bytes).map_err(|_| format!("{FILE_NAME}: found bytes that are no UTF-8"))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(format!("{FILE_NAME}: found JSON that is no object")),
        Err(error) => Err(format!("{FILE_NAME}: found no JSON object ({error})")),
    }
}

/// What a marker is judged against. Pure: whoever calls says what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The agent's boot epoch, empty where it cannot be read.
    pub epoch: &'a str,
    /// Unix time in milliseconds.
    pub wall_ms: i64,
    /// For how long this boot has known this very marker: the age of one without a time to trust.
    pub known_for: Duration,
    /// The greatest age.
    pub max_age: Duration,
}

/// Whether a marker drains.
#[derive(Debug, Clone, PartialEq)]
pub enum Drain {
    /// It does not.
    Absent(Absence),
    /// It does.
    Active(Box<Active>),
}

/// Why there is no drain.
#[derive(Debug, Clone, PartialEq)]
pub enum Absence {
    /// There is no marker.
    NoMarker,
    /// Nobody can tell whether there is one.
    Unseen {
        /// Why.
        why: String,
    },
    /// The marker is of another boot: the restart that it was for is over.
    OtherEpoch {
        /// What it says, as JSON where it is no text.
        found: String,
    },
    /// The marker was not renewed within the greatest age: whoever wrote it is no more.
    Lapsed {
        /// Its age.
        age: Duration,
        /// Who wrote it.
        principal: Principal,
    },
}

/// How the marker's epoch stands to the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochMatch {
    /// It is the same.
    Same,
    /// The marker has none, which counts as the same.
    MarkerHasNone,
    /// The agent's own cannot be read, and nothing can be said against the marker.
    OwnUnknown,
}

impl EpochMatch {
    /// One word for status and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::MarkerHasNone => "marker_has_none",
            Self::OwnUnknown => "own_unknown",
        }
    }
}

/// A drain that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    /// Which marker asks.
    pub identity: Identity,
    /// Who wrote it last.
    pub principal: Principal,
    /// Everybody who asks; the principal alone where the marker names nobody.
    pub holders: Vec<Holder>,
    /// When it was last asked for, as written; absent where there is no time to trust.
    pub requested_at: Option<String>,
    /// How old it is.
    pub age: Duration,
    /// After which age it lapses.
    pub max_age: Duration,
    /// How its epoch stands to the agent's.
    pub epoch: EpochMatch,
    /// Whether the fleet-wide notice of a shutdown is left out: only where the marker says so explicitly.
    pub suppress_notification: bool,
    /// Why the marker counts as one without fields.
    pub defect: Option<String>,
}

/// One who asks for a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub principal: Principal,
    /// Since when, or renewed when: RFC 3339, absent where the marker does not say.
    pub requested_at: Option<String>,
    /// Whether this one asks for a quiet shutdown.
    pub suppress_notification: bool,
}

/// Whether what was found drains.
pub fn judge(found: &Found, against: &Against<'_>) -> Drain {
    let marker = match found {
        Found::Nothing => return Drain::Absent(Absence::NoMarker),
        Found::Unseen { why } => return Drain::Absent(Absence::Unseen { why: why.clone() }),
        Found::Marker(marker) => marker,
    };
    let epoch = match epoch_of(&marker.body, against.epoch) {
        Ok(epoch) => epoch,
        Err(found) => return Drain::Absent(Absence::OtherEpoch { found }),
    };
    let principal = Principal::of_marker(marker.body.get("principal").and_then(Value::as_str));
    let trusted = trusted_time(marker.body.get("requested_at"), against.wall_ms);
    let age = trusted.map_or(against.known_for, |at_ms| age_of(at_ms, against.wall_ms));
    if age > against.max_age {
        return Drain::Absent(Absence::Lapsed { age, principal });
    }
    let requested_at = trusted.and_then(|_| text_of(&marker.body, "requested_at"));
    let suppress_notification = marker.body.get("suppress_notification") == Some(&Value::Bool(true));
    Drain::Active(Box::new(Active {
        identity: marker.identity.clone(),
        holders: holders_of(&marker.body, &principal, against),
        principal,
        requested_at,
        age,
        max_age: against.max_age,
        epoch,
        suppress_notification,
        defect: marker.defect.clone(),
    }))
}

/// True where the marker carries a time that says how old it is; one without ages from when it was first seen.
pub fn has_trusted_time(marker: &Marker, wall_ms: i64) -> bool {
    trusted_time(marker.body.get("requested_at"), wall_ms).is_some()
}

/// How the epochs stand, or the other boot's. The contract's rule: what counts as false in its language (null, an empty
/// text, zero, false, an empty list or object) is no epoch; everything else that is not this boot's is another's.
fn epoch_of(body: &Fields, own: &str) -> std::result::Result<EpochMatch, String> {
    if own.is_empty() {
        return Ok(EpochMatch::OwnUnknown);
    }
    let Some(value) = body.get("epoch") else { return Ok(EpochMatch::MarkerHasNone) };
    let is_none = match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    match value {
        _ if is_none => Ok(EpochMatch::MarkerHasNone),
        Value::String(text) if text == own => Ok(EpochMatch::Same),
        Value::String(text) => Err(text.chars().take(120).collect()),
        other => Err(other.to_string().chars().take(120).collect()),
    }
}

/// The time that a field names, in Unix milliseconds, where it can be trusted: with its zone, from after the time of
/// clocks that nobody set, and not ahead of ours.
fn trusted_time(value: Option<&Value>, wall_ms: i64) -> Option<i64> {
    let at: Timestamp = value?.as_str()?.parse().ok()?;
    let at_ms = at.as_millisecond();
    (at_ms >= TRUSTED_FROM_MS && at_ms <= wall_ms.saturating_add(AHEAD_MS_MAX)).then_some(at_ms)
}

fn age_of(at_ms: i64, wall_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(wall_ms.saturating_sub(at_ms)).unwrap_or(0))
}

fn text_of(fields: &Fields, name: &str) -> Option<String> {
    fields.get(name)?.as_str().map(str::to_owned)
}

/// Who asks. A holder whose own time has lapsed asks no more, though another keeps the marker alive.
fn holders_of(body: &Fields, principal: &Principal, against: &Against<'_>) -> Vec<Holder> {
    let written = body.get("holders").and_then(Value::as_object);
    let holder = |(name, value): (&String, &Value)| {
        let at = trusted_time(value.get("requested_at"), against.wall_ms);
        let lapsed = at.is_some_and(|at_ms| age_of(at_ms, against.wall_ms) > against.max_age);
        (!lapsed).then(|| Holder {
            principal: Principal::of_marker(Some(name)),
            requested_at: at.and_then(|_| value.get("requested_at")?.as_str().map(str::to_owned)),
            suppress_notification: value.get("suppress_notification") == Some(&Value::Bool(true)),
        })
    };
    let holders: Vec<Holder> = written.into_iter().flatten().filter_map(holder).collect();
    if !holders.is_empty() {
        return holders;
    }
    vec![Holder {
        principal: principal.clone(),
        requested_at: trusted_time(body.get("requested_at"), against.wall_ms)
            .and_then(|_| text_of(body, "requested_at")),
        suppress_notification: body.get("suppress_notification") == Some(&Value::Bool(true)),
    }]
}

#[cfg(test)]
mod tests;
