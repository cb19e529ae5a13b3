//! The rows of `ipmitool sdr`, and what the texts of a sensor's events mean. Pure; checked against ipmitool 1.8.19.
//!
//! The texts are ipmitool's for the offsets of IPMI 2.0's tables 42-2 (any sensor) and 42-3 (power supply, power unit). A text
//! that stands in no table here is [`Event::Unknown`]: neither good nor bad.

/// What ipmitool writes where a sensor has neither a reading nor events.
const NO_READING: [&str; 3] = ["No Reading", "Not Readable", "Disabled"];
/// A threshold that is passed, from non-critical on (`ipmi_sdr_get_thresh_status` and `ipmi_sdr_get_status`).
const BAD_STATUS: [&str; 9] = ["nc", "cr", "nr", "lnc", "lcr", "lnr", "unc", "ucr", "unr"];
/// Units of readings.
const UNITS: [&str; 6] = ["Watts", "percent", "Volts", "Amps", "degrees C", "RPM"];

/// How the texts of failures begin: versions differ in what follows.
const FAILED: [&str; 20] = [
    "AC lost",
    "AC out-of-range",
    "240VA power down",
    "Config Error",
    "Device Disabled",
    "Failure detected",
    "Install Error",
    "Interlock power down",
    "Limit Exceeded",
    "Non-Redundant",
    "Performance Lags",
    "Power Supply AC lost",
    "Redundancy",
    "Soft-power control failure",
    "Transition to Critical",
    "Transition to Degraded",
    "Transition to Non-critical",
    "Transition to Non-recoverable",
    "Transition to Off Line",
    "Transition to Power Off",
];

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A supply is there, by the sensor of its own type.
    Presence,
    /// Something is there, by a sensor that says no more.
    DevicePresent,
    /// Nothing is there.
    DeviceAbsent,
    /// A supply is there and rests, as a reserve does.
    Rests,
    /// It works as it should.
    Works,
    /// It failed, or is about to.
    Failed,
    /// The whole machine was switched off or on, which says nothing of what is on now.
    Switched,
    /// No table has it.
    Unknown,
}

/// What a text means.
pub(super) fn meaning(text: &str) -> Event {
    let lower = text.to_lowercase();
    // Of each failure there is a text that says that it is over.
    let fails = || lower.contains("fail") && !lower.contains("deasserted");
    match text {
        "Presence detected" => Event::Presence,
        "Device Present" => Event::DevicePresent,
        "Device Absent" => Event::DeviceAbsent,
        "Power Supply Inactive" => Event::Rests,
        "Transition to OK" | "Transition to Running" | "Fully Redundant" => Event::Works,
        "Power off/down" | "Power cycle" => Event::Switched,
        text if FAILED.iter().any(|begins| text.starts_with(begins)) || fails() => Event::Failed,
        _ => Event::Unknown,
    }
}

/// A line of `sdr elist` or `sdr type`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<'t> {
    pub name: &'t str,
    pub status: &'t str,
    pub entity: &'t str,
    pub said: &'t str,
}

impl<'t> Row<'t> {
    /// The parts of its text.
    fn parts(&self) -> impl Iterator<Item = &'t str> {
        self.said.split(", ").map(str::trim).filter(|part| !part.is_empty())
    }

    /// Numbers and their units. Some BMCs put them before the events: `110 Watts, Presence detected`.
    pub fn readings(&self) -> Vec<(f64, &'t str)> {
        self.parts().filter_map(reading).collect()
    }

    /// Events and their texts.
    pub fn events(&self) -> Vec<(Event, &'t str)> {
        let events = self.parts().filter(|part| reading(part).is_none());
        events.map(|text| (meaning(text), text)).collect()
    }

    /// The texts of failures, and a threshold that is passed: that is one whatever the events say.
    pub fn failure(&self) -> Option<String> {
        let failed: Vec<&str> = self
            .events()
            .iter()
            .filter(|(event, _)| *event == Event::Failed)
            .map(|(_, text)| *text)
            .collect();
        match failed.as_slice() {
            [] if BAD_STATUS.contains(&self.status) => Some(format!("status {}: {}", self.status, self.said)),
            [] => None,
            failed => Some(failed.join(", ")),
        }
    }

    /// True where no sensor reads: an empty place, or one that is switched off.
    pub fn says_nothing(&self) -> bool {
        NO_READING.contains(&self.said) || (self.status == "ns" && self.said.is_empty())
    }

    /// The row for people.
    pub fn evidence(&self) -> String {
        let Row { name, status, entity, said } = self;
        format!("{name} | {status} | {entity} | {said}")
    }
}

fn reading(part: &str) -> Option<(f64, &str)> {
    let (number, unit) = part.split_once(' ')?;
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && UNITS.contains(&unit)).then_some((number, unit))
}

/// The rows of a table.
///
/// # Errors
/// Where a line is none.
pub(super) fn rows(text: &str) -> Result<Vec<Row<'_>>, String> {
    let row = |line| -> Result<Row<'_>, String> {
        // The text of events comes last and may hold anything.
        let fields: Vec<&str> = str::splitn(line, 5, '|').map(str::trim).collect();
        match fields.as_slice() {
            [name, _number, status, entity, said] if !name.is_empty() => {
                Ok(Row { name, status, entity, said })
            }
            _ => Err(format!("ipmitool printed {line:?}, expected a sensor in five columns")),
        }
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(row).collect()
}
