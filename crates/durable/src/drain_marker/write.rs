//! Writing the marker: begin, renew and cancel, each whole and under the marker's lock.
//!
//! Whoever writes the file as the contract has it, without the lock, replaces the holders too; whoever removes it by
//! hand frees all of them.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::{Value, json};

use super::read::{Active, Drain, Found, Holder, look};
use super::sighting::{Now, Reader};
use super::{HOLDERS_MAX, Principal, path_in};
use crate::error::{Error, Result};
use crate::fault;
use crate::folder::Place;
use crate::json::{Fields, lock_beside};
use crate::points;
use crate::whole::{self, write_in};

/// How long to wait for the lock: a home counts as stalled after this.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The marker says nothing secret, and whoever asks may be another user than the agent.
const MODE: u32 = 0o644;

/// When and in which boot something is asked for.
#[derive(Debug, Clone, Copy)]
pub struct When<'a> {
    /// The epoch of the *agent*, which may have another process 1 than whoever asks.
    pub epoch: &'a str,
    /// This boot's id, by which the agent keeps since when it knows a marker; empty where that cannot be read.
    pub boot_id: &'a str,
    /// What time it is.
    pub now: Now,
    /// The greatest age: a holder that is older is let go.
    pub max_age: Duration,
}

/// Whom a call is about.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'a> {
    /// Everybody who holds the marker.
    All,
    /// One of them.
    One(&'a Principal),
}

/// What became of a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// No drain was asked for; a marker that no longer counted is gone too.
    NothingThere,
    /// Others hold the marker, this one does not: nothing was changed.
    NotAHolder(Vec<Principal>),
    /// This one asks no more, these do.
    StillHeld(Vec<Principal>),
    /// The last holder went, and the marker with it.
    Gone,
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq)]
pub enum Renewed {
    /// It counts from now on again, for this one.
    Fresh(Principal),
    /// There is nothing to renew: taken off, of another boot, lapsed, or no longer held by this one.
    Lapsed(Drain),
}

/// Asks for a drain: makes the marker, or joins the holders of the one that stands, and returns what was written.
/// Repeating it renews it. A marker that no longer counts is replaced, and so is a malformed one, whose writer stays a
/// holder by the contract's default name.
///
/// # Errors
/// [`Error::LockWait`], [`Error::NotAFile`], [`Error::Io`], and [`Error::TooManyHolders`].
pub fn begin(home: &Path, principal: &Principal, quiet: bool, when: &When<'_>) -> Result<Fields> {
    let place = Place::of(&path_in(home))?;
    let _lock = lock_beside(&place, LOCK_WAIT)?;
    fault::point(points::MARKER_LOCKED);
    let (mut body, mut holders) = match judge_here(home, when) {
        (found, Drain::Active(active)) => (body_of(found), holders_then(*active, when)),
        (_, Drain::Absent(_)) => (Fields::new(), Vec::new()),
    };
    holders.retain(|holder| holder.principal != *principal);
    if holders.len() >= HOLDERS_MAX {
        return Err(Error::TooManyHolders { path: place.path, holders_max: HOLDERS_MAX });
    }
    holders.push(Holder {
        principal: principal.clone(),
        requested_at: Some(time_text(when.now.wall_ms)),
        suppress_notification: quiet,
    });
    fill(&mut body, principal, &holders, when);
    body.insert("requested_at".to_owned(), time_text(when.now.wall_ms).into());
    store(&place, &body)?;
    Ok(body)
}

/// Renews what `principal` asks for, where that still counts; never makes a marker. Without a name it is renewed for one
/// alone, so that nobody keeps up what a third one, who is no more, has asked for: for the default name where that holds
/// it, else for whoever wrote the marker last.
///
/// # Errors
/// As [`begin`].
pub fn renew(home: &Path, principal: Option<&Principal>, when: &When<'_>) -> Result<Renewed> {
    let place = Place::of(&path_in(home))?;
    let _lock = lock_beside(&place, LOCK_WAIT)?;
    fault::point(points::MARKER_LOCKED);
    let (found, active) = match judge_here(home, when) {
        (found, Drain::Active(active)) => (found, *active),
        (_, absent @ Drain::Absent(_)) => return Ok(Renewed::Lapsed(absent)),
    };
    let mut holders = holders_then(active.clone(), when);
    let now = time_text(when.now.wall_ms);
    let at = match principal {
        Some(principal) => position(&holders, principal),
        None => position(&holders, &Principal::default())
            .or_else(|| position(&holders, &active.principal))
            .or_else(|| (0..holders.len()).max_by_key(|at| asked_ms(&holders[*at]))),
    };
    let Some(holder) = at.map(|at| &mut holders[at]) else {
        return Ok(Renewed::Lapsed(Drain::Active(Box::new(active))));
    };
    holder.requested_at = Some(now.clone());
    let renewed = holder.principal.clone();
    let mut body = body_of(found);
    fill(&mut body, &active.principal, &holders, when);
    body.insert("requested_at".to_owned(), now.into());
    store(&place, &body)?;
    Ok(Renewed::Fresh(renewed))
}

