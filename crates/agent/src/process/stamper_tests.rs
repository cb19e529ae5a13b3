//! The stamper against a plain model of its rules. Logs as they were recorded from the reference are compared in
//! `tests/package/golden.rs`.

use super::*;
use proptest::prelude::*;

const FIRST: Stamp = Stamp::from_text(*b"2026-11-20T19:41:23.066671");

/// The stamp of read number `index`.
fn stamp(index: usize) -> Stamp {
    let text = format!("2026-11-20T19:41:23.{index:06}");
    Stamp::from_text(text.into_bytes().try_into().unwrap())
}

/// What the reads give, each with a stamp of its own, and the end with the next.
fn stamped(label: Label, reads: &[&[u8]]) -> String {
    let (mut stamper, mut out) = (Stamper::new(label), Stamped::default());
    for (index, bytes) in reads.iter().enumerate() {
        stamper.push(bytes, &stamp(index), &mut out);
    }
    stamper.finish(&stamp(reads.len()), &mut out);
    String::from_utf8(out.as_slice().to_vec()).unwrap()
}

/// The rules as a sentence: the whole stream decoded, and before each line the number of the read that had its first
/// byte.
fn model(label: Label, reads: &[&[u8]]) -> String {
    let whole: Vec<u8> = reads.concat();
    let read_of: Vec<usize> =
        reads.iter().enumerate().flat_map(|(index, bytes)| vec![index; bytes.len()]).collect();
    let mut text = String::new();
    let mut begin = 0;
    let prefix =
        |read: usize| format!("{}2026-11-20T19:41:23.{read:06} ", std::str::from_utf8(label.text()).unwrap());
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        text += &prefix(read_of[begin]);
        text += &String::from_utf8_lossy(line);
        begin += line.len();
    }
    if whole.ends_with(b"\n") {
        text += &prefix(reads.len());
    }
    text
}

/// 37-buffer-limit-16, with characters over a read's end whole, where the reference broke them.
#[test]
fn reads_of_sixteen_bytes_break_no_character() {
    let data =
        include_bytes!("../../../../tests/conformance/cases/37-buffer-limit-16/package/skyhook_dir/data.bin");
    assert_eq!(data.len(), 107);
    let reads: Vec<&[u8]> = data.chunks(16).collect();
    let expected = "[out]2026-11-20T19:41:23.000000 0123456789abcd\n\
         [out]2026-11-20T19:41:23.000000 é0123456789ABC€\n\
         [out]2026-11-20T19:41:23.000002 longer line three\u{fffd}\u{fffd} bad\n\
         [out]2026-11-20T19:41:23.000003 123456é 漢字😀 snow☃man 😀😀😀 tail\n\
         [out]2026-11-20T19:41:23.000007 ";
    assert_eq!(stamped(Label::Out, &reads), expected);
}

#[test]
fn a_prefix_carries_the_time_at_which_its_lines_first_byte_was_read() {
    let text = stamped(Label::Out, &[b"a", b"b\n", b"c\nd", b"\n"]);
    let expected = "[out]2026-11-20T19:41:23.000000 ab\n\
         [out]2026-11-20T19:41:23.000002 c\n\
         [out]2026-11-20T19:41:23.000002 d\n\
         [out]2026-11-20T19:41:23.000004 ";
    assert_eq!(text, expected);
    // Also where that byte is only the beginning of a character.
    let text = stamped(Label::Err, &[b"\xe2", b"\x82", b"\xac"]);
    assert_eq!(text, "[err]2026-11-20T19:41:23.000000 €");
}

#[test]
fn a_line_is_given_as_far_as_it_was_read() {
    let (mut stamper, mut out) = (Stamper::new(Label::Out), Stamped::default());
    stamper.push(b"no end", &FIRST, &mut out);
    assert!(out.as_slice().ends_with(b" no end"));
    out.clear(0);
    stamper.push(b" yet", &FIRST, &mut out);
    assert_eq!(out.as_slice(), b" yet");
}

#[test]
fn broken_characters_are_replaced_as_python_replaces_them() {
    // Each beside what Python 3.12 gives for `bytes.decode("utf-8", "replace")`.
    for (bytes, text) in [
        (&b"\xf0\x9f\x98"[..], "\u{fffd}"),
        (b"\xf0\x9f\x98A", "\u{fffd}A"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
        (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xe2\x82\xe2\x82\xac", "\u{fffd}€"),
        (b"\xf5x\x80", "\u{fffd}x\u{fffd}"),
    ] {
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        for reads in [vec![bytes], single] {
            let given = stamped(Label::Out, &reads);
            assert_eq!(given[PREFIX_BYTES..], *text, "{bytes:x?}");
        }
    }
}

#[test]
fn a_read_error_is_the_last_line() {
    let failed = |before: &[u8]| {
        let (mut stamper, mut out) = (Stamper::new(Label::Err), Stamped::default());
        stamper.push(before, &FIRST, &mut out);
        stamper.fail("Input/output error (os error 5)", &FIRST, &mut out);
        String::from_utf8(out.as_slice().to_vec()).unwrap()
    };
    let last = "[err]2026-11-20T19:41:23.066671 ERROR reading stream: Input/output error (os error 5)\n";
    let first = "[err]2026-11-20T19:41:23.066671 a";
    assert_eq!(failed(b""), last);
    assert_eq!(failed(b"a\n"), format!("{first}\n{last}"));
    assert_eq!(failed(b"a\xe2\x82"), format!("{first}\u{fffd}{last}"));
}

/// Bytes in which line ends, characters of every length, broken ones and long runs meet.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\n".to_vec()),
        4 => "[a-z ]{0,40}".prop_map(String::into_bytes),
        2 => "\\PC{0,5}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => (0..600usize).prop_map(|count| vec![b'x'; count]),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_what_the_rules_say(
        bytes in output(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let reads: Vec<&[u8]> =
            cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).filter(|read| !read.is_empty()).collect();
        let text = stamped(Label::Out, &reads);
        prop_assert_eq!(&text, &model(Label::Out, &reads));
    }
}
