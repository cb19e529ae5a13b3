//! The archive while it comes: a file that is only ever added to, and the sum of what is in it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use groundcrew_protocol::ids::{Sha256Hex, Sha256Sum};

use super::{Around, FetchError};

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 * 1024;

/// As much of an archive as has come.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    sum: Sha256Sum,
    bytes: u64,
}

impl Part {
    /// Opens what has come before, or begins. What is there is read to its end, which ends with the stage.
    pub(super) fn open(path: PathBuf, around: &Around<'_>) -> Result<Part, FetchError> {
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.read(true).append(true).create(true).open(&path);
        let mut part = Part {
            file: file.map_err(FetchError::disk("opening", &path))?,
            path,
            sum: Sha256Sum::default(),
            bytes: 0,
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let came = std::fs::metadata(&part.path).map_or(part.bytes, |metadata| metadata.len());
            if let Some(ended) = around.stop(|| format!("{came} bytes")) {
                return Err(ended);
            }
            let read = part.file.read(&mut buffer).map_err(FetchError::disk("reading", &part.path))?;
            if read == 0 {
                return Ok(part);
            }
            part.sum.add(&buffer[..read]);
            part.bytes += read as u64;
        }
    }

    /// How much there is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sum of what there is.
    pub(super) fn sha256(&self) -> Sha256Hex {
        self.sum.clone().of_all()
    }

    /// Adds what came.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(FetchError::disk("writing", &self.path))?;
        self.sum.add(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).map_err(FetchError::disk("emptying", &self.path))?;
        (self.sum, self.bytes) = (Sha256Sum::default(), 0);
        Ok(())
    }
}
