//! A package from the orchestrator's store to a stage that passes: fetched by the agent, through kills of either side, and
//! not taken where it is another one, leads out, or finds no room.

use std::path::{Path, PathBuf};
use std::process::Command;

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::operator::RunView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Gate, Machine, Run, Server, eventually, in_own_mounts, mount};

use crate::packages::{STAGE, expect_line, ground, profile_of};
use crate::stored_packages::{ctl, pack_with_noise, refusal, said};

/// Puts the package of the walks into the store. The root that it passes in, and the sum of its archive.
fn stored(server: &Server) -> (PathBuf, Sha256Hex) {
    let (root, package) = ground(server);
    std::fs::write(root.join("mended"), "").unwrap();
    let archive = server.beside("tuning.tgz");
    pack_with_noise(&package, &archive);
    // From now on there is only the store's.
    std::fs::remove_dir_all(package).unwrap();
    said(&ctl(server, &["package", "put", "tuning", "1.0.0", archive.to_str().unwrap()]));
    (root, Sha256Hex::of(&std::fs::read(archive).unwrap()))
}

fn lines(server: &Server, run: &Run) -> Vec<String> {
    server.log(run, Some(&Stage::from(STAGE)))
}

/// What is kept of the package in an agent's home.
fn kept(machine: &Machine) -> Vec<String> {
    let folder = machine.home().join("packages/tuning/1.0.0");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The outcomes in an agent's home, taken by the orchestrator or not. One that is written has another name.
fn outcomes(machine: &Machine) -> Vec<PathBuf> {
    let folders = ["outbox", "kept"].map(|name| machine.home().join(name));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

/// Waits for the run to be held for a package that did not come, and for what it says.
#[track_caller]
fn held(server: &Server, run: &Run, parts: &[&str]) -> RunView {
    let held = server.wait_for_state(run, State::FailedHolding);
    assert_eq!(held.stages[0].verdict, Some(Verdict::Inconclusive), "{}", held.summary.reason);
    for part in parts {
        assert!(held.summary.reason.contains(part), "{part}: {}", held.summary.reason);
    }
    held
}

#[test]
fn a_stored_package_is_fetched_once_and_applied_with_its_env_and_config_files() {
    let mut server = Server::start();
    let (root, sum) = stored(&server);
    let run = server.create_run("n1", &profile_of(&root, ""));
    let is_refused = |server: &Server| {
        let refused = refusal(&ctl(server, &["package", "delete", "tuning", "1.0.0"]));
        assert!(refused.contains(run.id.as_str()) && refused.contains("has not ended"), "{refused}");
    };
    is_refused(&server);
    // As if the version before had made the run, which kept what it uses in its document alone.
    assert!(server.stop().success());
    change_database(
        &server,
        "DROP TABLE run_packages; DELETE FROM meta WHERE key = 'run_packages';
         ALTER TABLE results DROP COLUMN packed;
         DROP INDEX runs_owing; ALTER TABLE runs DROP COLUMN owes_notices;
         DELETE FROM _sqlx_migrations WHERE version >= 6",
    );
    server.start_again(&[]);
    is_refused(&server);
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    machine.start();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.stages[0].attempts, view.stages[1].attempts), (1, 1));
    let fetches = format!("fetches package tuning 1.0.0, SHA-256 {sum}");
    for part in [&fetches, "is unpacked: ", "one is here, first, high", "two reads seven"] {
        expect_line(&server, &run, part);
    }
    let all = server.log(&run, None);
    let fetched = all.iter().filter(|line| line.contains("fetches package")).count();
    assert_eq!(fetched, 1, "the second stage fetched it again");
    assert!(all.iter().any(|line| line.contains("is here already")), "{all:#?}");
    // A try that goes on says how much has come as well, in the middle of its line.
    let tenths = all.iter().filter(|line| line.ends_with(" bytes has come")).count();
    assert_eq!(tenths, 10, "every tenth is said once");
    assert_eq!(kept(&machine), [format!("package-{sum}")]);
    assert!(machine.stop().success());
    said(&ctl(&server, &["package", "delete", "tuning", "1.0.0"]));
}

