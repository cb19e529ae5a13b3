//! The log of events (System Event Log) of a BMC: records of 16 bytes, each with an id of its own (IPMI 2.0, section 32).

use super::{Happening, sensors};

/// More than any test logs.
const RECORDS_MAX: usize = 256;
const RECORD_BYTES: u16 = 16;
/// The id that asks for the last record, and that says that none follows.
pub(super) const LAST: u16 = 0xffff;
/// 1 January 2026, since when each record is a minute after the one before.
const FIRST_AT_S: u32 = 1_767_225_600;
/// Ids need not follow one another.
const ID_STEP: u16 = 3;

/// What was logged, in order.
#[derive(Debug)]
pub(super) struct Log {
    records: Vec<(u16, [u8; 14])>,
    next_id: u16,
    after_next_reading: Vec<Happening>,
}

impl Default for Log {
    /// Failures of before.
    fn default() -> Log {
        let mut log = Log { records: Vec::new(), next_id: 1, after_next_reading: Vec::new() };
        log.add(Happening::SupplyFailed(0));
        log.add(Happening::MemoryUncorrectable);
        log
    }
}

impl Log {
    fn add(&mut self, happening: Happening) {
        assert!(self.records.len() < RECORDS_MAX, "the log of events is full");
        let (sensor_type, sensor, event_type, event) = match happening {
            Happening::SupplyFailed(number) => {
                let number = u8::try_from(number).expect("a machine has few supplies");
                (sensors::TYPE_SUPPLY, sensors::FIRST_SUPPLY + number, sensors::OWN_EVENTS, 1)
            }
            Happening::MemoryUncorrectable => (sensors::TYPE_MEMORY, sensors::MEMORY, sensors::OWN_EVENTS, 1),
        };
        let at = FIRST_AT_S + 60 * u32::try_from(self.records.len()).expect("there are few records");
        let mut record = [0; 14];
        // A system event of this controller's, in the form of IPMI 1.5 and later, with nothing known beyond the event.
        record[0] = 0x02;
        record[1..5].copy_from_slice(&at.to_le_bytes());
        record[5..].copy_from_slice(&[0x20, 0, 0x04, sensor_type, sensor, event_type, event, 0xff, 0xff]);
        self.records.push((self.next_id, record));
        self.next_id += ID_STEP;
    }

    /// See [`super::Bmc::log_after_next_reading`].
    pub fn add_after_next_reading(&mut self, happening: Happening) {
        self.after_next_reading.push(happening);
    }

    /// How many records there are, and for how many bytes of more there is room.
    pub fn room(&self) -> (u16, u16) {
        let count = self.records.len();
        let of = |count: usize| u16::try_from(count).expect("the log is bounded");
        (of(count), of(RECORDS_MAX - count) * RECORD_BYTES)
    }

    /// The record of that id, or the first or last one, with the id of the next.
    pub fn read(&mut self, id: u16) -> Option<(u16, [u8; 16])> {
        let at = match id {
            0 => 0,
            LAST => self.records.len().checked_sub(1)?,
            id => self.records.iter().position(|(of, _)| *of == id)?,
        };
        let (id, rest) = self.records.get(at)?;
        let mut record = [0; 16];
        record[..2].copy_from_slice(&id.to_le_bytes());
        record[2..].copy_from_slice(rest);
        let next = self.records.get(at + 1).map_or(LAST, |(next, _)| *next);
        if next == LAST {
            for happening in std::mem::take(&mut self.after_next_reading) {
                self.add(happening);
            }
        }
        Some((next, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(log: &mut Log) -> Vec<u16> {
        let (mut ids, mut next) = (Vec::new(), 0);
        while next != LAST {
            let (following, record) = log.read(next).expect("it is there");
            ids.push(u16::from_le_bytes([record[0], record[1]]));
            next = following;
        }
        ids
    }

    #[test]
    fn what_comes_after_a_reading_is_in_the_next_one() {
        let mut log = Log::default();
        assert_eq!(ids(&mut log), [1, 4]);
        log.add_after_next_reading(Happening::SupplyFailed(1));
        assert_eq!(ids(&mut log), [1, 4], "it comes once that was read");
        assert_eq!(ids(&mut log), [1, 4, 7]);
        assert_eq!(ids(&mut log), [1, 4, 7], "it came once");
        assert_eq!(log.room(), (3, 253 * 16));
        let (next, record) = log.read(LAST).unwrap();
        assert_eq!((next, &record[7..]), (LAST, &[0x20, 0, 4, 8, 2, 0x6f, 1, 0xff, 0xff][..]));
        assert!(log.read(2).is_none());
    }
}
