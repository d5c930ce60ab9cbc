//! Connections: from the first byte to a carrier of a session, and their ends.
//!
//! ```text
//! came:   stranger --proof--> newcomer --first record--> member
//!            |  \--------------- joins a session ----------^
//!            \--> given to the shard of the session that it joins
//! dialled: asked --answer--> member          joining --connected--> member
//! any --refused--> deaf: read and dropped    any --gone--> what its session makes of it (`over`)
//! ```
//!
//! What always holds:
//! - C1  A connection is out of its place while its bytes are read. Whatever ends its session
//!   meanwhile does not find it, and it is the reader's to close.
//! - C2  A salt is taken before anything is answered; one that came before is refused. What is
//!   appended after [`Host::salted`] is not sent before the salt is kept.
//! - C3  Each number of a carrier is good once in a session, whatever overtakes what.
//! - C4  Whoever fails is refused in silence: no byte and no close tells how far it came.
//!
//! Bounds: constant time a connection, and a search of log n among those that are half open, of
//! which there are [`HALF_OPEN_MAX`]; what is read from who was refused is [`DEAF_BYTES_MAX`].
//! Not here: records and handshakes themselves (`link.rs`, `ringway-crypto`), which carriers a
//! session has and wants (`bond.rs`).
//! Tests: below; `tests/agents.rs`; `tests/storm/hostile.rs` has strangers.

use super::bond::{CHANCE, Door};
use super::registry::Live;
use super::*;
use crate::hello::{FarHello, NearHello, Wanted};
use crate::link::{Place, Salted, Step};
use crate::packet_link::PACKETS_FROM;
use ringway_crypto::{CarrierKind, Dial, Initiator, JoinRequest, Seen, Visitor, write_join};

/// What came of a connection's bytes.
enum Came {
    /// It goes on.
    On,
    /// It belongs to another shard now.
    Given,
    /// It is to be closed.
    Over,
    /// The session that it carries is to be given up.
    Broken(BondId),
}

impl Carrier {
    fn new(now: Moment, conn: ConnId, link: Link, standing: Standing) -> Self {
        let (pace, meter) = (Pace::new(now), Meter::new(now));
        Self {
            conn,
            link,
            standing,
            pace,
            meter,
            dropped: 0,
            patience: DEAF_MIN,
            heard_until: now + DEAF_MIN,
            half_open: None,
            ended: false,
        }
    }

    /// A stranger's, which is listened to for so long.
    fn strange(now: Moment, conn: ConnId, patience: Span) -> Self {
        let carrier = Self::new(now, conn, Link::far(), Standing::Stranger);
        Self { patience, heard_until: now + patience, ..carrier }
    }

    /// Reads on as if it were listened to (A1).
    fn drop_bytes(&mut self, bytes: usize, host: &mut impl Host) {
        self.dropped += bytes as u64;
        if self.dropped > DEAF_BYTES_MAX {
            host.pause(self.conn);
        }
    }
}

impl Agent {
    pub(super) fn take_carrier(&mut self, conn: ConnId) -> Option<Box<Carrier>> {
        let place = self.carriers.get_mut(conn.index as usize)?;
        place.take_if(|carrier| carrier.conn == conn)
    }

    fn put_carrier(&mut self, carrier: Box<Carrier>) {
        let at = carrier.conn.index as usize;
        if self.carriers.len() <= at {
            self.carriers.resize_with(at + 1, || None);
        }
        self.carriers[at] = Some(carrier);
    }

    /// Whether this connection is one of the agent's.
    pub fn has(&self, conn: ConnId) -> bool {
        let found = self.carriers.get(conn.index as usize).and_then(Option::as_deref);
        found.is_some_and(|carrier| carrier.conn == conn)
    }

    /// Somebody connected.
    pub fn accepted(&mut self, now: Moment, conn: ConnId, source: IpAddr, host: &mut impl Host) {
        let mut carrier = Carrier::strange(now, conn, self.deaf_for(source));
        self.note_half_open(now, &mut carrier, host);
        host.call_overdue(conn, carrier.patience);
        self.put_carrier(Box::new(carrier));
    }

