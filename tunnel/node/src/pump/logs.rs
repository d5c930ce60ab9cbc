//! What happens, in the log's and the counters' words; and whom to dial.
//!
//! What always holds:
//! - L1  Whoever shows no network key makes no line above `debug`, but for who says again what was
//!   heard; all of them are counted, by reasons of which there are ten.
//! - L2  That nobody answers is said once, with what may be wrong, after [`PUZZLED_AFTER`] attempts
//!   in a row at each address of the peer; and not again before somebody has answered.
//! - L3  No line has a key, a salt or a token in it.
//!
//! Bounds: of sessions as many entries as ever lived at once; of attempts and addresses one for
//! each peer of the configuration: those of peers that are gone go with the next reading.
//! Not here: which address is next (`dialling.rs`), what a counter is called outside (`asked.rs`).
//! Tests: `dialling.rs`; `tools/ringway/tests/real/tunnel/truth.rs` and `hostile.rs` read the log.

use std::collections::HashMap;
use std::net::SocketAddr;

use ringway_core::ConnId;
use ringway_crypto::{PeerProof, Refused};
use ringway_tunnel_proto::{BondId, NotLetIn, Note, PeerId, ResetCode, Target};

use super::dialling::Dialling;
use super::flow::FlowKey;
use super::own::Own;
use crate::resolver::Ask;

/// Attempts without an answer, at each address, after which the log lists what may be wrong.
const PUZZLED_AFTER: u32 = 3;

/// Sessions, by what was said last of each number. Of one that is over it is the end that was said,
/// until its number is used again: so there are as many as ever lived at once.
pub(super) type Bonds = HashMap<BondId, Standing>;

/// What was said of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    peer: PeerId,
    up: bool,
    dialled: bool,
}

impl Own {
    /// A session can be used, or cannot.
    pub(super) fn note_bond(&mut self, bond: BondId, peer: PeerId, up: bool) {
        let before = self.bonds.get(&bond).copied().filter(|before| before.peer == peer);
        let was_up = before.is_some_and(|before| before.up);
        // Who is dialled hears of a session when it can be used; who dials, before that, too.
        let dialled = before.map_or(!up, |before| before.dialled || !up && !before.up);
        self.bonds.insert(bond, Standing { peer, up, dialled });
        if was_up
            && !up
            && dialled
            && let Some(dialling) = self.dialling.get_mut(&peer)
        {
            dialling.lost();
        }
        let up_now = self.site.name(peer);
        tracing::debug!(peer = up_now, up, "session {}", bond.0);
    }

    pub(super) fn peer_of(&self, bond: BondId) -> Option<PeerId> {
        self.bonds.get(&bond).map(|standing| standing.peer)
    }

    /// Whether a session that we dialled can be used: a peer may dial us as well.
    fn lives(&self, peer: PeerId) -> bool {
        self.bonds.values().any(|one| one.peer == peer && one.dialled && one.up)
    }

    /// A flow's application took or got something: it is looked at when the turn ends.
    pub(super) fn touch(&mut self, key: FlowKey) {
        if let Some(flow) = self.flow(key)
            && !std::mem::replace(&mut flow.touched, true)
        {
            self.touched.push(key);
        }
    }

    // ---- Whom to dial.

    /// Where to dial a peer now. Names are resolved beside the shard: until then there is nothing.
    pub(super) fn next_address(&mut self, peer: PeerId) -> Option<SocketAddr> {
        let site = self.site.clone();
        let next = self.dialling.entry(peer).or_default().next(&site.peer(peer)?.addresses);
        if next.asks {
            let ask = Ask::of_peer(self.me, peer, &site.peer(peer)?.addresses);
            self.shared.questions.ask(ask);
        }
        next.address
    }

    /// Nobody answered where a peer was dialled, or it cannot be dialled.
    pub(super) fn look_further(&mut self, peer: PeerId) {
        let lives = self.lives(peer);
        if let Some(dialling) = self.dialling.get_mut(&peer) {
            dialling.failed(lives);
        }
    }

