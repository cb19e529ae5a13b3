//! How much room the disk has.

use std::sync::Arc;

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Asks for the room on a disk; tests hand in their own.
pub type DiskProbe = Arc<dyn Fn() -> std::io::Result<DiskSpace> + Send + Sync>;

/// What the room on the disk allows (rule 6 of the design).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    /// Enough room.
    Roomy(DiskSpace),
    /// Little room: logs are answered with 507, new runs are refused, results are still taken.
    Full(DiskSpace),
    /// It could not be asked. Counts as roomy: a write that fails says so itself.
    Unknown(String),
}

impl DiskState {
    /// True where logs and new runs must be refused.
    pub fn is_full(&self) -> bool {
        match self {
            DiskState::Full(_) => true,
            DiskState::Roomy(_) | DiskState::Unknown(_) => false,
        }
    }
}