    fn note_half_open(&mut self, now: Moment, carrier: &mut Carrier, host: &mut impl Host) {
        let bounded = !self.sabotage.breaks(Rule::HalfOpenBounded);
        while bounded && self.half_open.len() >= HALF_OPEN_MAX {
            let (_, oldest) = self.half_open.pop_first().expect("there are as many");
            if let Some(carrier) = self.take_carrier(oldest) {
                host.note(Some(oldest), Note::NotLetIn(NotLetIn::Crowded));
                host.close(oldest, false);
                // It may have joined a session and said nothing more yet.
                self.over(now, &carrier, host);
            }
        }
        self.half_open.insert(self.arrivals, carrier.conn);
        carrier.half_open = Some(self.arrivals);
        self.arrivals += 1;
    }

    /// Dials a session's peer: to join the session, or to begin one.
    pub(super) fn dial(&mut self, now: Moment, id: BondId, host: &mut impl Host) {
        let Some(bond) = self.get(id) else { return };
        let (peer, known) = (bond.peer, bond.known.is_some() && !bond.doubted && !bond.moves(now));
        let Some(conn) = host.dial(peer) else { return self.dial_failed(now, id, host) };
        let mut carrier = Carrier::new(now, conn, Link::far(), Standing::Joining(id));
        if !known {
            carrier.link = self.ask(now, id, conn, host);
            carrier.standing = Standing::Asked(id);
        }
        self.put_carrier(Box::new(carrier));
        self.get_mut(id).expect("it was just there").dialling = Some(conn);
        host.call_overdue(conn, answer_max(peer, host));
    }

    /// Says the first message of a session.
    fn ask(&mut self, now: Moment, id: BondId, conn: ConnId, host: &mut impl Host) -> Link {
        let bond = self.get(id).expect("the caller found it");
        let (credentials, asked) = self.credentials_for(now, bond);
        let wanted = |known: &Known| Wanted { session: known.id, token: known.token.clone() };
        let hello = NearHello {
            instance: self.settings.instance,
            shard: self.settings.shard,
            wanted: bond.known.as_ref().map(wanted),
        };
        self.get_mut(id).expect("it was just there").asked = Some(asked);
        let dial = Dial {
            network: self.listener.networks.first().expect("a site is in a network"),
            credentials: &credentials,
            kind: CarrierKind::Tcp,
            suites: SuiteSet::of(&self.listener.suites),
            now_ms: host.wall_ms(),
        };
        let said = hello.to_wire();
        Link::near(Initiator::start(&dial, &said, &mut self.entropy, host.out(conn)))
    }

    /// A dialled connection came to nothing. The next attempt leads to another address, or comes
    /// later, by chance.
    fn dial_failed(&mut self, now: Moment, id: BondId, host: &impl Host) {
        let chance = self.entropy.below(CHANCE);
        let Some(bond) = self.get_mut(id) else { return };
        bond.fail_dial(now, host.others_left(bond.peer), chance);
        self.touch(id);
    }

    /// What [`Host::dial`] began has ended: it is connected, or not.
    pub fn connected(&mut self, now: Moment, conn: ConnId, works: bool, host: &mut impl Host) {
        if !works {
            return self.closed(now, conn, host);
        }
        let Some(mut carrier) = self.take_carrier(conn) else { return };
        // The time for connecting is over; this is for the answer.
        if let Standing::Asked(id) | Standing::Joining(id) = carrier.standing
            && let Some(peer) = self.get(id).map(|bond| bond.peer)
        {
            host.call_overdue(conn, answer_max(peer, host));
        }
        if let Standing::Joining(id) = carrier.standing {
            self.join(now, id, &mut carrier, host);
        }
        self.put_carrier(carrier);
    }

