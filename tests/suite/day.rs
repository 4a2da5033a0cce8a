//! What does a broken setup cost in a day, in numbers? `cargo failures` prints them, with a hundred resources for each.

use testbed::World;
use testbed::day::{Setup, cost};

async fn costs_no_more_than_its_bound(setup: Setup) {
    let cost = cost(&World::new().await, setup, 1).await;
    assert!(cost.most() <= setup.bound(), "{setup:?}: {cost:?}");
    // It is tried again and again, so that it comes right by itself.
    assert!(cost.most() >= setup.bound() * 3 / 4, "{setup:?}: {cost:?}");
    assert_eq!(cost.requests == 0, setup == Setup::Unreachable, "{cost:?}");
}

#[tokio::test]
async fn a_wrong_password_costs_five_requests_a_day() {
    costs_no_more_than_its_bound(Setup::WrongPassword).await;
}

#[tokio::test]
async fn a_quota_that_is_used_up_costs_a_request_an_hour() {
    costs_no_more_than_its_bound(Setup::QuotaUsedUp).await;
}

#[tokio::test]
async fn an_issuer_that_answers_503_costs_a_hundred_requests_a_day() {
    costs_no_more_than_its_bound(Setup::Unavailable).await;
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_costs_an_attempt_in_five_minutes() {
    costs_no_more_than_its_bound(Setup::Unreachable).await;
}

#[tokio::test]
async fn a_hundred_with_a_wrong_password_cost_no_more_each() {
    let cost = cost(&World::new().await, Setup::WrongPassword, 100).await;
    assert!(cost.most_requests <= Setup::WrongPassword.bound(), "{cost:?}");
}

#[tokio::test]
async fn a_hundred_that_share_a_quota_cost_as_much_as_one() {
    let world = World::new().await;
    let cost = cost(&world, Setup::QuotaUsedUp, 100).await;
    assert!((20..=Setup::QuotaUsedUp.bound()).contains(&cost.requests), "{cost:?}\n{}", world.issuer.log());
}