#[test]
fn a_download_goes_on_where_it_stopped_when_either_side_was_killed() {
    let mut server = Server::start();
    let (root, sum) = stored(&server);
    let run = server.create_run("n1", &profile_of(&root, ""));
    let gate = Gate::before(&server, 2_000_000);
    let mut machine = Machine::new(&server, &run, "m1").with_packages().with_url(gate.url());
    machine.start();
    gate.wait_held();
    machine.agent().wait_for_line(" bytes has come");
    machine.kill();
    assert_eq!(kept(&machine), [format!("fetched-{sum}")]);
    gate.cut(1_000_000);
    machine.start();
    gate.wait_held();
    machine.agent().wait_for_line(" bytes has come");
    server.kill();
    gate.cut(u64::MAX);
    server.start_again(&[]);
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].attempts, 2, "the agent was killed once, and the server's end counts for none");
    expect_line(&server, &run, "is unpacked: ");
    let behind = lines(&server, &run);
    let behind = behind.iter().filter_map(|line| line.split("goes on behind the first ").nth(1));
    let behind: Vec<u64> = behind.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect();
    // Once after each end; a machine that stalls may break the connection once more.
    assert!(behind.len() >= 2 && behind[0] > 0 && behind.is_sorted(), "{:#?}", lines(&server, &run));
    assert!(behind[behind.len() - 1] > behind[0], "{behind:?}");
    assert_eq!(kept(&machine), [format!("package-{sum}")]);
    assert!(machine.stop().success());
}

#[test]
fn a_server_with_another_certificate_gives_nothing_of_a_package_and_is_told_nothing() {
    let (server, other) = (Server::start(), Server::start());
    let (root, sum) = stored(&server);
    let run = server.create_run("n1", &profile_of(&root, ""));
    let gate = Gate::before(&server, 2_000_000);
    let mut machine = Machine::new(&server, &run, "m1").with_packages().with_url(gate.url());
    machine.start();
    gate.wait_held();
    machine.agent().wait_for_line(" bytes has come");
    // The connection breaks, and the next one leads to somebody else.
    gate.lead_to(&other);
    gate.cut(u64::MAX);
    let said = machine.agent().wait_for_line("the orchestrator does not give it");
    for part in ["fetching package tuning 1.0.0: ", other.fingerprint(), server.fingerprint()] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Whatever else of the agent's met the other one asks again in five minutes, and an agent that is started asks at once.
    eventually("an outcome that outlives the agent", || (!outcomes(&machine).is_empty()).then_some(()));
    machine.kill();
    gate.lead_to(&server);
    machine.start();
    held(&server, &run, &["the orchestrator does not give it", other.fingerprint()]);
    assert!(!root.join("one-ran").exists());
    // What came from the right one is kept, and gone on with.
    assert_eq!(kept(&machine), [format!("fetched-{sum}")]);
    server.order(&run, "retry", "");
    server.wait_for_state(&run, State::Completed);
    expect_line(&server, &run, "goes on behind the first ");
    assert_eq!(kept(&machine), [format!("package-{sum}")]);
    assert!(machine.stop().success());
}

#[test]
fn another_content_than_the_run_has_frozen_is_not_taken() {
    let server = Server::start();
    let (root, sum) = stored(&server);
    let run = server.create_run("n1", &profile_of(&root, ""));
    let file = server.data().join("packages").join(sum.as_str());
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    machine.start();
    held(&server, &run, &["found an archive with SHA-256", Sha256Hex::of(&bad).as_str(), sum.as_str()]);
    assert_eq!(kept(&machine), Vec::<String>::new());
    assert!(!root.join("one-ran").exists());
    std::fs::write(&file, good).unwrap();
    server.order(&run, "retry", "");
    server.wait_for_state(&run, State::Completed);
    assert!(machine.stop().success());
}

