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

/// So many accounts are remembered without a thought; beyond, those of which nobody needs to know are forgotten.
const ROOM: usize = 1024;
/// How long the last wait is remembered after its end: if the next answer says to wait again, it is longer.
const MEMORY: Duration = Duration::from_secs(3600);

/// The accounts that this process has asked with.
pub struct Limits {
    accounts: Mutex<Accounts>,
    bell: UnboundedSender<Key>,
}

struct Accounts {
    of: HashMap<AccountFingerprint, Account>,
    /// Who waits for the verdict of which account: of one at most.
    waits: HashMap<Key, AccountFingerprint>,
    /// How many there may be before some are forgotten: twice as many as were needed the last time.
    room: usize,
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
        let accounts = Accounts { of: HashMap::new(), waits: HashMap::new(), room: ROOM };
        Arc::new(Self { accounts: Mutex::new(accounts), bell })
    }

    /// The wait that keeps `key` from asking with `account`. It is rung for if the wait ends early.
    pub fn hold(&self, account: AccountFingerprint, key: &Key, elapsed: Duration) -> Option<Hold> {
        let mut accounts = self.lock();
        let hold = accounts.of.get(&account)?.hold.filter(|hold| elapsed < hold.until)?;
        accounts.wait(account, key);
        Some(hold)
    }

    /// A turn for `key` at `elapsed`; none while another resource asks first, whose verdict is rung, nor before the end of a
    /// wait. Without `elapsed` no wait counts.
    pub fn turn(self: &Arc<Self>, account: AccountFingerprint, key: &Key, elapsed: Option<Duration>) -> Option<Turn> {
        let mut accounts = self.lock();
        accounts.make_room(elapsed);
        let entry = accounts.of.entry(account).or_default();
        let held = entry.hold.zip(elapsed).is_some_and(|(hold, elapsed)| elapsed < hold.until);
        if entry.asked || held {
            accounts.wait(account, key);
            return None;
        }
        accounts.wait_no_more(key);
        let entry = accounts.of.entry(account).or_default();
        entry.asked = !entry.open;
        let failures = entry.hold.map_or(0, |hold| hold.failures);
        Some(Turn { limits: Arc::clone(self), account, first: entry.asked, failures })
    }

    /// A status tells of a wait. It counts as long as this process knows nothing of the account by itself.
    pub fn restore(&self, account: AccountFingerprint, hold: Hold) {
        let mut accounts = self.lock();
        let entry = accounts.of.entry(account).or_default();
        if !entry.open && !entry.asked && entry.hold.is_none_or(|known| known.restored && known.until < hold.until) {
            entry.hold = Some(hold);
        }
    }

    /// `key` is gone: nobody has to ring for it.
    pub fn forget(&self, key: &Key) {
        self.lock().wait_no_more(key);
    }

    fn ring(&self, keys: impl IntoIterator<Item = Key>) {
        // Nobody listens any more only when the process ends.
        keys.into_iter().for_each(|key| drop(self.bell.send(key)));
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Accounts ===

impl Accounts {
    /// `key` is rung for at the next verdict of `account`, and of no other.
    fn wait(&mut self, account: AccountFingerprint, key: &Key) {
        self.wait_no_more(key);
        self.of.entry(account).or_default().waiting.insert(key.clone());
        self.waits.insert(key.clone(), account);
    }

    fn wait_no_more(&mut self, key: &Key) {
        if let Some(entry) = self.waits.remove(key).and_then(|account| self.of.get_mut(&account)) {
            entry.waiting.remove(key);
        }
    }

    /// Those who wait for a verdict of `account`, which has come.
    fn take_waiting(&mut self, account: AccountFingerprint) -> HashSet<Key> {
        let waiting = self.of.get_mut(&account).map(|entry| std::mem::take(&mut entry.waiting)).unwrap_or_default();
        for key in &waiting {
            self.waits.remove(key);
        }
        waiting
    }

    /// Of an account that is forgotten one resource asks first again: that costs no request.
    fn make_room(&mut self, elapsed: Option<Duration>) {
        let Some(elapsed) = elapsed.filter(|_| self.of.len() >= self.room) else { return };
        self.of.retain(|_, account| account.asked || !account.waiting.is_empty() || account.remembers(elapsed));
        self.room = ROOM.max(self.of.len().saturating_mul(2));
    }
}

// === impl Account ===

impl Account {
    fn remembers(&self, elapsed: Duration) -> bool {
        self.hold.is_some_and(|hold| elapsed < hold.until.saturating_add(MEMORY))
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
        let waiting = accounts.take_waiting(self.account);
        let entry = accounts.of.entry(self.account).or_default();
        entry.open = false;
        entry.asked &= !first;
        // Of several requests that were in flight the longest wait counts.
        entry.hold = Some(entry.hold.filter(|other| other.until > hold.until).unwrap_or(hold));
        drop(accounts);
        self.limits.ring(waiting);
    }

    /// The issuer was not reached, or said nothing: what it has told before stands. If that is nothing, others may ask too.
    pub fn unheard(self) {
        let told = self.limits.lock().of.get(&self.account).is_some_and(|account| account.hold.is_some());
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
        let waiting = accounts.take_waiting(self.account);
        accounts.of.insert(self.account, Account { open: true, ..Account::default() });
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
        let Some(entry) = accounts.of.get_mut(&self.account) else { return };
        entry.asked = false;
        // One alone: if its request comes to nothing as well, it passes the turn on.
        let next = entry.waiting.iter().next().cloned();
        if let Some(next) = &next {
            accounts.wait_no_more(next);
        }
        drop(accounts);
        self.limits.ring(next);
    }
}

#[cfg(test)]
mod tests;
