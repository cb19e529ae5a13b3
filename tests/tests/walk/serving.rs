//! How the orchestrator serves: ordered stop, replay of events, who may call what, certificates.

use groundcrew_protocol::ids::TokenText;
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::{CertificateView, EventView};
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server, eventually};
use http::Method;
use serde_json::Value;

use crate::profiles::LOAD;

#[test]
fn a_stop_in_the_middle_of_a_run_is_ordered_and_the_run_goes_on_after_it() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    machine.load.print(100);
    {
        // Somebody who follows the run does not hold up the stop, and sees its end.
        let followed = server.follow(&run, None);
        server.process().signal(rustix::process::Signal::TERM);
        followed.for_each(drop);
    }
    assert_eq!(server.stop().code(), Some(0));
    assert!(!server.data().join("address").exists(), "the address of a server that is gone");
    let last = machine.load.print(100);
    server.start_again(&[]);
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (1, 1));
    server.expect_lines(&run, last);
}

#[test]
fn events_are_replayed_after_the_last_one_seen_also_across_a_restart() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let mut seen: Vec<EventView> = Vec::new();
    {
        let mut followed = server.follow(&run, None);
        while seen.last().is_none_or(|event| event.kind != "stage_started") {
            seen.extend(followed.next_stored());
        }
    }
    server.kill();
    server.start_again(&[]);
    machine.load.fail();
    {
        let mut followed = server.follow(&run, seen.last().map(|event| event.id));
        while seen.last().is_none_or(|event| event.kind != "held") {
            seen.extend(followed.next_stored());
        }
    }
    server.order(&run, "release", "");
    server.kill();
    server.start_again(&[]);
    {
        let mut followed = server.follow(&run, seen.last().map(|event| event.id));
        while seen.last().is_none_or(|event| event.state != State::Cancelled) {
            seen.extend(followed.next_stored());
        }
    }
    let count = seen.len();
    assert_eq!(seen, server.events(&run)[..count]);
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id), "{seen:?}");
}

#[test]
fn no_route_answers_a_stranger() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let document = server.command(&["openapi"]);
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    let (none, unknown) = (server.caller(None), server.caller(Some(TokenText::operator([7; 32]))));
    let (boot, operator) =
        (server.caller(Some(run.token.clone())), server.caller(Some(server.token().clone())));
    let other = server.create_run("n2", LOAD);
    let other = server.caller(Some(other.token));
    let mut tried = 0;
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, what) in methods.as_object().unwrap() {
            let path = template.replace("{run}", run.id.as_str()).replace("{name}", "n1");
            let call = format!("{method} {path}");
            let method: Method = method.to_ascii_uppercase().parse().unwrap();
            let security = what["security"].as_array().cloned().unwrap_or_default();
            let takes = |kind: &str| security.iter().any(|one| one.get(kind).is_some());
            if security.is_empty() {
                assert_eq!((path.as_str(), none.status(method, &path)), ("/healthz", 200));
                continue;
            }
            for stranger in [&none, &unknown, &other] {
                assert_eq!(stranger.status(method.clone(), &path), 401, "{call}");
            }
            if !takes("boot") {
                assert_eq!(boot.status(method.clone(), &path), 401, "{call} with a boot token");
            }
            if !takes("operator") {
                assert_eq!(operator.status(method, &path), 401, "{call} with an operator's token");
            }
            tried += 1;
        }
    }
    assert!(tried > 35, "{tried} routes");
    for page in ["/", &format!("/runs/{}", run.id)] {
        assert_ne!(none.status(Method::GET, page), 200, "{page}");
    }
    assert_eq!(server.view(&run).claim.0, 0);
}

