//! Tables as a firmware builds them, and mangled ones.

use super::*;
use proptest::prelude::*;

/// A structure with its strings, as it stands in a table.
fn structure(kind: u8, handle: u16, formatted: &[u8], strings: &[&str]) -> Vec<u8> {
    let length = u8::try_from(formatted.len() + 4).unwrap();
    let mut bytes = vec![kind, length];
    bytes.extend(handle.to_le_bytes());
    bytes.extend(formatted);
    for string in strings {
        bytes.extend(string.as_bytes());
        bytes.push(0);
    }
    if strings.is_empty() {
        bytes.push(0);
    }
    bytes.push(0);
    bytes
}

/// An entry point of SMBIOS 3.2.
pub(crate) fn entry_point() -> Vec<u8> {
    let mut bytes = b"_SM3_\0\x18\x03\x02\0\x01\0\0\x10\0\0\0\0\0\0\0\0\0\0".to_vec();
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[5] = 0u8.wrapping_sub(sum);
    bytes
}

/// A memory device (type 17) of SMBIOS 3.3.
fn module(handle: u16, size: u16, extended: u32, speed: u16, strings: &[&str]) -> Vec<u8> {
    let mut formatted = vec![0u8; 0x58];
    let mut put = |at: usize, bytes: &[u8]| formatted[at - 4..at - 4 + bytes.len()].copy_from_slice(bytes);
    put(0x04, &0x1000u16.to_le_bytes());
    put(0x0c, &size.to_le_bytes());
    // Locator, bank, kind.
    put(0x10, &[1, 2, 0x22]);
    put(0x15, &5600u16.to_le_bytes());
    // Maker, serial, tag, part.
    put(0x17, &[3, 4, 5, 6]);
    put(0x1c, &extended.to_le_bytes());
    put(0x20, &speed.to_le_bytes());
    put(0x54, &9000u32.to_le_bytes());
    put(0x58, &8800u32.to_le_bytes());
    structure(17, handle, &formatted, strings)
}

fn supply(handle: u16, state: u16, strings: &[&str]) -> Vec<u8> {
    let mut formatted = vec![1, 1, 2, 3, 4, 0, 5, 0, 0x40, 0x06];
    formatted.extend(state.to_le_bytes());
    structure(39, handle, &formatted, strings)
}

/// The table of the fixture's server.
pub(crate) fn server_table() -> Vec<u8> {
    let mut system = vec![1, 2, 0, 3];
    system.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    system.extend([0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01, 6, 0, 0]);
    let part = ["NO DIMM", "BANK 0", "Samsung", "S1", "tag", "M321R8GA0BB0-CQK  "];
    let named = |locator: &'static str, serial: &'static str| {
        let mut strings = part;
        (strings[0], strings[3]) = (locator, serial);
        strings
    };
    [
        structure(0, 0, &[1, 2, 0, 0xe0, 3, 0, 0, 0], &["AMI", "2.1", "03/14/2023"]),
        structure(1, 1, &system, &["Acme", "NodeX1000", "SN-0001"]),
        structure(2, 2, &[1, 2, 0, 3], &["AcmeB", "BoardY", "BRD-1"]),
        structure(2, 3, &[1, 2, 0, 3], &["Other", "Riser", "R-1"]),
        structure(16, 0x1000, &[3, 3, 6, 0, 0, 0, 0, 0, 0, 8, 0], &[]),
        structure(16, 0x1001, &[3, 5, 3, 0, 0, 0, 0, 0, 0, 1, 0], &[]),
        module(0x1100, 0x7fff, 64 * 1024, 4800, &named("DIMM_A1", "S1")),
        module(0x1101, 0, 0, 0, &named("DIMM_A2", "x")),
        module(0x1102, 16_384, 0, 4800, &named("DIMM_B1", "S2")),
        module(0x1103, 0x8000 | 512, 0, 0xffff, &named("DIMM_C1", "Not Specified")),
        module(0x1104, 16_384, 0, 0, &named("DIMM_D1", "00000000")),
        supply(0x2700, 0b01_1000_0010, &["Bay 1", "PSU", "Delta", "P-1", "DPS-1600"]),
        supply(0x2701, 0b10_1000_0010, &["Bay 2", "PSU", "Delta", "P-2", "DPS-1600"]),
        structure(127, 0x7f00, &[], &[]),
    ]
    .concat()
}

fn tables(bytes: Vec<u8>) -> Tables {
    Tables { bytes, version: (3, 2) }
}