/// Takes off what `whom` asks for; the marker goes with the last holder. Repeating it changes nothing.
///
/// # Errors
/// As [`begin`].
pub fn cancel(home: &Path, whom: Whom<'_>, when: &When<'_>) -> Result<Cancelled> {
    let place = match Place::of(&path_in(home)) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Cancelled::NothingThere);
        }
        other => other?,
    };
    let _lock = lock_beside(&place, LOCK_WAIT)?;
    fault::point(points::MARKER_LOCKED);
    let (found, active) = match judge_here(home, when) {
        (Found::Nothing, _) => return Ok(Cancelled::NothingThere),
        (found, Drain::Active(active)) => (found, *active),
        // One that no longer counts is nobody's.
        (_, Drain::Absent(_)) => return whole::remove(&place.path).map(|_| Cancelled::NothingThere),
    };
    let (gone, stay): (Vec<Holder>, Vec<Holder>) =
        active.holders.into_iter().partition(|holder| matches_holder(whom, &holder.principal));
    if gone.is_empty() {
        return Ok(Cancelled::NotAHolder(names(stay)));
    }
    let Some(latest) = stay.iter().max_by_key(|holder| asked_ms(holder)).cloned() else {
        return whole::remove(&place.path).map(|_| Cancelled::Gone);
    };
    let mut body = body_of(found);
    fill(&mut body, &latest.principal, &stay, when);
    // Who stays has asked when it asked: taking another off renews nothing.
    if let Some(at) = latest.requested_at {
        body.insert("requested_at".to_owned(), at.into());
    }
    store(&place, &body)?;
    Ok(Cancelled::StillHeld(names(stay)))
}

fn judge_here(home: &Path, when: &When<'_>) -> (Found, Drain) {
    let found = look(home);
    fault::point(points::MARKER_READ);
    // As the agent does: one that carries no time, and one that lapsed, are what its memory of them says.
    let drain = Reader::new(home, when.boot_id, when.max_age).judge(&found, when.epoch, when.now);
    (found, drain)
}

fn asked_ms(holder: &Holder) -> i64 {
    let at: Option<Timestamp> = holder.requested_at.as_deref().and_then(|text| text.parse().ok());
    at.map_or(i64::MIN, Timestamp::as_millisecond)
}

/// What others wrote besides stays, as in every file that several write.
fn body_of(found: Found) -> Fields {
    match found {
        Found::Marker(marker) => marker.body,
        Found::Nothing | Found::Unseen { .. } => Fields::new(),
    }
}

/// The holders of a marker that is about to be written. One that names no time asks for as long as the marker has stood:
/// that somebody else writes it does not renew it.
fn holders_then(active: Active, when: &When<'_>) -> Vec<Holder> {
    let age_ms = i64::try_from(active.age.as_millis()).unwrap_or(i64::MAX);
    let since = time_text(when.now.wall_ms.saturating_sub(age_ms));
    let dated = |mut holder: Holder| {
        holder.requested_at.get_or_insert_with(|| since.clone());
        holder
    };
    active.holders.into_iter().map(dated).collect()
}

fn position(holders: &[Holder], principal: &Principal) -> Option<usize> {
    holders.iter().position(|holder| holder.principal == *principal)
}

fn matches_holder(whom: Whom<'_>, principal: &Principal) -> bool {
    match whom {
        Whom::All => true,
        Whom::One(one) => one == principal,
    }
}

fn names(holders: Vec<Holder>) -> Vec<Principal> {
    holders.into_iter().map(|holder| holder.principal).collect()
}

/// Fills in all but the time, in the contract's order where the marker is new. Quiet is only what every holder wants
/// quiet.
fn fill(body: &mut Fields, principal: &Principal, holders: &[Holder], when: &When<'_>) {
    let quiet = holders.iter().all(|holder| holder.suppress_notification);
    let entry = |holder: &Holder| {
        let at = holder.requested_at.clone();
        let value = json!({"requested_at": at, "suppress_notification": holder.suppress_notification});
        (holder.principal.as_str().to_owned(), value)
    };
    let known = [
        ("action", Value::from("drain")),
        ("requested_at", body.get("requested_at").cloned().unwrap_or_default()),
        ("principal", principal.as_str().into()),
        ("epoch", when.epoch.into()),
        ("suppress_notification", quiet.into()),
        ("holders", Value::Object(holders.iter().map(entry).collect())),
    ];
    for (name, value) in known {
        body.insert(name.to_owned(), value);
    }
}

/// As the contract's writer has it: `2026-07-01T12:02:05.123+00:00`.
fn time_text(wall_ms: i64) -> String {
    let at = Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    at.display_with_offset(Offset::UTC).to_string()
}

fn store(place: &Place, body: &Fields) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(body).expect("a map of JSON values is always JSON");
    bytes.push(b'\n');
    write_in(place, &bytes, &whole::Options { mode_for_new: MODE })?;
    fault::point(points::MARKER_WRITTEN);
    Ok(())
}

#[cfg(test)]
mod tests;
