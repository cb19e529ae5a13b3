//! Hosts whose links lead out of the root mount: what they name inside is used, and nothing outside is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use crate::place::{COPY_DIR, Place, effect, tree};
use crate::programs::write_script;
use crate::tracer;

const RESOLV: &str = "/etc/resolv.conf";

fn place() -> Place {
    let place = Place::new();
    place.package(&[("a.sh", &effect("a.sh"))]);
    place
}

/// What an absolute path outside means inside the root.
fn inside(place: &Place, outside: &Path) -> std::path::PathBuf {
    place.root().join(outside.strip_prefix("/").unwrap())
}

#[test]
fn a_resolv_conf_that_is_a_link_to_outside_is_written_inside() {
    let own = fs::read(RESOLV).expect("TEST needs an /etc/resolv.conf, which the agent copies");
    let own_before = fs::symlink_metadata(RESOLV).unwrap().modified().unwrap();
    let place = place();
    let up = format!("../../../../../../../../../{}", place.outside().join("resolv.conf").display());
    for target in [place.outside().join("resolv.conf"), up.into()] {
        fs::write(place.outside().join("resolv.conf"), "outside").unwrap();
        let _first_time_there_is_none = fs::remove_file(place.at(RESOLV));
        symlink(&target, place.at(RESOLV)).unwrap();
        let before = tree(&place.outside());
        place.call("apply").env("COPY_RESOLV", "true").succeed();
        assert_eq!(tree(&place.outside()), before);
        assert_eq!(fs::read_link(place.at(RESOLV)).unwrap(), target, "the link stays");
        assert_eq!(fs::read(inside(&place, &place.outside().join("resolv.conf"))).unwrap(), own);
    }
    assert_eq!(fs::symlink_metadata(RESOLV).unwrap().modified().unwrap(), own_before);
}

#[test]
fn flag_history_and_log_folders_that_are_links_to_outside_lie_inside() {
    for linked in [
        "etc/skyhook",
        "etc/skyhook/flags",
        "etc/skyhook/flags/sample",
        "var/log/skyhook",
        "etc/skyhook/history",
    ] {
        let place = place();
        fs::create_dir_all(place.at(linked).parent().unwrap()).unwrap();
        symlink(place.outside(), place.at(linked)).unwrap();
        fs::write(place.outside().join("START"), "outside").unwrap();
        let before = tree(&place.outside());
        place.call("apply").succeed();
        place.call("apply-check").succeed();
        assert_eq!(tree(&place.outside()), before, "{linked}");
        assert!(fs::read_dir(inside(&place, &place.outside())).unwrap().count() > 0, "{linked}");
        // What was written there is found again.
        place.call("apply").succeed();
        assert_eq!(place.effects()["a.sh"], 1, "{linked}");
    }
}

#[test]
fn a_flag_or_mark_that_is_a_link_to_a_file_outside_leaves_that_file_alone() {
    let place = place();
    fs::write(place.outside().join("file"), "outside").unwrap();
    fs::create_dir_all(place.at("etc/skyhook/flags")).unwrap();
    fs::create_dir_all(place.at("etc/skyhook/history")).unwrap();
    for link in ["flags/START", "flags/check_results", "flags/apply-check_ALL_CHECKED", "history/sample.json"]
    {
        symlink(place.outside().join("file"), place.at("etc/skyhook").join(link)).unwrap();
    }
    let before = tree(&place.outside());
    place.call("apply").succeed();
    place.call("apply-check").succeed();
    assert_eq!(tree(&place.outside()), before);
}

#[test]
fn a_root_dir_target_that_is_a_link_to_outside_is_filled_inside() {
    let place = place();
    for folder in ["root_dir/etc/sample.d", "root_dir/usr"] {
        fs::create_dir_all(place.data().join(folder)).unwrap();
    }
    fs::write(place.data().join("root_dir/etc/sample.d/10.conf"), "of the package").unwrap();
    fs::write(place.data().join("root_dir/etc/motd"), "of the package").unwrap();
    // A folder on the way, and a file at its end.
    symlink(place.outside(), place.at("etc/sample.d")).unwrap();
    symlink(place.outside().join("motd"), place.at("etc/motd")).unwrap();
    fs::write(place.outside().join("motd"), "outside").unwrap();
    fs::write(place.outside().join("10.conf"), "outside").unwrap();
    let before = tree(&place.outside());
    place.call("apply").succeed();
    assert_eq!(tree(&place.outside()), before);
    let written = inside(&place, &place.outside());
    for name in ["10.conf", "motd"] {
        assert_eq!(fs::read_to_string(written.join(name)).unwrap(), "of the package");
    }
}

/// What a killed call has put into a folder, and not come to sync, no power cut takes away from under the flags of the next.
#[test]
fn folders_of_a_root_dir_that_a_killed_call_has_filled_are_synced_by_the_next() {
    let place = place();
    fs::create_dir_all(place.data().join("root_dir/etc/sample.d")).unwrap();
    fs::write(place.data().join("root_dir/etc/sample.d/10.conf"), "of the package").unwrap();
    let call = || {
        let mut command = place.call("apply").into_command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let placed = place.at("etc/sample.d/10.conf");
    assert_eq!(tracer::kill_once(call(), || placed.exists()), -9);
    let (synced, exit) = tracer::synced(call());
    assert_eq!(exit, 0);
    for folder in ["etc", "etc/sample.d"] {
        assert!(synced.contains(&place.at(folder)), "{folder}: {synced:#?}");
    }
}

#[test]
fn a_package_whose_own_links_lead_out_is_refused_whole() {
    for target in ["/etc/hostname", "../../../../../../../../etc/hostname"] {
        let place = place();
        fs::create_dir_all(place.data().join("root_dir")).unwrap();
        symlink(target, place.data().join("root_dir/stolen")).unwrap();
        let before = tree(place.path());
        let outcome = place.call("apply").run();
        assert!(outcome.why().contains("root_dir/stolen"), "{outcome:#?}");
        assert_eq!(tree(place.path()), before);
    }
}

#[test]
fn a_step_that_is_a_link_to_outside_is_the_one_inside_and_modes_outside_stay() {
    let place = place();
    place.call("apply").succeed();
    let outside = place.outside().join("step.sh");
    fs::write(&outside, "#!/bin/sh\necho outside >>/effects/log\n").unwrap();
    let step = place.at(COPY_DIR).join("skyhook_dir/a.sh");
    fs::remove_file(&step).unwrap();
    symlink(&outside, &step).unwrap();
    let before = tree(&place.outside());
    let outcome = place.call("apply").env("OVERLAY_ALWAYS_RUN_STEP", "true").run();
    // Inside there is none.
    assert!(outcome.why().contains("steps whose files do not exist: a.sh"), "{outcome:#?}");
    let its_place = inside(&place, &outside);
    fs::create_dir_all(its_place.parent().unwrap()).unwrap();
    write_script(&its_place, "#!/bin/sh\necho inside >>/effects/log\n");
    place.call("apply").env("OVERLAY_ALWAYS_RUN_STEP", "true").succeed();
    assert_eq!(tree(&place.outside()), before);
    assert_eq!(place.effects(), [("a.sh".to_owned(), 1), ("inside".to_owned(), 1)].into());
}
