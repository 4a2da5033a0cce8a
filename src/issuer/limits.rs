//! What an issuer tells one resource to wait holds for every resource with the same account: same host, same user name.
//!
//! Of an account of which nothing is known, and of one whose wait is over, one resource asks first; the others wait for what it
//! is told. So a limit costs one request, also after a restart, however many resources share it. Kept in memory: what a status
//! tells of a wait is [restored](Limits::restore) from it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::decide::FailureClass;
use crate::memory::Key;
use crate::token::AccountFingerprint;

/// The accounts that this process has asked with.
pub struct Limits {
    accounts: Mutex<HashMap<AccountFingerprint, Account>>,
    bell: UnboundedSender<Key>,
}

/// A wait that the issuer has told one resource of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// With which answer.
    pub class: FailureClass,
    /// Its end, by the clock that nobody can set.
    pub until: Duration,
    /// So many such answers in a row.
    pub failures: u32,
    /// A status tells it: its end is that of somebody's wait, which was lengthened already.
    pub restored: bool,
}

/// The right to send one request with an account. Dropped without a verdict, the next in line asks.
pub struct Turn {
    limits: Arc<Limits>,
    account: AccountFingerprint,
    /// Others wait for its verdict.
    first: bool,
    /// How often in a row the issuer had told this account to wait when the turn began.
    failures: u32,
}

#[derive(Default)]
struct Account {
    /// The last wait, also when it is over; none after any other answer.
    hold: Option<Hold>,
    /// An answer has shown that there is no limit.
    open: bool,
    /// Somebody asks first.
    asked: bool,
    /// Who wants to know of the next verdict.
    waiting: HashSet<Key>,
}

// === impl Limits ===

impl Limits {
    /// No account is known. `bell` rings for a resource that may try again.
    #[must_use]
    pub fn new(bell: UnboundedSender<Key>) -> Arc<Self> {
        Arc::new(Self { accounts: Mutex::default(), bell })
    }

    /// The wait that keeps `key` from asking with `account`. It is rung for if the wait ends early.
    pub fn hold(&self, account: AccountFingerprint, key: &Key, elapsed: Duration) -> Option<Hold> {
        let mut accounts = self.lock();
        let entry = accounts.get_mut(&account)?;
        let hold = entry.hold.filter(|hold| elapsed < hold.until)?;
        entry.waiting.insert(key.clone());
        Some(hold)
    }

    /// A turn for `key` at `elapsed`; none while another resource asks first, whose verdict is rung, nor before the end of a
    /// wait. Without `elapsed` no wait counts.
    pub fn turn(self: &Arc<Self>, account: AccountFingerprint, key: &Key, elapsed: Option<Duration>) -> Option<Turn> {
        let mut accounts = self.lock();
        let entry = accounts.entry(account).or_default();
        let held = entry.hold.zip(elapsed).is_some_and(|(hold, elapsed)| elapsed < hold.until);
        if entry.asked || held {
            entry.waiting.insert(key.clone());
            return None;
        }
        entry.waiting.remove(key);
        entry.asked = !entry.open;
        let failures = entry.hold.map_or(0, |hold| hold.failures);
        Some(Turn { limits: Arc::clone(self), account, first: entry.asked, failures })
    }

    /// A status tells of a wait. It counts as long as this process knows nothing of the account by itself.
    pub fn restore(&self, account: AccountFingerprint, hold: Hold) {
        let mut accounts = self.lock();
        let entry = accounts.entry(account).or_default();
        if !entry.open && !entry.asked && entry.hold.is_none_or(|known| known.restored && known.until < hold.until) {
            entry.hold = Some(hold);
        }
    }

    /// `key` is gone: nobody has to ring for it.
    pub fn forget(&self, key: &Key) {
        for account in self.lock().values_mut() {
            account.waiting.remove(key);
        }
    }

