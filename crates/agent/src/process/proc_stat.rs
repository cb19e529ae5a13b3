//! What /proc/PID/stat says of a process: enough to know it again, and to find what belongs to it.

use std::path::Path;

/// Greatest size of a stat file that is read; real ones have some 300 bytes.
const STAT_BYTES_MAX: u64 = 4096;

/// A process as /proc shows it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcStat {
    /// Its number.
    pub pid: i32,
    /// `R`, `S`, `D`, `Z`, …
    pub state: u8,
    /// Its session: the number of the process that made it.
    pub session: i32,
    /// Clock ticks after boot at which it started. With the number and the boot id it names a process for ever.
    pub start: u64,
}

impl ProcStat {
    /// True where it only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads a process; `None` where there is none, or where what is read is no stat line.
pub fn read(pid: i32) -> Option<ProcStat> {
    read_at(&Path::new("/proc").join(pid.to_string()).join("stat"))
}

/// All processes that can be seen.
pub fn all() -> Vec<ProcStat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_pid))
        .filter_map(|entry| read_at(&entry.path().join("stat")))
        .collect()
}

fn read_at(path: &Path) -> Option<ProcStat> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(STAT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

/// Parses a stat line. The name in it is the process's own choice and may hold spaces, brackets and line ends, so
/// the fields are counted from its last bracket.
fn parse(line: &[u8]) -> Option<ProcStat> {
    let name_begins = line.iter().position(|byte| *byte == b'(')?;
    let name_ends = line.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&line[..name_begins]).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(line.get(name_ends + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?.as_bytes().first()?;
    Some(ProcStat { pid, state, session: fields.get(3)?.parse().ok()?, start: fields.get(19)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_may_hold_brackets_and_spaces() {
        let rest = "S 1 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200";
        for name in ["sh", "a b", "x) R 1 2 3", "(((", "\n"] {
            let line = format!("77 ({name}) {rest}");
            let found = ProcStat { pid: 77, state: b'S', session: 41, start: 98_765 };
            assert_eq!(parse(line.as_bytes()), Some(found), "{name:?}");
        }
    }

    #[test]
    fn this_process_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let read = read(own).unwrap();
        assert_eq!(read.pid, own);
        assert!(read.start > 0 && !read.is_dead());
        assert!(all().iter().any(|process| process.pid == own && process.start == read.start));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }
    }
}
