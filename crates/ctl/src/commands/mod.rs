//! One command after the other: ask, then print the orchestrator's JSON or a text for people.

mod agents;
mod artifacts;
mod bundle;
mod drains;
mod logs;
mod office;
mod packages;
mod profiles;
mod runs;
mod ssh;

use anyhow::Result;
use groundcrew_protocol::operator::{
    CreateToken, Node, NodeList, NodeView, ProfileList, TokenCreated, TokenView,
};
use http::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api, encoded, query};
use crate::arguments::{Command, NodeCommand, PageArguments, ProfileCommand, RunCommand, TokenCommand};
use crate::context::Connection;
use crate::error::{Refusal, Usage, is_closed_pipe};
use crate::output::{Reader, print, print_bytes, say_aside};
use crate::profile_file::read_profile;
use crate::{tables, up, words};

const OWN_TOKEN_REVOKED: &str = "Warning: that was the token of this very call; the next one needs another. Where no operator has one \
    that is good, stop groundcrewd on its machine, make one with `groundcrewd token add NAME`, and start it again.";

/// What every command needs.
pub(crate) struct Desk {
    pub(crate) api: Api,
    pub(crate) reader: Reader,
    pub(crate) json: bool,
}

impl Desk {
    /// Deletes what is at the path, and says so.
    async fn delete(&self, path: &str, what: &str, name: &str) -> Result<()> {
        self.api.send(Method::DELETE, path, bytes::Bytes::new()).await?;
        let mut letters = what.chars();
        let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let text = format!("{capital}{} {} is deleted.\n", letters.as_str(), words::clean(name));
        self.done(&json!({"deleted": what, "name": name}), &text)
    }

    /// Says what was done, where the API has nothing to say but that.
    fn done(&self, json: &Value, text: &str) -> Result<()> {
        if self.json { print(&format!("{json}\n")) } else { print(text) }
    }

    /// Prints the answer as it came, or what `text` makes of it.
    fn show(&self, answer: &Answer, text: impl FnOnce(&Answer) -> Result<String>) -> Result<()> {
        if self.json { print_bytes(&answer.0) } else { print(&text(answer)?) }
    }
}

/// Does one command.
///
/// # Errors
/// What kept it from being done.
pub(crate) async fn run(arguments: crate::arguments::Arguments) -> Result<()> {
    let json = arguments.json;
    let reader = Reader::of_stdout();
    let command = match arguments.command {
        Command::Up(options) => return up::run(options, json, reader).await,
        other => other,
    };
    let environment = |name: &str| std::env::var(name).ok();
    let connection = Connection::resolve(&arguments.connection, environment).map_err(|error| {
        let chain = format!("{:#}", anyhow::Error::new(error));
        Usage(chain)
    })?;
    let desk = Desk { api: Api::new(connection.client()), reader, json };
    // The exit status of a run that is followed says how it ended; who stops reading before does not learn it.
    let is_followed = matches!(&command, Command::Run(RunCommand::Watch { .. }));
    match perform(&desk, command).await {
        Err(error) if is_closed_pipe(&error) && !is_followed => Ok(()),
        done => done,
    }
}

/// Does one command of those that ask an orchestrator.
async fn perform(desk: &Desk, command: Command) -> Result<()> {
    match command {
        Command::Node(command) => node(desk, command).await,
        Command::Profile(command) => profile(desk, command).await,
        Command::Package(command) => packages::run(desk, command).await,
        Command::Agents => agents::list(desk).await,
        Command::Run(command) => runs::run(desk, command).await,
        Command::Artifact(command) => artifacts::run(desk, command).await,
        Command::Token(command) => token(desk, command).await,
        Command::HoldKey(command) => office::hold_key(desk, command).await,
        Command::Certificate => office::certificate(desk).await,
        Command::Tasks => office::tasks(desk).await,
        Command::Audit(part) => office::audit(desk, &part).await,
        Command::Up(_) => unreachable!("it was taken out above"),
    }
}

