//! Small conversions between what is stored and what it means.

use super::StoreError;

/// SQLite's integers are signed. No counter of ours comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back; a negative number was never stored.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The way back for small counters.
pub(super) fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Parses a name or hash that was stored.
pub(super) fn parse<T>(what: &str, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| StoreError::Unreadable { what: what.into(), why: error.to_string() })
}

/// Reads a stored JSON document.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Unreadable { what: what.into(), why: error.to_string() })
}

/// Writes a JSON document.
pub(super) fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Unreadable { what: what.into(), why: error.to_string() })
}

/// Rows of one part of a list: callers cannot ask for endless ones.
pub(super) fn limit(asked: u32, most: u32) -> i64 {
    i64::from(asked.clamp(1, most))
}
