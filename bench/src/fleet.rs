//! The fleet that everything is measured with: nodes, a profile, and runs that agents have claimed.
//!
//! Made over the API as operators and agents do it, over several connections at a time.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use groundcrew_protocol::check::{Check, Limit, Observation, PlannedCheck};
use groundcrew_protocol::ids::{Attempt, ClaimNumber, RandomId, RunId, Sha256Hex, TokenText};
use groundcrew_protocol::operator::RunCreated;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, Heartbeat, ResultAnswer, ResultRequest, Taken, agent_path,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::Digest;
use tokio::task::JoinSet;

use crate::load::connection::Connection;
use crate::load::request::Caller;
use crate::server::Server;

/// Connections over which the fleet is made.
const MAKERS: usize = 64;
/// Name of the profile.
const PROFILE: &str = "bench";
/// Every hardware stage, and a limit that outlasts the benchmark.
const PROFILE_TEXT: &str = r#"name = "bench"
description = "Every hardware stage, for the benchmark."
in_service = true
stage = [{ name = "Inventory", deadline = "1h" },
    { name = "CPUStress", deadline = "1h" }, { name = "Memory", deadline = "1h" }, { name = "Storage", deadline = "1h" },
    { name = "Network", deadline = "1h" }, { name = "GPU", deadline = "1h" }, { name = "PSU", deadline = "1h" },
    { name = "Soak", deadline = "1h" }]
"#;

/// Name of the profile that this machine's own agent has.
const OWN_PROFILE: &str = "bench-own";
/// One stage, which tests nothing: the agent is soon idle.
const OWN_PROFILE_TEXT: &str = r#"name = "bench-own"
description = "An inventory, for the benchmark's idle agent."
stage = [{ name = "Inventory" }]
"#;

/// A run and the token of the agent that has claimed it.
#[derive(Debug, Clone)]
pub struct Member {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub caller: Caller,
}

impl Member {
    /// The path of one of its agent's calls.
    pub fn path(&self, call: &str) -> String {
        agent_path(&self.run, call)
    }
}

/// Writes the profiles.
pub async fn put_profiles(server: &Server) -> Result<()> {
    let mut connection = server.connector.open().await?;
    for (name, text) in [(PROFILE, PROFILE_TEXT), (OWN_PROFILE, OWN_PROFILE_TEXT)] {
        let mut request = Vec::new();
        let path = format!("/api/v1/profiles/{name}");
        server.operator.write_typed(&mut request, "PUT", &path, "application/toml", text.as_bytes());
        connection.call(&request).await?.good().with_context(|| format!("writing the profile {name}"))?;
    }
    Ok(())
}

/// Makes runs number `from` to `to`, each claimed and heard once.
pub async fn make(server: &Arc<Server>, from: usize, to: usize) -> Result<Vec<Member>> {
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS.min(to - from) {
        let server = server.clone();
        makers.spawn(async move {
            let mut connection = server.connector.open().await?;
            let mut made = Vec::new();
            for index in (from + maker..to).step_by(MAKERS) {
                let one = make_one(&server, &mut connection, index).await;
                made.push((index, one.with_context(|| format!("making run {index}"))?));
            }
            anyhow::Ok(made)
        });
    }
    let mut members = Vec::with_capacity(to - from);
    while let Some(made) = makers.join_next().await {
        members.extend(made.context("a maker of runs panicked")??);
    }
    members.sort_by_key(|(index, _member)| *index);
    Ok(members.into_iter().map(|(_index, member)| member).collect())
}

async fn make_one(server: &Server, connection: &mut Connection, index: usize) -> Result<Member> {
    let created = create_run(server, connection, index).await?;
    let run = created.run;
    let token = TokenText::run(sha2::Sha256::digest(format!("token {index}")).into());
    let boot = server.caller(created.boot_token.as_str());
    let claim: ClaimRequest = claim_of(index, token.sha256())?;
    let path = agent_path(&run, "claim");
    let _answer: ClaimAnswer = call(connection, &boot, "POST", &path, &serde_json::to_vec(&claim)?).await?;
    let member = Member { run, caller: server.caller(token.as_str()) };
    let beat = heartbeat_body()?;
    let request = member.caller.request("POST", &member.path("heartbeat"), &beat);
    connection.call(&request).await?.good().context("the first heartbeat")?;
    Ok(member)
}

/// A node and a run for it.
pub async fn create_run(server: &Server, connection: &mut Connection, index: usize) -> Result<RunCreated> {
    let node = json!({ "serial": serial(index), "macs": [mac(index)], "labels": { "rack": "b1" } });
    create_run_for(server, connection, index, node, PROFILE).await
}

/// The same for this very machine, of which nothing is said: its own agent shows other numbers.
pub async fn create_run_here(
    server: &Server,
    connection: &mut Connection,
    index: usize,
) -> Result<RunCreated> {
    create_run_for(server, connection, index, json!({ "labels": { "rack": "b1" } }), OWN_PROFILE).await
}

async fn create_run_for(
    server: &Server,
    connection: &mut Connection,
    index: usize,
    mut node: serde_json::Value,
    profile: &str,
) -> Result<RunCreated> {
    let name = format!("bench-{index:05}");
    node["name"] = json!(name);
    let path = format!("/api/v1/nodes/{name}");
    let request = server.operator.request("PUT", &path, node.to_string().as_bytes());
    connection.call(&request).await?.good().context("making a node")?;
    let run = json!({ "node": name, "profile": profile }).to_string();
    call(connection, &server.operator, "POST", "/api/v1/runs", run.as_bytes()).await.context("making a run")
}

fn serial(index: usize) -> String {
    format!("BENCH{index:07}")
}

fn mac(index: usize) -> String {
    let [.., a, b, c] = u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes();
    format!("02:00:00:{a:02x}:{b:02x}:{c:02x}")
}

