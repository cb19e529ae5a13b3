//! Which boot this is, and which process a number means.
//!
//! Process ids are used again and a home outlives a reboot, so that neither says anything alone. The kernel's
//! boot id tells boots apart; the start time of a process, in clock ticks since boot, tells apart two
//! processes with one id. Every reader takes the root of procfs, so that fixtures can stand in for `/proc`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::whole::read_bounded;

/// Where the kernel shows processes.
pub const PROC: &str = "/proc";

/// A boot id is 37 bytes with its newline; a stat line has at most 52 numbers of 20 digits and a name of 64.
const PROC_FILE_BYTES_MAX: u64 = 4096;

/// The start time is field 22 of a stat line, proc_pid_stat(5). After the name, which is field 2, the state
/// comes as field 3, so that it is number 19 from there.
const START_AFTER_NAME: usize = 22 - 3;

/// The kernel's random id of this boot, from `sys/kernel/random/boot_id` below `proc_root`.
pub fn boot_id(proc_root: &Path) -> Result<String> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    let expected = "the id of this boot";
    let malformed = |found: &str| Error::Malformed {
        path: path.clone(),
        found: found.to_owned(),
        expected,
        source: None,
    };
    let bytes = read_bounded(&path, PROC_FILE_BYTES_MAX)?.ok_or_else(|| malformed("no such file"))?;
    let text = str::from_utf8(&bytes).map_err(|_| malformed("bytes that are not text"))?.trim();
    if text.is_empty() { Err(malformed("an empty file")) } else { Ok(text.to_owned()) }
}

/// When a process started, in clock ticks since boot; `None` where no process has this id.
///
/// Together with [`boot_id`] and the id itself this names one process for ever. A zombie still has it.
pub fn process_start(proc_root: &Path, pid: u32) -> Result<Option<u64>> {
    let path = proc_root.join(pid.to_string()).join("stat");
    let Some(line) = read_stat(&path)? else { return Ok(None) };
    let field = start_field(&line).and_then(|field| field.parse().ok());
    field.map(Some).ok_or_else(|| Error::Malformed {
        path,
        found: format!("{:?}", String::from_utf8_lossy(&line)),
        expected: "a stat line whose field 22 is a number",
        source: None,
    })
}

/// The identity of this instantiation of the machine or container: `boot_id:pid1_start`.
///
/// It changes with a reboot (another boot id) and with a container that is started again (another process 1),
/// and stays when only one service is started again. As in the drain contract, a part that cannot be read is
/// empty, `:123` or `id:`, and `""` stands where neither can be read: with such an epoch nobody may call a
/// marker stale. So this never fails; [`boot_id`] and [`process_start`] say why a part is missing.
pub fn boot_epoch(proc_root: &Path) -> String {
    let boot = boot_id(proc_root).unwrap_or_default();
    let line = read_stat(&proc_root.join("1/stat")).ok().flatten().unwrap_or_default();
    // The field as it stands, number or not, because the other readers of the marker compare text.
    let start = start_field(&line).unwrap_or_default();
    if boot.is_empty() && start.is_empty() { String::new() } else { format!("{boot}:{start}") }
}

fn read_stat(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_bounded(path, PROC_FILE_BYTES_MAX) {
        // A process that ends between open(2) and read(2).
        Err(Error::Io { source, .. })
            if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        other => other,
    }
}

/// Field 22 of a stat line. The name in field 2 may hold spaces, parentheses and bytes that are no text, so
/// fields count from the last closing parenthesis.
fn start_field(line: &[u8]) -> Option<&str> {
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let fields = line[name_end + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    str::from_utf8(fields.into_iter().nth(START_AFTER_NAME)?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BOOT: &str = "0f3c1d52-9a77-4be1-8b0d-2f7c5a1e9d34";
    const AFTER_NAME: &str = "S 0 1 1 0 -1 4194560 19 32 0 0 1 2 3 4 20 0 1 0 4711 23 0 18446744073709551615";

    fn proc_with(boot: Option<&str>, stat: Option<&[u8]>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/kernel/random")).unwrap();
        fs::create_dir_all(root.path().join("1")).unwrap();
        if let Some(boot) = boot {
            fs::write(root.path().join("sys/kernel/random/boot_id"), boot).unwrap();
        }
        if let Some(stat) = stat {
            fs::write(root.path().join("1/stat"), stat).unwrap();
        }
        root
    }

    fn epoch(boot: Option<&str>, stat: Option<&[u8]>) -> String {
        boot_epoch(proc_with(boot, stat).path())
    }

    #[test]
    fn an_epoch_has_a_part_for_each_fact_that_can_be_read() {
        let stat = format!("1 (init) {AFTER_NAME}\n");
        let stat = Some(stat.as_bytes());
        let boot = format!("{BOOT}\n");
        assert_eq!(epoch(Some(&boot), stat), format!("{BOOT}:4711"));
        assert_eq!(epoch(Some(&boot), None), format!("{BOOT}:"));
        assert_eq!(epoch(None, stat), ":4711");
        assert_eq!(epoch(None, None), "");
        assert_eq!(epoch(Some("\n"), Some(b"")), "");
        assert_eq!(boot_epoch(Path::new("/nowhere")), "");
    }

    #[test]
    fn a_name_may_hold_spaces_parentheses_and_bytes_that_are_no_text() {
        let names: [&[u8]; 5] = [b"a b", b"(sd-pam)", b") S 1 2 (", b"\xff\xfe)", b""];
        for name in names {
            let line = [b"1 (", name, b") ", AFTER_NAME.as_bytes()].concat();
            assert_eq!(start_field(&line), Some("4711"), "{:?}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn a_short_or_strange_stat_line_is_an_error_and_an_empty_part() {
        for line in ["", "1", "1 (init", "1 (init) S 0 1", "1 (init) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0"]
        {
            let root = proc_with(Some(BOOT), Some(line.as_bytes()));
            assert_eq!(boot_epoch(root.path()), format!("{BOOT}:"), "{line}");
            assert!(matches!(process_start(root.path(), 1), Err(Error::Malformed { .. })), "{line}");
        }
        let root =
            proc_with(Some(BOOT), Some(format!("1 (a) {}", AFTER_NAME.replace("4711", "soon")).as_bytes()));
        assert!(matches!(process_start(root.path(), 1), Err(Error::Malformed { .. })));
    }

    #[test]
    fn a_missing_boot_id_is_an_error_that_names_its_file() {
        let error = boot_id(proc_with(None, None).path()).unwrap_err().to_string();
        assert!(error.contains("sys/kernel/random/boot_id: found no such file"), "{error}");
    }

    #[test]
    fn this_process_has_a_start_that_does_not_change_and_no_process_has_none() {
        let proc_root = Path::new(PROC);
        let start = process_start(proc_root, std::process::id()).unwrap();
        assert!(start.is_some_and(|ticks| ticks > 0));
        assert_eq!(process_start(proc_root, std::process::id()).unwrap(), start);
        // Linux gives out no id above 4194304 (PID_MAX_LIMIT).
        assert_eq!(process_start(proc_root, 4_194_305).unwrap(), None);
        assert_eq!(boot_id(proc_root).unwrap().len(), 36);
    }
}
