//! What a Ringway server says of itself beside the load: numbers of all its shards together.
//!
//! They are a second opinion, asked for before and after what is measured, over a connection of
//! their own. A server that is not Ringway, or that does not say, has none.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_client::{Client, Options};
use ringway_core::ShardId;
use serde_json::Value;

use crate::config::{LoadConfig, Login, Protocol};
use crate::error::LoadError;

/// A connection for questions.
pub(crate) struct Watch {
    client: Client,
    shards: u8,
}

/// Numbers of all shards: sums, and the worst of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) table_bytes: u64,
    pub(crate) swept_names: u64,
    pub(crate) buffer_bytes: u64,
    pub(crate) watchers_passed_over: u64,
    turn_ns_max: u64,
    turn_buckets: Vec<u64>,
}

impl Watch {
    /// `None` if the server is not Ringway.
    pub(crate) fn connect(config: &LoadConfig) -> Option<Watch> {
        if config.spec.protocol == Protocol::Keys {
            return None;
        }
        Watch::at(config.addr, config.timeout, config.spec.credentials.as_ref())
    }

    /// `None` if that is not Ringway.
    pub(crate) fn at(addr: SocketAddr, timeout: Duration, login: Option<&Login>) -> Option<Watch> {
        let options = Options { timeout, credentials: login.map(Into::into) };
        let mut client = Client::connect(addr, options).ok()?;
        let shards = client.shard_map().ok()?.shards;
        Some(Watch { client, shards })
    }

    /// The numbers as they are now.
    pub(crate) fn ask(&mut self) -> Option<Numbers> {
        let mut numbers = Numbers::default();
        for shard in 0..self.shards {
            let stats = self.client.shard_stats(ShardId(shard)).ok()?;
            numbers.add(&serde_json::from_str(&stats).ok()?)?;
        }
        Some(numbers)
    }
}

/// A client beside the load, as the load's own connections are.
pub(crate) fn connect(config: &LoadConfig) -> Result<Client, LoadError> {
    let credentials = config.spec.credentials.as_ref().map(Into::into);
    let options = Options { timeout: config.timeout, credentials };
    Ok(Client::connect(config.addr, options)?)
}

impl Numbers {
    fn add(&mut self, shard: &Value) -> Option<()> {
        let number = |name: &str| shard.get(name)?.as_u64();
        self.table_bytes += number("table_bytes")?;
        self.swept_names += number("swept_names")?;
        self.buffer_bytes += number("buffer_bytes")?;
        self.watchers_passed_over += number("watchers_passed_over")?;
        self.turn_ns_max = self.turn_ns_max.max(number("turn_ns_max")?);
        let buckets = shard.get("turn_buckets")?.as_array()?;
        self.turn_buckets.resize(self.turn_buckets.len().max(buckets.len()), 0);
        for (mine, theirs) in self.turn_buckets.iter_mut().zip(buckets) {
            *mine += theirs.as_u64()?;
        }
        Some(())
    }

    /// The longest turn since `earlier`, in milliseconds: exactly if it is the longest since the
    /// server began, else the upper end of the histogram's bucket that it lies in.
    pub(crate) fn worst_turn_ms(&self, earlier: &Numbers) -> f64 {
        let grown = |(now, then): (&u64, &u64)| now > then;
        let worst = self.turn_buckets.iter().zip(&earlier.turn_buckets).rposition(grown);
        let ns = match worst {
            _ if self.turn_ns_max > earlier.turn_ns_max => self.turn_ns_max,
            Some(bucket) => self.turn_ns_max.min(BUCKET_FIRST_NS << bucket),
            None => 0,
        };
        ns as f64 / 1e6
    }
}

/// Turns of the first bucket took less than this; that of each other is twice the one before.
const BUCKET_FIRST_NS: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(turn_ns_max: u64, turn_buckets: &[u64]) -> Numbers {
        Numbers { turn_ns_max, turn_buckets: turn_buckets.to_vec(), ..Numbers::default() }
    }

    /// A new worst turn is known exactly; one that is not a record by its bucket, and never as
    /// longer than the record.
    #[test]
    fn the_worst_turn_is_of_the_interval() {
        let before = numbers(1_500, &[5, 0, 0, 1]);
        assert_eq!(numbers(1_900, &[6, 0, 0, 2]).worst_turn_ms(&before), 0.0019);
        assert_eq!(numbers(1_500, &[6, 1, 0, 1]).worst_turn_ms(&before), 0.000_512);
        assert_eq!(numbers(1_500, &[6, 1, 0, 2]).worst_turn_ms(&before), 0.0015);
        assert_eq!(before.worst_turn_ms(&before), 0.0);
    }
}
