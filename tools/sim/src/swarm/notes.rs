//! What clients say about names: metadata with versions.
//!
//! Each value is set once, so whoever reads it knows who set it, and when.
//!
//! Invariants:
//! - M1  Metadata is its owner's own, and of this grant: of a name that one session holds alone
//!   nothing is read that was set before the grant, or by anybody else.
//! - M2  Versions are 1, 2, 3: one that was asked for is followed by the next, none is larger than
//!   the number of settings, and none is zero if anything was set.
//! - M3  What was answered to who set it is what others read, and they read nothing older later.

use std::collections::BTreeMap;

use ringway_coord_proto::wire::status;
use ringway_core::wire::Reader;
use ringway_core::{SessionId, Token};

use super::client::{Asked, Sent};
use super::history::{End, Entry, Seen, Sight, Verb};
use super::world::{Judged, World};
use crate::stream::Got;

/// A setting of metadata.
#[derive(Clone, Copy, Debug)]
struct Note {
    client: usize,
    name: usize,
    call: u64,
    /// When it was answered, and with which version.
    answered: Option<(u64, u32)>,
}

/// Metadata that was read.
#[derive(Clone, Copy, Debug)]
struct Read {
    name: usize,
    token: Token,
    session: SessionId,
    version: u32,
    value: u64,
    call: u64,
    ret: u64,
}

/// All that was said about names.
#[derive(Default)]
pub(crate) struct Notes {
    values: u64,
    set: BTreeMap<u64, Note>,
    read: Vec<Read>,
}

/// A value as it is sent.
pub(crate) fn words_of(value: u64) -> Vec<u8> {
    format!("note {value}").into_bytes()
}

fn value_of(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.strip_prefix("note ")?.parse().ok()
}

impl Notes {
    /// A value that nobody has set.
    pub(crate) fn next(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// A value was sent to be set.
    pub(crate) fn asked(&mut self, client: usize, name: usize, (value, call): (u64, u64)) {
        self.set.insert(value, Note { client, name, call, answered: None });
    }

    /// M3, as far as it shows at once: what a version says.
    fn check_read(&self, name: usize, version: u32, bytes: &[u8]) -> Result<u64, String> {
        if version == 0 && bytes.is_empty() {
            return Ok(0);
        }
        let value = value_of(bytes).ok_or("M3: what nobody said")?;
        let note = self.set.get(&value).ok_or("M3: what nobody said")?;
        let other = note.answered.is_some_and(|(_, answered)| answered != version);
        if version == 0 || note.name != name || other {
            return Err(format!("M3: version {version} of name {name} is {value}, {note:?}"));
        }
        Ok(value)
    }

    /// M1 to M3, by all grants of a name.
    pub(crate) fn check(
        &self,
        name: usize,
        grants: &BTreeMap<Token, Sight>,
        ends: &BTreeMap<SessionId, End>,
    ) -> Result<(), String> {
        let mut read: Vec<&Read> = self.read.iter().filter(|read| read.name == name).collect();
        read.sort_by_key(|read| read.ret);
        // Of each grant the newest version that was read, and when.
        let mut newest: BTreeMap<Token, Vec<(u64, u32)>> = BTreeMap::new();
        for read in read {
            let Some(grant) = grants.get(&read.token) else { continue };
            if !grant.is_alone() {
                continue;
            }
            let before = newest.entry(read.token).or_default();
            let seen = before.partition_point(|(ret, _)| *ret < read.call);
            let least = before[..seen].last().map_or(0, |(_, version)| *version);
            if read.version < least {
                return Err(format!("M3: version {least} was read before {read:?}"));
            }
            before.push((read.ret, before.last().map_or(0, |last| last.1).max(read.version)));
            let Some(note) = self.set.get(&read.value) else { continue };
            let by = ends.get(&read.session).map(|end| end.client);
            let stale = note.answered.is_some_and(|(ret, _)| ret < grant.granted_from);
            if by.is_some_and(|by| by != note.client) || stale {
                return Err(format!(
                    "M1: {read:?} is {note:?}, and was granted at {} or later",
                    grant.granted_from
                ));
            }
            let set = self.set.values().filter(|note| {
                let ended = note.answered.is_some_and(|(ret, _)| ret < grant.granted_from);
                note.name == name && note.call < read.ret && !ended
            });
            if set.count() < read.version as usize {
                return Err(format!("M2: {read:?}, more than was ever set"));
            }
        }
        Ok(())
    }
}

impl World {
    /// The answer to META or SET_META.
    pub(crate) fn note_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        asked: Asked,
        got: &Got,
    ) -> Judged {
        let (client, by) = (self.wires[index].client, self.wires[index].bound);
        let (call, ret) = (sent.at, self.now);
        let (name, verb, seen) = match (asked, got) {
            (_, Got::Plain(status::BUSY)) if self.wires[index].may_close => return Ok(()),
            (Asked::Meta(name), Got::Plain(status::FREE)) => (name, Verb::Query, Seen::Free),
            (Asked::Meta(name), Got::Data(status::DATA, data)) => {
                let mut body = Reader::new(data);
                let (Ok(session), Ok(token), Ok(version)) = (body.u64(), body.u64(), body.u32())
                else {
                    return Err(format!("META of {} bytes", data.len()));
                };
                let (session, token) = (SessionId(session), Token(token));
                let value = self.notes.check_read(name, version, body.rest())?;
                self.oracle.owner_seen(session, index)?;
                let read = Read { name, token, session, version, value, call, ret };
                self.notes.read.push(read);
                (name, Verb::Query, Seen::Owner(session, token))
            }
            (Asked::SetMeta(_, under, value), Got::Data(status::DATA, data)) => {
                let version = data.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                if version == 0 || under.is_some_and(|under| version != under + 1) {
                    return Err(format!("M2: version {version} follows {under:?}"));
                }
                if let Some(note) = self.notes.set.get_mut(&value) {
                    note.answered = Some((ret, version));
                }
                self.tally.notes += 1;
                return Ok(());
            }
            (Asked::SetMeta(name, Some(under), value), Got::Data(status::CONFLICT, data)) => {
                self.notes.set.remove(&value);
                let Some((version, bytes)) = data.split_first_chunk() else {
                    return Err(format!("CONFLICT of {} bytes", data.len()));
                };
                let version = u32::from_le_bytes(*version);
                if version == under {
                    return Err(format!("M2: a conflict with version {under}"));
                }
                return self.notes.check_read(name, version, bytes).map(|_| ());
            }
            (Asked::SetMeta(name, _, value), Got::Plain(status::NOTOWNER)) => {
                self.notes.set.remove(&value);
                (name, Verb::Release(None), Seen::NotOwner)
            }
            (Asked::SetMeta(_, _, value), Got::Plain(status::NOSESSION)) => {
                self.notes.set.remove(&value);
                return by.map_or(Ok(()), |by| self.oracle.told_ended(by, ret));
            }
            (Asked::SetMeta(_, _, value), Got::Plain(status::FULL))
                if self.plan.may_lack_sides() =>
            {
                self.notes.set.remove(&value);
                return Ok(());
            }
            _ => return Err(got.words()),
        };
        let entry = Entry { client, by, verb, call, ret, seen, wish: None };
        self.oracle.entries.entry(name).or_default().push(entry);
        Ok(())
    }
}
