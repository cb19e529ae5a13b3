//! The address of an orchestrator: `https://HOST[:PORT][/]`.

use std::net::{IpAddr, Ipv6Addr};

use rustls_pki_types::ServerName;

/// The port of HTTPS, where the address names none.
const HTTPS_PORT: u16 = 443;

/// The address was not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, expected https://HOST or https://HOST:PORT ({why})")]
pub struct BadUrl {
    /// What was found, cut to 120 characters and without what stands in front of an `@`.
    pub found: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Who is meant by an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// An IP literal.
    Address(IpAddr),
    /// A name, in lower case.
    Name(String),
}

/// The address of an orchestrator, parsed: a scheme that is always HTTPS, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) server_name: ServerName<'static>,
}

impl BaseUrl {
    /// What stands in the header `Host`: an IPv6 literal in brackets, the port unless it is 443.
    pub(crate) fn authority(&self) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(IpAddr::V4(address)) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        if self.port == HTTPS_PORT { host } else { format!("{host}:{}", self.port) }
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl std::str::FromStr for BaseUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let bad = |why| {
            // A password that somebody put into the address does not go into an error.
            let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
            BadUrl { found: shown.chars().take(120).collect(), why }
        };
        let Some((scheme, rest)) = text.split_once("://") else { return Err(bad("no scheme")) };
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(bad("every call carries a token, so only https is spoken"));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(bad("a path, query or fragment follows"));
        }
        if authority.contains('@') {
            return Err(bad("a user name or password stands in it"));
        }
        let (host, port) =
            split_port(authority).ok_or_else(|| bad("the port is not a number from 1 to 65535"))?;
        let host = parse_host(host).ok_or_else(|| bad("the host is neither an IP address nor a name"))?;
        let server_name = match &host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| bad("the host is no valid DNS name"))?
            }
        };
        Ok(BaseUrl { host, port, server_name })
    }
}

/// Splits host and port; `None` for a port that is none. A bare IPv6 literal has no brackets and so no port.
fn split_port(authority: &str) -> Option<(&str, u16)> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_bracket..].find(':').map(|at| at + after_bracket) else {
        return Some((authority, HTTPS_PORT));
    };
    let digits = &authority[colon + 1..];
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = all_digits.then(|| digits.parse().ok())??;
    (port > 0).then_some((&authority[..colon], port))
}

fn parse_host(text: &str) -> Option<Host> {
    if let Some(inside) = text.strip_prefix('[') {
        let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(address.into()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // A name whose last label is a number is a mistyped address.
    let last = name.rsplit('.').next()?;
    let mistyped = last.is_empty() || last.bytes().all(|b| b.is_ascii_digit());
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
    (!mistyped && name.len() <= 253 && name.bytes().all(known)).then_some(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("https://10.0.0.1:8443", "https://10.0.0.1:8443"),
            ("https://10.0.0.1/", "https://10.0.0.1"),
            ("HTTPS://Groundcrew.Lab.:443/", "https://groundcrew.lab"),
            ("https://[fd00::1]:9", "https://[fd00::1]:9"),
            ("https://[::1]", "https://[::1]"),
            ("https://node-1:65535", "https://node-1:65535"),
        ] {
            assert_eq!(text.parse::<BaseUrl>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_https_address_is_refused_with_a_reason() {
        for (text, word) in [
            ("http://127.0.0.1:80", "only https"),
            ("127.0.0.1:80", "scheme"),
            ("https://", "neither"),
            ("https://a/b", "path"),
            ("https://a?x", "path"),
            ("https://a:0", "port"),
            ("https://a:99999", "port"),
            ("https://a:+1", "port"),
            ("https://a:", "port"),
            ("https://10.0.0", "neither"),
            ("https://256.1.1.1", "neither"),
            ("https://[::1", "port"),
            ("https://a b", "neither"),
            ("https://-a.lab", "DNS"),
            ("https://a..b", "DNS"),
            ("https://[::1]x:1", "neither"),
        ] {
            let error = text.parse::<BaseUrl>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        let error = "https://me:secret@host".parse::<BaseUrl>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
