//! Logs, byte for byte as the reference left them: each recorded case's own package is applied with its own arguments and
//! environment, and what is compared is read from the recording. Only the stamps are replaced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::place::{LOGS, Place, names};

/// The logs of a call: the name, without its stamp, to the bytes.
type Logs = BTreeMap<String, String>;

/// As long as every stamp: `2026-11-20T19:41:23.066538`.
const STAMP_BYTES: usize = 26;
/// As long as the stamp in a log's name, with the dash before it: `-2026-11-20-194122`.
const NAME_STAMP_BYTES: usize = 18;

struct Case(PathBuf);

impl Case {
    fn new(name: &str) -> Case {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/cases");
        Case(cases.join(name))
    }

    /// The call that was recorded.
    fn call(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("cmd.json")).unwrap()).unwrap()
    }

    fn of_package(&self, path: &str) -> Vec<u8> {
        fs::read(self.0.join("package").join(path)).unwrap()
    }

    /// The logs that the reference left, from the list of all that it changed.
    fn recorded(&self) -> Logs {
        let list = fs::read_to_string(self.0.join("tree.txt")).unwrap();
        let mut logs = Logs::new();
        let mut name = None;
        for line in list.lines() {
            if let Some(text) = line.strip_prefix("    | ") {
                if let Some(name) = &name {
                    let log: &mut String = logs.get_mut(name).unwrap();
                    *log += &format!("{text}\n");
                }
            } else if line == "    \\ no newline at end" {
                if let Some(name) = &name {
                    assert_eq!(logs.get_mut(name).unwrap().pop(), Some('\n'));
                }
            } else {
                let log = line.strip_prefix("+ f 0644 ").and_then(|path| path.strip_prefix(LOGS));
                name = log.map(|log| name_of(log.trim_start_matches('/')));
                logs.extend(name.clone().map(|name| (name, String::new())));
            }
        }
        logs.into_iter().map(|(name, text)| (name, without_stamps(&text))).collect()
    }

    /// The logs that are left by the same call now.
    fn left(&self) -> Logs {
        let place = Place::new();
        place.add_program("/bin/cat");
        let copied = Command::new("cp").arg("-r").arg(self.0.join("package/.")).arg(place.data()).status();
        assert!(copied.unwrap().success());
        let call = self.call();
        let put = |text: &Value| {
            let text = text.as_str().unwrap().replace("@ROOT@", place.root().to_str().unwrap());
            text.replace("@PKG@", place.data().to_str().unwrap())
        };
        let runs = call["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 1, "one call was recorded");
        let arguments: Vec<String> = runs[0]["argv"].as_array().unwrap().iter().map(put).collect();
        let mut call_now = place.call_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        for (name, value) in call["env"].as_object().unwrap() {
            call_now = call_now.env(name, put(value));
        }
        call_now.succeed();
        let folder = place.at(LOGS);
        let log = |name: &String| {
            let bytes = fs::read(folder.join(name)).unwrap();
            (name_of(name), without_stamps(&String::from_utf8(bytes).expect("it is UTF-8 always")))
        };
        names(&folder).iter().map(log).collect()
    }
}

/// `apply.sh-2026-11-20-194122.log.err` without the stamp.
fn name_of(log: &str) -> String {
    let (step, ending) = log.split_at(log.rfind(".log").expect("it is a log"));
    format!("{}{ending}", &step[..step.len() - NAME_STAMP_BYTES])
}

/// A log with `@` in place of each stamp: every line has its label, a stamp and a space.
fn without_stamps(log: &str) -> String {
    let line = |line: &str| {
        let (label, rest) = line.split_at(5);
        assert!(label == "[out]" || label == "[err]", "{line:?}");
        let (stamp, text) = rest.split_at(STAMP_BYTES);
        let shape = stamp.replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(shape, "0000-00-00T00:00:00.000000", "{line:?}");
        format!("{label}@{text}")
    };
    log.split_inclusive('\n').map(line).collect()
}

/// What a log holds of so much output, where nobody adds a newline.
fn labelled(output: &str) -> String {
    let mut log: String = output.split_inclusive('\n').map(|line| format!("[out]@ {line}")).collect();
    if output.ends_with('\n') {
        log += "[out]@ ";
    }
    log
}

#[test]
fn recorded_packages_leave_the_recorded_logs() {
    for (name, logs) in [("01-apply", 2), ("38-no-trailing-newline", 4)] {
        let case = Case::new(name);
        let recorded = case.recorded();
        assert_eq!(recorded.len(), logs, "{name}: {recorded:#?}");
        assert!(recorded.values().any(|log| !log.is_empty()), "{name}");
        assert_eq!(case.left(), recorded, "{name}");
    }
}

/// The reference decodes each read for itself. What it broke so is whole now, and all else as it was recorded.
#[test]
fn the_recorded_log_of_sixteen_byte_reads_is_left_with_its_characters_whole() {
    let case = Case::new("37-buffer-limit-16");
    let limit = case.call()["env"]["SKYHOOK_AGENT_BUFFER_LIMIT"].as_str().unwrap().parse::<usize>().unwrap();
    let (recorded, output) = (case.recorded(), case.of_package("skyhook_dir/data.bin"));
    let read_by_read: String =
        output.chunks(limit).map(|read| String::from_utf8_lossy(read).into_owned()).collect();
    assert_eq!(recorded["apply.sh.log"], labelled(&read_by_read));
    let whole = labelled(&String::from_utf8_lossy(&output));
    assert_ne!(recorded["apply.sh.log"], whole);
    let expected: Logs = recorded
        .into_iter()
        .map(|(name, log)| if name == "apply.sh.log" { (name, whole.clone()) } else { (name, log) })
        .collect();
    assert_eq!(case.left(), expected);
}
