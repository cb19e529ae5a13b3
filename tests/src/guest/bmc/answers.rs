//! What a BMC answers: to the kernel's driver, and to what ipmitool 1.8.19 asks for `sdr`, `sel` and `dcmi power`.

use super::line::Request;
use super::{State, log, sensors};

/// Completion codes (IPMI 2.0, table 5-2).
const DONE: u8 = 0x00;
const TOO_MUCH: u8 = 0xca;
const NOT_THERE: u8 = 0xcb;
const UNKNOWN_COMMAND: u8 = 0xc1;
const WRONG_DATA: u8 = 0xcc;

/// What one message has room for.
const PART_BYTES_MAX: usize = 32;
/// The version of both stores.
const VERSION: u8 = 0x51;
/// A store that may be reserved, which is all that can be done to it here.
const RESERVES: u8 = 0x02;
const RESERVATION: [u8; 2] = [1, 0];
/// The group of DCMI's commands.
const DCMI: u8 = 0xdc;

/// The completion code and what follows it.
pub(super) fn answer(state: &mut State, request: &Request) -> Vec<u8> {
    let data = request.data.as_slice();
    match request.kind() {
        // Which device this is: IPMI 2.0 with sensors, descriptions and a log, of nobody's make.
        (0x06, 0x01) => vec![DONE, 0x20, 0, 1, 0x05, 0x02, 0x07, 0x39, 0x30, 0, 1, 0],
        // What the kernel's driver sets and clears: events of which nothing comes.
        (0x06, 0x2e | 0x30) => vec![DONE],
        (0x06, 0x2f) => vec![DONE, 0x08],
        (0x06, 0x31) => vec![DONE, 0],
        (0x0a, 0x20) => store(sensors::count(), 0x1000, 0x20 | RESERVES),
        (0x0a, 0x22 | 0x42) => [&[DONE], &RESERVATION[..]].concat(),
        (0x0a, 0x23) => description(data),
        (0x04, 0x2d) => match data {
            [number] => sensors::reading(state, *number)
                .map_or(vec![NOT_THERE], |reading| [&[DONE], reading.as_slice()].concat()),
            _ => vec![WRONG_DATA],
        },
        (0x0a, 0x40) => {
            let (count, room) = state.log.room();
            store(count, room, RESERVES)
        }
        (0x0a, 0x43) => entry(state, data),
        (0x2c, 0x02) if data.first() == Some(&DCMI) => power(sensors::watts(state)),
        _ => vec![UNKNOWN_COMMAND],
    }
}

/// What a store holds, for how much more there is room, when it was last changed, and what it can do.
fn store(count: u16, room: u16, can: u8) -> Vec<u8> {
    let mut answer = vec![DONE, VERSION];
    answer.extend(count.to_le_bytes());
    answer.extend(room.to_le_bytes());
    answer.extend([0; 8]);
    answer.push(can);
    answer
}

/// A part of a description, with the id of the next.
fn description(data: &[u8]) -> Vec<u8> {
    let [_, _, low, high, from, count] = data else { return vec![WRONG_DATA] };
    let id = match u16::from_le_bytes([*low, *high]) {
        0 => 1,
        log::LAST => sensors::count(),
        id => id,
    };
    let Some(record) = sensors::description(id) else { return vec![NOT_THERE] };
    let Some(rest) = record.get(usize::from(*from)..) else { return vec![WRONG_DATA] };
    let part = &rest[..rest.len().min(usize::from(*count))];
    if part.len() > PART_BYTES_MAX {
        return vec![TOO_MUCH];
    }
    let next = if id == sensors::count() { log::LAST } else { id + 1 };
    [&[DONE], &next.to_le_bytes()[..], part].concat()
}

/// An entry of the log, whole, with the id of the next.
fn entry(state: &mut State, data: &[u8]) -> Vec<u8> {
    let [_, _, low, high, 0, 0xff] = data else { return vec![WRONG_DATA] };
    match state.log.read(u16::from_le_bytes([*low, *high])) {
        Some((next, record)) => [&[DONE], &next.to_le_bytes()[..], &record].concat(),
        None => vec![NOT_THERE],
    }
}

/// What the machine takes now, at least, at most and on average, over which time; and that it is measured.
fn power(watts: u16) -> Vec<u8> {
    let mut answer = vec![DONE, DCMI];
    for watts in [watts, watts - 10, watts + 10, watts] {
        answer.extend(watts.to_le_bytes());
    }
    answer.extend([0; 4]);
    answer.extend(1_000_u32.to_le_bytes());
    answer.push(0x40);
    answer
}

#[cfg(test)]
mod tests {
    use super::super::line::{Frame, Line};
    use super::*;

    /// A request as it comes over the line.
    fn asked(state: &mut State, function: u8, command: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, function << 2, command];
        bytes.extend(data);
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes.extend([sum.wrapping_neg(), 0xa0]);
        let mut line = Line::default();
        let frame = bytes.iter().filter_map(|byte| line.take(*byte)).next().expect("it is whole");
        match frame {
            Frame::Request(request) => answer(state, &request),
            Frame::Control => panic!("it is a request"),
        }
    }

    #[test]
    fn a_description_comes_in_parts() {
        let state = &mut State::default();
        let part = |state: &mut State, id: u8, from: u8, count: u8| {
            asked(state, 0x0a, 0x23, &[0, 0, id, 0, from, count])
        };
        assert_eq!(part(state, 0, 0, 5), [0, 2, 0, 1, 0, 0x51, 2, 37]);
        assert_eq!(part(state, 1, 0, 0xff), [TOO_MUCH]);
        assert_eq!(part(state, 1, 32, 0xff), [&[0, 2, 0], &b"PS1 Status"[..]].concat());
        assert_eq!(part(state, 7, 0, 2), [0, 0xff, 0xff, 7, 0]);
        assert_eq!(part(state, 8, 0, 5), [NOT_THERE]);
        assert_eq!(part(state, 1, 99, 5), [WRONG_DATA]);
        assert_eq!(asked(state, 0x0a, 0x20, &[])[..4], [0, 0x51, 7, 0]);
    }

    #[test]
    fn the_log_is_read_entry_by_entry() {
        let state = &mut State::default();
        assert_eq!(asked(state, 0x0a, 0x40, &[])[..4], [0, 0x51, 2, 0]);
        let first = asked(state, 0x0a, 0x43, &[0, 0, 0, 0, 0, 0xff]);
        assert_eq!((first.len(), &first[..6]), (19, &[0, 4, 0, 1, 0, 2][..]));
        assert_eq!(asked(state, 0x0a, 0x43, &[0, 0, 4, 0, 0, 0xff])[..3], [0, 0xff, 0xff]);
        assert_eq!(asked(state, 0x0a, 0x43, &[0, 0, 2, 0, 0, 0xff]), [NOT_THERE]);
        assert_eq!(asked(state, 0x0a, 0x48, &[]), [UNKNOWN_COMMAND]);
        let watts = asked(state, 0x2c, 0x02, &[0xdc, 1, 0, 0]);
        assert_eq!((&watts[..4], watts.last()), (&[0, 0xdc, 128, 2][..], Some(&0x40)));
        assert_eq!(asked(state, 0x04, 0x2d, &[2]), [0, 0, 0xc0, 1, 0x80]);
    }
}
