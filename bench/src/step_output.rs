//! What a step of a package prints, stamped and handed on: its throughput beside that of tee(1) and cat(1), and the
//! memory that the agent takes meanwhile.
//!
//! Both sides of a pair write into `cat >/dev/null`. Their minima are compared, because both only ever lose time to
//! whatever else the machine does.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::figures::Figure;
use crate::memory::MEGABYTE;
use crate::package::Package;
use crate::peak;

/// Pairs that take turns.
const PAIRS: usize = 7;
/// Bytes that a step prints in lines of a hundred.
const HUNDREDS_BYTES: usize = 500_000_000;
/// Bytes that a step prints in lines of two: seventeen times as much once stamped.
const TWOS_BYTES: usize = 100_000_000;
/// Target in megabytes.
const RESIDENT_MEGABYTES: f64 = 10.0;

/// A step that prints a file, and places for it: each run has its own, where no flag says that it was done.
struct Printer {
    package: Package,
    places: PathBuf,
    runs: Cell<usize>,
}

impl Printer {
    fn of(agent: &Path, folder: &Path, input: &Path) -> Result<Printer> {
        let name = input.file_name().context("a file has a name")?;
        let folder = folder.join("packages").join(name);
        let package = Package::write(agent, &folder, &[format!("exec cat '{}'", input.display())])?;
        Ok(Printer { package, places: folder.join("places"), runs: Cell::new(0) })
    }

    /// The next run's place, which holds its logs.
    fn place(&self) -> PathBuf {
        self.places.join(self.runs.replace(self.runs.get() + 1).to_string())
    }

    /// The command whose memory is looked at, and its place.
    fn watched(&self, with_logs: bool, peak: &Path) -> Result<(Command, PathBuf)> {
        let place = self.place();
        Ok((self.package.apply_watched(&place, with_logs, peak)?, place))
    }
}

/// One comparison.
struct Comparison<'a> {
    name: &'a str,
    /// The step.
    step: &'a Printer,
    /// What the limit is fed.
    beside: &'a Path,
    with_log: bool,
    /// The ratio that is allowed.
    most: f64,
}

/// Measures all of it, with its files in `folder`, which the caller removes.
///
/// # Errors
/// Where a step or its limit fails.
pub fn measure(agent: &Path, folder: &Path) -> Result<Vec<Figure>> {
    let [hundreds, twos, stamped] = ["hundreds", "twos", "stamped"].map(|name| folder.join(name));
    write_lines(&hundreds, 100, HUNDREDS_BYTES)?;
    write_lines(&twos, 2, TWOS_BYTES)?;
    let [of_hundreds, of_twos] = [Printer::of(agent, folder, &hundreds)?, Printer::of(agent, folder, &twos)?];
    let file = File::create(&stamped).context("making the stamped lines")?;
    let status =
        of_twos.package.apply(&of_twos.place(), false).stdout(file).status().context("stamping lines")?;
    ensure!(status.success(), "the step ended with {status}");
    let mut figures = Vec::new();
    for (name, step, beside, with_log, most) in [
        ("500 MB in lines of 100 bytes, with a log", &of_hundreds, &hundreds, true, 1.5),
        ("500 MB in lines of 100 bytes, no log", &of_hundreds, &hundreds, false, 2.5),
        ("100 MB in lines of 2 bytes, with a log", &of_twos, &stamped, true, 2.0),
        ("100 MB in lines of 2 bytes, no log", &of_twos, &stamped, false, 2.0),
    ] {
        figures.extend(compare(folder, &Comparison { name, step, beside, with_log, most })?);
    }
    Ok(figures)
}

/// The throughput, and the most memory that the agent had in any of the runs.
fn compare(folder: &Path, comparison: &Comparison<'_>) -> Result<[Figure; 2]> {
    let Comparison { name, step, beside, with_log, most } = *comparison;
    let (log, peak_file) = (folder.join("log"), folder.join("peak"));
    let (mut pairs, mut peak) = (Vec::with_capacity(PAIRS), 0);
    for _pair in 0..PAIRS {
        let (command, place) = step.watched(with_log, &peak_file)?;
        let own = seconds(command, Some(&place))?;
        peak = peak::read(&peak_file)?.max(peak);
        // Both are looked at, so that both pay for it.
        let program = OsStr::new(if with_log { "tee" } else { "cat" });
        let mut limit = peak::watched(program, &peak_file)?;
        let log = with_log.then_some(&*log);
        limit.args(log).stdin(File::open(beside).context("opening the lines")?);
        pairs.push((own, seconds(limit, log)?));
    }
    let own: Vec<f64> = pairs.iter().map(|(own, _limit)| *own).collect();
    let limit = if with_log { "tee FILE" } else { "cat" };
    Ok([
        Figure::new(name, "s", &own).beside_by_minima(limit, &pairs).at_most_of_limit(most),
        peak_figure(name, peak),
    ])
}

/// The most memory that an agent had, beside what it may have.
pub fn peak_figure(name: &str, bytes: u64) -> Figure {
    let peak = bytes as f64 / MEGABYTE;
    Figure::new(&format!("its agent's peak memory, {name}"), "MB", &[peak]).under(RESIDENT_MEGABYTES)
}

/// Runs a command into `cat >/dev/null`, then removes what it wrote: nobody pays for what another wrote.
///
/// # Errors
/// Where one of the two fails.
fn seconds(mut command: Command, wrote: Option<&Path>) -> Result<f64> {
    let began = Instant::now();
    let mut writer = command.stdout(Stdio::piped()).spawn().context("starting what is measured")?;
    let output = writer.stdout.take().expect("standard output was asked for as a pipe");
    let mut reader = Command::new("cat");
    let mut reader = reader.stdin(output).stdout(Stdio::null()).spawn().context("starting cat")?;
    let ended = (writer.wait()?, reader.wait()?);
    let seconds = began.elapsed().as_secs_f64();
    ensure!(ended.0.success() && ended.1.success(), "ended with {} and {}", ended.0, ended.1);
    match wrote {
        Some(path) if path.is_dir() => std::fs::remove_dir_all(path).context("removing a run's place")?,
        Some(path) => std::fs::remove_file(path).context("removing the log")?,
        None => {}
    }
    Ok(seconds)
}

fn write_lines(path: &Path, line_bytes: usize, bytes: usize) -> Result<()> {
    let mut line = vec![b'x'; line_bytes - 1];
    line.push(b'\n');
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for _line in 0..bytes / line_bytes {
            file.write_all(&line)?;
        }
        file.flush()
    };
    write().with_context(|| format!("writing {}", path.display()))
}
