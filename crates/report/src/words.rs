//! Moments, lengths of time and verdicts as people read them.

use groundcrew_protocol::check::{Check, Verdict};
use groundcrew_protocol::report::StageReport;
use groundcrew_protocol::time::WallMs;

/// A moment to the second, in UTC.
pub(crate) fn moment(at: WallMs) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(stamp) => {
            let time = jiff::tz::TimeZone::UTC.to_datetime(stamp);
            format!("{} {:.0} UTC", time.date(), time.time())
        }
        Err(_) => at.to_string(),
    }
}

/// A length of time in its two largest units.
pub(crate) fn duration(span_ms: i64) -> String {
    let seconds = span_ms.max(0) / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, _) => format!("{}.{} s", seconds, span_ms.max(0) % 1000 / 100),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

/// How long a stage took, where it began and ended.
pub(crate) fn stage_duration(stage: &StageReport) -> Option<String> {
    Some(duration(stage.ended?.0.saturating_sub(stage.began?.0)))
}

/// A sign beside the word, so that colour never stands alone.
pub fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✓",
        Verdict::Warn => "!",
        Verdict::Fail => "✗",
        Verdict::Inconclusive => "?",
        Verdict::Skipped => "–",
    }
}

/// Worst first, in the order in which somebody wants to read.
pub(crate) fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fail => 0,
        Verdict::Inconclusive => 1,
        Verdict::Warn => 2,
        Verdict::Skipped => 3,
        Verdict::Pass => 4,
    }
}

/// A check that passed with nothing to say about it.
pub(crate) fn is_plain_pass(check: &Check) -> bool {
    check.verdict == Verdict::Pass && check.reason.is_empty()
}

/// A number of things: `1 check`, `2 checks`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Bytes in the unit that makers use (powers of 1000).
pub(crate) fn bytes_decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Bytes in the unit that memory is sold in (powers of 1024).
pub(crate) fn bytes_binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn scaled(bytes: u64, step: f64, units: [&str; 6]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let text = if value < 10.0 && unit > 0 { format!("{value:.2}") } else { format!("{value:.1}") };
    let short = text.trim_end_matches('0').trim_end_matches('.');
    format!("{short} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_and_sizes_read_well() {
        for (ms, text) in [
            (-5, "0.0 s"),
            (1_250, "1.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 0 s"),
            (3_723_000, "1 h 2 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(bytes_decimal(0), "0 B");
        assert_eq!(bytes_decimal(960_197_124_096), "960.2 GB");
        assert_eq!(bytes_decimal(3_840_755_982_336), "3.84 TB");
        assert_eq!(bytes_binary(68_719_476_736), "64 GiB");
        assert_eq!(bytes_binary(u64::MAX), "16384 PiB");
        assert_eq!(moment(WallMs(0)), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(WallMs(i64::MAX)), "9223372036854775807 ms");
    }
}