    /// Says that a connection joins a session.
    fn join(&mut self, now: Moment, id: BondId, carrier: &mut Carrier, host: &mut impl Host) {
        let conn = carrier.conn;
        let network = self.listener.networks.first().expect("a site is in a network");
        let bond = self.bonds[id.0 as usize].as_deref_mut().expect("its end closes this one, too");
        let known = bond.known.as_mut().expect("there is something to join");
        let (number, epoch) = (known.next_number, known.epochs.number());
        known.next_number += 1;
        let secret = known.epochs.secret(epoch).expect("the present one is there");
        let (dial, what) = ((network, CarrierKind::Tcp, host.wall_ms()), (known.id, number, epoch));
        write_join(dial, what, secret, &mut self.entropy, host.out(conn));
        let (suite, out) = (known.suite, direction(bond.role));
        let backend = self.settings.backend(suite);
        let place = Place { carrier: number, epoch, out, suite, backend };
        carrier.link = Link::joining(place, secret);
        bond.dialling = None;
        let slot = bond.flows.carrier_on_trial(now);
        bond.enlist(slot, conn);
        carrier.standing = Standing::Member(id, slot);
        self.touch(id);
    }

    /// Another shard gives a carrier that joins a session of this one.
    pub fn adopted(&mut self, now: Moment, conn: ConnId, note: &[u8], host: &mut impl Host) {
        let read = note.split_first_chunk().zip(note[8.min(note.len())..].split_first_chunk());
        let Some(((patience, _), (heard_until, note))) = read else {
            return host.close(conn, false);
        };
        let Ok((request, taken)) = JoinRequest::read_note(note) else {
            return host.close(conn, false);
        };
        // It is listened to no longer than if it had come here first.
        let mut carrier = Box::new(Carrier {
            heard_until: Moment(u64::from_le_bytes(*heard_until)),
            ..Carrier::strange(now, conn, Span(u64::from_le_bytes(*patience)))
        });
        self.note_half_open(now, &mut carrier, host);
        host.call_overdue(conn, carrier.heard_until.since(now).max(Span::from_ms(1)));
        self.admit(now, &mut carrier, &request, host);
        self.put_carrier(carrier);
        self.received(now, conn, &mut note[taken..].to_vec(), host);
    }

    /// Bytes arrived.
    pub fn received(&mut self, now: Moment, conn: ConnId, bytes: &mut [u8], host: &mut impl Host) {
        let Some(mut carrier) = self.take_carrier(conn) else { return };
        carrier.meter.add(now, CAME, bytes.len() as u64);
        let came = self.read(now, &mut carrier, bytes, host);
        if let Standing::Member(bond, _) = carrier.standing {
            self.touch(bond);
        }
        if carrier.link.is_proved()
            && let Some(at) = carrier.half_open.take()
        {
            self.half_open.remove(&at);
        }
        match came {
            Came::On => self.put_carrier(carrier),
            Came::Given => self.forget_half_open(&carrier),
            Came::Over => {
                host.close(conn, false);
                self.over(now, &carrier, host);
            }
            Came::Broken(bond) => {
                self.put_carrier(carrier);
                let peer = self.get(bond).map(|bond| bond.peer);
                host.note(
                    Some(conn),
                    peer.map_or(Note::NotLetIn(NotLetIn::NoSession), Note::Broken),
                );
                self.end(now, bond, ResetCode::Protocol, host);
            }
        }
    }

    pub(super) fn forget_half_open(&mut self, carrier: &Carrier) {
        if let Some(at) = carrier.half_open {
            self.half_open.remove(&at);
        }
    }

    fn read(
        &mut self,
        now: Moment,
        carrier: &mut Carrier,
        mut bytes: &mut [u8],
        host: &mut impl Host,
    ) -> Came {
        while !bytes.is_empty() {
            if carrier.link.is_deaf() {
                carrier.drop_bytes(bytes.len(), host);
                return Came::On;
            }
            let mut first = None;
            let (taken, step) = match carrier.standing {
                // Nobody speaks before us.
                Standing::Joining(_) => return Came::Over,
                Standing::Member(id, slot) => {
                    match self.read_records(now, (id, slot), carrier, bytes, host) {
                        Ok(read) => read,
                        Err(_) => return Came::Broken(id),
                    }
                }
                Standing::Newcomer(_) => {
                    let entropy = &mut self.entropy;
                    carrier.link.received(bytes, None, entropy, |text, _| {
                        first = Some(text.to_vec());
                        false
                    })
                }
                Standing::Stranger | Standing::Asked(_) => {
                    let listener = Some((&self.listener, host.wall_ms()));
                    carrier.link.received(bytes, listener, &mut self.entropy, |_, _| false)
                }
            };
            bytes = &mut bytes[taken..];
            if let Some(text) = first
                && let Err(came) = self.begin(now, carrier, &text, host)
            {
                return came;
            }
            match self.step(now, carrier, step, bytes, host) {
                Came::On => {}
                came => return came,
            }
        }
        Came::On
    }

