//! Packages whose names lead elsewhere, or are none: refused in one line before anything is written, or kept inside.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::place::{COPY_DIR, FLAGS, LOGS, Place, Tree, config, effect, names, step, tree};

/// Runs apply and asserts that it is refused with one line that says this, and that nothing anywhere is different.
#[track_caller]
fn refused(place: &Place, expected: &str) {
    let before = everything(place);
    let outcome = place.call("apply").run();
    let why = outcome.why();
    assert!(why.contains(expected), "{why}\ndoes not say: {expected}");
    assert_eq!(outcome.stderr.lines().count(), 1, "one line: {}", outcome.stderr);
    assert_eq!(everything(place), before);
}

fn everything(place: &Place) -> Tree {
    tree(place.path())
}

fn with(change: impl FnOnce(&mut Value)) -> Place {
    let place = Place::new();
    place.package(&[("a.sh", &effect("a.sh"))]);
    let mut config: Value =
        serde_json::from_slice(&fs::read(place.data().join("config.json")).unwrap()).unwrap();
    change(&mut config);
    place.write_config(&config);
    place
}

#[test]
fn a_packages_name_is_one_plain_name() {
    let long = "x".repeat(300);
    for (name, expected) in [
        ("..", "a name of its own, as it names a folder"),
        (".", "a name of its own, as it names a folder"),
        ("../../outside/x", "no slash, as it names one folder"),
        ("/etc", "no slash, as it names one folder"),
        ("a\nb", "no control characters"),
        (&long, "243 bytes or fewer"),
        ("", "1 character or more"),
    ] {
        let place = with(|config| config["package_name"] = name.into());
        refused(&place, "$.package_name: ");
        refused(&place, expected);
    }
}

#[test]
fn a_packages_version_is_a_version() {
    let long = format!("1.0.0-{}", "x".repeat(300));
    for (version, expected) in [
        ("..", "$.package_version: "),
        ("1.0.0/../../x", "$.package_version: "),
        ("1.0.0\n", "$.package_version: "),
        (&long, "255 bytes or fewer"),
    ] {
        refused(&with(|config| config["package_version"] = version.into()), expected);
    }
}

#[test]
fn a_resource_id_is_three_plain_names() {
    let long = format!("i_{}_1.0.0", "x".repeat(300));
    for id in
        ["i_.._1.0.0", "i_a_..", "i_a\nb_1.0.0", "i_a/b_1.0.0", "../i_a_1.0.0", "i_a", "i_a_b_1", "", &long]
    {
        let place = with(|_| {});
        let before = everything(&place);
        for mode in ["apply", "apply-check", "interrupt"] {
            let root = place.root();
            let call = place.call_with(&[mode, root.to_str().unwrap(), COPY_DIR, "e30="]);
            let outcome = call.env("SKYHOOK_RESOURCE_ID", id).run();
            assert!(outcome.why().starts_with("SKYHOOK_RESOURCE_ID"), "{outcome:#?}");
            assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:#?}");
        }
        assert_eq!(everything(&place), before, "{id:?}");
    }
}

#[test]
fn a_steps_path_stays_in_its_folder() {
    let long = "x".repeat(300);
    for (path, expected) in [
        ("../config.json", "a path that does not leave the step folder by .."),
        ("a/../../../outside/x", "a path that does not leave the step folder by .."),
        ("..", "a path that does not leave the step folder by .."),
        ("a\nb.sh", "no control characters, as it stands in lines of the log"),
        (&long, "names of 255 bytes or fewer"),
        ("/", "a file in the step folder"),
    ] {
        let place = with(|config| config["modes"]["apply"][0]["path"] = path.into());
        refused(&place, "$.modes.apply[0].path: ");
        refused(&place, expected);
    }
}

#[test]
fn a_steps_path_with_folders_runs_and_its_flag_and_logs_have_them_too() {
    let place = with(|config| config["modes"]["apply"][0]["path"] = "/sub/./x/../deep.sh".into());
    place.write_step("sub/x/unused.sh", "exit 1");
    place.write_step("sub/deep.sh", &effect("deep"));
    place.call("apply").succeed();
    assert_eq!(place.effects(), [("deep".to_owned(), 1)].into());
    // The slash in front and what goes up again are taken as a path takes them: nothing lies above either folder.
    let flags = tree(&place.at(FLAGS));
    assert!(
        flags.keys().any(|path| path.starts_with("sub") && path.to_string_lossy().contains("deep.sh_")),
        "{flags:?}"
    );
    let logs = tree(&place.at(LOGS));
    assert!(
        logs.keys().any(|path| path.starts_with("sub") && path.to_string_lossy().contains("deep.sh-")),
        "{logs:?}"
    );
    let again = place.call("apply").succeed();
    assert!(again.stdout.contains("Skipping /sub/./x/../deep.sh because "), "{again:#?}");
}

