//! Raw output of tools on its way to the orchestrator.

use bytes::Bytes;
use groundcrew_protocol::ids::{Sha256Hex, TokenText};
use groundcrew_protocol::operator::ArtifactView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::agent_path;
use groundcrew_tests::harness::{Machine, Run, Server, eventually};

use crate::drains::ctl;
use crate::profiles::LOAD;

/// The artifacts of a run, once there are so many.
fn arrived(server: &Server, run: &Run, count: usize) -> Vec<ArtifactView> {
    eventually("the artifacts", || {
        let views: Vec<ArtifactView> = server.get(&format!("/api/v1/runs/{}/artifacts", run.id));
        (views.len() >= count).then_some(views)
    })
}

/// What goes to a vendor: everything, and `sha256sum` finds it whole.
#[test]
fn a_bundle_holds_all_that_is_known_of_a_run() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    arrived(&server, &run, 2);
    // Lines wait for company before they are sent.
    let logs = format!("/api/v1/runs/{}/logs?stage=CPUStress", run.id);
    eventually("the log", || server.text(&logs).contains("\"text\"").then_some(()));
    let path = server.beside("bundle.tar.gz");
    ctl(&server, &["run", "report", run.id.as_str(), "--bundle", path.to_str().unwrap()]);
    let folder = server.beside("unpacked");
    std::fs::create_dir(&folder).unwrap();
    let done = |program: &str, arguments: &[&std::ffi::OsStr], place: &std::path::Path| {
        let status = std::process::Command::new(program).args(arguments).current_dir(place).status();
        assert!(status.expect("it is installed").success(), "{program} {arguments:?}");
    };
    done("tar", &["-xzf".as_ref(), path.as_os_str()], &folder);
    let top = folder.join(format!("groundcrew-{}", run.id));
    done("sha256sum", &["-c".as_ref(), "--strict".as_ref(), "SHA256SUMS".as_ref()], &top);
    let text = |name: &str| std::fs::read_to_string(top.join(name)).unwrap();
    assert!(text("report.html").contains(run.id.as_str()));
    let report: serde_json::Value = serde_json::from_str(&text("report.json")).unwrap();
    assert_eq!(report["run"], run.id.as_str());
    assert!(text("log.txt").contains("CPUStress"), "{}", text("log.txt"));
    assert!(text("artifacts/CPUStress-1/stress-ng.yaml").contains("bogo-ops: "));
    assert_eq!(text("SHA256SUMS").lines().count(), 5);
}

/// Files of artifacts that a machine still has.
fn kept(machine: &Machine) -> usize {
    std::fs::read_dir(machine.home().join("artifacts")).map_or(0, Iterator::count)
}

#[test]
fn what_a_tool_wrote_arrives_though_both_sides_were_killed_in_between() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    server.kill();
    machine.load.pass();
    // Artifacts are kept before the outcome is, and nobody is there to take either.
    machine.agent().wait_for_line("the outcome is kept");
    machine.kill();
    assert!(kept(&machine) > 0, "nothing waits for the next agent");
    server.start_again(&[]);
    machine.start();
    server.wait_for_state(&run, State::Completed);
    let views = arrived(&server, &run, 2);
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["stress-ng.stderr", "stress-ng.yaml"]);
    for view in &views {
        assert_eq!((&view.stage, view.attempt.0), (&Stage::CpuStress, 1), "{view:?}");
        let path = format!("/api/v1/runs/{}/artifact?stage=CPUStress&attempt=1&name={}", run.id, view.name);
        let content = server.text(&path);
        assert_eq!(
            (Sha256Hex::of(content.as_bytes()), content.len() as u64),
            (view.sha256.clone(), view.bytes)
        );
        assert_eq!(content.contains("bogo-ops: "), view.name == "stress-ng.yaml", "{content}");
    }
    // What was acknowledged is gone from the machine.
    eventually("an empty folder", || (kept(&machine) == 0).then_some(()));
    assert!(machine.load.is_quiet(), "the load was started again");
}

#[test]
fn content_that_is_not_what_its_hash_says_is_refused_and_nothing_of_it_stays() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let memory = std::fs::read(machine.home().join("run.json")).unwrap();
    let memory: serde_json::Value = serde_json::from_slice(&memory).unwrap();
    let token: TokenText = memory["token"].as_str().unwrap().parse().unwrap();
    let agent = server.caller(Some(token));
    let put = |content: &'static [u8], named: &[u8]| {
        let sha256 = Sha256Hex::of(named);
        let call = format!("artifact?stage=CPUStress&attempt=1&name=dump&sha256={sha256}");
        agent.put(&agent_path(&run.id, &call), Bytes::from_static(content))
    };
    let refused = put(b"torn", b"whole").unwrap_err();
    assert_eq!(refused.status(), Some(422), "{}", refused.chain());
    assert!(refused.chain().contains("was announced as"), "{}", refused.chain());
    assert!(arrived(&server, &run, 0).is_empty());
    // The name is not taken by what was refused.
    put(b"whole", b"whole").unwrap();
    assert_eq!(put(b"other", b"other").unwrap_err().status(), Some(409));
    let views = arrived(&server, &run, 1);
    assert_eq!((views.len(), &views[0].sha256), (1, &Sha256Hex::of(b"whole")));
}
