//! Settings of the stage PSU (`[stage.psu]`): how many power supplies there are to be, and what they take in.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::part::Field;

const KEYS: [&str; 5] = ["supplies", "redundant", "input_watts_min", "input_watts_max", "fans_min"];
/// More than any machine has.
const SUPPLIES_MAX: u32 = 64;
/// More than any machine has.
const FANS_MAX: u32 = 1024;
/// More than any supply takes.
const WATTS_MAX: f64 = 1e6;

/// Settings of the stage PSU.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PsuSettings {
    /// Supplies that must be there. Without a number those count that the machine itself tells of.
    pub supplies: Option<u32>,
    /// The machine must say that its supplies are redundant.
    pub redundant: bool,
    /// Watts under which the input power of a supply fails.
    pub input_watts_min: Option<f64>,
    /// Watts over which the input power of a supply fails.
    pub input_watts_max: Option<f64>,
    /// Fans that must turn. Without a number, one whose sensor reads nothing may be an empty place.
    pub fans_min: Option<u32>,
}

/// Reads `[stage.psu]`.
pub(super) fn psu(field: Field<'_>) -> Result<PsuSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let watts = |key: &str| part.optional(key, |field| field.number(0.0..=WATTS_MAX));
    Ok(PsuSettings {
        supplies: part.optional("supplies", |field| field.whole(1..=SUPPLIES_MAX))?,
        redundant: part.optional("redundant", |field| field.flag())?.unwrap_or_default(),
        input_watts_min: watts("input_watts_min")?,
        input_watts_max: watts("input_watts_max")?,
        fans_min: part.optional("fans_min", |field| field.whole(1..=FANS_MAX))?,
    })
}
