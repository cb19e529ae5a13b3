//! From a name to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! A static binary has no name service, so this is one of our own: small, bounded and without a cache. It
//! asks over UDP only; a truncated answer, which one name's addresses do not cause, is an error.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use groundcrew_protocol::order;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::dns::{Answer, Kind, question, read_answer};

/// Larger files are not read to their end.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// As in resolv.conf(5) (MAXNS and, once, MAXDNSRCH).
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
/// A datagram of an answer: without EDNS 512 bytes, and room for servers that send more all the same.
const ANSWER_BYTES_MAX: usize = 4096;
/// The port of DNS.
const DNS_PORT: u16 = 53;

/// Why a name leads to no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No line of the hosts file has it, and no name server is known.
    #[error("it is not in {}, and {} names no name server", hosts.display(), servers.display())]
    NoServer {
        /// The hosts file.
        hosts: PathBuf,
        /// The file of name servers.
        servers: PathBuf,
    },
    /// A name server says that there is no such name, or no address for it.
    #[error("it is not in {}, and the name server {server} knows no address for it", hosts.display())]
    NoSuchName {
        /// The hosts file.
        hosts: PathBuf,
        /// The server that said so.
        server: IpAddr,
    },
    /// No name server answered in time.
    #[error("the name server {server} did not answer within {after_ms} ms")]
    Timeout {
        /// The last that was asked.
        server: IpAddr,
        /// How long it was waited for, in milliseconds.
        after_ms: u64,
    },
    /// A name server answered with something that is no help.
    #[error("the name server {server} {what}")]
    BadAnswer {
        /// The server.
        server: IpAddr,
        /// What it did.
        what: String,
    },
    /// A name server cannot be asked.
    #[error("asking the name server {server}")]
    Io {
        /// The server.
        server: IpAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct Names {
    /// The hosts file.
    pub hosts: PathBuf,
    /// The file of name servers and search domains.
    pub resolv_conf: PathBuf,
    /// The port on which name servers are asked.
    pub port: u16,
    /// How long one question to one server may take.
    pub answer_wait: Duration,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            port: DNS_PORT,
            answer_wait: Duration::from_secs(2),
        }
    }
}

/// What of resolv.conf(5) counts here.
#[derive(Debug, PartialEq, Eq)]
struct Servers {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    /// A name with this many dots is asked for as it stands first.
    dots_min: usize,
}

/// What one server says about one name.
enum Said {
    Addresses(Vec<IpAddr>),
    Nothing,
}

impl Names {
    /// The addresses of a name, IPv4 first. The files are read anew each time: a live image gets its name
    /// servers after it started. Takes at most the wait times 2 kinds, 3 servers and 7 names.
    ///
    /// # Errors
    /// Where neither the hosts file nor a name server has an address for it.
    pub async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let from_hosts = addresses_in_hosts(&read_text(&self.hosts), name);
        if !from_hosts.is_empty() {
            return Ok(from_hosts);
        }
        // RFC 6761 section 6.3: this name never leaves the machine.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let config = parse_resolv_conf(&read_text(&self.resolv_conf));
        let (hosts, servers) = (self.hosts.clone(), self.resolv_conf.clone());
        let mut failure = ResolveError::NoServer { hosts, servers };
        for candidate in candidates(name, &config) {
            match self.ask_servers(&candidate, &config.servers).await {
                Some(Ok(addresses)) => return Ok(addresses),
                Some(Err(error)) => failure = error,
                None => {}
            }
        }
        Err(failure)
    }

    /// Asks one server after the other until one knows; `None` where there is no server.
    async fn ask_servers(&self, name: &str, servers: &[IpAddr]) -> Option<Result<Vec<IpAddr>, ResolveError>> {
        let mut failure = None;
        for server in servers {
            match self.ask_both(*server, name).await {
                Ok(Said::Addresses(addresses)) => return Some(Ok(addresses)),
                // This server's word counts: another would say the same of a name that is not there.
                Ok(Said::Nothing) => {
                    return Some(Err(ResolveError::NoSuchName {
                        hosts: self.hosts.clone(),
                        server: *server,
                    }));
                }
                Err(error) => failure = Some(Err(error)),
            }
        }
        failure
    }

    /// IPv4 and IPv6 addresses from one server. One kind is enough.
    async fn ask_both(&self, server: IpAddr, name: &str) -> Result<Said, ResolveError> {
        let four = self.ask(server, name, Kind::A).await;
        let six = self.ask(server, name, Kind::Aaaa).await;
        match (four, six) {
            (Err(error), Err(_)) => Err(error),
            (Err(error), Ok(none)) | (Ok(none), Err(error)) if none.is_empty() => Err(error),
            (Err(_), Ok(some)) | (Ok(some), Err(_)) => Ok(Said::Addresses(some)),
            (Ok(four), Ok(six)) if four.is_empty() && six.is_empty() => Ok(Said::Nothing),
            (Ok(mut four), Ok(six)) => {
                four.extend(six);
                Ok(Said::Addresses(four))
            }
        }
    }

    async fn ask(&self, server: IpAddr, name: &str, kind: Kind) -> Result<Vec<IpAddr>, ResolveError> {
        let io = |source: std::io::Error| ResolveError::Io { server, source };
        let bad = |what: &str| ResolveError::BadAnswer { server, what: what.to_owned() };
        let id = getrandom::u32().map_err(|error| io(std::io::Error::other(error)))? as u16;
        let question = question(id, name, kind).ok_or_else(|| bad("cannot be asked for this name"))?;
        let here: SocketAddr =
            if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        // A socket of its own for each question, so that a forger has to guess the port too; connected, so
        // that the kernel passes only what this server sends.
        let socket = UdpSocket::bind(here).await.map_err(io)?;
        socket.connect(SocketAddr::new(server, self.port)).await.map_err(io)?;
        socket.send(&question).await.map_err(io)?;
        let deadline = Instant::now() + self.answer_wait;
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let Ok(received) = timeout_at(deadline, socket.recv(&mut buffer)).await else {
                let after_ms = self.answer_wait.as_millis() as u64;
                return Err(ResolveError::Timeout { server, after_ms });
            };
            let length = received.map_err(io)?;
            match read_answer(&buffer[..length], id, name, kind) {
                Answer::NotOurs => {}
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::NoSuchName => return Ok(Vec::new()),
                Answer::Refused(code) => return Err(bad(&format!("refused with RCODE {code}"))),
                Answer::Truncated => return Err(bad("sent a truncated answer")),
                Answer::Malformed => return Err(bad("sent an answer that cannot be read")),
            }
        }
    }
}

