//! A disk that is held for the whole of a destructive stage: opened so that nobody else has it, and looked through for
//! anything that somebody may miss.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use groundcrew_protocol::inventory::Disk;
use rustix::fs::{CWD, FileType, Mode, OFlags, SeekFrom, fstat, major, minor, openat, seek};
use rustix::io::Errno;
use serde_json::Value;

use crate::vet::StageContext;
use crate::vet::json_tool::{Call, Said};
use crate::vet::local_disks::device;

/// A few blocks are read.
const LOOK_TIME: Duration = Duration::from_secs(60);
/// The type of an EFI system partition in a GPT (UEFI specification 2.10, table 5.7) and in an MBR.
const ESP: [&str; 2] = ["c12a7328-f81f-11d2-ba4b-00c04fd430c8", "0xef"];

/// A disk that nobody else can mount, add to an array or open so while this is held.
#[derive(Debug)]
pub(super) struct Held {
    fd: OwnedFd,
    pub disk: Disk,
}

impl Held {
    /// Opens the disk: it is the one that /sys calls so, has the size that /sys says, and nobody has it.
    ///
    /// # Errors
    /// Why it is not held.
    pub fn open(context: &StageContext, disk: &Disk) -> Result<Held, String> {
        let path = device(context, disk);
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, &path, flags, Mode::empty()).map_err(|error| match error {
            Errno::BUSY => format!(
                "{} is in use: it or a part of it is mounted, swap, or belongs to an array or a volume",
                disk.name
            ),
            error => format!("open {}: {error}", path.display()),
        })?;
        let said = |error: Errno| format!("look at {}: {error}", path.display());
        let found = fstat(&fd).map_err(said)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::BlockDevice {
            return Err(format!("{} is no block device", path.display()));
        }
        let number = format!("{}:{}", major(found.st_rdev), minor(found.st_rdev));
        let expected = context.root.detail(&format!("/sys/block/{}/dev", disk.name));
        if expected.as_deref() != Some(number.as_str()) {
            return Err(format!(
                "{} is device {number}, expected {}",
                path.display(),
                expected.as_deref().unwrap_or("what /sys says, which is nothing")
            ));
        }
        let bytes = seek(&fd, SeekFrom::End(0)).map_err(said)?;
        if bytes != disk.size_bytes {
            return Err(format!("{} has {bytes} bytes, and {} by /sys", disk.name, disk.size_bytes));
        }
        refuse_own(context, disk)?;
        Ok(Held { fd, disk: disk.clone() })
    }

    /// Where a tool, which is a child of this process, finds it: the very device that is held, whatever its name leads to.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Refuses a disk with anything on it, unless the profile allows for that; and one with an EFI system partition always.
    ///
    /// # Errors
    /// What is on it, or why that is not known.
    pub fn expect_empty(
        &self,
        context: &StageContext,
        existing_data: bool,
        deadline: Instant,
    ) -> Result<(), String> {
        let call = |program: &'static str, arguments: &[&str]| {
            let mut arguments: Vec<_> = arguments.iter().map(std::ffi::OsString::from).collect();
            arguments.push(self.path().into());
            let (time, about) = (LOOK_TIME, self.disk.name.clone());
            Call { context, program, arguments, time, deadline, about }.run()
        };
        // Without --all it only lists them: every one that libblkid knows, also with a wrong checksum.
        let found = signatures(&call("wipefs", &["--no-act", "--json"])?)?;
        if found.is_empty() {
            return Ok(());
        }
        if !existing_data {
            return Err(format!(
                "{} holds {}, expected nothing, or existing_data = true in the profile's [write]",
                self.disk.name,
                found.join(", ")
            ));
        }
        let has_table = found.iter().any(|word| ["gpt", "dos", "PMBR"].contains(&word.as_str()));
        if has_table && has_esp(&call("partx", &["--raw", "--noheadings", "--output", "TYPE"])?)? {
            return Err(format!(
                "{} holds an EFI system partition: a machine may start from it, and it is never written over",
                self.disk.name
            ));
        }
        Ok(())
    }
}

/// What wipefs found, in its words.
fn signatures(said: &Said) -> Result<Vec<String>, String> {
    let unread = |what: &str| {
        let stderr = String::from_utf8_lossy(&said.stderr);
        Err(format!("wipefs says nothing of what is on it: {what} (status {}) {}", said.exit, stderr.trim()))
    };
    let json: Value = match serde_json::from_slice(&said.stdout) {
        Ok(json) if said.exit == 0 => json,
        Ok(_) => return unread("it failed"),
        Err(error) => return unread(&error.to_string()),
    };
    let Some(list) = json.get("signatures").and_then(Value::as_array) else {
        return unread("no list");
    };
    let word =
        |one: &Value| one.get("type").and_then(Value::as_str).unwrap_or("what it has no word for").to_owned();
    Ok(list.iter().map(word).collect())
}

/// True where one of the types that partx lists is that of an EFI system partition.
fn has_esp(said: &Said) -> Result<bool, String> {
    if said.exit != 0 {
        let stderr = String::from_utf8_lossy(&said.stderr);
        return Err(format!("partx cannot read its partitions (status {}): {}", said.exit, stderr.trim()));
    }
    let text = String::from_utf8_lossy(&said.stdout).to_ascii_lowercase();
    Ok(text.split_whitespace().any(|word| ESP.contains(&word)))
}

/// Refuses the disk of `/` and of the agent's home, also where what lies on it claims no device.
fn refuse_own(context: &StageContext, disk: &Disk) -> Result<(), String> {
    let places = [("/", Path::new("/")), ("the agent's home", context.work.as_path())];
    for (what, path) in places {
        let found = rustix::fs::stat(path).map_err(|error| format!("look at {}: {error}", path.display()))?;
        let device = format!("/sys/dev/block/{}:{}", major(found.st_dev), minor(found.st_dev));
        if context.root.resolved(&device).contains(&disk.name) {
            return Err(format!("{} is the disk of {what}", disk.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(exit: i32, stdout: &str) -> Said {
        Said { exit, stdout: stdout.as_bytes().to_vec(), stderr: b"why".to_vec() }
    }

    #[test]
    fn a_disk_is_empty_only_where_wipefs_says_so() {
        let empty = "{\n   \"signatures\": [\n\n   ]\n}\n";
        assert_eq!(signatures(&said(0, empty)), Ok(Vec::new()));
        let both = r#"{"signatures": [{"device":"3","type":"gpt"}, {"device":"3","offset":"0x1fe"}]}"#;
        assert_eq!(signatures(&said(0, both)).unwrap(), ["gpt", "what it has no word for"]);
        for (exit, stdout) in
            [(1, empty), (0, ""), (0, "{}"), (0, "[]"), (0, "{\"signatures\": null}"), (0, &empty[..9])]
        {
            assert!(signatures(&said(exit, stdout)).unwrap_err().contains("wipefs says nothing"), "{stdout}");
        }
    }

    #[test]
    fn an_efi_system_partition_is_known_by_its_type() {
        assert_eq!(has_esp(&said(0, "0x83\nC12A7328-F81F-11D2-BA4B-00C04FD430C8\n")), Ok(true));
        assert_eq!(has_esp(&said(0, "0xef\n")), Ok(true));
        assert_eq!(has_esp(&said(0, "0x83\n0fc63daf-8483-4772-8e79-3d69d8477de4\n")), Ok(false));
        assert!(has_esp(&said(1, "")).is_err());
    }
}
