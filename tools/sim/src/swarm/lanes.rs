//! Clients that send by lanes: what was not answered on a connection that was lost is sent again.
//!
//! A frame that is sent again is the same request as before: it was called when it was first sent,
//! and returns when it is answered at last. So all other judges see to it that it was executed
//! once: by a release that is answered `NOTOWNER` because it was done already, a message that is
//! heard twice, a version that nobody asked for.
//!
//! Invariants checked here:
//! - N1  A lane was taken up to a frame that was sent by it, and at least to what was answered.
//! - N2  What it was taken up to is remembered: so few frames are never forgotten.
//!
//! Not here: what belongs to a connection and is not sent by a lane (WATCH, OPEN, CLOSE, KILL).

use std::collections::VecDeque;

use ringway_coord_proto::wire::status;
use ringway_core::SessionId;
use ringway_core::wire::{Reader, Truncated};

use super::client::{Asked, Sent};
use super::plan::Style;
use super::world::{Judged, Wire, World};
use crate::stream::Got;

/// A client's lane.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    session: SessionId,
    life: u32,
    /// The largest sequence that was sent by it, and the largest that was answered.
    sent: u64,
    answered: u64,
    /// What was lost with a connection, oldest first.
    again: VecDeque<Sent>,
}

impl Wire {
    /// Whether something that belongs to the connection may be sent on it.
    pub(crate) fn is_free_of_lanes(&self) -> bool {
        !self.laned && !self.awaits_lane()
    }

    /// Whether it has asked for a lane, and may send nothing until it has it.
    pub(crate) fn awaits_lane(&self) -> bool {
        self.expected.iter().any(|sent| sent.ops.contains(&Asked::Lane))
    }
}

impl World {
    /// Asks for the lane of a client's session on a connection, if it has none.
    pub(crate) fn keep_lane(&mut self, client: usize) {
        let state = &self.clients[client];
        if !state.plan.lane || state.plan.style != Style::Plain {
            return;
        }
        let live = state.mine[0].live.filter(|live| !live.lost).map(|live| live.session);
        if let Some(lane) = &state.lane
            && (Some(lane.session) != live || Some(lane.life) != self.life())
        {
            self.drop_lane(client);
        }
        let Some(session) = live else { return };
        let wires = &self.clients[client].wires;
        if wires.iter().any(|wire| !self.wires[*wire].is_free_of_lanes()) {
            return;
        }
        let fits = |wire: &Wire| wire.bound == Some(session) && wire.expected.is_empty();
        if let Some(wire) = self.pick_wire(client, fits) {
            let stamp = self.clients[client].clock(self.now);
            self.send_frame(wire, vec![Asked::Lane], stamp);
        }
    }

    /// The lane has ended with its session: nobody knows what became of what was not answered.
    pub(crate) fn drop_lane(&mut self, client: usize) {
        let lane = self.clients[client].lane.take();
        for sent in lane.into_iter().flat_map(|lane| lane.again) {
            self.frame_lost(sent.origin, &sent);
        }
    }

    /// The answer to LANE: what was lost is sent again, as it was.
    pub(crate) fn lane_answered(&mut self, index: usize, got: &Got) -> Judged {
        let client = self.wires[index].client;
        let (Got::Data(status::DATA, data), Some(session)) = (got, self.wires[index].bound) else {
            let reasonable = match got.status() {
                status::NOSESSION => return self.lane_ended(index),
                // Its session went elsewhere while the lane was on the way.
                status::BUSY | status::REFUSED => self.wires[index].may_close,
                _ => false,
            };
            return if reasonable { Ok(()) } else { Err(got.words()) };
        };
        let (last, first) = read_lane(data)
            .map_err(|Truncated| format!("N1: LANE answered {} bytes", data.len()))?;
        let life = self.wires[index].life;
        let known = self.clients[client].lane.take();
        let mut lane = match known {
            Some(lane) if lane.session == session && lane.life == life => lane,
            other => {
                self.clients[client].lane = other;
                self.drop_lane(client);
                // The client may have forgotten what it sent by it.
                let again = VecDeque::new();
                Lane { session, life, sent: last, answered: 0, again }
            }
        };
        if last > lane.sent || last < lane.answered {
            return Err(format!("N1: taken up to {last}: {lane:?}"));
        }
        if lane.again.iter().any(|sent| sent.sequence <= last && sent.sequence < first) {
            return Err(format!("N2: remembered from {first} on: {lane:?}"));
        }
        let again = std::mem::take(&mut lane.again);
        let wire = &mut self.wires[index];
        (wire.laned, wire.sequence) = (true, wire.sequence.max(lane.sent).max(last));
        self.clients[client].lane = Some(lane);
        for sent in again {
            self.tally.again += 1;
            self.note(|_| format!("wire {index} sends {} again", sent.sequence));
            let bytes = self.encode_frame(index, (sent.sequence, sent.barrier), &sent.ops);
            self.put(index, &bytes);
            self.wires[index].expected.push_back(sent);
        }
        Ok(())
    }

    fn lane_ended(&mut self, index: usize) -> Judged {
        match self.wires[index].bound {
            Some(session) => self.oracle.told_ended(session, self.now),
            None => Ok(()),
        }
    }

    /// A frame goes by a lane.
    pub(crate) fn sent_by_lane(&mut self, index: usize, sequence: u64) {
        let wire = &self.wires[index];
        if wire.laned
            && let Some(lane) = self.clients[wire.client].lane.as_mut()
        {
            lane.sent = lane.sent.max(sequence);
        }
    }

    /// A frame that went by a lane was answered.
    pub(crate) fn answered_by_lane(&mut self, index: usize, sequence: u64, got: &[Got]) -> Judged {
        let wire = &self.wires[index];
        if !wire.laned {
            return Ok(());
        }
        if let Some(lane) = self.clients[wire.client].lane.as_mut() {
            lane.answered = lane.answered.max(sequence);
        }
        match got.iter().any(|got| got.status() == status::FORGOTTEN) {
            true => Err(format!("N2: frame {sequence} is forgotten")),
            false => Ok(()),
        }
    }

    /// Keeps what was not answered on a connection with a lane that is lost, to send it again.
    /// False: it had none, or its session is lost as well.
    pub(crate) fn keeps_for_lane(&mut self, index: usize, sent: &Sent) -> bool {
        let wire = &self.wires[index];
        let (client, session) = (wire.client, wire.bound);
        let state = &mut self.clients[client];
        let lives =
            state.mine[0].live.is_some_and(|live| !live.lost && Some(live.session) == session);
        let Some(lane) = state.lane.as_mut().filter(|_| wire.laned && lives) else { return false };
        if Some(lane.session) != session || lane.life != wire.life || self.calm {
            return false;
        }
        lane.again.push_back(sent.clone());
        true
    }
}

/// What LANE is answered with: the largest sequence that was taken up, the smallest remembered.
fn read_lane(data: &[u8]) -> Result<(u64, u64), Truncated> {
    let mut body = Reader::new(data);
    let read = (body.u64()?, body.u64()?);
    if body.is_empty() { Ok(read) } else { Err(Truncated) }
}
