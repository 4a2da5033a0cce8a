//! What a broken setup costs in a day.

use serde_json::json;

use super::{DAY, Day};
use crate::world::{PASSWORD, TestClock, USERNAME};
use crate::{Answer, World};

/// A setup that brings no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The password is wrong.
    WrongPassword,
    /// The quota is used up: 429 with `Retry-After: 3600`.
    QuotaUsedUp,
    /// The issuer answers 503.
    Unavailable,
    /// Nothing listens.
    Unreachable,
}

/// The head of the table.
pub const HEAD: &str = "| setup | resources | most by one | by all | bound for one |\n|---|---|---|---|---|";

/// What it has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Resources, all with the same host and user name.
    pub resources: usize,
    /// Token requests of all of them.
    pub requests: usize,
    /// Those of the one that sent most.
    pub most_requests: usize,
    /// Attempts to connect that failed, of all of them.
    pub connects: usize,
    /// Those of the one that tried most.
    pub most_connects: usize,
}

// === impl Setup ===

impl Setup {
    /// Every setup.
    pub const ALL: [Self; 4] = [Self::WrongPassword, Self::QuotaUsedUp, Self::Unavailable, Self::Unreachable];

    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong password",
            Self::QuotaUsedUp => "429, Retry-After: 3600",
            Self::Unavailable => "503",
            Self::Unreachable => "connection refused",
        }
    }

    /// The reason that the status gives.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::WrongPassword => "RequestRefused",
            Self::QuotaUsedUp => "RateLimited",
            Self::Unavailable => "IssuerUnavailable",
            Self::Unreachable => "IssuerUnreachable",
        }
    }

    /// Most requests, or attempts to connect, that a resource may make in a day.
    #[must_use]
    pub const fn bound(self) -> usize {
        match self {
            Self::WrongPassword => 5,
            Self::QuotaUsedUp => 25,
            Self::Unavailable => 110,
            Self::Unreachable => 300,
        }
    }

    fn apply(self, world: &World) {
        match self {
            Self::WrongPassword => world.issuer.require(USERNAME, &format!("not-{PASSWORD}")),
            Self::QuotaUsedUp => world.issuer.rule(|_| Some(Answer::status(429).header("retry-after", "3600"))),
            Self::Unavailable => world.issuer.rule(|_| Some(Answer::status(503))),
            Self::Unreachable => world.issuer.go_down().expect("the issuer goes down"),
        }
    }
}

// === impl Cost ===

impl Cost {
    /// A row of the table.
    #[must_use]
    pub fn row(&self, setup: Setup) -> String {
        let (what, all) = match setup {
            Setup::Unreachable => ("connects", self.connects),
            Setup::WrongPassword | Setup::QuotaUsedUp | Setup::Unavailable => ("requests", self.requests),
        };
        let (name, resources, most, bound) = (setup.as_str(), self.resources, self.most(), setup.bound());
        format!("| {name} | {resources} | {most} {what} | {all} | {bound} |")
    }

    /// What the bound is about: attempts to connect where nothing could be sent, else requests.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most_requests.max(self.most_connects)
    }
}

/// A day of `resources` with `setup`, in a world of their own.
pub async fn cost(world: &World, setup: Setup, resources: usize) -> Cost {
    setup.apply(world);
    let names: Vec<String> = (0..resources).map(|number| format!("token-{number}")).collect();
    for name in &names {
        world.create_token(name, json!({})).await;
    }
    let mut day = Day::begin(world, TestClock::default(), names.clone()).await;
    day.pass(DAY).await;
    // As the operator counts them where it connects. By one resource, as its status counts what has failed: nothing ever worked.
    let connects = day.metric("verteil_token_requests_total{outcome=\"IssuerUnreachable\"}").unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let connects = connects as usize;
    let mut told = Vec::new();
    for name in &names {
        let status = world.condition(name, "Ready", "False", setup.reason()).await;
        let failures = usize::try_from(status.failed_attempts.unwrap_or_default()).expect("a number");
        told.push(if setup == Setup::Unreachable { failures } else { 0 });
    }
    assert_eq!(told.iter().sum::<usize>(), connects, "the statuses tell of every attempt to connect");
    Cost {
        resources,
        requests: world.issuer.count(),
        most_requests: names.iter().map(|name| world.issuer.count_for(name)).max().unwrap_or_default(),
        connects,
        most_connects: told.iter().copied().max().unwrap_or_default(),
    }
}
