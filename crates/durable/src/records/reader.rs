//! Reading records, from any record on, also while a writer appends.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Corruption, HEADER_BYTES, checksum};
use crate::error::{Error, Result};
use crate::folder::Place;

/// Read ahead by this much, so that small records cost no system call each.
const WINDOW_BYTES: usize = 64 << 10;

/// Why a reader found no further record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// The file ends where the last record ends.
    Clean,
    /// What follows is part of a record whose writing was cut off, or is going on at this moment.
    Torn,
    /// What follows was not written like this.
    Corrupt(Corruption),
}

/// Where and why a reader found no further record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The byte behind the last whole record.
    pub offset: u64,
    /// Bytes between there and the end of the file.
    pub bytes_after: u64,
    /// Why.
    pub kind: EndKind,
}

/// Goes through the records of a file. Memory: one record and 64 KiB.
#[derive(Debug)]
pub struct RecordReader {
    file: File,
    path: PathBuf,
    record_bytes_max: u32,
    /// Where the next record begins.
    offset: u64,
    window: Vec<u8>,
    window_offset: u64,
    end: Option<End>,
}

impl RecordReader {
    /// Opens the record file at `path`, to read from its first record on; `None` where there is no file.
    pub fn open(path: &Path, record_bytes_max: u32) -> Result<Option<Self>> {
        Self::open_at(path, record_bytes_max, 0)
    }

    /// Opens the record file at `path`, to read from `offset` on, which an earlier reader's or writer's answer
    /// gave as the end of a record. [`Error::PastEnd`] where the file has become shorter since.
    pub fn open_at(path: &Path, record_bytes_max: u32, offset: u64) -> Result<Option<Self>> {
        let place = Place::of(path)?;
        let Some(file) = place.open_file(&place.name, OFlags::RDONLY, Mode::empty())? else {
            return Ok(None);
        };
        let reader = Self::over(file, path, record_bytes_max, offset);
        let bytes = reader.file_bytes()?;
        if offset > bytes {
            return Err(Error::PastEnd { path: path.to_owned(), offset, bytes });
        }
        Ok(Some(reader))
    }

    pub(super) fn over(file: OwnedFd, path: &Path, record_bytes_max: u32, offset: u64) -> Self {
        let file = File::from(file);
        let path = path.to_owned();
        Self { file, path, record_bytes_max, offset, window: Vec::new(), window_offset: 0, end: None }
    }

    /// The next whole record's payload, or `None` where there is none; [`end`](Self::end) then says why. Asking
    /// again looks at the file again, and so finds what has been appended meanwhile.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>> {
        let bytes_left = self.file_bytes()?.saturating_sub(self.offset);
        let end = match self.look(bytes_left)? {
            Ok(payload_bytes) => {
                self.end = None;
                let start = self.in_window(self.offset + HEADER_BYTES);
                self.offset += HEADER_BYTES + payload_bytes as u64;
                return Ok(Some(&self.window[start..start + payload_bytes]));
            }
            Err(kind) => End { offset: self.offset, bytes_after: bytes_left, kind },
        };
        // A writer may still replace what was no record.
        self.window.clear();
        self.end = Some(end);
        Ok(None)
    }

    /// Where the next record begins or will begin: behind the last one returned.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the last call of [`next_record`](Self::next_record) gave `None`; `None` unless it did.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The payload's length if a whole record begins at the present offset, otherwise what is there instead.
    fn look(&mut self, bytes_left: u64) -> Result<std::result::Result<usize, EndKind>> {
        if bytes_left == 0 {
            return Ok(Err(EndKind::Clean));
        }
        if bytes_left < HEADER_BYTES || !self.fill(HEADER_BYTES as usize, bytes_left)? {
            return Ok(Err(EndKind::Torn));
        }
        let at = self.in_window(self.offset);
        let word = |from: usize| {
            let bytes = self.window[at + from..at + from + 4].try_into().expect("four bytes were asked for");
            u32::from_le_bytes(bytes)
        };
        let (length, found) = (word(0), word(4));
        if length > self.record_bytes_max {
            return Ok(Err(EndKind::Corrupt(Corruption::Length {
                found: length,
                bytes_max: self.record_bytes_max,
            })));
        }
        let record_bytes = HEADER_BYTES + u64::from(length);
        if record_bytes > bytes_left || !self.fill(record_bytes as usize, bytes_left)? {
            return Ok(Err(EndKind::Torn));
        }
        let payload = self.in_window(self.offset + HEADER_BYTES);
        let expected = checksum(length, &self.window[payload..payload + length as usize]);
        if found == expected {
            return Ok(Ok(length as usize));
        }
        if record_bytes == bytes_left || self.only_zeros_left()? {
            return Ok(Err(EndKind::Torn));
        }
        Ok(Err(EndKind::Corrupt(Corruption::Checksum { found, expected })))
    }

    /// Has at least `bytes` bytes from the present offset on in the window; false where the file, cut by a
    /// writer in this moment, no longer has so many. The window is no larger than what is left of the file: most
    /// files of a spool are small, and clearing a whole window would cost more than reading them.
    fn fill(&mut self, bytes: usize, bytes_left: u64) -> Result<bool> {
        let window_end = self.window_offset + self.window.len() as u64;
        let inside = self.offset >= self.window_offset && self.offset + bytes as u64 <= window_end;
        if inside {
            return Ok(true);
        }
        let window_bytes = usize::try_from(bytes_left).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        self.window.resize(bytes.max(window_bytes), 0);
        self.window_offset = self.offset;
        let read = read_up_to(&self.file, &mut self.window, self.offset);
        let read = read.map_err(Error::io("reading records from", &self.path));
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        Ok(read? >= bytes)
    }

    fn in_window(&self, offset: u64) -> usize {
        usize::try_from(offset - self.window_offset).expect("the window is smaller than the memory")
    }

    fn only_zeros_left(&self) -> Result<bool> {
        let mut chunk = vec![0; WINDOW_BYTES];
        let mut offset = self.offset;
        loop {
            let read = read_up_to(&self.file, &mut chunk, offset);
            let read = read.map_err(Error::io("reading records from", &self.path))?;
            if read == 0 {
                return Ok(true);
            }
            if chunk[..read].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            offset += read as u64;
        }
    }

    fn file_bytes(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(Error::io("looking at", &self.path))?.len())
    }
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
