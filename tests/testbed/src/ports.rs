//! Free TCP ports on the loopback interface.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::bail;

use crate::random;

/// Below the ports the kernel gives to outgoing connections (32768 on Linux, 49152 elsewhere) and below the node ports
/// of Kubernetes. Binding to port 0 would give one of those: a server that is stopped and started again on it could
/// find it taken by some client, or a client that retries could connect to itself.
const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// Handed out by this process and perhaps not bound yet.
static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A TCP port on 127.0.0.1 that nothing listens on now, never given twice by this process.
///
/// # Caveats
/// Another process may bind it first: who starts a server on it must be ready to try again with another one.
pub fn free_port() -> anyhow::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let size = RANGE.end - RANGE.start;
    let first = u16::try_from(random::number() % u64::from(size))?;
    for step in 0..size {
        let port = RANGE.start + (first + step) % size;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free TCP port on 127.0.0.1 from {} to {}", RANGE.start, RANGE.end - 1)
}
