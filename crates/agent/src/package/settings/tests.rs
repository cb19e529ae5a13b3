use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Settings, BadSetting> {
    let map: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Settings::read(|name| map.get(name).map(OsString::from))
}

fn defaults() -> Settings {
    Settings {
        resource_id: String::new(),
        copy_resolv: true,
        always_run_step: false,
        data_dir: "/skyhook-package".to_owned(),
        root_dir: "/etc/skyhook".to_owned(),
        log_dir: "/var/log/skyhook".to_owned(),
        buffer_limit: 8192,
        write_logs: true,
        term_grace: Duration::from_secs(20),
        returncodes: ReturnCodes::Own,
        reboot_grace: Duration::from_secs(300),
        reboot_limit: 3,
        reboot_command_max: Duration::from_secs(120),
        reboot_wait: Duration::ZERO,
    }
}

#[test]
fn an_empty_environment_gives_the_defaults() {
    assert_eq!(read(&[]), Ok(defaults()));
    // Ours count as unset where they are empty.
    let empty = [
        "SKYHOOK_AGENT_TERM_GRACE_S",
        "GROUNDCREW_RETURNCODES",
        "GROUNDCREW_REBOOT_GRACE_S",
        "GROUNDCREW_REBOOT_LIMIT",
        "GROUNDCREW_REBOOT_COMMAND_S",
        "GROUNDCREW_REBOOT_WAIT_S",
    ];
    assert_eq!(read(&empty.map(|name| (name, ""))), Ok(defaults()));
}

#[test]
fn every_variable_is_taken() {
    let settings = read(&[
        ("SKYHOOK_RESOURCE_ID", "c-u-1_sample_1.0.0"),
        ("COPY_RESOLV", "false"),
        ("OVERLAY_ALWAYS_RUN_STEP", "TRUE"),
        ("SKYHOOK_DATA_DIR", "package"),
        ("SKYHOOK_ROOT_DIR", "/srv/skyhook/"),
        ("SKYHOOK_LOG_DIR", ""),
        ("SKYHOOK_AGENT_BUFFER_LIMIT", "16"),
        ("SKYHOOK_AGENT_WRITE_LOGS", "False"),
        ("SKYHOOK_AGENT_TERM_GRACE_S", "0.5"),
        ("GROUNDCREW_RETURNCODES", "reference"),
        ("GROUNDCREW_REBOOT_GRACE_S", "60"),
        ("GROUNDCREW_REBOOT_LIMIT", "1"),
        ("GROUNDCREW_REBOOT_COMMAND_S", "2.5"),
        ("GROUNDCREW_REBOOT_WAIT_S", "7"),
    ]);
    let expected = Settings {
        resource_id: "c-u-1_sample_1.0.0".to_owned(),
        copy_resolv: false,
        always_run_step: true,
        data_dir: "package".to_owned(),
        root_dir: "/srv/skyhook/".to_owned(),
        log_dir: String::new(),
        buffer_limit: 16,
        write_logs: false,
        term_grace: Duration::from_millis(500),
        returncodes: ReturnCodes::Reference,
        reboot_grace: Duration::from_secs(60),
        reboot_limit: 1,
        reboot_command_max: Duration::from_millis(2500),
        reboot_wait: Duration::from_secs(7),
    };
    assert_eq!(settings, Ok(expected));
}

#[test]
fn a_switch_is_on_for_true_alone() {
    for (value, expected) in [
        ("true", true),
        ("True", true),
        ("tRUE", true),
        ("1", false),
        ("yes", false),
        (" true", false),
        ("", false),
    ] {
        let variables =
            ["COPY_RESOLV", "OVERLAY_ALWAYS_RUN_STEP", "SKYHOOK_AGENT_WRITE_LOGS"].map(|name| (name, value));
        let settings = read(&variables).unwrap();
        let found = (settings.copy_resolv, settings.always_run_step, settings.write_logs);
        assert_eq!(found, (expected, expected, expected), "{value:?}");
    }
}

#[test]
fn the_buffer_limit_is_read_as_python_does() {
    for (value, expected) in [
        ("1", Some(1)),
        (" 16\n", Some(16)),
        ("+16", Some(16)),
        ("0016", Some(16)),
        ("1_000", Some(1000)),
        ("67108864", Some(64 << 20)),
        ("67108865", None),
        ("0", None),
        ("-1", None),
        ("", None),
        ("1__0", None),
        ("_1", None),
        ("8k", None),
        ("1.5", None),
        ("++1", None),
        ("99999999999999999999999", None),
    ] {
        let found = read(&[("SKYHOOK_AGENT_BUFFER_LIMIT", value)]);
        assert_eq!(found.as_ref().ok().map(|settings| settings.buffer_limit), expected, "{value:?}");
        if let Err(error) = found {
            let line = format!(
                "SKYHOOK_AGENT_BUFFER_LIMIT: found {value:?}, expected a number of bytes from 1 to 67108864"
            );
            assert_eq!(error.to_string(), line);
        }
    }
}

#[test]
fn in_a_pod_the_wait_is_the_grace() {
    let pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let wait = |variables: &[(&str, &str)]| read(variables).unwrap().reboot_wait.as_secs();
    assert_eq!(wait(&[pod]), 300);
    assert_eq!(wait(&[pod, ("GROUNDCREW_REBOOT_GRACE_S", "9")]), 9);
    assert_eq!(wait(&[pod, ("GROUNDCREW_REBOOT_WAIT_S", "0")]), 0);
    assert_eq!(wait(&[("KUBERNETES_SERVICE_HOST", "")]), 0);
}

#[test]
fn what_cannot_be_used_is_named() {
    for (variable, value, expected) in [
        (
            "SKYHOOK_ROOT_DIR",
            "etc/skyhook",
            "a path from the root mount: a slash first, and no control characters",
        ),
        (
            "SKYHOOK_LOG_DIR",
            "/var\nlog",
            "a path from the root mount: a slash first, and no control characters",
        ),
        ("GROUNDCREW_RETURNCODES", "Own", "own or reference"),
        ("GROUNDCREW_REBOOT_LIMIT", "0", "a number from 1 to 100"),
        ("GROUNDCREW_REBOOT_LIMIT", "many", "a number from 1 to 100"),
        ("GROUNDCREW_REBOOT_GRACE_S", "-1", "seconds from 0 to 86400"),
        ("GROUNDCREW_REBOOT_WAIT_S", "inf", "seconds from 0 to 86400"),
        ("SKYHOOK_AGENT_TERM_GRACE_S", "1e3", "seconds from 0 to 86400"),
        ("SKYHOOK_AGENT_TERM_GRACE_S", "86401", "seconds from 0 to 86400"),
        ("SKYHOOK_AGENT_TERM_GRACE_S", "20s", "seconds from 0 to 86400"),
    ] {
        let error = read(&[(variable, value)]).unwrap_err();
        let expected = BadSetting { variable, found: format!("{value:?}"), expected: expected.to_owned() };
        assert_eq!(error, expected);
    }
    let bytes = || OsString::from_vec(b"/a\xff".to_vec());
    let error = Settings::read(|name| (name == "SKYHOOK_DATA_DIR").then(bytes)).unwrap_err();
    assert_eq!(error.to_string(), "SKYHOOK_DATA_DIR: found \"/a\u{fffd}\", expected UTF-8");
}
