//! What clients send: ops to bytes, and what the oracle learns from their being sent.

use ringway_coord_proto::wire::{
    FLAG_BARRIER, FrameWriter, KIND_REQUEST, op, put_op, put_release_if,
};
use ringway_core::SessionId;
use ringway_core::wire::Put;

use super::client::{Asked, Sent};
use super::gate::PASSWORD;
use super::oracle::Renewal;
use super::plan::Style;
use super::world::{Event, Speech, Wire, World};

/// A secret that is nobody's.
const WRONG_SECRET: [u8; 16] = [0x5A; 16];

impl World {
    /// Sends a frame. `stamp` is the client's clock when it decided to.
    pub(crate) fn send_frame(&mut self, index: usize, ops: Vec<Asked>, stamp: u64) {
        let barrier =
            !self.calm && !self.speaks_resp(index) && self.rng.chance(self.plan.faults.barrier);
        let first = self.asked + 1;
        self.asked += ops.len() as u64;
        let undisturbed = self.is_undisturbed(index);
        self.note(|_| {
            format!("wire {index} sends {ops:?}{}", if barrier { " BARRIER" } else { "" })
        });
        for (offset, asked) in ops.iter().enumerate() {
            let number = first + offset as u64;
            self.before_sending(index, number, *asked);
            self.before_claim_op(index, number, *asked);
            self.before_watch(*asked);
            if let Asked::Send(letter) = asked {
                self.before_letter(index, number, *letter);
            }
        }
        let bytes = self.encode(index, &ops, barrier);
        let arrived = self.put(index, &bytes);
        let only = ops.as_slice();
        if let [Asked::Renew(session, true)] = only
            && undisturbed
            && !barrier
            && let Some(session) = session.or(self.wires[index].bound)
        {
            let wire = &self.wires[index];
            let (end, shard) = (wire.sent, wire.shard);
            let renewal = Renewal { wire: index, end, session, shard, arrived, handed: 0 };
            self.oracle.renewals.push(renewal);
        }
        let wire = &mut self.wires[index];
        let sequence = wire.sequence;
        let (at, origin) = (self.now, index);
        wire.expected.push_back(Sent { sequence, first, at, stamp, ops, barrier, origin });
        self.sent_by_lane(index, sequence);
    }

    /// Whether the server executes what is sent on a connection as soon as it can.
    fn is_undisturbed(&self, index: usize) -> bool {
        let wire = &self.wires[index];
        let waits = |asked: &Asked| match asked {
            Asked::Query(_) | Asked::Release(..) | Asked::Renew(..) => false,
            Asked::Value(..) | Asked::Unlock(..) | Asked::Extend(..) => false,
            Asked::Delete(_) | Asked::Prolong(_) | Asked::Cancel(..) => false,
            Asked::Transfer(..) | Asked::Revoke(..) | Asked::Meta(_) | Asked::SetMeta(..) => false,
            Asked::Register(_) | Asked::Claim(..) | Asked::Wait(..) => wire.bound.is_none(),
            _ => true,
        };
        let held_up = wire.expected.iter().any(|sent| sent.barrier || sent.ops.iter().any(waits));
        !held_up && wire.slow_until == 0 && !wire.disturbed && !wire.may_close
    }

    /// What the sending alone may cause, whatever becomes of it.
    fn before_sending(&mut self, index: usize, number: u64, asked: Asked) {
        let (now, client) = (self.now, self.wires[index].client);
        match asked {
            Asked::Release(name, _) | Asked::Transfer(name, ..) => {
                self.oracle.lets_go(name, client);
                let releases = self.clients[client].releases.entry((name, index)).or_default();
                releases.last = number;
                releases.outstanding += 1;
            }
            Asked::Open(mine, resume, right) => {
                if resume.is_none() {
                    self.clients[client].mine[mine].opening += 1;
                    let node = self.clients[client].mine[mine].node;
                    self.opened_on.entry(node).or_default().push(index);
                    self.replaces(node);
                }
                if resume.is_some() || self.clients[client].mine[mine].live.is_some() {
                    self.disturbs(index, client);
                }
                if right && self.clients[client].plan.style != Style::Gateway {
                    self.rebinds(index);
                }
            }
            Asked::Attach(_, true) => self.rebinds(index),
            Asked::Close(session, true) => {
                let mut closed = vec![session.or(self.wires[index].bound)];
                if session.is_none() {
                    // Behind what binds another session it closes that one.
                    let asked = self.wires[index].expected.iter().flat_map(|sent| &sent.ops);
                    closed.extend(asked.map(|asked| match asked {
                        Asked::Attach(session, true) => Some(*session),
                        Asked::Open(_, resume, true) => *resume,
                        _ => None,
                    }));
                }
                for session in closed.into_iter().flatten() {
                    self.oracle.may_end(session, now);
                    self.forget(client, session);
                }
                // Behind an OPEN it may close what that opens.
                self.wires[index].rebound_at = self.wires[index].rebound_at.min(now);
            }
            Asked::Kill(session) => {
                self.oracle.may_end(session, now);
                // Nobody tells a client of RESP2 why its connection closes.
                let resp = |wire: &&mut Wire| matches!(wire.stream, Speech::Resp(_));
                let bound = self.wires.iter_mut().filter(|wire| wire.bound == Some(session));
                bound.filter(resp).for_each(|wire| wire.may_close = true);
                if let Some(victim) = self.oracle.sessions.get(&session).map(|facts| facts.client) {
                    self.disturbs(usize::MAX, victim);
                }
            }
            other => self.before_lock_op(index, other),
        }
    }