    /// Reads what is on a session's carrier.
    fn read_records(
        &mut self,
        now: Moment,
        (id, slot): (BondId, CarrierSlot),
        carrier: &mut Carrier,
        bytes: &mut [u8],
        host: &mut impl Host,
    ) -> Result<(usize, Step), Violation> {
        let bond = self.bonds[id.0 as usize].as_deref_mut().expect("its end closes this one, too");
        let Bond { flows, known, members, peer, .. } = bond;
        let known = known.as_mut().expect("a session with carriers has keys");
        self.memory.lend(*peer, &mut flows.account);
        let mut door = Door::new(host, id);
        let mut outcome = Ok(());
        let read = carrier.link.received(bytes, None, &mut self.entropy, |text, rekeying| {
            outcome = flows.received(now, slot, text, &mut door).and_then(|()| {
                let Some(epoch) = door.keys.take() else { return Ok(()) };
                rekeying.change_over(known.epochs.changed_over(now, epoch)?);
                Ok(())
            });
            outcome.is_ok()
        });
        self.memory.settle(*peer, &mut flows.account);
        if door.left
            && let Some(member) = &mut members[usize::from(slot.0)]
        {
            member.left = true;
        }
        outcome?;
        if let Some(exchange) = door.exchange {
            known.epochs.heard(now, exchange, &mut self.entropy)?;
            if self.sabotage.breaks(Rule::ResponderWaits) {
                known.epochs.changed_over(now, exchange.epoch)?;
            }
        }
        Ok(read)
    }

    /// Does what a link has come to.
    fn step(
        &mut self,
        now: Moment,
        carrier: &mut Carrier,
        step: Step,
        rest: &[u8],
        host: &mut impl Host,
    ) -> Came {
        let asked = matches!(carrier.standing, Standing::Asked(_));
        match step {
            Step::More => {}
            Step::Knock(Salted { salt, sent_ms }) => {
                let wall = host.wall_ms();
                let taken = host.registry(|registry| registry.take_salt(&salt, sent_ms, wall));
                let why = match taken {
                    Ok(()) => {
                        host.salted(carrier.conn);
                        return Came::On;
                    }
                    Err(Seen::Full) => NotLetIn::Flooded,
                    Err(Seen::Before | Seen::TooOld) => NotLetIn::Replayed,
                };
                if !self.sabotage.breaks(Rule::MessagesOnce) {
                    carrier.link.refuse();
                    host.note(Some(carrier.conn), Note::NotLetIn(why));
                }
            }
            Step::Visitor(visitor) => self.let_in(carrier, *visitor, host),
            Step::Join(request) => {
                let owner = (request.session.0 & 0xff) as u8;
                let elsewhere = owner != self.settings.shard && owner < self.settings.shards;
                if elsewhere && !self.sabotage.breaks(Rule::HandedOver) {
                    let mut note = Vec::with_capacity(1024 + rest.len());
                    note.extend(carrier.patience.0.to_le_bytes());
                    note.extend(carrier.heard_until.0.to_le_bytes());
                    request.write_note(&mut note);
                    note.extend_from_slice(rest);
                    host.give(carrier.conn, owner, &note);
                    return Came::Given;
                }
                self.admit(now, carrier, &request, host);
            }
            Step::Answered(established) => return self.answered(now, carrier, *established, host),
            Step::Refused(_) if asked => return Came::Over,
            Step::Refused(why) => {
                host.note(Some(carrier.conn), Note::NotLetIn(NotLetIn::Refused(why)));
            }
            Step::Broken => return self.broken(now, carrier, host),
        }
        Came::On
    }

