//! The keys of holds: what an agent asks for and is told, what operators register, and what is made for one hold alone.

use serde::{Deserialize, Serialize};

use crate::ids::{ClaimNumber, HoldKeyName, RunId};
use crate::time::WallMs;

/// An agent in a hold asks for the keys that let operators in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldRequest {
    /// The sender's claim.
    #[serde(default)]
    pub claim: ClaimNumber,
    /// Address under which the machine can be reached.
    #[serde(default)]
    pub ip: String,
    /// The machine's public SSH host keys.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// The user as whom an operator logs in; absent where the agent cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldAnswer {
    /// The first line for authorized_keys, without options, for agents that know of one; absent where there is no key.
    #[serde(default)]
    pub authorized_key: Option<String>,
    /// All lines for authorized_keys, the first one too; empty from an orchestrator that knows of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<String>,
    /// When they must be taken off again.
    pub expires_at: WallMs,
}

impl HoldAnswer {
    /// The answer with these lines for authorized_keys.
    pub fn new(authorized_keys: Vec<String>, expires_at: WallMs) -> HoldAnswer {
        HoldAnswer { authorized_key: authorized_keys.first().cloned(), authorized_keys, expires_at }
    }

    /// The lines for authorized_keys, whichever orchestrator says them.
    pub fn into_lines(self) -> Vec<String> {
        match self.authorized_keys.is_empty() {
            true => self.authorized_key.into_iter().collect(),
            false => self.authorized_keys,
        }
    }
}

/// The key of that name (`default`) that an operator has registered for held machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HoldKey {
    /// A line for authorized_keys: type, key and comment, without options. Absent: there is none of that name.
    pub authorized_key: Option<String>,
}

/// A public key that an operator has registered. While there is one, those registered let operators into held machines;
/// otherwise each hold has a key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisteredKey {
    /// Whose, or what for.
    pub name: HoldKeyName,
    /// A line for authorized_keys: type, key and comment, without options.
    pub authorized_key: String,
}

/// The registered keys, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisteredKeys {
    /// All lines together have 24 KiB at most.
    pub keys: Vec<RegisteredKey>,
}

/// The public key that is to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterKey {
    /// A line for authorized_keys: type, key and comment, without options.
    pub authorized_key: String,
}

/// How an operator gets into a held machine with the key that was made for this hold.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunHoldKey {
    /// The run.
    pub run: RunId,
    /// The private half, as a file that ssh takes. It is destroyed with the end of the hold.
    pub private_key: String,
    /// The public half.
    pub public_key: String,
    /// When the machine lets it in no more.
    pub expires_at: WallMs,
    /// The user as whom to log in, where the agent can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Address of the machine.
    #[serde(default)]
    pub ip: String,
    /// The machine's public SSH host keys.
    #[serde(default)]
    pub host_keys: Vec<String>,
}

impl std::fmt::Debug for RunHoldKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunHoldKey")
            .field("run", &self.run)
            .field("private_key", &"(secret)")
            .field("public_key", &self.public_key)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_and_an_orchestrator_of_before_know_of_one_line() {
        let lines = vec!["ssh-ed25519 A ann".to_owned(), "ssh-ed25519 B ben".to_owned()];
        let answer = HoldAnswer::new(lines.clone(), WallMs(1));
        assert_eq!(answer.authorized_key.as_deref(), Some("ssh-ed25519 A ann"));
        assert_eq!(answer.into_lines(), lines);
        let before = r#"{"authorized_key": "ssh-ed25519 A ann", "expires_at": 1}"#;
        assert_eq!(serde_json::from_str::<HoldAnswer>(before).unwrap().into_lines(), lines[..1]);
        assert!(HoldAnswer::new(Vec::new(), WallMs(1)).into_lines().is_empty());
    }

    #[test]
    fn a_private_key_is_not_shown_by_debug() {
        let key = RunHoldKey {
            run: "r-1".parse().unwrap(),
            private_key: "very secret".to_owned(),
            public_key: "ssh-ed25519 A".to_owned(),
            expires_at: WallMs(1),
            user: None,
            ip: String::new(),
            host_keys: Vec::new(),
        };
        let text = format!("{key:?}");
        assert!(!text.contains("very secret") && text.contains("ssh-ed25519 A"), "{text}");
    }
}
