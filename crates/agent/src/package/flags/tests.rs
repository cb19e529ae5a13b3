use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn places() -> Places {
    Places::new(Path::new("/etc/skyhook"), Path::new("/var/log/skyhook"), "sample", "1.0.0").unwrap()
}

fn root() -> (tempfile::TempDir, Root) {
    let scratch = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path()).unwrap();
    (scratch, root)
}

fn text(root: &Root, path: &str) -> Option<String> {
    let bytes = root.read(Path::new(path), 1 << 20).unwrap();
    bytes.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Names that the reference agent has written.
#[test]
fn a_steps_flag_has_the_recorded_name() {
    for (path, arguments, returncodes, recorded) in [
        ("apply.sh", "['one', 'two words']", "[0]", "apply.sh_WydvbmUnLCAndHdvIHdvcmRzJ11fWzBd"),
        ("config.sh", "[]", "[0]", "config.sh_W11fWzBd"),
        ("apply.sh", "['env:FOO', 'x']", "[0]", "apply.sh_WydlbnY6Rk9PJywgJ3gnXV9bMF0="),
        ("noext", "[]", "[0]", "noext_W11fWzBd"),
        (
            "apply.sh",
            r#"["it's", 'say "x"', 'both \' and "', 'nl\ntab\tbs\\', '\x7f\x1b', 'é漢😀', '\u200b\xa0\ue000\u0378', '']"#,
            "[0, 0, 12345678901234567890]",
            "apply.sh_WyJpdCdzIiwgJ3NheSAieCInLCAnYm90aCBcJyBhbmQgIicsICdubFxudGFiXHRic1xcJywgJ1x4N2ZceDFiJywgJ8Op5ryi8J+YgCcsICdcdTIwMGJceGEwXHVlMDAwXHUwMzc4JywgJyddX1swLCAwLCAxMjM0NTY3ODkwMTIzNDU2Nzg5MF0=",
        ),
    ] {
        let flag = step_flag(&places(), path, arguments, returncodes).unwrap();
        assert_eq!(flag.as_os_str(), format!("/etc/skyhook/flags/sample/1.0.0/{recorded}").as_str());
    }
}

#[test]
fn a_slash_in_path_or_base64_makes_a_folder() {
    let (_scratch, root) = root();
    let flag = step_flag(&places(), "sub/a.sh", "['?????']", "[0]").unwrap();
    let relative = flag.strip_prefix("/etc/skyhook/flags/sample/1.0.0").unwrap();
    assert_eq!(relative, Path::new("sub/a.sh_Wyc/Pz8/PyddX1swXQ=="));
    assert_eq!(find(&root, &flag).unwrap(), None);
    set_step(&root, &flag, "2026-11-20T19:41:23.084789", false).unwrap();
    assert_eq!(find(&root, &flag).unwrap(), Some(root.host_path(&flag)));
    assert!(remove(&root, &flag).unwrap());
    assert_eq!(find(&root, &flag).unwrap(), None);
}

#[test]
fn a_long_argument_is_hashed_and_told_from_another() {
    let (_scratch, root) = root();
    let flag =
        |last: char| step_flag(&places(), "a.sh", &format!("['{}{last}']", "x".repeat(9000)), "[0]").unwrap();
    assert_ne!(flag('a'), flag('b'));
    set_step(&root, &flag('a'), "2026-11-20T19:41:23.084789", false).unwrap();
    assert!(find(&root, &flag('a')).unwrap().is_some());
    assert!(find(&root, &flag('b')).unwrap().is_none());
    let fits = step_flag(&places(), "a.sh", &format!("['{}']", "x".repeat(170)), "[0]").unwrap();
    assert!(!fits.to_str().unwrap().contains('~') && flag('a').to_str().unwrap().contains('~'));
    assert!(step_flag(&places(), "../a.sh", "[]", "[0]").is_err());
}

#[test]
fn flags_hold_the_recorded_bytes() {
    let (_scratch, root) = root();
    let flag = step_flag(&places(), "apply.sh", "[]", "[0]").unwrap();
    set_step(&root, &flag, "2026-11-20T19:41:23.084789", false).unwrap();
    let bytes = |path: &Path| text(&root, path.to_str().unwrap()).unwrap();
    assert_eq!(bytes(&flag), "last_run: 2026-11-20T19:41:23.084789\nstep_always_runs: False");
    set_step(&root, &flag, "2026-11-20T19:42:07.934106", true).unwrap();
    assert_eq!(bytes(&flag), "last_run: 2026-11-20T19:42:07.934106\nstep_always_runs: True");
    open_start(&root, &places()).unwrap();
    assert_eq!(text(&root, "/etc/skyhook/flags/START").unwrap(), "");
    write_check_results(&root, &places(), [("apply_check.sh", true), ("b_check.sh", false)]).unwrap();
    assert_eq!(
        text(&root, "/etc/skyhook/flags/check_results").unwrap(),
        "apply_check.sh True\nb_check.sh False"
    );
    set_all_checked(&root, &places(), "apply-check").unwrap();
    assert_eq!(text(&root, "/etc/skyhook/flags/apply-check_ALL_CHECKED").unwrap(), "");
    forget_all_checked(&root, &places(), "apply-check").unwrap();
    forget_all_checked(&root, &places(), "apply-check").unwrap();
    assert_eq!(text(&root, "/etc/skyhook/flags/apply-check_ALL_CHECKED"), None);
}

#[test]
fn a_flag_folder_that_is_a_link_to_outside_stays_inside() {
    let (_scratch, root) = root();
    let outside = tempfile::tempdir().unwrap();
    root.create_folders(Path::new("/etc/skyhook")).unwrap();
    symlink(outside.path(), root.host_path(Path::new("/etc/skyhook/flags"))).unwrap();
    open_start(&root, &places()).unwrap();
    let flag = step_flag(&places(), "a.sh", "[]", "[0]").unwrap();
    set_step(&root, &flag, "2026-11-20T19:41:23.084789", false).unwrap();
    assert!(find(&root, &flag).unwrap().is_some());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_start_flag_is_one_file_for_all_and_empty() {
    let (_scratch, root) = root();
    let (first, second) = (open_start(&root, &places()).unwrap(), open_start(&root, &places()).unwrap());
    let start = root.host_path(Path::new("/etc/skyhook/flags/START"));
    assert!([&first, &second].into_iter().all(|file| is_start(&root, &places(), file).unwrap()));
    fs::write(&start, "something").unwrap();
    open_start(&root, &places()).unwrap();
    assert_eq!(fs::read(&start).unwrap(), b"");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&start.metadata().unwrap()) & 0o7777, FLAG_MODE);
    assert!(is_start(&root, &places(), &first).unwrap());
    fs::remove_file(&start).unwrap();
    assert!(!is_start(&root, &places(), &first).unwrap());
    let third = open_start(&root, &places()).unwrap();
    assert!(!is_start(&root, &places(), &first).unwrap() && is_start(&root, &places(), &third).unwrap());
}

