//! Archives as the kernel unpacks them for its first root file system: `newc` of cpio
//! (Documentation/driver-api/early-userspace/buffer-format.rst). The same tree gives the same bytes: names are sorted, all
//! belongs to root, and nothing has a time.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Kinds of entries, in the mode's upper bits.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that is being written.
pub struct Archive<W: Write> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Archive<W> {
        Archive { out, entries: 0 }
    }

    /// A file.
    pub fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(name.as_bytes(), FILE | mode, (0, 0), contents)
    }

    /// A device of characters.
    pub fn device(&mut self, name: &str, mode: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(name.as_bytes(), CHARACTER_DEVICE | mode, number, b"")
    }

    /// What lies in a folder, and beneath.
    ///
    /// # Errors
    /// Where something cannot be read or written, or is neither folder, file nor link.
    pub fn tree(&mut self, root: &Path) -> Result<()> {
        self.beneath(root, root)
    }

    fn beneath(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let saying = || format!("reading {}", folder.display());
        let listed: io::Result<Vec<_>> = fs::read_dir(folder).with_context(saying)?.collect();
        let mut paths: Vec<_> = listed.with_context(saying)?.iter().map(fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            let saying = || format!("packing {}", path.display());
            let name = path.strip_prefix(root).with_context(saying)?.as_os_str().as_bytes();
            let about = fs::symlink_metadata(&path).with_context(saying)?;
            let mode = about.permissions().mode() & 0o7777;
            if about.is_dir() {
                self.entry(name, FOLDER | mode, (0, 0), b"").with_context(saying)?;
                self.beneath(root, &path)?;
            } else if about.is_symlink() {
                let target = fs::read_link(&path).with_context(saying)?;
                self.entry(name, LINK | 0o777, (0, 0), target.as_os_str().as_bytes()).with_context(saying)?;
            } else if about.is_file() {
                let contents = fs::read(&path).with_context(saying)?;
                self.entry(name, FILE | mode, (0, 0), &contents).with_context(saying)?;
            } else {
                bail!("{} is neither folder, file nor link", path.display());
            }
        }
        Ok(())
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(b"TRAILER!!!", 0, (0, 0), b"")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &[u8], mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        self.entries += 1;
        let (size, name_size) = (length(contents.len())?, length(name.len() + 1)?);
        // Number, mode, owner, group, links, time, size, device of the file, device that it is, length of the name, check.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut head = b"070701".to_vec();
        for field in fields {
            write!(head, "{field:08X}")?;
        }
        head.extend_from_slice(name);
        head.push(0);
        pad(&mut head);
        self.out.write_all(&head)?;
        self.out.write_all(contents)?;
        let mut rest = vec![0; contents.len() % 4];
        let filled = rest.len();
        pad(&mut rest);
        self.out.write_all(&rest[filled..])
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree, packed.
    fn packed(root: &Path) -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.device("console", 0o600, (5, 1)).unwrap();
        archive.tree(root).unwrap();
        archive.file("etc/own", 0o640, b"12345").unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn an_archive_holds_names_modes_links_devices_and_contents_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("etc")).unwrap();
        for name in ["b", "a"] {
            fs::write(root.join("etc").join(name), name.repeat(3)).unwrap();
            fs::set_permissions(root.join("etc").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("etc", root.join("link")).unwrap();
        let bytes = packed(root);
        assert_eq!(bytes.len() % 4, 0);
        let mut seen = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + index * 8..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1]).unwrap();
            let from = (at + 110 + name_size).next_multiple_of(4);
            let contents = std::str::from_utf8(&bytes[from..from + size]).unwrap();
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "root's, and without a time");
            seen.push(format!("{name} {:o} {}:{} {contents}", field(1), field(9), field(10)));
            at = (from + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
        }
        let expected = [
            "console 20600 5:1 ",
            "etc 40755 0:0 ",
            "etc/a 100755 0:0 aaa",
            "etc/b 100755 0:0 bbb",
            "link 120777 0:0 etc",
            "etc/own 100640 0:0 12345",
            "TRAILER!!! 0 0:0 ",
        ];
        assert_eq!(seen, expected);
        assert_eq!(at, bytes.len());
    }
}
