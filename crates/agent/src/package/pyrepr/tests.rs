use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// Under which names a Python may be found; the first whose tables are of our version is preferred.
const PYTHONS: [&str; 4] = ["python3.12", "python3", "python3.13", "python3.11"];
/// The version of [`printable::TURNS`].
const UNICODE: &str = "15.0.0";

/// Reads a list of Unix code point lists and floats as JSON; answers with their `repr`, and with the strings' code
/// points that this Python's Unicode does not know.
const ASK: &str = r#"
import json, sys, unicodedata
asked = json.load(sys.stdin)
strings = ["".join(map(chr, points)) for points in asked["strings"]]
unknown = sorted({ord(c) for s in strings for c in s if unicodedata.category(c) == "Cn"})
floats = [repr(float(f)) for f in asked["floats"]]
json.dump({"strings": [repr(s) for s in strings], "list": repr(strings), "unknown": unknown, "floats": floats}, sys.stdout)
"#;

/// Answers with the points at which printable and unprintable characters take turns, and those that are unassigned.
const JUDGE: &str = r#"
import json, sys, unicodedata
every = [chr(point) for point in range(sys.maxunicode + 1)]
printable = [False] + [c.isprintable() for c in every]
turns = [point for point in range(len(every)) if printable[point] != printable[point + 1]]
json.dump({"turns": turns, "unknown": [ord(c) for c in every if unicodedata.category(c) == "Cn"]}, sys.stdout)
"#;

#[derive(serde::Deserialize)]
struct Judged {
    turns: Vec<u32>,
    unknown: Vec<u32>,
}

struct Python {
    command: &'static str,
    unicode: String,
}

#[derive(serde::Deserialize)]
struct Answer {
    strings: Vec<String>,
    list: String,
    unknown: Vec<u32>,
    floats: Vec<String>,
}

impl Python {
    /// A Python with our Unicode version, else any. None where there is none: then the table alone is the witness.
    fn find() -> Option<Python> {
        let found: Vec<Python> = PYTHONS.iter().filter_map(|command| Self::probe(command)).collect();
        let ours = found.iter().position(|python| python.unicode == UNICODE).unwrap_or(0);
        found.into_iter().nth(ours)
    }

    fn probe(command: &'static str) -> Option<Python> {
        let script = "import unicodedata; print(unicodedata.unidata_version)";
        let output = Command::new(command).args(["-c", script]).output().ok()?;
        let unicode = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !unicode.is_empty()).then_some(Python { command, unicode })
    }

    fn ask(&self, strings: &[String], floats: &[f64]) -> Answer {
        let points: Vec<Vec<u32>> = strings.iter().map(|s| s.chars().map(u32::from).collect()).collect();
        let floats: Vec<String> = floats.iter().map(|float| format!("{float:e}")).collect();
        let asked = serde_json::json!({"strings": points, "floats": floats}).to_string();
        let mut child = Command::new(self.command)
            .args(["-c", ASK])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{} could not answer", self.command);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Whether this Python can tell about a character. An older one does not know what was added since; of a newer
    /// one, a character that is printable there and not here was added in between.
    fn can_tell(&self, unknown: &[u32], character: char) -> bool {
        let major = |version: &str| version.split('.').next().and_then(|part| part.parse::<u32>().ok());
        self.unicode == UNICODE
            || match major(&self.unicode) < major(UNICODE) {
                true => unknown.binary_search(&u32::from(character)).is_err(),
                false => is_printable(character) || character.is_ascii(),
            }
    }
}

