//! The tables of SMBIOS as the kernel exports them in /sys/firmware/dmi/tables.
//!
//! The layout of structures is that of the DMTF's DSP0134 (3.7): types 0, 1, 2, 16, 17 and 39. The table is the
//! firmware's and may hold anything.

use groundcrew_protocol::inventory::{Dimm, Dmi, Firmware, Psu};

use super::Root;

const FOLDER: &str = "/sys/firmware/dmi/tables";
/// An SMBIOS 2 table has at most 64 KiB; version 3 tables of large machines have a few hundred.
const TABLE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const ENTRY_BYTES_MAX: u64 = 4096;
/// Greatest number of structures; an SMBIOS 2 table cannot count more.
const STRUCTURES_MAX: usize = 65_536;

/// One structure: its formatted part from byte 0 on, and its strings.
#[derive(Debug)]
struct Structure<'a> {
    kind: u8,
    formatted: &'a [u8],
    strings: Vec<&'a [u8]>,
}

/// The structures of a machine.
#[derive(Debug)]
pub struct Tables {
    bytes: Vec<u8>,
    /// Major and minor version.
    version: (u8, u8),
}

/// What the tables say, and where they cannot be understood.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    /// Types 1 and 2.
    pub dmi: Dmi,
    /// Type 0; whether the kernel was started by UEFI is not in it.
    pub firmware: Firmware,
    /// Type 17: modules that are installed.
    pub dimms: Vec<Dimm>,
    /// Type 39.
    pub psus: Vec<Psu>,
    /// The table ends inside a structure, or a structure is malformed.
    pub broken: Option<String>,
    /// Locators of modules whose size the firmware does not know.
    pub sizes_unknown: Vec<String>,
}

