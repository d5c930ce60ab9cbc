//! How much of what came a shard holds: pieces that wait for others before them, and bytes that
//! applications have not taken.
//!
//! Credit is a promise, and more may be promised than there is room for: most of it is never used
//! at once. Bytes that have come are no promise. So each piece is judged when it comes, and what is
//! refused is not acknowledged: its sender still has it, and sends it again.
//!
//! Nobody has a part of its own that lies idle while others want it, and nobody can take all (a
//! dynamic threshold, after Choudhury and Hahne, 1998): a *peer*, with all of its sessions, holds
//! at most twice as much as is left free, and a *flow* at most four times as much as its peer may
//! still take. One peer alone comes to two thirds, one flow alone to more than a half; the next one
//! finds room at once, whatever those before it do.
//!
//! What always holds:
//! - Y1  A shard holds at most its memory: seven eighths for all that comes, and for each peer a
//!   part of the last eighth, or [`FIRST`] if that is more.
//! - Y2  The next bytes of a stream whose application takes what it gets come in, if need be by the
//!   peer's part of the last eighth, which nothing else is for: so what came early is not kept for
//!   ever by what it waits for. An application that takes nothing gets no more of that part than
//!   is left of it, and at most [`FIRST`].
//! - Y3  A session knows at any moment what others held when it was last given something; nobody
//!   else is given anything meanwhile.
//!
//! *Flows* cost something, too: all that a peer has on a shard together are as many as one session
//! may have.
//!
//! *What is sent* is kept until it is acknowledged, and has as much room again, shared in the same
//! way: a peer that never acknowledges is written to no more. A flow may always keep [`FIRST`].
//!
//! *Windows* are shared in the same way, but by what is promised: a peer's windows have three
//! fifths of what others do not claim, a flow's seven eighths of what its session's others do not.
//! So the whole window of a peer that is alone may come early, and in packets of the shortest kind,
//! and is not refused for what each piece takes beside its bytes. Only flows that got something
//! lately count.
//!
//! Bounds: constant time a piece, 40 bytes a peer. Not here: which bytes are kept (`recv.rs`), what
//! an application has decoded and not taken, which is counted once the driver says so.
//! Tests: below, `session_tests.rs`, and `tests/memory.rs` with hostile peers.

use alloc::vec::Vec;

use crate::agent::PeerId;

/// What may wait for an application that is said to take what it gets: the window that a flow
/// begins with.
pub(crate) const FIRST: u64 = 64 * 1024;
/// What a piece that came early counts for beside its bytes.
pub(crate) const PIECE_BYTES: u64 = 128;

/// What a shard holds, for who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Bytes that are held.
    pub held: u64,
    /// Bytes that may be held.
    pub most: u64,
    /// Pieces that were refused, since the beginning.
    pub refused: u64,
}

/// What a flow holds, or a session's flows together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// All of it.
    pub(crate) bytes: u64,
    /// Of that, what has come by the peer's part of the last eighth.
    pub(crate) reserved: u64,
    /// Windows beyond the first, of flows that got something lately.
    pub(crate) windows: u64,
    /// How many flows they are.
    pub(crate) flows: u64,
    /// Bytes that were written here and are not acknowledged.
    pub(crate) kept: u64,
}

/// What a peer's sessions take together, or all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    bytes: u64,
    reserved: u64,
    /// What is held, or promised, whichever is more.
    claimed: u64,
    flows: u64,
    kept: u64,
}

/// What a piece may add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// As any.
    pub(crate) any: u64,
    /// By the peer's part of the last eighth, if it may (Y2).
    pub(crate) reserve: u64,
}

impl Room {
    /// As only sabotage gives.
    pub(crate) const ENDLESS: Room = Room { any: u64::MAX, reserve: u64::MAX };
}

/// What a session's flows may keep of what they send, and what they keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    session: u64,
    kept: u64,
}

impl Keeping {
    /// What a flow may keep that keeps `own`.
    pub(crate) fn most(self, own: u64) -> u64 {
        let beside = self.kept.saturating_sub(own);
        (self.session.saturating_sub(beside) / 8 * 7).max(FIRST)
    }
}

/// A session's account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    total: u64,
    /// The peer's part of the last eighth.
    reserve: u64,
    /// Of this session.
    pub(crate) held: Held,
    /// What [`Memory`] knows of it.
    told: Taken,
    /// Of the peer's other sessions, and of other peers (Y3).
    siblings: Taken,
    others: Taken,
    /// Pieces that were refused, since the beginning.
    pub(crate) refused: u64,
    refused_told: u64,
}

