//! Clients that speak RESP and hold locks: `SET NX PX`, `GET`, `DEL`, `PEXPIRE`, and the scripts
//! that compare the value before they delete or renew.
//!
//! A lock is a session of one name, so it is judged by the rules of sessions. Its taker is not
//! told session and token; it asks for both behind the `SET`, and for the value behind that: a
//! value is used once, so if it stands there still, what was seen in between was the taker's own.
//!
//! Invariants checked here on top of the oracle's:
//! - O6  A lock that was taken is its taker's until its lease is over, or somebody deletes it.
//!
//! All locks of a seed ask for one lease: a `PEXPIRE` by anybody then never makes one shorter.

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::status;
use ringway_core::{SessionId, Token};

use super::blocked::{wait_answer, wait_command};
use super::client::{Asked, Sent};
use super::gate::PASSWORD;
use super::history::{Entry, Seen, Verb};
use super::oracle::{Facts, Hold};
use super::world::{Judged, World};
use crate::resp_stream::{Value, command, next_value};
use crate::stream::{Got, Heard};

const UNLOCK: &[u8] = b"if redis.call('get', KEYS[1]) == ARGV[1] then \
    return redis.call('del', KEYS[1]) else return 0 end";
const RENEW: &[u8] = b"if redis.call('get', KEYS[1]) == ARGV[1] then \
    return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";

/// A lock that a client has taken, or has asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    pub(crate) name: usize,
    pub(crate) value: u64,
    /// Known once it is the client's.
    pub(crate) session: Option<SessionId>,
    pub(crate) lease: u64,
    /// The client's clock before it sent what was confirmed last.
    pub(crate) stamp: u64,
    pub(crate) renewed: u64,
    pub(crate) lost: bool,
    /// When its client sent the script that gives it back; `u64::MAX`: not yet.
    given_back: u64,
}

/// A `DEL` by name, which ends whoever's lock it meets; or a REVOKE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deletion {
    pub(crate) wire: usize,
    pub(crate) at: u64,
    /// When its answer was read; `u64::MAX`: not.
    pub(crate) answered: u64,
    /// It ends not only a lock: an operator revokes the name.
    pub(crate) revokes: bool,
}

/// The server's side of a RESP connection, as its client reads it.
#[derive(Debug, Default)]
pub(crate) struct RespStream {
    received: Vec<u8>,
    values: Vec<Got>,
}

impl RespStream {
    /// Takes bytes and gives back the replies that complete what was asked together.
    pub(crate) fn take<'a>(
        &mut self,
        bytes: &[u8],
        expected: impl Iterator<Item = &'a Sent>,
    ) -> Result<Vec<Heard>, String> {
        self.received.extend_from_slice(bytes);
        let (mut at, mut heard) = (0, Vec::new());
        for sent in expected {
            while let Some(asked) = sent.ops.get(self.values.len())
                && let Some((value, used)) = next_value(&self.received[at..])?
            {
                self.values.push(got_of(*asked, value)?);
                at += used;
            }
            if self.values.len() < sent.ops.len() {
                break;
            }
            heard.push(Heard::Replies(sent.sequence, std::mem::take(&mut self.values)));
        }
        self.received.drain(..at);
        Ok(heard)
    }

    /// How many ops of the oldest frame are answered already.
    pub(crate) fn answered(&self) -> usize {
        self.values.len()
    }

    /// Whether bytes wait for the rest of their value, or values for the rest of their frame.
    pub(crate) fn is_amid(&self) -> bool {
        !self.received.is_empty() || !self.values.is_empty()
    }
}

