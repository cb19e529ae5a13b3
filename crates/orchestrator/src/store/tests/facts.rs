use groundcrew_protocol::agent_info::{AgentLife, Ending, RuntimeFact, RuntimeSource, RuntimeState};

use super::*;

fn fact(name: &str, state: RuntimeState, at: i64) -> AgentFact {
    AgentFact {
        key: AgentKey { source: RuntimeSource::Local, namespace: "lab".into(), name: name.into() },
        run: Some(run_id("r-1")),
        node: None,
        fact: RuntimeFact {
            source: RuntimeSource::Local,
            life: AgentLife::default(),
            state,
            container_status: "Running".into(),
            at: WallMs(at),
        },
    }
}

fn ended() -> RuntimeState {
    RuntimeState::Ended {
        ending: Ending::Error,
        exit: None,
        reason: "OOMKilled".into(),
        detail: String::new(),
    }
}

#[tokio::test]
async fn facts_outlive_a_restart_and_each_replaces_the_one_before() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let (one, two) = (fact("one", RuntimeState::Running, 5), fact("two", RuntimeState::Running, 6));
    store.put_facts(vec![two.clone(), one]).await.unwrap();
    let one = fact("one", ended(), 7);
    store.put_facts(vec![one.clone()]).await.unwrap();
    store.close().await.unwrap();
    let store = open(data.path()).await;
    assert_eq!(store.facts().await.unwrap(), [one.clone(), two.clone()]);
    store.forget_facts(vec![two.key]).await.unwrap();
    assert_eq!(store.facts().await.unwrap(), [one]);
}

#[tokio::test]
async fn an_agent_that_ended_is_shown_for_a_week_and_one_that_runs_for_as_long_as_it_does() {
    const DAY_MS: i64 = 86_400_000;
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).await;
    let (gone, runs) = (fact("gone", ended(), 0), fact("runs", RuntimeState::Running, 0));
    store.put_facts(vec![gone.clone(), runs.clone()]).await.unwrap();
    assert_eq!(store.sweep(WallMs(7 * DAY_MS)).await.unwrap().agents, 0);
    assert_eq!(store.sweep(WallMs(7 * DAY_MS + 1)).await.unwrap().agents, 1);
    assert_eq!(store.facts().await.unwrap(), [runs]);
}
