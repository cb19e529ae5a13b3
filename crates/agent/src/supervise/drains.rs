//! Performs what the control loop decides about drains, and publishes where the loop stands for whoever asks. The watcher's
//! thread does the work; nothing here waits for a disk.

use std::sync::Arc;

use groundcrew_durable::fault;
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::DirectiveId;

use groundcrew_protocol::wire::LogLevel;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::{Agent, StartError, system};
use crate::control::core::{Core, Event, Facts};
use crate::control::sight::Sight;
use crate::drain::status::{Busy, Fixed, Item, Standing};
use crate::drain::{Change, Endpoint, Marker, Say, SecretFile, Watcher, socket};
use crate::points;
use crate::settings::Settings;
use crate::stamp::wall;

/// Starts the watcher of this agent's marker.
pub(super) async fn watch(settings: &Settings, facts: &Facts, say: Say) -> std::io::Result<Watcher> {
    let marker = Marker {
        home: settings.home.clone(),
        // One that nobody may rely on is none: sightings of a marker are kept for it.
        boot_id: facts.boot_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: facts.boot_epoch.clone(),
        max_age: settings.drain_max_age,
    };
    Watcher::start(marker, say).await
}

/// Where a loop stands that has done nothing yet.
pub(super) fn standing(core: &Core) -> Standing {
    let sight = core.sight().cloned();
    Standing {
        sight,
        phase: core.phase(),
        active: Vec::new(),
        waiting: core.waits_for_drain(),
        own: core.holds_own_drain(),
    }
}

/// What is active, in the order in which it ends.
fn items(core: &Core) -> impl Iterator<Item = Item> {
    let hook = core.active_hook().map(|(which, failed)| Item::Hook { which, failed });
    let stage = core.active().filter(|active| core.holds_own_drain().as_ref() != Some(active));
    let power = core.powers_off().then_some(Item::PowerOff);
    stage.map(Item::Stage).into_iter().chain(hook).chain(power)
}

/// Whoever asks on this machine is answered until this is dropped.
pub(super) struct Answering {
    _tasks: JoinSet<()>,
    socket: Option<std::path::PathBuf>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // One that stays behind is replaced by the next agent.
            let _stays = std::fs::remove_file(socket);
        }
    }
}

impl Agent {
    /// Opens the local endpoint: the socket in the home, and loopback HTTP where settings say so. Without a socket the agent
    /// works on, and says so; without the HTTP that it was told to open it does not start.
    ///
    /// # Errors
    /// A weak or missing secret, or an address that cannot be had.
    pub(super) async fn answer_on_this_machine(&self) -> Result<Answering, StartError> {
        let (activity, children) = (self.activity.clone(), self.children.clone());
        let endpoint = Endpoint {
            watcher: self.drain.clone(),
            standing: self.standing.subscribe(),
            fixed: Fixed {
                run: self.settings.run.clone(),
                epoch: self.core.facts().boot_epoch.clone(),
                max_age_ms: u64::try_from(self.settings.drain_max_age.as_millis()).unwrap_or(u64::MAX),
            },
            busy: Arc::new(move || Busy { activity: activity.get(), pids: children.pids() }),
        };
        let mut tasks = JoinSet::new();
        if let Some((address, file)) = &self.settings.drain_http {
            let secret = SecretFile::new(file);
            secret.check().map_err(system("checking the drain secret"))?;
            let listener = TcpListener::bind(address).await.map_err(system("listening for drains"))?;
            let address = listener.local_addr().map_err(system("listening for drains"))?;
            self.say(LogLevel::Info, format!("drains may be asked for at {address}"));
            tasks.spawn(endpoint.clone().run_http(listener, secret));
        }
        let opened = socket::listen_in(&self.home).and_then(UnixListener::from_std);
        let socket = match opened {
            Ok(listener) => {
                tasks.spawn(endpoint.run_socket(listener));
                Some(self.home.join(socket::FILE_NAME))
            }
            Err(error) => {
                let path = self.home.join(socket::FILE_NAME);
                self.say(LogLevel::Error, format!("nobody can ask at {}: {error}", path.display()));
                None
            }
        };
        Ok(Answering { _tasks: tasks, socket })
    }

    /// Publishes where the loop stands.
    pub(super) fn stand(&self) {
        self.standing.send_modify(|known| {
            let before = std::mem::take(&mut known.active);
            let since =
                |item: &Item| before.iter().find(|(known, _)| known.is_same(item)).map(|(_, since)| *since);
            let active = items(&self.core).map(|item| (since(&item).unwrap_or_else(wall), item));
            let active = active.map(|(since, item)| (item, since)).collect();
            *known = Standing { active, ..standing(&self.core) };
        });
    }

    /// A test may end the agent here, where a marker begins to drain or ends.
    pub(super) fn pass_marker(&self, sight: &Sight) {
        match (self.core.drained().is_some(), sight.active().is_some()) {
            (false, true) => fault::point(points::DRAIN_MET),
            (true, false) => fault::point(points::DRAIN_OVER),
            (false, false) | (true, true) => {}
        }
    }

    /// Has the marker read for a stage that is about to start.
    pub(super) fn look_for_drain(&self, look: u64) {
        // Asked here and not in the task: after what was ordered before it.
        let (looked, events) = (self.drain.look(), self.events.clone());
        tokio::spawn(async move {
            let sight = looked.await;
            // It fails only where the loop has ended.
            let _ended_loop = events.send(Event::Looked { look, sight }).await;
        });
    }

    /// Has the marker hold a drain of the orchestrator's, or hold it no more.
    pub(super) fn change_drain(&self, order: Option<DirectiveId>, drain: DrainOrder, begins: bool) {
        let change = match begins {
            true => Change::Begin { principal: drain.principal(), quiet: drain.suppress_notification },
            false => Change::Cancel { principal: Some(drain.principal()) },
        };
        let (changed, events) = (self.drain.change(change), self.events.clone());
        tokio::spawn(async move {
            let done = changed.await;
            if order.is_some() {
                fault::point(if begins { points::DRAIN_BEGUN } else { points::DRAIN_ENDED });
            }
            let _ended_loop = events.send(Event::DrainChanged { order, done }).await;
        });
    }
}