    /// Another configuration has come: peers may have gone, or may be elsewhere.
    pub(super) fn reread(&mut self) {
        let site = self.site.clone();
        let known = |peer: &PeerId| site.peer(*peer).is_some();
        self.silent.retain(|peer, _| known(peer));
        self.dialling.retain(|peer, _| known(peer));
        let lives: Vec<bool> = self.dialling.keys().map(|peer| self.lives(*peer)).collect();
        for (dialling, lives) in self.dialling.values_mut().zip(lives) {
            dialling.reread(lives);
        }
        self.bonds.retain(|_, standing| known(&standing.peer));
        self.forget_tallies(|peer| known(&peer));
    }

    /// The addresses of a peer are known, or there are none.
    pub(super) fn peer_resolved(
        &mut self,
        peer: PeerId,
        found: Result<Vec<SocketAddr>, ResetCode>,
    ) {
        let Some(dialling) = self.dialling.get_mut(&peer) else { return };
        if found.is_err() {
            let targets = self.site.peer(peer).map(|peer| peer.addresses.as_slice());
            let names: Vec<String> =
                targets.unwrap_or_default().iter().map(Target::to_string).collect();
            tracing::warn!(
                peer = self.site.name(peer),
                "none of {names:?} has an address: see that `getent hosts NAME` knows it"
            );
        }
        dialling.resolved(found.ok());
    }

    // ---- The log.

    pub(super) fn log(&mut self, conn: Option<ConnId>, note: Note) {
        let site = self.site.clone();
        let metrics = &self.shared.metrics;
        match note {
            Note::Up(peer) => {
                self.silent.remove(&peer);
                tracing::info!(peer = site.name(peer), "connected");
            }
            Note::Back(peer) => {
                self.silent.remove(&peer);
                tracing::info!(peer = site.name(peer), "connected again; its flows go on");
            }
            // A peer that is stopped, or goes home, says so by this: it harms nobody.
            Note::Alone(peer, 0) => {
                tracing::info!(peer = site.name(peer), "no carrier is left, and no flow waits");
            }
            Note::Alone(peer, flows) => {
                let wait = site.config.wait.as_ms_ceil() / 1000;
                tracing::warn!(
                    peer = site.name(peer),
                    flows,
                    "no carrier is left; its flows wait up to {wait} s"
                );
            }
            Note::GivenUp(peer, flows) => {
                log_resets(site.name(peer), flows, "waited too long");
            }
            Note::Forgotten(peer, flows) => {
                let why = "it was started anew and knows nothing of its flows";
                log_resets(site.name(peer), flows, why);
            }
            Note::NoAnswer(peer) => self.puzzled(peer),
            Note::NotTaken(peer) => {
                tracing::debug!(
                    peer = site.name(peer),
                    "its session is not known there any more, it seems: it is asked"
                );
            }
            Note::BadAnswer(peer) => {
                self.look_further(peer);
                tracing::warn!(
                    peer = site.name(peer),
                    "what answered is not this peer: see that `addresses`, its public key and the \
                     network key belong together, and that nothing between changes bytes"
                );
            }
            Note::Moved(peer) => log_move(site.name(peer), true),
            Note::NotMoved(peer) => log_move(site.name(peer), false),
            Note::NotLetIn(why) => {
                metrics.not_let_in(why);
                self.turned_away(conn, why);
            }
            Note::Lost(peer, bytes) => {
                metrics.carriers_lost.add(1);
                metrics.bytes_lost.add(bytes);
                tracing::debug!(peer = site.name(peer), bytes, "a carrier was lost");
            }
            Note::Packets(peer, true) => log_way(site.name(peer), Udp::Works),
            Note::Packets(peer, false) => log_way(site.name(peer), Udp::Silent),
            Note::HeldBack(peer) => log_way(site.name(peer), Udp::HeldBack),
            Note::NotHeldBack(peer) => log_way(site.name(peer), Udp::Free),
            Note::Broken(peer) => {
                metrics.broken.add(1);
                tracing::warn!(
                    peer = site.name(peer),
                    "a record does not verify or says what cannot be: its carrier was closed"
                );
            }
        }
    }

