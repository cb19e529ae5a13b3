//! Sensors, from /sys/class/hwmon, and where no chip shows a temperature there from /sys/class/thermal.
//!
//! Every call looks anew: a sensor that has vanished, is faulty or does not answer drops out, one that came joins.

use std::collections::BTreeMap;

use groundcrew_protocol::limits::SENSOR_SAMPLES_MAX;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::SensorSample;

use super::Root;

const FOLDER: &str = "/sys/class/hwmon";
const ZONES: &str = "/sys/class/thermal";

/// How a kind of channel is named, and what its numbers mean (Documentation/hwmon/sysfs-interface of the kernel).
struct Kind {
    prefix: &'static str,
    suffixes: &'static [&'static str],
    word: &'static str,
    unit: &'static str,
    per_unit: f64,
}

const KINDS: [Kind; 5] = [
    Kind { prefix: "temp", suffixes: &["_input"], word: "temperature", unit: "°C", per_unit: 1e3 },
    Kind { prefix: "fan", suffixes: &["_input"], word: "fan", unit: "rpm", per_unit: 1.0 },
    // Some chips say the power of the moment, some only an average.
    Kind { prefix: "power", suffixes: &["_input", "_average"], word: "power", unit: "W", per_unit: 1e6 },
    Kind { prefix: "in", suffixes: &["_input"], word: "voltage", unit: "V", per_unit: 1e3 },
    Kind { prefix: "curr", suffixes: &["_input"], word: "current", unit: "A", per_unit: 1e3 },
];

/// Reads every sensor once. Keys are unique within a kind and the same at every reading.
pub fn read(root: &Root, now: WallMs) -> Vec<SensorSample> {
    let mut samples = Vec::new();
    let mut seen = Seen::default();
    for chip in root.list(FOLDER).ok().flatten().unwrap_or_default() {
        read_chip(root, &chip, now, &mut seen, &mut samples);
    }
    if !samples.iter().any(|sample| sample.kind == "temperature") {
        read_zones(root, now, &mut samples);
    }
    samples.truncate(SENSOR_SAMPLES_MAX);
    samples
}

fn read_chip(root: &Root, chip: &str, now: WallMs, seen: &mut Seen, samples: &mut Vec<SensorSample>) {
    let folder = format!("{FOLDER}/{chip}");
    let name = root.detail(&format!("{folder}/name")).unwrap_or_else(|| chip.to_owned());
    let device = root.link_name(&format!("{folder}/device")).unwrap_or_else(|| chip.to_owned());
    let files = root.list(&folder).ok().flatten().unwrap_or_default();
    for kind in &KINDS {
        let mut channels: Vec<&str> = files.iter().filter_map(|file| channel(file, kind)).collect();
        channels.dedup();
        for channel in channels {
            let at = |suffix: &str| root.detail(&format!("{folder}/{channel}{suffix}"));
            let label = at("_label").unwrap_or_else(|| channel.to_owned());
            let key =
                if name == device { format!("{name} {label}") } else { format!("{name} {device} {label}") };
            // One that drops out keeps its number, so that the next does not go on in its series.
            let key = seen.unique(kind.word, key);
            if at("_fault").as_deref() == Some("1") {
                continue;
            }
            let Some(value) = kind.suffixes.iter().find_map(|suffix| number(&at(suffix)?)) else { continue };
            samples.push(sample(kind, key, value, now));
        }
    }
}

/// A temperature, and the limit past which what it is of takes harm, where its chip tells one.
#[derive(Debug, Clone, PartialEq)]
pub struct Temperature {
    /// The chip's name, as `nvme`.
    pub chip: String,
    /// The sensor's, the same at every reading.
    pub key: String,
    /// °C.
    pub celsius: f64,
    /// °C.
    pub critical: Option<f64>,
}

