//! What the hidden subcommand `chroot-exec` is told: which program to become, with what, and where.
//!
//! It goes over a socket that only the two processes hold, never over a file, the command line or the environment: the
//! environment of a step may hold secrets. Its form is a length and that many bytes of strings, each ended by a NUL,
//! which none of them can hold.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The most that is sent or taken: well over what the kernel passes to a program (6 MB).
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the length that goes first.
const LENGTH_BYTES: usize = 4;

/// Which program to become, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// Program and arguments. A program without a slash is looked for in the `PATH` of `environment`.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder to enter as the root; none stays where the agent is.
    pub root: Option<PathBuf>,
    /// Working folder, inside the root.
    pub directory: PathBuf,
    /// Leave the program's mode as it is. Otherwise it is made executable for all.
    pub no_chmod: bool,
}

impl ControlData {
    /// As it is sent.
    ///
    /// # Errors
    /// Where it could not be passed to a program: nothing to run, a NUL in a string, a variable's name that is empty
    /// or holds `=`, more than 16 MiB in all.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; LENGTH_BYTES];
        if self.argv.is_empty() {
            return Err("there is no program to run".to_owned());
        }
        push(&mut bytes, if self.no_chmod { b"1" } else { b"0" })?;
        push(&mut bytes, self.root.as_ref().map_or(OsStr::new(""), |root| root.as_os_str()).as_bytes())?;
        push(&mut bytes, self.directory.as_os_str().as_bytes())?;
        push(&mut bytes, self.argv.len().to_string().as_bytes())?;
        for argument in &self.argv {
            push(&mut bytes, argument.as_bytes())?;
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(format!("{name:?} cannot be the name of an environment variable"));
            }
            push(&mut bytes, &[name.as_bytes(), b"=", value.as_bytes()].concat())?;
        }
        let length = bytes.len() - LENGTH_BYTES;
        let sent = u32::try_from(length).ok().filter(|_fits| length <= BYTES_MAX);
        let sent = sent.ok_or_else(|| format!("arguments and environment are {length} bytes long"))?;
        bytes[..LENGTH_BYTES].copy_from_slice(&sent.to_le_bytes());
        Ok(bytes)
    }

    /// Reads what [`ControlData::encode`] made, and not a byte more.
    ///
    /// # Errors
    /// Where the sender is gone, or it was sent by something else.
    pub(super) fn read(from: &mut impl Read) -> io::Result<ControlData> {
        let mut length = [0; LENGTH_BYTES];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the control data is malformed");
        if length > BYTES_MAX {
            return Err(malformed());
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        parse(&bytes).ok_or_else(malformed)
    }
}

fn push(bytes: &mut Vec<u8>, text: &[u8]) -> Result<(), String> {
    if text.contains(&0) {
        // Its value may be secret: only what comes before the first `=` of a variable is shown.
        let shown = text.split(|byte| matches!(byte, 0 | b'=')).next().unwrap_or_default();
        return Err(format!("{:?} holds a NUL byte", String::from_utf8_lossy(shown)));
    }
    bytes.extend_from_slice(text);
    bytes.push(0);
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<ControlData> {
    let mut texts = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
    let mut next = || Some(OsString::from_vec(texts.next()?.to_vec()));
    let no_chmod = next()? == "1";
    let root = Some(PathBuf::from(next()?)).filter(|root| !root.as_os_str().is_empty());
    let directory = PathBuf::from(next()?);
    let count: usize = next()?.to_str()?.parse().ok()?;
    let argv = (0..count).map(|_one| next()).collect::<Option<Vec<OsString>>>()?;
    let mut environment = Vec::new();
    while let Some(variable) = next() {
        let equals = variable.as_bytes().iter().position(|byte| *byte == b'=')?;
        let (name, value) = variable.as_bytes().split_at(equals);
        environment.push((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()));
    }
    (count > 0).then_some(ControlData { argv, environment, root, directory, no_chmod })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data() -> ControlData {
        ControlData {
            argv: vec!["/a b".into(), "".into(), OsString::from_vec(b"\xff".to_vec())],
            environment: vec![
                ("ML".into(), "line1\nB=injected\n".into()),
                ("EMPTY".into(), "".into()),
                ("E".into(), "=".into()),
            ],
            root: Some("/root mount".into()),
            directory: "/opt".into(),
            no_chmod: true,
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for data in [data(), ControlData { root: None, environment: Vec::new(), no_chmod: false, ..data() }] {
            let sent = data.encode().unwrap();
            let mut from = sent.as_slice();
            assert_eq!(ControlData::read(&mut from).unwrap(), data);
            assert!(from.is_empty());
        }
    }

    #[test]
    fn what_no_program_can_be_given_is_refused_by_name_and_without_its_value() {
        let refused = |change: fn(&mut ControlData)| {
            let mut data = data();
            change(&mut data);
            data.encode().unwrap_err()
        };
        assert_eq!(refused(|data| data.argv.clear()), "there is no program to run");
        assert_eq!(refused(|data| data.argv[1] = "x\0y".into()), "\"x\" holds a NUL byte");
        let message = refused(|data| data.environment[0].1 = "se\0cret".into());
        assert_eq!(message, "\"ML\" holds a NUL byte");
        let message = refused(|data| data.environment[0].0 = "A=B".into());
        assert_eq!(message, "\"A=B\" cannot be the name of an environment variable");
        let message = refused(|data| data.argv[1] = OsString::from_vec(vec![b'x'; BYTES_MAX]));
        assert!(message.starts_with("arguments and environment are 16777"), "{message}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..200)) {
            let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
            framed.extend(bytes);
            if let Ok(data) = ControlData::read(&mut framed.as_slice()) {
                prop_assert!(!data.argv.is_empty());
            }
        }
    }
}