    /// A record was forged. Who dialled closes; who was dialled shows nothing (A1).
    fn broken(&mut self, now: Moment, carrier: &mut Carrier, host: &mut impl Host) -> Came {
        let Standing::Member(id, _) = carrier.standing else { return Came::On };
        let Some((peer, role)) = self.get(id).map(|bond| (bond.peer, bond.role)) else {
            return Came::Over;
        };
        host.note(Some(carrier.conn), Note::Broken(peer));
        if role == Role::Initiator {
            return Came::Over;
        }
        self.over(now, carrier, host);
        carrier.standing = Standing::Stranger;
        self.note_half_open(now, carrier, host);
        host.call_overdue(carrier.conn, carrier.patience);
        Came::On
    }

    /// Somebody has proved who they are.
    fn let_in(&mut self, carrier: &mut Carrier, mut visitor: Visitor, host: &mut impl Host) {
        if self.sabotage.breaks(Rule::VersionsAgree) {
            visitor.payload[0] = crate::hello::VERSION;
        }
        let mut refuse = |carrier: &mut Carrier, why| {
            carrier.link.refuse();
            host.note(Some(carrier.conn), Note::NotLetIn(why));
        };
        let anybody =
            self.by_proof.values().next().filter(|_| self.sabotage.breaks(Rule::KnownAlone));
        let Some((peer, psk)) = self.by_proof.get(&visitor.peer).or(anybody) else {
            return refuse(carrier, NotLetIn::Unknown(visitor.peer));
        };
        let Ok(hello) = NearHello::from_wire(&visitor.payload) else {
            return refuse(carrier, NotLetIn::Version);
        };
        let owner = Owner { peer: *peer, instance: hello.instance, shard: hello.shard };
        let proof = visitor.peer;
        let (lives, moved) = hello.wanted.map_or((false, false), |wanted| {
            host.registry(|registry| {
                let before = registry.proof_of(wanted.session);
                let lives = registry.go_on(&wanted, owner, proof);
                (lives, lives && before != Some(proof))
            })
        });
        if moved {
            host.note(Some(carrier.conn), Note::Moved(owner.peer));
        }
        let lives = lives && !self.sabotage.breaks(Rule::LivingGoesOn);
        let chance = u64::from_le_bytes(self.entropy.array());
        let id = SessionId((chance >> 24 | 1) << 8 | u64::from(self.settings.shard));
        let answer = FarHello { instance: self.settings.instance, session: id, lives };
        let backend = self.settings.backend(visitor.suite());
        let out = host.out(carrier.conn);
        let (who, what) = ((visitor, psk.as_ref()), (&answer.to_wire()[..], backend));
        match carrier.link.accept(who, what, &mut self.entropy, out) {
            // They come back by joining.
            Ok(_) if lives => carrier.link.refuse(),
            Ok(established) => {
                let newcomer = Newcomer { established, owner, id };
                carrier.standing = Standing::Newcomer(Box::new(newcomer));
            }
            Err(why) => host.note(Some(carrier.conn), Note::NotLetIn(NotLetIn::Refused(why))),
        }
    }