#[test]
fn a_servers_table_is_read() {
    let said = tables(server_table()).said();
    assert_eq!(said.broken, None);
    let dmi = Dmi {
        vendor: Some("Acme".into()),
        product: Some("NodeX1000".into()),
        serial: Some("SN-0001".into()),
        uuid: Some("44332211-6655-8877-99aa-bbccddeeff01".into()),
        board: Some("AcmeB BoardY".into()),
        board_serial: Some("BRD-1".into()),
    };
    assert_eq!(said.dmi, dmi);
    assert_eq!(said.firmware.version.as_deref(), Some("2.1"));
    assert_eq!(said.firmware.date.as_deref(), Some("03/14/2023"));
    let told: Vec<(&str, u64, Option<u32>, Option<&str>)> = said
        .dimms
        .iter()
        .map(|dimm| (dimm.locator.as_str(), dimm.size_bytes, dimm.speed_mts, dimm.serial.as_deref()))
        .collect();
    let expected = [
        ("DIMM_A1", 64 << 30, Some(4800), Some("S1")),
        ("DIMM_B1", 16 << 30, Some(4800), Some("S2")),
        ("DIMM_C1", 512 << 10, Some(8800), None),
        ("DIMM_D1", 16 << 30, Some(5600), None),
    ];
    assert_eq!(told, expected);
    assert_eq!(said.dimms[0].kind.as_deref(), Some("DDR5"));
    assert_eq!(said.dimms[0].part.as_deref(), Some("M321R8GA0BB0-CQK"));
    let supplies: Vec<(&str, Option<&str>, Option<&str>)> = said
        .psus
        .iter()
        .map(|psu| (psu.name.as_str(), psu.serial.as_deref(), psu.state.as_deref()))
        .collect();
    assert_eq!(supplies, [("Bay 1", Some("P-1"), Some("ok")), ("Bay 2", Some("P-2"), Some("critical"))]);
}

#[test]
fn memory_that_is_no_system_memory_is_left_out() {
    let mut flash = module(0x1200, 16, 0, 0, &["BIOS", "", "", "", "", ""]);
    flash[4..6].copy_from_slice(&0x1001u16.to_le_bytes());
    let array = structure(16, 0x1001, &[3, 5, 3, 0, 0, 0, 0, 0, 0, 1, 0], &[]);
    assert!(tables([array, flash].concat()).said().dimms.is_empty());
}

#[test]
fn a_module_of_unknown_size_is_there_and_said() {
    let module = module(0x1100, 0xffff, 0, 0, &["DIMM_A1", "", "", "", "", ""]);
    let said = tables(module).said();
    assert_eq!((said.dimms.len(), said.sizes_unknown), (1, vec!["DIMM_A1".to_owned()]));
}

#[test]
fn a_uuid_before_smbios_2_6_is_not_turned() {
    let bytes = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(uuid(bytes, (2, 5)).unwrap(), "11223344-5566-7788-0102-030405060708");
    assert_eq!(uuid([0xff; 16], (2, 8)), None);
    assert_eq!(uuid([0; 16], (2, 8)), None);
}

#[test]
fn an_entry_point_is_known_by_its_mark_and_sum() {
    assert_eq!(version(&entry_point()), Some((3, 2)));
    let mut entry = b"_SM_\0\x1f\x02\x08".to_vec();
    entry.resize(0x1f, 0);
    let sum = entry.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    entry[4] = 0u8.wrapping_sub(sum);
    assert_eq!(version(&entry), Some((2, 8)));
    entry[10] ^= 1;
    assert_eq!(version(&entry), None);
    assert_eq!(version(b"_SM3_"), None);
}

#[test]
fn places_that_nobody_filled_in_say_nothing() {
    for nothing in ["", "  ", "Not Specified", "NONE", "To Be Filled By O.E.M.", "0000000", "[Empty]", "xxxx"]
    {
        assert_eq!(said(nothing), None, "{nothing}");
    }
    assert_eq!(said(" S1 \0").as_deref(), Some("S1"));
}

proptest! {
    #[test]
    fn no_table_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = tables(bytes.clone()).said();
        let _ = version(&bytes);
    }

    #[test]
    fn a_mangled_table_never_makes_it_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = server_table();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = tables(bytes).said();
    }

    #[test]
    fn a_table_that_breaks_off_says_so_or_ends_between_structures(cut in 1usize..700) {
        let whole = server_table();
        let cut = cut.min(whole.len() - 1);
        let said = tables(whole[..cut].to_vec()).said();
        let all = tables(whole).said();
        prop_assert!(said.dimms.len() <= all.dimms.len());
        prop_assert!(said.dimms.iter().all(|dimm| all.dimms.contains(dimm)));
    }
}
