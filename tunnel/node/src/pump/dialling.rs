//! Where a peer is dialled: one address after the other, and names that are resolved again.
//!
//! What always holds:
//! - D1  While a session that we dialled can be used, all its carriers lead to where it lives: of
//!   two addresses each may be another process, which would know nothing of it.
//! - D2  Otherwise an attempt that came to nothing is followed by one at the next address, and the
//!   last of them by the first. Another reading of the file begins with the first.
//!   While addresses are left of a round nothing is waited for between two attempts.
//! - D3  Names are resolved again when the last carrier of a session was lost, and after each round
//!   of all addresses. Nobody waits for that where there are addresses from before.
//!
//! Bounds: the addresses of one peer; one question at a time. Not here: when attempts are made
//! (`tunnel/proto`), who resolves (`resolver.rs`).

use std::net::SocketAddr;

use ringway_tunnel_proto::Target;

use super::address_of;

/// What a shard knows of where a peer is.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    /// Where it is, as last resolved.
    addresses: Vec<SocketAddr>,
    /// Which one is dialled next.
    at: usize,
    /// Which one was dialled last.
    tried: Option<SocketAddr>,
    /// Others are left of this round: behind the one that is dialled, or, after it failed, at all.
    others_left: bool,
    /// Its names are being resolved.
    asked: bool,
    /// A session was lost since they were.
    lost: bool,
}

/// What to do to dial.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// Whom, if that is known.
    pub(super) address: Option<SocketAddr>,
    /// Its names are to be resolved.
    pub(super) asks: bool,
}

impl Dialling {
    /// Where to dial a peer whom these lead to.
    pub(super) fn next(&mut self, targets: &[Target]) -> Next {
        let named = targets.iter().any(|target| address_of(target).is_none());
        if self.addresses.is_empty() && !named {
            self.take(targets.iter().filter_map(address_of).collect());
        }
        let round = self.at >= self.addresses.len();
        if round {
            self.at = 0;
        }
        let asks = named && !self.asked && (round || self.lost);
        if asks {
            (self.asked, self.lost) = (true, false);
        }
        let address = self.addresses.get(self.at).copied();
        self.tried = address.or(self.tried);
        self.others_left = self.at + 1 < self.addresses.len();
        Next { address, asks }
    }

    /// Nobody answered at the address that was dialled last. `lives`: the session that we dialled
    /// can be used nevertheless.
    pub(super) fn failed(&mut self, lives: bool) {
        // Other addresses may have come meanwhile: those were not tried.
        if !lives && self.addresses.get(self.at).copied() == self.tried {
            self.at += 1;
        }
        self.others_left = !lives && self.at < self.addresses.len();
    }

    /// Whether others are left of this round: behind the one that is dialled, or, after it failed,
    /// at all.
    pub(super) fn others_left(&self) -> bool {
        self.others_left
    }

    /// The last carrier of the session that we dialled was lost: the peer may have moved.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// Its names were resolved, or have no addresses: then those from before are all there is.
    pub(super) fn resolved(&mut self, found: Option<Vec<SocketAddr>>) {
        self.asked = false;
        if let Some(addresses) = found {
            self.take(addresses);
        }
    }

    /// Another configuration has come. `lives`: the session that we dialled can be used, and its
    /// next carrier leads to where it lives, if that is still one of the peer's addresses.
    pub(super) fn reread(&mut self, lives: bool) {
        let tried = self.tried.filter(|_| lives);
        *self = Dialling { tried, ..Dialling::default() };
    }

    /// Takes over addresses, and goes on with the one that was next, or lived in.
    fn take(&mut self, addresses: Vec<SocketAddr>) {
        let next = match self.addresses.is_empty() {
            true => self.tried,
            false => self.addresses.get(self.at).copied(),
        };
        let place = next.and_then(|next| addresses.iter().position(|one| *one == next));
        (self.addresses, self.at) = (addresses, place.unwrap_or(0));
    }

