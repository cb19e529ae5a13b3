//! Which value wins, and what is said of a bad one.

use std::collections::BTreeMap;

use super::*;

const RUN: &str = "r-7f3k9q2m";

struct Given<'a> {
    kernel_line: String,
    environment: BTreeMap<&'a str, OsString>,
    flags: Vec<String>,
}

fn pin(byte: u8) -> Sha256Hex {
    Sha256Hex::of(&[byte])
}

fn token() -> TokenText {
    TokenText::boot([9; 32])
}

/// Everything that must be said, on the kernel command line.
fn given() -> Given<'static> {
    let kernel_line = format!(
        "BOOT_IMAGE=/vmlinuz quiet groundcrew.url=https://10.0.0.1:8443 groundcrew.run={RUN} \
         groundcrew.token={} groundcrew.fpr={},{} groundcrew.mac=52-54-00-AB-CD-EF groundcrew.clock=hello\n",
        token(),
        pin(1),
        pin(2)
    );
    Given { kernel_line, environment: BTreeMap::new(), flags: Vec::new() }
}

fn load(given: &Given<'_>) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let line = folder.path().join("cmdline");
    std::fs::write(&line, &given.kernel_line).unwrap();
    Settings::load(given.flags.iter().map(OsString::from), |name| given.environment.get(name).cloned(), &line)
}

fn error_of(given: &Given<'_>) -> String {
    load(given).unwrap_err().to_string()
}

#[test]
fn the_kernel_command_line_is_enough() {
    let settings = load(&given()).unwrap();
    assert_eq!(settings.url.to_string(), "https://10.0.0.1:8443");
    assert_eq!(settings.run.as_str(), RUN);
    assert_eq!(settings.token.as_ref().unwrap().reveal(), &token());
    assert_eq!(settings.pins, [pin(1), pin(2)]);
    assert_eq!(settings.mac.unwrap().as_str(), "52:54:00:ab:cd:ef");
    assert_eq!(settings.clock, ClockFrom::Hello);
    assert_eq!(settings.home, Path::new(HOME_DEFAULT));
    assert_eq!((settings.allow_power, settings.allow_reboot, settings.authorized_keys), (false, false, None));
    assert!(!settings.allow_packages && settings.unknown.is_empty());
}

#[test]
fn an_empty_variable_or_kernel_parameter_is_not_given() {
    let whole = load(&given()).unwrap();
    let mut given = given();
    for name in ["URL", "RUN", "TOKEN", "FPR", "MAC", "HOME", "AUTHORIZED_KEYS", "ALLOW_POWER"] {
        given.environment.insert(format!("GROUNDCREW_{name}").leak(), OsString::new());
    }
    given.kernel_line.insert_str(0, "groundcrew.token= groundcrew.mac ");
    given.kernel_line =
        given.kernel_line.replace('\n', " groundcrew.url= groundcrew.run=\"\" groundcrew.fpr\n");
    let settings = load(&given).unwrap();
    assert_eq!(settings.heartbeat_interval_ms, whole.heartbeat_interval_ms);
    assert_eq!((settings.url, settings.run, settings.pins), (whole.url, whole.run, whole.pins));
    assert_eq!((settings.token, settings.mac, settings.home), (whole.token, whole.mac, whole.home));
    // An empty flag is a mistake of whoever typed it.
    given.flags = vec!["--run".to_owned(), String::new()];
    assert!(error_of(&given).starts_with("--run from a flag: found \"\""), "{}", error_of(&given));
    // What is nowhere else is missing, and not bad.
    given.flags.clear();
    given.kernel_line = given.kernel_line.replace("groundcrew.run=", "other=");
    assert!(error_of(&given).starts_with("missing: --run"), "{}", error_of(&given));
}

