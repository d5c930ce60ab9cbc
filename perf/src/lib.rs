//! Loads for a coordinator, or for Redis beside it, and what they came to.
//!
//! [`run`] measures a mix of queries, registers and releases, in a closed or an open loop;
//! [`fill`] registers a population and weighs it; [`run_sessions`] keeps many sessions alive;
//! [`sweep`] ends a session with many names under a load; [`run_messages`] sends messages from name
//! to name; [`run_watchers`] lets many watch, and one of them not read; [`compare`] takes two loads
//! in turns.
//! All report as data (serde) and as a table for people.
//!
//! The generator verifies what it measures: every reply's status is looked at, and a run with a
//! reply that should not have come is an error, not a number.
//!
//! Not here: the command line (`tools/ringway`), which fills a [`LoadSpec`] and prints a
//! [`Report`].

#![forbid(unsafe_code)]

mod compare;
mod config;
mod driver;
mod error;
mod latency;
mod ledger;
mod links;
mod messages;
mod mix;
mod names;
mod net;
mod proc;
mod report;
mod run;
mod scenario;
mod schedule;
mod sessions;
pub mod sink;
mod source;
mod sweep;
mod tally;
mod watch;
mod watchers;
mod wire;
mod worker;

pub use compare::{Comparison, Pair, ROUNDS_MIN, compare};
pub use config::{LoadConfig, LoadSpec, Login, Protocol};
pub use error::{Broken, ConfigError, LoadError};
pub use latency::Quantiles;
pub use messages::{MessagesConfig, MessagesReport, MessagesSpec, run_messages};
pub use mix::Mix;
pub use names::{Alphabet, Distribution, NameMaker, NameSpec};
pub use report::{FillReport, FillStep, OwnUse, Progress, Report, Second, ServerUse};
pub use run::{fill, run};
pub use scenario::{BUILT_IN, Scenario, What};
pub use sessions::{SessionsConfig, SessionsReport, SessionsSpec, run_sessions};
pub use sweep::{SweepReport, sweep};
pub use tally::Expect;
pub use watchers::{Heard, WatchersConfig, WatchersReport, WatchersSpec, run_watchers};
