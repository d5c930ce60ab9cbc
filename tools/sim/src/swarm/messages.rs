//! Messages between clients: to names, to sessions, to all; with receipts, and as a name's owner.
//!
//! Each payload is sent to a target once, so whoever hears it knows who sent it, and when.
//!
//! Invariants checked here on top of the oracle's:
//! - S1  What is heard was sent: with this payload, to this target, by this sender.
//! - S2  At most once by each session, and by one alone if the name is not shared.
//! - S3  What one connection sends to one target, all without a source or all with the same one,
//!   is heard in its order.
//! - S4  Who is told that a message was handed over can rely on it: all who held the name
//!   meanwhile hear it, unless they lose a connection. What was refused is heard by nobody.
//! - S5  Whoever hears a message to a name had that name at some moment since it was sent.
//! - S6  Who does not read is handed nothing.
//! - S7  A receiver whose connection is sound is neither away nor full.
//! - S8  Only who may see a session reaches it.
//!
//! That the old owner's messages are refused is no rule of its own: an accepted message is an
//! observation that its source is held under its token, and the histories judge it.
//! Tests: `tests/sabotage.rs`.

use std::collections::BTreeMap;

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::{op, push, put_op, status};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{SessionId, Token};

use super::client::{Asked, Sent};
use super::history::{Entry, Seen, Sight, Verb};
use super::plan::Style;
use super::world::{Judged, Wire, World};
use crate::stream::Got;

/// Whom a letter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Name(usize),
    Session(SessionId),
    All,
}

/// Somebody heard a letter.
#[derive(Clone, Copy, Debug)]
struct Hearing {
    wire: usize,
    client: usize,
    /// The session of the wire, if it cannot have been for another.
    session: Option<SessionId>,
    at: u64,
}

/// A message, as its sender knows it.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    client: usize,
    pub(crate) to: To,
    /// The name that it is sent as the owner of, and the token.
    pub(crate) source: Option<(usize, Token)>,
    receipt: bool,
    same: bool,
    /// What is in it; several letters of a frame may have the same in them.
    payload: u64,
    wire: usize,
    life: u32,
    number: u64,
    /// When it was sent; zero: not yet.
    call: u64,
    /// What was answered, and when.
    answer: Option<(u8, u64)>,
    /// How many were reached, of a letter to all.
    reached: Option<u64>,
    heard: Vec<Hearing>,
}

impl Letter {
    /// Which letters are kept in order among each other, beside who hears them.
    fn line(&self) -> Line {
        (self.wire, self.to, self.source.map(|(name, _)| name))
    }

    /// What a receiver reads of it beside the payload.
    fn label(&self) -> Label {
        let to = match self.to {
            To::Name(name) => Some(Some(name)),
            To::Session(_) => Some(None),
            To::All => None,
        };
        (self.payload, to, self.source)
    }
}

/// A sender's wire, whom it sends to, and as the owner of what.
type Line = (usize, To, Option<usize>);

/// A payload, what it was sent to (all, a session, a name) and as the owner of what.
type Label = (u64, Option<Option<usize>>, Option<(usize, Token)>);

/// All letters of a run.
#[derive(Default)]
pub(crate) struct Letters {
    all: Vec<Letter>,
    by_label: BTreeMap<Label, usize>,
    /// The latest of each line that a session has heard on a wire.
    latest: BTreeMap<(usize, SessionId, Line), u64>,
    /// When everything was still, and nobody had been asked to leave.
    pub(crate) rest_at: u64,
}

impl Letters {
    fn add(&mut self, letter: Letter) -> Option<usize> {
        let at = self.all.len();
        if self.by_label.contains_key(&letter.label()) {
            return None;
        }
        self.by_label.insert(letter.label(), at);
        self.all.push(letter);
        Some(at)
    }
}

/// What may not be both answered and heard.
const REFUSED: [u8; 6] = [
    status::FREE,
    status::FENCED,
    status::DENIED,
    status::NOSESSION,
    status::MODE,
    status::MALFORMED,
];

