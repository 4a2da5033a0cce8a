//! A token endpoint that keeps every request and answers what a test scripts.
//!
//! What a request gets is chosen when it has arrived, by the first of these that applies: an [enqueued](Issuer::enqueue)
//! answer, a [rule](Issuer::rule), the server's own refusals (no such page, wrong credentials, wrong grant), and last
//! the default: a token, [fresh](Issuer::set_lifetime) or [repeated](Issuer::repeats_tokens). The answer is sent after
//! the [gate](Issuer::hold), the [latency](Issuer::set_latency) and its own delay.

mod answer;
mod recorded;
mod script;
mod server;
mod tokens;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc as commands, watch};
use tokio_rustls::rustls::ServerConfig;

pub use answer::Answer;
pub use recorded::Recorded;
pub use script::Refusal;
pub use tokens::Issued;

use crate::ServerCertificate;
use crate::ports::free_port;
use crate::wait::until;
use script::Script;
use server::Command;

/// The tag of the resource that uses [`Issuer::url`].
pub const MAIN: &str = "main";
/// How many ports are tried.
const STARTS: usize = 5;

/// A running issuer on a loopback port, on a thread and a runtime of its own; it ends when dropped.
///
/// # Guarantees
/// - A request is in [`Issuer::requests`] before any of its answer is sent, also if its client goes away.
/// - Only requests that arrived whole are kept, but for those answered with [`Answer::close_unread`].
/// - It works with any runtime, or none where a method is not async.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    commands: commands::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// What the server's thread and the test both see.
#[derive(Debug)]
struct Shared {
    /// With which it speaks TLS, if it does.
    tls: Mutex<Option<Arc<ServerConfig>>>,
    script: Mutex<Script>,
    requests: Mutex<Vec<Recorded>>,
    traffic: Mutex<Traffic>,
    /// Whether the gate is shut.
    gate: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Traffic {
    connections: usize,
    failed_handshakes: usize,
    in_flight: usize,
    max_in_flight: usize,
    held: usize,
}

// === impl Issuer ===

impl Issuer {
    /// Starts an issuer that gives a fresh token to everybody who asks properly.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), None)
    }

    /// The same behind TLS, on this loopback address.
    pub fn start_tls(address: impl Into<IpAddr>, certificate: &ServerCertificate) -> anyhow::Result<Self> {
        Self::start_at(address.into(), Some(certificate))
    }

    fn start_at(ip: IpAddr, certificate: Option<&ServerCertificate>) -> anyhow::Result<Self> {
        let mut start = 1;
        loop {
            match Self::start_on((ip, free_port()?).into(), certificate) {
                Err(_) if start < STARTS => start += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_on(address: SocketAddr, certificate: Option<&ServerCertificate>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            tls: Mutex::new(certificate.map(|certificate| Arc::new(certificate.config()))),
            script: Mutex::default(),
            requests: Mutex::default(),
            traffic: Mutex::default(),
            gate: watch::Sender::new(false),
        });
        let (commands, received) = commands::unbounded_channel();
        let (started, outcome) = mpsc::channel();
        let server = shared.clone();
        let thread = std::thread::Builder::new()
            .name("issuer".to_owned())
            .spawn(move || server::run(address, &server, received, &started))?;
        let issuer = Self { address, shared, commands, thread: Some(thread) };
        outcome.recv().context("the issuer's thread ended")?.context("the issuer cannot listen")?;
        Ok(issuer)
    }

    /// The token endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/oauth2/token", self.base_url())
    }

    /// A token endpoint whose requests are counted by `tag`, one for each resource of a test.
    #[must_use]
    pub fn url_for(&self, tag: &str) -> String {
        format!("{}/t/{tag}/oauth2/token", self.base_url())
    }

    /// The same under another name of this machine.
    #[must_use]
    pub fn url_at(&self, host: &str, tag: &str) -> String {
        self.url_for(tag).replace(&self.address.ip().to_string(), host)
    }

