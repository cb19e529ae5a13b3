//! What sinks are told. The JSON of our own has a version: fields are only ever added to it, and a change of what one means
//! is another version. `docs/notices.md` describes it.

use groundcrew_protocol::ids::{NodeName, ProfileName, RunId};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::StageAttempt;
use serde::Serialize;

use super::sinks::Kind;
use crate::run::notice::{Audience, Heard, Notice};
use crate::run::state::Run;

/// Version of the JSON.
const VERSION: u32 = 1;
/// Longest text for people, in characters: chat services cut longer ones.
const TEXT_CHARS_MAX: usize = 2_000;

/// What a webhook gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Body {
    version: u32,
    /// The same for every try, so that whoever gets it twice can tell.
    id: String,
    kind: &'static str,
    audience: &'static str,
    at: String,
    /// For people.
    text: String,
    orchestrator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<OfAgent>,
}

/// Of an agent's shutdown.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OfAgent {
    node: NodeName,
    run: RunId,
    profile: ProfileName,
    state: String,
    reason: &'static str,
    /// True where the run, or who decides about it, wanted it so.
    expected: bool,
    /// True where only the next claim has told it.
    late: bool,
    cut_off: Option<StageAttempt>,
    resume: String,
}

/// Of an agent's shutdown, for one audience. `url` is this orchestrator's, for people.
pub fn of_agent(run: &Run, notice: &Notice, audience: Audience, url: &str) -> Body {
    let (node, id) = (&run.node, &run.id);
    let (verb, why) = (notice.heard.verb(), notice.why.describe());
    let what = match &notice.cut_off {
        Some(cut) => format!("{}, attempt {}, was cut off", cut.stage, cut.attempt),
        None => "nothing was cut off".to_owned(),
    };
    let resume = &notice.resume;
    let text = match audience {
        Audience::Fleet => {
            format!("Agent on node {node} {verb} ({why}): {what} of run {id}. {resume}.")
        }
        Audience::Run => {
            format!("Run {id} on node {node}: its agent {verb} ({why}), {what}. {resume}.")
        }
    };
    Body {
        version: VERSION,
        id: format!("{id}/{}", notice.number),
        kind: "agent_shutdown",
        audience: audience.word(),
        at: notice.at.to_string(),
        text: text.chars().take(TEXT_CHARS_MAX).collect(),
        orchestrator: url.to_owned(),
        agent: Some(OfAgent {
            node: node.clone(),
            run: id.clone(),
            profile: run.profile.name.clone(),
            state: run.state().to_string(),
            reason: notice.why.word(),
            expected: notice.why.is_expected(),
            late: notice.heard == Heard::Late,
            cut_off: notice.cut_off.clone(),
            resume: resume.clone(),
        }),
    }
}

/// Of this orchestrator's own shutdown, which is for the fleet: no run is cut off by it.
pub fn of_orchestrator(url: &str, at: WallMs) -> Body {
    let text = format!(
        "groundcrewd at {url} shuts down. Agents go on with what is in flight, keep what they have to say, and send it once the \
         orchestrator is back; nothing new is decided until then."
    );
    Body {
        version: VERSION,
        id: format!("orchestrator/{}", at.0),
        kind: "orchestrator_shutdown",
        audience: Audience::Fleet.word(),
        at: at.to_string(),
        text,
        orchestrator: url.to_owned(),
        agent: None,
    }
}

impl Body {
    /// As a sink of that kind reads it.
    pub fn bytes(&self, kind: Kind) -> Vec<u8> {
        match kind {
            Kind::Webhook => serde_json::to_vec(self),
            Kind::Slack => serde_json::to_vec(&serde_json::json!({ "text": escaped(&self.text) })),
        }
        .expect("texts and numbers serialise")
    }
}

/// A text in which chat services see no markup of theirs: no link, and nobody who is called by name.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::ids::Attempt;
    use groundcrew_protocol::stage::Stage;
    use serde_json::{Value, json};

    use super::*;
    use crate::run::decide::{NewRun, create};
    use crate::run::notice::Why;
    use crate::run::state::Now;

    fn run() -> Run {
        let profile = json!({"name": "demo", "stage": [{"name": "CPUStress"}, {"name": "Reporting"}]});
        let new = NewRun {
            id: "r-1".parse().unwrap(),
            node: "n1".parse().unwrap(),
            node_is: Default::default(),
            profile: serde_json::from_value(profile).unwrap(),
            boot_token: groundcrew_protocol::ids::Sha256Hex::of(b"boot"),
            by: "ada".into(),
            notify: Vec::new(),
        };
        create(new, Now { wall: WallMs(0), listened_ms: 0, heard_ms: 0 }).run
    }

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_webhook_gets_every_fact_and_a_chat_the_sentence() {
        let cut_off = Some(StageAttempt { stage: Stage::CpuStress, attempt: Attempt(2) });
        let notice = Notice {
            number: 3,
            at: WallMs(1_790_000_000_000),
            at_ms: 5,
            heard: Heard::InTime,
            why: Why::Stopped,
            cut_off,
            resume: "To resume, <start> the agent & wait".into(),
            to: Vec::new(),
        };
        let body = of_agent(&run(), &notice, Audience::Run, "https://gc:8443");
        let told = read(&body.bytes(Kind::Webhook));
        let text = "Run r-1 on node n1: its agent shuts down (it was told to stop), CPUStress, attempt 2, was cut off. To \
                    resume, <start> the agent & wait.";
        let expected = json!({
            "version": 1, "id": "r-1/3", "kind": "agent_shutdown", "audience": "run", "at": "2026-09-21T14:13:20.000Z",
            "text": text, "orchestrator": "https://gc:8443",
            "agent": {
                "node": "n1", "run": "r-1", "profile": "demo", "state": "CPUStress", "reason": "stopped", "expected": false,
                "late": false, "cut_off": {"stage": "CPUStress", "attempt": 2}, "resume": "To resume, <start> the agent & wait"
            }
        });
        assert_eq!(told, expected);
        let slack = read(&body.bytes(Kind::Slack));
        let said = text.replace("<start> the agent &", "&lt;start&gt; the agent &amp;");
        assert_eq!(slack, json!({ "text": said }));
        let fleet = read(&of_agent(&run(), &notice, Audience::Fleet, "").bytes(Kind::Webhook));
        assert_eq!((&fleet["audience"], &fleet["id"]), (&json!("fleet"), &json!("r-1/3")));
        assert!(fleet["text"].as_str().unwrap().starts_with("Agent on node n1 shuts down"), "{fleet}");
        let late = Notice { heard: Heard::Late, ..notice };
        let fleet = read(&of_agent(&run(), &late, Audience::Fleet, "").bytes(Kind::Webhook));
        let text = fleet["text"].as_str().unwrap();
        assert!(text.starts_with("Agent on node n1 had shut down unheard"), "{fleet}");
        assert_eq!(fleet["agent"]["late"], true);
    }

    #[test]
    fn the_orchestrators_own_end_names_no_run() {
        let told = read(&of_orchestrator("https://gc:8443", WallMs(7)).bytes(Kind::Webhook));
        assert_eq!((&told["kind"], &told["agent"]), (&json!("orchestrator_shutdown"), &Value::Null));
        assert_eq!(told["id"], "orchestrator/7");
    }
}
