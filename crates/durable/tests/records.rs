//! Record files: what was appended is read back, what is damaged is told apart, and no bytes whatever make a
//! reader panic or return a record that was not written whole.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use groundcrew_durable::Error;
use groundcrew_durable::lock::Holder;
use groundcrew_durable::records::{
    Corruption, End, EndKind, HEADER_BYTES, Options, RecordReader, RecordWriter,
};
use proptest::collection::vec;
use proptest::prelude::*;

const BYTES_MAX: u32 = 200;
const OPTIONS: Options = Options { record_bytes_max: BYTES_MAX, mode_for_new: 0o600 };

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("spool");
    (home, path)
}

fn append_all(path: &Path, records: &[Vec<u8>]) -> Vec<u64> {
    let (mut writer, _) = RecordWriter::open(path, &OPTIONS).unwrap();
    records.iter().map(|record| writer.append(record).unwrap()).collect()
}

fn read_from(path: &Path, offset: u64) -> (Vec<Vec<u8>>, End) {
    let mut reader = RecordReader::open_at(path, BYTES_MAX, offset).unwrap().unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        found.push(record.to_vec());
    }
    let end = reader.end().unwrap();
    assert_eq!(end.offset, reader.offset());
    (found, end)
}

/// The CRC-32 of IEEE 802.3, bit by bit: independent of the crate's.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// The records at the beginning of `bytes`, by the plainest reading of the format.
fn model(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES as usize {
        let (header, behind) = rest.split_at(HEADER_BYTES as usize);
        let length = u32::from_le_bytes(header[..4].try_into().unwrap());
        let stored = u32::from_le_bytes(header[4..].try_into().unwrap());
        if length > BYTES_MAX || length as usize > behind.len() {
            break;
        }
        let (payload, next) = behind.split_at(length as usize);
        if crc32(&[&header[..4], payload].concat()) != stored {
            break;
        }
        found.push(payload.to_vec());
        rest = next;
    }
    found
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..=BYTES_MAX as usize), 0..12)
}

/// What may happen to a file behind its writer's back.
#[derive(Debug, Clone)]
enum Damage {
    Cut(usize),
    Flip(usize, u8),
    Zeros(usize),
    Garbage(Vec<u8>),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            any::<usize>().prop_map(Self::Cut),
            (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            (1..300usize).prop_map(Self::Zeros),
            vec(any::<u8>(), 1..300).prop_map(Self::Garbage),
        ]
    }

    /// Damages the bytes; returns how many at the beginning are still as they were.
    fn inflict(&self, bytes: &mut Vec<u8>) -> usize {
        match self {
            Self::Cut(at) => bytes.truncate(at % (bytes.len() + 1)),
            Self::Flip(at, bit) if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
                return at;
            }
            Self::Flip(..) => {}
            Self::Zeros(count) => {
                let intact = bytes.len();
                bytes.resize(intact + count, 0);
                return intact;
            }
            Self::Garbage(garbage) => {
                let intact = bytes.len();
                bytes.extend_from_slice(garbage);
                return intact;
            }
        }
        bytes.len()
    }
}