/// A shard's account.
#[derive(Debug)]
pub(crate) struct Memory {
    total: u64,
    /// How many peers there are, and what each one's sessions take, by place.
    known: u64,
    peers: Vec<Taken>,
    all: Taken,
    refused: u64,
}

impl Held {
    fn taken(self) -> Taken {
        let Held { bytes, reserved, windows, flows, kept } = self;
        Taken { bytes, reserved, claimed: bytes.max(windows), flows, kept }
    }
}

impl Taken {
    /// This, with `more` instead of `less`.
    fn changed(self, less: Taken, more: Taken) -> Taken {
        Taken {
            bytes: self.bytes - less.bytes + more.bytes,
            reserved: self.reserved - less.reserved + more.reserved,
            claimed: self.claimed - less.claimed + more.claimed,
            flows: self.flows - less.flows + more.flows,
            kept: self.kept - less.kept + more.kept,
        }
    }
}

fn reserve_of(total: u64, peers: u64) -> u64 {
    (total / 8 / peers.max(1)).max(FIRST)
}

impl Account {
    /// The account of a session that is alone with all of a memory.
    pub(crate) fn new(total: u64) -> Self {
        Self {
            total,
            reserve: reserve_of(total, 1),
            held: Held::default(),
            told: Taken::default(),
            siblings: Taken::default(),
            others: Taken::default(),
            refused: 0,
            refused_told: 0,
        }
    }

    /// A flow that held `before` holds `now`.
    pub(crate) fn change(&mut self, before: Held, now: Held) {
        self.held.bytes = self.held.bytes - before.bytes + now.bytes;
        self.held.reserved = self.held.reserved - before.reserved + now.reserved;
        self.held.windows = self.held.windows - before.windows + now.windows;
        self.held.flows = self.held.flows - before.flows + now.flows;
        self.held.kept = self.held.kept - before.kept + now.kept;
    }

    /// A piece was refused.
    pub(crate) fn note_refused(&mut self) {
        self.refused += 1;
    }

    /// What is for whatever comes.
    fn common(&self) -> u64 {
        self.total - self.total / 8
    }

    /// How far the peer is below its threshold: it may take a third of that at once, because what
    /// it takes is free no more.
    fn below(&self) -> u64 {
        let peer = self.held.bytes + self.siblings.bytes;
        let free = self.common().saturating_sub(peer + self.others.bytes);
        (2 * free).saturating_sub(peer)
    }

    /// What a piece may add to a flow that holds so many bytes, so many of them by the reserve:
    /// `held + x <= 4 * (below - 3 * x)`, and `reserved + x <= left - x`.
    pub(crate) fn room(&self, held: u64, reserved: u64) -> Room {
        let any = (4 * self.below()).saturating_sub(held) / 13;
        let left = self.reserve.saturating_sub(self.held.reserved + self.siblings.reserved);
        Room { any, reserve: left.saturating_sub(reserved) / 2 }
    }

    /// How many flows the peer's other sessions have.
    pub(crate) fn flows_beside(&self) -> usize {
        self.siblings.flows as usize
    }

    /// What the window of a flow may have beyond its first, if it has `own` of what is counted.
    pub(crate) fn window_max(&self, own: u64) -> u64 {
        let peer = self.common().saturating_sub(self.others.claimed) / 5 * 3;
        let session = peer.saturating_sub(self.siblings.claimed);
        session.saturating_sub(self.held.windows - own) / 8 * 7
    }

    /// What flows may keep of what they send.
    pub(crate) fn keeping(&self) -> Keeping {
        let peer = self.total.saturating_sub(self.others.kept) / 3 * 2;
        Keeping { session: peer.saturating_sub(self.siblings.kept), kept: self.held.kept }
    }
}

impl Memory {
    pub(crate) fn new(total: u64) -> Self {
        Self { total, known: 0, peers: Vec::new(), all: Taken::default(), refused: 0 }
    }

    /// How many peers there are.
    pub(crate) fn set_known(&mut self, peers: usize) {
        self.known = peers as u64;
    }

    fn of(&mut self, peer: PeerId) -> &mut Taken {
        let at = usize::from(peer.0);
        if self.peers.len() <= at {
            self.peers.resize(at + 1, Taken::default());
        }
        &mut self.peers[at]
    }

