//! A text that says nothing is none: an empty serial is one that is not known, wherever it was left empty.

use serde::{Deserialize, Deserializer};

/// Reads an optional text; one of blanks alone is none.
pub(crate) fn is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.trim().is_empty()))
}
