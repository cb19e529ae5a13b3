//! What a look at the drain marker came to, numbered, so that an older look never takes the place of a newer one.

use groundcrew_durable::drain_marker::read::{Absence, Active, Drain};
use groundcrew_protocol::drain::drain_of;
use groundcrew_protocol::ids::DrainId;

/// Who asks is named up to this many; a marker may hold more.
const NAMED_MAX: usize = 3;

/// What a look at the marker came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Later looks have higher numbers, within one process.
    pub number: u64,
    /// Whether the marker drains.
    pub drain: Drain,
}

impl Sight {
    /// The drain, where there is one.
    pub fn active(&self) -> Option<&Active> {
        match &self.drain {
            Drain::Active(active) => Some(active),
            Drain::Absent(_) => None,
        }
    }
}

/// Whether two looks saw the same, but for how old it was.
pub fn is_same(one: &Drain, other: &Drain) -> bool {
    match (one, other) {
        (Drain::Active(one), Drain::Active(other)) => {
            one.identity == other.identity && one.holders == other.holders
        }
        (Drain::Absent(one), Drain::Absent(other)) => why_absent(one) == why_absent(other),
        (Drain::Active(_), Drain::Absent(_)) | (Drain::Absent(_), Drain::Active(_)) => false,
    }
}

/// Why a drain holds, for people: who asks, and since when.
pub fn why_drained(active: &Active) -> String {
    let mut names: Vec<&str> = active.holders.iter().map(|holder| holder.principal.as_str()).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let at = active.requested_at.as_deref().map(|at| format!(", last at {at}")).unwrap_or_default();
    format!("asked for by {}{more}{at}", names.join(", "))
}

/// Why there is no drain, for people.
pub fn why_absent(absence: &Absence) -> String {
    match absence {
        Absence::NoMarker => "there is no marker".to_owned(),
        Absence::Unseen { why } => format!("nobody can tell whether there is a marker: {why}"),
        Absence::OtherEpoch { found } => format!("the marker is of another boot ({found})"),
        Absence::Lapsed { principal, .. } => {
            format!("the marker of {principal} lapsed: nobody renewed it")
        }
    }
}

/// The orchestrator's drains among those who ask.
pub fn orchestrators(active: &Active) -> Vec<DrainId> {
    active.holders.iter().filter_map(|holder| drain_of(holder.principal.as_str())).collect()
}
