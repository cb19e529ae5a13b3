//! What fio says in JSON (`--output-format=json`), checked against fio 3.33. Pure.
//!
//! A load whose numbers are missing or contradict each other gives none. Which errors are the disk's: those by which the
//! kernel says that a medium, a link or a device failed; any other tells of the way fio was used.

use serde_json::Value;

/// How far bytes and reads may be from rate and time, of which the last is rounded to a millisecond.
const CONTRADICTION: f64 = 0.02;

/// Which of its numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// A load that ran.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    /// Reads or writes that failed.
    pub errors: u64,
    pub bytes: f64,
    /// Bytes that were read: the same for reads; for writes those that were read back to be checked.
    pub bytes_read: f64,
    pub seconds: f64,
    pub bytes_per_second: f64,
    pub iops: f64,
    /// What 99 of 100 ended within, where any ended well.
    pub p99_ms: Result<f64, String>,
}

/// Errors by which the kernel says that the disk failed: EIO, ENXIO, ENODEV, ENODATA (a medium that cannot be read), ENOLINK,
/// EILSEQ (its data's integrity; fio's for a wrong checksum), ETIMEDOUT, EREMOTEIO (include/linux/blk_types.h).
/// Not EBADE, by which another host says that it reserved the disk.
const ERRORS_OF_DISKS: [i64; 8] = [5, 6, 19, 61, 67, 84, 110, 121];

/// Reads what fio printed.
///
/// # Errors
/// Where it says nothing of the disk.
pub(super) fn load(stdout: &[u8], direction: Direction) -> Result<Load, String> {
    let job = job(stdout)?;
    let error = whole(&job, "/error")?;
    // The count is there where errors are passed over, as they are asked to be; one that ended the load is one.
    let total = match whole(&job, "/total_err") {
        Err(_) if error != 0 => 1,
        total => total?,
    };
    let first = whole(&job, "/first_error").ok();
    // With errors passed over, the first of them says what they are; it is 0 for one that ended the load.
    for code in [Some(error), first].into_iter().flatten() {
        if code != 0 && !ERRORS_OF_DISKS.contains(&code) {
            let words = i32::try_from(code).map(std::io::Error::from_raw_os_error);
            let words = words.map_or_else(|_| format!("error {code}"), |error| error.to_string());
            return Err(format!("fio could not do its work: {words}"));
        }
    }
    let errors = total.max(i64::from(error != 0));
    let errors = u64::try_from(errors).map_err(|_| format!("fio says {total} errors"))?;
    let key = match direction {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    let bytes_read = number(&job, "/read/io_bytes")?;
    let number = |name: &str| number(&job, &format!("/{key}/{name}"));
    let load = Load {
        errors,
        bytes: number("io_bytes")?,
        bytes_read,
        seconds: number("runtime")? / 1000.0,
        bytes_per_second: number("bw_bytes")?,
        iops: number("iops")?,
        p99_ms: number("clat_ns/percentile/99.000000").map(|ns| ns / 1e6),
    };
    // Errors count even of a load that did nothing else.
    if errors == 0 {
        contradiction(&load, number("total_ios")?).map_or(Ok(()), Err)?;
    }
    Ok(load)
}

/// The one job. fio puts plain lines before its JSON where a read fails.
fn job(stdout: &[u8]) -> Result<Value, String> {
    let begins = |line: &[u8]| line.first() == Some(&b'{');
    let at = stdout.split_inclusive(|byte| *byte == b'\n').scan(0, |at, line| {
        let from = *at;
        *at += line.len();
        Some((from, begins(line)))
    });
    let from = at.into_iter().find_map(|(from, begins)| begins.then_some(from));
    let from = from.ok_or("fio printed no JSON")?;
    let json: Value =
        serde_json::from_slice(&stdout[from..]).map_err(|error| format!("fio printed no JSON: {error}"))?;
    match json.pointer("/jobs").and_then(Value::as_array).map(Vec::as_slice) {
        Some([job]) => Ok(job.clone()),
        Some(jobs) => Err(format!("fio tells of {} jobs, expected 1", jobs.len())),
        None => Err("fio tells of no job".to_owned()),
    }
}

fn whole(job: &Value, pointer: &str) -> Result<i64, String> {
    job.pointer(pointer).and_then(Value::as_i64).ok_or_else(|| format!("fio says no number under {pointer}"))
}

fn number(job: &Value, pointer: &str) -> Result<f64, String> {
    let number = job.pointer(pointer).and_then(Value::as_f64);
    number
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("fio says no number under {pointer}"))
}

/// What is wrong with numbers that do not belong together, or with a load that did nothing.
fn contradiction(load: &Load, ios: f64) -> Option<String> {
    if load.bytes <= 0.0 || load.seconds <= 0.0 || ios <= 0.0 {
        return Some("fio did nothing".to_owned());
    }
    let near = |rate: f64, amount: f64| {
        let expected = amount / load.seconds;
        (rate - expected).abs() <= CONTRADICTION * expected.max(rate) + 1.0
    };
    let fits = near(load.bytes_per_second, load.bytes) && near(load.iops, ios);
    (!fits).then(|| {
        let Load { bytes, seconds, bytes_per_second, iops, .. } = load;
        format!("fio says {bytes} bytes and {ios} requests in {seconds} s, and {bytes_per_second} bytes and {iops} requests per second")
    })
}
