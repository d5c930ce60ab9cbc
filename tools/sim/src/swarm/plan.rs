//! What a seed draws before anything happens.
//!
//! A run in which every fault happens all the time explores little: nothing ever gets far. So each
//! seed switches each fault off, on, or to a high rate by itself; and some rules fail only where
//! hardly anything else does, so some seeds have a [`Theme`].

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::op;
use ringway_core::rng::Rng;

use super::Options;
use super::gate::Gate;

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
    /// Speaks RESP and takes locks, each a session of one name.
    Locks,
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
    /// Sends by a lane, and what is not answered again.
    pub(crate) lane: bool,
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
    /// A late client sends its renewal so that it arrives in time; up to so much later, in ns.
    pub(crate) too_late_ns: u64,
    /// How long a stall takes, in ns.
    pub(crate) stall_ns: (u64, u64),
    /// Words of each region of a shard's table; few do not hold the names that are registered
    /// all at once.
    pub(crate) region_words: usize,
    /// How often clients do more with names than to register and release them, in thousandths.
    pub(crate) claims: u64,
    /// How often clients send messages, in thousandths.
    pub(crate) messages: u64,
    /// How often clients watch something, in thousandths.
    pub(crate) watches: u64,
    /// Bytes that make each message longer; with any, receivers and the server may be full.
    pub(crate) padding: usize,
    /// How each of the few names is asked for; one of these each time.
    pub(crate) wishes: Vec<Vec<Wish>>,
    /// Bytes that all that may take in a shard.
    pub(crate) side_bytes: usize,
    /// Who may use which names.
    pub(crate) gate: Gate,
    /// The lease of all locks.
    pub(crate) lock_ms: u32,
    /// The process dies within this time after its grants began, in ns; zero: by chance only.
    pub(crate) life_ns: u64,
}

/// What a seed is about: one kind of fault, often, and clients that do nothing else wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Renewals that come at the last moment or too late, some in the turn that ends the lease.
    LastMoment,
    /// The process stops with renewals unread, and goes on.
    Stalls,
    /// The process dies again and again, and not all leases are equally long.
    Restarts,
    /// Many wait for two names, and sessions end all the time.
    Queues,
    /// Many send to two names and to each other, who mostly read.
    Messages,
    /// Many watch what happens, and lose their connections.
    Watches,
    /// Everybody sends by lanes, and loses its connections.
    Lanes,
    /// Clients of RESP block, and half of the connections end amid.
    Blocked,
    /// A namespace of six names may have fewer.
    Quotas,
}

impl Theme {
    /// All themes.
    pub const ALL: [Theme; 9] = [
        Theme::LastMoment,
        Theme::Stalls,
        Theme::Restarts,
        Theme::Queues,
        Theme::Messages,
        Theme::Watches,
        Theme::Lanes,
        Theme::Blocked,
        Theme::Quotas,
    ];
}

/// A number between the two, both included, small ones as likely as large ones.
pub(crate) fn log_range(rng: &mut Rng, low: u64, high: u64) -> u64 {
    let bits = (high / low.max(1)).max(1).ilog2() as u64;
    let scale = low << rng.below(bits + 1);
    (scale + rng.below(scale.max(1) + 1)).clamp(low, high)
}

impl Plan {
    /// Whether the server may be out of memory at times.
    pub(crate) fn may_be_full(&self) -> bool {
        self.region_words < 1 << 24 && self.few < self.names.len()
    }