/// Reads every temperature of hwmon once.
pub fn temperatures(root: &Root) -> Vec<Temperature> {
    let mut temperatures = Vec::new();
    let mut seen = Seen::default();
    for chip in root.list(FOLDER).ok().flatten().unwrap_or_default() {
        let folder = format!("{FOLDER}/{chip}");
        let name = root.detail(&format!("{folder}/name")).unwrap_or_else(|| chip.clone());
        let device = root.link_name(&format!("{folder}/device")).unwrap_or_else(|| chip.clone());
        let files = root.list(&folder).ok().flatten().unwrap_or_default();
        for channel in files.iter().filter_map(|file| channel(file, &KINDS[0])) {
            let at = |suffix: &str| root.detail(&format!("{folder}/{channel}{suffix}"));
            let celsius = |suffix: &str| Some(number(&at(suffix)?)? / KINDS[0].per_unit);
            let label = at("_label").unwrap_or_else(|| channel.to_owned());
            let key = seen.unique(KINDS[0].word, format!("{name} {device} {label}"));
            if at("_fault").as_deref() == Some("1") {
                continue;
            }
            let Some(now) = celsius("_input") else { continue };
            let critical = celsius("_crit");
            temperatures.push(Temperature { chip: name.clone(), key, celsius: now, critical });
        }
    }
    temperatures.truncate(SENSOR_SAMPLES_MAX);
    temperatures
}

/// The channel that a file is the reading of: `temp1` for `temp1_input`.
fn channel<'a>(file: &'a str, kind: &Kind) -> Option<&'a str> {
    let channel = kind.suffixes.iter().find_map(|suffix| file.strip_suffix(suffix))?;
    let number = channel.strip_prefix(kind.prefix)?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(channel)
}

fn read_zones(root: &Root, now: WallMs, samples: &mut Vec<SensorSample>) {
    for zone in root.list(ZONES).ok().flatten().unwrap_or_default() {
        if !zone.starts_with("thermal_zone") {
            continue;
        }
        let at = |name: &str| root.detail(&format!("{ZONES}/{zone}/{name}"));
        let Some(value) = at("temp").and_then(|text| number(&text)) else { continue };
        let key = at("type").map_or_else(|| zone.clone(), |kind| format!("{kind} {zone}"));
        samples.push(sample(&KINDS[0], key, value, now));
    }
}

fn number(text: &str) -> Option<f64> {
    // The kernel writes whole numbers; anything else is none of its.
    text.parse::<i64>().ok().map(|number| number as f64)
}

fn sample(kind: &Kind, key: String, value: f64, ts: WallMs) -> SensorSample {
    let (word, unit) = (kind.word.to_owned(), kind.unit.to_owned());
    SensorSample { kind: word, key, value: value / kind.per_unit, unit, ts }
}

