//! Appending records.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fdatasync, fsync, ftruncate};

use super::reader::{EndKind, RecordReader};
use super::{HEADER_BYTES, Options, checksum};
use crate::error::{Error, Result};
use crate::fault;
use crate::folder::Place;
use crate::lock::{Holder, Locked, try_lock};
use crate::points;

/// What was in a record file when it was opened for appending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Whole records found.
    pub records: u64,
    /// Bytes of a torn tail that were cut off: 0 unless a crash cut off a write. More than a record's size
    /// means that more than one unsynced record was lost.
    pub cut_bytes: u64,
}

/// The one writer of a record file; the file is locked for as long as it lives.
#[derive(Debug)]
pub struct RecordWriter {
    locked: Locked,
    path: PathBuf,
    record_bytes_max: u32,
    /// The end of the last whole record, which is the end of the file.
    bytes: u64,
    /// Header and payload together, so that one write(2) takes both. Kept from record to record.
    buffer: Vec<u8>,
    /// A failure after which nobody knows what is on the disk.
    broken: bool,
}

impl RecordWriter {
    /// Opens or makes the record file at `path` for appending, durably, and cuts a torn tail off. What is in it
    /// then outlives a power cut.
    ///
    /// Reads the whole file once. [`Error::Held`] while another writer lives, [`Error::Corrupt`] where there is
    /// damage that no crash explains; the file is then as it was.
    pub fn open(path: &Path, options: &Options) -> Result<(Self, Opened)> {
        let place = Place::of(path)?;
        let mode = Mode::from_raw_mode(options.mode_for_new);
        let locked = try_lock(&place, &place.name, OFlags::RDWR | OFlags::APPEND, mode)?;
        let path = path.to_owned();
        let Some(locked) = locked else { return Err(Error::Held { path, holder: Holder::Unsigned }) };
        fault::point(points::RECORDS_OPENED);
        place.sync()?;
        let record_bytes_max = options.record_bytes_max;
        let (bytes, opened) = cut_torn_tail(&locked.file, &path, record_bytes_max)?;
        Ok((Self { locked, path, record_bytes_max, bytes, buffer: Vec::new(), broken: false }, opened))
    }

    /// Appends one record with one write(2), and returns the offset behind it. The record survives the end of
    /// this process at once, and a power cut after the next [`sync`](Self::sync).
    ///
    /// [`Error::TooLarge`] for a payload above the limit. After [`Error::Io`], such as a full disk, what was
    /// written of the record has been taken back and the writer goes on; were that impossible too, every later
    /// call answers [`Error::Broken`].
    pub fn append(&mut self, payload: &[u8]) -> Result<u64> {
        self.refuse_if_broken()?;
        let length = u32::try_from(payload.len()).ok().filter(|&length| length <= self.record_bytes_max);
        let Some(length) = length else {
            let bytes_max = u64::from(self.record_bytes_max);
            return Err(Error::TooLarge { path: self.path.clone(), bytes_max });
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&checksum(length, payload).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        if let Err(source) = self.write_buffer() {
            // The first error is the one to tell; the second makes itself felt as `Broken`.
            self.broken = ftruncate(&self.locked.file, self.bytes).is_err();
            return Err(Error::io("appending a record to", &self.path)(source));
        }
        fault::point(points::RECORDS_APPENDED);
        self.bytes += HEADER_BYTES + u64::from(length);
        Ok(self.bytes)
    }

    /// Makes every record appended so far outlive a power cut.
    ///
    /// After a failure the writer is [`Error::Broken`]: the kernel may have dropped what it could not write,
    /// and a second sync would then succeed over a hole.
    pub fn sync(&mut self) -> Result<()> {
        self.refuse_if_broken()?;
        fdatasync(&self.locked.file).map_err(|errno| {
            self.broken = true;
            Error::io("syncing", &self.path)(errno)
        })?;
        fault::point(points::RECORDS_SYNCED);
        Ok(())
    }

    /// The file's length in bytes: the end of its last record.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The record file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One write(2), unless the disk takes only a part; what comes after that part then finds out why.
    fn write_buffer(&mut self) -> io::Result<()> {
        let (head, tail) = self.buffer.split_at(fault::cut(points::RECORDS_HALF_APPENDED, self.buffer.len()));
        self.locked.file.write_all(head)?;
        if !tail.is_empty() {
            fault::point(points::RECORDS_HALF_APPENDED);
            self.locked.file.write_all(tail)?;
        }
        Ok(())
    }

    fn refuse_if_broken(&self) -> Result<()> {
        if self.broken { Err(Error::Broken { path: self.path.clone() }) } else { Ok(()) }
    }
}

/// Returns where the last whole record ends, which the file then does too.
fn cut_torn_tail(file: &File, path: &Path, record_bytes_max: u32) -> Result<(u64, Opened)> {
    let copy = file.try_clone().map_err(Error::io("opening once more", path))?;
    let mut reader = RecordReader::over(copy.into(), path, record_bytes_max, 0);
    let mut records = 0;
    while reader.next_record()?.is_some() {
        records += 1;
    }
    let end = reader.end().expect("the reader gave no further record");
    match end.kind {
        EndKind::Clean => {}
        EndKind::Torn => {
            ftruncate(file, end.offset).map_err(Error::io("cutting the torn tail off", path))?;
            fault::point(points::RECORDS_CUT);
        }
        EndKind::Corrupt(corruption) => {
            return Err(Error::Corrupt { path: path.to_owned(), offset: end.offset, corruption });
        }
    }
    // Also where nothing was cut: an earlier writer may have ended between an append and its sync.
    fsync(file).map_err(Error::io("syncing", path))?;
    Ok((end.offset, Opened { records, cut_bytes: end.bytes_after }))
}
