//! What a step prints, stamped and handed on: its throughput beside that of tee(1) and cat(1), and the memory it takes.
//!
//! Both sides of a pair write into `cat >/dev/null`. Their minima are compared, because both only ever lose time to
//! whatever else the machine does.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::figures::Figure;
use crate::memory::MEGABYTE;
use crate::process::memory_of;

/// Pairs that take turns.
const PAIRS: usize = 7;
/// Bytes that a step prints in lines of a hundred.
const HUNDREDS_BYTES: usize = 500_000_000;
/// Bytes that a step prints in lines of two: seventeen times as much once stamped.
const TWOS_BYTES: usize = 100_000_000;
/// Between two looks at the memory of a process. What is read is its own high-water mark.
const LOOK: Duration = Duration::from_millis(10);
/// Target in megabytes.
const RESIDENT_MEGABYTES: f64 = 10.0;

/// Makes the command that runs `cat INPUT` as a step with this log, its output on its standard output.
pub type Drive = Box<dyn Fn(&Path, Option<&Path>) -> Command + Send>;

/// A step through the agent's tee alone.
pub fn tee_alone(program: PathBuf) -> Drive {
    Box::new(move |input, log| {
        let mut command = Command::new(&program);
        command.arg(input).args(log);
        command
    })
}

/// One comparison.
struct Comparison<'a> {
    name: &'a str,
    /// What the step prints.
    input: &'a Path,
    /// What the limit is fed.
    beside: &'a Path,
    with_log: bool,
    /// The ratio that is allowed.
    most: f64,
}

/// Measures all of it, with its files in `folder`, which the caller removes.
pub fn measure(drive: &Drive, folder: &Path) -> Result<Vec<Figure>> {
    let [hundreds, twos, stamped] = ["hundreds", "twos", "stamped"].map(|name| folder.join(name));
    write_lines(&hundreds, 100, HUNDREDS_BYTES)?;
    write_lines(&twos, 2, TWOS_BYTES)?;
    let file = File::create(&stamped).context("making the stamped lines")?;
    let status = drive(&twos, None).stdout(file).status().context("stamping lines")?;
    ensure!(status.success(), "the step ended with {status}");
    let (mut figures, mut peak) = (Vec::new(), 0);
    for (name, input, beside, with_log, most) in [
        ("500 MB in lines of 100 bytes, with a log", &hundreds, &hundreds, true, 1.5),
        ("500 MB in lines of 100 bytes, no log", &hundreds, &hundreds, false, 2.5),
        ("100 MB in lines of 2 bytes, with a log", &twos, &stamped, true, 2.0),
        ("100 MB in lines of 2 bytes, no log", &twos, &stamped, false, 2.0),
    ] {
        figures.push(compare(drive, folder, &Comparison { name, input, beside, with_log, most }, &mut peak)?);
    }
    let peak = peak as f64 / MEGABYTE;
    figures.push(Figure::new("peak memory of a step's agent", "MB", &[peak]).under(RESIDENT_MEGABYTES));
    Ok(figures)
}

fn compare(drive: &Drive, folder: &Path, comparison: &Comparison<'_>, peak: &mut u64) -> Result<Figure> {
    let Comparison { name, input, beside, with_log, most } = *comparison;
    let log = with_log.then(|| folder.join("log"));
    let mut pairs = Vec::with_capacity(PAIRS);
    for _pair in 0..PAIRS {
        let own = run(drive(input, log.as_deref()), log.as_deref())?;
        *peak = own.resident_peak.max(*peak);
        let mut limit = Command::new(if with_log { "tee" } else { "cat" });
        limit.args(&log).stdin(File::open(beside).context("opening the lines")?);
        pairs.push((own.seconds, run(limit, log.as_deref())?.seconds));
    }
    let own: Vec<f64> = pairs.iter().map(|(own, _limit)| *own).collect();
    let limit = if with_log { "tee FILE" } else { "cat" };
    Ok(Figure::new(name, "s", &own).beside_by_minima(limit, &pairs).at_most_of_limit(most))
}

/// What a run took.
struct Taken {
    seconds: f64,
    resident_peak: u64,
}

/// Runs a command into `cat >/dev/null`, then removes its log: nobody pays for what another wrote.
fn run(mut command: Command, log: Option<&Path>) -> Result<Taken> {
    let began = Instant::now();
    let mut writer = command.stdout(Stdio::piped()).spawn().context("starting what is measured")?;
    let output = writer.stdout.take().expect("standard output was asked for as a pipe");
    let mut reader = Command::new("cat");
    let mut reader = reader.stdin(output).stdout(Stdio::null()).spawn().context("starting cat")?;
    let pid = writer.id();
    let looking = std::thread::spawn(move || {
        let mut peak = 0;
        // A process that has ended has no memory, which ends the looking.
        while let Ok(memory) = memory_of(pid) {
            peak = memory.resident_peak.max(peak);
            std::thread::sleep(LOOK);
        }
        peak
    });
    let ended = (writer.wait()?, reader.wait()?);
    let seconds = began.elapsed().as_secs_f64();
    ensure!(ended.0.success() && ended.1.success(), "ended with {} and {}", ended.0, ended.1);
    let resident_peak = looking.join().ok().context("looking at its memory")?;
    if let Some(log) = log {
        std::fs::remove_file(log).context("removing the log")?;
    }
    Ok(Taken { seconds, resident_peak })
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
