//! SIGKILL and SIGTERM at every moment of an interrupt that is no reboot, and calls that finish it. Those of reboots are in
//! `every_moment_of_reboots`.
//!
//! A command's flag stands before the command runs, as the reference's does. So the one that was about to run when the agent
//! was killed counts as done, whether it ran or not; every other runs exactly once, and none twice.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::place::{COPY_DIR, Call, Outcome, Place, RESOURCE_ID, names};
use crate::tracer::{self, At, Traced};

/// An interrupt, and what it makes of a machine.
#[derive(Clone, Copy)]
struct Of {
    /// What it is called, which its flags begin with.
    kind: &'static str,
    services: &'static [&'static str],
    /// Its commands, each as it is noted among the effects.
    commands: &'static [&'static str],
    /// Its flags, in the order in which they are set: each command has one.
    flags: &'static [&'static str],
    /// A call makes more system calls that change something than this: with fewer, the tracer sees too little.
    stops_min: usize,
}

const SERVICE_RESTART: Of = Of {
    kind: "service_restart",
    services: &["one", "two"],
    commands: &["systemctl daemon-reload", "systemctl restart one", "systemctl restart two"],
    flags: &["service_restart_0.complete", "service_restart_1.complete", "service_restart_2.complete"],
    stops_min: 60,
};
const RESTART_ALL_SERVICES: Of = Of {
    kind: "restart_all_services",
    services: &[],
    commands: &["service procps force-reload"],
    flags: &["restart_all_services_0.complete"],
    stops_min: 30,
};
/// It has no command, and so no flag.
const SCRIPT_INTERRUPT: Of =
    Of { kind: "script_interrupt", services: &[], commands: &[], flags: &[], stops_min: 5 };
/// It has a flag, and no command.
const NO_OP: Of =
    Of { kind: "no_op", services: &[], commands: &[], flags: &["no_op.complete"], stops_min: 10 };

/// A machine whose services only note that they are called for.
struct Machine {
    of: Of,
    place: Place,
}

impl Machine {
    fn new(of: Of) -> Machine {
        let place = Place::new();
        place.package(&[("a.sh", "exit 0")]);
        for name in ["systemctl", "service"] {
            place
                .write_program(name, &format!("echo {name} \"$*\" >>/effects/log; echo said; echo said >&2"));
        }
        Machine { of, place }
    }

    fn call(&self) -> Call {
        let interrupt: Value = if self.of.services.is_empty() {
            json!({ "type": self.of.kind })
        } else {
            json!({ "type": self.of.kind, "services": self.of.services })
        };
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, interrupt.to_string());
        let root = self.place.root();
        self.place.call_with(&["interrupt", root.to_str().unwrap(), COPY_DIR, &data])
    }

    fn traced(&self, stop: usize, what: At) -> Traced {
        tracer::run_unheard(self.call(), stop, what)
    }

    fn flags(&self) -> PathBuf {
        self.place.at(&format!("etc/skyhook/interrupts/flags/{RESOURCE_ID}"))
    }

    /// The flags that are set, each of which is whole.
    #[track_caller]
    fn flagged(&self, moment: &str) -> Vec<String> {
        let is_flag = |name: &String| !name.starts_with('.');
        let flagged: Vec<String> = names(&self.flags()).into_iter().filter(is_flag).collect();
        for flag in &flagged {
            let text = fs::read_to_string(self.flags().join(flag)).unwrap();
            assert!(text.parse::<f64>().is_ok_and(|at| at > 1e9), "{moment}: {flag} holds {text:?}");
        }
        assert_eq!(flagged, self.of.flags[..flagged.len()], "{moment}");
        flagged
    }

    /// How often each command ran.
    #[track_caller]
    fn times(&self, moment: &str) -> Vec<usize> {
        let effects = self.place.effects();
        let known = effects.keys().all(|effect| self.of.commands.contains(&effect.as_str()));
        assert!(known, "{moment}: {effects:?}");
        self.of.commands.iter().map(|command| effects.get(*command).copied().unwrap_or_default()).collect()
    }

    /// What a call that finds everything done says and leaves.
    #[track_caller]
    fn is_done(&self, moment: &str) {
        let again = self.call().succeed();
        assert_eq!(skipped(&again), self.of.commands.len(), "{moment}: {again:#?}");
        assert_eq!(self.flagged(moment), self.of.flags, "{moment}");
        assert_eq!(self.place.leftovers(), Vec::<PathBuf>::new(), "{moment}");
    }
}

