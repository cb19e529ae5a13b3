use super::*;

mod any_text;
mod interrupts;

const DEMO: &str = include_str!("../../../../profiles/demo.toml");
const EXAMPLE: &str = include_str!("../../../../profiles/example.toml");

/// What a refusal must say: line, key, found, expected.
type Wanted = (usize, &'static str, &'static str, &'static str);

/// The profile of a table row: a name in line 1, the row's text from line 2 on.
fn with_name(rest: &str) -> String {
    format!("name = \"p\"\n{rest}")
}

#[track_caller]
fn assert_refused(text: &str, (line, key, found, expected): Wanted) {
    let bad = Profile::parse(text).expect_err(text);
    assert_eq!((bad.line, bad.key.as_str(), bad.found.as_str()), (line, key, found), "{bad}\n{text}");
    assert!(bad.expected.contains(expected), "{bad}, which lacks {expected:?}\n{text}");
    let comma = if key.is_empty() { "" } else { ", " };
    assert_eq!(bad.to_string(), format!("line {line}{comma}{key}: found {found}, expected {}", bad.expected));
}

const BAD_KEYS_AND_VALUES: [(&str, Wanted); 32] = [
    ("", (1, "stage", "nothing", "at least one [[stage]]")),
    ("stage = 3", (2, "stage", "3", "at least one [[stage]]")),
    (
        "[[stage]]\nname = \"Inventory\"\ndedline = \"5s\"",
        (4, "stage[1].dedline", "an unknown key", "is deadline meant?"),
    ),
    (
        "colour = 1",
        (
            2,
            "colour",
            "an unknown key",
            "one of name, description, at_end, in_service, limits, stage, package, interrupt, expected, write",
        ),
    ),
    ("[[stage]]\ndeadline = \"5s\"", (2, "stage[1].name", "nothing", "one of Inventory, SpecValidate")),
    ("[[stage]]\nname = 7", (3, "stage[1].name", "7", "one of Inventory, SpecValidate, SMART")),
    ("[[stage]]\nname = \"Inventry\"", (3, "stage[1].name", "\"Inventry\"", "is Inventory meant?")),
    ("[[stage]]\nname = \"cpustress\"", (3, "stage[1].name", "\"cpustress\"", "is CPUStress meant?")),
    (
        "[[stage]]\nname = \"Package:../apply\"",
        (3, "stage[1].name", "\"Package:../apply\"", "a NAME of 1 to 128"),
    ),
    ("[[stage]]\nname = \"Package:a/aply\"", (3, "stage[1].name", "\"Package:a/aply\"", "is apply meant?")),
    (
        "[[stage]]\nname = \"Package:a/apply-check-check\"",
        (3, "stage[1].name", "\"Package:a/apply-check-check\"", "each also with -check"),
    ),
    ("[[stage]]\nname = \"Interrupt:\"", (3, "stage[1].name", "\"Interrupt:\"", "a NAME of 1 to 128")),
    (
        "[[stage]]\nname = \"SMART\"\n\n[[stage]]\nname = \"SMART\"",
        (6, "stage[2].name", "\"SMART\" a second time", "each stage once"),
    ),
    (
        "[[stage]]\nname = \"Package:a/apply\"\n\n[[stage]]\nname = \"Package:a/apply\"",
        (6, "stage[2].name", "\"Package:a/apply\" a second time", "each stage once"),
    ),
    (
        "[[stage]]\nname = \"Interrupt:i\"\n\n[[stage]]\nname = \"Interrupt:i\"",
        (6, "stage[2].name", "\"Interrupt:i\" a second time", "each stage once"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\ndeadline = \"5x\"",
        (4, "stage[1].deadline", "\"5x\"", "a whole number and ms, s, m, h or d"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\ndeadline = 5",
        (4, "stage[1].deadline", "5", "a whole number and ms, s, m, h or d"),
    ),
    ("[[stage]]\nname = \"SMART\"\ndeadline = \"0s\"", (4, "stage[1].deadline", "\"0s\"", "from 1ms to 30d")),
    (
        "[[stage]]\nname = \"SMART\"\ndeadline = \"31d\"",
        (4, "stage[1].deadline", "\"31d\"", "from 1ms to 30d"),
    ),
    (
        "[[stage]]\nname = \"SpecValidate\"\nrequire = \"edac\"",
        (4, "stage[1].require", "\"edac\"", "an array of names"),
    ),
    (
        "[[stage]]\nname = \"SpecValidate\"\nrequire = [\n \"a\",\n \"B\"]",
        (6, "stage[1].require[2]", "\"B\"", "a name of a check"),
    ),
    (
        "[[stage]]\nname = \"CPUStress\"\nrequire = [\"rate\", \"frequncy\"]",
        (4, "stage[1].require[2]", "\"frequncy\"", "frequency meant?"),
    ),
    (
        "[[stage]]\nname = \"SpecValidate\"\nrequire = [\"a\", \"a\"]",
        (4, "stage[1].require[2]", "\"a\"", "each name once"),
    ),
    (
        "at_end = \"reboot\"\n[[stage]]\nname = \"SMART\"",
        (2, "at_end", "\"reboot\"", "\"stay\" or \"shutdown\""),
    ),
    (
        "description = []\n[[stage]]\nname = \"SMART\"",
        (2, "description", "an array of 0", "a text of at most 4096 bytes"),
    ),
    ("limits = 3\n[[stage]]\nname = \"SMART\"", (2, "limits", "3", "a table")),
    (
        "[[stage]]\nname = \"SMART\"\n[limits]\nsilence = \"0s\"",
        (5, "limits.silence", "\"0s\"", "from 1ms to 30d"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\n[limits]\nhold = \"99999999d\"",
        (5, "limits.hold", "\"99999999d\"", "from 1ms to 30d"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\n[limits]\ncrashes = 0",
        (5, "limits.crashes", "0", "a whole number from 1 to 1000"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\n[limits]\ncrashs = 2",
        (5, "limits.crashs", "an unknown key", "is crashes meant?"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\n[write]\nshared = \"yes\"",
        (5, "write.shared", "\"yes\"", "true or false"),
    ),
    (
        "[[stage]]\nname = \"SMART\"\n[expected]\ngpu_count = -1",
        (5, "expected.gpu_count", "-1", "a whole number from 0 to 65536, or { at_least"),
    ),
];

#[test]
fn bad_keys_and_values_are_refused_with_line_key_found_and_expected() {
    for (rest, wanted) in BAD_KEYS_AND_VALUES {
        assert_refused(&with_name(rest), wanted);
    }
}

#[test]
fn a_gpu_is_expected_by_its_ids_and_each_kind_once() {
    let of = |gpus: &str| with_name(&format!("[[stage]]\nname = \"SMART\"\n[expected]\ngpu = [{gpus}]"));
    let ids = "the PCI ids of its vendor and device";
    assert_refused(&of("{ device = \"H100\" }"), (5, "expected.gpu[1].device", "\"H100\"", ids));
    assert_refused(&of("{ count = 8 }"), (5, "expected.gpu[1].device", "nothing", ids));
    let twice = "{ device = \"10de:2330\" }, { device = \"10DE:2330\" }";
    assert_refused(
        &of(twice),
        (5, "expected.gpu[2].device", "\"10de:2330\" a second time", "each kind once"),
    );
}

#[test]
fn bad_stages_and_settings_are_refused_with_line_key_found_and_expected() {
    let stress = "[[stage]]\nname = \"CPUStress\"\n";
    let rows: [(String, Wanted); 14] = [
        (
            "[[stage]]\nname = \"SMART\"\n[stage.cpu_stress]\nduration = \"5s\"".to_owned(),
            (4, "stage[1].cpu_stress", "a table in stage SMART", "in stage CPUStress alone"),
        ),
        (
            format!("[[stage]]\nname = \"Inventory\"\n{stress}deadline = \"69s\""),
            (6, "stage[2].deadline", "\"69s\"", "at least \"70s\", as cpu_stress.duration is \"1m\""),
        ),
        (
            format!("{stress}[stage.cpu_stress]\nduration = \"5m\""),
            (2, "stage[1].deadline", "\"2m\" (the default)", "at least \"310s\""),
        ),
        (
            format!("{stress}[stage.cpu_stress]\nduration = \"10ms\""),
            (5, "stage[1].cpu_stress.duration", "\"10ms\"", "from 1s to 30d"),
        ),
        (
            format!("{stress}[stage.cpu_stress]\nduraton = \"10s\""),
            (5, "stage[1].cpu_stress.duraton", "an unknown key", "is duration meant?"),
        ),
        (
            format!("{stress}cpu_stress = {{ workers = 1.5 }}"),
            (4, "stage[1].cpu_stress.workers", "1.5", "a whole number from 0 to 4096"),
        ),
        (
            format!("{stress}cpu_stress.method = \"--help\""),
            (4, "stage[1].cpu_stress.method", "\"--help\"", "a letter first"),
        ),
        (
            format!("{stress}cpu_stress.rate_min = nan"),
            (4, "stage[1].cpu_stress.rate_min", "nan", "a number from 0 to"),
        ),
        (
            format!("{stress}cpu_stress.throttled_percent_max = 100.5"),
            (4, "stage[1].cpu_stress.throttled_percent_max", "100.5", "a number from 0 to 100"),
        ),
        (
            format!("[[stage]]\nname = \"SpecValidate\"\n{stress}"),
            (5, "stage[2].name", "\"CPUStress\"", "Inventory first, because SpecValidate compares it"),
        ),
        (
            "[[stage]]\nname = \"SpecValidate\"\n[[stage]]\nname = \"Inventory\"".to_owned(),
            (3, "stage[1].name", "\"SpecValidate\"", "SpecValidate after Inventory"),
        ),
        (
            format!("{stress}[expected]\nnic_count = 2"),
            (3, "stage[1].name", "\"CPUStress\"", "Inventory first, because hardware is expected"),
        ),
        (
            format!("[[stage]]\nname = \"Reporting\"\n{stress}"),
            (3, "stage[1].name", "\"Reporting\"", "Reporting as the last stage"),
        ),
        (
            "[[stage]]\nname = \"Reporting\"\nrequire = [\"a\"]".to_owned(),
            (4, "stage[1].require", "required checks in Reporting", "no agent does this stage"),
        ),
    ];
    for (rest, wanted) in rows {
        assert_refused(&with_name(&rest), wanted);
    }
    let none = with_name("[[stage]]\nname = \"Reporting\"");
    assert_refused(&none, (2, "stage", "no stage of an agent's", "a stage that checks something"));
}

#[test]
fn bad_hardware_is_refused_with_line_key_found_and_expected() {
    // The text of each row begins in line 4.
    let rows: [(&str, Wanted); 19] = [
        (
            "[expected.cpu]\ncores = { at_least = 4, at_most = 2 }",
            (5, "expected.cpu.cores.at_least", "4", "at most 2"),
        ),
        (
            "[expected.cpu]\ncores = { at_least = 4 }",
            (5, "expected.cpu.cores.at_most", "nothing", "both at_least and at_most"),
        ),
        (
            "[expected.cpu]\ncores = { least = 4 }",
            (5, "expected.cpu.cores.least", "an unknown key", "at_least, at_most"),
        ),
        (
            "[expected.cpu]\ncores = \"4\"",
            (5, "expected.cpu.cores", "\"4\"", "or { at_least = N, at_most = M }"),
        ),
        ("[expected.cpu]\nmodel = \"\"", (5, "expected.cpu.model", "\"\"", "a text of 1 to 256 bytes")),
        ("[expected.cpu]\nmodel = \"a\\nb\"", (5, "expected.cpu.model", "\"a\\nb\"", "on one line")),
        (
            "[expected.memory]\ntotal_gib = inf",
            (5, "expected.memory.total_gib", "inf", "a number from 0.001"),
        ),
        (
            "[expected.memory]\ntotal_gib = \"64\"",
            (5, "expected.memory.total_gib", "\"64\"", "a number from 0.001"),
        ),
        (
            "[expected.memory]\ntolerance_percent = 101",
            (5, "expected.memory.tolerance_percent", "101", "from 0 to 100"),
        ),
        (
            "[[expected.disk]]\nfirmware = \"1\"",
            (4, "expected.disk[1]", "nothing that says which disk", "serial, wwn, model or size_gb"),
        ),
        (
            "[[expected.disk]]\nserial = \"S\"\n[[expected.disk]]\nserial = \" S\"",
            (7, "expected.disk[2].serial", "\"S\" a second time", "each disk once"),
        ),
        (
            "[[expected.disk]]\nsize = 3",
            (5, "expected.disk[1].size", "an unknown key", "serial, model, size_gb"),
        ),
        ("[expected]\ndisk = \"sda\"", (5, "expected.disk", "\"sda\"", "an array of tables")),
        (
            "[[expected.nic]]\nmac = \"AA:bb:cc:dd:ee:ff\"",
            (5, "expected.nic[1].mac", "\"AA:bb:cc:dd:ee:ff\"", "six pairs of lower-case"),
        ),
        ("[[expected.nic]]", (4, "expected.nic[1]", "nothing that says which interface", "mac, driver")),
        ("[expected.nics]", (4, "expected.nics", "an unknown key", "is nic meant?")),
        (
            "[[write.disks]]\nserial = \"S\"\nsize_gb = 1",
            (4, "write.disks[1].wwn", "nothing", "serial, size_gb and wwn"),
        ),
        (
            "[[write.disks]]\nserial = \"S\"\nwwn = \"w\"",
            (4, "write.disks[1].size_gb", "nothing", "serial, size_gb and wwn"),
        ),
        (
            "[write]\ndisks = [ { serial = \"S\", size_gb = 1, wwn = \"w\" },\n { serial = \"T\", size_gb = 1, wwn = \"w\" } ]",
            (6, "write.disks[2].wwn", "\"w\" a second time", "each disk once"),
        ),
    ];
    for (rest, wanted) in rows {
        assert_refused(&with_name(&format!("[[stage]]\nname = \"Inventory\"\n{rest}")), wanted);
    }
}

#[test]
fn what_is_no_toml_is_refused_with_line_key_found_and_expected() {
    let rows: [(&str, Wanted); 7] = [
        ("stage", (2, "", "the end of the profile", "TOML (key with no value, expected `=`)")),
        ("[[stage]]\nname = \"a", (3, "stage[1].name", "the end of the profile", "TOML (")),
        (
            "[[stage]]\nname = \"SMART\"\n[[stage]]\nname = 5x",
            (5, "stage[2].name", "`5x`", "TOML (string values must be quoted"),
        ),
        ("name = \"q\"", (2, "name", "`name = \"q\"`", "TOML (duplicate key)")),
        ("[limits]\nhold = ", (3, "limits.hold", "the end of the profile", "TOML (")),
        ("[limits", (2, "limits", "the end of the profile", "TOML (")),
        ("[limits]\nhold = \nsilence = \"1m\"", (3, "limits.hold", "the end of the line", "TOML (")),
    ];
    for (rest, wanted) in rows {
        assert_refused(&with_name(rest), wanted);
    }
    assert_refused("name = \"a_b\"", (1, "name", "\"a_b\"", "1 to 63 of a-z"));
    assert_refused("", (1, "name", "nothing", "a profile name"));
}

#[test]
fn what_is_too_much_is_refused() {
    let stages = |count: usize| {
        let stages = (0..count).map(|n| format!("[[stage]]\nname = \"Interrupt:i{n}\"\n"));
        // The limit of stages is said first, and that of interrupts is the same.
        let listed =
            (0..count.min(64)).map(|n| format!("[[interrupt]]\nname = \"i{n}\"\ntype = \"no_op\"\n"));
        stages.chain(listed).collect::<String>()
    };
    assert!(Profile::parse(&with_name(&stages(63))).is_ok());
    assert_refused(
        &with_name(&stages(64)),
        (2, "stage", "65 of them with SpecValidate and Reporting", "at most 64"),
    );
    assert_refused(&with_name(&stages(66)), (130, "stage", "66 of them", "at most 64"));
    let long = format!("name = \"p\"\n#{}", "x".repeat(limits::PROFILE_BYTES_MAX));
    assert_refused(&long, (1, "", "262156 bytes", "a profile of at most 262144 bytes"));
    assert!(Profile::parse(&format!("a = {}", "[".repeat(100_000))).is_err());
}

fn names(profile: &Profile) -> Vec<String> {
    profile.stages.iter().map(|stage| stage.name.to_string()).collect()
}

#[test]
fn a_run_gets_the_stages_that_the_profile_does_not_write() {
    let inventory = "[[stage]]\nname = \"Inventory\"\n[[stage]]\nname = \"SMART\"\n";
    let parse = |rest: &str| Profile::parse(&with_name(&format!("{inventory}{rest}"))).unwrap();
    assert_eq!(names(&parse("")), ["Inventory", "SMART", "Reporting"]);
    let expects = parse("[expected]\ngpu_count = 8");
    assert_eq!(names(&expects), ["Inventory", "SpecValidate", "SMART", "Reporting"]);
    let written = parse("[[stage]]\nname = \"SpecValidate\"\n[[stage]]\nname = \"Reporting\"");
    assert_eq!(names(&written), ["Inventory", "SMART", "SpecValidate", "Reporting"]);
    assert_eq!(names(&Profile::parse(&expects.to_toml()).unwrap()), names(&expects));
}

#[test]
fn values_are_read_as_they_are_written() {
    let profile = Profile::parse(EXAMPLE).unwrap();
    assert_eq!(profile.name.as_str(), "example");
    assert_eq!(profile.at_end, AtEnd::Stay);
    assert_eq!(profile.limits, RunLimits::default());
    let stress = profile.stages.iter().find(|stage| stage.name == Stage::CpuStress).unwrap();
    assert_eq!(stress.deadline, 12 * 60_000);
    assert_eq!(stress.cpu_stress.as_ref().unwrap().duration, 600_000);
    assert_eq!(stress.cpu_stress.as_ref().unwrap().rate_min, Some(50_000.0));
    assert_eq!(profile.expected.cpu.sockets, Some(Count { at_least: 2, at_most: 2 }));
    assert_eq!(profile.expected.disk_count, Some(Count { at_least: 4, at_most: 6 }));
    assert_eq!(profile.expected.disks[0].size_gb, Some(960.0));
    assert_eq!(profile.expected.nics[0].mac.as_deref(), Some("52:54:00:12:34:56"));
    assert_eq!(profile.write.disks.len(), 1);
    assert!(!profile.write.existing_data && !profile.write.shared);
}

#[test]
fn the_shipped_profiles_are_read_and_the_demo_writes_nothing() {
    let demo = Profile::parse(DEMO).unwrap();
    assert_eq!(demo.name.as_str(), "demo");
    assert_eq!(demo.at_end, AtEnd::Stay);
    assert_eq!(demo.write, WriteAllowance::default());
    assert_eq!(names(&demo), ["Inventory", "CPUStress", "Reporting"]);
    for profile in [demo, Profile::parse(EXAMPLE).unwrap()] {
        round_trips(&profile);
    }
}

fn round_trips(profile: &Profile) {
    let json = serde_json::to_string(profile).unwrap();
    assert_eq!(&serde_json::from_str::<Profile>(&json).unwrap(), profile, "{json}");
    let toml = profile.to_toml();
    assert_eq!(&Profile::parse(&toml).unwrap_or_else(|bad| panic!("{bad}\n{toml}")), profile);
}

#[test]
fn the_example_writes_every_key() {
    let written = toml::from_str::<toml::Table>(EXAMPLE).unwrap();
    let whole = toml::from_str::<toml::Table>(&Profile::parse(EXAMPLE).unwrap().to_toml()).unwrap();
    for table in ["limits", "expected", "write"] {
        let keys = |of: &toml::Table| of[table].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&written), keys(&whole), "{table}");
    }
    let keys = |of: &toml::Value| of.as_table().unwrap().keys().cloned().collect::<Vec<_>>();
    for (of, count) in
        [(|of: &toml::Table| of["package"][0].clone(), 8), (|of: &toml::Table| of["interrupt"][0].clone(), 5)]
            as [(fn(&toml::Table) -> toml::Value, usize); 2]
    {
        assert_eq!(keys(&of(&written)), keys(&of(&whole)));
        assert_eq!(keys(&of(&written)).len(), count);
    }
}

const PACKAGE: &str =
    "[[stage]]\nname = \"Package:a/apply\"\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n";

#[test]
fn bad_packages_are_refused_with_line_key_found_and_expected() {
    let long = format!("path = \"/a\"\nenv = {{ A = \"{}\" }}", "x".repeat(24 * 1024));
    for (rest, wanted) in [
        ("sha256 = \"ab\"", (7, "package[1].sha256", "\"ab\"", "64 lower-case")),
        (
            &format!("path = \"/a\"\nsha256 = \"{}\"", "0".repeat(64)),
            (8, "package[1].sha256", "a sum", "none beside path"),
        ),
        ("path = \"a\"", (7, "package[1].path", "\"a\"", "an absolute path")),
        ("path = \"/a/../b\"", (7, "package[1].path", "\"/a/../b\"", "without \"..\"")),
        ("path = \"/a\"\nroot_mount = \"here\"", (8, "package[1].root_mount", "\"here\"", "or \"local\"")),
        (
            "path = \"/a\"\ncopydir = \"/b\"",
            (8, "package[1].copydir", "an unknown key", "is copy_dir meant?"),
        ),
        ("path = \"/a\"\nenv = 3", (8, "package[1].env", "3", "a table")),
        ("path = \"/a\"\nenv.B = 3", (8, "package[1].env.B", "3", "a text without control")),
        (
            "path = \"/a\"\n[package.env]\nSKYHOOK_DATA_DIR = \"/b\"",
            (9, "package[1].env.SKYHOOK_DATA_DIR", "the key \"SKYHOOK_DATA_DIR\"", "which the stage sets"),
        ),
        (
            "path = \"/a\"\n[package.env]\nB = \"1\"\nSKYHOOK_AGENT_TERM_GRACE_S = \"601\"",
            (10, "package[1].env.SKYHOOK_AGENT_TERM_GRACE_S", "\"601\"", "seconds from 0 to 600"),
        ),
        (
            "path = \"/a\"\nenv.SKYHOOK_AGENT_TERM_GRACE_S = \"1m\"",
            (8, "package[1].env.SKYHOOK_AGENT_TERM_GRACE_S", "\"1m\"", "seconds from 0 to 600"),
        ),
        (
            "path = \"/a\"\n[package.config_files]\n\"../b\" = \"\"",
            (9, "package[1].config_files.../b", "the key \"../b\"", "a name of a file"),
        ),
        (long.as_str(), (4, "package[1]", "24577 bytes of env and config_files", "at most 24576 bytes")),
        (
            "path = \"/a\"\n[[package]]\nname = \"a\"\nversion = \"2\"\npath = \"/b\"",
            (9, "package[2].name", "\"a\" a second time", "each package once"),
        ),
    ] {
        assert_refused(&with_name(&format!("{PACKAGE}{rest}")), wanted);
    }
    let underscore = PACKAGE.replace("\"a\"", "\"a_b\"");
    assert_refused(&with_name(&underscore), (5, "package[1].name", "\"a_b\"", "1 to 128 of"));
    let unlisted = format!("{PACKAGE}path = \"/a\"").replace("Package:a/", "Package:b/");
    let wanted = (3, "stage[1].name", "\"Package:b/apply\"", "a [[package]] with the name \"b\"");
    assert_refused(&with_name(&unlisted), wanted);
}

#[test]
fn a_steps_grace_is_taken_up_to_an_hour() {
    for grace in ["", "0", "0.5", "20", "600", "600.0"] {
        let text = format!("{PACKAGE}path = \"/p\"\nenv.SKYHOOK_AGENT_TERM_GRACE_S = \"{grace}\"");
        let profile = Profile::parse(&with_name(&text)).unwrap();
        assert_eq!(profile.packages[0].env["SKYHOOK_AGENT_TERM_GRACE_S"], grace);
    }
}

#[test]
fn a_stage_is_told_with_its_package() {
    let profile = Profile::parse(&with_name(&format!("{PACKAGE}path = \"/p\""))).unwrap();
    let told = profile.settled(&profile.stages[0]).package.unwrap();
    assert_eq!((told.path.as_deref(), told.root_mount.as_str(), told.copy_dir), (Some("/p"), "/", None));
    assert_eq!(profile.stored_packages().count(), 0);
    assert_eq!(profile.settled(&profile.stages[1]).package, None);
    assert_eq!(profile.stages[0].package, None);
}

#[test]
fn a_stored_package_is_told_beside_the_stages() {
    let sum = "ab".repeat(32);
    let profile = Profile::parse(&with_name(&format!("{PACKAGE}sha256 = \"{sum}\""))).unwrap();
    round_trips(&profile);
    assert_eq!(profile.settled(&profile.stages[0]).package, None);
    let told: Vec<_> = profile.stored_packages().collect();
    assert_eq!((told.len(), told[0].sha256.as_ref().unwrap().as_str()), (1, sum.as_str()));
    // As documents have it that were stored before there was anything but folders.
    let before: PackageSettings =
        serde_json::from_str(r#"{"name": "a", "version": "1", "path": "/p"}"#).unwrap();
    assert!(!before.is_stored());
}
