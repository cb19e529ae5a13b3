//! Moments and lengths of time as they travel and are stored.

use serde::{Deserialize, Serialize};

/// A moment on some machine's wall clock: milliseconds since 1970-01-01T00:00:00Z.
///
/// Wall time is for people. No deadline is computed from one (rule 10 of the design).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct WallMs(pub i64);

impl WallMs {
    /// This moment and `span_ms` milliseconds.
    pub fn plus(self, span_ms: u64) -> WallMs {
        WallMs(self.0.saturating_add(i64::try_from(span_ms).unwrap_or(i64::MAX)))
    }
}

impl std::fmt::Display for WallMs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Parses a length of time as profiles and flags write it: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// A sentence that names what was found and what was expected.
pub fn parse_span_ms(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            return Err(format!(
                "found \"{text}\", expected a whole number and ms, s, m, h or d, as in \"90s\""
            ));
        }
    };
    let count: u64 = number
        .parse()
        .map_err(|_| format!("found \"{text}\", expected a whole number before \"{unit}\", as in \"90s\""))?;
    count
        .checked_mul(factor)
        .ok_or_else(|| format!("found \"{text}\", expected a length of time under 2^64 ms"))
}

/// Writes a length of time the way [`parse_span_ms`] reads it, in the largest unit that is exact.
pub fn format_span_ms(span_ms: u64) -> String {
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if span_ms >= factor && span_ms.is_multiple_of(factor) {
            return format!("{}{unit}", span_ms / factor);
        }
    }
    format!("{span_ms}ms")
}

/// Serde for a length of time as text (`"90s"`), for fields that hold milliseconds.
pub mod span {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes milliseconds as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span_ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_span_ms(*span_ms))
    }

    /// Reads text into milliseconds.
    ///
    /// # Errors
    /// Where the text is no length of time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_span_ms(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, ms) in [("0ms", 0), ("250ms", 250), ("90s", 90_000), ("15m", 900_000), ("24h", 86_400_000)]
        {
            assert_eq!(parse_span_ms(text), Ok(ms));
            assert_eq!(parse_span_ms(&format_span_ms(ms)), Ok(ms));
        }
        for bad in
            ["", "5", "s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse_span_ms(bad).is_err(), "{bad} was accepted");
        }
    }
}
