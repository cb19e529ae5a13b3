//! What nvidia-smi says of a GPU in CSV. Reading is pure.
//!
//! Fields and their words are from `nvidia-smi --help-query-gpu`, `--help-query-remapped-rows` and nvidia-smi(1) of driver 535.
//! A value in brackets is no value: a GPU that does not have it says `[N/A]`, and one that is broken says why.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::names;

use super::{Ask, Finding};

/// What is asked at once: a field that a driver does not know spoils the whole answer.
pub(super) struct Group {
    /// The option that takes the fields.
    option: &'static str,
    /// The first is the address on the bus.
    fields: &'static [&'static str],
    /// What is made of them.
    checks: &'static [Of],
}

/// A check of one field, by its place among those of the group.
enum Of {
    Number {
        name: &'static str,
        field: usize,
        unit: &'static str,
    },
    Word {
        name: &'static str,
        field: usize,
    },
    /// One number as a share of another.
    Share {
        name: &'static str,
        field: usize,
        of: usize,
        unit: &'static str,
    },
}

/// Which GPUs there are, with their serials.
pub(super) const IDENTITY: Group =
    Group { option: "--query-gpu", fields: &["pci.bus_id", "index", "serial"], checks: &[] };

/// What tells something under load alone: a link that rests goes slow. The most that is possible is the lesser of what the
/// GPU and its port can do (nvidia-smi(1), "PCIe Generation").
static LINK_SPEED: Group = Group {
    option: "--query-gpu",
    fields: &["pci.bus_id", "pcie.link.gen.current", "pcie.link.gen.max"],
    checks: &[Of::Share { name: names::GPU_PCIE_SPEED, field: 1, of: 2, unit: "% of the generation" }],
};

/// What changes under load: the first of [`GROUPS`], and the speed of the link.
pub(super) fn under_load() -> impl Iterator<Item = &'static Group> {
    const CHANGING: usize = 3;
    GROUPS[..CHANGING].iter().chain(std::iter::once(&LINK_SPEED))
}

/// What is asked at any time. What changes from one moment to the next comes first.
pub(super) static GROUPS: [Group; 8] = [
    Group {
        option: "--query-gpu",
        fields: &["pci.bus_id", "temperature.gpu", "pcie.link.width.current", "pcie.link.width.max"],
        checks: &[
            Of::Number { name: names::GPU_TEMPERATURE, field: 1, unit: "°C" },
            Of::Share { name: names::GPU_PCIE_WIDTH, field: 2, of: 3, unit: "% of the lanes" },
        ],
    },
    Group {
        option: "--query-gpu",
        fields: &["pci.bus_id", "clocks_throttle_reasons.hw_slowdown"],
        checks: &[Of::Word { name: names::GPU_SLOWDOWN, field: 1 }],
    },
    // Why: the first two are what the hardware's slowdown is made of, the third is the driver's own doing.
    Group {
        option: "--query-gpu",
        fields: &[
            "pci.bus_id",
            "clocks_throttle_reasons.hw_thermal_slowdown",
            "clocks_throttle_reasons.hw_power_brake_slowdown",
            "clocks_throttle_reasons.sw_thermal_slowdown",
        ],
        checks: &[
            Of::Word { name: names::GPU_THERMAL_SLOWDOWN, field: 1 },
            Of::Word { name: names::GPU_POWER_BRAKE, field: 2 },
            Of::Word { name: names::GPU_WARM_SLOWDOWN, field: 3 },
        ],
    },
    Group {
        option: "--query-gpu",
        fields: &["pci.bus_id", "ecc.mode.current"],
        checks: &[Of::Word { name: names::GPU_ECC_MODE, field: 1 }],
    },
    Group {
        option: "--query-gpu",
        fields: &[
            "pci.bus_id",
            "ecc.errors.uncorrected.volatile.total",
            "ecc.errors.corrected.volatile.total",
            "ecc.errors.uncorrected.aggregate.total",
        ],
        checks: &[
            Of::Number { name: names::GPU_ECC_UNCORRECTED, field: 1, unit: "errors" },
            Of::Number { name: names::GPU_ECC_CORRECTED, field: 2, unit: "errors" },
            Of::Number { name: names::GPU_ECC_LIFETIME, field: 3, unit: "errors" },
        ],
    },
    Group {
        option: "--query-gpu",
        fields: &["pci.bus_id", "retired_pages.double_bit.count"],
        checks: &[Of::Number { name: names::GPU_RETIRED_PAGES, field: 1, unit: "pages" }],
    },
    Group {
        option: "--query-gpu",
        fields: &["pci.bus_id", "retired_pages.pending"],
        checks: &[Of::Word { name: names::GPU_PENDING, field: 1 }],
    },
    Group {
        option: "--query-remapped-rows",
        fields: &[
            "gpu_bus_id",
            "remapped_rows.uncorrectable",
            "remapped_rows.failure",
            "remapped_rows.pending",
        ],
        checks: &[
            Of::Number { name: names::GPU_REMAPPED_ROWS, field: 1, unit: "rows" },
            Of::Word { name: names::GPU_REMAP_FAILURE, field: 2 },
            Of::Word { name: names::GPU_PENDING, field: 3 },
        ],
    },
];

/// A line: a GPU and what was asked of it.
pub(super) struct Row(Vec<String>);

