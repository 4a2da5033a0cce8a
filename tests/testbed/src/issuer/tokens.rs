//! The tokens an issuer gives by itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Answer, Recorded};
use crate::random;

/// The lifetime of this vendor's tokens.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(43199);

/// A token that was made, whether or not its answer has reached anybody.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Whose request made it.
    pub tag: String,
    /// Its value.
    pub token: String,
    /// When.
    pub at: Timestamp,
    /// For how long.
    pub lifetime: Duration,
}

#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) issued: Vec<Issued>,
    pub(super) lifetime: Duration,
    pub(super) repeats: bool,
    /// Tokens are filled up to so many characters.
    pub(super) length: usize,
    /// What [`Issuer::advance`](super::Issuer::advance) has added to the clock.
    pub(super) ahead: Duration,
    /// Where the clock stands but for that, if it was stopped.
    pub(super) stopped: Option<Instant>,
    /// By user and path: what is given again until its end.
    given: HashMap<(Option<String>, String), Given>,
}

#[derive(Debug)]
struct Given {
    token: String,
    end: Instant,
}

// === impl Tokens ===

impl Default for Tokens {
    fn default() -> Self {
        Self {
            issued: Vec::new(),
            lifetime: DEFAULT_LIFETIME,
            repeats: false,
            length: 0,
            ahead: Duration::ZERO,
            stopped: None,
            given: HashMap::new(),
        }
    }
}

impl Tokens {
    pub(super) fn answer(&mut self, request: &Recorded) -> Answer {
        if self.repeats {
            let (token, left) = self.repeated(request);
            Answer::token(&token).expires_in(seconds(left))
        } else {
            Answer::token(&self.new_token(&request.tag)).expires_in(seconds(self.lifetime))
        }
    }

    fn new_token(&mut self, tag: &str) -> String {
        let number = self.issued.len() + 1;
        let token = format!("fake-token-{tag}-{number}-{}", random::suffix());
        let token = format!("{token:x<length$}", length = self.length);
        self.issued.push(Issued {
            tag: tag.to_owned(),
            token: token.clone(),
            at: Timestamp::now(),
            lifetime: self.lifetime,
        });
        token
    }

    /// The token given before and what is left of it, or a new one after its end.
    fn repeated(&mut self, request: &Recorded) -> (String, Duration) {
        let key = (request.credentials().map(|(user, _)| user), request.path.clone());
        let now = self.stopped.unwrap_or_else(Instant::now) + self.ahead;
        if let Some(given) = self.given.get(&key)
            && given.end > now
        {
            return (given.token.clone(), given.end - now);
        }
        let token = self.new_token(&request.tag);
        self.given.insert(key, Given { token: token.clone(), end: now + self.lifetime });
        // The server being modelled looks at its clock a second time: of 43200 s it shows 43199.
        (token, self.lifetime.saturating_sub(Duration::from_millis(1)))
    }
}

/// Whole seconds, cut off as by an integer division.
fn seconds(left: Duration) -> i64 {
    left.as_secs().try_into().unwrap_or(i64::MAX)
}