    /// All connections of a client but one may be closed by the server from now on: one of its
    /// sessions ends, or moves.
    fn disturbs(&mut self, index: usize, client: usize) {
        for (other, wire) in self.wires.iter_mut().enumerate() {
            if wire.client == client && other != index && wire.open {
                wire.disturbed = true;
                self.oracle.wire_disturbed(other);
            }
        }
    }

    /// An opening of a node was sent: its sessions may end by it.
    fn replaces(&mut self, node: u64) {
        let now = self.now;
        let of_node = self.oracle.sessions.values_mut().filter(|facts| facts.node == Some(node));
        of_node.for_each(|facts| {
            facts.may_end_from = facts.may_end_from.min(now);
            facts.revoked_from = facts.revoked_from.min(now);
        });
    }

    /// The client does not count on a session any more.
    fn forget(&mut self, client: usize, session: SessionId) {
        if let Some(live) = self.clients[client].live_mut(session) {
            live.lost = true;
        }
    }

    /// Whether a connection is one of a client that speaks RESP.
    pub(crate) fn speaks_resp(&self, index: usize) -> bool {
        self.clients[self.wires[index].client].plan.style == Style::Locks
    }

    fn encode(&mut self, index: usize, ops: &[Asked], barrier: bool) -> Vec<u8> {
        self.wires[index].sequence += 1;
        let sequence = self.wires[index].sequence;
        let mut out = Vec::new();
        if self.speaks_resp(index) {
            ops.iter().for_each(|asked| self.encode_resp(index, *asked, &mut out));
            return out;
        }
        self.encode_frame(index, (sequence, barrier), ops)
    }

    /// A frame of the native protocol.
    pub(crate) fn encode_frame(
        &self,
        index: usize,
        (sequence, barrier): (u64, bool),
        ops: &[Asked],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let flags = if barrier { FLAG_BARRIER } else { 0 };
        let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, flags, sequence);
        for asked in ops {
            self.encode_op(index, *asked, &mut out);
            frame.add(1);
        }
        frame.finish(&mut out);
        out
    }

    fn encode_op(&self, index: usize, asked: Asked, out: &mut Vec<u8>) {
        let client = &self.clients[self.wires[index].client];
        let name = |name: usize| self.plan.names[name].as_bytes();
        let proof = |session: SessionId, right: bool| {
            let secret = client.live(session).filter(|_| right).map_or(WRONG_SECRET, |l| l.secret);
            [&session.0.to_le_bytes()[..], &secret].concat()
        };
        match asked {
            Asked::Query(at) => put_op(out, op::QUERY, 0, name(at)),
            Asked::Register(at) => put_op(out, op::REGISTER, 0, name(at)),
            Asked::Release(at, None) => put_op(out, op::RELEASE, 0, name(at)),
            Asked::Release(at, Some(token)) => put_release_if(out, token, name(at)),
            Asked::Open(mine, resume, right) => {
                let style = match client.plan.style {
                    Style::Gateway => op::OPEN_GATEWAY,
                    Style::BareOpen => op::OPEN_BARE,
                    Style::Plain | Style::Bare | Style::Locks => 0,
                };
                let mut body = Vec::new();
                body.put_u64(client.mine[mine].node);
                let longer = if resume.is_some() { self.plan.stretch } else { 1 };
                body.put_u32(client.plan.lease_ms * longer);
                let secret = resume.map(|session| proof(session, right)[8..].to_vec());
                let resumes = secret.is_some();
                body.extend_from_slice(&secret.unwrap_or_else(|| vec![0; 16]));
                body.put_short_bytes(b"10.0.0.1:99");
                body.put_long_bytes(b"");
                put_op(out, op::OPEN, style | if resumes { op::OPEN_RESUME } else { 0 }, &body);
            }
            Asked::Renew(None, _) => put_op(out, op::RENEW, 0, &[]),
            Asked::Renew(Some(session), right) => {
                put_op(out, op::RENEW, 0, &proof(session, right));
            }
            Asked::Close(None, _) => put_op(out, op::CLOSE, 0, &[]),
            Asked::Close(Some(session), right) => {
                put_op(out, op::CLOSE, 0, &proof(session, right));
            }
            Asked::Attach(session, right) => put_op(out, op::ATTACH, 0, &proof(session, right)),
            Asked::Kill(session) => put_op(out, op::KILL, 0, &session.0.to_le_bytes()),
            Asked::Auth => {
                let mut body = Vec::new();
                body.put_short_bytes(
                    self.plan.gate.user_of(self.wires[index].client).unwrap_or(b""),
                );
                body.put_short_bytes(PASSWORD);
                put_op(out, op::AUTH, 0, &body);
            }
            Asked::Look(code) => put_op(out, code, 0, look_body(code)),
            Asked::Send(letter) => self.encode_letter(letter, out),
            Asked::Lane => put_op(out, op::LANE, 0, &[0; 4]),
            Asked::Watch(_) | Asked::Unwatch(_) => self.encode_watch(asked, out),
            other => self.encode_claim_op(other, out),
        }
    }

    /// A turn that is due then, beside any that is due before.
    pub(crate) fn turn_by_later(&mut self, shard: usize, at: u64) {
        if let Some(life) = self.life() {
            self.schedule(at, Event::Nudge(life, shard));
        }
    }
}

fn look_body(code: u8) -> &'static [u8] {
    match code {
        op::SESSIONS => &[0, 0, 0, 0, 0, 0, 0, 0, 20, 0],
        op::LIST => &[0, 0, 20, 0, 0, 0],
        op::SHARD_STATS => &[0],
        op::PING => b"hello",
        _ => &[],
    }
}
