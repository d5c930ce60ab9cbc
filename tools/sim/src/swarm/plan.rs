//! What a seed draws before anything happens.
//!
//! A run in which every fault happens all the time explores little: nothing ever gets far. So each
//! seed switches each fault off, on, or to a high rate by itself.

use ringway_core::rng::Rng;

use super::Options;

/// Names that are registered all at once, in seeds that have them.
const BULK: usize = 4_500;

/// How a client keeps its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A session with a lease, several connections.
    Plain,
    /// No session of its own: each connection registers by itself.
    Bare,
    /// A session with a lease that ends with its receiving connection.
    BareOpen,
    /// One connection opens several sessions and renews them; others are attached.
    Gateway,
}

/// A client, as drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) style: Style,
    pub(crate) node: u64,
    pub(crate) sessions: usize,
    pub(crate) wires: usize,
    pub(crate) lease_ms: u32,
    /// Its clock's rate, in thousandths.
    pub(crate) rate: u64,
    /// Renews at the last moment, where others do so every third of their lease.
    pub(crate) late: bool,
}

/// Rates of faults, in thousandths of the occasions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) drop_wire: u64,
    pub(crate) half_close: u64,
    pub(crate) client_crash: u64,
    pub(crate) client_pause: u64,
    pub(crate) slow_reader: u64,
    pub(crate) cut: u64,
    pub(crate) late_mail: u64,
    pub(crate) shard_stall: u64,
    pub(crate) process_stall: u64,
    pub(crate) process_crash: u64,
    pub(crate) clean_stop: u64,
    pub(crate) kill: u64,
    pub(crate) wrong_secret: u64,
    pub(crate) reopen: u64,
    pub(crate) missed_renewal: u64,
    pub(crate) spurious_turn: u64,
    pub(crate) barrier: u64,
}

/// All that a seed draws.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shards: usize,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) names: Vec<String>,
    /// How many of the names are fought over; the others are registered all at once.
    pub(crate) few: usize,
    pub(crate) faults: Faults,
    /// The longest lease on the disk at the start, in ms.
    pub(crate) longest_ms: u64,
    /// Whether the process begins after an unclean stop.
    pub(crate) unclean: bool,
    /// Whether leases are rounded up on the disk.
    pub(crate) ladder: bool,
    /// How many times as long a lease is asked for when a session is resumed.
    pub(crate) stretch: u32,
    /// How long the control plane takes to write, at most, in ns.
    pub(crate) disk_ns: u64,
    /// How long bytes travel, at most, in ns.
    pub(crate) latency_ns: u64,
    /// How long a client waits between two looks, at most, in ns.
    pub(crate) think_ns: u64,
}

/// A number between the two, both included, small ones as likely as large ones.
pub(crate) fn log_range(rng: &mut Rng, low: u64, high: u64) -> u64 {
    let bits = (high / low.max(1)).max(1).ilog2() as u64;
    let scale = low << rng.below(bits + 1);
    (scale + rng.below(scale.max(1) + 1)).clamp(low, high)
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, options: &Options) -> Self {
        let drawn = 1 + rng.below(5) as usize;
        let shards = options.shards.unwrap_or(drawn);
        let clients = 1 + rng.below(6) as usize;
        let draw_lease = |rng: &mut Rng| [100, 150, 300, 1_000][rng.below(4) as usize];
        let common = rng.chance(500).then(|| draw_lease(rng));
        let twins = rng.chance(150);
        let clients = (0..clients)
            .map(|index| {
                let style = match rng.below(8) {
                    0..4 => Style::Plain,
                    4 => Style::Bare,
                    5 | 6 => Style::BareOpen,
                    _ => Style::Gateway,
                };
                ClientPlan {
                    late: rng.chance(250),
                    style,
                    node: if twins { 100 + index as u64 / 2 * 10 } else { 100 + index as u64 * 10 },
                    sessions: if style == Style::Gateway { 1 + rng.below(3) as usize } else { 1 },
                    wires: 1 + rng.below(3) as usize,
                    lease_ms: common.unwrap_or_else(|| draw_lease(rng)) + rng.below(3) as u32 * 50,
                    rate: if rng.chance(500) { 1_000 } else { 900 + rng.below(201) },
                }
            })
            .collect();
        let mut names: Vec<String> = (0..1 + rng.below(7))
            .map(|index| match rng.below(4) {
                0 => format!("a-rather-long-name/number-{index}"),
                1 => format!("{{same}}{index}"),
                _ => format!("n{index}"),
            })
            .collect();
        let longest_ms = [0, 100, 300, 1_000, 30_000][rng.below(5) as usize];
        let few = names.len();
        if rng.chance(20) {
            // More names of one owner in one shard than a turn sweeps.
            names.extend((0..BULK).map(|index| format!("{{bulk}}{index}")));
        }
        Self {
            shards,
            clients,
            names,
            few,
            faults: Faults::draw(rng),
            longest_ms,
            unclean: longest_ms <= 1_000 && rng.chance(500),
            ladder: rng.chance(400),
            stretch: [1, 1, 2, 8][rng.below(4) as usize],
            disk_ns: log_range(rng, 50_000, 20_000_000),
            latency_ns: log_range(rng, 20_000, 4_000_000),
            think_ns: log_range(rng, 200_000, 20_000_000),
        }
    }
}

impl Faults {
    fn draw(rng: &mut Rng) -> Self {
        let mut rate = |high: u64| match rng.below(3) {
            0 => 0,
            1 => high / 5,
            _ => high,
        };
        Self {
            drop_wire: rate(40),
            half_close: rate(15),
            client_crash: rate(8),
            client_pause: rate(40),
            slow_reader: rate(20),
            cut: rate(500),
            late_mail: rate(500),
            shard_stall: rate(4),
            process_stall: rate(4),
            process_crash: rate(15),
            clean_stop: rate(1),
            kill: rate(10),
            wrong_secret: rate(60),
            reopen: rate(20),
            missed_renewal: rate(100),
            spurious_turn: rate(300),
            barrier: rate(100),
        }
    }
}