/// A RESP reply as the native one that says the same.
fn got_of(asked: Asked, value: Value) -> Result<Got, String> {
    let wrong = |value: &Value| format!("{asked:?} is answered {value:?}");
    if let Value::Error(text) = &value {
        let code = text.split(' ').next().unwrap_or_default();
        let known = [
            status::STARTING,
            status::BUSY,
            status::FULL,
            status::NOSESSION,
            status::DENIED,
            status::MODE,
            status::QUOTA,
        ];
        let found = known.into_iter().find(|known| status::name(*known) == code);
        return found.map(Got::Plain).ok_or_else(|| wrong(&value));
    }
    let plain = match (asked, &value) {
        (Asked::Query(_), Value::Null) | (Asked::Value(..), Value::Null) => status::FREE,
        (Asked::Query(_), Value::Bulk(text)) => {
            return owner(text).ok_or_else(|| wrong(&value));
        }
        (Asked::Value(..), Value::Bulk(text)) => {
            return Ok(owner(text).unwrap_or_else(|| Got::Data(status::DATA, text.clone())));
        }
        (Asked::Wait(..), _) => return wait_answer(&value).ok_or_else(|| wrong(&value)),
        (Asked::Lock(..), Value::Null) => status::HELD,
        (Asked::Lock(..) | Asked::Auth, Value::Text(text)) if text == "OK" => status::OK,
        (Asked::Look(_), Value::Text(text)) if text == "PONG" => {
            return Ok(Got::Data(status::DATA, Vec::new()));
        }
        (
            Asked::Unlock(..)
            | Asked::Delete(_)
            | Asked::Extend(..)
            | Asked::Prolong(_)
            | Asked::Release(_, None),
            Value::Number(number @ (0 | 1)),
        ) => [status::NOTOWNER, status::OK][*number as usize],
        _ => return Err(wrong(&value)),
    };
    Ok(Got::Plain(plain))
}

/// `session:token`.
fn owner(text: &[u8]) -> Option<Got> {
    let (session, token) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let session = SessionId(u64::from_str_radix(session, 16).ok()?);
    Some(Got::Owner(status::OWNED_EPHEMERAL, session, Token(token.parse().ok()?)))
}

fn words_of(value: u64) -> Vec<u8> {
    format!("value-{value}").into_bytes()
}

impl World {
    /// What a RESP client sends for an op.
    pub(crate) fn encode_resp(&self, index: usize, asked: Asked, out: &mut Vec<u8>) {
        let name = |name: usize| self.plan.names[name].as_bytes();
        let ms = self.plan.lock_ms.to_string();
        let ms = ms.as_bytes();
        out.extend(match asked {
            Asked::Query(at) => command(&[b"PORT.QUERY", name(at)]),
            Asked::Lock(at, value) => {
                command(&[b"SET", name(at), &words_of(value), b"NX", b"PX", ms])
            }
            Asked::Value(at, _) => command(&[b"GET", name(at)]),
            Asked::Unlock(at, value) => {
                command(&[b"EVAL", UNLOCK, b"1", name(at), &words_of(value)])
            }
            Asked::Extend(at, value) => {
                command(&[b"EVAL", RENEW, b"1", name(at), &words_of(value), ms])
            }
            Asked::Delete(at) => command(&[b"DEL", name(at)]),
            Asked::Wait(at, wish, ms) => wait_command(name(at), wish, ms),
            Asked::Release(at, None) => command(&[b"PORT.RELEASE", name(at)]),
            Asked::Prolong(at) => command(&[b"PEXPIRE", name(at), ms]),
            Asked::Look(_) => command(&[b"PING"]),
            Asked::Auth => {
                let user = self.plan.gate.user_of(self.wires[index].client).unwrap_or(b"");
                command(&[b"AUTH", user, PASSWORD])
            }
            other => unreachable!("{other:?} is an op of the native protocol"),
        });
    }

    /// Takes locks, renews them every third of their lease, gives them back; now and then acts on
    /// whoever's lock it is.
    pub(crate) fn use_locks(&mut self, client: usize) {
        let clock = self.clients[client].clock(self.now);
        self.clients[client].locks.retain(|lock| !lock.lost || lock.session.is_none());
        for at in 0..self.clients[client].locks.len() {
            let lock = self.clients[client].locks[at];
            if lock.session.is_none() || lock.lost || clock < lock.renewed + lock.lease / 3 {
                continue;
            }
            self.clients[client].locks[at].renewed = clock;
            if self.rng.chance(self.plan.faults.missed_renewal) {
                continue;
            }
            if let Some(wire) = self.pick_wire(client, |wire| wire.blocked().is_none()) {
                self.decide(client, wire, vec![Asked::Extend(lock.name, lock.value)]);
            }
        }
        self.lose_patience(client);
        if !self.rng.chance(500) {
            return;
        }
        let pipelines = self.rng.chance(100);
        let fits = |wire: &super::world::Wire| pipelines || wire.blocked().is_none();
        let Some(wire) = self.pick_wire(client, fits) else { return };
        let name = self.draw_name();
        if let Some(ops) = self.draw_blocking(wire, name) {
            return self.decide(client, wire, ops);
        }
        let mine = self.clients[client].locks.iter().find(|lock| lock.name == name && !lock.lost);
        let mine = mine.copied();
        let ops = match (self.rng.below(20), mine) {
            (0..10, None) => {
                self.values += 1;
                let value = self.values;
                vec![Asked::Lock(name, value), Asked::Query(name), Asked::Value(name, value)]
            }
            (0..8, Some(lock)) => vec![Asked::Unlock(name, lock.value)],
            (10, _) => vec![Asked::Delete(name)],
            (11, _) => vec![Asked::Prolong(name)],
            (12 | 13, _) => vec![Asked::Value(name, u64::MAX), Asked::Query(name)],
            _ => vec![Asked::Query(name)],
        };
        self.decide(client, wire, ops);
    }

