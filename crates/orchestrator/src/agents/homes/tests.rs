use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use groundcrew_durable::agent_info::BYTES_MAX;
use groundcrew_protocol::agent_info::{AgentLife, Ending, InfoPhase, RuntimeSource, RuntimeState};
use groundcrew_protocol::time::WallMs;
use serde_json::{Value, json};

use super::*;

const RUNNING: &str = r#"{"name":"a","owner":{"team":"lab"},"phase":"running","activity":"thinking"}"#;

fn ended(ending: Ending) -> RuntimeFact {
    let state = RuntimeState::Ended { ending, exit: None, reason: String::new(), detail: String::new() };
    RuntimeFact {
        source: RuntimeSource::Local,
        life: AgentLife::default(),
        state,
        container_status: String::new(),
        at: WallMs(1_000),
    }
}

/// A folder of homes, with one agent's in it.
struct Place {
    folder: tempfile::TempDir,
    homes: Homes,
    home: Home,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("agents");
        fs::create_dir_all(root.join("lab/one")).unwrap();
        let homes: Homes = format!("{}/{{namespace}}/{{agent}}", root.display()).parse().unwrap();
        let home = homes.home_of("lab", "one").unwrap();
        Place { folder, homes, home }
    }

    fn with(content: impl AsRef<[u8]>) -> Place {
        let place = Place::new();
        fs::write(place.path(), content).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.homes.path(&self.home)
    }

    fn persist(&self, ending: Ending) -> Result<Option<AgentInfo>> {
        self.homes.persist(&self.home, &ended(ending))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().parent().unwrap()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_template_is_an_absolute_path_with_a_place_for_the_agent() {
    for wrong in [
        "",
        "agents/{agent}",
        "/",
        "/a/../{agent}",
        "/{namespace}",
        "/{agent}/{agent}",
        "/a{agent}",
        "/{x}/{agent}",
    ] {
        let error = wrong.parse::<Homes>().unwrap_err();
        assert!(error.contains(&format!("{wrong:?}")) && error.contains("/srv/"), "{error}");
    }
    let path = |template: &str, namespace, name| {
        let homes: Homes = template.parse().unwrap();
        homes.home_of(namespace, name).map(|home| homes.path(&home).display().to_string())
    };
    assert_eq!(path("/s/{namespace}/{agent}", "lab", "a").unwrap(), "/s/lab/a/agent-info.json");
    assert_eq!(path("/s/{agent}/home", "", "a").unwrap(), "/s/a/home/agent-info.json");
    assert_eq!(path("/var/lib/groundcrew", "", "a").unwrap(), "/var/lib/groundcrew/agent-info.json");
    for (namespace, name) in
        [("..", "a"), ("lab", ".."), ("lab", "a/b"), ("lab", ""), ("lab", ".hidden"), ("lab", "a\n")]
    {
        assert_eq!(path("/s/{namespace}/{agent}", namespace, name), None, "{namespace} {name}");
    }
}

#[test]
fn every_folder_is_a_home_and_nothing_else_is() {
    let place = Place::new();
    let root = place.folder.path().join("agents");
    for folder in ["lab/two", "other/one", ".hidden/one"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("lab/file"), "").unwrap();
    symlink(place.folder.path(), root.join("lab/out")).unwrap();
    symlink(place.folder.path(), root.join("away")).unwrap();
    let Found { homes: found, left_out, hidden } = place.homes.found().unwrap();
    assert!(hidden.is_empty(), "{hidden:?}");
    let names: Vec<_> = found.iter().map(|home| (home.namespace.as_str(), home.name.as_str())).collect();
    assert_eq!(names, [("lab", "one"), ("lab", "out"), ("lab", "two"), ("other", "one")]);
    assert_eq!((left_out, &found[0]), (0, &place.home));
    let error = place.homes.read(&found[1]).unwrap_err();
    assert!(matches!(error, Error::LeadsOut { .. }), "{error}");

    let one: Homes = root.join("lab/one").display().to_string().parse().unwrap();
    let found = one.found().unwrap().homes;
    assert_eq!((found.len(), found[0].name.as_str()), (1, "one"));
    let none: Homes = format!("{}/none/{{agent}}", root.display()).parse().unwrap();
    let none = none.found().unwrap();
    assert!(none.homes.is_empty() && none.hidden.is_empty() && none.left_out == 0, "{none:?}");
}

#[test]
fn an_end_comes_into_the_file_once_with_its_mode_and_everything_else_kept() {
    for mode in [0o600, 0o664, 0o444] {
        let place = Place::with(RUNNING);
        fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        fs::write(place.path().with_file_name(".groundcrew-tmp-0123456789abcdef"), "of one that was killed")
            .unwrap();
        let after = place.persist(Ending::Stopped).unwrap().unwrap();
        assert_eq!((after.phase, after.activity), (Some(InfoPhase::Stopped), None));
        let value: Value = serde_json::from_slice(&fs::read(place.path()).unwrap()).unwrap();
        let expected = json!({"name": "a", "owner": {"team": "lab"}, "phase": "stopped", "activity": ""});
        assert_eq!(value.to_string(), expected.to_string());
        let metadata = fs::metadata(place.path()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode);
        assert_eq!(place.names(), [".agent-info.json.lock", "agent-info.json"]);
        // The second pass finds nothing to do, and writes nothing.
        let modified = metadata.modified().unwrap();
        assert!(place.persist(Ending::Stopped).unwrap().is_some());
        assert_eq!(fs::metadata(place.path()).unwrap().modified().unwrap(), modified);
    }
}

#[test]
fn a_home_that_agrees_keeps_no_trace_of_a_pass() {
    let place = Place::with(r#"{"phase":"stopped"}"#);
    assert!(place.persist(Ending::Stopped).unwrap().is_some());
    assert_eq!(place.names(), ["agent-info.json"]);
}

#[test]
fn where_no_agent_wrote_a_file_none_is_made() {
    let place = Place::new();
    assert_eq!(place.persist(Ending::Error).unwrap(), None);
    let gone = place.homes.home_of("lab", "nobody").unwrap();
    assert_eq!(place.homes.persist(&gone, &ended(Ending::Error)).unwrap(), None);
    assert!(place.names().is_empty());
}

#[test]
fn what_is_no_file_of_an_agent_is_named_and_left_alone() {
    let large = format!("{{\"phase\":\"running\",\"more\":\"{}\"}}", "x".repeat(10 << 20));
    assert!(large.len() as u64 > BYTES_MAX);
    for (content, found) in [
        ("", "an empty file"),
        (r#"{"phase":"run"#, "text that is not JSON"),
        ("not JSON at all", "text that is not JSON"),
        ("[]", "an array"),
        (large.as_str(), "more than the 1048576 bytes"),
    ] {
        let place = Place::with(content);
        for error in [place.persist(Ending::Error).unwrap_err(), place.homes.read(&place.home).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains(found) && text.contains("lab/one/agent-info.json"), "{text}");
        }
        assert_eq!(fs::read_to_string(place.path()).unwrap(), content);
    }
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    assert!(matches!(place.persist(Ending::Error), Err(Error::NotAFile { found: "a folder", .. })));
}

#[test]
fn a_link_to_outside_the_home_is_refused() {
    let place = Place::new();
    let outside = place.folder.path().join("outside.json");
    fs::write(&outside, RUNNING).unwrap();
    symlink(&outside, place.path()).unwrap();
    assert!(matches!(place.persist(Ending::Error), Err(Error::NotAFile { found: "a symbolic link", .. })));
    assert_eq!(fs::read_to_string(&outside).unwrap(), RUNNING);
    // And so is one in the place of the home, or above it.
    let other = place.folder.path().join("agents/away");
    symlink(place.folder.path(), &other).unwrap();
    let away = place.homes.home_of("away", "agents").unwrap();
    assert!(matches!(place.homes.persist(&away, &ended(Ending::Error)), Err(Error::LeadsOut { .. })));
}
