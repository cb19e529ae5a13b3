use serde_json::json;

use super::*;

const FILE: &str = "/host/copy/config.json";

pub(super) fn step(path: &str) -> Value {
    json!({
        "name": "step", "path": path, "arguments": [], "returncodes": [0],
        "on_host": true, "idempotence": false, "upgrade_step": false,
    })
}

pub(super) fn config(modes: Value) -> Value {
    json!({
        "schema_version": "v1", "package_name": "sample", "package_version": "1.0.0",
        "expected_config_files": [], "modes": modes,
    })
}

fn sample() -> Value {
    config(json!({"apply": [step("apply.sh")], "apply-check": [step("apply_check.sh")]}))
}

fn read_text(text: &str) -> Result<Config, String> {
    Config::parse(Path::new(FILE), text.as_bytes()).map_err(|error| error.to_string())
}

fn read(value: &Value) -> Result<Config, String> {
    read_text(&value.to_string())
}

/// The sample with one value put at a JSON pointer, whose parent exists.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = sample();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(keys) => drop(keys.insert(key.to_owned(), value)),
        Value::Array(items) => items.push(value),
        other => panic!("{pointer} lies in {other}"),
    }
    document
}

fn without(pointer: &str) -> Value {
    let mut document = sample();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    document
}

fn refused(document: &Value, rest: &str) {
    assert_eq!(read(document).unwrap_err(), format!("{FILE}: {rest}"), "{document}");
}

