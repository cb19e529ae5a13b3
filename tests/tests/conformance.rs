//! The recorded cases of the reference package agent, replayed against the built agent, and the rules for the file
//! that accepts differences.
//!
//! The cases, their runner and the reasons lie in `tests/conformance`. The runner needs root, python3, unshare,
//! overlayfs and debootstrap's root file system, which is made once and kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use groundcrew_tests::harness::binary;

/// A field, or the whole tree, that an entry would take out of the comparison.
const WHOLE: [&str; 6] = ["stdout", "stderr", "exit", "tree", "tree:*", "tree:**"];
/// An entry with an expression may touch this share of a field's recorded lines, in any case it applies to.
const LINES_TOUCHED_MAX: f64 = 0.7;

fn kit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// Where the base root file system lies: `CONFORMANCE_DIR`, else beside the other build outputs.
fn state_folder() -> PathBuf {
    let beside = || binary("groundcrew").parent().expect("a binary lies in a folder").join("../conformance");
    std::env::var_os("CONFORMANCE_DIR").map_or_else(beside, PathBuf::from)
}

fn accepted() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(kit().join("accept.json")).expect("the accept file is there");
    serde_json::from_str(&text).expect("the accept file maps a case or * to a list of entries")
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn every_recorded_case_is_answered_as_recorded_or_as_accepted() {
    assert!(
        rustix::process::geteuid().is_root(),
        "replaying the cases needs root: they mount and change roots"
    );
    let folder = state_folder();
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let (made, said) =
        run(Command::new("sh").arg(kit().join("make_base.sh")).env("CONFORMANCE_DIR", &folder));
    assert!(made, "making the base root file system failed:\n{said}");

    let agent = format!("{} package", binary("groundcrew").display());
    let mut runner = Command::new("python3");
    runner.arg(kit().join("run_case.py")).env("CONFORMANCE_DIR", &folder);
    runner.args(["--agent", &agent, "-j", "2", "--accept"]).arg(kit().join("accept.json"));
    let (matched, said) = run(&mut runner);
    assert!(matched, "{said}");
    let cases = std::fs::read_dir(kit().join("cases")).unwrap().count();
    assert!(said.ends_with(&format!("{cases} of {cases} cases match\n")), "{said}");
}

#[test]
fn no_entry_hides_a_whole_field() {
    for (case, entries) in accepted() {
        for entry in entries {
            let bare = entry
                .strip_prefix("run")
                .and_then(|rest| rest.split_once('.'))
                .map_or(&*entry, |(_, field)| field);
            assert!(!WHOLE.contains(&bare), "{case}: {entry:?} takes a whole field out of the comparison");
            if let Some(glob) = entry.strip_prefix("tree:") {
                let named = glob.trim_start_matches('*');
                assert!(
                    named.len() > 5,
                    "{case}: {entry:?} takes too much of the tree out of the comparison"
                );
            }
            let Some((field, expression)) = expression_of(&entry) else { continue };
            for recorded in recorded_fields(&case, field) {
                let touched = recorded.1.lines().filter(|line| expression.is_match(line)).count();
                let share = touched as f64 / recorded.1.lines().count().max(1) as f64;
                // One line out of one or two is no share that says anything.
                assert!(
                    share <= LINES_TOUCHED_MAX || touched <= 4,
                    "{case}: {entry:?} touches {touched} of {} lines of {}",
                    recorded.1.lines().count(),
                    recorded.0.display()
                );
            }
            assert!(
                !expression.is_match("x") || !expression.is_match("y"),
                "{case}: {entry:?} matches any line"
            );
        }
    }
}

#[test]
fn every_entry_has_its_reason() {
    let reasons =
        std::fs::read_to_string(kit().join("accept.md")).expect("the reasons lie beside the accept file");
    for (case, entries) in accepted() {
        for entry in entries {
            // The part of an entry that tells it from others: its expression, without what stands for it.
            let told = entry.split("=>").next().unwrap_or(&entry);
            assert!(reasons.contains(&format!("`{told}")), "{case}: accept.md gives no reason for {entry:?}");
        }
    }
}

/// The field and the expression of an entry that drops or replaces lines.
fn expression_of(entry: &str) -> Option<(&str, regex::Regex)> {
    let rest = entry.strip_prefix("drop:").or_else(|| entry.strip_prefix("sub:"))?;
    let (field, expression) = rest.split_once(':').expect("an entry names a field");
    let expression = expression.split("=>").next().unwrap_or(expression);
    Some((field, regex::Regex::new(expression).expect("the expression means the same here and in Python")))
}

/// The recorded texts of one field, of one case or of all.
fn recorded_fields(case: &str, field: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(kit().join("cases")).unwrap().map(|entry| entry.unwrap()) {
        if case != "*" && folder.file_name() != case {
            continue;
        }
        for file in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()) {
            let name = file.file_name().into_string().unwrap();
            let base = name.trim_end_matches(".txt").rsplit('.').next().unwrap_or_default();
            if ["stdout", "stderr", "tree"].contains(&base)
                && (field == "*" || field == base || field == name)
            {
                found.push((
                    file.path(),
                    String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned(),
                ));
            }
        }
    }
    found
}
