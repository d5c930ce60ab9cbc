//! The swarm: whole processes, clients and faults from one seed, and a judge that watches.
//!
//! A seed draws a plan (how many shards and clients, which faults and how often), then the world
//! runs event by event: shards turn, clients think, bytes and mail arrive late and cut anywhere,
//! everything stops and dies now and then. When the steps are used up, faults cease, and the world
//! has to come to rest: every request answered, every name of a gone session free, nothing kept.
//!
//! Always: the same seed and options give the same run, on every machine.
//!
//! Parts: `plan` what a seed draws, `world` events, network and server, `client` what clients do
//! and believe, `locks` those that speak RESP, `blocked` when they wait, `gate` credentials,
//! `quota` of names, `waits` those that share names, wait for them and hand them on, `notes` what
//! they say about them, `messages` what they send each other, `watches` what they are told of,
//! `lanes` what they send again; `oracle` what must hold, `history` linearizability, `queue` first
//! come first served, `finish` coming to rest, `rest` who waits then.
//! Not here: real sockets, the kernel, the control plane's disk (`coord/server`).

mod blocked;
mod client;
mod finish;
mod frames;
mod gate;
pub mod history;
mod lanes;
mod locks;
mod messages;
mod notes;
mod oracle;
mod plan;
pub mod queue;
mod quota;
mod replies;
mod rest;
mod waits;
mod watches;
mod world;

use ringway_coord_proto::sabotage::Rule;

pub use plan::Theme;

/// A rule that a run breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// One of the coordinator's; needs the feature `sabotage`.
    Rule(Rule),
    /// The epoch stays what it was when the process starts again.
    EpochStays,
    /// A lease that an earlier life was allowed is granted without being written again.
    EarlierLifeAllows,
    /// After an unclean stop names are granted at once.
    GrantsAtOnce,
}

impl Breach {
    /// All breaches.
    pub fn all() -> impl Iterator<Item = Breach> {
        let rules = Rule::ALL.into_iter().map(Breach::Rule);
        rules.chain([Breach::EpochStays, Breach::EarlierLifeAllows, Breach::GrantsAtOnce])
    }

    /// Its name on a command line.
    pub fn name(self) -> String {
        match self {
            Breach::Rule(rule) => format!("{rule:?}"),
            other => format!("{other:?}"),
        }
    }

    /// The breach of that name.
    pub fn named(name: &str) -> Option<Breach> {
        Self::all().find(|breach| breach.name() == name)
    }
}

/// How to run a seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events before faults cease.
    pub steps: u64,
    /// Shards; `None`: the seed decides.
    pub shards: Option<usize>,
    /// Print what happens.
    pub trace: bool,
    /// The rule that is switched off, to see whether the judge notices.
    pub breach: Option<Breach>,
    /// What all seeds are about; `None`: the seed decides.
    pub theme: Option<Theme>,
}

impl Default for Options {
    fn default() -> Self {
        Self { steps: 1_500, shards: None, trace: false, breach: None, theme: None }
    }
}

/// What a run did, to see that seeds do not pass by doing nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Replies read.
    pub replies: u64,
    /// Names granted.
    pub grants: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Sessions taken over.
    pub resumed: u64,
    /// Locks taken with `SET`.
    pub locks: u64,
    /// Waits that were put into a queue.
    pub waits: u64,
    /// Waits that ended by a grant.
    pub handovers: u64,
    /// Names refused since their namespace has as many as it may.
    pub refused: u64,
    /// Waits of RESP clients that were granted.
    pub unblocked: u64,
    /// Waits whose time ran out, or that were cancelled.
    pub given_up: u64,
    /// Names that went from one session to another.
    pub transfers: u64,
    /// Names that operators took.
    pub revoked: u64,
    /// Metadata that was set.
    pub notes: u64,
    /// Messages whose sending was answered.
    pub letters: u64,
    /// Messages that were heard.
    pub heard: u64,
    /// Messages of those who do not hold the name.
    pub fenced: u64,
    /// Watches that began or went on.
    pub watches: u64,
    /// Watches that went on where another was cut off.
    pub went_on: u64,
    /// Frames that were sent again by a lane.
    pub again: u64,
    /// Notices of watches.
    pub events: u64,
    /// Gaps, which watchers were told of.
    pub gaps: u64,
    /// Names refused for want of memory.
    pub full: u64,
    /// Names denied to who may not use them.
    pub denied: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Connections lost.
    pub lost: u64,
    /// Stops of shards, of the process, of clients.
    pub stalls: u64,
    /// Crashes and stops of the process.
    pub restarts: u64,
    /// Turns of shards.
    pub turns: u64,
    /// Virtual milliseconds.
    pub ms: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Tally) {
        self.replies += other.replies;
        self.grants += other.grants;
        self.opened += other.opened;
        self.resumed += other.resumed;
        self.locks += other.locks;
        self.waits += other.waits;
        self.handovers += other.handovers;
        self.refused += other.refused;
        self.unblocked += other.unblocked;
        self.given_up += other.given_up;
        self.transfers += other.transfers;
        self.revoked += other.revoked;
        self.notes += other.notes;
        self.letters += other.letters;
        self.heard += other.heard;
        self.fenced += other.fenced;
        self.watches += other.watches;
        self.went_on += other.went_on;
        self.again += other.again;
        self.events += other.events;
        self.gaps += other.gaps;
        self.denied += other.denied;
        self.full += other.full;
        self.expired += other.expired;
        self.lost += other.lost;
        self.stalls += other.stalls;
        self.restarts += other.restarts;
        self.turns += other.turns;
        self.ms += other.ms;
    }
}

/// Runs a seed. The error says which rule was broken, and when.
///
/// # Panics
/// If the code under test does.
pub fn run(seed: u64, options: &Options) -> Result<Tally, String> {
    world::World::new(seed, options).run()
}