    pub(crate) fn draw(rng: &mut Rng, options: &Options) -> Self {
        let drawn = 1 + rng.below(5) as usize;
        let shards = options.shards.unwrap_or(drawn);
        let clients = 1 + rng.below(6) as usize;
        let draw_lease = |rng: &mut Rng| [100, 150, 300, 1_000][rng.below(4) as usize];
        let common = rng.chance(500).then(|| draw_lease(rng));
        let twins = rng.chance(150);
        let clients = (0..clients)
            .map(|index| {
                let style = draw_style(rng);
                ClientPlan {
                    late: rng.chance(250),
                    lane: rng.chance(400),
                    style,
                    node: if twins { 100 + index as u64 / 2 * 10 } else { 100 + index as u64 * 10 },
                    sessions: if style == Style::Gateway { 1 + rng.below(3) as usize } else { 1 },
                    wires: 1 + rng.below(3) as usize,
                    lease_ms: common.unwrap_or_else(|| draw_lease(rng)) + rng.below(3) as u32 * 50,
                    rate: if rng.chance(500) { 1_000 } else { 900 + rng.below(201) },
                }
            })
            .collect();
        let mut names = draw_names(rng);
        let longest_ms = [0, 100, 300, 1_000, 30_000][rng.below(5) as usize];
        let few = names.len();
        let (bulk, full) = (rng.chance(20), rng.chance(400));
        if bulk {
            // More names of one owner in one shard than a turn sweeps.
            names.extend((0..BULK).map(|index| format!("{{bulk}}/{index}")));
        }
        let latency_ns = log_range(rng, 20_000, 4_000_000);
        let mut plan = Self {
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
            latency_ns,
            think_ns: log_range(rng, 200_000, 20_000_000),
            too_late_ns: 0,
            stall_ns: (1_000_000, 10_000_000_000),
            region_words: if full { 12 << 10 } else { 1 << 24 },
            claims: 0,
            messages: [0, 0, 200, 500][rng.below(4) as usize],
            watches: [0, 0, 30, 100][rng.below(4) as usize],
            padding: if rng.chance(30) { 5_000 } else { 0 },
            wishes: Vec::new(),
            side_bytes: 1 << 30,
            gate: Gate::open(),
            lock_ms: draw_lease(rng),
            life_ns: 0,
        };
        plan.draw_claims(rng);
        // Nodes are a principal's own: twins would be refused.
        if !twins && !bulk && rng.chance(200) {
            plan.gate = Gate::draw(rng, plan.clients.len(), &plan.names);
        }
        plan.draw_quota(rng);
        let drawn = Theme::ALL.get(rng.below(16) as usize);
        if let Some(theme) = options.theme.or(drawn.copied()) {
            plan.follow(theme, rng);
        }
        plan
    }

    fn draw_quota(&mut self, rng: &mut Rng) {
        if rng.chance(300) {
            self.gate.draw_quota(rng, &self.names[..self.few]);
        }
    }

    /// Half of the seeds are about names that only have owners.
    fn draw_claims(&mut self, rng: &mut Rng) {
        self.claims = [0, 0, 300, 700][rng.below(4) as usize];
        let draw = |rng: &mut Rng| match rng.below(if self.claims > 0 { 10 } else { 1 }) {
            0..5 => vec![Wish::EXCLUSIVE],
            5 | 6 => vec![SHARED, SHARED, Wish::EXCLUSIVE],
            7 | 8 => vec![counting(2 + rng.below(2) as u32)],
            _ => vec![Wish::EXCLUSIVE, SHARED, counting(1), counting(2)],
        };
        self.wishes = (0..self.few).map(|_| draw(rng)).collect();
        if self.claims > 0 && rng.chance(100) {
            self.side_bytes = 512;
        }
    }

    /// Whether nobody wants to share a name.
    pub(crate) fn is_exclusive(&self, name: usize) -> bool {
        self.wishes.get(name).is_none_or(|wishes| wishes == &[Wish::EXCLUSIVE])
    }

    /// Whether the server may be out of memory for what names have beside an owner.
    pub(crate) fn may_lack_sides(&self) -> bool {
        self.side_bytes < 1 << 30
    }

    fn follow(&mut self, theme: Theme, rng: &mut Rng) {
        self.faults = Faults { cut: self.faults.cut, ..Faults::NONE };
        self.gate = Gate::open();
        self.names.truncate(2);
        self.few = self.names.len();
        self.wishes.truncate(2);
        (self.claims, self.messages, self.padding, self.watches) = (0, 0, 0, 0);
        for client in &mut self.clients {
            (client.style, client.sessions) = (Style::Plain, 1);
            client.late = theme == Theme::LastMoment;
            client.lane &= theme != Theme::LastMoment;
        }
        self.disk_ns = 200_000;
        match theme {
            // As long as a shard that slept waits for renewals, and somewhat more.
            Theme::LastMoment => {
                self.too_late_ns = 30_000_000;
                (self.latency_ns, self.think_ns) = (100_000, 20_000_000);
            }
            Theme::Stalls => {
                self.faults.process_stall = 10;
                self.stall_ns = (50_000_000, 1_000_000_000);
            }
            Theme::Restarts => {
                self.life_ns = 1_000_000_000;
                (self.longest_ms, self.ladder, self.unclean) = (0, false, false);
                self.think_ns = 60_000_000;
                let lease = |rng: &mut Rng| if rng.chance(500) { 300 } else { 3_000 };
                self.clients.iter_mut().for_each(|client| client.lease_ms = lease(rng));
            }
            Theme::Queues => self.follow_queues(rng),
            Theme::Watches => {
                self.faults.slow_reader = if rng.chance(500) { 20 } else { 0 };
                (self.faults.drop_wire, self.faults.late_mail) = (30, 500);
                (self.claims, self.watches) = (200, 150);
                (self.latency_ns, self.think_ns) = (300_000, 2_000_000);
                for client in &mut self.clients {
                    client.style = NATIVE[rng.below(3) as usize];
                }
            }
            Theme::Lanes => {
                (self.faults.drop_wire, self.faults.late_mail) = (100, 500);
                (self.claims, self.messages) = (200, 300);
                (self.latency_ns, self.think_ns) = (2_000_000, 2_000_000);
                self.clients.iter_mut().for_each(|client| (client.lane, client.wires) = (true, 3));
            }
            Theme::Quotas => self.follow_quotas(rng),
            Theme::Blocked => self.follow_blocked(),
            Theme::Messages => {
                self.faults.slow_reader = if rng.chance(300) { 20 } else { 0 };
                self.faults.late_mail = 500;
                (self.claims, self.messages) = (100, 600);
                self.wishes[0] = vec![SHARED];
                (self.latency_ns, self.think_ns) = (300_000, 2_000_000);
                for client in &mut self.clients {
                    client.style = NATIVE[rng.below(3) as usize];
                }
            }
        }
    }