/// Reads the tables; `None` where the machine has none.
///
/// # Errors
/// Where they are there and cannot be read.
pub fn read(root: &Root) -> std::io::Result<Option<Tables>> {
    let not_found = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let bytes = match root.read(&format!("{FOLDER}/DMI"), TABLE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if not_found(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let entry = root.read(&format!("{FOLDER}/smbios_entry_point"), ENTRY_BYTES_MAX)?;
    let version =
        version(&entry).ok_or_else(|| std::io::Error::other("the entry point is none of SMBIOS"))?;
    Ok(Some(Tables { bytes, version }))
}

/// Version in an entry point of SMBIOS 2 (`_SM_`) or 3 (`_SM3_`) whose checksum is right.
fn version(entry: &[u8]) -> Option<(u8, u8)> {
    let (length, major) = if entry.starts_with(b"_SM3_") {
        (*entry.get(6)?, 7)
    } else if entry.starts_with(b"_SM_") {
        (*entry.get(5)?, 6)
    } else {
        return None;
    };
    let summed = entry.get(..usize::from(length))?;
    let sum = summed.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    (sum == 0).then_some((*entry.get(major)?, *entry.get(major + 1)?))
}

impl Tables {
    /// Everything that is wanted of the tables.
    pub fn said(&self) -> Said {
        let (structures, broken) = self.structures();
        let mut said = Said { broken, ..Said::default() };
        let other_arrays = arrays_that_are_not_system_memory(&structures);
        let mut boards = 0;
        for structure in &structures {
            match structure.kind {
                0 => said.firmware = structure.firmware(),
                1 => structure.system(self.version, &mut said.dmi),
                2 if boards == 0 => {
                    boards += 1;
                    structure.board(&mut said.dmi);
                }
                17 if !structure.word(0x04).is_some_and(|array| other_arrays.contains(&array)) => {
                    if let Some(dimm) = structure.dimm() {
                        if dimm.size_bytes == 0 {
                            said.sizes_unknown.push(dimm.locator.clone());
                        }
                        said.dimms.push(dimm);
                    }
                }
                39 => {
                    let number = said.psus.len() + 1;
                    said.psus.push(structure.psu(number));
                }
                _ => {}
            }
        }
        said
    }

    /// The structures up to the end mark or the first that is malformed, and what is wrong with that.
    fn structures(&self) -> (Vec<Structure<'_>>, Option<String>) {
        let mut structures = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() && structures.len() < STRUCTURES_MAX {
            let rest = &self.bytes[at..];
            let Some((structure, length)) = first_structure(rest) else {
                return (structures, Some(format!("the structure at byte {at} is not whole")));
            };
            // Type 127 ends the table; what follows is filling.
            if structure.kind == 127 {
                return (structures, None);
            }
            structures.push(structure);
            at += length;
        }
        (structures, None)
    }
}

/// The structure at the beginning of some bytes, and how many it takes with its strings.
fn first_structure(bytes: &[u8]) -> Option<(Structure<'_>, usize)> {
    let length = usize::from(*bytes.get(1)?);
    // Type, length and handle are four bytes.
    let formatted = bytes.get(..length).filter(|_| length >= 4)?;
    let text = &bytes[length..];
    let end = text.windows(2).position(|pair| pair == [0, 0])?;
    let strings = if end == 0 { Vec::new() } else { text[..end].split(|byte| *byte == 0).collect() };
    Some((Structure { kind: formatted[0], formatted, strings }, length + end + 2))
}

/// Handles of memory arrays (type 16) whose use is another than system memory: flash, video memory, caches.
fn arrays_that_are_not_system_memory(structures: &[Structure<'_>]) -> Vec<u16> {
    const SYSTEM_MEMORY: u8 = 3;
    structures
        .iter()
        .filter(|structure| structure.kind == 16)
        .filter(|structure| structure.byte(0x05).is_some_and(|usage| usage != SYSTEM_MEMORY))
        .filter_map(|structure| structure.word(0x02))
        .collect()
}

impl Structure<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.formatted.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.formatted.get(at..at + 2)?.try_into().ok()?))
    }

    fn double_word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.formatted.get(at..at + 4)?.try_into().ok()?))
    }

    /// The string whose number stands at an offset, where it says something.
    fn string(&self, at: usize) -> Option<String> {
        let number = usize::from(self.byte(at)?);
        let bytes = self.strings.get(number.checked_sub(1)?)?;
        said(&String::from_utf8_lossy(bytes))
    }

    fn firmware(&self) -> Firmware {
        Firmware {
            vendor: self.string(0x04),
            version: self.string(0x05),
            date: self.string(0x08),
            efi: false,
        }
    }

    fn system(&self, version: (u8, u8), dmi: &mut Dmi) {
        dmi.vendor = self.string(0x04);
        dmi.product = self.string(0x05);
        dmi.serial = self.string(0x07);
        dmi.uuid = self.formatted.get(0x08..0x18).and_then(|bytes| uuid(bytes.try_into().ok()?, version));
    }

    fn board(&self, dmi: &mut Dmi) {
        let parts: Vec<String> = [self.string(0x04), self.string(0x05)].into_iter().flatten().collect();
        dmi.board = Some(parts.join(" ")).filter(|board| !board.is_empty());
        dmi.board_serial = self.string(0x07);
    }

    /// The module in a slot; `None` where the slot is empty. A size that the firmware does not know is 0.
    fn dimm(&self) -> Option<Dimm> {
        const SPEED_IS_EXTENDED: u16 = 0xffff;
        let size_bytes = match self.word(0x0c)? {
            0 => return None,
            0xffff => 0,
            0x7fff => u64::from(self.double_word(0x1c)? & 0x7fff_ffff) << 20,
            kilobytes if kilobytes & 0x8000 != 0 => u64::from(kilobytes & 0x7fff) << 10,
            megabytes => u64::from(megabytes) << 20,
        };
        let speed = |word: usize, extended: usize| match self.word(word)? {
            0 => None,
            SPEED_IS_EXTENDED => self.double_word(extended).map(|speed| speed & 0x7fff_ffff),
            speed => Some(u32::from(speed)),
        };
        let locator = self.string(0x10).or_else(|| self.string(0x11));
        Some(Dimm {
            locator: locator.unwrap_or_else(|| format!("handle 0x{:04x}", self.word(0x02).unwrap_or(0))),
            size_bytes,
            speed_mts: speed(0x20, 0x58).or_else(|| speed(0x15, 0x54)),
            kind: self.byte(0x12).and_then(memory_kind).map(str::to_owned),
            manufacturer: self.string(0x17),
            part: self.string(0x1a),
            serial: self.string(0x18),
        })
    }

    fn psu(&self, number: usize) -> Psu {
        let name = self.string(0x05).or_else(|| self.string(0x06));
        Psu {
            name: name.unwrap_or_else(|| format!("psu {number}")),
            model: self.string(0x0a).or_else(|| self.string(0x06)),
            serial: self.string(0x08),
            state: self.word(0x0e).map(|bits| psu_state(bits).to_owned()),
        }
    }
}

