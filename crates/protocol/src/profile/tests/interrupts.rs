//! Interrupts of a profile, and what an agent is told of a stage.

use super::*;

const INTERRUPT: &str = "[[stage]]\nname = \"Interrupt:a\"\n[[interrupt]]\nname = \"a\"\n";

#[test]
fn bad_interrupts_are_refused_with_line_key_found_and_expected() {
    for (rest, wanted) in [
        ("", (4, "interrupt[1].type", "nothing", "one of no_op, node_restart")),
        ("type = \"node_reboot\"", (6, "interrupt[1].type", "\"node_reboot\"", "is node_restart meant?")),
        ("type = \"service_restart\"", (4, "interrupt[1].services", "nothing", "the units that")),
        (
            "type = \"service_restart\"\nservices = []",
            (7, "interrupt[1].services", "an array of 0", "at least one unit"),
        ),
        (
            "type = \"service_restart\"\nservices = [\"--now\"]",
            (7, "interrupt[1].services[1]", "\"--now\"", "a name of a unit"),
        ),
        (
            "type = \"node_restart\"\nservices = [\"a\"]",
            (7, "interrupt[1].services", "services of a node_restart", "none but with"),
        ),
        ("type = \"no_op\"\ndrain = \"yes\"", (7, "interrupt[1].drain", "\"yes\"", "true or false")),
        (
            "type = \"no_op\"\nroot_mount = \"here\"",
            (7, "interrupt[1].root_mount", "\"here\"", "or \"local\""),
        ),
        (
            "type = \"no_op\"\n[[interrupt]]\nname = \"a\"\ntype = \"no_op\"",
            (8, "interrupt[2].name", "\"a\" a second time", "each interrupt once"),
        ),
    ] {
        assert_refused(&with_name(&format!("{INTERRUPT}{rest}")), wanted);
    }
    let lacks = "[[stage]]\nname = \"Interrupt:a\"";
    let wanted = (3, "stage[1].name", "\"Interrupt:a\"", "an [[interrupt]] with the name \"a\"");
    assert_refused(&with_name(lacks), wanted);
    let lacks = format!("{PACKAGE}path = \"/a\"").replace("/apply", "/interrupt");
    let wanted =
        (3, "stage[1].name", "\"Package:a/interrupt\"", "a [package.interrupt] of the package \"a\"");
    assert_refused(&with_name(&lacks), wanted);
}

#[test]
fn a_stage_is_told_with_its_interrupt() {
    let told = |text: &str| {
        let profile = Profile::parse(&with_name(text)).unwrap();
        round_trips(&profile);
        let told = profile.settled(&profile.stages[0]);
        (told.deadline, told.interrupt.unwrap())
    };
    let (deadline, reboot) = told(&format!("{INTERRUPT}type = \"node_restart\"\nroot_mount = \"local\""));
    assert_eq!(
        (reboot.name.as_str(), reboot.kind, &*reboot.root_mount),
        ("a", InterruptKind::NodeRestart, "local")
    );
    assert_eq!(
        (deadline, reboot.reboot_ms),
        (limits::INTERRUPT_DEADLINE_MS, Some(limits::REBOOT_DEADLINE_MS))
    );
    let (_, slow) = told(&format!("limits.reboot = \"2h\"\n{INTERRUPT}type = \"node_restart\""));
    assert_eq!(slow.reboot_ms, Some(7_200_000));
    assert_eq!(told(&format!("{INTERRUPT}type = \"no_op\"")).1.reboot_ms, None);
    let package = PACKAGE.replace("/apply", "/interrupt");
    let text = format!(
        "{package}path = \"/p\"\nroot_mount = \"/host\"\n[package.interrupt]\ntype = \"service_restart\"\n\
         services = [\"b.service\", \"a\"]"
    );
    let (deadline, restart) = told(&text);
    assert_eq!((restart.name.as_str(), &*restart.root_mount), ("a", "/host"));
    assert_eq!(
        (restart.kind, restart.services),
        (InterruptKind::ServiceRestart, vec!["b.service".into(), "a".into()])
    );
    assert_eq!(deadline, limits::INTERRUPT_DEADLINE_MS);
}

/// An agent that is older than its orchestrator must not lose its run over a setting that it does not know.
#[test]
fn a_stage_with_a_field_of_a_newer_orchestrator_is_read() {
    let mut stage = serde_json::to_value(StageSpec::of("CPUStress".into())).unwrap();
    stage["later"] = serde_json::json!({"a": 1});
    stage["cpu_stress"] = serde_json::json!({"later": true});
    stage["package"] = serde_json::json!({"name": "a", "version": "1", "path": "/a", "later": 2});
    let read: StageSpec = serde_json::from_value(stage).unwrap();
    assert_eq!(read.cpu_stress, Some(CpuStressSettings::default()));
    assert!(serde_json::from_str::<ExpectedDisk>("{\"later\": 1}").is_ok());
}

#[test]
fn a_drain_before_an_interrupt_is_told_with_the_stage_and_kept_in_the_text() {
    for (rest, drains) in [("", false), ("drain = false\n", false), ("drain = true\n", true)] {
        let text = with_name(&format!("{INTERRUPT}type = \"no_op\"\n{rest}"));
        let profile = Profile::parse(&text).unwrap();
        assert_eq!(profile.interrupts[0].drain, drains, "{rest}");
        assert_eq!(profile.to_toml().contains("drain"), drains, "{rest}");
        assert_eq!(Profile::parse(&profile.to_toml()).unwrap(), profile);
    }
}