#[test]
fn the_fingerprint_is_told_with_and_without_a_server() {
    let mut server = Server::start();
    let data = server.data().display().to_string();
    let told = |server: &Server| {
        let output = server.command(&["fingerprint", "--data", &data]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(told(&server), server.fingerprint());
    server.stop();
    assert_eq!(told(&server), server.fingerprint());
    let nowhere = server.beside("nowhere").display().to_string();
    let output = server.command(&["fingerprint", "--data", &nowhere]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(server.command(&["serve", "--no-such-flag"]).status.code(), Some(64));
}

/// A certificate is announced for so long before it is served.
const ANNOUNCED_MS: u64 = 2 * limits::SLOW_RETRY_MS;

/// A load for which ten minutes of silence are no matter: they pass at once here.
fn patient_load() -> String {
    LOAD.replacen("name = \"load\"", "name = \"load\"\nlimits.silence = \"1h\"", 1).replacen("10m", "1h", 1)
}

#[test]
fn a_certificate_is_rotated_and_agents_follow() {
    let mut server = Server::start_with_steps_of(ANNOUNCED_MS);
    let run = server.create_run("n1", &patient_load());
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let data = server.data().display().to_string();
    let before = server.fingerprint().to_owned();
    // An agent that is away when the next one is announced is waited for.
    machine.kill();
    assert!(server.command(&["certificate", "rotate", "--data", &data]).status.success());
    let waiting = eventually("the announcement", || {
        let certificate: CertificateView = server.get("/api/v1/certificate");
        (certificate.next.is_some() && !certificate.waiting_for.is_empty()).then_some(certificate)
    });
    assert_eq!(
        (waiting.fingerprint.as_str(), &waiting.waiting_for[..]),
        (before.as_str(), &[run.id.clone()][..])
    );
    let next = waiting.next.unwrap();
    server.pins().replace([before.parse().unwrap(), next.clone()]);
    machine.start();
    machine.load.started();
    // Who is refused may not have heard of it yet, though everybody knows it who was heard.
    eventually("nobody who was heard and does not know it", || {
        let certificate: CertificateView = server.get("/api/v1/certificate");
        assert_eq!(
            (certificate.fingerprint.as_str(), certificate.earliest_in_s),
            (before.as_str(), Some(600))
        );
        certificate.waiting_for.is_empty().then_some(())
    });
    server.pass_time();
    eventually("the next certificate", || {
        let certificate: CertificateView = server.get("/api/v1/certificate");
        (certificate.fingerprint == next).then_some(())
    });
    // Both sides start anew: the agent was given only the first certificate, and has stored the second.
    server.start_again(&[]);
    machine.kill();
    machine.start();
    machine.load.started();
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (3, 3));
    let told = server.command(&["fingerprint", "--data", &data]);
    assert_eq!(String::from_utf8(told.stdout).unwrap().trim(), next.as_str());
}

#[test]
fn an_agent_that_only_hears_refusals_learns_the_next_certificate() {
    let server = Server::start_with_steps_of(ANNOUNCED_MS);
    let run = server.create_run("n1", &patient_load());
    let mut original = Machine::started(&server, &run, "original");
    original.load.started();
    original.kill();
    let mut copy = Machine::new(&server, &run, "copy");
    copy.clone_home_of(&original);
    original.start();
    original.load.started();
    server.wait_for(&run, "a heartbeat under the second claim", |view| !view.activity.is_empty());
    // It has no claim, so that nobody answers a heartbeat of its, and it has said hello.
    copy.start();
    copy.agent().wait_for_line("waits: ");
    let data = server.data().display().to_string();
    assert!(server.command(&["certificate", "rotate", "--data", &data]).status.success());
    let certificate: CertificateView = server.get("/api/v1/certificate");
    let (before, next) = (certificate.fingerprint, certificate.next.unwrap());
    server.pins().replace([before.clone(), next.clone()]);
    // Everybody knows it who is asked, at once, and still it is not served: the one that waits was not asked.
    eventually("the next certificate in the home of the agent that waits", || {
        let known = std::fs::read_to_string(copy.home().join("run.json")).unwrap();
        let known: Value = serde_json::from_str(&known).unwrap();
        known["pins"].as_array().unwrap().contains(&next.as_str().into()).then_some(())
    });
    let certificate: CertificateView = server.get("/api/v1/certificate");
    assert_eq!((certificate.fingerprint, certificate.waiting_for), (before, Vec::new()));
    assert_eq!(copy.agent().count_of("the run stands at"), 0, "it was told so by refusals alone");
    assert!(copy.load.is_quiet());
    // And it is not locked out: once the holder is gone, it has the claim, over the next certificate.
    server.pass_time();
    eventually("the next certificate", || {
        let certificate: CertificateView = server.get("/api/v1/certificate");
        (certificate.fingerprint == next).then_some(())
    });
    original.kill();
    server.pass_time();
    copy.load.started();
    copy.load.pass();
    server.wait_for_state(&run, State::Completed);
}