/// Bits of a power supply's characteristics: 1 present, 2 unplugged, 7 to 9 its status.
fn psu_state(bits: u16) -> &'static str {
    if bits & 0b010 == 0 {
        return "not present";
    }
    if bits & 0b100 != 0 {
        return "unplugged";
    }
    match bits >> 7 & 0b111 {
        3 => "ok",
        4 => "non-critical",
        5 => "critical",
        _ => "unknown",
    }
}

/// A UUID as people write it. Since SMBIOS 2.6 its first three fields are little-endian.
fn uuid(bytes: [u8; 16], version: (u8, u8)) -> Option<String> {
    // All zeros: there is none. All ones: it could be set, and nobody did.
    if bytes == [0; 16] || bytes == [0xff; 16] {
        return None;
    }
    let order = if version >= (2, 6) {
        [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
    } else {
        std::array::from_fn(|at| at)
    };
    let mut text = String::with_capacity(36);
    for (at, from) in order.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[from]));
    }
    Some(text)
}

fn memory_kind(code: u8) -> Option<&'static str> {
    Some(match code {
        0x03 => "DRAM",
        0x07 => "RAM",
        0x0f => "SDRAM",
        0x11 => "RDRAM",
        0x12 => "DDR",
        0x13 => "DDR2",
        0x14 => "DDR2 FB-DIMM",
        0x18 => "DDR3",
        0x1a => "DDR4",
        0x1b => "LPDDR",
        0x1c => "LPDDR2",
        0x1d => "LPDDR3",
        0x1e => "LPDDR4",
        0x1f => "logical non-volatile device",
        0x20 => "HBM",
        0x21 => "HBM2",
        0x22 => "DDR5",
        0x23 => "LPDDR5",
        0x24 => "HBM3",
        _ => return None,
    })
}

/// A string of the firmware's, trimmed, where it is more than a place that nobody filled in.
pub(super) fn said(text: &str) -> Option<String> {
    const NOTHING: [&str; 18] = [
        "not specified",
        "unspecified",
        "not provided",
        "not available",
        "not present",
        "not settable",
        "unknown",
        "undefined",
        "none",
        "n/a",
        "to be filled by o.e.m.",
        "default string",
        "system serial number",
        "system manufacturer",
        "system product name",
        "no dimm",
        "empty",
        "invalid",
    ];
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let bare = text.trim_matches(['[', ']', '<', '>', '(', ')']).to_ascii_lowercase();
    let is_filling = bare.chars().all(|c| matches!(c, '0' | ' ' | '-' | '.' | 'x' | '_' | '*' | '?'));
    (!is_filling && !NOTHING.contains(&bare.as_str())).then(|| text.to_owned())
}

#[cfg(test)]
#[path = "smbios_tests.rs"]
pub(super) mod tests;
