//! The machine that figures were measured on: without it they say nothing.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// Synchronised appends of which the median is taken.
const SYNCS: usize = 200;
/// Bytes of each: a page.
const SYNC_BYTES: usize = 4096;

/// What the figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that this process may run on.
    pub processors: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// File system of the data folder.
    pub file_system: String,
    /// Median time of an append of 4 KiB with fdatasync in the data folder, in microseconds.
    pub sync_us: f64,
}

impl Machine {
    /// This one, with its data folders in `folder`.
    pub fn look(folder: &Path) -> Result<Machine> {
        let processors = std::fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let memory = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
        let folder = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
        let named = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let kilobytes =
            named(&memory, "MemTotal").and_then(|text| text.strip_suffix(" kB")?.trim().parse().ok());
        Ok(Machine {
            processor: named(&processors, "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().context("counting processors")?.get(),
            memory_bytes: kilobytes.map_or(0, |count: u64| count * 1024),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: file_system(&mounts, &folder).unwrap_or_else(|| "unknown".to_owned()),
            sync_us: sync_us(&folder)?,
        })
    }

    /// In one line.
    pub fn describe(&self) -> String {
        format!(
            "{} × {}, {:.0} GB of memory, Linux {}, data on {} (append of 4 KiB with fdatasync: {:.0} µs)",
            self.processors,
            self.processor,
            self.memory_bytes as f64 / 1e9,
            self.kernel,
            self.file_system,
            self.sync_us
        )
    }

    /// True where the data folder forgets: durability costs nothing there, and results say nothing.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs")
    }
}

/// Type of the file system under `folder`: that of the longest mount point that leads to it, the latest of several.
fn file_system(mounts: &str, folder: &Path) -> Option<String> {
    let fields = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let leading = fields.filter(|(point, _kind)| folder.starts_with(point));
    leading.max_by_key(|(point, _kind)| point.len()).map(|(_point, kind)| kind.to_owned())
}

fn sync_us(folder: &Path) -> Result<f64> {
    let path = folder.join("sync-probe");
    let probe = || -> std::io::Result<Vec<Duration>> {
        let mut file = File::create(&path)?;
        let mut times = Vec::with_capacity(SYNCS);
        for _one in 0..SYNCS {
            let began = Instant::now();
            file.write_all(&[7; SYNC_BYTES])?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        std::fs::remove_file(&path)?;
        Ok(times)
    };
    let mut times = probe().with_context(|| format!("timing writes to {}", path.display()))?;
    times.sort_unstable();
    Ok(times[SYNCS / 2].as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        let kind = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!(kind("/home").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmpfile").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/y").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/x/y").as_deref(), Some("xfs"));
    }

    #[test]
    fn this_machine_can_be_described() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::look(folder.path()).unwrap();
        assert!(machine.processors >= 1 && machine.memory_bytes > 0 && machine.sync_us > 0.0, "{machine:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the probe was left behind");
    }
}
