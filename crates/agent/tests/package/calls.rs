//! The binary's names and arguments, and what of the environment shows from outside.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::place::{BINARY, COPY_DIR, LOGS, Place, config, effect, names, step};
use crate::tracer;

fn place(script: &str) -> Place {
    let place = Place::new();
    place.package(&[("a.sh", script)]);
    place
}

#[test]
fn under_the_reference_agents_names_it_takes_the_arguments_directly() {
    for name in ["skyhook-agent", "controller"] {
        for linked in [true, false] {
            let place = place(&effect("a.sh"));
            let program = place.path().join(name);
            if linked {
                std::os::unix::fs::symlink(BINARY, &program).unwrap();
            } else {
                // A file of its own under that name, as in an image.
                assert!(Command::new("cp").arg(BINARY).arg(&program).status().unwrap().success());
            }
            let mut command = Command::new(&program);
            command.args(["apply", place.root().to_str().unwrap(), COPY_DIR]);
            let outcome = place.dressed(command).succeed();
            assert_eq!(outcome.said(), ["SUCEEDED: a.sh "]);
            // The step was started by the same binary under the same name, and is the package's all the same.
            assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into());
        }
    }
}

#[test]
fn a_hard_link_under_such_a_name_will_do_too() {
    let place = place("exit 0");
    // Beside the binary: a hard link cannot leave its file system.
    let folder = tempfile::tempdir_in(std::path::Path::new(BINARY).parent().unwrap()).unwrap();
    let program = folder.path().join("controller");
    fs::hard_link(BINARY, &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["apply", place.root().to_str().unwrap(), COPY_DIR]);
    place.dressed(command).succeed();
}

#[test]
fn a_bad_number_of_arguments_exits_64_with_usage_and_changes_nothing() {
    let place = place("exit 0");
    for arguments in [&[][..], &["apply"], &["apply", "a", "b", "c", "d"]] {
        let before = crate::place::tree(place.path());
        let outcome = place.call_with(arguments).run();
        assert_eq!(outcome.exit, 64, "{outcome:#?}");
        assert!(
            outcome.stderr.contains(&format!("found {} arguments, expected 2, 3 or 4\n", arguments.len()))
        );
        assert!(outcome.stderr.contains("usage: groundcrew package MODE ROOT_MOUNT COPY_DIR [INTERRUPT]\n"));
        assert_eq!(crate::place::tree(place.path()), before);
    }
}

#[test]
fn a_step_that_ends_with_what_its_returncodes_list_has_succeeded_and_the_exit_status_is_0() {
    let place = place("exit 3");
    let modes =
        json!({ "apply": [step("a.sh", &[], &[0, 3])], "apply-check": [step("a_check.sh", &[], &[0])] });
    place.write_config(&config(modes));
    let outcome = place.call("apply").run();
    assert_eq!((outcome.exit, outcome.said()), (0, vec!["SUCEEDED: a.sh "]));
    assert_eq!(place.flagged(), ["a.sh"]);
}

#[test]
fn the_references_return_codes_are_had_by_asking_for_them() {
    let codes = |codes: &[i32], rule: Option<&str>| {
        let place = place("exit 3");
        let modes =
            json!({ "apply": [step("a.sh", &[], codes)], "apply-check": [step("a_check.sh", &[], &[0])] });
        place.write_config(&config(modes));
        let call = place.call("apply");
        let outcome = match rule {
            Some(rule) => call.env("GROUNDCREW_RETURNCODES", rule).run(),
            None => call.run(),
        };
        let hint = outcome.stderr.contains("GROUNDCREW_RETURNCODES=reference makes this one do so too");
        (outcome.exit, outcome.said().join("\n"), hint)
    };
    assert_eq!(codes(&[0, 3], Some("reference")), (1, "FAILED: a.sh  1".to_owned(), false));
    assert_eq!(codes(&[1], Some("reference")), (0, "SUCEEDED: a.sh ".to_owned(), false));
    assert_eq!(codes(&[0, 1], None), (1, "FAILED: a.sh  3".to_owned(), true));
    assert_eq!(codes(&[0], Some("own")), (1, "FAILED: a.sh  3".to_owned(), false));
    let place = place("exit 0");
    let refused = place.call("apply").env("GROUNDCREW_RETURNCODES", "mine").run();
    assert_eq!(refused.why(), "GROUNDCREW_RETURNCODES: found \"mine\", expected own or reference");
}