/// Puts other content under the package's name, as nobody can who asks the server.
fn tampered(server: &mut Server, content: &[u8]) {
    assert!(server.stop().success());
    let sum = Sha256Hex::of(content);
    std::fs::write(server.data().join("packages").join(sum.as_str()), content).unwrap();
    change_database(server, &format!("UPDATE packages SET sha256 = '{sum}'"));
    server.start_again(&[]);
}

/// Has statements run by another program than the server, which is stopped.
fn change_database(server: &Server, statements: &str) {
    let script = "import sqlite3, sys\nbase = sqlite3.connect(sys.argv[1])\n\
                  base.executescript(sys.argv[2])\nbase.commit()\nbase.close()";
    let database = database(&server.data());
    let status = Command::new("python3").args(["-c", script]).arg(database).arg(statements).status();
    assert!(status.expect("python3 is among the packages of the tests").success());
}

fn database(data: &Path) -> PathBuf {
    let names = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let is_database =
        |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    names.filter(|path| path.is_file()).find(is_database).expect("the server has a database")
}

/// What a command prints.
fn printed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn an_archive_that_leads_out_has_holes_or_claims_too_much_is_not_taken_even_from_the_store() {
    let mut server = Server::start();
    let (root, _sum) = stored(&server);
    let folder = server.beside("hostile");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(server.beside("hostile-outside"), "x").unwrap();
    std::fs::File::create(folder.join("holes")).unwrap().set_len(9 << 30).unwrap();
    let tar = |file: &str| printed(Command::new("tar").args(["-cPSf", "-", file]).current_dir(&folder));
    let claim = "import sys, tarfile\nlarge = tarfile.TarInfo('large')\nlarge.size = 9 << 30\n\
                 sys.stdout.buffer.write(large.tobuf(tarfile.GNU_FORMAT) + bytes(10240))";
    let claims = printed(Command::new("python3").args(["-c", claim]));
    for (content, part) in [
        (tar("../hostile-outside"), "\"..\""),
        (tar("holes"), "a file with holes"),
        (claims, "expected at most 8589934592 bytes"),
    ] {
        tampered(&mut server, &content);
        let run = server.create_run("n1", &profile_of(&root, ""));
        let mut machine = Machine::new(&server, &run, run.id.as_str()).with_packages();
        machine.start();
        held(&server, &run, &["the archive is not taken, and nothing of it is kept", part]);
        assert_eq!(kept(&machine), Vec::<String>::new());
        assert!(!machine.home().join("packages/tuning/hostile-outside").exists());
        server.order(&run, "cancel", "no such package");
        assert!(machine.stop().success());
    }
    assert!(!root.join("one-ran").exists());
}

#[test]
fn a_home_without_room_holds_and_once_it_has_some_the_retry_passes() {
    in_own_mounts(without_room);
}

fn without_room() {
    let server = Server::start();
    let (root, sum) = stored(&server);
    let run = server.create_run("n1", &profile_of(&root, ""));
    let mut machine = Machine::new(&server, &run, "m1").with_packages();
    std::fs::create_dir_all(machine.home()).unwrap();
    let home = machine.home();
    let home = home.to_str().unwrap();
    // 64 MiB stay free; the archive has nearly 5 MB, and what is in it as much.
    mount(&["-t", "tmpfs", "-o", "size=66m,mode=700", "tmpfs", home]);
    machine.start();
    held(&server, &run, &["bytes free at", home, "67108864 more that stay free"]);
    assert_eq!(kept(&machine), Vec::<String>::new());
    mount(&["-o", "remount,size=71m", home]);
    server.order(&run, "retry", "");
    server.wait_for(&run, "a second attempt that is held", |view| {
        view.stages[0].attempts == 2 && view.summary.state == State::FailedHolding
    });
    expect_line(&server, &run, "expected 5000000 and 67108864 more");
    assert_eq!(kept(&machine), Vec::<String>::new());
    mount(&["-o", "remount,size=100m", home]);
    server.order(&run, "retry", "");
    server.wait_for_state(&run, State::Completed);
    assert_eq!(kept(&machine), [format!("package-{sum}")]);
    assert!(machine.stop().success());
}
