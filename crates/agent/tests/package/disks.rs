//! File systems that are full or read-only: a clear message, nothing half written, and a second call that finishes the
//! work once there is room.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::place::{COPY_DIR, Place, effect, mount, names, tree, with_own_mounts};

/// Mounts a small file system in the root's folder of this name. What fills it is a file of this name in it.
fn small(place: &Place, folder: &str, options: &str) {
    fs::create_dir_all(place.at(folder)).unwrap();
    let at = place.at(folder);
    mount(&["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()]);
}

/// Takes all the room there is; the file gives it back when it is removed.
fn fill(folder: &Path) -> std::path::PathBuf {
    let filler = folder.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let full = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    filler
}

fn two_steps() -> Place {
    let place = Place::new();
    place.package(&[("a.sh", &effect("a.sh")), ("b.sh", &effect("b.sh"))]);
    place
}

#[track_caller]
fn finishes(place: &Place) {
    place.call("apply").succeed();
    assert_eq!(place.effects(), ["a.sh", "b.sh"].map(|name| (name.to_owned(), 1)).into());
    assert_eq!(place.flagged(), ["a.sh", "b.sh"]);
    assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_read_only_host_is_named_and_changed_nowhere() {
    for folder in ["opt", "etc"] {
        with_own_mounts(|| {
            let place = two_steps();
            small(&place, folder, "size=1m,mode=755");
            let at = place.at(folder);
            mount(&["-o", "remount,ro", at.to_str().unwrap()]);
            let before = tree(&at);
            let outcome = place.call("apply").run();
            let why = outcome.why();
            assert!(why.contains("Read-only file system"), "{why}");
            assert!(why.contains(at.to_str().unwrap()), "{why}");
            assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:#?}");
            assert_eq!(tree(&at), before);
            assert_eq!(place.effects().len(), 0);
            mount(&["-o", "remount,rw", at.to_str().unwrap()]);
            finishes(&place);
        });
    }
}

#[test]
fn a_disk_without_room_for_the_package_gets_none_of_it() {
    with_own_mounts(|| {
        let place = two_steps();
        small(&place, "opt", "size=256k,mode=755");
        let filler = fill(&place.at("opt"));
        let outcome = place.call("apply").run();
        let why = outcome.why();
        assert!(why.contains("found 0 bytes free at ") && why.contains("/opt"), "{why}");
        assert!(why.contains(" for what is to be copied there"), "{why}");
        assert!(!place.at(COPY_DIR).exists());
        assert_eq!((place.effects().len(), place.flagged().len()), (0, 0));
        fs::remove_file(filler).unwrap();
        finishes(&place);
        assert_eq!(names(&place.at("opt/skyhook")), ["sample"]);
    });
}

#[test]
fn a_disk_without_room_for_a_flag_starts_nothing() {
    // Neither a byte nor, in the second, a name.
    for options in ["size=64k,mode=755", "size=64k,nr_inodes=3,mode=755"] {
        with_own_mounts(|| {
            let place = two_steps();
            small(&place, "etc", options);
            let filler = fill(&place.at("etc"));
            let outcome = place.call("apply").run();
            assert_eq!(outcome.exit, 1, "{outcome:#?}");
            let told = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(told.contains("No space left on device"), "{outcome:#?}");
            assert_eq!((place.effects().len(), place.flagged().len()), (0, 0), "{outcome:#?}");
            assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
            fs::remove_file(filler).unwrap();
            if options.contains("nr_inodes") {
                mount(&["-o", "remount,nr_inodes=1000", place.at("etc").to_str().unwrap()]);
            }
            finishes(&place);
        });
    }
}

#[test]
fn a_disk_that_a_step_fills_keeps_its_flag_and_starts_no_other() {
    with_own_mounts(|| {
        let place = two_steps();
        small(&place, "etc", "size=64k,mode=755");
        let text = "x".repeat(1000);
        // A shell's own echo, until there is no room. What the step's record gives back is room for its flag.
        let fill = format!("while echo {text} >>/etc/filler; do :; done 2>/effects/full; exit 0");
        place.write_step("a.sh", &format!("{}; {fill}", effect("a.sh")));
        let outcome = place.call("apply").run();
        assert_eq!((outcome.exit, outcome.said()), (1, vec!["SUCEEDED: a.sh ", "FAILED: b.sh  1"]));
        assert!(outcome.stderr.contains("No space left on device"), "{outcome:#?}");
        assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into());
        assert_eq!(place.flagged(), ["a.sh"]);
        assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
        fs::remove_file(place.at("etc/filler")).unwrap();
        finishes(&place);
    });
}

#[test]
fn a_log_disk_that_takes_nothing_stops_no_step_and_is_said() {
    for (options, read_only) in [("size=64k", false), ("size=64k,nr_inodes=2", false), ("size=64k", true)] {
        with_own_mounts(|| {
            let place = two_steps();
            small(&place, "var/log", options);
            let at = place.at("var/log");
            if read_only {
                mount(&["-o", "remount,ro", at.to_str().unwrap()]);
            } else {
                fill(&at);
            }
            place.write_step("a.sh", &format!("{}; echo said", effect("a.sh")));
            let outcome = place.call("apply").succeed();
            assert!(outcome.stdout.contains(" said\n"), "{outcome:#?}");
            assert!(
                outcome.stderr.contains("WARNING:root:") && outcome.stderr.contains("/var/log"),
                "{outcome:#?}"
            );
            assert_eq!(place.effects(), ["a.sh", "b.sh"].map(|name| (name.to_owned(), 1)).into());
        });
    }
}

#[test]
fn a_full_disk_while_checks_are_summed_up_leaves_no_half_result() {
    with_own_mounts(|| {
        let place = two_steps();
        small(&place, "etc", "size=64k,mode=755");
        place.call("apply").succeed();
        place.call("apply-check").succeed();
        let flags = place.at("etc/skyhook/flags");
        let results = fs::read(flags.join("check_results")).unwrap();
        let history = fs::read(place.at("etc/skyhook/history/sample.json")).unwrap();
        let filler = fill(&place.at("etc"));
        let outcome = place.call("apply-check").run();
        assert_eq!(outcome.exit, 1);
        assert!(outcome.stderr.ends_with(": No space left on device (os error 28)\n"), "{outcome:#?}");
        // Nothing says that all was checked; what stood from before stands whole.
        assert!(!flags.join("apply-check_ALL_CHECKED").exists());
        assert_eq!(fs::read(flags.join("check_results")).unwrap(), results);
        assert_eq!(fs::read(place.at("etc/skyhook/history/sample.json")).unwrap(), history);
        assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
        fs::remove_file(filler).unwrap();
        place.call("apply-check").succeed();
        assert!(flags.join("apply-check_ALL_CHECKED").exists());
    });
}

#[test]
fn a_killed_call_on_a_full_disk_leaves_what_the_next_one_removes() {
    with_own_mounts(|| {
        let place = two_steps();
        let script =
            format!("{}; echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done", effect("a.sh"));
        place.write_step("a.sh", &script);
        small(&place, "etc", "size=64k,mode=755");
        let mut call = place.call("apply").start();
        call.until_exists(&place.at("effects/begun"));
        let filler = fill(&place.at("etc"));
        call.signal(Signal::KILL);
        assert_eq!(call.end().exit, -9);
        fs::write(place.at("effects/go"), "").unwrap();
        // It needs no room to see that the step has ended, and none to strike it off; the next is not started.
        let outcome = place.call("apply").run();
        assert_eq!(outcome.exit, 1, "{outcome:#?}");
        fs::remove_file(filler).unwrap();
        place.call("apply").succeed();
        assert_eq!(place.flagged(), ["a.sh", "b.sh"]);
        assert_eq!(place.leftovers(), Vec::<std::path::PathBuf>::new());
    });
}