    /// Nobody answered. A wrong key, a wrong clock and a dead host look alike from here.
    fn puzzled(&mut self, peer: PeerId) {
        self.look_further(peer);
        let whole_round = !self.dialling.get(&peer).is_some_and(Dialling::others_left);
        let times = self.silent.entry(peer).or_default();
        *times += u32::from(whole_round);
        let site = self.site.clone();
        let peer_name = site.name(peer);
        if whole_round && *times == PUZZLED_AFTER {
            let tried = self.dialling.get(&peer).map(|one| one.addresses().to_vec());
            tracing::warn!(
                peer = peer_name,
                tried = ?tried.unwrap_or_default(),
                "no answer after {times} attempts at each address. Either nothing listens there or \
                 is let through; or it listens and does not know us, which it never says: compare \
                 the network keys, our public key in its file with `ringway keygen --public`, its \
                 public key in ours, and both clocks (30 s apart at most). Its own log names the \
                 reason, unless the network keys differ"
            );
        } else {
            tracing::debug!(peer = peer_name, "no answer");
        }
    }

    fn turned_away(&self, conn: Option<ConnId>, why: NotLetIn) {
        // Who was there says more than what they said: it is logged, and nobody hears of it.
        let from = conn.and_then(|conn| self.carrier_peer(conn));
        let from = from.map(tracing::field::display);
        match why {
            NotLetIn::Refused(Refused::Clock { ahead_ms }) => tracing::warn!(
                from,
                "a peer's clock is {} s {} ours, and 30 s are allowed: set one of them right",
                ahead_ms.unsigned_abs() / 1000,
                if ahead_ms > 0 { "ahead of" } else { "behind" }
            ),
            NotLetIn::Refused(Refused::UnknownKey(_)) => tracing::warn!(
                from,
                "somebody of our network wants another site than this: see which public key of \
                 ours they have (`ringway keygen --public`)"
            ),
            NotLetIn::Refused(Refused::NoCommonSuite) => tracing::warn!(
                from,
                "a peer offers none of our ciphers: see `ciphers` in both files"
            ),
            NotLetIn::Unknown(PeerProof::Key(key)) => tracing::warn!(
                from,
                "somebody of our network is no peer of ours: a [[peer]] with public_key = \
                 \"{key}\" would let them in"
            ),
            NotLetIn::Unknown(PeerProof::Shared(_)) => tracing::warn!(
                from,
                "somebody of our network is no peer of ours: no [[peer]] has their shared_key"
            ),
            NotLetIn::Version => tracing::warn!(from, "a peer speaks another version"),
            NotLetIn::Replayed => tracing::warn!(
                from,
                "a first message came a second time, or from before this process: somebody \
                 replays, or a peer's clock is behind"
            ),
            NotLetIn::Flooded => tracing::warn!(
                from,
                "more first messages came of late than can be told from replays, so none is \
                 answered for half a minute: somebody who has our network key sends them"
            ),
            NotLetIn::NoSession | NotLetIn::Crowded | NotLetIn::Refused(_) => {
                tracing::debug!(from, ?why, "not let in");
            }
        }
    }
}

fn log_resets(peer: &str, flows: u64, why: &str) {
    tracing::warn!(peer, flows, "{why}: its flows were reset");
}

/// How UDP does.
#[derive(Clone, Copy)]
enum Udp {
    Works,
    Silent,
    HeldBack,
    Free,
}

/// By what streams go from now on, and why.
fn log_way(peer: &str, udp: Udp) {
    match udp {
        Udp::Works => tracing::info!(peer, "UDP gets through: streams go by it"),
        Udp::Silent => tracing::info!(
            peer,
            "UDP carries nothing any more: nothing comes back by it, or the other side has ended \
             it. Streams go by TCP, if that works"
        ),
        Udp::HeldBack => tracing::warn!(
            peer,
            "UDP gets through and brings much less than TCP does: something on the way holds it \
             back. Streams go by TCP, and UDP is tried again now and then"
        ),
        Udp::Free => tracing::info!(
            peer,
            "UDP does not count as held back any more: it brings as much as TCP again, or no TCP \
             carrier answers, or the session has begun anew. Streams go by UDP where it works"
        ),
    }
}

/// Keys are rotated, and a session follows, or cannot.
fn log_move(peer: &str, moved: bool) {
    if moved {
        tracing::info!(
            peer,
            "its session counts under another key now; `ringway tunnel status` says under which \
             each does"
        );
    } else {
        tracing::warn!(
            peer,
            "it does not take the key that is to be shown first: its session goes on under the \
             one before, and ends if that is taken away. See that both files have the new key; it \
             is tried again in a minute"
        );
    }
}