    /// Tells a session what others hold: it is about to be given something (Y3).
    pub(crate) fn lend(&mut self, peer: PeerId, account: &mut Account) {
        let (all, its) = (self.all, *self.of(peer));
        account.reserve = reserve_of(self.total, self.known);
        account.siblings = its.changed(account.told, Taken::default());
        account.others = all.changed(its, Taken::default());
    }

    /// Hears what a session holds now.
    pub(crate) fn settle(&mut self, peer: PeerId, account: &mut Account) {
        let (told, now) = (account.told, account.held.taken());
        self.refused += account.refused - account.refused_told;
        account.refused_told = account.refused;
        if told != now {
            let its = self.of(peer);
            *its = its.changed(told, now);
            self.all = self.all.changed(told, now);
            account.told = now;
        }
    }

    /// The application of a flow that is over had `before` bytes still to take, and has `now`.
    pub(crate) fn change_left(&mut self, peer: PeerId, before: u64, now: u64) {
        let left = |bytes| Taken { bytes, claimed: bytes, ..Taken::default() };
        let its = self.of(peer);
        *its = its.changed(left(before), left(now));
        self.all = self.all.changed(left(before), left(now));
    }

    /// A session is no more, or begins anew.
    pub(crate) fn forget(&mut self, peer: PeerId, account: &Account) {
        self.refused += account.refused - account.refused_told;
        let its = self.of(peer);
        *its = its.changed(account.told, Taken::default());
        self.all = self.all.changed(account.told, Taken::default());
    }