/// Characters of every plane, with more of those that matter.
fn any_text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => any::<char>(),
        4 => (0_u32..0x300).prop_map(|point| char::from_u32(point).unwrap()),
        2 => prop::sample::select(vec!['\'', '"', '\\', '\n', '\t', '\r', '\u{7f}', '\u{ad}', '\u{2028}']),
        2 => (0_u32..0x11, any::<u16>()).prop_filter_map("a surrogate", |(plane, low)| {
            char::from_u32(plane << 16 | u32::from(low))
        }),
    ];
    prop::collection::vec(character, 0..12).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]
    #[test]
    fn python_writes_the_same(
        strings in prop::collection::vec(any_text(), 2000),
        floats in prop::collection::vec(any::<f64>().prop_filter("JSON", |f| f.is_finite()), 500),
        small in prop::collection::vec((-20_000_i32..20_000, -8_i32..20), 500),
    ) {
        let Some(python) = Python::find() else {
            eprintln!("no python3 here: only the fixed table is compared");
            return Ok(());
        };
        let floats: Vec<f64> = floats.into_iter()
            .chain(small.iter().map(|(digits, exponent)| f64::from(*digits) * 10_f64.powi(*exponent)))
            .collect();
        let answer = python.ask(&strings, &floats);
        let sure = |string: &String| string.chars().all(|character| python.can_tell(&answer.unknown, character));
        let mut compared = 0_usize;
        for (string, expected) in strings.iter().zip(&answer.strings).filter(|(string, _)| sure(string)) {
            compared += 1;
            prop_assert_eq!(&text(string), expected, "of {:?}", string);
        }
        prop_assert!(compared > strings.len() / 20, "only {} strings could be compared", compared);
        if strings.iter().all(sure) {
            prop_assert_eq!(list(strings.iter().map(|string| text(string))), answer.list);
        }
        for (value, expected) in floats.iter().zip(&answer.floats) {
            prop_assert_eq!(&float(*value), expected, "of {:e}", value);
        }
    }

    #[test]
    fn what_is_printable_stands_as_it_is(string in any_text()) {
        let written = text(&string);
        prop_assert!(written.chars().all(is_printable), "{written}");
        for character in string.chars().filter(|character| is_printable(*character)) {
            prop_assert!(written.contains(character));
        }
    }
}

#[test]
fn every_character_is_judged_as_python_does() {
    let Some(python) = Python::find() else {
        eprintln!("no python3 here: only the fixed table is compared");
        return;
    };
    let output = Command::new(python.command).args(["-c", JUDGE]).output().unwrap();
    let judged: Judged = serde_json::from_slice(&output.stdout).unwrap();
    let differ: Vec<char> = ('\0'..=char::MAX)
        .filter(|character| {
            let theirs = judged.turns.partition_point(|&turn| turn <= u32::from(*character)) % 2 == 1;
            theirs != is_printable(*character) && python.can_tell(&judged.unknown, *character)
        })
        .collect();
    assert!(differ.is_empty(), "{} (Unicode {}) differs: {differ:?}", python.command, python.unicode);
}

#[test]
fn text_is_quoted_and_escaped() {
    let table = [
        ("", "''"),
        ("plain", "'plain'"),
        ("it's", "\"it's\""),
        ("say \"x\"", "'say \"x\"'"),
        ("both ' and \"", "'both \\' and \"'"),
        ("nl\ntab\tbs\\", "'nl\\ntab\\tbs\\\\'"),
        ("\r\0\u{7f}\u{1b}", "'\\r\\x00\\x7f\\x1b'"),
        ("é漢😀", "'é漢😀'"),
        ("\u{200b}\u{a0}\u{e000}\u{378}", "'\\u200b\\xa0\\ue000\\u0378'"),
        ("\u{ad}\u{85}\u{2028}\u{3000}", "'\\xad\\x85\\u2028\\u3000'"),
        ("\u{feff}\u{ffff}\u{fffd}", "'\\ufeff\\uffff\u{fffd}'"),
        // Assigned in 15.0, in 15.1, and private, in the planes above.
        ("\u{1fae8}\u{2ebf0}\u{10ffff}", "'\u{1fae8}\\U0002ebf0\\U0010ffff'"),
        ("\u{e0001}\u{e0100}", "'\\U000e0001\u{e0100}'"),
    ];
    for (value, expected) in table {
        assert_eq!(text(value), expected);
    }
}

#[test]
fn floats_are_written_as_python_does() {
    let table = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (100.0, "100.0"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (0.0001, "0.0001"),
        (0.000_012, "1.2e-05"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.5e16, "1.5e+16"),
        (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
        // Two texts of as many digits are equally near: the even one.
        (1_817_981_143_451_810.2, "1817981143451810.2"),
        (f64::MAX, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (f64::NAN, "nan"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    for (value, expected) in table {
        assert_eq!(float(value), expected);
    }
}

#[test]
fn lists_and_bools() {
    assert_eq!(list([] as [&str; 0]), "[]");
    assert_eq!(list([text("one"), text("two words")]), "['one', 'two words']");
    assert_eq!((boolean(true), boolean(false)), ("True", "False"));
}
