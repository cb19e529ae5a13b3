use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::causes;

/// What must never be shown.
const SECRET: &str = "T0SECRET";

fn sink(more: &str) -> String {
    format!(
        "[[sink]]\nname = \"ops\"\nkind = \"slack\"\nurl = \"https://hooks.example/services/{SECRET}\"\n{more}\n"
    )
}

#[test]
fn sinks_are_read_with_their_defaults() {
    let text = sink("")
        + "[[sink]]\nname = \"team-a\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/x\"\nfleet = false\ntries = 1\n\
           authorization = \"Bearer T0SECRET\"\n";
    let sinks = Sinks::parse(&text).unwrap();
    let [ops, team] = sinks.all() else { panic!("{sinks:?}") };
    assert_eq!((ops.kind, ops.is_of_fleet, ops.tries), (Kind::Slack, true, TRIES_DEFAULT));
    assert_eq!((team.kind, team.is_of_fleet, team.tries), (Kind::Webhook, false, 1));
    assert_eq!(sinks.of_fleet(), std::slice::from_ref(&ops.name));
    assert_eq!((ops.url.to_string().as_str(), ops.url.port()), ("https://hooks.example", 443));
    assert!(sinks.need_tls() && ops.url.reveal().path().ends_with(SECRET));
    assert!(!format!("{sinks:?}").contains(SECRET), "{sinks:?}");
    assert_eq!(Sinks::parse("# none\n").unwrap(), Sinks::default());
}

#[test]
fn what_is_refused_is_named_with_its_place_and_no_secret_is_shown() {
    let cases = [
        (sink("flete = true"), "sink 1 (ops), flete: found an unknown key, expected name, kind"),
        (sink("fleet = \"T0SECRET\""), "sink 1 (ops), fleet: found a string, expected true or false"),
        (sink("tries = 0"), "tries: found 0, expected a whole number from 1 to 5"),
        (sink("tries = 6"), "tries: found 6, expected"),
        (sink("tries = 1.5"), "tries: found a float, expected"),
        (sink("authorization = \"T0SECRET\\n\""), "authorization: found other characters, expected visible"),
        (sink("") + &sink(""), "sink ops: found its name twice"),
        (
            sink("").replace("slack", "T0SECRET"),
            "kind: found another word, expected \"webhook\" or \"slack\"",
        ),
        (sink("").replace("kind = \"slack\"\n", ""), "sink 1 (ops): found no kind"),
        (sink("").replace("\"ops\"", "\"https://T0SECRET\""), "sink 1, name: found another, expected a name"),
        (sink("").replace("\"ops\"", "7"), "sink 1, name: found an integer, expected a name"),
        (
            sink("").replace("https:", "ftp:"),
            "url: found another scheme, expected an address as https://HOST/PATH",
        ),
        (sink("").replace("https:", "http:"), "url: found http://hooks.example, which is in the clear"),
        (sink("").replace("https://", "https://u:T0SECRET@"), "url: found a user before the host"),
        (sink("").replace("https://hooks.example", ""), "url: found no scheme and host"),
        (sink("").replace("https://hooks.example", "https://h:0"), "url: found no host or no port"),
        (sink("").replace("services/", " "), "url: found no address"),
        (sink("").replace("url = \"", "url = T0SECRET\""), "line 4: found no TOML"),
        (format!("{SECRET} = 1\n"), "a key: found an unknown key, expected [[sink]] alone"),
        ("sinks = 1\n".to_owned(), "sinks: found an unknown key"),
        ("sink = 1\n".to_owned(), "sink: found integer, expected [[sink]]"),
        (sink("").repeat(SINKS_MAX + 1), "sink: found 17, expected at most 16"),
    ];
    for (text, expected) in cases {
        let why = Sinks::parse(&text).unwrap_err();
        assert!(why.contains(expected), "{why} of\n{text}");
        assert!(!why.contains(SECRET), "{why}");
    }
    let long = sink("").replace(SECRET, &"x".repeat(URL_BYTES_MAX));
    assert!(Sinks::parse(&long).unwrap_err().contains("expected at most 2048"));
}

#[test]
fn an_address_in_the_clear_is_for_this_machine_or_by_permission() {
    for (url, more, is_taken) in [
        ("http://127.0.0.1:8080/a", "", true),
        ("http://127.9.9.9/a", "", true),
        ("http://[::1]:8080/a", "", true),
        ("http://localhost/a", "", true),
        ("http://localhost.example/a", "", false),
        ("http://10.0.0.1/a", "", false),
        ("http://10.0.0.1/a", "allow_http = true", true),
        ("http://[fd00::1]/a", "", false),
    ] {
        let text = format!("[[sink]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"{url}\"\n{more}\n");
        assert_eq!(Sinks::parse(&text).is_ok(), is_taken, "{url} {more}");
    }
}

#[test]
fn sinks_are_read_from_a_file_that_others_can_neither_read_nor_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.toml");
    assert!(matches!(Sinks::read(&path), Err(SinksError::Unread { .. })));
    std::fs::write(&path, sink("")).unwrap();
    for (mode, is_taken) in [(0o600, true), (0o640, true), (0o440, true), (0o644, false), (0o660, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let read = Sinks::read(&path);
        assert_eq!(read.is_ok(), is_taken, "{mode:o}: {read:?}");
    }
    let why = causes::chain(&Sinks::read(&path).unwrap_err());
    assert!(why.contains("mode 0660") && why.contains("chmod 0600"), "{why}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, b"\xff").unwrap();
    assert!(matches!(Sinks::read(&path), Err(SinksError::Bad { .. })));
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert!(matches!(Sinks::read(&path), Err(SinksError::Bad { .. })));
    assert!(matches!(Sinks::read(folder.path()), Err(SinksError::Open { .. } | SinksError::Unread { .. })));
}

proptest! {
    /// Whatever is cut out of a file or put into it, no refusal shows the address.
    #[test]
    fn no_refusal_shows_an_address(from in 0..200usize, length in 0..40usize, instead in "[a-z\\[\\]=\"\n ]{0,6}") {
        let text = sink("fleet = true\nauthorization = \"Bearer T0SECRET\"");
        let from = from.min(text.len());
        let to = (from + length).min(text.len());
        let changed = format!("{}{instead}{}", &text[..from], &text[to..]);
        if let Err(why) = Sinks::parse(&changed) {
            prop_assert!(!why.contains(SECRET), "{} of\n{}", why, changed);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _read_or_refused = Sinks::parse(&text);
    }
}

#[test]
fn the_example_is_one_that_is_taken() {
    let sinks = Sinks::parse(include_str!("../../../../../deploy/notify.toml")).unwrap();
    let names: Vec<&str> = sinks.all().iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!((names, sinks.of_fleet().len()), (vec!["ops", "ci"], 1));
}
