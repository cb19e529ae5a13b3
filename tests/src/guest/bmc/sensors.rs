//! The sensors of a BMC: their descriptions (IPMI 2.0, section 43) and what they say (section 35.14).

use super::{FAN, REDUNDANCY, SUPPLIES, State};

/// The type of sensors of power supplies (IPMI 2.0, table 42-3).
pub(super) const TYPE_SUPPLY: u8 = 0x08;
/// The type of sensors of memory.
pub(super) const TYPE_MEMORY: u8 = 0x0c;
const TYPE_TEMPERATURE: u8 = 0x01;
const TYPE_FAN: u8 = 0x04;
const TYPE_OTHER_UNITS: u8 = 0x0b;

/// Events that belong to the sensor's type (table 42-1).
pub(super) const OWN_EVENTS: u8 = 0x6f;
/// Events on redundancy.
const REDUNDANCY_EVENTS: u8 = 0x0b;
/// Thresholds that are passed.
const THRESHOLDS: u8 = 0x01;

/// Numbers of sensors: those of supplies follow one another.
pub(super) const FIRST_SUPPLY: u8 = 1;
const FIRST_INPUT: u8 = 3;
const TEMPERATURE: u8 = 5;
const FAN_NUMBER: u8 = 6;
const REDUNDANCY_NUMBER: u8 = 7;
/// Memory has no sensor that reads: its events name a number that nothing describes.
pub(super) const MEMORY: u8 = 0x53;

/// What they are sensors of (table 43-13).
const OF_PROCESSOR: u8 = 3;
const OF_SUPPLY: u8 = 10;
const OF_UNIT: u8 = 21;
const OF_FAN: u8 = 29;

const CELSIUS: u8 = 1;
const WATTS: u8 = 6;
const RPM: u8 = 18;

/// What a supply that is well takes in, and what one that failed does.
const WATTS_GOOD: u16 = 320;
const WATTS_PER_COUNT: u8 = 4;
const RPM_PER_COUNT: u8 = 100;
const FAN_COUNT: u8 = 84;
const CELSIUS_NOW: u8 = 48;
/// Upper non-critical, critical and non-recoverable, and that these three can be read.
const CELSIUS_LIMITS: [u8; 3] = [90, 95, 100];
const UPPER_LIMITS: u8 = 0x38;

/// The events of a supply's sensor, by their bits.
const PRESENT: u16 = 1;
const FAILED: u16 = 1 << 1;
const INPUT_LOST: u16 = 1 << 3;

/// A reading that counts: the sensor scans, and its events are told.
const SCANS: u8 = 0xc0;

/// What a sensor is.
struct Sensor {
    number: u8,
    entity: u8,
    instance: u8,
    sensor_type: u8,
    name: &'static str,
    kind: Kind,
}

enum Kind {
    /// It says which events hold.
    States { events: u8 },
    /// It says a number: so much for each count, in that unit.
    Number { unit: u8, per_count: u8, upper_limits: [u8; 3] },
}

fn all() -> [Sensor; 7] {
    let supply = |number, instance, name| Sensor {
        number,
        entity: OF_SUPPLY,
        instance,
        sensor_type: TYPE_SUPPLY,
        name,
        kind: Kind::States { events: OWN_EVENTS },
    };
    let number = |number, (entity, instance), sensor_type, name, kind| Sensor {
        number,
        entity,
        instance,
        sensor_type,
        name,
        kind,
    };
    let of = |unit, per_count| Kind::Number { unit, per_count, upper_limits: [0; 3] };
    let heat = Kind::Number { unit: CELSIUS, per_count: 1, upper_limits: CELSIUS_LIMITS };
    let watts = || of(WATTS, WATTS_PER_COUNT);
    [
        supply(FIRST_SUPPLY, 1, SUPPLIES[0]),
        supply(FIRST_SUPPLY + 1, 2, SUPPLIES[1]),
        number(FIRST_INPUT, (OF_SUPPLY, 1), TYPE_OTHER_UNITS, "PS1 Input Power", watts()),
        number(FIRST_INPUT + 1, (OF_SUPPLY, 2), TYPE_OTHER_UNITS, "PS2 Input Power", watts()),
        number(TEMPERATURE, (OF_PROCESSOR, 1), TYPE_TEMPERATURE, "CPU1 Temp", heat),
        number(FAN_NUMBER, (OF_FAN, 1), TYPE_FAN, FAN, of(RPM, RPM_PER_COUNT)),
        Sensor {
            number: REDUNDANCY_NUMBER,
            entity: OF_UNIT,
            instance: 1,
            sensor_type: TYPE_SUPPLY,
            name: REDUNDANCY,
            kind: Kind::States { events: REDUNDANCY_EVENTS },
        },
    ]
}

/// How many descriptions there are.
pub(super) fn count() -> u16 {
    u16::try_from(all().len()).expect("there are few sensors")
}