#[test]
fn a_start_flag_is_not_written_again_and_leftovers_are_swept() {
    let (_scratch, root) = root();
    open_start(&root, &places()).unwrap();
    let start = root.host_path(Path::new("/etc/skyhook/flags/START"));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&start);
    open_start(&root, &places()).unwrap();
    assert_eq!(inode(&start), before);
    fs::write(start.with_file_name(".groundcrew-tmp-0123456789abcdef"), "").unwrap();
    sweep(&root, &places()).unwrap();
    assert_eq!(root.names_in(Path::new("/etc/skyhook/flags")).unwrap(), ["START"]);
}

/// Which rule decides, over everything that a step can be asked with.
#[test]
fn the_first_rule_that_applies_decides() {
    use FlaggedMode::{Apply, Config, PostInterrupt, Uninstall, Upgrade};
    const ALWAYS: &str =
        "WARNING: /r/flag exists for a.sh but OVERLAY_ALWAYS_RUN_STEP flag is set so running anyway.";
    const MODE: &str = "Flag exists but CONFIG, UNINSTALL, and UPGRADE mode don't support idempotence so running step anyway.";
    const DISABLED: &str = "Flag exists but idempotence is Idempotence.Disabled so running step.";
    const SKIP: &str = "Skipping a.sh because /r/flag exists.";
    // always run, then the mode, then the package: (neither, disabled, always, both)
    for (mode, messages) in [
        (Apply, [SKIP, DISABLED, ALWAYS, ALWAYS]),
        (PostInterrupt, [SKIP, DISABLED, ALWAYS, ALWAYS]),
        (Config, [MODE, MODE, ALWAYS, ALWAYS]),
        (Uninstall, [MODE, MODE, ALWAYS, ALWAYS]),
        (Upgrade, [MODE, MODE, ALWAYS, ALWAYS]),
    ] {
        for (index, message) in messages.into_iter().enumerate() {
            let asked =
                Asked { path: "a.sh", idempotence_disabled: index & 1 != 0, always_run: index & 2 != 0 };
            let message = message.to_owned();
            let expected =
                if message == SKIP { Decision::Skip { message } } else { Decision::RunAgain { message } };
            assert_eq!(decide(Some(Path::new("/r/flag")), mode, &asked), expected, "{mode:?} {asked:?}");
            assert_eq!(decide(None, mode, &asked), Decision::Run, "{mode:?} {asked:?}");
        }
    }
}
