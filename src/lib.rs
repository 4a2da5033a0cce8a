//! Verteil token operator: one OAuth2 access token for each `VerteilToken`, kept in a Secret that pods mount, and requested
//! anew only when the stored one has reached its end.
//!
//! # Flow
//!
//! A watch event of a resource, or of a Secret that a resource names, rings for one resource. A pass over it
//! ([`reconcile`]) reads what matters live, decides ([`decide`], pure), acts, and reports.
//!
//! At the start, and when the process begins to lead, all resources are looked at together (`survey`): those that need nothing are
//! left alone until that ends, and only the others are rung for.
//!
//! # Guarantees
//!
//! - The Secret is the source of truth: restarts, upgrades, failovers and a wiped status cost no token.
//! - A token that was issued is saved, never requested again: it stays in memory until Secret and status are written.
//! - One request at a time for each resource, over all operators: a claim in the status is written before it is sent.
//!
//! # What cannot be had
//!
//! An issuer cannot be fenced. A crash between the request and the write of the Secret may cost one token; it is counted.

pub mod api;
pub mod args;
pub mod ca;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod credentials;
pub mod decide;
pub mod drain;
pub mod handover;
pub mod issuer;
pub mod lease;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod panics;
mod pass;
pub mod quote;
pub mod ready;
pub mod reconcile;
pub mod resources;
pub mod run;
pub mod secret;
pub mod serve;
pub mod start;
pub mod store;
mod survey;
pub mod token;
pub mod tokenapi;
pub mod view;
pub mod wakes;
mod work;
