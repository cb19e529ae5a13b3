//! What `ethtool NAME` says of a link. Pure.

use groundcrew_protocol::check::Observation;

use crate::vet::json_tool::Said;

/// Speed and duplex. A virtual interface that knows neither has no such thing.
pub(super) fn link(said: &Said, is_virtual: bool) -> (Observation, Observation) {
    let text = String::from_utf8_lossy(&said.stdout);
    let unreadable = |why: String| Observation::Unreadable { why };
    if said.exit != 0 {
        let stderr = String::from_utf8_lossy(&said.stderr);
        let why = format!("ethtool ended with status {}: {}", said.exit, stderr.trim());
        return (unreadable(why.clone()), unreadable(why));
    }
    let value = |key: &str| {
        let mut found = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
        found.next().map(str::trim)
    };
    let unknown = |what: &str, found: Option<&str>| match found {
        Some(word) if is_virtual && word.starts_with("Unknown!") => {
            Observation::Absent { why: format!("a virtual interface has no {what}") }
        }
        Some(word) => unreadable(format!("ethtool says {word:?} for the {what}")),
        None => unreadable(format!("ethtool does not say the {what}")),
    };
    let speed = value("Speed");
    let mbps = speed.and_then(|word| word.strip_suffix("Mb/s")?.parse::<u32>().ok());
    let speed = match mbps {
        Some(mbps) => Observation::measured(f64::from(mbps), "Mb/s"),
        None => unknown("speed", speed),
    };
    let duplex = value("Duplex");
    let duplex = match duplex {
        Some(word @ ("Full" | "Half")) => Observation::Found { text: word.to_owned() },
        Some(_) | None => unknown("duplex", duplex),
    };
    (speed, duplex)
}
