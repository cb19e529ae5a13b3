//! Bounded reads below a folder that stands for `/`.

use std::io::{self, Read};
use std::path::PathBuf;

use groundcrew_protocol::inventory::Unread;
use groundcrew_protocol::order;
use rustix::io::Errno;

/// Greatest attribute of sysfs that is read: the kernel's own limit is a page.
const ATTRIBUTE_BYTES_MAX: u64 = 64 * 1024;
/// Greatest number of entries of a folder that are looked at; more than the CPUs or disks of any machine.
const ENTRIES_MAX: usize = 16 * 1024;
/// Greatest number of sources that are listed as not read; the rest is counted by nobody, as the parts show.
const UNREADS_MAX: usize = 64;

/// The folder below which a machine is read.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// This machine.
    pub fn system() -> Root {
        Root(PathBuf::from("/"))
    }

    /// A folder that stands in for a machine.
    pub fn at(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// Where an absolute path of the machine lies.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.0.join(absolute.trim_start_matches('/'))
    }

    /// True where there is something at a path.
    pub fn exists(&self, absolute: &str) -> bool {
        self.path(absolute).exists()
    }

    /// Reads a file of at most so many bytes.
    ///
    /// # Errors
    /// Where it cannot be read, or is larger.
    pub fn read(&self, absolute: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.path(absolute))?.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Reads a file as text; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`Root::read`].
    pub fn text(&self, absolute: &str, bytes_max: u64) -> io::Result<String> {
        self.read(absolute, bytes_max).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads an attribute of sysfs, trimmed; `None` where it is not there, holds nothing, or its driver answers
    /// that it has no such value.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn attribute(&self, absolute: &str) -> io::Result<Option<String>> {
        match self.text(absolute, ATTRIBUTE_BYTES_MAX) {
            Ok(text) => {
                let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
                Ok((!text.is_empty()).then(|| text.to_owned()))
            }
            Err(error) if says_no_value(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, for values that are a detail: what cannot be read is as good as not there.
    pub fn detail(&self, absolute: &str) -> Option<String> {
        self.attribute(absolute).ok().flatten()
    }

    /// Names in a folder, sorted; `None` where there is no such folder.
    ///
    /// # Errors
    /// Where it is there and cannot be listed.
    pub fn list(&self, absolute: &str) -> io::Result<Option<Vec<String>>> {
        let entries = match std::fs::read_dir(self.path(absolute)) {
            Ok(entries) => entries,
            Err(error) if says_no_value(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries.take(ENTRIES_MAX) {
            // A name that is no UTF-8 is none of the kernel's.
            names.extend(entry?.file_name().into_string().ok());
        }
        order::sort_by_key(&mut names, |name| natural(name));
        Ok(Some(names))
    }

    /// The last part of what a link points to, as the name of a driver is.
    pub fn link_name(&self, absolute: &str) -> Option<String> {
        let target = std::fs::read_link(self.path(absolute)).ok()?;
        target.file_name()?.to_str().map(str::to_owned)
    }

    /// The parts of a path after every link in it was followed: where a device hangs.
    pub fn resolved(&self, absolute: &str) -> Vec<String> {
        let (Ok(path), Ok(root)) = (self.path(absolute).canonicalize(), self.0.canonicalize()) else {
            return Vec::new();
        };
        let path = path.strip_prefix(&root).unwrap_or(&path);
        path.components().filter_map(|part| Some(part.as_os_str().to_str()?.to_owned())).collect()
    }
}

/// The last PCI address among the parts of a device's path: that of the function it hangs on.
pub(super) fn pci_address(parts: &[String]) -> Option<String> {
    let is_hex =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = |part: &&String| {
        let mut fields = part.split([':', '.']);
        // Behind a controller of its own (Intel's VMD) a domain has more than four digits.
        let domain = fields.next().is_some_and(|text| (4..=8).any(|digits| is_hex(text, digits)));
        let whole = [2, 2, 1].iter().all(|digits| fields.next().is_some_and(|text| is_hex(text, *digits)));
        domain && whole && fields.next().is_none()
    };
    parts.iter().rev().find(is_address).cloned()
}

/// True for the errors by which the kernel says that there is no such file or value.
fn says_no_value(error: &io::Error) -> bool {
    let errnos = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::NODEV,
        Errno::NXIO,
        Errno::INVAL,
        Errno::OPNOTSUPP,
        Errno::NODATA,
        Errno::NOSYS,
    ];
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Sorts `sda2` before `sda10`: text and numbers by turns.
fn natural(name: &str) -> Vec<(String, Option<u64>)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        // A number too large to count with sorts last, none at all first.
        let number = (!number.is_empty()).then(|| number.parse().unwrap_or(u64::MAX));
        parts.push((text.to_owned(), number));
        rest = tail;
    }
    parts
}

/// Sources that are there and could not be read.
#[derive(Debug, Default)]
pub struct Unreads(Vec<Unread>);

impl Unreads {
    /// Notes one, under the part of the inventory that suffers.
    pub fn note(&mut self, part: &str, what: &str, error: impl std::fmt::Display) {
        if self.0.len() < UNREADS_MAX {
            self.0.push(Unread { part: part.to_owned(), why: format!("{what}: {error}") });
        }
    }

    /// Reads an attribute and notes where that fails.
    pub fn attribute(&mut self, root: &Root, part: &str, absolute: &str) -> Option<String> {
        root.attribute(absolute).unwrap_or_else(|error| {
            self.note(part, absolute, error);
            None
        })
    }

    /// Lists a folder and notes where that fails.
    pub fn list(&mut self, root: &Root, part: &str, absolute: &str) -> Option<Vec<String>> {
        root.list(absolute).unwrap_or_else(|error| {
            self.note(part, absolute, error);
            None
        })
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Unread> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["cpu10", "cpu2", "cpu", "sdb", "sda", "cpu1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["cpu", "cpu1", "cpu2", "cpu10", "sda", "sdb"]);
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_not_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert_eq!(root.attribute("/sys/none").unwrap(), None);
        std::fs::write(folder.path().join("large"), vec![b'x'; 70_000]).unwrap();
        assert!(root.attribute("/large").is_err());
        // A folder cannot be read as a file.
        let mut unreads = Unreads::default();
        assert_eq!(unreads.attribute(&root, "cpu", "/"), None);
        assert_eq!(unreads.into_vec()[0].part, "cpu");
    }
}