impl World {
    /// A message to somebody who may live.
    pub(crate) fn draw_letter(&mut self, client: usize, wire: usize, before: &[Asked]) -> Asked {
        let name = self.draw_name();
        let to = match self.rng.below(20) {
            0..14 => To::Name(name),
            14..19 => match self.draw_receiver() {
                Some(session) => To::Session(session),
                None => To::Name(name),
            },
            _ => To::All,
        };
        let fenced = to != To::All && self.rng.chance(350);
        let source = if fenced { self.draw_source(client, wire) } else { None };
        let mut letter = Letter {
            client,
            to,
            source,
            receipt: self.rng.chance(600),
            same: false,
            payload: self.letters.all.len() as u64,
            wire: 0,
            life: 0,
            number: 0,
            call: 0,
            answer: None,
            reached: None,
            heard: Vec::new(),
        };
        let earlier = before.iter().rev().find_map(|asked| match asked {
            Asked::Send(at) => Some(&self.letters.all[*at]).filter(|one| one.to != To::All),
            _ => None,
        });
        if let Some(earlier) = earlier.map(|one| one.payload)
            && to != To::All
            && self.rng.chance(500)
        {
            let same = Letter { same: true, payload: earlier, ..letter.clone() };
            if let Some(at) = self.letters.add(same) {
                return Asked::Send(at);
            }
        }
        letter.payload = self.letters.all.len() as u64;
        self.letters.add(letter).map_or(Asked::Query(name), Asked::Send)
    }

    /// Anybody's session, mostly one of the newest.
    fn draw_receiver(&mut self) -> Option<SessionId> {
        let nth = self.rng.below(6) as usize;
        let mut sessions = self.oracle.sessions.iter().rev().filter(|(_, f)| f.lock.is_none());
        sessions.nth(nth).map(|(session, _)| *session)
    }

    /// A name that the connection's session has or had, or another has; and a token of it.
    fn draw_source(&mut self, client: usize, wire: usize) -> Option<(usize, Token)> {
        let bound = self.wires[wire].bound?;
        let held = self.oracle.holds.iter().flat_map(|(name, holds)| {
            let mine = holds.iter().filter(|hold| hold.client == client);
            mine.map(|hold| (*name, hold.token))
        });
        let held: Vec<(usize, Token)> = held.collect();
        if !held.is_empty() && self.rng.chance(600) {
            return Some(held[self.rng.below(held.len() as u64) as usize]);
        }
        let name = self.draw_name();
        let entries = self.oracle.entries.get(&name)?;
        let own = self.rng.chance(700);
        let mut tokens = entries.iter().rev().filter_map(|entry| match entry.seen {
            Seen::Owner(session, token) if !own || session == bound => Some(token),
            _ => None,
        });
        let nth = self.rng.below(5) as usize;
        let newest = tokens.clone().next();
        tokens.nth(nth).or(newest).map(|token| (name, token))
    }

    /// A letter goes on its way.
    pub(crate) fn before_letter(&mut self, index: usize, number: u64, at: usize) {
        let (life, now) = (self.wires[index].life, self.now);
        let letter = &mut self.letters.all[at];
        (letter.wire, letter.life, letter.number, letter.call) = (index, life, number, now);
    }

    /// A message as it is sent.
    pub(crate) fn encode_letter(&self, at: usize, out: &mut Vec<u8>) {
        let letter = &self.letters.all[at];
        let name = |name: usize| self.plan.names[name].as_bytes();
        let mut body = Vec::new();
        let mut flags = if letter.receipt { op::SEND_RECEIPT } else { 0 };
        match letter.to {
            To::Name(target) => body.put_short_bytes(name(target)),
            To::Session(session) => {
                flags |= op::SEND_SESSION;
                body.put_u64(session.0);
            }
            To::All => {}
        }
        if let Some((source, token)) = letter.source {
            flags |= op::SEND_FENCED;
            body.put_short_bytes(name(source));
            body.put_u64(token.0);
        }
        if letter.same {
            flags |= op::SEND_SAME;
        } else {
            body.extend_from_slice(&self.words_of_letter(letter.payload));
        }
        let code = if letter.to == To::All { op::BROADCAST } else { op::SEND };
        put_op(out, code, flags, &body);
    }

