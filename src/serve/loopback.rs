//! Listening where only this machine, or this pod, can reach it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::uri::Authority;
use tokio::net::TcpListener;

/// An address of the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddress(SocketAddr);

/// It is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoopbackError {
    /// Not an address.
    #[error("write an IP address and a port, such as 127.0.0.1:8081")]
    NotAnAddress,
    /// Others could reach it.
    #[error(
        "{0} is no loopback address: the debug endpoint asks nobody who they are, so write 127.0.0.1 or [::1] (kubectl port-forward reaches it there)"
    )]
    NotLoopback(IpAddr),
}

// === impl LoopbackAddress ===

impl FromStr for LoopbackAddress {
    type Err = LoopbackError;

    fn from_str(text: &str) -> Result<Self, LoopbackError> {
        let address: SocketAddr = text.parse().map_err(|_| LoopbackError::NotAnAddress)?;
        if address.ip().is_loopback() { Ok(Self(address)) } else { Err(LoopbackError::NotLoopback(address.ip())) }
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Binds `address`. The operator does its work without: a port that is taken is a warning.
pub async fn listen_for_debugging(address: LoopbackAddress) -> Option<TcpListener> {
    match TcpListener::bind(address.0).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%address, %error, "cannot listen (--debug-listen): there is no debug endpoint");
            None
        }
    }
}

/// Whether a `Host` header names this machine. A page in somebody's browser that has its own name resolve to 127.0.0.1 (DNS
/// rebinding) cannot make it do so.
pub(super) fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_accepted() {
        for loopback in ["127.0.0.1:8081", "127.1.2.3:1", "[::1]:8081"] {
            assert!(loopback.parse::<LoopbackAddress>().is_ok(), "{loopback}");
        }
        for other in ["0.0.0.0:8081", "[::]:8081", "10.0.0.1:8081", "[::ffff:10.0.0.1]:8081"] {
            assert!(matches!(other.parse::<LoopbackAddress>(), Err(LoopbackError::NotLoopback(_))), "{other}");
        }
        for nothing in ["", "8081", "localhost:8081", "127.0.0.1"] {
            assert_eq!(nothing.parse::<LoopbackAddress>(), Err(LoopbackError::NotAnAddress), "{nothing}");
        }
    }

    #[test]
    fn a_name_that_others_can_have_resolved_is_not_local() {
        for local in ["localhost", "LocalHost:8081", "127.0.0.1:9", "[::1]:8081", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for other in ["", "evil.example", "localhost.evil.example:8081", "127.0.0.1.evil.example", "10.0.0.1", "x@y@z"]
        {
            assert!(!is_local(other), "{other}");
        }
    }
}
