//! What `smartctl -j -x` says of a disk. Pure: nothing that is missing or of another type than expected becomes a number.

use serde_json::Value;

use super::smartctl::Said;

/// Bits of smartctl's exit status (smartctl(8), "EXIT STATUS"). Bit 2 says of `-x` only that the disk did not know one of the many
/// commands in it, as healthy ones do: what it left unread is missing in the report, and is found missing there.
pub(super) mod exit {
    /// The command line was not understood.
    pub const COMMAND_LINE: i32 = 1;
    /// The device could not be opened, or did not say what it is.
    pub const DEVICE: i32 = 1 << 1;
    /// The disk says that it is failing.
    pub const FAILING: i32 = 1 << 3;
    /// An attribute that foretells a failure is at its threshold.
    pub const PREFAIL: i32 = 1 << 4;
    /// An attribute was at its threshold some time ago.
    pub const PAST: i32 = 1 << 5;
    /// The disk's log of errors holds some.
    pub const ERRORS: i32 = 1 << 6;
    /// The log of self-tests holds a failed one; of an ATA disk one that no later one has made good.
    pub const SELF_TEST: i32 = 1 << 7;
}

/// What smartctl's database (drivedb.h) calls attributes of disks that count something else under a number which is known:
/// 197 to 199 of some SSDs are what was read and written, others are of no use or not known.
const OTHER_MEANINGS: [&str; 4] = ["Host_", "_Sectors_Tot_Ct", "Not_In_Use", "Unknown_"];

/// A number that a disk keeps, or why there is none.
pub(super) type Number = Result<f64, Gap>;

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gap {
    /// This disk does not keep it.
    NotKept(String),
    /// It should be there, and was not, or was no number.
    Unreadable(String),
}

/// A disk's report.
#[derive(Debug)]
pub(super) struct Report {
    pub exit: i32,
    pub model: String,
    /// As smartctl says it, without the blanks that pad it.
    pub serial: Option<String>,
    pub kind: Kind,
    json: Value,
}

