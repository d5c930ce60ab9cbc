//! What clients read, and what the oracle learns from it.

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::{op, push, status};
use ringway_core::SessionId;

use super::client::{Asked, Live, Sent};
use super::history::{Entry, Seen, Verb};
use super::oracle::{Facts, HOP, Hold};
use super::plan::Style;
use super::world::{Judged, Speech, World};
use crate::native::opened;
use crate::stream::{Got, Heard};

impl World {
    /// A client reads whatever has arrived on its connections.
    pub(crate) fn read_all(&mut self, client: usize) -> Judged {
        for index in self.clients[client].wires.clone() {
            self.read(index)?;
        }
        let wires = &self.wires;
        self.clients[client].wires.retain(|wire| wires[*wire].open);
        Ok(())
    }

    fn read(&mut self, index: usize) -> Judged {
        let now = self.now;
        if self.wires[index].slow_until > now && !self.calm {
            return Ok(());
        }
        loop {
            let wire = &mut self.wires[index];
            if !wire.open || wire.down.front().is_none_or(|(at, _)| *at > now) {
                break;
            }
            let Some((_, bytes)) = wire.down.pop_front() else { break };
            wire.heard_at = now;
            let heard = match &mut wire.stream {
                Speech::Native(stream) => stream.take(&bytes),
                Speech::Resp(stream) => stream.take(&bytes, wire.expected.iter()),
            };
            let heard = heard.map_err(|why| format!("wire {index}: {why}"))?;
            for heard in heard {
                self.hear(index, heard)?;
            }
        }
        let wire = &self.wires[index];
        let ended = wire.down_end.is_some_and(|at| at <= now) && wire.down.is_empty();
        if !wire.open || !ended {
            return Ok(());
        }
        self.note(|_| format!("wire {index} was closed by the server"));
        let amid = match &wire.stream {
            Speech::Native(stream) => stream.is_amid(),
            Speech::Resp(stream) => stream.is_amid(),
        };
        let answered = wire.expected.is_empty() && !amid;
        let reasonable = wire.may_close || (wire.fin && answered);
        if !reasonable {
            return Err(format!(
                "wire {index} was closed for no reason, with {} frames unanswered",
                wire.expected.len()
            ));
        }
        self.rebinds(index);
        if !self.wires[index].fin {
            self.hang_up(index, true);
        }
        self.wires[index].open = false;
        self.wire_lost(index);
        Ok(())
    }

    /// A connection is gone: what was asked on it may have happened or not.
    pub(crate) fn wire_lost(&mut self, index: usize) {
        self.wires[index].lost_at = self.now;
        self.watches_lost(index);
        for sent in std::mem::take(&mut self.wires[index].expected) {
            if !self.keeps_for_lane(index, &sent) {
                self.frame_lost(sent.origin, &sent);
            }
        }
    }

    /// What was asked in a frame that nobody answers may have happened or not.
    pub(crate) fn frame_lost(&mut self, index: usize, sent: &Sent) {
        let client = self.wires[index].client;
        let by = self.wires[index].bound;
        let implicit = self.wires[index].implicit;
        for asked in &sent.ops {
            match *asked {
                Asked::Open(mine, None, _) => {
                    let mine = &mut self.clients[client].mine[mine];
                    mine.opening = mine.opening.saturating_sub(1);
                    let node = mine.node;
                    self.lost_openings.push((node, index));
                }
                Asked::Release(name, _) | Asked::Transfer(name, ..) => {
                    let releases = self.clients[client].releases.entry((name, index)).or_default();
                    releases.outstanding -= 1;
                    releases.unknown |= !implicit;
                }
                _ => {}
            }
            self.claim_op_lost((client, by), sent.at, *asked);
            if let Asked::Lock(_, value) = *asked {
                self.clients[client].locks.retain(|lock| lock.value != value);
            }
            // A lock's taking and giving back are grants and releases of unknown outcome.
            let verb = match *asked {
                Asked::Lock(name, _) => Some((name, Verb::Register)),
                Asked::Unlock(name, _) => Some((name, Verb::Release(None))),
                other => verb_of(other),
            };
            if let Some((name, verb)) = verb {
                let (call, ret, seen) = (sent.at, u64::MAX, Seen::Nothing);
                let entry = Entry { client, by, verb, call, ret, seen, wish: None };
                self.oracle.entries.entry(name).or_default().push(entry);
            }
        }
    }