impl Row {
    /// True for the GPU at an address: the driver writes its domain with eight digits, the kernel with four.
    pub fn is_at(&self, pci: &str) -> bool {
        let plain = |address: &str| address.trim_start_matches('0').to_ascii_lowercase();
        self.0.first().is_some_and(|address| plain(address) == plain(pci))
    }

    /// Its number by the driver, of [`IDENTITY`].
    pub fn index(&self) -> Option<String> {
        self.0.get(1).cloned()
    }

    /// Its serial, where it has one, of [`IDENTITY`].
    pub fn serial(&self) -> Option<String> {
        self.0
            .get(2)
            .filter(|serial| !serial.is_empty() && !serial.starts_with('[') && *serial != "0")
            .cloned()
    }
}

/// Asks for a group.
///
/// # Errors
/// Why nothing was said, or a line that is none.
pub(super) fn query(
    ask: &Ask<'_>,
    group: &Group,
    artifacts: &mut Vec<(String, Vec<u8>)>,
) -> Result<Vec<Row>, String> {
    let fields = format!("{}={}", group.option, group.fields.join(","));
    let stdout = ask("nvidia-smi", &[&fields, "--format=csv,noheader,nounits"])?;
    let text = String::from_utf8(stdout.clone()).map_err(|_| "nvidia-smi printed no text".to_owned())?;
    let name = group.fields.last().expect("a group has fields");
    artifacts.push((format!("nvidia-smi-{name}.csv"), stdout));
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| row(line, group.fields.len())).collect()
}

fn row(line: &str, fields: usize) -> Result<Row, String> {
    let row: Vec<String> = line.split(',').map(|field| field.trim().to_owned()).collect();
    match row.len() == fields {
        true => Ok(Row(row)),
        false => Err(format!("nvidia-smi printed {line:?}, expected {fields} fields")),
    }
}

/// What a group says of the GPU at an address.
pub(super) fn findings(
    group: &Group,
    rows: &Result<Vec<Row>, String>,
    pci: &str,
    component: &str,
) -> Vec<Finding> {
    let row = match rows {
        Ok(rows) => rows
            .iter()
            .find(|row| row.is_at(pci))
            .ok_or_else(|| format!("nvidia-smi says nothing of the GPU at {pci}")),
        Err(why) => Err(why.clone()),
    };
    let field = |at: usize| row.clone_of(at);
    let finding = |check: &Of| {
        let (name, observed) = match check {
            Of::Number { name, field: at, unit } => (*name, field(*at).and_then(|text| number(&text, unit))),
            Of::Word { name, field: at } => (*name, field(*at).and_then(|text| word(&text))),
            Of::Share { name, field: at, of, unit } => (
                *name,
                field(*at)
                    .and_then(|text| Ok((text, field(*of)?)))
                    .map(|(part, whole)| share(&part, &whole, unit)),
            ),
        };
        let observed = observed.unwrap_or_else(|why| Observation::Unreadable { why });
        let evidence = format!("nvidia-smi {}={}", group.option, group.fields.join(","));
        Finding { name, component: Some(component.to_owned()), observed, evidence }
    };
    group.checks.iter().map(finding).collect()
}

/// A field of a row that may not be there.
trait Fields {
    fn clone_of(&self, at: usize) -> Result<String, String>;
}

impl Fields for Result<&Row, String> {
    fn clone_of(&self, at: usize) -> Result<String, String> {
        let row = self.as_ref().map_err(Clone::clone)?;
        row.0.get(at).cloned().ok_or_else(|| "nvidia-smi printed fewer fields".to_owned())
    }
}

/// Words by which a GPU says that it does not have a field.
fn is_not_there(text: &str) -> bool {
    matches!(text, "[N/A]" | "N/A" | "[Not Supported]" | "Not Supported")
}

fn absent() -> Observation {
    Observation::Absent { why: "the GPU says that it does not have it".to_owned() }
}

fn number(text: &str, unit: &str) -> Result<Observation, String> {
    if is_not_there(text) {
        return Ok(absent());
    }
    let number = text.parse::<u64>().map_err(|_| format!("nvidia-smi says \"{text}\", expected a number"))?;
    Ok(Observation::measured(number as f64, unit))
}

fn word(text: &str) -> Result<Observation, String> {
    match text {
        _ if is_not_there(text) => Ok(absent()),
        "Yes" | "No" | "Active" | "Not Active" | "Enabled" | "Disabled" => {
            Ok(Observation::Found { text: text.to_owned() })
        }
        // The query of remapped rows says 0 and 1.
        "0" => Ok(Observation::Found { text: "No".to_owned() }),
        "1" => Ok(Observation::Found { text: "Yes".to_owned() }),
        _ => Err(format!(
            "nvidia-smi says \"{text}\", expected Yes or No, Active or Not Active, Enabled or Disabled"
        )),
    }
}

fn share(part: &str, whole: &str, unit: &str) -> Observation {
    let unreadable = || Observation::Unreadable { why: format!("nvidia-smi says {part} of {whole}") };
    if is_not_there(part) || is_not_there(whole) {
        return absent();
    }
    match (part.parse::<u32>(), whole.parse::<u32>()) {
        (Ok(part), Ok(whole)) if whole > 0 && part <= whole => {
            Observation::measured(f64::from(part) / f64::from(whole) * 100.0, unit)
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => unreadable(),
    }
}