    /// A newcomer's first record: they have the keys, and their session begins.
    fn begin(
        &mut self,
        now: Moment,
        carrier: &mut Carrier,
        text: &[u8],
        host: &mut impl Host,
    ) -> Result<(), Came> {
        let Standing::Newcomer(newcomer) =
            core::mem::replace(&mut carrier.standing, Standing::Stranger)
        else {
            return Ok(());
        };
        let Newcomer { established, owner, id } = *newcomer;
        // Another configuration may have come meanwhile.
        if !self.trusts(established.peer, owner.peer) || self.stopping {
            return Err(Came::Over);
        }
        let token = established.secret.token(id);
        let live = Live { owner, proof: established.peer, token };
        if let Some(old) = host.registry(|registry| registry.begin(id, live))
            && !self.sabotage.breaks(Rule::OneSession)
        {
            match self.by_session.get(&old) {
                Some(bond) => self.end(now, *bond, ResetCode::Gone, host),
                None => host.replaced(old),
            }
        }
        let identity = Identity { mine: None, theirs: established.peer };
        let theirs = (id, owner.instance, identity);
        let mut known = Known::new(now, Role::Responder, theirs, established);
        known.epochs.sabotage = self.sabotage;
        let bond_id = self.add_bond(now, owner.peer, Role::Responder, Some(known));
        self.by_session.insert(id, bond_id);
        let said = self.with_memory(bond_id, |bond| {
            let slot = bond.flows.carrier_up(now);
            bond.enlist(slot, carrier.conn);
            bond.tell_standing(bond_id, true, host);
            carrier.standing = Standing::Member(bond_id, slot);
            bond.flows.received(now, slot, text, &mut Door::new(host, bond_id))
        });
        said.expect("it was just made").map_err(|_| Came::Broken(bond_id))
    }

    /// Somebody brings a carrier of a session that should be here.
    fn admit(
        &mut self,
        now: Moment,
        carrier: &mut Carrier,
        request: &JoinRequest,
        host: &mut impl Host,
    ) {
        let admitted = self.try_admit(now, carrier, request);
        if let Err(why) = admitted {
            carrier.link.refuse();
            host.note(Some(carrier.conn), Note::NotLetIn(why));
        }
    }

    fn try_admit(
        &mut self,
        now: Moment,
        carrier: &mut Carrier,
        request: &JoinRequest,
    ) -> Result<(), NotLetIn> {
        let id = *self.by_session.get(&request.session).ok_or(NotLetIn::NoSession)?;
        let (settings, sabotage) = (self.settings, self.sabotage);
        let bond = self.get_mut(id).ok_or(NotLetIn::NoSession)?;
        let (out, room) =
            (direction(bond.role), bond.members.iter().flatten().count() < CARRIERS_MAX);
        let known = bond.known.as_mut().ok_or(NotLetIn::NoSession)?;
        let secret = known.epochs.secret(request.epoch).ok_or(NotLetIn::NoSession)?;
        let proved = request.verify(secret).map_err(NotLetIn::Refused);
        proved.or_else(|why| if sabotage.breaks(Rule::JoinsProved) { Ok(()) } else { Err(why) })?;
        if !room || !known.take_number(request.carrier) {
            return Err(NotLetIn::NoSession);
        }
        // If the epoch is a new one, who joins under it has it, as KEYS would say.
        let secret = known.epochs.changed_over(now, request.epoch);
        let secret = secret.map_err(|_| NotLetIn::NoSession)?;
        let (suite, backend) = (known.suite, settings.backend(known.suite));
        let place = Place { carrier: request.carrier, epoch: request.epoch, out, suite, backend };
        carrier.link.admit(place, secret);
        let slot = bond.flows.carrier_on_trial(now);
        bond.enlist(slot, carrier.conn);
        carrier.standing = Standing::Member(id, slot);
        self.touch(id);
        Ok(())
    }