    fn hear(&mut self, index: usize, heard: Heard) -> Judged {
        match heard {
            Heard::Replies(sequence, got) => {
                let Some(sent) = self.wires[index].expected.pop_front() else {
                    return Err(format!("wire {index}: an answer to nothing, {sequence}"));
                };
                if sent.sequence != sequence || sent.ops.len() != got.len() {
                    return Err(format!(
                        "wire {index}: {} replies to frame {sequence} instead of {} to frame {}",
                        got.len(),
                        sent.ops.len(),
                        sent.sequence
                    ));
                }
                self.note(|_| {
                    let words: Vec<String> = got.iter().map(Got::words).collect();
                    format!("wire {index} reads {}", words.join(", "))
                });
                self.answered_by_lane(index, sequence, &got)?;
                for (offset, got) in got.iter().enumerate() {
                    self.tally.replies += 1;
                    let asked = sent.ops[offset];
                    self.answered(sent.origin, &sent, (sent.first + offset as u64, asked), got)
                        .map_err(|why| format!("wire {index}, {asked:?}: {why}"))?;
                }
                Ok(())
            }
            Heard::Notice(code, session, reason) => self.notified(index, code, session, reason),
            Heard::Told(code, body) => {
                self.told(index, code, &body).map_err(|why| format!("wire {index}, told: {why}"))
            }
        }
    }

    fn notified(&mut self, index: usize, code: u8, session: SessionId, reason: u8) -> Judged {
        self.note(|_| format!("wire {index} is told {code} of {session}, reason {reason}"));
        let client = self.wires[index].client;
        match code {
            push::SESSION_MOVED => self.wires[index].may_close = true,
            push::SESSION_ENDED => {
                self.oracle.told_ended(session, self.now)?;
                // A session that lives by its connection takes it along.
                let wire = &self.wires[index];
                let opens = |asked: &Asked| matches!(asked, Asked::Open(..));
                let own = wire.bound.is_none_or(|bound| bound == session)
                    || wire.expected.iter().any(|sent| sent.ops.iter().any(opens));
                let bare = self.clients[client].plan.style == Style::BareOpen || wire.implicit;
                let reopened = reason == 2 && self.is_reopening(index);
                self.wires[index].may_close |= own && (bare || wire.bound.is_none()) && !reopened;
                if let Some(live) = self.clients[client].live_mut(session) {
                    live.lost = true;
                }
            }
            _ => return Err(format!("wire {index}: PROTOCOL_ERROR for a proper stream")),
        }
        Ok(())
    }

    /// Whether an opening waits on this connection, and its node was never opened on another.
    fn is_reopening(&self, index: usize) -> bool {
        let wire = &self.wires[index];
        let mut ops = wire.expected.iter().flat_map(|sent| &sent.ops);
        ops.any(|asked| match asked {
            Asked::Open(mine, None, _) => {
                let node = self.clients[wire.client].mine[*mine].node;
                let opened_on = self.opened_on.get(&node);
                opened_on.is_some_and(|wires| wires.iter().all(|wire| *wire == index))
            }
            _ => false,
        })
    }

