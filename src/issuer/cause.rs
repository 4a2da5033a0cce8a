//! Why no request reached the issuer, in words that say what to do. Nothing of a URL but host and port, nothing of a proxy's.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

use super::client::CONNECT_TIMEOUT;
use crate::ca::CaBundle;

/// Names of a certificate that are quoted.
const MOST_NAMES: usize = 8;
/// Longest quote of what the other side says of itself.
const LONGEST_QUOTE: usize = 64;
/// How the errors of a proxy's tunnel begin. Their type is private to the HTTP client.
const TUNNEL: &str = "tunnel error: ";
/// What the HTTP client says of an IPv6 address at the end of a tunnel: it takes the brackets for a part of it
/// (<https://github.com/seanmonstar/reqwest/issues/3094>). A test shows when that is mended.
const BRACKETS: &str = "Invalid Server Name";

/// What kept the request to `host` from being sent, or the answer from coming, where `ca` was trusted.
pub(super) fn cause(error: &reqwest::Error, host: &str, ca: Option<&CaBundle>) -> String {
    let tunnel = chain(error).map(ToString::to_string).find_map(|text| text.strip_prefix(TUNNEL).map(str::to_owned));
    if let Some(what) = tunnel {
        return through_proxy(error, &what);
    }
    if last(error) == BRACKETS {
        return format!(
            "{host} is an IPv6 address, which cannot be reached through a proxy: write a host name in spec.tokenURL, or the address without brackets in NO_PROXY"
        );
    }
    if let Some(tls) = chain(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return handshake(tls, host, ca);
    }
    if error.is_dns() {
        return format!("the name of {host} cannot be resolved: {}", last(error));
    }
    if error.is_timeout() {
        return format!(
            "no connection to {host} within {} s: look at network policies and firewalls",
            CONNECT_TIMEOUT.as_secs()
        );
    }
    match kind(error) {
        Some(ErrorKind::ConnectionRefused) => format!("connection refused: nothing listens at {host}"),
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => format!("{host} closed the connection"),
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => format!("there is no route to {host}"),
        _ => last(error),
    }
}

/// Whether an answer came whose head or framing breaks HTTP, or is too large: asking again soon would bring the same.
pub(super) fn is_malformed(error: &reqwest::Error) -> bool {
    chain(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse)
}

fn through_proxy(error: &reqwest::Error, what: &str) -> String {
    // The words of the HTTP client; a test holds them.
    match what {
        "proxy authorization required" => {
            "the proxy answered 407: write user name and password into HTTPS_PROXY, http://user:password@host:port"
                .into()
        }
        "unsuccessful" => {
            "the proxy of HTTPS_PROXY refuses to connect to it: ask whoever runs it, or name the host in NO_PROXY"
                .into()
        }
        "unexpected end of file" => "the proxy of HTTPS_PROXY closed the connection".into(),
        "failed to create underlying connection" => {
            format!("the proxy of HTTPS_PROXY cannot be reached: {}", last(error))
        }
        _ => format!("the proxy of HTTPS_PROXY cannot be used: {what}"),
    }
}

/// The lists of these errors are open: what is not told here is told in the words of the TLS library.
fn handshake(error: &rustls::Error, host: &str, ca: Option<&CaBundle>) -> String {
    use rustls::Error as Tls;

    if let Tls::InvalidCertificate(error) = error {
        certificate(error, host, ca)
    } else if let Tls::InvalidMessage(_) = error {
        format!("{host} does not speak TLS: is it plain http, or another port?")
    } else if let Tls::PeerIncompatible(_) | Tls::AlertReceived(AlertDescription::ProtocolVersion) = error {
        format!("{host} does not offer TLS 1.2 or newer ({error})")
    } else if let Tls::AlertReceived(alert) = error {
        format!("{host} refused the TLS handshake: {alert:?}")
    } else {
        format!("the TLS handshake with {host} failed: {error}")
    }
}

fn certificate(error: &CertificateError, host: &str, ca: Option<&CaBundle>) -> String {
    use CertificateError as Refused;

    if let Refused::ExpiredContext { not_after, .. } = error {
        return format!("the certificate of {host} expired at {}: it has to be renewed there", time(*not_after));
    }
    if let Refused::NotValidYetContext { not_before, .. } = error {
        let from = time(*not_before);
        return format!("the certificate of {host} is valid only from {from}: look at the clocks, there and here");
    }
    if let Refused::NotValidForNameContext { presented, .. } = error {
        let names = names(presented);
        return format!("the certificate is not for {host} but for {names}: write in spec.tokenURL a name that it has");
    }
    // With another key under the same name, as when an authority was replaced, the signature is what does not fit.
    let unknown = matches!(error, Refused::UnknownIssuer | Refused::BadSignature);
    match ca {
        None if unknown => {
            format!("the certificate of {host} is signed by an unknown authority: give its CA in spec.caBundleRef")
        }
        Some(ca) if unknown => format!(
            "the certificate of {host} is not signed by an authority in {ca}: put there the one that signs it, and intermediate ones that the issuer leaves out"
        ),
        Some(_) | None => format!("the certificate of {host} is refused: {error}"),
    }
}

/// The names of a certificate, as far as they can be shown: it is the other side that wrote them.
fn names(presented: &[String]) -> String {
    let more = if presented.len() > MOST_NAMES { " and others" } else { "" };
    match presented {
        [] => "no name at all".into(),
        _ => presented.iter().take(MOST_NAMES).map(|name| bare(name)).collect::<Vec<_>>().join(", ") + more,
    }
}

/// A name without the kind that the TLS library writes around it, as in `DnsName("a.example")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').chars().filter(char::is_ascii_graphic).take(LONGEST_QUOTE).collect()
}

fn time(time: UnixTime) -> String {
    let second = i64::try_from(time.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
    second.map_or_else(|| "an unknown time".into(), |at| at.to_string())
}

/// The error and what caused it. An I/O error hides the one that it was made of.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    successors(error.source(), |error| below(*error))
}

fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(hidden) => Some(hidden),
        None => error.source(),
    }
}

/// What lies at the bottom of it. The URL stands only at its top.
fn last(error: &reqwest::Error) -> String {
    chain(error).last().map_or_else(|| "the client cannot be built".into(), ToString::to_string)
}

fn kind(error: &reqwest::Error) -> Option<ErrorKind> {
    chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate_are_shown_as_far_as_they_are_fit_to_be_seen() {
        assert_eq!(names(&[]), "no name at all");
        let odd =
            [r#"DnsName("a.example")"#, "IpAddress(::1)", "plain", "DnsName(\"a\nb\u{202e}c\")"].map(String::from);
        assert_eq!(names(&odd), "a.example, ::1, plain, abc");
        let many: Vec<String> = (0..100).map(|n| format!("DnsName(\"{n}{}\")", "x".repeat(300))).collect();
        assert!(names(&many).len() < 700 && names(&many).ends_with(" and others"));
    }
}
