//! Archives, whole and hostile, as bytes.

use std::io::Write;

use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::*;

/// Remembers what it was handed.
#[derive(Default)]
struct Seen(Vec<String>);

impl Sink for Seen {
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        self.0.push(format!("folder {}", path.display()));
        Ok(())
    }
    fn file(&mut self, path: &Path, mode: u32, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut all = String::new();
        // A sink may leave some of it.
        content.take(3).read_to_string(&mut all)?;
        self.0.push(format!("file {} {mode:o} {bytes} {all}", path.display()));
        Ok(())
    }
    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.0.push(format!("link {} {}", path.display(), target.display()));
        Ok(())
    }
    fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.0.push(format!("hard {} {}", path.display(), target.display()));
        Ok(())
    }
}

fn header(kind: EntryType, path: &str, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(bytes);
    // Not by the setter, which keeps bad paths out.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    header
}

fn file(builder: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    builder.append(&header(EntryType::Regular, path, content.len() as u64), content).unwrap();
}

fn sample() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append(&header(EntryType::Directory, "./", 0), &b""[..]).unwrap();
    file(&mut builder, "./config.json", b"{\"a\": 1}");
    builder.append(&header(EntryType::Directory, "skyhook_dir/", 0), &b""[..]).unwrap();
    let long = format!("skyhook_dir/{}.sh", "n".repeat(150));
    let mut long_header = Header::new_gnu();
    long_header.set_mode(0o755);
    long_header.set_size(2);
    builder.append_data(&mut long_header, &long, &b"hi"[..]).unwrap();
    let mut link = header(EntryType::Symlink, "link", 0);
    link.set_link_name("skyhook_dir").unwrap();
    link.set_cksum();
    builder.append(&link, &b""[..]).unwrap();
    let mut hard = header(EntryType::Link, "again", 0);
    hard.set_link_name("config.json").unwrap();
    hard.set_cksum();
    builder.append(&hard, &b""[..]).unwrap();
    builder.into_inner().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn refusal(archive: &[u8]) -> Error {
    read(archive, 1_000_000, &mut Seen::default()).expect_err("it is hostile")
}

#[test]
fn an_archive_holds_the_same_however_it_is_packed() {
    let plain = sample();
    let packed = [plain.clone(), gzipped(&plain), zstd::encode_all(&plain[..], 3).unwrap()];
    for bytes in packed {
        let mut seen = Seen::default();
        let content = read(&bytes[..], 1_000_000, &mut seen).unwrap();
        // The file's other name counts like the file.
        assert_eq!(content, Content { entries: 6, bytes: 18 });
        let long = format!("file skyhook_dir/{}.sh 755 2 hi", "n".repeat(150));
        let expected = [
            "file config.json 755 8 {\"a",
            "folder skyhook_dir",
            &long,
            "link link skyhook_dir",
            "hard again config.json",
        ];
        assert_eq!(seen.0, expected);
    }
}

#[test]
fn whatever_is_cut_off_is_no_archive() {
    let plain = sample();
    let end = plain.len() - 1024;
    for cut in [0, 1, 511, 512, 700, 1024, end - 512, end] {
        let said = refusal(&plain[..cut]);
        assert!(
            matches!(said, Error::CutShort { .. } | Error::Unreadable { .. } | Error::Form),
            "{cut}: {said}"
        );
    }
    for packed in [gzipped(&plain), zstd::encode_all(&plain[..], 3).unwrap()] {
        for cut in [5, 20, packed.len() / 2, packed.len() - 1] {
            let said = refusal(&packed[..cut]);
            assert!(matches!(said, Error::CutShort { .. } | Error::Unreadable { .. }), "{cut}: {said}");
        }
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        drop(refusal(&flipped));
    }
    assert!(matches!(refusal(b"#!/bin/sh\n"), Error::Form));
}

#[test]
fn entries_that_are_no_files_are_refused() {
    for (kind, wanted) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a fifo"),
        (EntryType::GNUSparse, "a file with holes"),
        (EntryType::Continuous, "not known here"),
        (EntryType::new(b'M'), "not known here"),
    ] {
        let mut builder = Builder::new(Vec::new());
        let mut odd = header(kind, "x", 0);
        if let (EntryType::GNUSparse, Some(gnu)) = (kind, odd.as_gnu_mut()) {
            gnu.realsize.copy_from_slice(b"00000000000\0");
        }
        odd.set_cksum();
        builder.append(&odd, &b""[..]).unwrap();
        let said = refusal(&builder.into_inner().unwrap());
        assert!(matches!(said, Error::Entry(_)) && said.to_string().contains(wanted), "{kind:?}: {said}");
    }
}