proptest! {
    #[test]
    fn any_bytes_read_as_the_model_reads_them(bytes in vec(any::<u8>(), 0..600)) {
        let (_home, path) = home();
        fs::write(&path, &bytes).unwrap();
        let (found, end) = read_from(&path, 0);
        prop_assert_eq!(&found, &model(&bytes));
        prop_assert_eq!(end.offset + end.bytes_after, bytes.len() as u64);
        prop_assert_eq!(end.kind == EndKind::Clean, end.bytes_after == 0);
        match RecordWriter::open(&path, &OPTIONS) {
            Ok((writer, opened)) => {
                prop_assert_eq!((opened.records, opened.cut_bytes), (found.len() as u64, end.bytes_after));
                prop_assert_eq!(writer.bytes(), end.offset);
                prop_assert_eq!(fs::read(&path).unwrap(), &bytes[..end.offset as usize]);
            }
            Err(Error::Corrupt { offset, .. }) => {
                prop_assert!(matches!(end.kind, EndKind::Corrupt(_)));
                prop_assert_eq!(offset, end.offset);
                prop_assert_eq!(fs::read(&path).unwrap(), bytes);
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn damage_costs_only_what_lies_behind_it(records in payloads(), damage in Damage::any()) {
        let (_home, path) = home();
        let ends = append_all(&path, &records);
        let mut bytes = fs::read(&path).unwrap();
        prop_assert_eq!(bytes.len() as u64, ends.last().copied().unwrap_or(0));
        let intact = damage.inflict(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().filter(|&&end| end <= intact as u64).count();
        let (found, end) = read_from(&path, 0);
        prop_assert_eq!(&found[..], &records[..whole]);
        if matches!(damage, Damage::Cut(_) | Damage::Zeros(_)) {
            prop_assert!(!matches!(end.kind, EndKind::Corrupt(_)), "a crash explains {damage:?}: {end:?}");
            let (mut writer, opened) = RecordWriter::open(&path, &OPTIONS).unwrap();
            prop_assert_eq!(opened.records, whole as u64);
            writer.append(b"next").unwrap();
            writer.sync().unwrap();
            let (found, end) = read_from(&path, 0);
            prop_assert_eq!(&found[..whole], &records[..whole]);
            prop_assert_eq!((&found[whole][..], end.kind), (&b"next"[..], EndKind::Clean));
        }
    }

    #[test]
    fn reading_goes_on_from_any_record(records in payloads(), from in any::<prop::sample::Index>()) {
        let (_home, path) = home();
        let mut starts = vec![0];
        starts.extend(append_all(&path, &records));
        let from = from.index(starts.len());
        prop_assert_eq!(&read_from(&path, starts[from]).0[..], &records[from..]);
    }
}

#[test]
fn a_crash_and_damage_are_told_apart() {
    let (_home, path) = home();
    let records: Vec<Vec<u8>> = [&b"one"[..], b"two"].map(<[u8]>::to_vec).into();
    append_all(&path, &records);
    let whole = fs::read(&path).unwrap();
    let kind_of = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read_from(&path, 0).1.kind
    };
    assert_eq!(kind_of(&[]), EndKind::Clean);
    assert_eq!(kind_of(&whole), EndKind::Clean);
    assert_eq!(kind_of(&whole[..whole.len() - 1]), EndKind::Torn);
    assert_eq!(kind_of(&[&whole[..], &[0; 70_000]].concat()), EndKind::Torn);
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    // The last record: its last page may not have come to the disk. The first: that one had to.
    assert_eq!(kind_of(&flipped(whole.len() - 1)), EndKind::Torn);
    let EndKind::Corrupt(Corruption::Checksum { found, expected }) = kind_of(&flipped(8)) else { panic!() };
    assert_ne!(found, expected);
    let long = [&201u32.to_le_bytes()[..], &[7; 300]].concat();
    let damage = Corruption::Length { found: 201, bytes_max: BYTES_MAX };
    assert_eq!(kind_of(&long), EndKind::Corrupt(damage));
    let error = RecordWriter::open(&path, &OPTIONS).unwrap_err();
    let expected = "is damaged at byte 0: a record of 201 bytes where 200 is the limit";
    assert_eq!(error.to_string(), format!("{} {expected}", path.display()));
    assert_eq!(fs::read(&path).unwrap(), long);
}

#[test]
fn a_reader_follows_a_writer_and_sees_no_half_record() {
    let (_home, path) = home();
    assert!(RecordReader::open(&path, BYTES_MAX).unwrap().is_none());
    let (mut writer, _) = RecordWriter::open(&path, &OPTIONS).unwrap();
    let mut reader = RecordReader::open(&path, BYTES_MAX).unwrap().unwrap();
    for number in 0..1000u32 {
        assert_eq!(reader.next_record().unwrap(), None);
        assert_eq!(reader.end().unwrap().kind, EndKind::Clean);
        let payload = number.to_string().repeat(number as usize % 50);
        let end = writer.append(payload.as_bytes()).unwrap();
        assert_eq!(reader.next_record().unwrap(), Some(payload.as_bytes()));
        assert_eq!((reader.offset(), reader.end(), writer.bytes()), (end, None, end));
    }
    drop(writer);
    // A tail that was half a record to the reader is another record a moment later.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[9, 0, 0, 0, 1, 2, 3, 4, 5]).unwrap();
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(reader.end().map(|end| (end.kind, end.bytes_after)), Some((EndKind::Torn, 9)));
    let (mut writer, opened) = RecordWriter::open(&path, &OPTIONS).unwrap();
    assert_eq!((opened.records, opened.cut_bytes), (1000, 9));
    writer.append(b"another").unwrap();
    assert_eq!(reader.next_record().unwrap(), Some(&b"another"[..]));
}

#[test]
fn limits_and_a_second_writer_are_refused() {
    let (_home, path) = home();
    let (mut writer, _) = RecordWriter::open(&path, &OPTIONS).unwrap();
    assert_eq!(writer.append(&[1; 200]).unwrap(), 208);
    assert!(matches!(writer.append(&[1; 201]), Err(Error::TooLarge { bytes_max: 200, .. })));
    assert_eq!(writer.bytes(), 208);
    let second = RecordWriter::open(&path, &OPTIONS);
    assert!(matches!(second, Err(Error::Held { holder: Holder::Unsigned, .. })));
    let past = RecordReader::open_at(&path, BYTES_MAX, 209);
    assert!(matches!(past, Err(Error::PastEnd { offset: 209, bytes: 208, .. })));
    assert_eq!(fs::metadata(writer.path()).unwrap().len(), 208);
}