#[test]
fn a_name_too_long_for_a_flag_is_shortened_and_found_again() {
    let argument = "y".repeat(1000);
    let place = with(|config| config["modes"]["apply"][0] = step("a.sh", &[&argument], &[0]));
    place.call("apply").succeed();
    let flags = names(&place.at(FLAGS));
    assert!(flags.len() == 1 && flags[0].len() <= 255 && flags[0].starts_with("a.sh_"), "{flags:?}");
    place.call("apply").succeed();
    assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into());
    // Another argument that begins alike is another step.
    let other = with(|config| config["modes"]["apply"][0] = step("a.sh", &[&(argument + "z")], &[0]));
    other.call("apply").succeed();
    assert_ne!(names(&other.at(FLAGS)), flags);
}

#[test]
fn an_expected_config_file_is_looked_for_in_the_package_alone() {
    let long = "x".repeat(300);
    for name in ["../../../../../../etc/hostname", "/etc/hostname", &long] {
        let place = with(|config| config["expected_config_files"] = json!(["tuning.conf", name]));
        fs::create_dir_all(place.data().join("configmaps")).unwrap();
        fs::write(place.data().join("configmaps/tuning.conf"), "").unwrap();
        fs::write(place.at("etc/hostname"), "the host's").unwrap();
        // File, place, what was found and what was expected, before the package is delivered and after.
        let expected = |package: &Path| {
            format!(
                "{}: $.expected_config_files[1]: found config files that are not in the package's configmaps: {name}, \
                 expected a file for each one listed",
                package.join("config.json").display()
            )
        };
        refused(&place, &expected(&place.data()));
        if name.contains("..") {
            // Beneath the root it is looked for as a process there would, which finds the host's.
            continue;
        }
        let copied = place.at(COPY_DIR);
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::rename(place.data(), &copied).unwrap();
        refused(&place, &expected(&copied));
    }
    let place = with(|config| config["expected_config_files"] = json!(["a\nb"]));
    refused(&place, "$.expected_config_files[0]: found \"a\\nb\", expected no control characters");
    let place = with(|config| config["expected_config_files"] = json!(["sub/tuning.conf"]));
    fs::create_dir_all(place.data().join("configmaps/sub")).unwrap();
    fs::write(place.data().join("configmaps/sub/tuning.conf"), "").unwrap();
    place.call("apply").succeed();
}

#[test]
fn a_copy_dir_that_leads_up_or_is_a_link_stays_in_the_root() {
    let place = with(|_| {});
    let (root, up) = (place.root(), "/opt/../../../../opt/skyhook/up");
    place.call_with(&["apply", root.to_str().unwrap(), up]).succeed();
    assert!(place.at("opt/skyhook/up/config.json").exists());
    let relative = place.call_with(&["apply", root.to_str().unwrap(), "opt/skyhook/relative"]).run();
    assert!(relative.why().contains("COPY_DIR: found \"opt/skyhook/relative\""), "{relative:#?}");
    assert_eq!(names(&place.outside()), Vec::<String>::new());
    std::os::unix::fs::symlink(place.outside(), place.at("opt/link")).unwrap();
    let before = tree(&place.outside());
    let linked = place.call_with(&["apply", root.to_str().unwrap(), "/opt/link/sample"]).run();
    assert_eq!(linked.exit, 0, "{linked:#?}");
    assert_eq!(tree(&place.outside()), before);
    assert!(root.join(place.outside().strip_prefix("/").unwrap()).join("sample/config.json").exists());
}

#[test]
fn a_config_with_names_that_no_folder_could_take_is_refused_before_anything_is_copied() {
    let place = Place::new();
    let steps = [step("a.sh", &["a\0b"], &[0])];
    place.write_config(&config(json!({ "apply": steps, "apply-check": [step("b.sh", &[], &[0])] })));
    refused(&place, "$.modes.apply[0].arguments[0]: ");
    assert!(!Path::new(&place.at(COPY_DIR)).exists());
}
