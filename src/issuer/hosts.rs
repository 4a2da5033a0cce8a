//! Which token endpoints the operator may speak to. Who may create a VerteilToken could otherwise post any Secret of the
//! namespace to a host of his own.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// A list of hosts that token URLs may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHosts(Vec<AllowedHost>);

/// One entry: `host`, `*.domain` or `*`, each with `:port` or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    pattern: Pattern,
    port: Option<u16>,
}

/// Why a text is not an [`AllowedHost`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write a host such as api.verteil.com, a domain such as *.verteil.com, or *, each with :port if it is not 443")]
pub struct HostError;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Below(String),
    Exactly(String),
}

// === impl AllowedHosts ===

impl AllowedHosts {
    /// The hosts in `list`.
    #[must_use]
    pub const fn new(list: Vec<AllowedHost>) -> Self {
        Self(list)
    }

    /// Whether `url` may be asked. Without a port in the list, https means 443 and http, where it is allowed, 80.
    #[must_use]
    pub fn allow(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let host = without_root(host).to_ascii_lowercase();
        let usual = if url.scheme() == "https" { 443 } else { 80 };
        let port = url.port_or_known_default().unwrap_or_default();
        self.0.iter().any(|allowed| allowed.matches(&host, port, usual))
    }
}

impl fmt::Display for AllowedHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, host) in self.0.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

// === impl AllowedHost ===

impl AllowedHost {
    fn matches(&self, host: &str, port: u16, usual: u16) -> bool {
        let named = match &self.pattern {
            // Written out in full, `*` means any port as well.
            Pattern::Any => return self.port.is_none_or(|p| p == port),
            Pattern::Below(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Pattern::Exactly(name) => host == name,
        };
        named && self.port.unwrap_or(usual) == port
    }
}

impl FromStr for AllowedHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let text = text.trim().to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            // An IPv6 address without a port ends in its bracket.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| HostError)?)),
            Some(_) | None => (text.as_str(), None),
        };
        let pattern = match host.strip_prefix('*') {
            Some("") => Pattern::Any,
            Some(domain) => match named(domain.strip_prefix('.').ok_or(HostError)?)? {
                Host::Domain(domain) => Pattern::Below(domain),
                // Nothing lies below an address.
                Host::Ipv4(_) | Host::Ipv6(_) => return Err(HostError),
            },
            None => Pattern::Exactly(named(host)?.to_string()),
        };
        Ok(Self { pattern, port })
    }
}

/// A host as URLs name it, whichever way it is written: letters of other scripts, odd addresses, a dot at the end.
fn named(text: &str) -> Result<Host, HostError> {
    let host = match Host::parse(text).map_err(|_| HostError)? {
        // After parsing: the dot may be written as %2e.
        Host::Domain(domain) => Host::Domain(without_root(&domain).to_owned()),
        address @ (Host::Ipv4(_) | Host::Ipv6(_)) => address,
    };
    let name = host.to_string();
    // With a second dot at its end it is no name, and without that dot perhaps an address.
    if name.is_empty() || name.ends_with('.') || name.contains('*') { Err(HostError) } else { Ok(host) }
}

/// A name may end in a dot, that of the root, and means the same without.
fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Any => f.write_str("*")?,
            Pattern::Below(domain) => write!(f, "*.{domain}")?,
            Pattern::Exactly(host) => f.write_str(host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `host:port` of a URL: what permits are counted by.
#[must_use]
pub fn host_of(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    fn allows(list: &str, url: &str) -> bool {
        let hosts = AllowedHosts::new(list.split(',').map(|h| h.parse().unwrap()).collect());
        hosts.allow(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_domain_allows_what_lies_below_it_on_port_443() {
        let list = "*.verteil.com";
        assert!(allows(list, "https://api.stage.verteil.com/oauth2/token"));
        assert!(allows(list, "https://API.Verteil.COM./t"));
        for url in [
            "https://verteil.com/t",
            "https://evilverteil.com/t",
            "https://verteil.com.evil.example/t",
            "https://api.verteil.com:8443/t",
            "https://user@evil.example/api.verteil.com",
            "https://api.verteil.com../t",
        ] {
            assert!(!allows(list, url), "{url}");
        }
    }

    #[test]
    fn a_port_must_be_listed_unless_it_is_the_usual_one() {
        assert!(allows("a.example:8443", "https://a.example:8443/"));
        assert!(!allows("a.example:8443", "https://a.example/"));
        assert!(allows("[::1]:8080", "http://[::1]:8080/"));
        assert!(allows("*", "https://anything.example:1234/"));
    }

    #[test]
    fn a_host_is_allowed_whichever_way_it_is_written() {
        for (list, url) in [
            ("bücher.example", "https://bücher.example/"),
            ("*.bücher.example", "https://a.xn--bcher-kva.example/"),
            ("a.example.", "https://a.example/"),
            ("a.example%2e", "https://a.example/"),
            ("*.a.example.", "https://b.a.example./"),
            ("0x7f.1", "https://127.0.0.1/"),
            ("[0:0::0001]", "https://[::1]/"),
        ] {
            assert!(allows(list, url), "{list} {url}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_host() {
        for text in [
            "",
            "*.",
            ".",
            "a.example..",
            "0x7f.%2e",
            "*.0x7f..",
            "*.127.0.0.1",
            "*.0.1",
            "*.[::1]",
            "a.\u{ff0a}.example",
            "*foo",
            "a.*.example",
            "a:b",
            "a:99999",
            "a/b",
            "https://a",
        ] {
            assert_eq!(text.parse::<AllowedHost>(), Err(HostError), "{text}");
        }
    }
}