    /// The peer that we asked has answered.
    fn answered(
        &mut self,
        now: Moment,
        carrier: &mut Carrier,
        established: Established,
        host: &mut impl Host,
    ) -> Came {
        let Standing::Asked(id) = carrier.standing else { return Came::Over };
        let Ok(hello) = FarHello::from_wire(&established.payload) else { return Came::Over };
        let bond = self.bonds[id.0 as usize].as_deref().expect("its end closes this one, too");
        // Another configuration may have come meanwhile.
        if !self.trusts(established.peer, bond.peer) {
            return Came::Over;
        }
        let bond = self.bonds[id.0 as usize].as_deref_mut().expect("it was just there");
        let Asked { identity, to_move } = bond.asked.expect("it was asked");
        // Who was asked under other keys and does not have what we have is another than who has:
        // that one may stand between us.
        if hello.lives || bond.usable() > 0 && !to_move {
            // What we have is good: join it, or go on with what has just joined.
            bond.dialling = None;
            (bond.doubted, bond.failures, bond.rounds, bond.retry_at) = (false, 0, 0, now);
            carrier.standing = Standing::Stranger;
            let (peer, moved) =
                (bond.peer, bond.known.as_ref().is_some_and(|known| known.identity != identity));
            if hello.lives {
                self.counts_under(now, id, identity);
            }
            if hello.lives && moved {
                host.note(None, Note::Moved(peer));
            }
            self.touch(id);
            return Came::Over;
        }
        if bond.known.is_some() {
            self.start_over(now, id, ResetCode::Gone, host);
        }
        let bond = self.bonds[id.0 as usize].as_deref_mut().expect("it starts over");
        let (suite, out) = (established.suite, Direction::ToResponder);
        let place =
            Place { carrier: 0, epoch: 0, out, suite, backend: self.settings.backend(suite) };
        carrier.link.admit(place, &established.secret);
        let theirs = (hello.session, hello.instance, identity);
        let mut known = Known::new(now, Role::Initiator, theirs, established);
        known.epochs.sabotage = self.sabotage;
        bond.known = Some(known);
        bond.dialling = None;
        (bond.doubted, bond.failures, bond.rounds) = (false, 0, 0);
        // The far agent has the session once it has heard our first record. Until it says so, flows
        // wait: if this carrier is lost before, there is no session in which they could go on.
        let slot = if self.sabotage.breaks(Rule::FirstOnTrial) {
            bond.flows.carrier_up(now)
        } else {
            bond.flows.carrier_on_trial(now)
        };
        bond.enlist(slot, carrier.conn);
        host.bond(id, bond.peer, false);
        carrier.standing = Standing::Member(id, slot);
        self.counts_under(now, id, identity);
        self.touch(id);
        Came::On
    }

    /// A connection has gone: its peer closed it, or the kernel did.
    pub fn closed(&mut self, now: Moment, conn: ConnId, host: &mut impl Host) {
        if let Some(carrier) = self.take_carrier(conn) {
            host.close(conn, false);
            self.over(now, &carrier, host);
        }
    }

    /// A connection was ended by its peer, in order: all that it sent has come.
    pub fn ended(&mut self, now: Moment, conn: ConnId, host: &mut impl Host) {
        if let Some(mut carrier) = self.take_carrier(conn) {
            carrier.ended = !carrier.link.is_within();
            host.close(conn, false);
            self.over(now, &carrier, host);
        }
    }

    /// What an end of a connection means to its session.
    pub(super) fn over(&mut self, now: Moment, carrier: &Carrier, host: &mut impl Host) {
        self.forget_half_open(carrier);
        match carrier.standing {
            Standing::Stranger | Standing::Newcomer(_) => {}
            Standing::Asked(id) | Standing::Joining(id) => {
                let Some(bond) = self.get_mut(id) else { return };
                bond.dialling = None;
                let peer = bond.peer;
                let asked = matches!(carrier.standing, Standing::Asked(_));
                if asked && bond.asked.is_some_and(|asked| asked.to_move) {
                    return self.not_moved(now, id, host);
                }
                // What answers at another address may know nothing of the session: it is asked.
                let doubts = !self.sabotage.breaks(Rule::DoubtAsks);
                if let Some(bond) = self.get_mut(id).filter(|bond| !bond.flows_can_go()) {
                    bond.doubted |= doubts;
                }
                let answered = asked && carrier.link.is_deaf();
                host.note(
                    Some(carrier.conn),
                    if answered { Note::BadAnswer(peer) } else { Note::NoAnswer(peer) },
                );
                self.dial_failed(now, id, host);
            }
            Standing::Member(id, slot) => {
                let Some(bond) = self.get_mut(id) else { return };
                let (peer, role) = (bond.peer, bond.role);
                let left = bond.is_left(slot);
                let lost = bond.discharge(now, slot);
                self.touch(id);
                if role == Role::Responder || carrier.link.is_proved() {
                    // One that is closed on purpose is not lost.
                    let in_order = lost == 0 && (left || carrier.ended);
                    if !in_order || self.sabotage.breaks(Rule::PurposeKnown) {
                        host.note(Some(carrier.conn), Note::Lost(peer, lost));
                    }
                } else {
                    host.note(Some(carrier.conn), Note::NoAnswer(peer));
                    // Perhaps the far agent has forgotten the session: the next attempt asks.
                    let doubts = !self.sabotage.breaks(Rule::DoubtAsks);
                    self.get_mut(id).expect("it was just there").doubted = doubts;
                    self.dial_failed(now, id, host);
                }
            }
        }
    }

