//! One run of fio on one file or disk.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use super::parse::{self, Direction, Load};
use crate::vet::StageContext;
use crate::vet::json_tool::Call;

/// fio lays out its jobs, and waits for reads that are under way, for as long beside its load.
const MARGIN: Duration = Duration::from_secs(60);
/// The longest that any load may take; the stage's deadline comes before.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Reads from the beginning on, and again from there, for this long.
    Sequential {
        /// Milliseconds.
        ms: u64,
    },
    /// Reads from the beginning to the end once.
    WholeSurface,
    /// Reads here and there for this long.
    Random {
        /// Milliseconds.
        ms: u64,
    },
    /// Writes a file of this size and reads it back, by checksums.
    File {
        /// MiB.
        mib: u64,
    },
    /// Writes over a disk from its beginning on and reads it back, by checksums.
    Overwrite {
        /// How much of it.
        bytes: u64,
    },
}

/// A run of fio.
pub(super) struct Fio<'a> {
    pub context: &'a StageContext,
    pub pattern: Pattern,
    /// What it reads, or for a file what it writes.
    pub file: &'a Path,
    /// Whose errors these are, for the log.
    pub about: &'a str,
    pub deadline: Instant,
}

/// What came of it.
pub(super) struct Ran {
    pub command: String,
    pub load: Result<Load, String>,
    pub raw: Option<Vec<u8>>,
}

impl Fio<'_> {
    /// Runs it.
    pub fn run(self) -> Ran {
        let time = match self.pattern {
            Pattern::Sequential { ms } | Pattern::Random { ms } => Duration::from_millis(ms) + MARGIN,
            Pattern::WholeSurface | Pattern::File { .. } | Pattern::Overwrite { .. } => LONGEST,
        };
        let call = Call {
            context: self.context,
            program: "fio",
            arguments: arguments(self.pattern, self.file),
            time,
            deadline: self.deadline,
            about: self.about.to_owned(),
        };
        let command = call.command();
        let said = match call.run() {
            Ok(said) => said,
            Err(why) => return Ran { command, load: Err(why), raw: None },
        };
        let direction = match self.pattern {
            Pattern::Sequential { .. } | Pattern::WholeSurface | Pattern::Random { .. } => Direction::Read,
            Pattern::File { .. } | Pattern::Overwrite { .. } => Direction::Write,
        };
        let load = ended(parse::load(&said.stdout, direction), said.exit);
        Ran { command, load, raw: Some(said.stdout) }
    }
}

/// A load that did not end well is none, whatever it counted until then, but for the errors that it saw.
pub(super) fn ended(load: Result<Load, String>, status: i32) -> Result<Load, String> {
    let why = match load {
        Ok(load) if status == 0 || load.errors > 0 => return Ok(load),
        Ok(_) => "fio did not end well".to_owned(),
        Err(why) => why,
    };
    Err(format!("{why} (fio ended with status {status})"))
}

const WRITTEN: [&str; 6] =
    ["--rw=write", "--bs=1M", "--iodepth=8", "--verify=crc32c", "--do_verify=1", "--end_fsync=1"];

/// What so many bytes are written with and read back. It would leave the state of the check in a file, in whatever folder it was
/// started in.
fn written(bytes: u64) -> [OsString; 2] {
    [format!("--size={bytes}").into(), "--verify_state_save=0".into()]
}

fn arguments(pattern: Pattern, file: &Path) -> Vec<OsString> {
    let mut filename = OsString::from("--filename=");
    filename.push(file);
    let mut arguments: Vec<OsString> = vec!["--name=groundcrew".into(), filename];
    let timed = |ms: u64| [format!("--runtime={ms}ms"), "--time_based".to_owned()].map(OsString::from);
    let options: &[&str] = match pattern {
        Pattern::Sequential { ms } => {
            arguments.extend(timed(ms));
            &["--readonly", "--rw=read", "--bs=1M", "--iodepth=8"]
        }
        Pattern::WholeSurface => &["--readonly", "--rw=read", "--bs=1M", "--iodepth=8", "--size=100%"],
        Pattern::Random { ms } => {
            arguments.extend(timed(ms));
            &["--readonly", "--rw=randread", "--bs=4k", "--iodepth=32", "--norandommap"]
        }
        Pattern::File { mib } => {
            arguments.extend(written(mib << 20));
            &WRITTEN
        }
        Pattern::Overwrite { bytes } => {
            arguments.extend(written(bytes));
            &WRITTEN
        }
    };
    arguments.extend(options.iter().map(OsString::from));
    // Errors are counted, and do not end the load: how many there are says more than that there is one.
    let always =
        ["--ioengine=libaio", "--direct=1", "--continue_on_error=io", "--output-format=json", "--eta=never"];
    arguments.extend(always.iter().map(OsString::from));
    arguments
}