/// The names to ask for, in order: as it stands first where it has dots enough, with the search domains else.
fn candidates(name: &str, config: &Servers) -> Vec<String> {
    let searched = config.search.iter().map(|domain| format!("{name}.{domain}"));
    let whole = std::iter::once(name.to_owned());
    if name.matches('.').count() >= config.dots_min {
        whole.chain(searched).collect()
    } else {
        searched.chain(whole).collect()
    }
}

/// The text of a file, empty where it is not there: both files are optional by their own documents.
fn read_text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error counts, as it does for the C library.
        let _partly = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn without_comment(line: &str) -> &str {
    line.split(['#', ';']).next().unwrap_or_default()
}

fn addresses_in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
    };
    let mut addresses: Vec<IpAddr> = text.lines().filter_map(of_line).collect();
    order::sort_by_key(&mut addresses, IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

fn parse_resolv_conf(text: &str) -> Servers {
    let mut config = Servers { servers: Vec::new(), search: Vec::new(), dots_min: 1 };
    for line in text.lines() {
        let mut words = without_comment(line).split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
                if config.servers.len() < SERVERS_MAX {
                    config.servers.extend(server);
                }
            }
            // The last of these lines counts.
            Some("search" | "domain") => {
                let plain = |word: &str| word.trim_end_matches('.').to_ascii_lowercase();
                config.search = words.map(plain).filter(|word| !word.is_empty()).take(SEARCH_MAX).collect();
            }
            Some("options") => {
                let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                config.dots_min = dots.unwrap_or(config.dots_min).min(15);
            }
            Some(_) | None => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_is_read() {
        let text = "# x\n127.0.0.1 localhost\nfd00::1 box box.lab # gc\n10.0.0.7\tgc.lab. GC\nnonsense gc\n";
        assert_eq!(addresses_in_hosts(text, "gc"), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses_in_hosts(text, "box.lab").len(), 1);
        assert!(addresses_in_hosts(text, "x").is_empty());
    }

    #[test]
    fn a_list_of_name_servers_is_read() {
        let text = "search a.lab. B.lab\n; no\nnameserver 10.0.0.1 # x\nnameserver ::1\nnameserver x\n\
                    nameserver 10.0.0.2\nnameserver 10.0.0.3\noptions timeout:1 ndots:2\n";
        let config = parse_resolv_conf(text);
        assert_eq!(config.servers.len(), SERVERS_MAX);
        assert_eq!((config.search.clone(), config.dots_min), (vec!["a.lab".into(), "b.lab".into()], 2));
        assert_eq!(candidates("gc", &config), ["gc.a.lab", "gc.b.lab", "gc"]);
        assert_eq!(candidates("gc.x.y", &config)[0], "gc.x.y");
    }
}