    fn follow_quotas(&mut self, rng: &mut Rng) {
        (self.faults.drop_wire, self.faults.late_mail) = (20, 500);
        self.claims = [0, 300, 700][rng.below(3) as usize];
        self.names = (0..6).map(|index| format!("jobs/{index}")).collect();
        self.few = self.names.len();
        self.wishes = vec![vec![Wish::EXCLUSIVE]; 5];
        self.wishes.push(vec![SHARED]);
        self.gate.draw_quota(rng, &self.names);
        let styles = [Style::Plain, Style::Bare, Style::BareOpen, Style::Locks];
        for client in &mut self.clients {
            client.style = styles[rng.below(4) as usize];
        }
    }

    fn follow_blocked(&mut self) {
        (self.faults.drop_wire, self.faults.half_close) = (20, 20);
        (self.faults.late_mail, self.claims) = (500, 700);
        (self.latency_ns, self.think_ns) = (300_000, 2_000_000);
        for (at, client) in self.clients.iter_mut().enumerate() {
            client.style = if at % 3 == 2 { Style::Plain } else { Style::Locks };
            client.wires = 3;
        }
    }

    fn follow_queues(&mut self, rng: &mut Rng) {
        let often = Faults { drop_wire: 60, kill: 10, late_mail: 500, ..self.faults };
        (self.faults, self.claims) = (often, 900);
        self.wishes[0] = vec![SHARED, SHARED, Wish::EXCLUSIVE];
        let last = self.wishes.len() - 1;
        self.wishes[last] = vec![counting(2), counting(2), counting(2), SHARED];
        (self.latency_ns, self.think_ns) = (300_000, 2_000_000);
        for client in &mut self.clients {
            client.style = NATIVE[rng.below(3) as usize];
            client.wires = 3;
        }
    }
}

/// Those that speak the native protocol, each for itself.
const NATIVE: [Style; 3] = [Style::Plain, Style::Bare, Style::BareOpen];
const SHARED: Wish = Wish { mode: op::MODE_SHARED, permits: 0 };

fn counting(permits: u32) -> Wish {
    Wish { mode: op::MODE_COUNTING, permits }
}

fn draw_style(rng: &mut Rng) -> Style {
    match rng.below(10) {
        0..4 => Style::Plain,
        4 => Style::Bare,
        5 | 6 => Style::BareOpen,
        7 | 8 => Style::Locks,
        _ => Style::Gateway,
    }
}

/// The few names that all clients want.
fn draw_names(rng: &mut Rng) -> Vec<String> {
    let count = 1 + rng.below(7);
    let name = |index| match rng.below(4) {
        0 => format!("a-rather-long-name/number-{index}"),
        1 => format!("{{same}}/{index}"),
        _ => format!("n{index}"),
    };
    (0..count).map(name).collect()
}

impl Faults {
    const NONE: Self = Self {
        drop_wire: 0,
        half_close: 0,
        client_crash: 0,
        client_pause: 0,
        slow_reader: 0,
        cut: 0,
        late_mail: 0,
        shard_stall: 0,
        process_stall: 0,
        process_crash: 0,
        clean_stop: 0,
        kill: 0,
        wrong_secret: 0,
        reopen: 0,
        missed_renewal: 0,
        spurious_turn: 0,
        barrier: 0,
    };

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
