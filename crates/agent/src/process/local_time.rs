//! Local time as the lines of a step carry it: naive, ISO 8601, always six digits of fraction.
//!
//! The text is made once a second; within a second only its fraction is written anew, so that a stamp costs less than
//! the read that it is for. Because the zone is asked for each second, a change of its offset is seen in the second in
//! which it happens.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The rules of the system's zone, as tzfile(5) describes them.
const LOCALTIME: &str = "/etc/localtime";
/// The largest of the zone database has 4 kB.
const RULES_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 26;
/// Where its fraction begins.
const FRACTION: usize = 20;

/// A moment, as `2026-11-20T19:41:23.066671`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([u8; STAMP_BYTES]);

impl Stamp {
    /// Its text, which is ASCII.
    pub fn as_bytes(&self) -> &[u8; STAMP_BYTES] {
        &self.0
    }

    /// A stamp with this text.
    pub const fn from_text(text: [u8; STAMP_BYTES]) -> Stamp {
        Stamp(text)
    }
}

/// Makes stamps in one zone.
#[derive(Debug)]
pub struct LocalTime {
    zone: TimeZone,
    /// The second that `text` was made for, since 1970.
    second: Option<i64>,
    text: [u8; STAMP_BYTES],
}

impl LocalTime {
    /// In the zone of the environment variable `TZ`, else of /etc/localtime, else UTC.
    pub fn of_system() -> LocalTime {
        let own = if std::env::var_os("TZ").is_none() { zone_in(Path::new(LOCALTIME)) } else { None };
        LocalTime::in_zone(own.unwrap_or_else(TimeZone::system))
    }

    /// In this zone.
    pub fn in_zone(zone: TimeZone) -> LocalTime {
        LocalTime { zone, second: None, text: *b"0000-00-00T00:00:00.000000" }
    }

    /// Now.
    pub fn now(&mut self) -> Stamp {
        self.at(Timestamp::now())
    }

    /// At this moment.
    pub fn at(&mut self, moment: Timestamp) -> Stamp {
        // The clock may stand before 1970: the second is the one that the fraction counts up from.
        let microsecond = moment.as_microsecond();
        let (second, fraction) = (microsecond.div_euclid(1_000_000), microsecond.rem_euclid(1_000_000));
        if self.second != Some(second) {
            self.write_second(moment);
            self.second = Some(second);
        }
        write_digits(&mut self.text[FRACTION..], fraction.unsigned_abs());
        Stamp(self.text)
    }

    fn write_second(&mut self, moment: Timestamp) {
        let local = self.zone.to_datetime(moment);
        let year = u64::from(local.year().unsigned_abs());
        write_digits(&mut self.text[0..4], year);
        let rest = [local.month(), local.day(), local.hour(), local.minute(), local.second()];
        for (at, value) in [5, 8, 11, 14, 17].into_iter().zip(rest) {
            write_digits(&mut self.text[at..at + 2], u64::from(value.unsigned_abs()));
        }
    }
}

/// The zone whose rules a file holds. The library would look for the zone's name as well, and open each of the hundreds of
/// files of the zone database for that, which takes longer than most steps.
fn zone_in(path: &Path) -> Option<TimeZone> {
    let mut rules = Vec::new();
    File::open(path).ok()?.take(RULES_BYTES_MAX).read_to_end(&mut rules).ok()?;
    // What is no such file is left to the library, as is one that is not there.
    TimeZone::tzif("", &rules).ok()
}

/// Fills `place` with the last digits of a number.
fn write_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(time: &mut LocalTime, moment: &str) -> String {
        String::from_utf8(time.at(moment.parse().unwrap()).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_rules_in_a_file_are_those_of_its_zone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("localtime");
        assert!(zone_in(&path).is_none());
        std::fs::write(&path, "no rules").unwrap();
        assert!(zone_in(&path).is_none());
        // tzfile(5), version 2 with nothing but the rule at its end: the first block is empty, as is the second.
        let head = [&b"TZif2"[..], &[0; 15], &[0; 12], &[0, 0, 0, 0], &[0, 0, 0, 1], &[0, 0, 0, 4]].concat();
        let one_type = b"\0\0\0\0\0\0UTC\0";
        let rule = b"\nIST-5:30\n";
        std::fs::write(&path, [&head[..], one_type, &head, one_type, rule].concat()).unwrap();
        let mut time = LocalTime::in_zone(zone_in(&path).unwrap());
        assert_eq!(text(&mut time, "2026-11-20T19:41:23Z"), "2026-11-21T01:11:23.000000");
    }

    #[test]
    fn the_fraction_has_six_digits_always() {
        let mut time = LocalTime::in_zone(TimeZone::UTC);
        assert_eq!(text(&mut time, "2026-11-20T19:41:23Z"), "2026-11-20T19:41:23.000000");
        assert_eq!(text(&mut time, "2026-11-20T19:41:23.000000999Z"), "2026-11-20T19:41:23.000000");
        assert_eq!(text(&mut time, "2026-11-20T19:41:23.0666719Z"), "2026-11-20T19:41:23.066671");
        assert_eq!(text(&mut time, "2026-11-20T19:41:24Z"), "2026-11-20T19:41:24.000000");
        assert_eq!(text(&mut time, "2026-11-20T19:41:23.5Z"), "2026-11-20T19:41:23.500000");
        assert_eq!(text(&mut time, "1969-12-31T23:59:59.25Z"), "1969-12-31T23:59:59.250000");
    }

    #[test]
    fn a_change_of_the_offset_is_seen_in_its_second() {
        // Central Europe by the rules of POSIX: no zone file is needed.
        let mut time = LocalTime::in_zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        assert_eq!(text(&mut time, "2026-03-29T00:59:59.999999Z"), "2026-03-29T01:59:59.999999");
        assert_eq!(text(&mut time, "2026-03-29T01:00:00Z"), "2026-03-29T03:00:00.000000");
        assert_eq!(text(&mut time, "2026-10-25T00:59:59Z"), "2026-10-25T02:59:59.000000");
        assert_eq!(text(&mut time, "2026-10-25T01:00:00Z"), "2026-10-25T02:00:00.000000");
    }

    #[test]
    fn each_moment_is_written_as_the_library_writes_it() {
        let mut time = LocalTime::in_zone(TimeZone::posix("IST-5:30").unwrap());
        for step in 0..2000i64 {
            let moment = Timestamp::from_microsecond(step * 39_916_801_234_567 - 5_000_000).unwrap();
            let local = TimeZone::posix("IST-5:30").unwrap().to_datetime(moment);
            let expected = local.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string();
            assert_eq!(String::from_utf8_lossy(time.at(moment).as_bytes()), expected);
        }
    }
}