    /// The time is over that [`Host::call_overdue`] gave a connection.
    pub fn overdue(&mut self, now: Moment, conn: ConnId, host: &mut impl Host) {
        let Some(carrier) = self.take_carrier(conn) else { return };
        if matches!(carrier.standing, Standing::Member(..)) && carrier.link.is_proved() {
            return self.put_carrier(carrier);
        }
        let rule = match carrier.standing {
            Standing::Asked(_) | Standing::Joining(_) => Rule::AnswersTimed,
            _ => Rule::StrangersDropped,
        };
        if self.sabotage.breaks(rule) {
            return self.put_carrier(carrier);
        }
        host.close(conn, false);
        self.over(now, &carrier, host);
    }

    /// A connection takes more.
    pub fn drained(&mut self, conn: ConnId) {
        let found = self.carriers.get(conn.index as usize).and_then(Option::as_deref);
        if let Some(Standing::Member(bond, _)) = found.map(|carrier| &carrier.standing) {
            self.touch(*bond);
        }
    }

    /// A session of this shard is replaced by one on another.
    pub fn replaced(&mut self, now: Moment, session: SessionId, host: &mut impl Host) {
        if let Some(bond) = self.by_session.get(&session) {
            self.end(now, *bond, ResetCode::Gone, host);
        }
    }
}

/// How long a connect to a peer may take, and then its answer.
fn answer_max(peer: PeerId, host: &impl Host) -> Span {
    if host.others_left(peer) { ANSWER_MAX_OTHERS } else { ANSWER_MAX }
}

impl Known {
    /// Whether a carrier with this number may come: each may once.
    fn take_number(&mut self, number: CarrierId) -> bool {
        if number < self.next_number {
            return self.late.remove(&number);
        }
        // From there on they are those of carriers of packets.
        if number >= PACKETS_FROM {
            return false;
        }
        let next = number + 1;
        // Those that were lost never come: the lowest are given up for later ones.
        let lowest = number.saturating_sub(NUMBERS_LATE_MAX as CarrierId);
        self.late.extend(self.next_number.max(lowest)..number);
        while self.late.len() > NUMBERS_LATE_MAX {
            self.late.pop_first();
        }
        self.next_number = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many carriers were lost before they joined, each number is good once, and the next
    /// ones come in.
    #[test]
    fn numbers_are_good_once_and_never_run_out() {
        let established = crate::testing::established();
        let identity = Identity { mine: None, theirs: established.peer };
        let theirs = (SessionId(1), Instance([1; 16]), identity);
        let mut known = Known::new(Moment(0), Role::Responder, theirs, established);
        assert!(known.take_number(3) && known.take_number(1));
        assert!(!known.take_number(3) && !known.take_number(1) && !known.take_number(0));
        // Every other one is lost.
        let last = 4 * NUMBERS_LATE_MAX as u32;
        assert!((4..=last).step_by(2).all(|number| known.take_number(number)));
        assert!(known.late.len() <= NUMBERS_LATE_MAX);
        assert!(known.take_number(last - 1) && !known.take_number(last - 1));
        assert!(!known.take_number(2), "it is too late");
        let highest = PACKETS_FROM - 1;
        assert!(known.take_number(highest) && known.take_number(highest - 1));
        assert!(!known.take_number(highest) && !known.take_number(u32::MAX));
        assert!(!known.take_number(PACKETS_FROM), "that is one of packets");
    }
}
