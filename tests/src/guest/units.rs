//! Units of a guest's systemd: what must live and die as a service does, and what it leaves.

use super::Guest;
use crate::harness::eventually;

/// Where a unit leaves its output and its end, as `xtask/src/guest/unit-ended.sh` has it too.
const LEFT_IN: &str = "/var/lib/guest";

/// A service for this boot, made by systemd-run.
#[derive(Debug, Clone)]
pub struct Unit {
    name: String,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    properties: Vec<String>,
}

impl Unit {
    /// A service of that name, without `.service`, that runs this.
    pub fn new(name: &str, argv: &[&str]) -> Unit {
        let argv = argv.iter().map(ToString::to_string).collect();
        Unit { name: name.to_owned(), argv, env: Vec::new(), properties: Vec::new() }
    }

    /// Gives it a variable.
    pub fn env(mut self, name: &str, value: &str) -> Unit {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a property, as `TimeoutStopSec=5`.
    pub fn property(mut self, property: &str) -> Unit {
        self.properties.push(property.to_owned());
        self
    }
}

/// How a unit ended, in systemd's words: `success exited 0`, `exit-code exited 1`, `signal killed TERM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitEnd {
    /// `SERVICE_RESULT`.
    pub result: String,
    /// `EXIT_CODE`: `exited`, `killed`, `dumped`, or `none` where nothing was started.
    pub code: String,
    /// `EXIT_STATUS`: a number, or a signal's name.
    pub status: String,
}

impl Guest {
    /// Starts a unit; once this returns, its program runs. What an earlier one of that name has left is removed.
    pub fn start_unit(&self, unit: &Unit) {
        let left = |what: &str| format!("{LEFT_IN}/{}.{what}", unit.name);
        self.ok(&["rm", "-f", &left("end"), &left("out"), &left("err")]);
        let mut argv: Vec<String> =
            ["systemd-run", "--quiet", "--collect", "--service-type=exec"].map(String::from).into();
        argv.push(format!("--unit={}", unit.name));
        argv.push(format!("--property=ExecStopPost=/usr/local/sbin/unit-ended {}", unit.name));
        argv.push(format!("--property=StandardOutput=append:{}", left("out")));
        argv.push(format!("--property=StandardError=append:{}", left("err")));
        argv.extend(unit.properties.iter().map(|property| format!("--property={property}")));
        argv.extend(unit.env.iter().map(|(name, value)| format!("--setenv={name}={value}")));
        argv.push("--".to_owned());
        argv.extend(unit.argv.iter().cloned());
        self.ok(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// How a unit that [`start_unit`](Self::start_unit) started has ended, be it boots ago; nothing where it has not.
    pub fn unit_end(&self, name: &str) -> Option<UnitEnd> {
        let text = self.read(&format!("{LEFT_IN}/{name}.end"))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let [result, code, status] = words[..] else { panic!("{name} ended with {text:?}") };
        Some(UnitEnd { result: result.to_owned(), code: code.to_owned(), status: status.to_owned() })
    }

    /// Waits for the end of a unit. The guest must not be on its way down meanwhile.
    pub fn wait_for_unit_end(&self, name: &str) -> UnitEnd {
        eventually(&format!("the end of {name}"), || self.unit_end(name))
    }

    /// What a unit has printed so far: standard output and standard error.
    pub fn unit_output(&self, name: &str) -> (String, String) {
        let read = |what| self.read(&format!("{LEFT_IN}/{name}.{what}")).unwrap_or_default();
        (read("out"), read("err"))
    }

    /// A unit's `ActiveState`: `active`, `inactive`, `failed`, `activating`, `deactivating`.
    pub fn unit_state(&self, unit: &str) -> String {
        self.ok(&["systemctl", "show", "--property=ActiveState", "--value", unit]).trim().to_owned()
    }

    /// Waits until a unit is in that state.
    pub fn wait_for_unit_state(&self, unit: &str, state: &str) {
        eventually(&format!("{unit} {state}"), || (self.unit_state(unit) == state).then_some(()));
    }
}
