//! Who asks for a drain.

use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes: that of a user, a service or `orchestrator:` with an id.
const BYTES_MAX: usize = 256;

/// Who asks for a drain: 1 to 256 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(String);

/// A name that nobody who asks may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, expected 1 to {BYTES_MAX} bytes without control characters")]
pub struct BadPrincipal {
    /// The beginning of what was found.
    pub found: String,
}

impl Principal {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a marker by others says, made fit to be shown; the contract's default where it says nothing.
    pub(super) fn of_marker(found: Option<&str>) -> Self {
        let mut name = String::new();
        for shown in found.unwrap_or_default().chars().filter(|c| !c.is_control()) {
            if name.len() + shown.len_utf8() > BYTES_MAX {
                break;
            }
            name.push(shown);
        }
        if name.is_empty() { Self::default() } else { Self(name) }
    }
}

impl Default for Principal {
    /// What the drain contract calls whoever gives no name.
    fn default() -> Self {
        Self("drain-control".to_owned())
    }
}

impl FromStr for Principal {
    type Err = BadPrincipal;

    fn from_str(text: &str) -> Result<Self, BadPrincipal> {
        if (1..=BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadPrincipal { found: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_parsed_strictly_from_callers_and_leniently_from_markers() {
        let long = "x".repeat(257);
        for (text, is_name) in [
            ("a", true),
            ("orchestrator:7", true),
            ("é ü", true),
            ("", false),
            ("a\nb", false),
            (&long, false),
        ] {
            assert_eq!(text.parse::<Principal>().is_ok(), is_name, "{text:?}");
        }
        assert_eq!(Principal::of_marker(None), Principal::default());
        assert_eq!(Principal::of_marker(Some("\n\0")).as_str(), "drain-control");
        assert_eq!(Principal::of_marker(Some("a\u{7}b")).as_str(), "ab");
        assert_eq!(Principal::of_marker(Some(&"é".repeat(200))).as_str().len(), 256);
    }
}