#[test]
fn the_environment_wins_over_the_kernel_and_a_flag_over_both() {
    let mut given = given();
    given.environment.insert("GROUNDCREW_URL", "https://10.0.0.2".into());
    given.environment.insert("GROUNDCREW_RUN", "from-environment".into());
    given.environment.insert("GROUNDCREW_ALLOW_POWER", "yes".into());
    given.environment.insert("GROUNDCREW_ALLOW_PACKAGES", "yes".into());
    given.flags =
        vec!["--run".into(), "from-flag".into(), "--allow-reboot".into(), "--allow-power=no".into()];
    let settings = load(&given).unwrap();
    assert_eq!(settings.url.to_string(), "https://10.0.0.2");
    assert_eq!(settings.run.as_str(), "from-flag");
    assert_eq!((settings.allow_power, settings.allow_reboot, settings.allow_packages), (false, true, true));
}

#[test]
fn a_bad_value_is_named_with_its_source() {
    let mut bad = given();
    bad.kernel_line = bad.kernel_line.replace(RUN, "no_run");
    let error = error_of(&bad);
    for part in ["groundcrew.run", "kernel command line", "cmdline", "\"no_run\"", "expected 1 to 40"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut bad = given();
    bad.environment.insert("GROUNDCREW_URL", "http://10.0.0.1".into());
    let error = error_of(&bad);
    for part in ["GROUNDCREW_URL from the environment", "\"http://10.0.0.1\"", "https://HOST"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    for (flag, value, part) in [
        ("fpr", "abc", "64 hexadecimal digits"),
        ("mac", "5:6", "six pairs"),
        ("home", "relative", "absolute path"),
        ("home", "/a/../b", "absolute path"),
        ("allow-power", "maybe", "yes or no"),
        ("clock", "ntp", "machine or hello"),
    ] {
        let mut bad = given();
        bad.flags = vec![format!("--{flag}={value}")];
        let error = error_of(&bad);
        assert!(error.contains(part) && error.contains(&format!("--{flag} from a flag")), "{error}");
    }
}

#[test]
fn a_clock_is_the_machine_s_own_unless_something_says_otherwise() {
    let mut quiet = given();
    quiet.kernel_line = quiet.kernel_line.replace("groundcrew.clock=hello", "");
    assert_eq!(load(&quiet).unwrap().clock, ClockFrom::Machine);
    quiet.environment.insert("GROUNDCREW_CLOCK", "hello".into());
    assert_eq!(load(&quiet).unwrap().clock, ClockFrom::Hello);
    quiet.flags = vec!["--clock=machine".into()];
    assert_eq!(load(&quiet).unwrap().clock, ClockFrom::Machine);
}

#[test]
fn a_bad_value_that_a_later_one_replaces_does_not_count() {
    let mut replaced = given();
    replaced.kernel_line = replaced.kernel_line.replace(RUN, "no_run");
    replaced.flags = vec!["--run".into(), RUN.into()];
    assert_eq!(load(&replaced).unwrap().run.as_str(), RUN);
}

#[test]
fn what_is_missing_says_how_to_give_it() {
    for flag in ["url", "run", "fpr"] {
        let mut missing = given();
        missing.kernel_line = missing.kernel_line.replace(&format!("groundcrew.{flag}="), "other=");
        let error = error_of(&missing);
        let variable = format!("GROUNDCREW_{}", flag.to_uppercase());
        assert!(error.contains(&format!("--{flag},")) && error.contains(&variable), "{error}");
    }
    let mut empty = given();
    empty.kernel_line = empty.kernel_line.replace(RUN, "");
    assert!(error_of(&empty).starts_with("missing: --run"), "{}", error_of(&empty));
}

#[test]
fn a_token_is_shown_in_no_error_and_no_debug() {
    let mut bad = given();
    let mistyped = format!("{}x", token());
    bad.environment.insert("GROUNDCREW_TOKEN", mistyped.clone().into());
    let error = error_of(&bad);
    assert!(error.contains("a text of 69 bytes") && !error.contains("0909"), "{error}");
    let shown = format!("{:?}", load(&given()).unwrap());
    assert!(shown.contains("Secret(..)") && !shown.contains("0909"), "{shown}");
}

#[test]
fn flags_that_are_none_are_refused() {
    for flags in [vec!["--no-such"], vec!["-x"], vec!["word"], vec!["--url"]] {
        let mut bad = given();
        bad.flags = flags.iter().map(ToString::to_string).collect();
        assert!(matches!(load(&bad), Err(SettingsError::Flags { .. })), "{flags:?}");
    }
}

#[test]
fn an_unknown_kernel_parameter_of_ours_is_kept_for_saying_so() {
    let mut newer = given();
    newer.kernel_line = format!("groundcrew.flavour=x groundcrew.home=/x {}", newer.kernel_line);
    let settings = load(&newer).unwrap();
    assert_eq!(settings.unknown, ["groundcrew.flavour", "groundcrew.home"]);
    assert_eq!(settings.home, Path::new(HOME_DEFAULT));
}

#[test]
fn root_s_own_keys_need_a_word_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join(".ssh")).unwrap();
    std::os::unix::fs::symlink(root.join(".ssh"), folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink(root.join(".ssh/authorized_keys"), folder.path().join("keys")).unwrap();
    std::fs::write(root.join(".ssh/authorized_keys"), "").unwrap();
    let given = given();
    let line = folder.path().join("cmdline");
    std::fs::write(&line, &given.kernel_line).unwrap();
    let load = |keys: &Path, more: &[&str]| {
        let flags = ["--authorized-keys".into(), keys.as_os_str().to_owned()];
        let flags = flags.into_iter().chain(more.iter().map(OsString::from));
        Settings::load_beside(flags, |_| None, &line, &root)
    };
    for name in ["root/.ssh/authorized_keys", "root/.ssh/other", "link/authorized_keys", "keys"] {
        let error = load(&folder.path().join(name), &[]).unwrap_err().to_string();
        assert!(error.contains("--allow-root-keys"), "{error}");
        assert!(load(&folder.path().join(name), &["--allow-root-keys"]).is_ok());
    }
    let own = folder.path().join("home/.ssh/authorized_keys");
    assert_eq!(load(&own, &[]).unwrap().authorized_keys, Some(own));
}

#[test]
fn a_user_for_holds_brings_their_own_file_and_root_needs_the_same_word() {
    let mut given = given();
    given.environment.insert("GROUNDCREW_HOLD_USER", "root".into());
    let error = error_of(&given);
    assert!(error.contains("GROUNDCREW_HOLD_USER") && error.contains("--allow-root-keys"), "{error}");
    given.environment.insert("GROUNDCREW_ALLOW_ROOT_KEYS", "yes".into());
    let settings = load(&given).unwrap();
    let user = settings.hold_user.unwrap();
    assert_eq!((user.name.as_str(), user.uid), ("root", 0));
    assert_eq!(settings.authorized_keys, Some(user.home.join(".ssh/authorized_keys")));
    // A path of its own beside it counts.
    given.environment.insert("GROUNDCREW_AUTHORIZED_KEYS", "/srv/keys".into());
    assert_eq!(load(&given).unwrap().authorized_keys.as_deref(), Some(Path::new("/srv/keys")));
    given.environment.insert("GROUNDCREW_HOLD_USER", "nobody-of-this-name".into());
    let error = error_of(&given);
    assert!(error.contains("nobody-of-this-name") && error.contains("/etc/passwd"), "{error}");
    assert_eq!(settings.host_keys, Path::new("/etc/ssh"));
}

#[test]
fn the_environment_alone_names_the_pod() {
    let mut given = given();
    assert_eq!(load(&given).unwrap().pod_uid, None);
    let uid = "6d3f0c1e-8a57-4f0e-9a1b-2f4a5b6c7d8e";
    given.environment.insert("GROUNDCREW_POD_UID", uid.into());
    assert_eq!(load(&given).unwrap().pod_uid.as_deref(), Some(uid));
    for bad in ["a b", "a/b", &"a".repeat(POD_UID_BYTES_MAX + 1)] {
        given.environment.insert("GROUNDCREW_POD_UID", bad.into());
        let error = error_of(&given);
        assert!(error.contains("GROUNDCREW_POD_UID") && error.contains("a pod's uid"), "{error}");
    }
}
