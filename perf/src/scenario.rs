//! Named loads in files: what the README's table was measured with, to be run again by anybody.
//!
//! A scenario is a TOML file of one kind: `[load]`, `[fill]`, `[sweep]`, `[sessions]`,
//! `[messages]`, `[watchers]`, or `[a]` and `[b]` to compare. Targets and process ids are the
//! caller's to fill in; the built-in files hold none.

use serde::Deserialize;

use crate::compare::ROUNDS_MIN;
use crate::config::LoadSpec;
use crate::error::ConfigError;
use crate::messages::MessagesSpec;
use crate::sessions::SessionsSpec;
use crate::watchers::WatchersSpec;

/// A scenario, as read from its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The question that it answers.
    pub question: String,
    /// What to do.
    pub what: What,
}

/// What a scenario does.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// One measured run.
    Load(Box<LoadSpec>),
    /// A population registered and weighed.
    Fill {
        /// Its load.
        fill: Box<LoadSpec>,
        /// Release every second name afterwards, and register as many new ones.
        churn_half: bool,
    },
    /// The names of a dead session swept under a load.
    Sweep {
        /// The load.
        load: Box<LoadSpec>,
        /// How many names.
        doomed: u64,
    },
    /// Sessions kept alive.
    Sessions(Box<SessionsSpec>),
    /// Messages from name to name.
    Messages(Box<MessagesSpec>),
    /// Many that watch, and one that does not read.
    Watchers(Box<WatchersSpec>),
    /// Two loads in turns.
    Compare {
        /// The first, usually Ringway.
        a: Box<LoadSpec>,
        /// The second, usually Redis.
        b: Box<LoadSpec>,
        /// How often each; at least five.
        rounds: usize,
    },
}

/// The file, before it is known to be of one kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    question: String,
    #[serde(default)]
    churn_half: bool,
    rounds: Option<usize>,
    #[serde(default = "doomed")]
    doomed: u64,
    sweep: Option<Box<LoadSpec>>,
    load: Option<Box<LoadSpec>>,
    fill: Option<Box<LoadSpec>>,
    sessions: Option<Box<SessionsSpec>>,
    messages: Option<Box<MessagesSpec>>,
    watchers: Option<Box<WatchersSpec>>,
    a: Option<Box<LoadSpec>>,
    b: Option<Box<LoadSpec>>,
}

/// Names of a session that is to end, unless told otherwise.
const fn doomed() -> u64 {
    1_000_000
}

/// The built-in scenarios: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("query", include_str!("../scenarios/query.toml")),
    ("query-100m", include_str!("../scenarios/query-100m.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("churn-100m", include_str!("../scenarios/churn-100m.toml")),
    ("fill-10m", include_str!("../scenarios/fill-10m.toml")),
    ("fill-30m", include_str!("../scenarios/fill-30m.toml")),
    ("fill-70m", include_str!("../scenarios/fill-70m.toml")),
    ("fill-100m", include_str!("../scenarios/fill-100m.toml")),
    ("sweep", include_str!("../scenarios/sweep.toml")),
    ("resp-p1", include_str!("../scenarios/resp-p1.toml")),
    ("resp-p16", include_str!("../scenarios/resp-p16.toml")),
    ("resp-p32", include_str!("../scenarios/resp-p32.toml")),
    ("resp-register", include_str!("../scenarios/resp-register.toml")),
    ("resp-latency", include_str!("../scenarios/resp-latency.toml")),
    ("resp-memory", include_str!("../scenarios/resp-memory.toml")),
    ("redis-memory", include_str!("../scenarios/redis-memory.toml")),
    ("forwarded", include_str!("../scenarios/forwarded.toml")),
    ("sessions-gateway", include_str!("../scenarios/sessions-gateway.toml")),
    ("sessions-own", include_str!("../scenarios/sessions-own.toml")),
    ("message", include_str!("../scenarios/message.toml")),
    ("message-receipt", include_str!("../scenarios/message-receipt.toml")),
    ("message-fenced", include_str!("../scenarios/message-fenced.toml")),
    ("watchers", include_str!("../scenarios/watchers.toml")),
];

impl Scenario {
    /// Reads a scenario file's text; `name` is for the error.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ConfigError> {
        let file: File = toml::from_str(text).map_err(|source| ConfigError::Scenario {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let churn_half = file.churn_half;
        let rounds = file.rounds.unwrap_or(ROUNDS_MIN);
        let doomed = file.doomed;
        let kinds = [
            file.load.map(What::Load),
            file.fill.map(|fill| What::Fill { fill, churn_half }),
            file.sweep.map(|load| What::Sweep { load, doomed }),
            file.sessions.map(What::Sessions),
            file.messages.map(What::Messages),
            file.watchers.map(What::Watchers),
            file.a.zip(file.b).map(|(a, b)| What::Compare { a, b, rounds }),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let (Some(what), None) = (kinds.next(), kinds.next()) else {
            return Err(ConfigError::ScenarioKind(name.to_owned()));
        };
        Ok(Scenario { question: file.question, what })
    }

    /// One of the built-in scenarios.
    pub fn built_in(name: &str) -> Result<Scenario, ConfigError> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Scenario::parse(name, text),
            None => Err(ConfigError::NoScenario {
                name: name.to_owned(),
                known: BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadConfig;
    use crate::messages::MessagesConfig;
    use crate::sessions::SessionsConfig;
    use crate::watchers::WatchersConfig;

    /// Every built-in scenario parses and is a load that would start.
    #[test]
    fn built_in_scenarios_are_valid() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::built_in(name).unwrap_or_else(|error| panic!("{error}"));
            let check = |spec: Box<LoadSpec>| {
                LoadConfig::new(*spec).unwrap_or_else(|error| panic!("{name}: {error}"));
            };
            match scenario.what {
                What::Compare { a, b, rounds } => {
                    assert!(rounds >= 5, "{name}");
                    check(a);
                    check(b);
                }
                What::Load(load) => check(load),
                What::Fill { fill: load, .. } | What::Sweep { load, .. } => check(load),
                What::Sessions(sessions) => {
                    SessionsConfig::new(*sessions).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
                What::Messages(messages) => {
                    MessagesConfig::new(*messages).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
                What::Watchers(watchers) => {
                    WatchersConfig::new(*watchers).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
            }
        }
    }

    /// A name that is none lists those that are; a wrong field is refused, not ignored.
    #[test]
    fn unknown_scenarios_list_the_known() {
        let error = Scenario::built_in("nope").expect_err("no such").to_string();
        assert!(error.contains("sessions-own"), "{error}");
        let error = Scenario::parse("x", "question = ''\n[load]\npipe = 3").expect_err("a typo");
        assert!(error.to_string().contains("pipe"), "{error}");
        let error = Scenario::parse("x", "question = ''\n[load]\n[fill]").expect_err("two kinds");
        assert!(error.to_string().contains("one of"), "{error}");
    }
}
