//! The pages in a browser: logged in, listed, and one run followed live by the script of its page.

use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Browser, Machine, Server};

use crate::agents::{expect_same, listed};
use crate::profiles::LOAD;

/// A browser in which an operator has logged in.
fn logged_in(server: &Server) -> Browser {
    let mut browser = Browser::start(server);
    browser.open(&format!("{}/login", server.url()));
    browser.type_into("input[name=token]", server.token().as_str());
    browser.follow("form button");
    browser
}

#[test]
fn an_operator_logs_in_and_follows_a_run_to_its_end_without_loading_the_page_again() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut browser = logged_in(&server);
    let row = browser.text("tbody tr");
    for part in [run.id.as_str(), "n1", "load", "CPUStress"] {
        assert!(row.contains(part), "the row lacks {part:?}: {row}");
    }

    browser.open(&format!("{}/runs/{}", server.url(), run.id));
    assert_eq!(browser.text("h1"), format!("{} on n1", run.id));
    browser.read("window.loadedOnce = true");
    // From here on everything comes to a page that was there before it.
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    browser.wait_for_text("#events", "CPUStress: attempt 1 given to claim 1");
    browser.wait_for_text("#stages tr td:nth-child(3)", "1");
    let last = machine.load.print(30);
    browser.wait_for_text("#log", &format!(" CPUStress line {last}"));
    browser.wait_for_text("#agent", "running");
    machine.load.fail();
    browser.wait_for_text("#state", "FailedHolding at CPUStress");
    browser.wait_for_text("#wait", "until ");
    browser.wait_for_text("#stages .verdict", "fail");

    server.order(&run, "retry", "");
    machine.load.started();
    browser.wait_for_text("#stages tr td:nth-child(3)", "2");
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    browser.wait_for_text("#state", "Completed");
    browser.wait_for_text("#stages .verdict", "pass");
    browser.wait_for_text("#wait", "nothing");
    assert_eq!(browser.read("window.loadedOnce"), true, "the page was loaded again");
    assert_eq!(browser.wrong(), [""; 0]);
    browser.close();
}

#[test]
fn the_page_of_agents_says_how_one_ended_as_its_file_status_and_list_do() {
    let server = Server::start_watching_homes();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let mut browser = logged_in(&server);
    browser.follow("nav a[href='/agents']");
    assert_eq!(browser.text("h1"), "Agents");
    // The page is loaded anew each few seconds.
    browser.wait_for_text("tbody td:nth-child(3)", "executing");
    browser.wait_for_text("tbody td:nth-child(7)", &format!("{}CPUStress", run.id));
    machine.kill();
    browser.wait_for_text("tbody td:nth-child(2)", "error");
    expect_same(&server, &machine, "m1");
    let agent = listed(&server, "m1").unwrap();
    let cells =
        ["tbody td:nth-child(3)", "tbody td:nth-child(4)", "tbody td:nth-child(5)", "tbody td:nth-child(8)"];
    let said = cells.map(|cell| browser.text(cell));
    assert_eq!(said, ["", "local", agent.container_status.as_str(), agent.detail.as_str()]);
    assert_eq!(browser.text("#phases"), "all 1 · error 1");
    browser.follow("tbody a");
    assert_eq!(browser.text("h1"), format!("{} on n1", run.id));
    assert_eq!(browser.wrong(), [""; 0]);
    browser.close();
}
