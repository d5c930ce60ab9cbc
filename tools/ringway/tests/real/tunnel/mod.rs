//! Two sites and a tunnel between them, as processes: what users of it live through.
//!
//! The wire between the two is the test's own (`wire.rs`), so it can break in every way that
//! networks do; users and services are threads of the test (`flows.rs`) or the programs that
//! everybody knows (`tools.rs`).
//!
//! Not here: sessions in virtual time, whose schedules are many (`tunnel/proto/tests`), what a
//! censor sees (`ringway tunnel selftest`), how fast it is (`perf`).

mod absences;
mod drops;
mod flows;
mod hostile;
mod idle;
mod inspected;
mod junk;
mod many;
mod names;
mod nginx;
mod packets;
mod place;
mod served;
mod service;
mod sites;
mod tools;
mod transfers;
mod truth;
mod watched;
mod wire;

use std::sync::Mutex;

/// Held by tests that open thousands of files: two of them beside each other would not fit.
static CROWD: Mutex<()> = Mutex::new(());