    fn words_of_letter(&self, payload: u64) -> Vec<u8> {
        let mut words = format!("letter {payload};").into_bytes();
        words.resize(words.len() + self.plan.padding, b'.');
        words
    }

    /// Whether somebody may not send a letter, for what it names.
    pub(crate) fn is_letter_denied(&self, index: usize, at: usize) -> bool {
        let (client, letter) = (self.wires[index].client, &self.letters.all[at]);
        let gate = &self.plan.gate;
        let denied = |name: usize| !gate.allows(client, &self.plan.names[name]);
        let target = match letter.to {
            To::Name(name) => denied(name),
            To::Session(_) => false,
            To::All => !gate.has_operators(),
        };
        target || letter.source.is_some_and(|(name, _)| denied(name))
    }

    /// Who may not name what a letter names has not sent it.
    pub(crate) fn letter_denied(&mut self, at: usize, got: &Got) {
        self.letters.all[at].answer = Some((got.status(), self.now));
    }

    /// The answer to a message.
    pub(crate) fn letter_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        at: usize,
        got: &Got,
    ) -> Judged {
        let by = self.wires[index].bound;
        let (call, ret) = (sent.at, self.now);
        let letter = &mut self.letters.all[at];
        letter.answer = Some((got.status(), ret));
        let (to, source, receipt) = (letter.to, letter.source, letter.receipt);
        self.tally.letters += 1;
        match (to, got) {
            (_, Got::Plain(status::BUSY))
                if self.wires[index].may_close || self.plan.padding > 0 =>
            {
                return Ok(());
            }
            (_, Got::Plain(status::OK)) if to != To::All || !receipt => {}
            (To::All, Got::Data(status::DATA, data)) if receipt && data.len() == 24 => {
                let reached = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                self.letters.all[at].reached = reached;
            }
            (To::All, Got::Plain(status::BUSY)) => {}
            // The owner's home knows of its end before the name's shard does.
            (To::Name(_), Got::Plain(status::FREE)) if receipt => {}
            (To::Name(name), Got::Plain(status::FREE)) => {
                let (client, verb, seen) = (self.wires[index].client, Verb::Query, Seen::Free);
                let entry = Entry { client, by, verb, call, ret, seen, wish: None };
                self.oracle.entries.entry(name).or_default().push(entry);
            }
            (To::Name(name), Got::Plain(status::MODE)) if !self.plan.is_exclusive(name) => {}
            (To::Session(_) | To::Name(_), Got::Plain(status::NOSESSION)) => {
                return self.receiver_ended(index, to);
            }
            (To::Session(_) | To::Name(_), Got::Plain(status::AWAY)) if receipt => {
                self.check_sound(at)?;
            }
            (To::Session(_) | To::Name(_), Got::Plain(status::RECEIVER_FULL)) if receipt => {
                let mut wires = self.wires.iter();
                if self.plan.padding == 0 && !wires.any(|wire| wire.slow_until > 0) {
                    return Err("S7: nobody has anything unread".to_owned());
                }
                if self.plan.padding == 0 {
                    self.check_sound(at)?;
                }
            }
            (_, Got::Plain(status::FENCED)) => {
                let Some((name, token)) = source else { return Err(got.words()) };
                self.tally.fenced += 1;
                let (client, verb) = (self.wires[index].client, Verb::Release(Some(token)));
                let entry = Entry { client, by, verb, call, ret, seen: Seen::NotOwner, wish: None };
                self.oracle.entries.entry(name).or_default().push(entry);
                return Ok(());
            }
            _ => return Err(got.words()),
        }
        if let Some(by) = by {
            self.source_seen(at, by);
        }
        Ok(())
    }

    /// A letter passed as one of its source's owner: that is a sight of it.
    fn source_seen(&mut self, at: usize, from: SessionId) {
        let letter = &self.letters.all[at];
        let Some((name, token)) = letter.source else { return };
        let (client, call, ret) = (letter.client, letter.call, self.now);
        let (verb, seen) = (Verb::Query, Seen::Owner(from, token));
        let entry = Entry { client, by: None, verb, call, ret, seen, wish: None };
        self.oracle.entries.entry(name).or_default().push(entry);
    }

    /// O4: there is no such session, or the sender's own has ended; or S8.
    fn receiver_ended(&self, index: usize, to: To) -> Judged {
        let ends = |id: SessionId| self.oracle.sessions.get(&id).map(|facts| facts.end_from());
        let mut from = self.wires[index].bound.and_then(ends);
        if let To::Session(session) = to {
            let receiver = self.oracle.sessions.get(&session).map(|facts| facts.client);
            if receiver.is_some_and(|other| self.are_apart(self.wires[index].client, other)) {
                return Ok(());
            }
            from = [from, ends(session)].into_iter().flatten().min();
        }
        match from {
            Some(from) if from > self.now => {
                Err(format!("O4: neither {to:?} nor the sender can have ended before {from}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether two clients have different principals, and neither sees all names.
    pub(crate) fn are_apart(&self, one: usize, other: usize) -> bool {
        let gate = &self.plan.gate;
        !gate.has_operators() && gate.user_of(one) != gate.user_of(other)
    }

    /// S7: the connection of whoever the letter was for is not sound, or nobody knows who it is.
    fn check_sound(&self, at: usize) -> Judged {
        let letter = &self.letters.all[at];
        let session = match letter.to {
            To::Session(session) => Some(session),
            To::Name(name) if self.plan.is_exclusive(name) => {
                let mut holds = self.oracle.holds.get(&name).into_iter().flatten();
                let held =
                    holds.find(|h| h.since <= letter.call && self.is_valid(h.client, h.session));
                held.map(|hold| hold.session)
            }
            To::Name(_) | To::All => None,
        };
        let Some(session) = session else { return Ok(()) };
        let lives = self.oracle.sessions.get(&session).is_some_and(|f| f.end_from() > self.now);
        let sound = |wire: &Wire| {
            wire.bound == Some(session)
                && wire.receives
                && wire.bound_at < letter.call
                && wire.is_sound()
        };
        match self.wires.iter().position(sound) {
            Some(wire) if lives => {
                Err(format!("S7: {session} could have heard it on wire {wire}: {letter:?}"))
            }
            _ => Ok(()),
        }
    }

    /// A client hears a message.
    pub(crate) fn letter_heard(&mut self, index: usize, body: &[u8]) -> Judged {
        let read = self.read_letter(body);
        let (flags, from, label) =
            read.map_err(|Truncated| format!("S1: a message of {} bytes", body.len()))?;
        self.note(|_| format!("wire {index} hears {label:?} from {from}"));
        let Some(at) = self.letters.by_label.get(&label).copied() else {
            return Err(format!("S1: nobody ever sent {label:?}"));
        };
        let wire = &self.wires[index];
        let letter = &self.letters.all[at];
        let kind = match letter.to {
            To::Name(_) => 0,
            To::Session(_) => push::MESSAGE_TO_SESSION,
            To::All => push::MESSAGE_BROADCAST,
        };
        let sender = self.oracle.sessions.get(&from).map(|facts| facts.client);
        let fenced = if letter.source.is_some() { push::MESSAGE_FENCED } else { 0 };
        let wrong = letter.call == 0
            || flags != kind | fenced
            || sender.is_some_and(|sender| sender != letter.client)
            || (fenced != 0 && from == SessionId(0));
        if wrong {
            return Err(format!("S1: heard with flags {flags} from {from}: {letter:?}"));
        }
        // What was sent before the wire had its session may have been for another.
        let known = wire.receives && wire.bound_at <= letter.call && !wire.is_rebinding();
        let session = wire.bound.filter(|_| known);
        let hearing = Hearing { wire: index, client: wire.client, session, at: self.now };
        self.judge_hearing(at, &hearing)?;
        self.letters.all[at].heard.push(hearing);
        self.tally.heard += 1;
        self.source_seen(at, from);
        Ok(())
    }

    /// S2, S3, S6, S8.
    fn judge_hearing(&mut self, at: usize, hearing: &Hearing) -> Judged {
        let letter = &self.letters.all[at];
        let alone = match letter.to {
            To::Name(name) => self.plan.is_exclusive(name),
            To::Session(_) => true,
            To::All => false,
        };
        let again = |before: &Hearing| {
            let same = before.session.is_some() && before.session == hearing.session;
            // A connection hears what is for several once for each session that it had meanwhile.
            alone || same
        };
        if let Some(before) = letter.heard.iter().find(|before| again(before)) {
            return Err(format!("S2: heard by {before:?}, and by {hearing:?}: {letter:?}"));
        }
        if let To::Session(to) = letter.to {
            let of = self.oracle.sessions.get(&to).map(|facts| facts.client);
            if of.is_some_and(|of| of != hearing.client) {
                return Err(format!("S1: not for {hearing:?}: {letter:?}"));
            }
            if self.are_apart(letter.client, hearing.client) {
                return Err(format!("S8: {hearing:?} is not seen by who sent {letter:?}"));
            }
        }
        let wire = &self.wires[hearing.wire];
        let answered = letter.answer.filter(|_| letter.receipt);
        if answered.is_some_and(|(_, ret)| ret < wire.slow_until && wire.slow_from < letter.call) {
            return Err(format!("S6: wire {} does not read: {letter:?}", hearing.wire));
        }
        let Some(session) = hearing.session else { return Ok(()) };
        let line = (hearing.wire, session, letter.line());
        let latest = self.letters.latest.entry(line).or_insert(0);
        if *latest > letter.number {
            return Err(format!("S3: heard behind the one of number {latest}: {letter:?}"));
        }
        *latest = letter.number;
        Ok(())
    }

    fn read_letter(&self, body: &[u8]) -> Result<(u8, SessionId, Label), Truncated> {
        let mut body = Reader::new(body);
        let position = |bytes: &[u8]| self.name_of(bytes).ok_or(Truncated);
        let (flags, from) = (body.u8()?, SessionId(body.u64()?));
        let target = body.short_bytes()?;
        let source = match flags & push::MESSAGE_FENCED {
            0 => None,
            _ => Some((position(body.short_bytes()?)?, Token(body.u64()?))),
        };
        let to = match flags & (push::MESSAGE_TO_SESSION | push::MESSAGE_BROADCAST) {
            0 => Some(Some(position(target)?)),
            push::MESSAGE_TO_SESSION => Some(None),
            _ => None,
        };
        let text = std::str::from_utf8(body.rest()).map_err(|_| Truncated)?;
        let number = text.strip_prefix("letter ").and_then(|text| text.split(';').next());
        let payload = number.and_then(|number| number.parse().ok()).ok_or(Truncated)?;
        if text.as_bytes() == self.words_of_letter(payload) {
            Ok((flags, from, (payload, to, source)))
        } else {
            Err(Truncated)
        }
    }

    /// S4 and S5 of all letters to a name.
    pub(crate) fn check_letters_to(
        &self,
        name: usize,
        entries: &[Entry],
        grants: &BTreeMap<Token, Sight>,
    ) -> Judged {
        for letter in self.letters.all.iter().filter(|letter| letter.to == To::Name(name)) {
            let heard = letter.heard.iter().filter_map(|h| Some((h, h.session?)));
            for (hearing, session) in heard {
                let unknown = |entry: &Entry| {
                    let asks = matches!(entry.verb, Verb::Register | Verb::Receive);
                    entry.client == hearing.client && asks && entry.seen == Seen::Nothing
                };
                let had = |(token, sight): (&Token, &Sight)| {
                    sight.session == session
                        && sight.granted_from <= hearing.at
                        && !is_over(entries, grants, (*token, sight), letter.call)
                };
                if !grants.iter().any(had) && !entries.iter().any(unknown) {
                    return Err(format!("S5: {session} has not had it when it heard {letter:?}"));
                }
            }
            let Some((status::OK, ret)) = letter.answer.filter(|_| letter.receipt) else {
                continue;
            };
            let through = grants.values();
            let through =
                through.filter(|grant| grant.ret_min < letter.call && ret < grant.end_from);
            for grant in through {
                let client = self.oracle.sessions.get(&grant.session).map(|facts| facts.client);
                self.check_heard_by(letter, client)?;
                if grant.is_counting() {
                    return Err(format!("S4: to a counting name: {letter:?}"));
                }
            }
        }
        Ok(())
    }

    /// S4 of all other letters.
    pub(crate) fn check_letters(&self) -> Judged {
        for letter in &self.letters.all {
            if letter.answer.is_some_and(|(status, _)| REFUSED.contains(&status))
                && !letter.heard.is_empty()
            {
                return Err(format!("S4: refused, and heard: {letter:?}"));
            }
            let heard = letter.heard.len() as u64;
            if let Some(reached) = letter.reached
                && (reached < heard || (reached > heard && !self.has_lost_any(letter, None)))
            {
                return Err(format!("S4: heard by {heard}, {reached} were reached: {letter:?}"));
            }
            let Some((status::OK, _)) = letter.answer.filter(|_| letter.receipt) else { continue };
            let receiver = match letter.to {
                To::Session(to) => self.oracle.sessions.get(&to).map(|facts| facts.client),
                To::Name(_) | To::All => None,
            };
            let nobody = letter.heard.is_empty() && !self.has_lost_any(letter, None);
            if receiver.is_none() && nobody {
                return Err(format!("S4: handed over, and heard by nobody: {letter:?}"));
            }
            self.check_heard_by(letter, receiver)?;
        }
        Ok(())
    }

    /// A client that was handed a letter has heard it.
    fn check_heard_by(&self, letter: &Letter, client: Option<usize>) -> Judged {
        let Some(client) = client else { return Ok(()) };
        let heard = letter.heard.iter().any(|hearing| hearing.client == client);
        if heard
            || self.clients[client].plan.style == Style::Locks
            || self.has_lost_any(letter, Some(client))
        {
            return Ok(());
        }
        Err(format!("S4: handed over, and not heard by client {client}: {letter:?}"))
    }

    /// Whether a connection that may have had the letter was lost before its client had read it.
    fn has_lost_any(&self, letter: &Letter, client: Option<usize>) -> bool {
        let lost = |wire: &Wire| {
            wire.life == letter.life
                && client.is_none_or(|client| client == wire.client)
                && wire.lost_at < self.letters.rest_at
                && (!wire.server_gone || wire.server_gone_at >= letter.call)
        };
        self.wires.iter().any(lost) || self.life() != Some(letter.life)
    }
}

/// Whether a grant was certainly over before a moment.
fn is_over(
    entries: &[Entry],
    grants: &BTreeMap<Token, Sight>,
    (token, sight): (Token, &Sight),
    moment: u64,
) -> bool {
    let mut newer = grants.range(token..).skip(1);
    let gone = |entry: &Entry| {
        let free = entry.seen == Seen::Free
            || (entry.verb == Verb::Revoke && entry.seen == Seen::Released);
        free && entry.call > sight.ret_min && entry.ret < moment
    };
    sight.released_by < moment
        || newer.any(|(_, newer)| newer.ret_min < moment && !newer.may_share_with(sight))
        || entries.iter().any(gone)
}

impl Sight {
    /// Whether neither is known to have the name alone.
    fn may_share_with(&self, other: &Sight) -> bool {
        !self.is_alone() && !other.is_alone()
    }

    /// Whether it is one of several permits.
    fn is_counting(&self) -> bool {
        self.wish.is_some_and(|wish: Wish| wish.permits > 0)
    }
}