#[test]
fn old_logs_are_cleaned_up_only_where_logs_are_written() {
    let place = place("echo said");
    fs::create_dir_all(place.at(LOGS)).unwrap();
    let old: Vec<String> = (1..=7).map(|second| format!("a.sh-2020-01-01-00000{second}.log")).collect();
    for name in &old {
        for ending in ["", ".err"] {
            fs::write(place.at(LOGS).join(format!("{name}{ending}")), "old").unwrap();
        }
    }
    // Of another step whose name begins alike.
    fs::write(place.at(LOGS).join("a.sh-b-2020-01-01-000001.log"), "old").unwrap();
    let before = names(&place.at(LOGS));
    place.call("apply").env("SKYHOOK_AGENT_WRITE_LOGS", "false").succeed();
    assert_eq!(names(&place.at(LOGS)), before, "with logs off nothing is written and nothing removed");
    let again = |place: &Place| place.call("apply").env("OVERLAY_ALWAYS_RUN_STEP", "true").succeed();
    again(&place);
    let after = names(&place.at(LOGS));
    let kept: Vec<&String> = old.iter().filter(|name| after.contains(name)).collect();
    assert_eq!(kept, old[3..].iter().collect::<Vec<_>>(), "the newest four beside the one just made");
    assert_eq!(after.len(), 5 * 2 + 1, "{after:?}");
    assert!(after.contains(&"a.sh-b-2020-01-01-000001.log".to_owned()));
    again(&place);
    assert_eq!(names(&place.at(LOGS)).len(), 5 * 2 + 1);
}

#[test]
fn a_value_from_the_environment_is_in_no_line_of_the_agents_own() {
    const SECRET: &str = "hunter2-and-more";
    // Its step succeeds, fails, and cannot be started.
    for script in ["exit 0", "exit 7", ""] {
        let place = place(script);
        let modes = json!({
            "apply": [step("a.sh", &["env:TOKEN"], &[0])], "apply-check": [step("a_check.sh", &["env:TOKEN"], &[0])],
        });
        place.write_config(&config(modes));
        if script.is_empty() {
            fs::write(place.data().join("skyhook_dir/a.sh"), "#!/no/such/interpreter\n").unwrap();
        }
        for mode in ["apply", "apply", "apply-check"] {
            let outcome = place.call(mode).env("TOKEN", SECRET).run();
            let skipped = outcome.stdout.contains("Skipping a.sh because ");
            assert!(skipped || outcome.stdout.contains("env:TOKEN"), "{outcome:#?}");
            assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:#?}");
        }
        for (path, what) in crate::place::tree(&place.root()) {
            assert!(!what.contains(SECRET) && !path.to_string_lossy().contains(SECRET), "{}", path.display());
        }
    }
    // A step's own output is passed on as it is.
    let place = place("echo $1");
    place.write_config(&config(json!({
        "apply": [step("a.sh", &["env:TOKEN"], &[0])], "apply-check": [step("a_check.sh", &[], &[0])],
    })));
    let outcome = place.call("apply").env("TOKEN", SECRET).succeed();
    assert_eq!(outcome.stdout.matches(SECRET).count(), 1);
}

#[test]
fn a_missing_variable_fails_the_step_before_it_starts() {
    let place = place(&effect("a.sh"));
    let mut of_a = step("a.sh", &["env:ONE", "env:TWO"], &[0]);
    of_a["env"] = Value::Object(serde_json::Map::new());
    place.write_config(&config(json!({ "apply": [of_a], "apply-check": [step("a_check.sh", &[], &[0])] })));
    let outcome = place.call("apply").run();
    assert_eq!(outcome.exit, 1);
    for name in ["ONE", "TWO"] {
        let line = format!("a.sh: Expected environment variable did not exist: {name}\n");
        assert!(outcome.stdout.contains(&line), "{outcome:#?}");
    }
    assert_eq!((place.effects().len(), names(&place.at(LOGS)).len()), (0, 0));
}

#[test]
fn a_buffer_limit_that_is_none_is_refused_and_a_small_one_breaks_nothing() {
    let place = place("echo one; echo two");
    for limit in ["0", "-1", "x", "", "99999999999999999999"] {
        let outcome = place.call("apply").env("SKYHOOK_AGENT_BUFFER_LIMIT", limit).run();
        assert!(outcome.why().starts_with("SKYHOOK_AGENT_BUFFER_LIMIT: found "), "{outcome:#?}");
    }
    let outcome = place.call("apply").env("SKYHOOK_AGENT_BUFFER_LIMIT", "1").succeed();
    assert_eq!(outcome.stdout.matches("[out]").count(), 3, "{outcome:#?}");
}

#[test]
fn the_buffer_limit_is_what_each_read_of_a_steps_output_asks_for() {
    const PRINTED: usize = 200_000;
    for (limit, asked) in [
        (Some("7"), 7),
        (Some("1000"), 1000),
        (None, 8192),
        (Some("100000"), 100_000),
        (Some("1_048_576"), 1 << 20),
    ] {
        // Of seven bytes at a time only as many as are soon traced.
        let bytes = PRINTED.min(asked * 100);
        let place = place("exec cat /large");
        place.add_program("/bin/cat");
        fs::write(place.at("large"), vec![b'x'; bytes]).unwrap();
        let call = place.call("apply");
        let call = match limit {
            Some(limit) => call.env("SKYHOOK_AGENT_BUFFER_LIMIT", limit),
            None => call,
        };
        let mut command = call.into_command();
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let (reads, exit) = tracer::reads_of_pipes(command);
        assert_eq!(exit, 0, "{limit:?}");
        assert!(reads.iter().all(|read| read.asked == asked as u64), "{limit:?}: {reads:?}");
        let given: i64 = reads.iter().map(|read| read.given.max(0)).sum();
        assert_eq!(given, bytes as i64, "{limit:?}: the tracer saw all that came");
    }
}
