//! What is refused leaves everything as it was: nothing is delivered, copied onto the host or marked for it.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::place::{COPY_DIR, Place, config, effect, step, tree};

/// A package with files for the host, and a container whose resolv.conf is to be copied.
fn place() -> Place {
    let place = Place::new();
    place.package(&[("a.sh", &effect("a.sh"))]);
    fs::create_dir_all(place.data().join("root_dir/etc/sample.d")).unwrap();
    fs::write(place.data().join("root_dir/etc/sample.d/10.conf"), "of the package").unwrap();
    fs::write(place.data().join("root_dir/etc/sample.conf"), "of the package").unwrap();
    fs::write(place.at("etc/resolv.conf"), "the host's").unwrap();
    place
}

/// Puts the package into its place, as an operator's own copying does.
fn deliver(place: &Place) {
    fs::create_dir_all(place.at("opt/skyhook")).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(place.data()).arg(place.at(COPY_DIR)).status();
    assert!(copied.unwrap().success());
}

#[track_caller]
fn refused(place: &Place, mode: &str, expected: &str) {
    let before = tree(place.path());
    let outcome = place.call(mode).env("COPY_RESOLV", "true").run();
    assert!(outcome.why().contains(expected), "{expected}: {outcome:#?}");
    assert_eq!(tree(place.path()), before, "{expected}");
}

#[test]
fn a_package_that_is_refused_leaves_everything_as_it_was_wherever_it_lies() {
    type Spoil = fn(&Place);
    let cases: [(&str, Spoil); 9] = [
        ("found steps whose files do not exist: a.sh, expected a file for each step", |place| {
            fs::remove_file(place.data().join("skyhook_dir/a.sh")).unwrap();
        }),
        ("found steps whose files do not exist: a_check.sh", |place| {
            fs::remove_file(place.data().join("skyhook_dir/a_check.sh")).unwrap();
        }),
        ("found config files that are not in the package's configmaps: a.conf", |place| {
            let mut config = config(
                json!({ "apply": [step("a.sh", &[], &[0])], "apply-check": [step("a_check.sh", &[], &[0])] }),
            );
            config["expected_config_files"] = json!(["a.conf"]);
            place.write_config(&config);
        }),
        ("$.modes.apply[0]: found no \"name\"", |place| {
            place.write_config(&config(json!({ "apply": [{}], "apply-check": [] })));
        }),
        ("$.modes: found no steps in any mode", |place| place.write_config(&config(json!({})))),
        ("config.json: found no such file", |place| {
            fs::remove_file(place.data().join("config.json")).unwrap();
        }),
        ("root_dir/stolen: found a symbolic link to nothing in its tree", |place| {
            symlink("/etc/hostname", place.data().join("root_dir/stolen")).unwrap();
        }),
        ("/etc/sample.conf: found a fifo, expected a regular file", |place| {
            mknodat(CWD, place.at("etc/sample.conf"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        }),
        ("/etc/sample.d: found a regular file, expected a folder", |place| {
            fs::write(place.at("etc/sample.d"), "a file").unwrap();
        }),
    ];
    for (expected, spoil) in cases {
        for delivered in [false, true] {
            let place = place();
            spoil(&place);
            if delivered {
                deliver(&place);
            }
            refused(&place, "apply", expected);
        }
    }
}

#[test]
fn what_the_host_has_in_the_way_is_no_matter_to_a_mode_that_installs_nothing() {
    let place = place();
    let uninstall = json!({
        "uninstall": [step("a.sh", &[], &[0])], "uninstall-check": [step("a_check.sh", &[], &[0])],
    });
    place.write_config(&config(uninstall));
    fs::write(place.at("etc/sample.d"), "a file").unwrap();
    place.call("uninstall").succeed();
    assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into());
}

#[test]
fn a_call_that_is_refused_leaves_everything_as_it_was() {
    let place = place();
    fs::remove_file(place.at("etc/resolv.conf")).unwrap();
    fs::create_dir(place.at("etc/resolv.conf")).unwrap();
    refused(&place, "apply", "/etc/resolv.conf: found a folder, expected a regular file");
    fs::remove_dir(place.at("etc/resolv.conf")).unwrap();
    let root = place.root();
    let root = root.to_str().unwrap();
    for (arguments, expected) in [
        (&["apply", root, "opt/skyhook"][..], "COPY_DIR: found \"opt/skyhook\""),
        (&["interrupt", root, COPY_DIR, "e30"], "reading the interrupt"),
        (&["interrupt", root, COPY_DIR, "e30="], "interrupt"),
        (&["interrupt", root, "opt/skyhook", "eyJ0eXBlIjogIm5vX29wIn0="], "COPY_DIR: found \"opt/skyhook\""),
    ] {
        let before = tree(place.path());
        let outcome = place.call_with(arguments).env("COPY_RESOLV", "true").run();
        assert!(outcome.why().contains(expected), "{outcome:#?}");
        assert_eq!(tree(place.path()), before, "{arguments:?}");
    }
    // The same call that is not refused does copy it.
    let own = fs::read("/etc/resolv.conf").expect("TEST needs an /etc/resolv.conf, which the agent copies");
    let no_op = ["interrupt", root, COPY_DIR, "eyJ0eXBlIjogIm5vX29wIn0="];
    place.call_with(&no_op).env("COPY_RESOLV", "true").succeed();
    assert_eq!(fs::read(place.at("etc/resolv.conf")).unwrap(), own);
}