fn skipped(outcome: &Outcome) -> usize {
    outcome.stdout.matches("Skipping interrupt ").count()
}

fn at_every_moment(of: Of, what: At, judge: impl Fn(&Machine, &Traced, &str)) {
    let whole = Machine::new(of).traced(usize::MAX, At::Nothing);
    assert_eq!(whole.exit, 0);
    assert!(whole.stops > of.stops_min, "{} moments: the tracer sees too little", whole.stops);
    for stop in 0..whole.stops {
        let machine = Machine::new(of);
        let traced = machine.traced(stop, what);
        let moment = format!("{}, moment {stop}, before system call {:?}", of.kind, traced.at);
        judge(&machine, &traced, &moment);
    }
}

fn killed(of: Of) {
    let lost = std::cell::Cell::new(0);
    at_every_moment(of, At::Kill, |machine, killed, moment| {
        // A command whose end the agent waits for may end sooner or later, and with it the call has more moments or fewer.
        if killed.at.is_some() {
            assert_eq!(killed.exit, -9, "{moment}");
        }
        let flagged = machine.flagged(moment).len();
        let second = machine.call().succeed();
        // An interrupt without commands says nothing of what it skips.
        assert_eq!(skipped(&second), flagged.min(of.commands.len()), "{moment}: {second:#?}");
        machine.is_done(moment);
        for (index, times) in machine.times(moment).into_iter().enumerate() {
            // Of the one that was flagged last, nobody can tell whether it ran: its process may outlive the agent, and this look.
            let last = index + 1 == flagged;
            assert!(times == 1 || (last && times == 0), "{moment}: command {index} ran {times} times");
            lost.set(lost.get() + usize::from(times == 0));
        }
        if flagged > 0 && !of.commands.is_empty() {
            // What an operator does about it: the flag goes, and the command runs.
            let (last, before) = (flagged - 1, machine.times(moment));
            fs::remove_file(machine.flags().join(of.flags[last])).unwrap();
            machine.call().succeed();
            assert!(machine.times(moment)[last] > before[last], "{moment}");
        }
    });
    // Before it is started, at the least.
    assert_eq!(lost.get() > 0, !of.commands.is_empty(), "{} were lost", lost.get());
}

fn asked_to_end(of: Of) {
    at_every_moment(of, At::Terminate, |machine, asked, moment| {
        let (flagged, times) = (machine.flagged(moment).len(), machine.times(moment));
        match asked.exit {
            0 => assert_eq!(flagged, of.flags.len(), "{moment}"),
            1 => assert!(flagged < of.flags.len(), "{moment}"),
            // Before it has said what is to become of the signal.
            -15 => assert_eq!(flagged, 0, "{moment}"),
            other => panic!("{moment}: it ended with {other}"),
        }
        // The command that ran was waited for: what is flagged has run once, and nothing else has begun.
        for (index, times) in times.iter().enumerate() {
            assert_eq!(*times, usize::from(index < flagged), "{moment}: command {index}");
        }
        if asked.exit >= 0 {
            assert_eq!(machine.place.leftovers(), Vec::<PathBuf>::new(), "{moment}");
        }
        let second = machine.call().succeed();
        assert_eq!(skipped(&second), flagged.min(of.commands.len()), "{moment}: {second:#?}");
        machine.is_done(moment);
        assert_eq!(machine.times(moment), vec![1; of.commands.len()], "{moment}");
    });
}

/// A test for each interrupt and each of the two signals, so that they run side by side.
macro_rules! every_moment {
    ($($test:ident: $judge:ident($of:ident);)*) => {
        $(
            #[test]
            fn $test() {
                $judge($of);
            }
        )*
    };
}

every_moment! {
    service_restart_that_is_killed_runs_no_command_twice: killed(SERVICE_RESTART);
    service_restart_that_is_asked_to_end_goes_on: asked_to_end(SERVICE_RESTART);
    restart_all_services_that_is_killed_runs_no_command_twice: killed(RESTART_ALL_SERVICES);
    restart_all_services_that_is_asked_to_end_goes_on: asked_to_end(RESTART_ALL_SERVICES);
    script_interrupt_that_is_killed_has_nothing_to_lose: killed(SCRIPT_INTERRUPT);
    script_interrupt_that_is_asked_to_end_has_nothing_to_leave: asked_to_end(SCRIPT_INTERRUPT);
    no_op_that_is_killed_is_flagged_by_the_next: killed(NO_OP);
    no_op_that_is_asked_to_end_is_flagged_by_the_next: asked_to_end(NO_OP);
}