/// The description of that id, of 1 to [`count`].
pub(super) fn description(id: u16) -> Option<Vec<u8>> {
    let at = usize::from(id).checked_sub(1)?;
    let sensor = all().into_iter().nth(at)?;
    let name = sensor.name.as_bytes();
    let length = u8::try_from(name.len()).expect("names are short");
    // Its owner, this controller; number and place; that it begins by itself; what it can do; type and kind of events.
    let begins = [0x20, 0, sensor.number, sensor.entity, sensor.instance, 0x67];
    let (record_type, mut body) = match sensor.kind {
        Kind::States { events } => {
            let mut body = begins.to_vec();
            body.extend([0x40, sensor.sensor_type, events]);
            // Which events it logs when they come, when they go, and which it can say: the first four.
            body.extend([0x0f, 0, 0x0f, 0, 0x0f, 0]);
            // No number, hence no unit; one sensor alone; no hysteresis; nothing of the maker's.
            body.extend([0xc0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            (0x02, body)
        }
        Kind::Number { unit, per_count, upper_limits } => {
            let readable = if upper_limits == [0; 3] { 0 } else { UPPER_LIMITS };
            let mut body = begins.to_vec();
            body.extend([if readable == 0 { 0x40 } else { 0x48 }, sensor.sensor_type, THRESHOLDS]);
            body.extend([0, 0, 0, 0, readable, 0]);
            // Linear: so much for each count, with nothing added.
            body.extend([0, unit, 0, 0, per_count, 0, 0, 0, 0, 0]);
            // Nothing is said of what is usual; the greatest reading and the least.
            body.extend([0, 0, 0, 0, 0xff, 0]);
            let [non_critical, critical, non_recoverable] = upper_limits;
            body.extend([non_recoverable, critical, non_critical, 0, 0, 0]);
            // No hysteresis, and nothing of the maker's.
            body.extend([0, 0, 0, 0, 0]);
            (0x01, body)
        }
    };
    // The name, in plain ASCII.
    body.push(0xc0 | length);
    body.extend(name);
    let mut record = id.to_le_bytes().to_vec();
    record.extend([0x51, record_type, u8::try_from(body.len()).expect("names are short")]);
    record.extend(body);
    Some(record)
}

/// What a sensor says: a number, that it scans, and which events hold or which limits are passed.
pub(super) fn reading(state: &State, number: u8) -> Option<Vec<u8>> {
    let events = |bits: u16| {
        let [low, high] = bits.to_le_bytes();
        vec![0, SCANS, low, 0x80 | high]
    };
    let count = |count: u8| vec![count, SCANS, SCANS];
    let supply = |first: u8| state.has_failed[usize::from(number - first)];
    Some(match number {
        FIRST_SUPPLY..FIRST_INPUT if supply(FIRST_SUPPLY) => events(PRESENT | FAILED | INPUT_LOST),
        FIRST_SUPPLY..FIRST_INPUT => events(PRESENT),
        FIRST_INPUT..TEMPERATURE if supply(FIRST_INPUT) => count(0),
        FIRST_INPUT..TEMPERATURE => {
            count(u8::try_from(WATTS_GOOD / u16::from(WATTS_PER_COUNT)).expect("it fits"))
        }
        TEMPERATURE => count(CELSIUS_NOW),
        FAN_NUMBER => count(FAN_COUNT),
        // Fully redundant, or no more.
        REDUNDANCY_NUMBER => events(if state.has_failed.contains(&true) { 1 << 1 } else { 1 }),
        _ => return None,
    })
}

/// Watts of the whole machine.
pub(super) fn watts(state: &State) -> u16 {
    let good = state.has_failed.iter().filter(|has_failed| !**has_failed).count();
    WATTS_GOOD * u16::try_from(good).expect("a machine has few supplies")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_is_as_long_as_it_says_and_names_a_sensor_that_reads() {
        for id in 1..=count() {
            let record = description(id).unwrap();
            assert_eq!(
                (record.len(), record[..2].to_vec()),
                (5 + usize::from(record[4]), id.to_le_bytes().to_vec())
            );
            // Where the name begins (tables 43-1 and 43-2).
            let at = if record[3] == 1 { 47 } else { 31 };
            assert_eq!(usize::from(record[at] & 0x1f), record.len() - at - 1, "{id}");
            assert!(reading(&State::default(), record[7]).is_some(), "{id}");
        }
        assert!(description(0).is_none() && description(count() + 1).is_none());
        assert!(reading(&State::default(), MEMORY).is_none());
    }

    #[test]
    fn a_supply_that_failed_is_still_present_and_takes_nothing_in() {
        let mut state = State::default();
        assert_eq!(reading(&state, 2), Some(vec![0, 0xc0, 0x01, 0x80]));
        assert_eq!((reading(&state, 4).unwrap()[0], watts(&state)), (80, 640));
        state.has_failed[1] = true;
        assert_eq!(reading(&state, 2), Some(vec![0, 0xc0, 0x0b, 0x80]));
        assert_eq!(reading(&state, 1), Some(vec![0, 0xc0, 0x01, 0x80]), "the other is well");
        assert_eq!((reading(&state, 4).unwrap()[0], watts(&state)), (0, 320));
        assert_eq!(reading(&state, 7), Some(vec![0, 0xc0, 0x02, 0x80]));
    }
}