    /// `http://127.0.0.1:<port>`, for other paths; `https://` with a certificate.
    #[must_use]
    pub fn base_url(&self) -> String {
        let scheme = if lock(&self.shared.tls).is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Breaks all connections, and shows another certificate from now on.
    pub fn show(&self, certificate: &ServerCertificate) -> anyhow::Result<()> {
        self.go_down()?;
        *lock(&self.shared.tls) = Some(Arc::new(certificate.config()));
        self.come_back()
    }

    // --- what has come in

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.requests).clone()
    }

    /// The requests to [`Issuer::url_for`] `tag`.
    #[must_use]
    pub fn requests_for(&self, tag: &str) -> Vec<Recorded> {
        self.requests().into_iter().filter(|request| request.tag == tag).collect()
    }

    /// How many requests there were.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// How many of them for `tag`.
    #[must_use]
    pub fn count_for(&self, tag: &str) -> usize {
        lock(&self.shared.requests).iter().filter(|request| request.tag == tag).count()
    }

    /// Every new token, in the order of issue. A repeated answer adds nothing.
    #[must_use]
    pub fn issued(&self) -> Vec<Issued> {
        self.script().tokens.issued.clone()
    }

    /// The token last issued for `tag` ([`MAIN`] for [`Issuer::url`]).
    #[must_use]
    pub fn last_token(&self, tag: &str) -> Option<String> {
        self.script().tokens.issued.iter().rev().find(|issued| issued.tag == tag).map(|issued| issued.token.clone())
    }

    /// Most requests that were in flight at one time.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        lock(&self.shared.traffic).max_in_flight
    }

    /// How many connections there were, handshakes included that came to nothing.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared.traffic).connections
    }

    /// How many of them ended in the TLS handshake: most often, the client did not like the certificate.
    #[must_use]
    pub fn failed_handshakes(&self) -> usize {
        lock(&self.shared.traffic).failed_handshakes
    }

    /// A line for each request, for the message of a test that failed.
    #[must_use]
    pub fn log(&self) -> String {
        let lines: Vec<String> = lock(&self.shared.requests).iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// Waits until there were at least `n` requests in all.
    #[track_caller]
    pub fn wait_for_count(&self, n: usize, timeout: Duration) -> impl Future<Output = ()> {
        until("requests at the issuer", timeout, move || self.at_least(n, self.count()))
    }

    /// Waits until there were at least `n` requests for `tag`.
    #[track_caller]
    pub fn wait_for_count_of(&self, tag: &str, n: usize, timeout: Duration) -> impl Future<Output = ()> {
        until("requests at the issuer", timeout, move || self.at_least(n, self.count_for(tag)))
    }

    fn at_least(&self, wanted: usize, seen: usize) -> Result<(), String> {
        if seen >= wanted { Ok(()) } else { Err(format!("{seen} of {wanted}\n{}", self.log())) }
    }

    // --- the gate

    /// From now on requests are kept in flight: taken, counted, their answer chosen, but not answered.
    pub fn hold(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Answers what is held, and what comes from now on.
    pub fn release(&self) {
        self.shared.gate.send_replace(false);
    }

    /// How many requests are held now. One whose client went away is no longer.
    #[must_use]
    pub fn held(&self) -> usize {
        lock(&self.shared.traffic).held
    }

    /// Waits until at least `n` requests are held.
    #[track_caller]
    pub fn wait_until_held(&self, n: usize, timeout: Duration) -> impl Future<Output = ()> {
        until("held requests at the issuer", timeout, move || self.at_least(n, self.held()))
    }

    // --- the line

    /// Stops listening and breaks all connections: connecting is refused until [`Issuer::come_back`].
    pub fn go_down(&self) -> anyhow::Result<()> {
        self.command(Command::Down)
    }

    /// Listens again, on the same port.
    pub fn come_back(&self) -> anyhow::Result<()> {
        self.command(Command::Up)
    }

    fn command(&self, command: fn(server::Done) -> Command) -> anyhow::Result<()> {
        let (done, outcome) = mpsc::channel();
        self.commands.send(command(done)).ok().context("the issuer's thread ended")?;
        Ok(outcome.recv().context("the issuer's thread ended")??)
    }

    /// The script, changed by the methods of `script.rs`.
    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.shared.script)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        // The channel closes with its sender, at which the thread ends.
        (self.commands, _) = commands::unbounded_channel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A rule that panicked poisons the lock; the test fails by what it sees then.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
