//! A proxy between one operator and the apiserver, with the faults that a real apiserver does not make by itself.
//!
//! The operator under test is the true binary, unaware of it: its kubeconfig names the proxy's address.

mod call;
mod server;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

pub use call::{Call, Kind};

use crate::ports::free_port;
use crate::wait::until;

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The apiserver does not see it; this status comes back, with `Retry-After` if given.
    Status(u16, Option<u32>),
    /// The apiserver does not see it; this status and body come back.
    Answer(u16, String),
    /// The apiserver carries it out; its answer comes back with this status, and changed.
    Changed(u16, fn(&str) -> String),
    /// The apiserver does not see it; the connection breaks.
    Reset,
    /// The apiserver does not see it; no answer ever comes.
    Hang,
    /// The apiserver carries it out; the connection breaks instead of an answer.
    LostAnswer,
    /// The apiserver carries it out; no answer ever comes.
    HangAfter,
}

/// The faults that are made of a call: each of these, at every call of the protocol.
pub const FAULTS: [Fault; 7] = [
    Fault::Status(409, None),
    Fault::Status(429, Some(1)),
    Fault::Status(500, None),
    Fault::Reset,
    Fault::Hang,
    Fault::LostAnswer,
    Fault::HangAfter,
];

/// A running proxy; it ends when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    dir: tempfile::TempDir,
    /// Ends the server's thread when it is gone.
    _alive: watch::Sender<()>,
}

struct Shared {
    rules: Mutex<Vec<Rule>>,
    calls: Mutex<Vec<Call>>,
    cut: watch::Sender<bool>,
}

struct Rule {
    matches: Box<dyn Fn(&Call) -> bool + Send>,
    faults: VecDeque<Fault>,
    met: Met,
}

/// How often a rule has been met.
#[derive(Clone, Default)]
pub struct Met(Arc<Counts>);

#[derive(Default)]
struct Counts {
    met: AtomicUsize,
    carried_out: AtomicUsize,
}

// === impl Proxy ===

impl Proxy {
    /// Starts a proxy that lets everything through, as the user of `kubeconfig`.
    pub fn start(kubeconfig: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let shared =
            Arc::new(Shared { rules: Mutex::default(), calls: Mutex::default(), cut: watch::Sender::new(false) });
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("kubeconfig"), client_config(port))?;
        let (alive, ends) = watch::channel(());
        let (started, outcome) = std::sync::mpsc::channel();
        let (server, kubeconfig) = (Arc::clone(&shared), kubeconfig.to_owned());
        std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || server::run(port, &kubeconfig, &server, ends, &started))?;
        outcome.recv().context("the proxy's thread ended")??;
        Ok(Self { port, shared, dir, _alive: alive })
    }

    /// The kubeconfig that leads through it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Meets the next calls that `matches` with `faults`, one each, in turn.
    pub fn fault(
        &self,
        matches: impl Fn(&Call) -> bool + Send + 'static,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Met {
        let met = Met::default();
        let faults = faults.into_iter().collect();
        lock(&self.shared.rules).push(Rule { matches: Box::new(matches), faults, met: met.clone() });
        met
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
    }

    /// From now on, the apiserver cannot be reached: open connections stand still, new calls are not answered.
    pub fn cut(&self) {
        self.shared.cut.send_replace(true);
    }

    /// It can be reached again.
    pub fn mend(&self) {
        self.shared.cut.send_replace(false);
    }

    /// Every call so far, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }
}

// === impl Met ===

impl Met {
    /// How often so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.met.load(Ordering::SeqCst)
    }

    /// Waits for the first time.
    pub async fn wait(&self, what: &str, timeout: Duration) {
        until(&format!("a fault to be met: {what}"), timeout, || match self.count() {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await;
    }

    /// Waits until the apiserver has carried out the first such call. Only for a fault that lets it.
    pub async fn wait_until_carried_out(&self, what: &str, timeout: Duration) {
        until(&format!("a call to be carried out: {what}"), timeout, || {
            match self.0.carried_out.load(Ordering::SeqCst) {
                0 => Err(format!("not yet, of {} met", self.count())),
                _ => Ok(()),
            }
        })
        .await;
    }

    fn carried_out(&self) {
        self.0.carried_out.fetch_add(1, Ordering::SeqCst);
    }
}

// === impl Shared ===

impl Shared {
    /// Keeps the call and says what is to happen to it, by which rule.
    fn meet(&self, call: Call) -> Option<(Fault, Met)> {
        let fault = lock(&self.rules).iter_mut().find_map(|rule| {
            if !(rule.matches)(&call) {
                return None;
            }
            let fault = rule.faults.pop_front()?;
            rule.met.0.met.fetch_add(1, Ordering::SeqCst);
            Some((fault, rule.met.clone()))
        });
        lock(&self.calls).push(call);
        fault
    }
}

fn client_config(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{port}\"}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
