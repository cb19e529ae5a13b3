//! What was found that is in somebody's way: who holds a lock, how a record is damaged. Plain words that errors
//! carry; they lie beneath everything, so that [`crate::Error`] needs neither locks nor records.

use std::fmt;

/// Who holds a lock, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This living process.
    Process {
        /// Its process id.
        pid: u32,
    },
    /// The process that signed the lock with this id cannot be seen: it lives in another container, or has
    /// just ended.
    Unseen {
        /// Its process id, where it lives.
        pid: u32,
    },
    /// A process that has not signed, or does not sign.
    Unsigned,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Unseen { pid } => write!(f, "process {pid}, which cannot be seen from here"),
            Self::Unsigned => write!(f, "a process that has not written its id"),
        }
    }
}

/// How a record is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// The length is above the limit.
    Length {
        /// The length found, in bytes.
        found: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// The checksum stored is not the one of what is stored.
    Checksum {
        /// The checksum in the file.
        found: u32,
        /// The checksum of the length and payload in the file.
        expected: u32,
    },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found, bytes_max } => {
                write!(f, "a record of {found} bytes where {bytes_max} is the limit")
            }
            Self::Checksum { found, expected } => {
                write!(f, "a record with the checksum {found:08x} where {expected:08x} was expected")
            }
        }
    }
}
