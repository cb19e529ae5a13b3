//! How much room the disk has.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An answer of the file system is good for this long: a server asks with every message.
const GOOD_FOR: Duration = Duration::from_secs(1);

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

/// Asks the probe at most once a second.
pub(super) struct Disk {
    probe: DiskProbe,
    free_percent_min: f64,
    last: Mutex<Option<(Instant, DiskState)>>,
}

impl Disk {
    pub fn new(data: &Path, probe: Option<DiskProbe>, free_percent_min: f64) -> Disk {
        let data = data.to_owned();
        let probe = probe.unwrap_or_else(|| Arc::new(move || space_of(&data)));
        Disk { probe, free_percent_min, last: Mutex::new(None) }
    }

    pub fn state(&self) -> DiskState {
        let mut last = self.last.lock().expect("nobody panics with the lock");
        match &*last {
            Some((at, state)) if at.elapsed() < GOOD_FOR => return state.clone(),
            Some(_) | None => {}
        }
        let state = judge((self.probe)(), self.free_percent_min);
        *last = Some((Instant::now(), state.clone()));
        state
    }
}

fn judge(asked: std::io::Result<DiskSpace>, free_percent_min: f64) -> DiskState {
    match asked {
        Err(error) => DiskState::Unknown(error.to_string()),
        Ok(space) if (space.free_bytes as f64) * 100.0 < free_percent_min * (space.total_bytes as f64) => {
            DiskState::Full(space)
        }
        Ok(space) => DiskState::Roomy(space),
    }
}

/// What the file system says: what a process without privileges may still write.
fn space_of(data: &Path) -> std::io::Result<DiskSpace> {
    let found = rustix::fs::statvfs(data)?;
    Ok(DiskSpace {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_under_its_limit_and_roomy_on_it() {
        let space = |free_bytes| Ok(DiskSpace { free_bytes, total_bytes: 1_000 });
        assert!(judge(space(49), 5.0).is_full());
        assert!(!judge(space(50), 5.0).is_full());
        assert!(!judge(Err(std::io::Error::other("no answer")), 5.0).is_full());
    }

    #[test]
    fn the_file_system_answers() {
        let space = space_of(Path::new("/")).unwrap();
        assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
    }
}
