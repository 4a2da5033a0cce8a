//! What a test tells the issuer to do, and the choice of an answer.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use http::Method;

use super::answer::Ending;
use super::tokens::Tokens;
use super::{Answer, Issuer, Recorded};

/// How wrong credentials are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// [`Answer::unauthorized`], as this vendor's server does.
    #[default]
    Spring,
    /// 401 `invalid_client`.
    Rfc6749,
}

type Rule = Box<dyn FnMut(&Recorded) -> Option<Answer> + Send>;

#[derive(Default)]
pub(super) struct Script {
    /// With the tag whose request it waits for, if not anybody's.
    queue: VecDeque<(Option<String>, Answer)>,
    rules: Vec<Rule>,
    required: Option<(String, String, Refusal)>,
    pub(super) latency: Duration,
    pub(super) tokens: Tokens,
}

// === impl Issuer ===

impl Issuer {
    /// The answer to the next request that no earlier one is for.
    pub fn enqueue(&self, answer: Answer) {
        self.script().queue.push_back((None, answer));
    }

    /// The answer to the next request for `tag`.
    pub fn enqueue_for(&self, tag: &str, answer: Answer) {
        self.script().queue.push_back((Some(tag.to_owned()), answer));
    }

    /// Asks `rule` about each request from now on, after the rules before it. It may not call this issuer.
    pub fn rule(&self, rule: impl FnMut(&Recorded) -> Option<Answer> + Send + 'static) {
        self.script().rules.push(Box::new(rule));
    }

    /// Forgets enqueued answers and rules.
    pub fn clear_script(&self) {
        let mut script = self.script();
        script.queue.clear();
        script.rules.clear();
    }

    /// The lifetime of the tokens it gives by itself from now on; 43199 s at first.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.script().tokens.lifetime = lifetime;
    }

    /// From now on it answers as the Java authorization server does: the same token to the same user at the same path
    /// with the remaining whole seconds (of 43200 s first 43199), in its last second 0, and a new one to the first
    /// request after its end.
    pub fn repeats_tokens(&self, lifetime: Duration) {
        let tokens = &mut self.script().tokens;
        tokens.lifetime = lifetime;
        tokens.repeats = true;
    }

    /// Stops the clock by which it repeats tokens: only [`Issuer::advance`] moves it from now on.
    pub fn stop_clock(&self) {
        self.script().tokens.stopped = Some(Instant::now());
    }

    /// Moves the clock by which it repeats tokens.
    pub fn advance(&self, by: Duration) {
        self.script().tokens.ahead += by;
    }

    /// Tokens have at least so many characters from now on.
    pub fn set_token_length(&self, length: usize) {
        self.script().tokens.length = length;
    }

    /// The time before each answer, beside its own delay.
    pub fn set_latency(&self, latency: Duration) {
        self.script().latency = latency;
    }

    /// Refuses whoever is not `user` with `password`, in the `Authorization` header or in the body.
    pub fn require(&self, user: &str, password: &str) {
        self.require_or(user, password, Refusal::Spring);
    }

    /// [`Issuer::require`] with a choice of refusal.
    pub fn require_or(&self, user: &str, password: &str, refusal: Refusal) {
        self.script().required = Some((user.to_owned(), password.to_owned(), refusal));
    }
}

// === impl Script ===

impl Script {
    /// Whether the next request for `tag` is to be cut off before its body is read; takes that answer if so.
    pub(super) fn takes_close_unread(&mut self, tag: &str) -> bool {
        let next = self.next_for(tag);
        let closes = next.is_some_and(|next| self.queue[next].1.ending == Ending::CloseUnread);
        if closes {
            next.and_then(|next| self.queue.remove(next));
        }
        closes
    }

    /// What `request` gets, and the latency it gets it with.
    pub(super) fn choose(&mut self, request: &Recorded) -> (Answer, Duration) {
        let answer = self
            .next_for(&request.tag)
            .and_then(|next| self.queue.remove(next))
            .map(|(_, answer)| answer)
            .or_else(|| self.rules.iter_mut().find_map(|rule| rule(request)))
            .or_else(|| self.refusal(request))
            .unwrap_or_else(|| self.tokens.answer(request));
        (answer, self.latency)
    }

    fn next_for(&self, tag: &str) -> Option<usize> {
        self.queue.iter().position(|(wanted, _)| wanted.as_deref().is_none_or(|wanted| wanted == tag))
    }

    fn refusal(&self, request: &Recorded) -> Option<Answer> {
        if !request.path.ends_with("/oauth2/token") {
            return Some(Answer::status(404));
        }
        if request.method != Method::POST {
            return Some(Answer::status(405).header("allow", "POST"));
        }
        if let Some((user, password, refusal)) = &self.required
            && request.credentials().is_none_or(|(u, p)| (&u, &p) != (user, password))
        {
            return Some(match refusal {
                Refusal::Spring => Answer::unauthorized(&request.path),
                Refusal::Rfc6749 => Answer::oauth_error(401, "invalid_client"),
            });
        }
        (request.parameter("grant_type").as_deref() != Some("client_credentials"))
            .then(|| Answer::oauth_error(400, "unsupported_grant_type"))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("queue", &self.queue)
            .field("rules", &self.rules.len())
            .field("required", &self.required)
            .field("latency", &self.latency)
            .field("tokens", &self.tokens)
            .finish()
    }
}