    /// What the sending alone may cause.
    pub(crate) fn before_lock_op(&mut self, index: usize, asked: Asked) {
        let (now, client) = (self.now, self.wires[index].client);
        match asked {
            Asked::Lock(name, value) => {
                let lock = Lock {
                    name,
                    value,
                    session: None,
                    lease: u64::from(self.plan.lock_ms) * 1_000_000,
                    stamp: 0,
                    renewed: 0,
                    lost: false,
                    given_back: u64::MAX,
                };
                self.clients[client].locks.push(lock);
            }
            Asked::Unlock(name, value) => {
                self.oracle.lets_go(name, client);
                if let Some(lock) = self.lock_mut(client, value) {
                    (lock.lost, lock.given_back) = (true, now);
                    let session = lock.session;
                    session.into_iter().for_each(|session| self.oracle.may_end(session, now));
                }
            }
            Asked::Delete(name) => {
                self.deletes(index, name, false);
            }
            _ => {}
        }
    }

    /// A deletion of whoever's lock is on its way.
    pub(crate) fn deletes(&mut self, index: usize, name: usize, revokes: bool) {
        let now = self.now;
        let deletion = Deletion { wire: index, at: now, answered: u64::MAX, revokes };
        self.deletions.entry(name).or_default().push(deletion);
        let locks: Vec<SessionId> = self.oracle.locks_of(name).collect();
        locks.into_iter().for_each(|session| self.oracle.may_end(session, now));
    }

    /// The answer to a deletion has come.
    pub(crate) fn deleted(&mut self, index: usize, name: usize) {
        let deletions = self.deletions.entry(name).or_default();
        let mut mine = deletions.iter_mut().filter(|one| one.wire == index);
        let first = mine.find(|one| one.answered == u64::MAX);
        first.into_iter().for_each(|one| one.answered = self.now);
    }

    /// The first moment from `at` on at which an operator may have taken a name.
    pub(crate) fn revoked_from(&self, name: usize, at: u64) -> u64 {
        self.ended_from(name, at, |deletion| deletion.revokes)
    }

    fn lock_mut(&mut self, client: usize, value: u64) -> Option<&mut Lock> {
        self.clients[client].locks.iter_mut().find(|lock| lock.value == value)
    }

    /// The first moment from `at` on at which a deletion may end a lock of a name that was asked
    /// for at `at`.
    fn deleted_from(&self, name: usize, at: u64) -> u64 {
        self.ended_from(name, at, |_| true)
    }

    fn ended_from(&self, name: usize, at: u64, ends: impl Fn(&Deletion) -> bool) -> u64 {
        let deletions = self.deletions.get(&name).into_iter().flatten();
        let deletions = deletions.filter(|deletion| ends(deletion));
        let acts = |deletion: &&Deletion| match deletion.answered {
            u64::MAX => {
                let wire = &self.wires[deletion.wire];
                wire.open || self.may_still_act(wire, at)
            }
            answered => answered >= at,
        };
        deletions.filter(acts).map(|deletion| deletion.at.max(at)).min().unwrap_or(u64::MAX)
    }

