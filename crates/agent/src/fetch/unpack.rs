//! From the archive to a folder, entry by entry, by the rules of the archive's reader: nothing of it lies outside.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use groundcrew_archive::{Content, Error, Sink, UNPACKED_BYTES_MAX, read};

use super::places::{Place, expect_room, remove_folder};
use super::{Around, FetchError};

/// Bytes that are written at a time.
const PART_BYTES: usize = 256 * 1024;
/// Mode of folders. The home above them is the agent's alone.
const FOLDER_MODE: u32 = 0o755;

/// Unpacks the archive that was fetched and gives what comes of it the package's name. What is not taken goes, and so does
/// its archive: it would be refused again.
pub(super) fn unpack(
    place: &Place,
    free_bytes_least: u64,
    around: &Around<'_>,
) -> Result<Content, FetchError> {
    (around.show)(1.0, "unpacking".to_owned());
    let top = place.unpacking();
    let unpacked = unpacked(place, &top, free_bytes_least, around);
    let done = unpacked.and_then(|content| place.finish().map(|()| content));
    match &done {
        Ok(_) => {}
        Err(FetchError::Stopped | FetchError::Late { .. }) => remove_folder(&top)?,
        Err(_) => {
            remove_folder(&top)?;
            place.remove_fetched()?;
        }
    }
    done
}

fn unpacked(
    place: &Place,
    top: &Path,
    free_bytes_least: u64,
    around: &Around<'_>,
) -> Result<Content, FetchError> {
    make_folder(top).map_err(FetchError::disk("making the folder", top))?;
    let fetched = place.fetched();
    let archive = File::open(&fetched).map_err(FetchError::disk("opening", &fetched))?;
    let mut unpacker = Unpacker { top: top.to_owned(), free_bytes_least, around, refused: None };
    let done = read(Heeding { archive, around }, UNPACKED_BYTES_MAX, &mut unpacker);
    match (done, unpacker.refused, stop(around)) {
        (_, Some(refused), _) => Err(refused),
        (Ok(content), None, _) => Ok(content),
        // Whatever could not be read could not because it is to end.
        (Err(_could_not_be_read), None, Some(ended)) => Err(ended),
        (Err(Error::Placing { path, source }), None, None) => {
            Err(FetchError::disk("unpacking", &top.join(path))(source))
        }
        (Err(error), None, None) => Err(FetchError::Archive(error)),
    }
}

/// Puts entries beneath a folder that nobody else has. Their paths lead through folders that the archive itself brought, and
/// nothing that stands is written over.
struct Unpacker<'a> {
    top: PathBuf,
    free_bytes_least: u64,
    around: &'a Around<'a>,
    /// Why it ended, where that was no matter of an entry.
    refused: Option<FetchError>,
}

impl Unpacker<'_> {
    /// Ends the reading for a reason of our own.
    fn refuse(&mut self, why: FetchError) -> io::Error {
        self.refused = Some(why);
        io::Error::other("ended")
    }

    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let place = self.top.join(path);
        let above = place.parent().expect("what the archive names lies below the top");
        make_folder(above)?;
        Ok(place)
    }
}

/// Why it is to end now, where it is.
fn stop(around: &Around<'_>) -> Option<FetchError> {
    around.stop(|| "all of it".to_owned())
}

/// An archive that is read for no longer than there is time: also what is passed over, and what is no file.
struct Heeding<'a> {
    archive: File,
    around: &'a Around<'a>,
}

impl Read for Heeding<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match stop(self.around) {
            Some(ended) => Err(io::Error::other(ended)),
            None => self.archive.read(buffer),
        }
    }
}

impl Sink for Unpacker<'_> {
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        if let Some(why) = stop(self.around) {
            return Err(self.refuse(why));
        }
        make_folder(&self.top.join(path))
    }

    fn file(&mut self, path: &Path, mode: u32, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        if let Err(refused) = expect_room(&self.top, bytes, self.free_bytes_least) {
            return Err(self.refuse(refused));
        }
        let place = self.place(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
        let mut buffer = vec![0; PART_BYTES];
        loop {
            if let Some(why) = stop(self.around) {
                return Err(self.refuse(why));
            }
            let read = match content.read(&mut buffer) {
                Ok(read) => read,
                // The archive's own fault, and not that of the disk that is written to.
                Err(source) => {
                    let torn = || FetchError::disk("reading from the archive", path)(source);
                    let why = stop(self.around).unwrap_or_else(torn);
                    return Err(self.refuse(why));
                }
            };
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read])?;
        }
        // Exactly that mode, whatever the umask.
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        symlink(target, self.place(path)?)
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        std::fs::hard_link(self.top.join(target), self.place(path)?)
    }
}

/// Makes a folder with those above it; one that is there stays.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}
