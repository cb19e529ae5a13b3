use std::fs;

use proptest::prelude::*;

use super::*;

fn places() -> Places {
    Places::new(Path::new("/etc/skyhook"), Path::new("/var/log/skyhook"), "sample", "1.0.0").unwrap()
}

fn root() -> (tempfile::TempDir, Root) {
    let scratch = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path()).unwrap();
    (scratch, root)
}

fn put(root: &Root, text: &[u8]) {
    root.write_whole(&places().history(), text, 0o644).unwrap();
}

fn text(root: &Root) -> String {
    String::from_utf8(root.read(&places().history(), 1 << 20).unwrap().unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NONE_YET: &str = "no existing history found for sample, could be first installation...";

#[test]
fn without_a_file_the_previous_version_is_unknown_and_the_folder_is_made() {
    let (_scratch, root) = root();
    let previous = previous_version(&root, &places()).unwrap();
    assert_eq!(previous, Previous { version: "unknown".to_owned(), message: Some(NONE_YET.to_owned()) });
    assert!(root.exists(Path::new("/etc/skyhook/history")).unwrap());
    assert!(!root.exists(&places().history()).unwrap());
}

#[test]
fn recording_writes_the_recorded_bytes() {
    let (_scratch, root) = root();
    let said = record(&root, &places(), "1.0.0", at("2026-11-20T19:41:35.293616Z")).unwrap();
    assert_eq!(said.as_deref(), Some(NONE_YET));
    assert_eq!(
        text(&root),
        r#"{"current-version": "1.0.0", "history": [{"version": "1.0.0", "time": "2026-11-20T19:41:35.293616+00:00"}]}"#
    );
    let previous = previous_version(&root, &places()).unwrap();
    assert_eq!(previous, Previous { version: "1.0.0".to_owned(), message: None });
    assert_eq!(record(&root, &places(), UNINSTALLED, at("2026-11-20T19:41:40Z")).unwrap(), None);
    assert_eq!(
        text(&root),
        r#"{"current-version": "uninstalled", "history": [{"version": "uninstalled", "time": "2026-11-20T19:41:40.000000+00:00"}, {"version": "1.0.0", "time": "2026-11-20T19:41:35.293616+00:00"}]}"#
    );
}

#[test]
fn what_is_no_history_is_moved_aside_and_said() {
    let deep = "[".repeat(100_000);
    let large = vec![b' '; BYTES_MAX as usize + 1];
    let wrong: [&[u8]; 12] = [
        b"{\"current-version\": \"0.9\n",
        b"",
        b"null",
        b"[]",
        b"{}",
        br#"{"current-version": "1"}"#,
        br#"{"current-version": 1, "history": []}"#,
        br#"{"current-version": null, "history": []}"#,
        br#"{"current-version": "1", "history": {}}"#,
        b"{\"current-version\": \"\xe9\", \"history\": []}",
        deep.as_bytes(),
        &large,
    ];
    for bytes in wrong {
        let (_scratch, root) = root();
        put(&root, bytes);
        let previous = previous_version(&root, &places()).unwrap();
        assert_eq!(previous.version, "");
        let backup = root.host_path(Path::new("/etc/skyhook/history/sample.json.backup"));
        let message =
            format!("Failed to load existing history, corrupt history file moved to {}...", backup.display());
        assert_eq!(previous.message, Some(message));
        assert_eq!(fs::read(&backup).unwrap(), bytes);
        assert!(!root.exists(&places().history()).unwrap());

        put(&root, bytes);
        record(&root, &places(), "2.0.0", at("2026-11-20T19:41:40Z")).unwrap().unwrap();
        assert!(text(&root).starts_with(r#"{"current-version": "2.0.0", "history": [{"version": "2.0.0""#));
    }
}

#[test]
fn what_else_a_history_holds_is_kept_as_python_writes_it() {
    let (_scratch, root) = root();
    put(
        &root,
        "{\"by\":\"é\u{7f}😀\\u0001\\n\\\"\",\"current-version\":\"1\",\"history\":[7,{\"x\":[]}],\"n\":1.5}"
            .as_bytes(),
    );
    record(&root, &places(), "2", at("2026-11-20T19:41:40Z")).unwrap();
    assert_eq!(
        text(&root),
        "{\"by\": \"\\u00e9\\u007f\\ud83d\\ude00\\u0001\\n\\\"\", \"current-version\": \"2\", \"history\": [{\"version\": \"2\", \
         \"time\": \"2026-11-20T19:41:40.000000+00:00\"}, 7, {\"x\": []}], \"n\": 1.5}"
    );
}

#[test]
fn the_number_of_entries_is_bounded() {
    let mut history = History::new();
    for number in 0..ENTRIES_MAX + 3 {
        history.0[ENTRIES].as_array_mut().unwrap().push(number.into());
    }
    history.add("1", Timestamp::UNIX_EPOCH);
    let entries = history.0[ENTRIES].as_array().unwrap();
    assert_eq!((entries.len(), entries[1].as_u64()), (ENTRIES_MAX, Some(0)));
    assert!((ENTRIES_MAX * 300) as u64 <= BYTES_MAX, "what is written can be read again");
}

proptest! {
    #[test]
    fn a_version_of_any_text_is_read_back(version in any::<String>()) {
        let mut history = History::new();
        history.add(&version, Timestamp::UNIX_EPOCH);
        let text = history.to_text().unwrap();
        prop_assert!(text.is_ascii());
        let history = History::parse(text.as_bytes());
        prop_assert_eq!(history.as_ref().map(History::current), Some(version.as_str()));
    }
}
