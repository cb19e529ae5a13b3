//! `groundcrew agent` as a built binary, as far as it goes without an orchestrator.

use std::process::{Command, Output};

fn agent(home: &std::path::Path, more: &[&str]) -> Output {
    let pin = "ab".repeat(32);
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundcrew"));
    command.args(["agent", "--url", "https://127.0.0.1:1", "--run", "r-7f3k9q2m", "--fpr", &pin]).args(more);
    for name in ["TOKEN", "RUN", "URL", "FPR", "HOME", "MAC"] {
        command.env_remove(format!("GROUNDCREW_{name}"));
    }
    command.arg("--home").arg(home).output().unwrap()
}

#[test]
fn an_agent_without_any_token_is_a_usage_error_at_once_and_touches_no_home() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let ended = agent(&home, &[]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(64), "{said}");
    for word in ["--token", "GROUNDCREW_TOKEN", "groundcrew.token=", "r-7f3k9q2m", "has claimed"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert!(!home.exists());
}
