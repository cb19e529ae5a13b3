//! Names and numbers that identify things, each parsed at the border and trusted afterwards.

use serde::{Deserialize, Serialize};

/// A value was not of its type's form: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: found {found:?}, expected {expected}")]
pub struct BadId {
    /// Which kind of value.
    pub what: &'static str,
    /// What was found, cut to 80 characters.
    pub found: String,
    /// The form that was expected.
    pub expected: &'static str,
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $what:literal, $expected:literal, $valid:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    let found = text.chars().take(80).collect();
                    Err(BadId { what: $what, found, expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_name(text: &str, length_max: usize, extra: &[u8]) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= length_max
        && bytes.iter().all(|b| edge(*b) || extra.contains(b))
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
}

fn is_part_of_resource_id(text: &str, more: &[u8]) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

text_id!(
    /// Identifies a run. It holds no underscore, because package resource ids join their parts with one.
    RunId, "run id", "1 to 40 of a-z, 0-9 and '-', with a letter or digit at both ends", |t| is_name(t, 40, b"-")
);
text_id!(
    /// The name of a node, as a host name has it.
    NodeName, "node name", "1 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends",
    |t| is_name(t, 63, b"-.")
);
text_id!(
    /// The name of a profile.
    ProfileName, "profile name", "1 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends",
    |t| is_name(t, 63, b"-.")
);
text_id!(
    /// The name of a sink: a place that the orchestrator's settings name for notices.
    SinkName, "sink name", "1 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends",
    |t| is_name(t, 63, b"-.")
);
text_id!(
    /// The name of a public key that an operator has registered for holds.
    HoldKeyName, "name of a hold key", "1 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends",
    |t| is_name(t, 63, b"-.")
);
text_id!(
    /// Identifies a drain that an operator has asked the orchestrator for.
    DrainId, "drain id", "1 to 40 of a-z, 0-9 and '-', with a letter or digit at both ends", |t| is_name(t, 40, b"-")
);
text_id!(
    /// The name of a package. It holds no underscore, because resource ids join their parts with one.
    PackageName, "package name", "1 to 128 of a-z, A-Z, 0-9, '-' and '.', with no '.' at its start",
    |t| is_part_of_resource_id(t, b"-.")
);
text_id!(
    /// The version of a package.
    PackageVersion, "package version", "1 to 128 of a-z, A-Z, 0-9, '-', '+' and '.', with no '.' at its start",
    |t| is_part_of_resource_id(t, b"-.+")
);
text_id!(
    /// A random id of 128 bits: of an agent's home (`instance`), of one agent process (`session`), of a spool (`stream`).
    RandomId, "id", "32 lower-case hexadecimal digits", |t| is_lower_hex(t, 32)
);
text_id!(
    /// A SHA-256 in lower-case hexadecimal.
    Sha256Hex, "SHA-256", "64 lower-case hexadecimal digits", |t| is_lower_hex(t, 64)
);
text_id!(
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`), a UUID in lower case.
    BootId, "boot id", "a UUID in lower case, as in /proc/sys/kernel/random/boot_id",
    |t| t.len() == 36
        && t.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
);
text_id!(
    /// A hardware (MAC) address of 6 bytes, in lower case with colons.
    MacAddress, "MAC address", "six pairs of lower-case hexadecimal digits with ':' between",
    |t| t.len() == 17
        && t.bytes().enumerate().all(|(i, b)| if i % 3 == 2 { b == b':' } else { b.is_ascii_digit() || (b'a'..=b'f').contains(&b) })
);
text_id!(
    /// A bearer token in its clear form: `gc` and its kind, an underscore, 64 hexadecimal digits.
    /// `gcb_` is a boot token, `gcr_` a run token, `gco_` an operator's. Its `Debug` is never written to a log.
    TokenText, "token", "gcb_, gcr_ or gco_ and 64 lower-case hexadecimal digits",
    |t| t.len() == 68 && ["gcb_", "gcr_", "gco_"].iter().any(|kind| t.strip_prefix(kind).is_some_and(|rest| is_lower_hex(rest, 64)))
);

impl Sha256Hex {
    /// The SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Sha256Hex {
        use sha2::Digest;
        Sha256Hex::from_digest(&sha2::Sha256::digest(bytes))
    }

    /// Writes 32 bytes of digest as text.
    pub fn from_digest(digest: &[u8]) -> Sha256Hex {
        Sha256Hex(hex(digest).into())
    }
}

/// Takes bytes in as they come, and says the SHA-256 of them all.
#[derive(Debug, Clone, Default)]
pub struct Sha256Sum(sha2::Sha256);

impl Sha256Sum {
    /// Takes more bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        use sha2::Digest;
        self.0.update(bytes);
    }

    /// The sum of all of them.
    pub fn of_all(self) -> Sha256Hex {
        use sha2::Digest;
        Sha256Hex::from_digest(&self.0.finalize())
    }
}

impl RandomId {
    /// Writes 16 random bytes as text.
    pub fn from_bytes(bytes: [u8; 16]) -> RandomId {
        RandomId(hex(&bytes).into())
    }
}

impl TokenText {
    /// A run token made of 32 random bytes.
    pub fn run(bytes: [u8; 32]) -> TokenText {
        TokenText(format!("gcr_{}", hex(&bytes)).into())
    }

    /// A boot token made of 32 random bytes.
    pub fn boot(bytes: [u8; 32]) -> TokenText {
        TokenText(format!("gcb_{}", hex(&bytes)).into())
    }

    /// An operator's token made of 32 random bytes.
    pub fn operator(bytes: [u8; 32]) -> TokenText {
        TokenText(format!("gco_{}", hex(&bytes)).into())
    }

    /// What is stored and compared instead of the token.
    pub fn sha256(&self) -> Sha256Hex {
        Sha256Hex::of(self.0.as_bytes())
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Number of a claim of a run: 1 for the first, each later one higher. 0 means "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct ClaimNumber(pub u64);

/// Number of a try of a stage, counted by the orchestrator from 1. 0 means "not started yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Attempt(pub u32);

/// Number of a directive within its run, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct DirectiveId(pub u64);

/// Which life of the store an answer comes from: 1 at first, one higher after each restore of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Generation(pub u64);

macro_rules! number_display {
    ($($name:ident),+) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}
number_display!(ClaimNumber, Attempt, DirectiveId, Generation);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_leave_their_place() {
        for bad in ["", "a_b", "../x", "A", "-a", "a-", "a/b", "a\n", "ä", &"a".repeat(41)] {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?} was accepted");
        }
        assert!("r-7f3k9q2m".parse::<RunId>().is_ok());
        assert!("rack1.node-7".parse::<NodeName>().is_ok());
    }

    #[test]
    fn a_sum_is_the_same_in_parts() {
        let mut sum = Sha256Sum::default();
        [&b"ab"[..], b"", b"c"].into_iter().for_each(|part| sum.add(part));
        assert_eq!(sum.of_all(), Sha256Hex::of(b"abc"));
    }

    #[test]
    fn names_of_packages_stay_in_one_folder_and_one_part_of_a_resource_id() {
        for bad in ["", ".", "..", ".a", "a/b", "a_b", "a b", "ä", &"a".repeat(129)] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
            assert!(bad.parse::<PackageVersion>().is_err(), "{bad:?}");
        }
        assert!("1.0.0+b-1".parse::<PackageVersion>().is_ok() && "1+b".parse::<PackageName>().is_err());
    }

    #[test]
    fn an_error_names_what_was_found_and_expected() {
        let error = "a_b".parse::<RunId>().unwrap_err().to_string();
        assert!(error.contains("a_b") && error.contains("run id") && error.contains("expected"), "{error}");
    }

    #[test]
    fn a_token_of_multibyte_characters_is_refused_not_cut() {
        let text = format!("gc{}", "é".repeat(33));
        assert_eq!(text.len(), 68);
        assert!(text.parse::<TokenText>().is_err());
        assert!(TokenText::run([7; 32]).as_str().parse::<TokenText>().is_ok());
    }
}
