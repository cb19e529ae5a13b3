//! A package's `config.json`: what is taken keeps to the rules, what is refused is named in one line.

use std::path::Path;

use groundcrew_agent::package::config::{Config, Mode, Step};

const FILE: &str = "/copy/config.json";

/// Tries one input.
pub fn check(bytes: &[u8]) {
    let parsed = Config::parse(Path::new(FILE), bytes);
    assert_eq!(parsed, Config::parse(Path::new(FILE), bytes), "the same bytes were read in two ways");
    match parsed {
        Ok(config) => taken(&config),
        Err(refused) => {
            let line = refused.to_string();
            assert!(line.starts_with(&format!("{FILE}: $")), "neither file nor place: {line}");
            assert!(!line.contains('\n'), "more than one line: {line:?}");
        }
    }
}

fn taken(config: &Config) {
    let name = &config.package_name;
    assert!(
        !name.contains('/') && name != ".." && name != "." && name.len() < 255,
        "{name:?} names no folder"
    );
    assert!(config.modes.iter().any(|(_, steps)| !steps.is_empty()), "a config without a step was taken");
    for (mode, steps) in &config.modes {
        assert_eq!(config.steps(*mode), steps, "{mode} is listed twice");
        steps.iter().for_each(|step| step_taken(*mode, step));
    }
    let steps = config.modes.iter().map(|(_, steps)| steps.len()).sum::<usize>();
    assert!(config.check_files(Path::new(FILE), |_| true).is_ok());
    let missing = config.check_files(Path::new(FILE), |_| false);
    assert!(missing.is_err(), "{steps} steps, none of whose files is there, and nobody says so");
    assert!(config.missing_checks().iter().all(|line| !line.contains('\n')));
}

fn step_taken(mode: Mode, step: &Step) {
    assert!(!step.returncodes.is_empty(), "nothing that {} ends with would count as success", step.path);
    let below = step.path.split('/').try_fold(0_u32, |depth, part| match part {
        "" | "." => Some(depth),
        ".." => depth.checked_sub(1),
        _name => Some(depth + 1),
    });
    assert!(below.is_some_and(|depth| depth > 0), "{:?} leaves the step folder", step.path);
    let given = |text: &str| assert!(!text.contains('\0'), "no process can be given {text:?}");
    step.arguments.iter().for_each(|argument| given(argument));
    step.env.iter().for_each(|(name, value)| {
        given(value);
        assert!(!name.is_empty() && !name.contains(['=', '\0']), "{name:?} names no variable");
    });
    assert!(!step.header(mode, &step.arguments).contains('\n'), "a header of two lines");
}