/// The query for a part of a list.
fn page(page: &PageArguments, more: &[(&str, Option<&str>)]) -> String {
    let limit = page.limit.map(|limit| limit.to_string());
    let mut parts = vec![("after", page.after.as_deref()), ("limit", limit.as_deref())];
    parts.extend(more);
    query(&parts)
}

async fn node(desk: &Desk, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::List(part) => {
            let answer = desk.api.get(&format!("/api/v1/nodes{}", page(&part, &[]))).await?;
            desk.show(&answer, |answer| Ok(tables::nodes(&answer.parse::<NodeList>()?, &desk.reader)))
        }
        NodeCommand::Put { name, serial, macs, labels } => {
            let node = Node { name, serial, macs, labels: labels.into_iter().collect() };
            let answer = desk.api.put(&format!("/api/v1/nodes/{}", node.name), &node).await?;
            desk.show(&answer, |answer| Ok(tables::node(&answer.parse::<Node>()?)))
        }
        NodeCommand::Show { name } => {
            let answer = desk.api.get(&format!("/api/v1/nodes/{name}")).await?;
            desk.show(&answer, |answer| Ok(tables::node_view(&answer.parse::<NodeView>()?, words::now())))
        }
        NodeCommand::Drain(asked) => drains::drain(desk, asked).await,
        NodeCommand::Undrain(which) => drains::undrain(desk, which).await,
        NodeCommand::Drains { ended } => drains::list(desk, ended).await,
        NodeCommand::Delete { name } => {
            desk.delete(&format!("/api/v1/nodes/{name}"), "node", name.as_str()).await
        }
    }
}

async fn profile(desk: &Desk, command: ProfileCommand) -> Result<()> {
    match command {
        ProfileCommand::List(part) => {
            let answer = desk.api.get(&format!("/api/v1/profiles{}", page(&part, &[]))).await?;
            desk.show(&answer, |answer| Ok(tables::profiles(&answer.parse::<ProfileList>()?)))
        }
        ProfileCommand::Put { file } => {
            let (text, profile) = read_profile(&file)?;
            let answer = desk.api.put_profile(profile.name.as_str(), text).await?;
            desk.show(&answer, |_| Ok(format!("Profile {}\n", profile.name)))
        }
        ProfileCommand::Show { name } => {
            // The API's answer is the profile's own text (TOML).
            let toml = desk.api.get(&format!("/api/v1/profiles/{name}")).await?.text();
            desk.done(&json!({"name": name, "toml": toml}), &toml)
        }
        ProfileCommand::FromRun { run, of_make } => profiles::from_run(desk, &run, of_make).await,
        ProfileCommand::Delete { name } => {
            desk.delete(&format!("/api/v1/profiles/{name}"), "profile", name.as_str()).await
        }
    }
}

async fn token(desk: &Desk, command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Add { name } => {
            let answer = desk.api.post("/api/v1/tokens", &CreateToken { name }).await?;
            desk.show(&answer, |answer| Ok(format!("{}\n", answer.parse::<TokenCreated>()?.token)))
        }
        TokenCommand::List => {
            let answer = desk.api.get("/api/v1/tokens").await?;
            let text = |answer: &Answer| {
                Ok(tables::tokens(&answer.parse::<Vec<TokenView>>()?, &desk.reader, words::now()))
            };
            desk.show(&answer, text)
        }
        TokenCommand::Revoke { name } => {
            let path = format!("/api/v1/tokens/{}", encoded(&name));
            desk.api.send(Method::DELETE, &path, bytes::Bytes::new()).await?;
            let text = format!("The token of {} is no longer good.\n", words::clean(&name));
            desk.done(&json!({"revoked": name}), &text)?;
            // Whose token a call is made with, only the orchestrator knows: it now refuses the one that was revoked.
            match desk.api.get("/api/v1/tokens").await {
                Err(error)
                    if error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 401) =>
                {
                    say_aside(OWN_TOKEN_REVOKED);
                    Ok(())
                }
                Ok(_) | Err(_) => Ok(()),
            }
        }
    }
}