#[test]
fn everything_is_read() {
    let mut document = with(
        "/modes/upgrade",
        json!([{
            "name": "up", "path": "up.sh", "arguments": [], "returncodes": [0, 3],
            "on_host": false, "idempotence": true, "upgrade_step": true,
            "env": {"B": "2", "A": ""}, "requires_interrupt": true,
        }]),
    );
    document["modes"]["upgrade-check"] = json!([step("up_check.sh")]);
    document["modes"]["interrupt"] = json!([]);
    document["expected_config_files"] = json!(["tuning.conf"]);
    document["root_dir"] = json!({"passes": [1, null]});
    let config = read(&document).unwrap();
    assert_eq!((&*config.package_name, &*config.package_version), ("sample", "1.0.0"));
    assert_eq!(config.expected_config_files, ["tuning.conf"]);
    let modes: Vec<Mode> = config.modes.iter().map(|(mode, _)| *mode).collect();
    assert_eq!(modes, [Mode::Apply, Mode::ApplyCheck, Mode::Upgrade, Mode::UpgradeCheck, Mode::Interrupt]);
    let expected = Step {
        name: "up".to_owned(),
        path: "up.sh".to_owned(),
        arguments: vec![],
        returncodes: vec![ReturnCode::Integer("0".to_owned()), ReturnCode::Integer("3".to_owned())],
        env: [("A", ""), ("B", "2")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        on_host: false,
        idempotence: Idempotence::Disabled,
        upgrade_step: true,
        requires_interrupt: true,
    };
    assert_eq!(config.steps(Mode::Upgrade), [expected]);
    assert_eq!(config.steps(Mode::Config), []);
    assert!(config.missing_checks().is_empty());
}

#[test]
fn headers_are_as_recorded() {
    let mut document = sample();
    document["modes"]["apply"][0]["arguments"] = json!([
        "it's",
        "say \"x\"",
        "both ' and \"",
        "nl\ntab\tbs\\",
        "\u{7f}\u{1b}",
        "é漢😀",
        "\u{200b}\u{a0}\u{e000}\u{378}",
        ""
    ]);
    let text = document.to_string().replacen(
        "\"returncodes\":[0]",
        "\"returncodes\":[0, 0, 12345678901234567890]",
        1,
    );
    let config = read_text(&text).unwrap();
    let step = &config.steps(Mode::Apply)[0];
    assert_eq!(
        step.header(Mode::Apply, &step.arguments),
        r#"apply apply.sh ["it's", 'say "x"', 'both \' and "', 'nl\ntab\tbs\\', '\x7f\x1b', 'é漢😀', '\u200b\xa0\ue000\u0378', ''] [0, 0, 12345678901234567890] Idempotence.Auto True"#
    );
}

#[test]
fn return_codes_are_kept_as_written() {
    for (written, expected) in [
        ("[0.0]", "[0.0]"),
        ("[ -0 , 0.00,1e2 ]", "[0, 0.0, 100.0]"),
        ("[-99999999999999999999999999]", "[-99999999999999999999999999]"),
        ("[9007199254740993, 18446744073709551616]", "[9007199254740993, 18446744073709551616]"),
    ] {
        // Looked up by its place: neither the key's escape nor a list of an earlier step of the same key misleads.
        let text = sample().to_string();
        let (before, after) = text.rsplit_once("\"returncodes\":[0]").unwrap();
        let text = format!("{before}\"returncodes\":[7],\"return\\u0063odes\":{written}{after}");
        let config = read_text(&text).unwrap();
        assert_eq!(config.steps(Mode::ApplyCheck)[0].returncodes_repr(), expected);
        assert_eq!(config.steps(Mode::Apply)[0].returncodes_repr(), "[0]");
    }
}

#[test]
fn the_last_of_two_keys_counts_as_in_the_reference() {
    let text = sample().to_string();
    let twice = text.replacen('{', "{\"modes\":{\"frobnicate\":[]},\"package_name\":7,", 1);
    assert_eq!(read_text(&twice), read_text(&text));
    let last = format!("{},\"package_name\":7}}", text.strip_suffix('}').unwrap());
    assert_eq!(read_text(&last).unwrap_err(), format!("{FILE}: $.package_name: found 7, expected a string"));
}

#[test]
fn keys_that_are_missing_are_named() {
    for key in ["package_name", "package_version", "expected_config_files", "modes"] {
        refused(&without(&format!("/{key}")), &format!("$: found no {key:?}, expected the key {key:?}"));
    }
    refused(&without("/schema_version"), "$.schema_version: found no such key, expected v1");
    for key in ["name", "path", "arguments", "returncodes", "on_host", "idempotence", "upgrade_step"] {
        let rest = format!("$.modes.apply[0]: found no {key:?}, expected the key {key:?}");
        refused(&without(&format!("/modes/apply/0/{key}")), &rest);
    }
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    let step = |key: &str| format!("/modes/apply/0/{key}");
    let version = "a semantic version such as 1.2.3 or 1.2.3-rc.1+build";
    for (pointer, value, rest) in [
        ("/schema_version", json!("v2"), "$.schema_version: found \"v2\", expected v1".to_owned()),
        ("/schema_version", json!(1), "$.schema_version: found 1, expected v1".to_owned()),
        ("/package_name", json!(["x"]), "$.package_name: found an array of 1, expected a string".to_owned()),
        ("/package_name", json!(""), "$.package_name: found \"\", expected 1 character or more".to_owned()),
        ("/package_version", json!("1.0"), format!("$.package_version: found \"1.0\", expected {version}")),
        ("/package_version", json!("1.0.0\n"), format!("$.package_version: found \"1.0.0\\n\", expected {version}")),
        ("/expected_config_files", json!("x"), "$.expected_config_files: found \"x\", expected an array".to_owned()),
        ("/expected_config_files/0", json!(null), "$.expected_config_files[0]: found null, expected a string".to_owned()),
        ("/modes", json!([]), "$.modes: found an array of 0, expected an object".to_owned()),
        ("/modes/apply", json!({}), "$.modes.apply: found an object of 0 keys, expected an array".to_owned()),
        ("/modes/post-interrupt", json!(7), "$.modes[\"post-interrupt\"]: found 7, expected an array".to_owned()),
        (&*step("name"), json!("a b"), "$.modes.apply[0].name: found \"a b\", expected one or more of A-Z, a-z, 0-9, _, - and . alone".to_owned()),
        (&*step("path"), json!(""), "$.modes.apply[0].path: found \"\", expected 1 character or more".to_owned()),
        (&*step("arguments/0"), json!(1), "$.modes.apply[0].arguments[0]: found 1, expected a string".to_owned()),
        (&*step("returncodes"), json!([]), "$.modes.apply[0].returncodes: found an array of 0, expected 1 item or more".to_owned()),
        (&*step("returncodes/1"), json!(0.5), "$.modes.apply[0].returncodes[1]: found 0.5, expected an integer".to_owned()),
        (&*step("returncodes/1"), json!("0"), "$.modes.apply[0].returncodes[1]: found \"0\", expected an integer".to_owned()),
        (&*step("returncodes/1"), json!(true), "$.modes.apply[0].returncodes[1]: found true, expected an integer".to_owned()),
        (&*step("on_host"), json!("true"), "$.modes.apply[0].on_host: found \"true\", expected a boolean".to_owned()),
        (&*step("idempotence"), json!("auto"), "$.modes.apply[0].idempotence: found \"auto\", expected a boolean".to_owned()),
        (&*step("upgrade_step"), json!(0), "$.modes.apply[0].upgrade_step: found 0, expected a boolean".to_owned()),
        (&*step("env"), json!(null), "$.modes.apply[0].env: found null, expected an object".to_owned()),
        (&*step("env"), json!({"A B": 1}), "$.modes.apply[0].env[\"A B\"]: found 1, expected a string".to_owned()),
        (&*step("shell"), json!("sh"), "$.modes.apply[0]: found the key \"shell\", expected only name, path, arguments, returncodes, on_host, idempotence, upgrade_step, env, requires_interrupt".to_owned()),
        ("/modes/frobnicate", json!([]), format!("$.modes: found the key \"frobnicate\", expected only {}", Mode::ALL.map(Mode::name).join(", "))),
    ] {
        refused(&with(pointer, value), &rest);
    }
    refused(&json!([1, 2]), "$: found an array of 2, expected an object");
}

#[test]
fn rules_about_modes_and_upgrade_steps_are_kept() {
    let upgrade = |arguments: Value| {
        let mut step = step("up.sh");
        step["upgrade_step"] = json!(true);
        step["arguments"] = arguments;
        step
    };
    let only = "one of uninstall, upgrade, apply, config, post-interrupt";
    for (modes, rest) in [
        (json!({}), "$.modes: found no steps in any mode, expected one step or more".to_owned()),
        (json!({"apply": [], "apply-check": []}), "$.modes: found no steps in any mode, expected one step or more".to_owned()),
        (json!({"apply-check": [step("a")]}), format!("$.modes: found only apply-check, expected {only}")),
        (json!({"interrupt": [step("a")]}), format!("$.modes: found only interrupt, expected {only}")),
        (json!({"config": [step("a"), step("b")]}), "$.modes.config: found 2 steps, and none in config-check, expected a step in config-check that checks them".to_owned()),
        (json!({"apply": [upgrade(json!([]))], "apply-check": [step("a")]}), "$.modes.apply[0].upgrade_step: found true for \"up.sh\" in apply, expected true in upgrade and upgrade-check alone".to_owned()),
        (json!({"upgrade": [upgrade(json!(["x"]))], "upgrade-check": [step("a")]}), "$.modes.upgrade[0].arguments: found 1 of an upgrade step, expected none, as it is given the previous and the current version".to_owned()),
    ] {
        refused(&config(modes), &rest);
    }
    for modes in [
        // A mode without steps counts as one that is listed.
        json!({"apply": [], "apply-check": [step("a")]}),
        json!({"upgrade": [upgrade(json!([]))], "upgrade-check": [upgrade(json!([]))]}),
        json!({"apply": [step("a")], "apply-check": [step("a_check")], "interrupt": [step("i")]}),
    ] {
        assert!(read(&config(modes)).is_ok());
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = "expected a name of its own, as it names a folder";
    for (name, rest) in [
        ("..".to_owned(), format!("found \"..\", {folder}")),
        (".".to_owned(), format!("found \".\", {folder}")),
        ("../x".to_owned(), "found \"../x\", expected no slash, as it names one folder".to_owned()),
        ("a\nb".to_owned(), "found \"a\\nb\", expected no control characters".to_owned()),
        (
            "x".repeat(300),
            format!(
                "found \"{}\"… (300 bytes), expected 243 bytes or fewer, as it names a folder and a file",
                "x".repeat(120)
            ),
        ),
    ] {
        refused(&with("/package_name", json!(name)), &format!("$.package_name: {rest}"));
    }
    let version = format!("1.0.0-{}", "a".repeat(250));
    refused(
        &with("/package_version", json!(version)),
        "$.package_version: found 256 bytes, expected 255 bytes or fewer, as it names a folder",
    );
    assert!(read(&with("/package_name", json!("x".repeat(243)))).is_ok());
    for (path, expected) in [
        ("../x.sh", "a path that does not leave the step folder by .."),
        ("a/../../x.sh", "a path that does not leave the step folder by .."),
        ("/../x.sh", "a path that does not leave the step folder by .."),
        ("a/..", "a file in the step folder"),
        ("./", "a file in the step folder"),
        ("a\nb", "no control characters, as it stands in lines of the log"),
    ] {
        let rest = format!("$.modes.apply[0].path: found {path:?}, expected {expected}");
        refused(&with("/modes/apply/0/path", json!(path)), &rest);
    }
    for path in ["sub/x.sh", "a/../x.sh", "/x.sh", "./x y.sh", "...", "é"] {
        assert!(read(&with("/modes/apply/0/path", json!(path))).is_ok(), "{path}");
    }
    let long = "y".repeat(256);
    let error = read(&with("/modes/apply/0/path", json!(format!("a/{long}")))).unwrap_err();
    assert!(error.ends_with("expected names of 255 bytes or fewer"), "{error}");
}

#[test]
fn what_no_process_can_be_given_is_refused() {
    let texts = "text without a NUL, which no process can be given";
    let name = "a variable's name: not empty, without = and NUL";
    refused(
        &with("/modes/apply/0/arguments/0", json!("a\0b")),
        &format!("$.modes.apply[0].arguments[0]: found \"a\\0b\", expected {texts}"),
    );
    refused(
        &with("/modes/apply/0/env", json!({"A": "\0"})),
        &format!("$.modes.apply[0].env.A: found a NUL, expected {texts}"),
    );
    refused(
        &with("/modes/apply/0/env", json!({"A=B": ""})),
        &format!("$.modes.apply[0].env: found \"A=B\", expected {name}"),
    );
    refused(
        &with("/modes/apply/0/env", json!({"": ""})),
        &format!("$.modes.apply[0].env: found \"\", expected {name}"),
    );
}

#[test]
fn bytes_that_are_no_config_are_refused_in_one_line() {
    let refused = |bytes: &[u8], rest: &str| {
        let error = Config::parse(Path::new(FILE), bytes).unwrap_err().to_string();
        assert_eq!(error, format!("{FILE}: $: {rest}"));
    };
    refused(b"", "found no JSON (EOF while parsing a value at line 1 column 0), expected a JSON object");
    refused(b"\xef\xbb\xbf{}", "found a byte order mark, expected JSON from the first byte on");
    refused(b"{\"a\": \"\xff\"}", "found the byte 0xff at 7, expected UTF-8");
    refused(b"{\"a\":\n NaN}", "found no JSON (expected value at line 2 column 2), expected a JSON object");
    refused(
        b"{\"a\": -Infinity}",
        "found no JSON (invalid number at line 1 column 8), expected a JSON object",
    );
    refused(
        b"{\"a\": 1e400}",
        "found no JSON (number out of range at line 1 column 11), expected a JSON object",
    );
    refused(
        b"{\"a\": \"\\ud800\"}",
        "found no JSON (unexpected end of hex escape at line 1 column 14), expected a JSON object",
    );
    refused(b"{} {}", "found no JSON (trailing characters at line 1 column 4), expected a JSON object");
    refused(
        "[".repeat(100_000).as_bytes(),
        "found no JSON (recursion limit exceeded at line 1 column 128), expected a JSON object",
    );
    let large = vec![b' '; CONFIG_BYTES_MAX + 1];
    refused(&large, "found more than 8388608 bytes, expected 8388608 bytes or fewer");
}

#[test]
fn ten_thousand_steps_are_read() {
    let steps: Vec<Value> = (0..10_000).map(|index| step(&format!("folder/step-{index}.sh"))).collect();
    let document = config(json!({"apply": steps, "apply-check": [step("check.sh")]}));
    let config = read(&document).unwrap();
    assert_eq!(config.steps(Mode::Apply).len(), 10_000);
    assert_eq!(config.missing_checks().len(), 10_000);
    let error = config.check_files(Path::new(FILE), |_| false).unwrap_err().to_string();
    assert!(error.len() < 1000 && error.contains("folder/step-19.sh (10001 steps in all)"), "{error}");
}

#[test]
fn a_file_name_stays_in_its_line() {
    let error = Config::parse(Path::new("/a\nb"), b"").unwrap_err();
    assert!(error.to_string().starts_with("\"/a\\nb\": $: found"), "{error}");
}

#[test]
fn steps_without_a_check_by_their_name_are_warned_of() {
    let warning = |path: &str| {
        format!("WARNING:root: {path} doesn't exist. Checks ensure that all tasks in the step will complete.")
    };
    let steps = ["noext", "b.x.sh", "noext", "ok.sh", "a.d/b", "end."].map(step);
    // Any check mode will do, and a check is never warned of.
    let document = config(json!({
        "apply": steps, "apply-check": [step("apply_check.sh")],
        "config": [step("c.sh")], "config-check": [step("ok_check.sh")],
        "interrupt": [step("i.sh")],
    }));
    let expected = ["noext_check", "b.x_check.sh", "a_check.d/b", "end_check", "c_check.sh"].map(warning);
    assert_eq!(read(&document).unwrap().missing_checks(), expected);
}

#[test]
fn missing_step_files_are_named_together() {
    let document = config(json!({
        "apply": [step("apply.sh"), step("gone.sh")], "apply-check": [step("also_gone.sh"), step("gone.sh")],
    }));
    let config = read(&document).unwrap();
    assert_eq!(config.check_files(Path::new(FILE), |_| true), Ok(()));
    let error = config.check_files(Path::new(FILE), |path| path == "apply.sh").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{FILE}: $.modes.apply[1].path: found steps whose files do not exist: gone.sh, also_gone.sh (3 steps in all), expected a file for each step"
        )
    );
}
