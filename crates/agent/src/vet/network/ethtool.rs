//! What `ethtool NAME` says of a link. Pure.

use groundcrew_protocol::check::Observation;

use crate::vet::json_tool::Said;

/// What a link negotiated.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Negotiated {
    pub speed: Observation,
    pub duplex: Observation,
    /// That the interface supports more, where it does: a cable or a switch may hold it back. The speed is a number all the
    /// same, for the profile's limit.
    pub held_back: Option<Observation>,
}

impl Negotiated {
    /// Nobody knows, for one reason.
    pub fn unreadable(why: &str) -> Negotiated {
        let unreadable = || Observation::Unreadable { why: why.to_owned() };
        Negotiated { speed: unreadable(), duplex: unreadable(), held_back: None }
    }
}

/// Speed and duplex. An interface that may know neither, and says so, has no such thing.
pub(super) fn link(said: &Said, may_have_none: bool) -> Negotiated {
    let text = String::from_utf8_lossy(&said.stdout);
    let unreadable = |why: String| Observation::Unreadable { why };
    if said.exit != 0 {
        let stderr = String::from_utf8_lossy(&said.stderr);
        let why = format!("ethtool ended with status {}: {}", said.exit, stderr.trim());
        return Negotiated::unreadable(&why);
    }
    let value = |key: &str| {
        let mut found = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
        found.next().map(str::trim)
    };
    let unknown = |what: &str, found: Option<&str>| match found {
        Some(word) if may_have_none && word.starts_with("Unknown!") => Observation::Absent {
            why: format!("it has no {what} of its own: it is virtual, or speaks over another's link"),
        },
        Some(word) => unreadable(format!("ethtool says {word:?} for the {what}")),
        None => unreadable(format!("ethtool does not say the {what}")),
    };
    let speed = value("Speed");
    let mbps = speed.and_then(|word| word.strip_suffix("Mb/s")?.parse::<u32>().ok());
    let fastest = fastest(&text);
    let held_back = mbps.filter(|mbps| *mbps < fastest).map(|mbps| Observation::Unexpected {
        what: format!("{mbps} Mb/s on an interface that supports {fastest}"),
    });
    let speed = match mbps {
        Some(mbps) => Observation::measured(f64::from(mbps), "Mb/s"),
        None => unknown("speed", speed),
    };
    let duplex = value("Duplex");
    let duplex = match duplex {
        Some(word @ ("Full" | "Half")) => Observation::Found { text: word.to_owned() },
        Some(_) | None => unknown("duplex", duplex),
    };
    Negotiated { speed, duplex, held_back }
}

/// The fastest of the modes that the interface supports, in Mb/s; 0 where it tells none. They stand in a row of their own and
/// the rows below it, as `1000baseT/Full`.
fn fastest(text: &str) -> u32 {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("Supported link modes:"));
    let first = lines.next().and_then(|line| line.split_once(':')).map_or("", |(_, modes)| modes);
    let more = lines.take_while(|line| !line.contains(':'));
    let modes = std::iter::once(first).chain(more).flat_map(str::split_whitespace);
    modes.filter_map(|mode| mode.split_once("base")?.0.parse().ok()).max().unwrap_or(0)
}
