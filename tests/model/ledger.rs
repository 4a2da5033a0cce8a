//! What was asked of the issuer, and what there was to ask for: every request is held against what has happened since the
//! one before it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

/// A process asks no oftener.
const GAP: Duration = Duration::from_secs(5);
/// A claim lasts for so long beyond the time-out of a request.
const SLACK: Duration = Duration::from_secs(15);
/// And for so long beyond the time-out of a request that may still be sent.
const RESERVE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    InFlight,
    /// A token, or one that was given before.
    Token {
        repeated: bool,
    },
    /// A token was made, and the answer did not arrive.
    Lost,
    /// The token given before, in its last second.
    Lifeless,
    /// No token was made: wait at least so long.
    Failed(Duration),
}

#[derive(Clone, Debug)]
pub struct Post {
    process: u64,
    /// When its process had read the inputs.
    read: u64,
    sent: u64,
    at: Duration,
    /// The time of day then: the token's end counts from it.
    pub asked: Timestamp,
    timeout: Duration,
    pub inputs: String,
    pub outcome: Outcome,
    pub token: Option<String>,
    /// The token's end, by the time of day.
    pub expires: Option<Timestamp>,
    /// It was written to the Secret.
    landed: bool,
    /// When.
    landed_at: u64,
    /// A loss that somebody has to have counted.
    charged: bool,
    /// It was sent because the status with the claim of this one was lost.
    doubles: Option<usize>,
}

/// Sequence numbers of what has happened last.
#[derive(Default)]
pub struct Ledger {
    pub posts: Vec<Post>,
    now: u64,
    /// Something that is worth a token.
    cause: u64,
    /// Something that ends a wait.
    lift: u64,
    /// The status was lost.
    wipe: u64,
    /// The resource was deleted and made again.
    remake: u64,
    /// The time of day was set.
    step: u64,
    crashed: BTreeSet<u64>,
    /// Losses that the operators have to have counted.
    pub losses: u64,
}

impl Ledger {
    pub const fn now(&self) -> u64 {
        self.now
    }

    const fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub const fn cause(&mut self) {
        self.cause = self.tick();
    }

    pub const fn lift(&mut self) {
        self.lift = self.tick();
    }

    pub const fn wipe(&mut self) {
        self.wipe = self.tick();
    }

    pub const fn remake(&mut self) {
        self.wipe();
        self.remake = self.wipe;
    }

    pub const fn step(&mut self) {
        self.step = self.tick();
    }

    pub fn crash(&mut self, process: u64) {
        self.tick();
        self.crashed.insert(process);
    }

    /// A request has been sent. Is there a reason for it, and is nothing in its way?
    pub fn post(
        &mut self,
        process: u64,
        read: u64,
        timeout: Duration,
        (asked, at): (Timestamp, Duration),
        inputs: String,
    ) -> Result<(), String> {
        let sent = self.tick();
        if let Some(other) = self.posts.iter().find(|p| p.outcome == Outcome::InFlight && self.wipe <= p.read) {
            return Err(format!("two requests in flight: {other:?}"));
        }
        let own = self.posts.iter().rev().find(|post| post.process == process);
        if let Some(own) = own.filter(|own| at < own.at + GAP && self.step.max(self.remake) <= own.sent) {
            return Err(format!("two requests of one process within 5 s: {own:?}"));
        }
        if let Some(last) = self.posts.last() {
            self.waited(last, process, at)?;
        }
        let before = self.posts.iter().rposition(|p| matches!(p.outcome, Outcome::Token { .. } | Outcome::Lost));
        let earlier = self.posts.iter().rposition(|p| matches!(p.outcome, Outcome::InFlight | Outcome::Token { .. }));
        let doubles = earlier.filter(|earlier| self.is_wiped_away(&self.posts[*earlier], read));
        if let Some(before) = before {
            let charge = self.justified(&self.posts[before], process, read, at)?;
            if charge && !self.posts[before].charged {
                self.posts[before].charged = true;
                self.losses += 1;
            }
        }
        let outcome = Outcome::InFlight;
        let (token, expires, landed, landed_at, charged) = (None, None, false, 0, false);
        self.posts.push(Post {
            process,
            read,
            sent,
            at,
            asked,
            timeout,
            inputs,
            outcome,
            token,
            expires,
            landed,
            landed_at,
            charged,
            doubles,
        });
        Ok(())
    }