/// Numbers keys that several sensors of a kind share, in the order of their channels.
#[derive(Default)]
struct Seen(BTreeMap<(&'static str, String), u32>);

impl Seen {
    fn unique(&mut self, kind: &'static str, key: String) -> String {
        let count = self.0.entry((kind, key.clone())).or_default();
        *count += 1;
        if *count > 1 { format!("{key} #{count}") } else { key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;
    use proptest::prelude::*;

    fn keys(root: &Root) -> Vec<(String, String, f64)> {
        read(root, WallMs(5))
            .into_iter()
            .map(|s| (format!("{} {}", s.kind, s.unit), s.key, s.value))
            .collect()
    }

    #[test]
    fn chips_are_read_in_their_units() {
        let machine = fixture::server();
        let expected: Vec<(String, String, f64)> = [
            ("temperature °C", "coretemp coretemp.0 Package id 0", 54.0),
            ("temperature °C", "coretemp coretemp.0 Core 0", 51.0),
            ("temperature °C", "coretemp coretemp.1 Package id 1", 57.0),
            ("temperature °C", "nvme nvme0 Composite", 49.85),
            ("fan rpm", "nct6798 nct6775.656 fan1", 4200.0),
            ("power W", "nct6798 nct6775.656 PSU1 Power In", 312.5),
            ("voltage V", "nct6798 nct6775.656 in0", 1.808),
            ("current A", "nct6798 nct6775.656 curr1", 2.5),
        ]
        .map(|(kind, key, value)| (kind.to_owned(), key.to_owned(), value))
        .to_vec();
        assert_eq!(keys(&machine.root), expected);
        assert_eq!(read(&machine.root, WallMs(5))[0].ts, WallMs(5));
    }

    #[test]
    fn temperatures_have_the_limits_of_their_chips() {
        let machine = fixture::server();
        machine.write("/sys/class/hwmon/hwmon2/temp1_crit", "99850\n");
        let all = temperatures(&machine.root);
        let drive = all.iter().find(|temperature| temperature.chip == "nvme").unwrap();
        assert_eq!((drive.celsius, drive.critical), (49.85, Some(99.85)));
        assert_eq!(all.len(), 4);
        assert!(all.iter().filter(|temperature| temperature.critical.is_none()).count() == 3);
        machine.write("/sys/class/hwmon/hwmon2/temp1_fault", "1\n");
        assert_eq!(temperatures(&machine.root).len(), 3);
    }

    #[test]
    fn a_vanished_or_faulty_sensor_drops_out() {
        let machine = fixture::server();
        let before = keys(&machine.root).len();
        std::fs::remove_file(machine.root.path("/sys/class/hwmon/hwmon2/temp1_input")).unwrap();
        machine.write("/sys/class/hwmon/hwmon0/temp2_fault", "1\n");
        machine.write("/sys/class/hwmon/hwmon3/fan1_input", "garbage\n");
        assert_eq!(keys(&machine.root).len(), before - 3);
    }

    #[test]
    fn equal_labels_are_numbered() {
        let machine = fixture::Machine::empty();
        machine.write("/sys/class/hwmon/hwmon0/name", "x");
        for channel in ["temp1", "temp2", "temp10"] {
            machine.write(&format!("/sys/class/hwmon/hwmon0/{channel}_input"), "1000");
            machine.write(&format!("/sys/class/hwmon/hwmon0/{channel}_label"), "Sensor");
        }
        let keys: Vec<String> = read(&machine.root, WallMs(0)).into_iter().map(|sample| sample.key).collect();
        assert_eq!(keys, ["x hwmon0 Sensor", "x hwmon0 Sensor #2", "x hwmon0 Sensor #3"]);
        // The first drops out: the others keep their names.
        for (file, content) in [("temp1_fault", "1"), ("temp1_input", "garbage")] {
            machine.write(&format!("/sys/class/hwmon/hwmon0/{file}"), content);
            let keys: Vec<String> = read(&machine.root, WallMs(0)).into_iter().map(|s| s.key).collect();
            assert_eq!(keys, ["x hwmon0 Sensor #2", "x hwmon0 Sensor #3"], "{file}");
        }
    }

    #[test]
    fn thermal_zones_serve_where_no_chip_shows_a_temperature() {
        let machine = fixture::Machine::empty();
        assert!(keys(&machine.root).is_empty());
        machine.write("/sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
        machine.write("/sys/class/thermal/thermal_zone0/temp", "45000\n");
        machine.write("/sys/class/thermal/cooling_device0/type", "Processor\n");
        let found = keys(&machine.root);
        assert_eq!(found, [("temperature °C".into(), "x86_pkg_temp thermal_zone0".into(), 45.0)]);
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic_or_give_a_number_that_is_none(
            file in "(temp|fan|power|in|curr)[0-9]{0,3}_(input|label|average|fault)",
            text in ".{0,24}",
        ) {
            let machine = fixture::Machine::empty();
            machine.write(&format!("/sys/class/hwmon/hwmon0/{file}"), &text);
            machine.write("/sys/class/hwmon/hwmon0/name", &text);
            prop_assert!(read(&machine.root, WallMs(0)).iter().all(|sample| sample.value.is_finite()));
        }
    }
}
