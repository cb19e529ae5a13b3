//! The root mount `local`: the agent's own root, and no chroot. Everything that is written is sent to a folder of the test's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::place::{Call, Place, names, tree};
use crate::programs::write_program;

/// A call with the root mount `local`, from a working directory in which a folder has that name.
fn call(place: &Place, arguments: &[&str]) -> Call {
    let folder = |name: &str| place.path().join(name);
    fs::create_dir_all(folder("cwd/local")).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder("programs").display());
    let call = place.call_with(arguments).env("SKYHOOK_ROOT_DIR", folder("state"));
    call.env("SKYHOOK_LOG_DIR", folder("log")).env("PATH", path).in_folder(&folder("cwd"))
}

#[test]
fn a_package_is_applied_to_the_agents_own_root_without_a_chroot() {
    let place = Place::new();
    let (copy, own) = (place.path().join("copy"), fs::metadata("/").unwrap());
    // The root that a step is in: that of the agent.
    let says = "echo \"$PWD $STEP_ROOT $SKYHOOK_DIR\"; exec stat -L -c %d:%i /";
    place.package(&[("a.sh", says)]);
    let installed = place.path().join("installed.d/10.conf");
    let in_root_dir = place.data().join("root_dir").join(installed.strip_prefix("/").unwrap());
    fs::create_dir_all(in_root_dir.parent().unwrap()).unwrap();
    fs::write(in_root_dir, "of the package").unwrap();
    let arguments = ["apply", "local", copy.to_str().unwrap()];
    let outcome = call(&place, &arguments).env("COPY_RESOLV", "true").succeed();
    assert!(outcome.stdout.contains(" SUCEEDED: a.sh \n"), "{outcome:#?}");
    let shown = copy.display();
    for line in [format!("{shown} {shown}/skyhook_dir {shown}"), format!("{}:{}", own.dev(), own.ino())] {
        assert!(outcome.stdout.contains(&format!(" {line}\n")), "{line}: {outcome:#?}");
    }
    assert!(outcome.stdout.contains("root_mount: local\n"), "{outcome:#?}");
    assert_eq!(fs::read_to_string(installed).unwrap(), "of the package");
    assert_eq!(names(&place.path().join("log/sample/1.0.0")).len(), 2);
    let flags: Vec<String> = names(&place.path().join("state/flags/sample/1.0.0"));
    assert_eq!(flags.len(), 1, "{flags:?}");
    let flag: PathBuf = place.path().join("state/flags/sample/1.0.0").join(&flags[0]);
    // Done before, by the same flag; a file is named by the path that it has.
    let again = call(&place, &arguments).succeed();
    assert!(
        again.stdout.contains(&format!("Skipping a.sh because {} exists.\n", flag.display())),
        "{again:#?}"
    );
    assert_eq!(names(&place.path().join("cwd/local")), [""; 0], "a folder of that name is none of it");
    // Where the package is refused, its config is named by its path too.
    fs::remove_file(copy.join("skyhook_dir/a.sh")).unwrap();
    let refused = call(&place, &arguments).run();
    assert!(refused.why().starts_with(&format!("{shown}/config.json: ")), "{refused:#?}");
}

#[test]
fn an_interrupts_commands_run_without_a_chroot() {
    let place = Place::new();
    let systemctl = place.path().join("programs/systemctl");
    fs::create_dir_all(systemctl.parent().unwrap()).unwrap();
    write_program(&systemctl, "echo \"systemctl $*, in $(pwd), $(stat -L -c %d:%i /)\"");
    let copy = place.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let data = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        r#"{"type": "service_restart", "services": ["one"]}"#,
    );
    let outcome = call(&place, &["interrupt", "local", copy.to_str().unwrap(), &data]).succeed();
    let own = fs::metadata("/").unwrap();
    let line = |of: &str| format!("systemctl {of}, in {}, {}:{}\n", copy.display(), own.dev(), own.ino());
    for of in ["daemon-reload", "restart one"] {
        assert!(outcome.stdout.contains(&line(of)), "{of}: {outcome:#?}");
    }
    let flags = names(&place.path().join("state/interrupts/flags").join(crate::place::RESOURCE_ID));
    assert_eq!(flags, ["service_restart_0.complete", "service_restart_1.complete"]);
    assert!(tree(&place.path().join("cwd/local")).len() == 1);
}