/// Which language a disk speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ata,
    Nvme,
    Scsi,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// Why smartctl could not reach the disk, in its own words where it has some.
    pub fn read(said: &Said) -> Result<Report, String> {
        let json = &said.json;
        let messages = messages(json);
        let with_messages = |what: &str| match messages.is_empty() {
            true => what.to_owned(),
            false => format!("{what}: {messages}"),
        };
        if said.exit & exit::COMMAND_LINE != 0 {
            return Err(with_messages("smartctl did not understand the device"));
        }
        if said.exit & exit::DEVICE != 0 {
            return Err(with_messages("smartctl could not open the device"));
        }
        let kind = match json.pointer("/device/protocol").and_then(Value::as_str) {
            Some("ATA") => Kind::Ata,
            Some("NVMe") => Kind::Nvme,
            Some("SCSI") => Kind::Scsi,
            Some(other) => {
                return Err(format!("smartctl speaks {other:?} with the disk, expected ATA, NVMe or SCSI"));
            }
            None => return Err(with_messages("smartctl does not say which protocol the disk speaks")),
        };
        let text =
            |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(|text| text.trim().to_owned());
        let model = text("/model_name").or_else(|| text("/scsi_model_name"));
        Ok(Report {
            exit: said.exit,
            model: model.unwrap_or_else(|| "a disk that names no model".to_owned()),
            serial: text("/serial_number").filter(|serial| !serial.is_empty()),
            kind,
            json: json.clone(),
        })
    }

    /// What lies at a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.json.pointer(pointer)
    }

    /// A number that must be there.
    pub fn number(&self, pointer: &str) -> Number {
        match self.at(pointer) {
            None => Err(Gap::Unreadable(format!("smartctl says nothing under {pointer}"))),
            Some(value) => as_number(value)
                .ok_or_else(|| Gap::Unreadable(format!("smartctl says {value} under {pointer}, no number"))),
        }
    }

    /// A number of which a disk need not tell: where smartctl shows none, there is none.
    pub fn kept(&self, pointer: &str) -> Number {
        match self.at(pointer) {
            None => Err(Gap::NotKept(format!("the disk does not tell it (nothing under {pointer})"))),
            Some(_) => self.number(pointer),
        }
    }

    /// The attributes of an ATA disk.
    ///
    /// # Errors
    /// Where there is no table of them.
    pub fn attributes(&self) -> Result<&[Value], Gap> {
        match self.at("/ata_smart_attributes/table").and_then(Value::as_array) {
            Some(table) if !table.is_empty() => Ok(table),
            Some(_) | None => Err(Gap::Unreadable("smartctl shows no table of attributes".to_owned())),
        }
    }

    /// An ATA attribute.
    ///
    /// # Errors
    /// Where the disk keeps none under that number, or counts something else there by smartctl's database of disks.
    fn entry(&self, id: u64) -> Result<&Value, Gap> {
        let table = self.attributes()?;
        let found =
            table.iter().find(|attribute| attribute.pointer("/id").and_then(Value::as_u64) == Some(id));
        let Some(attribute) = found else {
            return Err(Gap::NotKept(format!("the disk keeps no attribute {id}")));
        };
        let name = attribute.pointer("/name").and_then(Value::as_str).unwrap_or_default();
        if OTHER_MEANINGS.iter().any(|other| name.contains(other)) {
            return Err(Gap::NotKept(format!("attribute {id} of this disk is {name}")));
        }
        Ok(attribute)
    }

    /// The raw value of an ATA attribute. smartctl decodes it by its database of disks and writes it as text, of which
    /// the first number counts: further ones are details.
    pub fn attribute(&self, id: u64) -> Number {
        let text = self.entry(id)?.pointer("/raw/string").and_then(Value::as_str);
        let leading = text.and_then(|text| {
            let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<f64>().ok()
        });
        leading.ok_or_else(|| {
            Gap::Unreadable(format!(
                "attribute {id} has the raw value {}, expected digits first",
                text.unwrap_or("none")
            ))
        })
    }

    /// The low 16 bits of an attribute in which some makers keep three counts, of which this is the plain one. The text does
    /// not do: of three such counts smartctl writes the highest first (`-v 188,raw16` in its database).
    pub fn low_word(&self, id: u64) -> Number {
        match self.entry(id)?.pointer("/raw/value") {
            Some(raw) => match raw.as_u64() {
                Some(value) => Ok((value & 0xffff) as f64),
                None => Err(Gap::Unreadable(format!("attribute {id} has the raw value {raw}, no number"))),
            },
            None => Err(Gap::Unreadable(format!("attribute {id} has no raw value"))),
        }
    }

    /// The names of ATA attributes that foretell a failure and are at their threshold: now, or in the past.
    ///
    /// # Errors
    /// Where there is no table of them, or it does not say.
    pub fn at_threshold(&self, when: &str) -> Result<Vec<String>, Gap> {
        let mut names = Vec::new();
        for attribute in self.attributes()? {
            let text = |pointer: &str| attribute.pointer(pointer).and_then(Value::as_str);
            let Some(failed) = text("/when_failed") else {
                return Err(Gap::Unreadable(format!(
                    "the attribute {attribute} does not say whether it failed"
                )));
            };
            let foretells = attribute.pointer("/flags/prefailure").and_then(Value::as_bool);
            if failed == when && foretells != Some(false) {
                names.push(text("/name").unwrap_or("an attribute without a name").to_owned());
            }
        }
        Ok(names)
    }
}

/// A number, also where it is written as text, as long ones are.
fn as_number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

/// What smartctl complains of.
pub(super) fn messages(json: &Value) -> String {
    let all = json.pointer("/smartctl/messages").and_then(Value::as_array);
    let texts: Vec<&str> = all
        .into_iter()
        .flatten()
        .filter_map(|message| message.pointer("/string").and_then(Value::as_str))
        .collect();
    texts.join("; ")
}