    fn answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (number, asked): (u64, Asked),
        got: &Got,
    ) -> Judged {
        if self.is_denied(index, asked) {
            return self.denied_answered(index, asked, got);
        }
        let over = matches!((asked, got), (Asked::Wait(..), Got::Plain(status::FREE)));
        if over && self.speaks_resp(index) {
            return self.gave_up(index, sent, asked);
        }
        if let Some((name, verb)) = verb_of(asked) {
            self.name_answered(index, sent, (number, name, verb, asked), got)?;
        }
        let closing = self.wires[index].may_close;
        if self.wires[index].client >= self.plan.clients.len() {
            self.observed(sent.at, asked, got);
        }
        match asked {
            Asked::Auth if got.status() == status::OK => Ok(()),
            Asked::Query(_) | Asked::Register(_) | Asked::Release(..) => Ok(()),
            Asked::Claim(..) | Asked::Wait(..) => Ok(()),
            Asked::Cancel(..) | Asked::Transfer(..) | Asked::Revoke(..) => {
                self.claim_op_answered(index, sent, (number, asked), got)
            }
            Asked::Meta(_) | Asked::SetMeta(..) => self.note_answered(index, sent, asked, got),
            Asked::Waiters(name) => self.waiters_answered(index, sent, name, got),
            Asked::Send(letter) => self.letter_answered(index, sent, letter, got),
            Asked::Watch(watch) => self.watch_answered(index, watch, got),
            Asked::Unwatch(watch) => self.unwatch_answered(index, watch, got),
            Asked::Lane => self.lane_answered(index, got),
            Asked::Open(mine, resume, right) => {
                self.open_answered(index, sent, (mine, resume, right), got)
            }
            Asked::Renew(session, right) => {
                let session = session.or(self.wires[index].bound);
                self.renew_answered(index, sent, (session, right), got)
            }
            Asked::Close(session, right) => {
                let own = session.is_none();
                let session = session.or(self.wires[index].bound);
                self.proof_answered((session, right, closing, true), got)?;
                if own {
                    self.unbinds(index, sent);
                }
                Ok(())
            }
            Asked::Attach(session, right) => {
                self.proof_answered((Some(session), right, closing, false), got)?;
                if got.status() == status::OK {
                    self.closes_behind(index, sent, session);
                    let wire = &mut self.wires[index];
                    (wire.bound, wire.implicit, wire.receives) = (Some(session), false, false);
                    wire.rebound_at = u64::MAX;
                }
                Ok(())
            }
            Asked::Kill(session) => self.proof_answered((Some(session), true, closing, true), got),
            Asked::Look(_) => match got {
                Got::Data(status::DATA, _) | Got::Plain(status::BUSY) => Ok(()),
                other => Err(other.words()),
            },
            _ => self.lock_answered(index, sent, asked, got),
        }
    }

    /// Whether an op is about a name that its client may not use, or is for operators.
    fn is_denied(&self, index: usize, asked: Asked) -> bool {
        let operators = self.plan.gate.has_operators();
        let name = match asked {
            Asked::Kill(_) | Asked::Look(op::SHARD_STATS | op::LIST) | Asked::Revoke(..)
                if !operators =>
            {
                return true;
            }
            Asked::Lock(name, _) | Asked::Value(name, _) | Asked::Unlock(name, _) => name,
            Asked::Extend(name, _) | Asked::Delete(name) | Asked::Prolong(name) => name,
            Asked::Cancel(name, _) | Asked::Transfer(name, ..) | Asked::Revoke(name, _) => name,
            Asked::Meta(name) | Asked::SetMeta(name, ..) | Asked::Waiters(name) => name,
            Asked::Send(letter) => return self.is_letter_denied(index, letter),
            Asked::Watch(watch) => return self.is_watch_denied(index, watch),
            other => match verb_of(other) {
                Some((name, _)) => name,
                None => return false,
            },
        };
        !self.plan.gate.allows(self.wires[index].client, &self.plan.names[name])
    }

    /// Whoever may not use a name learns nothing about it, and does nothing to it.
    fn denied_answered(&mut self, index: usize, asked: Asked, got: &Got) -> Judged {
        let client = self.wires[index].client;
        match asked {
            Asked::Release(name, _) | Asked::Transfer(name, ..) => {
                self.release_answered(index, name);
            }
            Asked::Revoke(name, _) => self.deleted(index, name),
            Asked::Send(letter) => self.letter_denied(letter, got),
            Asked::Watch(watch) => self.watch_denied(watch),
            Asked::Lock(_, value) => {
                self.clients[client].locks.retain(|lock| lock.value != value);
            }
            _ => {}
        }
        self.tally.denied += 1;
        match got {
            Got::Plain(status::DENIED) => Ok(()),
            Got::Plain(status::BUSY) if self.wires[index].may_close => Ok(()),
            other => Err(format!("O7: not denied but {}", other.words())),
        }
    }

    /// The answer to what needs a secret, or an operator.
    fn proof_answered(
        &mut self,
        (session, right, closing, ends): (Option<SessionId>, bool, bool, bool),
        got: &Got,
    ) -> Judged {
        match (got.status(), session) {
            // Without a session known, it is the bare one that a register has opened.
            (status::OK, Some(session)) if right && ends => {
                self.oracle.has_ended(session, usize::MAX, self.now);
                Ok(())
            }
            (status::OK, _) if right => Ok(()),
            (status::NOSESSION, None) => Ok(()),
            (status::NOSESSION, Some(session)) => self.oracle.told_ended(session, self.now),
            (status::REFUSED, Some(_)) if !right => Ok(()),
            (status::BUSY, _) if closing => Ok(()),
            (_, _) => Err(format!("{} with secret right: {right}", got.words())),
        }
    }

    fn renew_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (session, right): (Option<SessionId>, bool),
        got: &Got,
    ) -> Judged {
        let closing = self.wires[index].may_close;
        self.proof_answered((session, right, closing, false), got)?;
        let client = self.wires[index].client;
        let Some(session) = session else { return Ok(()) };
        if got.status() != status::OK {
            if right && let Some(live) = self.clients[client].live_mut(session) {
                live.lost = true;
            }
            return Ok(());
        }
        self.confirmed(client, session, sent)
    }

    /// A renewal or a resume was confirmed: what the client owns it owns for longer.
    pub(crate) fn confirmed(&mut self, client: usize, session: SessionId, sent: &Sent) -> Judged {
        self.oracle.confirmed(session, sent.at);
        if let Some(live) = self.clients[client].live_mut(session) {
            live.stamp = live.stamp.max(sent.stamp);
        }
        let mine: Vec<(usize, Hold)> = self
            .oracle
            .holds
            .iter()
            .flat_map(|(name, holds)| holds.iter().map(|hold| (*name, *hold)))
            .filter(|(_, hold)| hold.session == session)
            .collect();
        mine.iter().try_for_each(|(name, hold)| self.check_alone(*name, hold))
    }

    fn open_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (mine, resume, right): (usize, Option<SessionId>, bool),
        got: &Got,
    ) -> Judged {
        let client = self.wires[index].client;
        if resume.is_none() {
            let mine = &mut self.clients[client].mine[mine];
            mine.opening = mine.opening.saturating_sub(1);
        }
        match (got, resume) {
            (Got::Data(status::DATA, _), Some(session)) if right => {
                let data = opened(got);
                if !data.resumed || data.session != session {
                    return Err(format!("resumed {session}, got {data:?}"));
                }
                self.tally.resumed += 1;
                let lease = u64::from(data.lease_ms) * 1_000_000;
                self.oracle.has_lease(session, lease);
                if let Some(live) = self.clients[client].live_mut(session) {
                    live.lease = lease;
                }
                self.closes_behind(index, sent, session);
                self.binds(index, session);
                self.confirmed(client, session, sent)
            }
            (Got::Data(status::DATA, _), None) => self.opened(index, sent, mine, got),
            (Got::Plain(status::NOSESSION | status::REFUSED), Some(session)) if right => {
                if let Some(live) = self.clients[client].live_mut(session) {
                    live.lost = true;
                }
                self.oracle.told_ended(session, self.now)
            }
            (Got::Plain(status::REFUSED | status::NOSESSION), Some(_)) => Ok(()),
            // Replaced before it was answered.
            (Got::Plain(status::NOSESSION), None) => Ok(()),
            (Got::Plain(status::BUSY), _) if self.wires[index].may_close => Ok(()),
            _ => Err(format!("{} with secret right: {right}", got.words())),
        }
    }

    /// A connection that closed its own session has none, until it opens or registers again.
    fn unbinds(&mut self, index: usize, sent: &Sent) {
        let rebinds = |asked: &&Asked| {
            matches!(asked, Asked::Open(..) | Asked::Attach(..) | Asked::Close(None, _))
        };
        let again = sent.ops.iter().filter(rebinds).count() > 1;
        let wire = &mut self.wires[index];
        let mut later = wire.expected.iter().filter(|sent| sent.ops.iter().any(|op| rebinds(&op)));
        let later = later.next().map_or(u64::MAX, |sent| sent.at);
        (wire.bound, wire.implicit) = (None, false);
        wire.rebound_at = if again || wire.fin { sent.at } else { later };
    }

    fn binds(&mut self, index: usize, session: SessionId) {
        let wire = &mut self.wires[index];
        if self.clients[wire.client].plan.style != Style::Gateway {
            (wire.bound, wire.implicit) = (Some(session), false);
            (wire.receives, wire.bound_at) = (true, self.now);
        }
    }

    fn opened(&mut self, index: usize, sent: &Sent, mine: usize, got: &Got) -> Judged {
        let data = opened(got);
        let client = self.wires[index].client;
        if data.resumed || self.oracle.sessions.contains_key(&data.session) {
            return Err(format!("opened what there was: {data:?}"));
        }
        self.tally.opened += 1;
        let node = self.clients[client].mine[mine].node;
        let of_node: Vec<SessionId> = self
            .oracle
            .sessions
            .iter()
            .filter(|(session, facts)| facts.node == Some(node) && **session < data.session)
            .map(|(session, _)| *session)
            .collect();
        for before in of_node {
            self.oracle.has_ended(before, index, self.now);
        }
        let may_end_from = self.may_have_ended(index, sent, node);
        let facts = Facts {
            client,
            node: Some(node),
            lock: None,
            lease: u64::from(data.lease_ms) * 1_000_000,
            confirmed: sent.at,
            may_end_from,
            revoked_from: may_end_from,
            replaced_on: None,
            ended_by: u64::MAX,
            life: self.wires[index].life,
        };
        let newer = self
            .oracle
            .sessions
            .iter()
            .any(|(session, facts)| facts.node == Some(node) && *session > data.session);
        self.oracle.sessions.insert(data.session, facts);
        if !self.is_live(data.session) {
            // It ended before its client heard of it: nobody knows when.
            self.oracle.ended_unseen(data.session, self.now);
        }
        if newer {
            self.oracle.may_end(data.session, sent.at);
            self.oracle.has_ended(data.session, usize::MAX, self.now);
        }
        self.binds(index, data.session);
        let known = self.clients[client].mine[mine].live;
        if known.is_none_or(|live| live.session < data.session) {
            self.clients[client].mine[mine].live = Some(Live {
                session: data.session,
                secret: data.secret,
                lease: u64::from(data.lease_ms) * 1_000_000,
                stamp: sent.stamp,
                renewed: sent.stamp,
                lost: false,
            });
        }
        Ok(())
    }

    /// What was sent since, or before and not yet answered, that may have ended a new session.
    fn may_have_ended(&self, index: usize, sent: &Sent, node: u64) -> u64 {
        let mut from = u64::MAX;
        let wire = &self.wires[index];
        if wire.life != self.life().unwrap_or(0) || !wire.open {
            from = sent.at;
        }
        // Its own wire: another opening, an attaching or a closing behind it, or a lost end.
        let style = self.clients[wire.client].plan.style;
        for later in &wire.expected {
            let ends = |asked: &Asked| match asked {
                Asked::Close(None, true) => true,
                Asked::Open(..) | Asked::Attach(..) => style == Style::BareOpen,
                _ => false,
            };
            if later.ops.iter().any(ends) {
                from = from.min(later.at);
            }
        }
        let own = sent.ops.iter().filter(|asked| !matches!(asked, Asked::Look(_)));
        let binding = |asked: &&Asked| matches!(asked, Asked::Open(..) | Asked::Close(..));
        if own.filter(binding).count() > 1
            || ((wire.fin || wire.may_close) && style == Style::BareOpen)
        {
            from = from.min(sent.at);
        }
        // Other wires: openings of the same node whose outcome is not known, by anybody.
        let opens_node = |wire: &super::world::Wire, asked: &Asked| match asked {
            Asked::Open(mine, None, _) => self.clients[wire.client].mine[*mine].node == node,
            _ => false,
        };
        let lost = self.lost_openings.iter().filter(|(of, _)| *of == node);
        let mut lost = lost.map(|(_, other)| &self.wires[*other]).filter(|o| o.life == wire.life);
        if lost.any(|other| self.may_still_act(other, sent.at)) {
            from = from.min(sent.at);
        }
        for other in &self.wires {
            for later in &other.expected {
                if later.ops.iter().any(|asked| opens_node(other, asked)) {
                    from = from.min(later.at.max(sent.at));
                }
            }
        }
        from
    }

    /// Whether a grant certainly comes after every release of the name by the same client.
    pub(crate) fn is_unambiguous(
        &self,
        index: usize,
        at: u64,
        (number, name): (u64, usize),
        client: usize,
    ) -> bool {
        if self.revoked_from(name, at) != u64::MAX {
            return false;
        }
        let mut releases = self.clients[client].releases.range((name, 0)..(name + 1, 0));
        releases.all(|((_, wire), releases)| {
            if *wire == index {
                return releases.last < number;
            }
            let lost = releases.unknown && self.may_still_act(&self.wires[*wire], at);
            releases.outstanding == 0 && releases.answered <= at && !lost
        })
    }

    /// Whether what was sent on a lost wire may take effect after a moment.
    pub(crate) fn may_still_act(&self, wire: &super::world::Wire, moment: u64) -> bool {
        !wire.server_gone
            || wire.server_gone_at + 4 * HOP > moment
            || self.oracle.stalled_since(wire.server_gone_at)
    }

    /// A `CLOSE` without a secret that was sent behind a frame ends what that frame binds.
    fn closes_behind(&mut self, index: usize, sent: &Sent, session: SessionId) {
        let close = |sent: &&Sent| sent.ops.contains(&Asked::Close(None, true));
        let later = std::iter::once(sent).chain(&self.wires[index].expected).find(close);
        if let Some(at) = later.map(|later| later.at) {
            self.oracle.may_end(session, at);
        }
    }

    fn name_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (number, name, verb, asked): (u64, usize, Verb, Asked),
        got: &Got,
    ) -> Judged {
        let client = self.wires[index].client;
        let exclusive = self.plan.is_exclusive(name);
        let mut wish = None;
        let seen = match (verb, got) {
            (Verb::Query, Got::Plain(status::FREE)) => Seen::Free,
            (Verb::Query, Got::Owner(status::OWNED_EPHEMERAL, session, token))
            | (Verb::Register, Got::Owner(status::HELD, session, token)) => {
                Seen::Owner(*session, *token)
            }
            (Verb::Register, Got::Owner(status::GRANTED_EPHEMERAL, session, token)) => {
                wish = self.wish_granted(index, *session, (name, asked));
                let (session, token, since) = (*session, *token, self.now);
                let hold = Hold { client, session, token, wish, since };
                self.granted(index, sent, (number, name), hold)?;
                Seen::Owner(session, token)
            }
            (Verb::Register, Got::Data(status::STARTING, _) | Got::Plain(status::STARTING)) => {
                if sent.at >= self.grants_from(index) {
                    return Err("STARTING, long after the start".to_owned());
                }
                return Ok(());
            }
            (Verb::Release(_), Got::Plain(status::OK)) => Seen::Released,
            (Verb::Release(_), Got::Plain(status::NOTOWNER)) => Seen::NotOwner,
            (Verb::Register | Verb::Release(_), Got::Plain(status::NOSESSION)) => {
                if let Some(session) = self.wires[index].bound {
                    self.oracle.told_ended(session, self.now)?;
                }
                Seen::NotOwner
            }
            (Verb::Register, Got::Owner(status::QUEUED, ..))
                if matches!(asked, Asked::Wait(..)) =>
            {
                return self.queued(index, sent, (number, asked), got);
            }
            (Verb::Register, Got::Plain(status::QUOTA)) => return self.refused(index, sent, name),
            // Others hold it in another mode.
            (Verb::Register, Got::Plain(status::MODE)) if !exclusive => return Ok(()),
            // Refused: it did nothing, and takes nothing from anybody, as the histories will see.
            (Verb::Register, Got::Plain(status::FULL)) if self.may_lack_memory(asked) => {
                self.tally.full += 1;
                return Ok(());
            }
            // The rest of a frame on a connection that is being closed is not executed.
            (_, Got::Plain(status::BUSY)) if self.wires[index].may_close => Seen::Nothing,
            _ => return Err(got.words()),
        };
        if let Seen::Owner(session, _) = seen {
            self.oracle.owner_seen(session, index)?;
        }
        self.wires[index].owner_seen = match seen {
            Seen::Owner(session, token) => Some((session, token)),
            _ => None,
        };
        if let Verb::Release(_) = verb {
            self.release_answered(index, name);
        }
        let by = self.wires[index].bound;
        let entry = Entry { client, by, verb, call: sent.at, ret: self.now, seen, wish };
        self.oracle.entries.entry(name).or_default().push(entry);
        Ok(())
    }

    /// Whether there may be no memory for a name, or for what it would have beside an owner.
    fn may_lack_memory(&self, asked: Asked) -> bool {
        let plain = matches!(asked, Asked::Register(_));
        self.plan.may_be_full() || (self.plan.may_lack_sides() && !plain)
    }

    /// How a name is held that was granted by an answer; `None`: nobody says so.
    fn wish_granted(
        &mut self,
        index: usize,
        session: SessionId,
        (name, asked): (usize, Asked),
    ) -> Option<Wish> {
        let waited = matches!(asked, Asked::Wait(..)) && self.speaks_resp(index);
        self.tally.unblocked += u64::from(waited);
        // Who is given what it waits for gets it as it is held.
        let given = waited && self.waits.is_gift(name, session) && !self.plan.is_exclusive(name);
        (!given).then(|| wish_of(asked))
    }

    fn granted(
        &mut self,
        index: usize,
        sent: &Sent,
        (number, name): (u64, usize),
        hold: Hold,
    ) -> Judged {
        self.tally.grants += 1;
        let wire = &mut self.wires[index];
        match wire.bound {
            Some(bound) if bound != hold.session => {
                return Err(format!("granted to {}, the connection has {bound}", hold.session));
            }
            Some(_) => {}
            None => {
                // The first register of a connection without a session has opened a bare one.
                (wire.bound, wire.implicit) = (Some(hold.session), true);
                // RESP2 has no notices.
                let receives = matches!(wire.stream, Speech::Native(_));
                (wire.receives, wire.bound_at) = (receives, self.now);
                let gone =
                    if wire.server_gone || wire.fin || wire.may_close { sent.at } else { u64::MAX };
                let may_end_from = wire.rebound_at.min(gone);
                let facts = Facts {
                    client: wire.client,
                    node: None,
                    lock: None,
                    lease: 0,
                    confirmed: sent.at,
                    may_end_from,
                    revoked_from: may_end_from,
                    replaced_on: None,
                    ended_by: u64::MAX,
                    life: wire.life,
                };
                self.oracle.sessions.insert(hold.session, facts);
            }
        }
        self.counts_on(index, sent.at, (number, name), hold)
    }

    /// O1, O2: a client was granted a name by something that it sent at `at` or later, and counts
    /// on it unless a release of its own may have followed.
    pub(crate) fn counts_on(
        &mut self,
        index: usize,
        at: u64,
        (number, name): (u64, usize),
        hold: Hold,
    ) -> Judged {
        if !self.is_unambiguous(index, at, (number, name), hold.client) {
            return Ok(());
        }
        self.oracle.granted(name, hold)?;
        if hold.wish == Some(Wish::EXCLUSIVE) {
            let valid = self.is_valid(hold.client, hold.session);
            self.oracle.write(name, &hold, valid)?;
        }
        self.check_alone(name, &hold)
    }

    /// The answer to a release, or to what is one, has come.
    pub(crate) fn release_answered(&mut self, index: usize, name: usize) {
        let client = self.wires[index].client;
        let releases = self.clients[client].releases.entry((name, index)).or_default();
        releases.outstanding -= 1;
        releases.answered = self.now;
    }
}

/// The name that an op is about.
fn verb_of(asked: Asked) -> Option<(usize, Verb)> {
    match asked {
        Asked::Query(name) => Some((name, Verb::Query)),
        Asked::Register(name) | Asked::Claim(name, _) | Asked::Wait(name, ..) => {
            Some((name, Verb::Register))
        }
        Asked::Release(name, token) => Some((name, Verb::Release(token))),
        _ => None,
    }
}

/// How an op asks for a name.
fn wish_of(asked: Asked) -> Wish {
    match asked {
        Asked::Claim(_, wish) | Asked::Wait(_, wish, _) => wish,
        _ => Wish::EXCLUSIVE,
    }
}