    /// Has the wait after `last` been kept?
    fn waited(&self, last: &Post, process: u64, at: Duration) -> Result<(), String> {
        let wait = match last.outcome {
            Outcome::Failed(wait) => wait,
            Outcome::Lost => Duration::from_secs(60),
            Outcome::Lifeless => GAP,
            Outcome::InFlight | Outcome::Token { .. } => return Ok(()),
        };
        let excused = [self.lift, self.wipe, self.step].into_iter().any(|event| event > last.read);
        // Another process knows of it only if it could still be written down.
        let wait = if process == last.process { wait } else { GAP };
        if !excused && at < last.at + wait {
            return Err(format!("asked again after {:?}, not {wait:?}: {last:?}", at.checked_sub(last.at)));
        }
        Ok(())
    }

    /// Is there a reason for a request after the one that brought a token? True if it is a loss that must be counted.
    fn justified(&self, before: &Post, process: u64, read: u64, at: Duration) -> Result<bool, String> {
        if self.cause > before.read {
            return Ok(false);
        }
        if self.is_wiped_away(before, read) {
            return Ok(false);
        }
        let taken_over = process != before.process && at >= before.at + before.timeout + RESERVE;
        let lost = before.outcome == Outcome::Lost || self.crashed.contains(&before.process) || taken_over;
        if lost && !before.landed {
            return Ok(true);
        }
        Err(format!("a request without a cause, after {before:?}"))
    }

    /// Without the claim nobody could know of the token that landed after this look.
    fn is_wiped_away(&self, before: &Post, read: u64) -> bool {
        let repeated = matches!(before.outcome, Outcome::Token { repeated: true });
        self.wipe > before.read && (!before.landed || repeated || before.landed_at > read)
    }

    /// Pairs of tokens where one was due, because the status was lost in between: those that a process has seen afterwards. A
    /// crash, or something else that was worth a token, hides them; and past the claim's time nobody knows that it was lost.
    pub fn doubled(&self) -> u64 {
        let seen =
            |post: &Post| post.outcome == Outcome::Token { repeated: false } && !self.crashed.contains(&post.process);
        let pairs = self.posts.iter().filter_map(|post| Some((post, self.posts.get(post.doubles?)?)));
        let calm = |post: &Post| self.cause <= post.read && self.step <= post.read;
        let claimed = |post: &Post, before: &Post| post.at < before.at + before.timeout + SLACK;
        pairs.filter(|(post, before)| seen(post) && seen(before) && calm(before) && claimed(post, before)).count()
            as u64
    }

    /// The answer to the request in flight of `process`.
    pub fn answered(&mut self, process: u64, outcome: Outcome, token: Option<(String, Timestamp)>) {
        self.tick();
        let in_flight = |post: &&mut Post| post.process == process && post.outcome == Outcome::InFlight;
        let post = self.posts.iter_mut().rev().find(in_flight).unwrap();
        post.outcome = outcome;
        (post.token, post.expires) = token.unzip();
    }

    /// `process` has written the Secret with `token`. Returns whether that was an answer that repeated a token.
    ///
    /// An answer that was lost never lands, and one that repeats a token lands only with the process that got it: others write
    /// that token too when they repair the Secret, with the seals that it had.
    pub fn landed(&mut self, process: u64, token: &str) -> bool {
        let now = self.tick();
        let mut repeated = false;
        for post in &mut self.posts {
            let lands = match post.outcome {
                Outcome::Token { repeated } => !repeated || post.process == process,
                Outcome::InFlight | Outcome::Lost | Outcome::Lifeless | Outcome::Failed(_) => false,
            };
            if lands && post.token.as_deref() == Some(token) {
                post.landed = true;
                post.landed_at = now;
                repeated = post.outcome == Outcome::Token { repeated: true };
            }
        }
        repeated
    }

    /// Ends of tokens that no Secret holds: after that they are not missed.
    pub fn unsaved_ends(&self) -> impl Iterator<Item = Timestamp> {
        self.posts.iter().filter(|post| !post.landed).filter_map(|post| post.expires)
    }

    /// The token that the Secret must hold at rest; none if the last one was lost, or is no longer wanted.
    pub fn last(&self) -> Option<&str> {
        let last = self.posts.iter().rev().find(|post| post.token.is_some())?;
        let excused = last.outcome == Outcome::Lost
            || self.crashed.contains(&last.process)
            || [self.cause, self.wipe, self.step].into_iter().any(|event| event > last.read);
        if last.landed || !excused { last.token.as_deref() } else { None }
    }

    /// Whether `token` was issued for `inputs`.
    pub fn was_issued_for(&self, token: &str, inputs: &str) -> bool {
        self.posts.iter().any(|post| post.token.as_deref() == Some(token) && post.inputs == inputs)
    }
}
