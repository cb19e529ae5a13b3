use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;

const FOLDER: &str = "/var/log/skyhook/sample/1.0.0";

fn root() -> (tempfile::TempDir, Root) {
    let scratch = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path()).unwrap();
    root.create_folders(Path::new(FOLDER)).unwrap();
    (scratch, root)
}

fn logs(root: &Root) -> Logs<'_> {
    Logs::new(root, Path::new(FOLDER))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn put(root: &Root, name: &str) {
    fs::write(root.host_path(Path::new(FOLDER)).join(name), name).unwrap();
}

fn names(root: &Root) -> Vec<String> {
    let names = root.names_in(Path::new(FOLDER)).unwrap();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

fn name_of(files: &LogFiles) -> &str {
    files.path.strip_prefix(FOLDER).unwrap().to_str().unwrap()
}

#[test]
fn a_log_has_the_recorded_name_and_its_errors_beside_it() {
    let (_scratch, root) = root();
    let mut files = logs(&root).create("apply.sh", at("2026-11-20T19:41:22.999999Z")).unwrap();
    files.out.write_all(b"out").unwrap();
    files.err.write_all(b"err").unwrap();
    assert_eq!(names(&root), ["apply.sh-2026-11-20-194122.log", "apply.sh-2026-11-20-194122.log.err"]);
    assert_eq!(root.read(&files.path, 10).unwrap().unwrap(), b"out");
    let interrupt = logs(&root).create("interrupts/node_restart_0", at("2026-11-20T19:41:22Z")).unwrap();
    assert_eq!(name_of(&interrupt), "interrupts/node_restart_0-2026-11-20-194122.log");
}

#[test]
fn runs_of_one_second_take_the_following_seconds() {
    let (_scratch, root) = root();
    let now = at("2026-11-20T23:59:58.5Z");
    let mut first = logs(&root);
    let of_first: Vec<_> = (0..3).map(|_| name_of(&first.create("a", now).unwrap()).to_owned()).collect();
    assert_eq!(of_first, ["a-2026-11-20-235958.log", "a-2026-11-20-235959.log", "a-2026-11-21-000000.log"]);
    assert_eq!(name_of(&first.create("b", now).unwrap()), "b-2026-11-20-235958.log");
    // Another process, another list: the newest stays the newest, also where older seconds are free again.
    fs::remove_file(root.host_path(Path::new(FOLDER)).join("a-2026-11-20-235959.log")).unwrap();
    assert_eq!(name_of(&logs(&root).create("a", now).unwrap()), "a-2026-11-21-000001.log");
    assert_eq!(
        name_of(&logs(&root).create("a", at("2026-11-21T00:00:09Z")).unwrap()),
        "a-2026-11-21-000009.log"
    );
}

#[test]
fn a_log_of_another_time_does_not_set_the_clock() {
    let (_scratch, root) = root();
    put(&root, "a-2099-01-01-000000.log");
    let mut logs = logs(&root);
    let files = logs.create("a", at("2026-11-20T19:41:22Z")).unwrap();
    assert_eq!(name_of(&files), "a-2026-11-20-194122.log");
}

#[test]
fn a_name_that_is_taken_is_never_opened() {
    let (_scratch, root) = root();
    let host = root.host_path(Path::new(FOLDER));
    let mut logs = logs(&root);
    // The list is made before these appear, as if somebody else wrote here.
    logs.create("other", at("2026-11-20T19:41:22Z")).unwrap();
    put(&root, "a-2026-11-20-194122.log");
    symlink("/etc/passwd", host.join("a-2026-11-20-194123.log")).unwrap();
    put(&root, "a-2026-11-20-194124.log.err");
    let files = logs.create("a", at("2026-11-20T19:41:22Z")).unwrap();
    assert_eq!(name_of(&files), "a-2026-11-20-194125.log");
    assert_eq!(fs::read(host.join("a-2026-11-20-194122.log")).unwrap(), b"a-2026-11-20-194122.log");
    assert!(!host.join("a-2026-11-20-194124.log").exists(), "a half pair is taken back");
}

/// What recorded case 40 holds: seven older runs and a sibling's log. The reference left the `.err` files and counted
/// the sibling's log.
#[test]
fn cleaning_keeps_five_runs_of_exactly_this_step() {
    let (_scratch, root) = root();
    for day in 1..=7 {
        put(&root, &format!("apply.sh-1999-01-0{day}-000000.log"));
        put(&root, &format!("apply.sh-1999-01-0{day}-000000.log.err"));
    }
    let others = [
        "apply.sh-1999-99-99-000000.log",
        "apply.sh-1999-01-01-000000.txt",
        "apply.sh-other-1999-02-01-000000.log",
        "apply.sh.log",
        "xapply.sh-1999-01-01-000000.log",
    ];
    others.iter().for_each(|name| put(&root, name));
    let mut logs = logs(&root);
    let files = logs.create("apply.sh", at("2026-11-20T19:41:58Z")).unwrap();
    logs.clean(&files).unwrap();
    let mut expected: Vec<String> = others.map(str::to_owned).to_vec();
    let kept = (4..=7).map(|day| format!("1999-01-0{day}-000000")).chain(["2026-11-20-194158".to_owned()]);
    expected.extend(kept.flat_map(|stamp| [".log", ".log.err"].map(|end| format!("apply.sh-{stamp}{end}"))));
    expected.sort();
    assert_eq!(names(&root), expected);
}

#[test]
fn the_current_run_stays_also_when_the_clock_was_turned_back() {
    let (_scratch, root) = root();
    for year in 2091..2099 {
        put(&root, &format!("a-{year}-01-01-000000.log"));
    }
    let mut logs = logs(&root);
    let files = logs.create("a", at("2026-11-20T19:41:58Z")).unwrap();
    logs.clean(&files).unwrap();
    assert_eq!(names(&root).len(), 4 + 2);
    assert!(root.exists(&files.path).unwrap());
}

#[test]
fn many_runs_leave_five() {
    let (_scratch, root) = root();
    let mut logs = logs(&root);
    let mut last = Vec::new();
    for _ in 0..40 {
        let files = logs.create("sub/a", at("2026-11-20T19:41:58Z")).unwrap();
        logs.clean(&files).unwrap();
        last.push(files.path.file_name().unwrap().to_owned());
    }
    let names = root.names_in(&Path::new(FOLDER).join("sub")).unwrap();
    let kept: Vec<_> = names.into_iter().filter(|name| !name.as_bytes().ends_with(b".err")).collect();
    assert_eq!(kept, last[35..]);
}

#[test]
fn a_step_with_a_long_or_bad_path() {
    let (_scratch, root) = root();
    let mut logs = logs(&root);
    let now = at("2026-11-20T19:41:58Z");
    let (a, b) = (format!("{}a", "x".repeat(240)), format!("{}b", "x".repeat(240)));
    let (of_a, of_b) = (logs.create(&a, now).unwrap(), logs.create(&b, now).unwrap());
    assert_ne!(of_a.path, of_b.path);
    assert!(
        name_of(&of_a).ends_with("-2026-11-20-194158.log")
            && name_of(&of_b).ends_with("-2026-11-20-194158.log")
    );
    logs.create(&format!("{}/x", "y".repeat(300)), now).unwrap();
    for bad in ["../x", "", "a\0"] {
        assert!(matches!(logs.create(bad, now), Err(Error::BadName { .. })), "{bad:?}");
    }
    assert_eq!(name_of(&logs.create("/abs//x", now).unwrap()), "abs/x-2026-11-20-194158.log");
}

#[test]
fn a_log_folder_that_leads_outside_stays_inside() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path()).unwrap();
    root.create_folders(Path::new("/var/log")).unwrap();
    symlink(outside.path(), scratch.path().join("var/log/skyhook")).unwrap();
    let files = logs(&root).create("a", at("2026-11-20T19:41:58Z")).unwrap();
    assert!(root.exists(&files.path).unwrap());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