    /// The answer to an op of `locks.rs`.
    pub(crate) fn lock_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        asked: Asked,
        got: &Got,
    ) -> Judged {
        let client = self.wires[index].client;
        match (asked, got) {
            (_, Got::Plain(status::BUSY)) if self.wires[index].may_close => Ok(()),
            (Asked::Lock(name, value), Got::Plain(code)) => {
                let starting = *code == status::STARTING;
                if starting && sent.at >= self.grants_from(index) {
                    return Err("STARTING, long after the start".to_owned());
                }
                if *code != status::OK {
                    self.clients[client].locks.retain(|lock| lock.value != value);
                } else if let Some(lock) = self.lock_mut(client, value) {
                    (lock.stamp, lock.renewed) = (sent.stamp, sent.stamp);
                }
                match *code {
                    status::OK | status::HELD | status::STARTING => Ok(()),
                    status::QUOTA => self.refused(index, sent, name),
                    status::FULL if self.plan.may_be_full() => Ok(()),
                    // Others share the name.
                    status::MODE if !self.plan.is_exclusive(name) => Ok(()),
                    _ => Err(got.words()),
                }
            }
            (Asked::Value(name, value), _) => {
                let mine = matches!(got, Got::Data(_, bytes) if *bytes == words_of(value));
                self.value_answered(index, sent, (name, value), mine)
            }
            (Asked::Extend(_, value), Got::Plain(code)) => {
                let Some(lock) = self.lock_mut(client, value) else { return Ok(()) };
                let (session, unlocked) = (lock.session, lock.lost);
                let Some(session) = session else { return Ok(()) };
                if *code == status::OK {
                    (lock.stamp, lock.lost) = (lock.stamp.max(sent.stamp), unlocked);
                    return self.confirmed(client, session, sent);
                }
                lock.lost = true;
                self.oracle.told_ended(session, self.now)
            }
            (Asked::Unlock(name, value), Got::Plain(code)) => {
                let seen = if *code == status::OK { Seen::Released } else { Seen::NotOwner };
                let lock = self.clients[client].locks.iter().find(|lock| lock.value == value);
                let by = lock.and_then(|lock| lock.session);
                let verb = Verb::Release(None);
                let (call, ret) = (sent.at, self.now);
                let entry = Entry { client, by, verb, call, ret, seen, wish: None };
                self.oracle.entries.entry(name).or_default().push(entry);
                Ok(())
            }
            (Asked::Delete(name), Got::Plain(_)) => {
                self.deleted(index, name);
                Ok(())
            }
            (Asked::Prolong(_), Got::Plain(_)) => Ok(()),
            _ => Err(got.words()),
        }
    }

    /// O6, and the grant itself: the value behind a `SET` is the taker's, so the owner seen
    /// between the two is its own.
    fn value_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (name, value): (usize, u64),
        mine: bool,
    ) -> Judged {
        let client = self.wires[index].client;
        let Some(lock) = self.lock_mut(client, value).copied() else {
            return if mine { Err("a value that was never accepted".to_owned()) } else { Ok(()) };
        };
        let deleted_from = self.deleted_from(name, sent.at).min(lock.given_back);
        let same_life = self.life() == Some(self.wires[index].life);
        if !mine {
            self.clients[client].locks.retain(|lock| lock.value != value);
            if same_life && self.now < sent.at + lock.lease.min(deleted_from - sent.at) {
                return Err(format!("O6: the lock {value} of name {name} is gone already"));
            }
            return Ok(());
        }
        let Some((session, token)) = self.wires[index].owner_seen.take() else {
            return Err(format!("O6: name {name} has a lock and no owner"));
        };
        let may_end_from = if same_life { deleted_from } else { deleted_from.min(sent.at) };
        let facts = Facts {
            client,
            node: None,
            lock: Some(name),
            lease: lock.lease,
            confirmed: sent.at,
            may_end_from,
            revoked_from: may_end_from,
            replaced_on: None,
            ended_by: u64::MAX,
            life: self.wires[index].life,
        };
        if self.oracle.sessions.insert(session, facts).is_some() {
            return Err(format!("{session} is the lock {value} and something else"));
        }
        if !self.is_live(session) {
            self.oracle.ended_unseen(session, self.now);
        }
        if let Some(lock) = self.lock_mut(client, value) {
            lock.session = Some(session);
        }
        self.tally.locks += 1;
        let seen = Seen::Owner(session, token);
        let verb = Verb::Register;
        let (by, call, ret) = (Some(session), sent.at, self.now);
        let wish = Some(Wish::EXCLUSIVE);
        let entry = Entry { client, by, verb, call, ret, seen, wish };
        self.oracle.entries.entry(name).or_default().push(entry);
        if lock.lost {
            return Ok(());
        }
        if self.revoked_from(name, sent.at) != u64::MAX {
            return Ok(());
        }
        let hold = Hold { client, session, token, wish, since: self.now };
        self.oracle.granted(name, hold)?;
        let valid = self.is_valid(client, session);
        self.oracle.write(name, &hold, valid)?;
        self.check_alone(name, &hold)
    }
}
