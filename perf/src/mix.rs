//! The mix of ops: `query=90,register=5,release=5`.
//!
//! Always holds: registers and releases come in equal shares, or there are no releases at all
//! (every register then takes a fresh name, and the run ends when they are used up). Any other
//! ratio could not go on for long: nobody can release what nobody registered.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// What an op does to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ask for the owner.
    Query,
    /// Claim.
    Register,
    /// Give back.
    Release,
}

/// Shares of the three kinds, in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mix {
    /// Share of queries.
    pub query: u32,
    /// Share of registers.
    pub register: u32,
    /// Share of releases: equal to that of registers, or zero.
    pub release: u32,
}

impl Default for Mix {
    /// Queries only.
    fn default() -> Self {
        Mix { query: 100, register: 0, release: 0 }
    }
}

impl Mix {
    /// Whether names are registered at all.
    pub(crate) const fn registers(&self) -> bool {
        self.register > 0
    }

    /// The share of queries, as a bound that 32 random bits are below.
    pub(crate) fn query_bound(&self) -> u64 {
        let all = u64::from(self.query) + u64::from(self.register) + u64::from(self.release);
        (u64::from(self.query) << 32) / all
    }
}

impl FromStr for Mix {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Mix, ConfigError> {
        let wrong = || ConfigError::Mix(text.to_owned());
        let mut mix = Mix { query: 0, register: 0, release: 0 };
        for part in text.split(',').map(str::trim) {
            let (kind, share) = part.split_once('=').ok_or_else(wrong)?;
            let share = share.trim().parse().map_err(|_| wrong())?;
            let place = match kind.trim() {
                "query" => &mut mix.query,
                "register" => &mut mix.register,
                "release" => &mut mix.release,
                _ => return Err(wrong()),
            };
            *place = share;
        }
        if mix.query == 0 && mix.register == 0 && mix.release == 0 {
            return Err(wrong());
        }
        if mix.release != 0 && mix.release != mix.register {
            return Err(ConfigError::MixUnbalanced(mix));
        }
        Ok(mix)
    }
}

impl TryFrom<String> for Mix {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Mix, ConfigError> {
        text.parse()
    }
}

impl From<Mix> for String {
    fn from(mix: Mix) -> String {
        mix.to_string()
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mix { query, register, release } = self;
        write!(f, "query={query},register={register},release={release}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed is what can be typed, and absent kinds have no share.
    #[test]
    fn mixes_parse() {
        let mix: Mix = "query=90, register=5,release=5".parse().expect("valid");
        assert_eq!(mix, Mix { query: 90, register: 5, release: 5 });
        assert_eq!(mix.to_string().parse::<Mix>().expect("round trip"), mix);
        let fresh: Mix = "register=1".parse().expect("valid");
        assert_eq!((fresh.query_bound(), fresh.registers()), (0, true));
        assert_eq!(Mix::default().query_bound(), 1 << 32);
    }

    /// A mix that cannot go on, or says nothing, is refused with the text that was typed.
    #[test]
    fn impossible_mixes_are_refused() {
        for text in ["", "query", "query=x", "get=1", "query=0", "query=-1"] {
            let error = text.parse::<Mix>().expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
        let error = "register=2,release=1".parse::<Mix>().expect_err("unbalanced");
        assert!(error.to_string().contains("equal shares"), "{error}");
    }
}