    fn ring(&self, keys: impl IntoIterator<Item = Key>) {
        // Nobody listens any more only when the process ends.
        keys.into_iter().for_each(|key| drop(self.bell.send(key)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountFingerprint, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Turn {
    /// How often in a row the issuer had told this account to wait before.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The issuer said to wait: so do all others with this account.
    pub fn held(mut self, hold: Hold) {
        let first = std::mem::take(&mut self.first);
        let mut accounts = self.limits.lock();
        let entry = accounts.entry(self.account).or_default();
        entry.open = false;
        entry.asked &= !first;
        // Of several requests that were in flight the longest wait counts.
        entry.hold = Some(entry.hold.filter(|other| other.until > hold.until).unwrap_or(hold));
        let waiting = std::mem::take(&mut entry.waiting);
        drop(accounts);
        self.limits.ring(waiting);
    }

    /// The issuer was not reached, or said nothing: what it has told before stands. If that is nothing, others may ask too.
    pub fn unheard(self) {
        let told = self.limits.lock().get(&self.account).is_some_and(|account| account.hold.is_some());
        if !told {
            self.opened();
        }
    }

    /// The issuer said something else: others may ask.
    pub fn opened(mut self) {
        if !std::mem::take(&mut self.first) {
            // It was open when this request was sent; a wait that was told since stands.
            return;
        }
        let mut accounts = self.limits.lock();
        let entry = accounts.entry(self.account).or_default();
        let waiting = std::mem::take(&mut entry.waiting);
        *entry = Account { open: true, ..Account::default() };
        drop(accounts);
        self.limits.ring(waiting);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.first {
            return;
        }
        let mut accounts = self.limits.lock();
        let Some(entry) = accounts.get_mut(&self.account) else { return };
        entry.asked = false;
        // One alone: if its request comes to nothing as well, it passes the turn on.
        let next = entry.waiting.iter().next().cloned();
        if let Some(next) = &next {
            entry.waiting.remove(next);
        }
        drop(accounts);
        self.limits.ring(next);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::token::ProcessKey;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn key(name: &str) -> Key {
        Key { namespace: "n".into(), name: name.into() }
    }

    fn limited(until: Duration, failures: u32) -> Hold {
        Hold { class: FailureClass::RateLimited, until, failures, restored: false }
    }

    fn rung(rings: &mut UnboundedReceiver<Key>) -> Vec<String> {
        let mut names: Vec<String> = std::iter::from_fn(|| rings.try_recv().ok()).map(|key| key.name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_limit_holds_the_account_and_no_other() {
        let (bell, mut rings) = unbounded_channel();
        let (limits, process) = (Limits::new(bell), ProcessKey::generate().unwrap());
        let (ours, others) = (process.account("h:443", "u"), process.account("h:443", "v"));
        assert!(ours != process.account("g:443", "u") && ours == process.account("h:443", "u"));
        let first = limits.turn(ours, &key("a"), NOW).unwrap();
        // Nothing is known yet: the others wait for what the first is told.
        assert!(limits.turn(ours, &key("b"), NOW).is_none());
        assert!(limits.turn(others, &key("c"), NOW).is_some());
        first.held(limited(HOUR, 1));
        assert_eq!(rung(&mut rings), ["b"]);
        assert_eq!(limits.hold(ours, &key("b"), Duration::ZERO), Some(limited(HOUR, 1)));
        assert!(limits.turn(ours, &key("b"), NOW).is_none());
        assert_eq!(limits.hold(others, &key("c"), Duration::ZERO), None);
        // After its end one asks, and opens it for all.
        assert_eq!(limits.hold(ours, &key("b"), HOUR), None);
        let probe = limits.turn(ours, &key("a"), Some(HOUR)).unwrap();
        assert_eq!(probe.failures(), 1);
        assert!(limits.turn(ours, &key("d"), NOW).is_none());
        probe.opened();
        assert_eq!(rung(&mut rings), ["b", "d"]);
        // Both in flight: what one is told stands, whatever the other hears of its earlier request.
        let (one, two) = (limits.turn(ours, &key("b"), NOW).unwrap(), limits.turn(ours, &key("d"), NOW).unwrap());
        assert_eq!((one.failures(), two.failures()), (0, 0));
        one.held(limited(3 * HOUR, 1));
        two.opened();
        assert_eq!(limits.hold(ours, &key("d"), 2 * HOUR), Some(limited(3 * HOUR, 1)));
    }

    #[test]
    fn a_turn_that_comes_to_nothing_goes_to_one_of_those_who_wait() {
        let (bell, mut rings) = unbounded_channel();
        let (limits, account) = (Limits::new(bell), ProcessKey::generate().unwrap().account("h", "u"));
        let first = limits.turn(account, &key("a"), NOW);
        for name in ["b", "c"] {
            assert!(limits.turn(account, &key(name), NOW).is_none());
        }
        limits.forget(&key("c"));
        drop(first);
        assert_eq!(rung(&mut rings), ["b"]);
        assert!(limits.turn(account, &key("b"), NOW).is_some());
    }

    #[test]
    fn silence_is_no_news_of_a_limit() {
        let (bell, mut rings) = unbounded_channel();
        let (limits, account) = (Limits::new(bell), ProcessKey::generate().unwrap().account("h", "u"));
        limits.turn(account, &key("a"), NOW).unwrap().held(limited(HOUR, 3));
        let probe = limits.turn(account, &key("a"), Some(HOUR)).unwrap();
        assert!(limits.turn(account, &key("b"), Some(HOUR)).is_none());
        probe.unheard();
        // One alone asks again, and the waits go on where they were.
        assert_eq!(rung(&mut rings), ["b"]);
        let next = limits.turn(account, &key("b"), Some(HOUR)).unwrap();
        assert_eq!(next.failures(), 3);
        assert!(limits.turn(account, &key("a"), Some(HOUR)).is_none());
        // Where nothing was told, nobody has to wait for the first.
        let other = ProcessKey::generate().unwrap().account("g", "u");
        let first = limits.turn(other, &key("a"), NOW).unwrap();
        assert!(limits.turn(other, &key("b"), NOW).is_none());
        first.unheard();
        let (one, two) = (limits.turn(other, &key("a"), NOW), limits.turn(other, &key("b"), NOW));
        assert!(one.is_some() && two.is_some());
    }

    #[test]
    fn what_a_status_tells_counts_until_the_issuer_has_spoken() {
        let (bell, _rings) = unbounded_channel();
        let (limits, account) = (Limits::new(bell), ProcessKey::generate().unwrap().account("h", "u"));
        let told = |until, failures| Hold { restored: true, ..limited(until, failures) };
        for hold in [told(HOUR / 2, 9), told(HOUR, 3), told(HOUR / 2, 9)] {
            limits.restore(account, hold);
        }
        assert_eq!(limits.hold(account, &key("a"), Duration::ZERO), Some(told(HOUR, 3)));
        // Asked out of turn, because something has changed.
        limits.turn(account, &key("a"), None).unwrap().held(limited(2 * HOUR, 4));
        limits.restore(account, told(3 * HOUR, 3));
        assert_eq!(limits.hold(account, &key("a"), Duration::ZERO), Some(limited(2 * HOUR, 4)));
        limits.turn(account, &key("a"), None).unwrap().opened();
        limits.restore(account, told(HOUR, 3));
        assert_eq!(limits.hold(account, &key("a"), Duration::ZERO), None);
    }
}