fn id(what: &str, index: usize) -> RandomId {
    let digest: [u8; 32] = sha2::Sha256::digest(format!("{what} {index}")).into();
    RandomId::from_bytes(*digest.first_chunk().expect("16 of 32 bytes"))
}

fn claim_of(index: usize, token: Sha256Hex) -> Result<ClaimRequest> {
    let claim = json!({
        "ip": format!("10.1.{}.{}", index / 250 % 250, index % 250 + 1),
        "boot_id": format!("00000000-0000-4000-8000-{index:012x}"),
        "boot_epoch": format!("00000000-0000-4000-8000-{index:012x}:1"),
        "instance": id("instance", index), "session": id("session", index),
        "home": "durable", "token_sha256": token, "serial": serial(index), "macs": [mac(index)],
    });
    serde_json::from_value(claim).context("writing a claim")
}

/// What an agent sends every ten seconds while it works on its first stage.
pub fn heartbeat_body() -> Result<Vec<u8>> {
    let beat = json!({ "claim": 1, "stage": "Inventory", "attempt": 1, "phase": "running", "activity": "Inventory" });
    let beat: Heartbeat = serde_json::from_value(beat).context("writing a heartbeat")?;
    Ok(serde_json::to_vec(&beat)?)
}

/// Asks, and reads the answer as JSON.
pub async fn call<T: DeserializeOwned>(
    connection: &mut Connection,
    caller: &Caller,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<T> {
    let request = caller.request(method, path, body);
    let answer = connection.call(&request).await?;
    let body = answer.good().with_context(|| format!("{method} {path}"))?;
    serde_json::from_slice(body).with_context(|| format!("reading the answer of {method} {path}"))
}

/// Walks one run to its end and returns the body of each of its results, in order. They fit every other run of the
/// fleet: all have one profile, and each result is of the first attempt under the first claim.
pub async fn walk(server: &Server, index: usize) -> Result<Vec<Vec<u8>>> {
    let mut connection = server.connector.open().await?;
    let created = create_run(server, &mut connection, index).await?;
    let token = TokenText::run(sha2::Sha256::digest(format!("token {index}")).into());
    let claim = serde_json::to_vec(&claim_of(index, token.sha256())?)?;
    let boot = server.caller(created.boot_token.as_str());
    let path = agent_path(&created.run, "claim");
    let claimed: ClaimAnswer = call(&mut connection, &boot, "POST", &path, &claim).await?;
    let (caller, path) = (server.caller(token.as_str()), agent_path(&created.run, "result"));
    let mut plan = claimed.planned_checks;
    let mut bodies = Vec::new();
    for stage in claimed.stages.iter().filter(|stage| !stage.is_orchestrators()) {
        let body = result_body(stage, &plan)?;
        let answer: ResultAnswer = call(&mut connection, &caller, "POST", &path, &body).await?;
        if answer.taken != Taken::First || answer.next_state == State::FailedHolding {
            return Err(anyhow!(
                "the result of {stage} was taken as {}: {}",
                answer.taken,
                answer.next_state
            ));
        }
        bodies.push(body);
        plan = answer.planned_checks;
    }
    Ok(bodies)
}

fn result_body(stage: &Stage, plan: &[PlannedCheck]) -> Result<Vec<u8>> {
    let checks: Vec<Check> = plan.iter().map(fulfil).collect();
    let result = ResultRequest {
        claim: ClaimNumber(1),
        made_under: ClaimNumber(1),
        stage: stage.clone(),
        attempt: Attempt(1),
        passed: true,
        summary: format!("{} checks, all within their limits", checks.len()),
        message: String::new(),
        checks,
        inventory: None,
        began: Default::default(),
        ended: Default::default(),
    };
    Ok(serde_json::to_vec(&result)?)
}

/// A check that passes its plan.
fn fulfil(planned: &PlannedCheck) -> Check {
    let Limit { fail_below, warn_below, warn_above, fail_above, equals, contains, .. } = &planned.limit;
    let observed =
        match (equals.as_ref().or(contains.as_ref()), fail_below.or(*warn_below), warn_above.or(*fail_above))
        {
            (Some(text), _, _) => Observation::Found { text: text.clone() },
            (None, Some(low), Some(high)) => Observation::measured(f64::midpoint(low, high), "units"),
            (None, Some(bound), None) | (None, None, Some(bound)) => Observation::measured(bound, "units"),
            (None, None, None) => Observation::Found { text: "read".to_owned() },
        };
    let check = Check::of(&planned.name, planned.component.as_deref(), observed, planned.limit.clone());
    check.with_evidence("the line of a tool's output that says so, which is about this long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundcrew_protocol::check::Verdict;
    use groundcrew_protocol::plan::planned_checks;
    use groundcrew_protocol::profile::Profile;

    #[test]
    fn the_profile_is_one_and_every_stage_of_it_can_be_passed() {
        Profile::parse(OWN_PROFILE_TEXT).unwrap();
        let profile = Profile::parse(PROFILE_TEXT).unwrap();
        for spec in profile.stages.iter().filter(|spec| !spec.name.is_orchestrators()) {
            for planned in planned_checks(spec) {
                assert_eq!(fulfil(&planned).verdict, Verdict::Pass, "{} {planned:?}", spec.name);
            }
        }
    }

    #[test]
    fn members_of_the_fleet_are_told_apart() {
        assert_ne!(mac(1), mac(257));
        assert_ne!(id("instance", 1), id("session", 1));
        let claim = claim_of(7, Sha256Hex::of(b"x")).unwrap();
        assert_eq!(claim.serial.as_deref(), Some("BENCH0000007"));
        assert!(!heartbeat_body().unwrap().is_empty());
    }
}