    /// Where it is, as last resolved.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn literal(ports: &[u16]) -> Vec<Target> {
        let target = |port: &u16| Target::Address(at(*port).ip(), *port);
        ports.iter().map(target).collect()
    }

    fn named() -> Vec<Target> {
        vec![Target::Host("gw.example".to_owned(), 4600)]
    }

    fn dial(port: u16) -> Next {
        Next { address: Some(at(port)), asks: false }
    }

    fn dial_and_ask(port: u16) -> Next {
        Next { address: Some(at(port)), asks: true }
    }

    /// One failure each, round and round; while the session lives nothing else is dialled than
    /// where it does, however often that fails.
    #[test]
    fn the_next_address_follows_one_failure() {
        let (mut dialling, targets) = (Dialling::default(), literal(&[1, 2, 3]));
        for port in [1, 2, 3, 1, 2] {
            assert_eq!(dialling.next(&targets), dial(port));
            dialling.failed(false);
        }
        for _ in 0..5 {
            assert_eq!(dialling.next(&targets), dial(3), "it lives there");
            dialling.failed(true);
        }
        dialling.lost();
        assert_eq!(dialling.next(&targets), dial(3), "there is nothing to resolve");
        dialling.failed(false);
        assert_eq!(dialling.next(&targets), dial(1));
    }

    /// Each failure but the last of a round leads to the next address at once, and the last one has
    /// all the time that there is. Where a session lives is no other address left.
    #[test]
    fn only_a_round_is_followed_by_a_pause() {
        let (mut dialling, targets) = (Dialling::default(), literal(&[1, 2, 3]));
        for others_left in [true, true, false, true] {
            let _ = dialling.next(&targets);
            assert_eq!(dialling.others_left(), others_left);
            dialling.failed(false);
            assert_eq!(dialling.others_left(), others_left);
        }
        assert_eq!(dialling.next(&targets), dial(2));
        dialling.failed(true);
        assert!(!dialling.others_left(), "the same is dialled again");
        let mut alone = Dialling::default();
        let _ = alone.next(&literal(&[1]));
        assert!(!alone.others_left());
        let mut named_alone = Dialling::default();
        let _ = named_alone.next(&named());
        named_alone.failed(false);
        assert!(!named_alone.others_left(), "none is known yet");
    }

    /// Names are asked for at first, when the session was lost, and after each round; never twice
    /// at once. What is known is dialled meanwhile.
    #[test]
    fn names_are_resolved_again_when_a_session_is_lost() {
        let (mut dialling, targets) = (Dialling::default(), named());
        assert_eq!(dialling.next(&targets), Next { address: None, asks: true });
        assert_eq!(dialling.next(&targets), Next { address: None, asks: false });
        dialling.resolved(Some(vec![at(1), at(2)]));
        assert_eq!(dialling.next(&targets), dial(1));
        assert_eq!(dialling.next(&targets), dial(1), "another carrier");
        dialling.lost();
        assert_eq!(dialling.next(&targets), dial_and_ask(1));
        dialling.failed(false);
        assert_eq!(dialling.next(&targets), dial(2));
        // It is elsewhere: that the attempt before fails says nothing of the new address.
        dialling.resolved(Some(vec![at(7), at(8)]));
        dialling.failed(false);
        assert_eq!(dialling.next(&targets), dial(7));
        dialling.failed(false);
        assert_eq!(dialling.next(&targets), dial(8));
        dialling.failed(false);
        assert_eq!(dialling.next(&targets), dial_and_ask(7), "a round is over");
        // The same addresses in another order: where it was is gone on with.
        dialling.resolved(Some(vec![at(8), at(7)]));
        dialling.failed(false);
        assert_eq!(dialling.next(&targets), dial_and_ask(8));
        dialling.resolved(None);
        assert_eq!(dialling.next(&targets), dial(8), "what was known is tried on");
    }

    /// Another reading begins with the first address, but for a session that lives elsewhere.
    #[test]
    fn another_reading_begins_with_the_first() {
        let (mut dialling, targets) = (Dialling::default(), literal(&[1, 2]));
        for lives in [false, true] {
            assert_eq!(dialling.next(&targets), dial(1));
            dialling.failed(false);
            assert_eq!(dialling.next(&targets), dial(2));
            dialling.reread(lives);
        }
        assert_eq!(dialling.next(&literal(&[3, 2])), dial(2), "it lives there");
        dialling.reread(true);
        assert_eq!(dialling.next(&literal(&[3, 4])), dial(3), "that is none any more");
    }
}