    /// What there is to tell.
    pub(crate) fn report(&self) -> MemoryReport {
        let reserves = reserve_of(self.total, self.known) * self.known.max(1);
        let most = self.total - self.total / 8 + reserves;
        MemoryReport { held: self.all.bytes, most, refused: self.refused }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ringway_core::rng::Rng;

    use super::*;

    const TOTAL: u64 = 64 << 20;
    const PIECE: u64 = 16 << 10;

    /// A flow of a session of a peer, which takes pieces as `recv.rs` does.
    #[derive(Clone, Copy, Default)]
    struct Flow {
        waiting: u64,
        early: u64,
        reserved: u64,
    }

    impl Flow {
        fn held(self) -> Held {
            let bytes = self.waiting + self.early;
            Held { bytes, reserved: self.reserved, windows: 0, flows: 1, kept: 0 }
        }

        fn gets(&mut self, bytes: u64, early: bool, account: &mut Account) -> bool {
            let before = self.held();
            let room = account.room(before.bytes, self.reserved);
            let reads = !early && self.waiting + bytes <= FIRST && bytes <= room.reserve;
            if bytes > room.any && !reads {
                return false;
            }
            self.reserved += if bytes > room.any { bytes } else { 0 };
            *if early { &mut self.early } else { &mut self.waiting } += bytes;
            account.change(before, self.held());
            true
        }
    }

    /// A shard with so many peers, each with a session.
    fn shard(peers: u16) -> (Memory, Vec<Account>) {
        let mut memory = Memory::new(TOTAL);
        memory.set_known(usize::from(peers));
        (memory, vec![Account::new(TOTAL); usize::from(peers)])
    }

    /// Flows of a peer take early pieces for as long as one of them is let; what they hold then.
    fn fill(memory: &mut Memory, peer: u16, account: &mut Account, flows: usize) -> u64 {
        let mut flows = vec![Flow::default(); flows];
        flows.iter().for_each(|flow| account.change(Held::default(), flow.held()));
        let mut goes_on = true;
        while core::mem::take(&mut goes_on) {
            for flow in &mut flows {
                memory.lend(PeerId(peer), account);
                goes_on |= flow.gets(PIECE, true, account);
                memory.settle(PeerId(peer), account);
            }
        }
        account.held.bytes
    }

    /// One flow has more than half; one peer two thirds of what is not in reserve; who comes next
    /// has two thirds of what is left, whoever came before.
    #[test]
    fn everybody_may_have_a_part_of_what_is_free() {
        let (mut memory, mut accounts) = shard(4);
        let flow = fill(&mut memory, 0, &mut accounts[0].clone(), 1);
        assert!((TOTAL / 2..TOTAL / 20 * 11).contains(&flow), "{flow}");
        let (mut memory, mut left) = (shard(4).0, TOTAL / 8 * 7);
        for (peer, account) in accounts.iter_mut().enumerate() {
            let held = fill(&mut memory, peer as u16, account, 1000);
            let part = left / 3 * 2;
            assert!((part / 20 * 19..=part).contains(&held), "{peer}: {held} of {left}");
            left -= held;
        }
    }

    /// A whole window comes early, in pieces of packets of the shortest kind: none is refused.
    #[test]
    fn a_window_of_short_packets_has_room() {
        const SHORT: u64 = 1150;
        let (mut memory, mut accounts) = shard(1);
        let account = &mut accounts[0];
        memory.lend(PeerId(0), account);
        let (window, mut flow, mut came) = (account.window_max(0), Flow::default(), 0);
        account.change(Held::default(), flow.held());
        while came < window {
            memory.lend(PeerId(0), account);
            assert!(flow.gets(SHORT + PIECE_BYTES, true, account), "{came} of {window}");
            memory.settle(PeerId(0), account);
            came += SHORT;
        }
    }

    /// Windows are shared likewise, and others' count as much as what others hold.
    #[test]
    fn windows_leave_room_for_others() {
        let (mut memory, mut accounts) = shard(2);
        memory.lend(PeerId(0), &mut accounts[0]);
        let alone = accounts[0].window_max(0);
        assert!((TOTAL / 5 * 2..TOTAL / 2).contains(&alone), "{alone}");
        let window = Held { windows: alone, ..Held::default() };
        accounts[0].change(Held::default(), window);
        assert_eq!(accounts[0].window_max(alone), alone, "its own does not count against it");
        let beside = accounts[0].window_max(0);
        assert!(beside < alone / 4, "{beside}");
        memory.settle(PeerId(0), &mut accounts[0]);
        memory.lend(PeerId(1), &mut accounts[1]);
        let other = accounts[1].window_max(0);
        assert!(other > TOTAL / 8 && other < alone / 2, "{other}");
        memory.forget(PeerId(0), &accounts[0]);
        memory.lend(PeerId(1), &mut accounts[1]);
        assert_eq!(accounts[1].window_max(0), alone);
    }

    /// Y1 and Y2: whatever is taken and let go of, in whatever order, no more is held than there
    /// is, and a peer that holds nothing finds room, by both ways.
    #[test]
    fn no_more_is_held_than_there_is() {
        const PEERS: u16 = 5;
        let mut rng = Rng::new(11);
        let (mut memory, _) = shard(PEERS + 1);
        // Three sessions of each, some with many flows.
        let mut sessions: Vec<_> =
            (0..3 * PEERS).map(|at| (at % PEERS, Account::new(TOTAL), Vec::new())).collect();
        let mut refused = 0;
        for step in 0..200_000 {
            let (peer, account, flows) = &mut sessions[rng.below(15) as usize];
            memory.lend(PeerId(*peer), account);
            if flows.len() < 1 + usize::from(*peer) * 100 {
                flows.push(Flow::default());
                account.change(Held::default(), Flow::default().held());
            }
            let at = rng.below(flows.len() as u64) as usize;
            let flow = &mut flows[at];
            let before = flow.held();
            match rng.below(40) {
                // Its application reads some, or all; its first byte comes; it is reset.
                0 => flow.waiting -= rng.below(flow.waiting + 1),
                1 => flow.waiting = 0,
                2 => (flow.waiting, flow.early) = (flow.waiting + flow.early, 0),
                3 => *flow = Flow::default(),
                _ => {
                    let early = rng.chance(300);
                    refused += u64::from(!flow.gets(1 + rng.below(PIECE), early, account));
                    memory.settle(PeerId(*peer), account);
                    assert!(memory.report().held <= memory.report().most, "in step {step}");
                    continue;
                }
            }
            flow.reserved = flow.reserved.min(flow.waiting);
            account.change(before, flow.held());
            memory.settle(PeerId(*peer), account);
            let mut fresh = Account::new(TOTAL);
            memory.lend(PeerId(PEERS), &mut fresh);
            let room = fresh.room(0, 0);
            assert!(room.any > PIECE && room.reserve >= PIECE, "{room:?} in step {step}");
        }
        assert!(refused > 10_000, "{refused}: there was room for all");
        let all: u64 = sessions.iter().map(|(_, account, _)| account.held.bytes).sum();
        assert_eq!(memory.report().held, all);
    }
}