#[test]
fn extended_headers_are_heeded_and_cannot_hide_holes_or_a_way_out() {
    let with = |records: &[(&str, &[u8])]| {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        file(&mut builder, "fine", b"x");
        builder.into_inner().unwrap()
    };
    for (records, wanted) in [
        (&[("path", &b"../../etc/passwd"[..])][..], "\"..\""),
        (&[("path", b"/etc/passwd")], "an absolute path"),
        (&[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"x")], "a file with holes"),
        (&[("GNU.sparse.map", b"0,1")], "a file with holes"),
    ] {
        let said = refusal(&with(records));
        assert!(said.to_string().contains(wanted), "{records:?}: {said}");
    }
    let mut seen = Seen::default();
    read(&with(&[("path", b"renamed"), ("comment", b"c")])[..], 100, &mut seen).unwrap();
    assert_eq!(seen.0, ["file renamed 755 1 x"]);
}

#[test]
fn what_unpacks_to_too_much_ends_early() {
    let mut builder = Builder::new(Vec::new());
    file(&mut builder, "large", &vec![0; 3_000_000]);
    let bomb = zstd::encode_all(&builder.into_inner().unwrap()[..], 19).unwrap();
    assert!(bomb.len() < 3_000, "{}", bomb.len());
    assert!(matches!(refusal(&bomb), Error::TooMuch { most: 1_000_000, .. }));
    // A size that is only said.
    let mut said = header(EntryType::Regular, "large", 0);
    said.as_old_mut().size[..11].copy_from_slice(b"77777777777");
    said.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&said, &b""[..]).unwrap();
    assert!(matches!(refusal(&builder.into_inner().unwrap()), Error::TooMuch { .. }));
    // A long name is read into memory.
    let mut builder = Builder::new(Vec::new());
    let name = vec![b'n'; 3_000_000];
    builder.append(&header(EntryType::GNULongName, "././@LongLink", name.len() as u64), &name[..]).unwrap();
    file(&mut builder, "x", b"");
    let said = refusal(&builder.into_inner().unwrap());
    assert!(matches!(said, Error::TooMuch { most: HEADERS_BYTES_MAX, .. }), "{said}");
    // Names of one file, each of which is a copy to whoever copies it.
    let mut builder = Builder::new(Vec::new());
    file(&mut builder, "large", &vec![0; 400_000]);
    for name in ["a", "b"] {
        let mut hard = header(EntryType::Link, name, 0);
        hard.set_link_name("large").unwrap();
        hard.set_cksum();
        builder.append(&hard, &b""[..]).unwrap();
    }
    assert!(matches!(refusal(&builder.into_inner().unwrap()), Error::TooMuch { most: 1_000_000, .. }));
    // Headers for the whole archive, which are no entries of it.
    let mut builder = Builder::new(Vec::new());
    for _ in 0..=GLOBALS_MAX {
        builder
            .append(&header(EntryType::XGlobalHeader, "pax_global_header", 10), &b"10 a=bcde\n"[..])
            .unwrap();
    }
    let said = refusal(&builder.into_inner().unwrap());
    assert!(matches!(said, Error::TooMuch { found: "more global headers", .. }), "{said}");
    // What stands behind the end.
    let mut endless = sample();
    endless.resize(endless.len() + 3_000_000, 0);
    assert!(matches!(refusal(&gzipped(&endless)), Error::TooMuch { .. }));
}

#[test]
fn a_sink_that_fails_is_said_with_the_path() {
    struct Full;
    impl Sink for Full {
        fn folder(&mut self, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn file(&mut self, _: &Path, _: u32, _: u64, _: &mut dyn Read) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn link(&mut self, _: &Path, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn hard_link(&mut self, _: &Path, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }
    let said = read(&sample()[..], 1_000, &mut Full).unwrap_err();
    assert!(matches!(&said, Error::Placing { path, .. } if path == Path::new("config.json")), "{said}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(mut flips in proptest::collection::vec((0_usize..5_000, proptest::num::u8::ANY), 0..8), cut in 0_usize..6_000) {
        let mut bytes = sample();
        for (at, value) in flips.drain(..) {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut.max(600));
        let mut seen = Seen::default();
        if let Ok(content) = read(&bytes[..], 100_000, &mut seen) {
            proptest::prop_assert!(content.entries >= seen.0.len());
        }
        for line in &seen.0 {
            proptest::prop_assert!(!line.contains("..") || line.contains("...") || line.contains("link"), "{line}");
        }
    }
}
