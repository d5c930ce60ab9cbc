//! Who leaves: connections that are buried, and those that go to another shard and come from one.
//!
//! Either way the kernel has to let go first (S2): a receive is cancelled and heard to its last
//! completion, a patient send is cancelled and says how much it took, a connect likewise. What
//! arrives meanwhile for a connection that goes to another shard goes with it, and so does what was
//! not sent, so that the other shard begins exactly where this one stopped.

use std::net::TcpStream;

use ringway_core::ConnId;
use ringway_ring::{Tag, net};

use super::Shard;
use crate::conns::{Flags, NO_SEND, side_of};
use crate::io::IoState;
use crate::parcels::{Leaving, Parcel, Parcels};
use crate::service::Service;

impl IoState {
    /// What goes with a connection that has [`Flags::LEAVING`].
    pub(super) fn leaving_of(&mut self, index: u32) -> &mut Leaving {
        let at = self.leaving.iter().position(|leaving| leaving.index == index);
        &mut self.leaving[at.expect("noted when it was given away")]
    }
}

impl<S: Service> Shard<S> {
    /// Makes the kernel let go of a connection that dies or leaves, and lets it go once it has.
    pub(super) fn part(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        if conn.flags.has(Flags::OPEN) {
            self.state.ending.push(index);
            return;
        }
        self.state.timers.cancel(conn.deadline.take());
        if conn.flags.has(Flags::DYING) {
            self.state.pools[side_of(index)].give(std::mem::take(&mut conn.out));
            self.state.uncharge(index);
        }
        let conn = self.state.conns.get_mut(index);
        if conn.flags.has(Flags::ARMED) && !conn.flags.has(Flags::CANCELLING) {
            conn.flags.set(Flags::CANCELLING);
            self.ring.stop_receiving(side_of(index).group(), Tag(index));
        }
        if conn.send != NO_SEND {
            if conn.flags.has(Flags::PATIENT) && !conn.flags.has(Flags::SEND_CANCELLED) {
                conn.flags.set(Flags::SEND_CANCELLED);
                if conn.flags.has(Flags::CONNECTING) {
                    self.ring.stop_connecting(conn.send);
                } else {
                    self.ring.stop_sending(conn.send);
                }
            }
            self.state.again |= !conn.flags.has(Flags::PATIENT);
        }
        if conn.send == NO_SEND && !conn.flags.has(Flags::ARMED) {
            if conn.flags.has(Flags::DYING) {
                self.bury(index);
            } else {
                self.hand_over(index);
            }
            self.there_is_room();
        }
    }

    fn bury(&mut self, index: u32) {
        let reset = self.state.conns.get_mut(index).flags.has(Flags::RESET);
        if let Some(socket) = self.state.conns.release(index) {
            if reset {
                // It fails only for what is no socket.
                let _ = net::reset_when_closed(&socket);
            }
            self.ring.close(socket);
        }
    }

    /// A send of a connection that leaves has ended: what it left is still to be sent, first.
    pub(super) fn keep_unsent(&mut self, index: u32, mut buffer: Vec<u8>) {
        let conn = self.state.conns.get_mut(index);
        conn.flags.clear(Flags::PATIENT.or(Flags::SEND_CANCELLED));
        conn.sending = 0;
        let unsent = std::mem::take(&mut conn.unsent) as usize;
        if unsent > 0 {
            buffer.drain(..buffer.len() - unsent);
            buffer.append(&mut conn.out);
            std::mem::swap(&mut buffer, &mut conn.out);
        }
        let side = side_of(index);
        self.state.pools[side].give(buffer);
        self.state.charge(index);
        self.state.touch(index);
    }

    /// Nothing is in flight: everything of the connection goes.
    fn hand_over(&mut self, index: u32) {
        let at = self.state.leaving.iter().position(|leaving| leaving.index == index);
        let what = self.state.leaving.swap_remove(at.expect("noted when it was given away"));
        self.state.uncharge(index);
        let conn = self.state.conns.get_mut(index);
        let (side, finishing) = (side_of(index), conn.flags.has(Flags::FINISHING));
        let out = std::mem::take(&mut conn.out);
        self.counters.connections_now.set(self.counters.connections_now.get() - 1);
        self.counters.given.add(1);
        if let Some(socket) = self.state.conns.release(index) {
            let end = &self.state.outgoing.ends()[what.to.index()];
            end.parcels.put(Parcel { socket, side, what, out, finishing });
            end.bell.ring();
        }
    }

    fn parcels(&self) -> &Parcels {
        &self.state.outgoing.ends()[self.shard.index()].parcels
    }

    pub(super) fn has_parcels(&self) -> bool {
        self.parcels().any()
    }

    /// Takes in what other shards gave.
    pub(super) fn adopt_parcels(&mut self) {
        if self.has_parcels() {
            for parcel in self.parcels().take() {
                self.adopt(parcel);
            }
        }
    }

    fn adopt(&mut self, parcel: Parcel) {
        let Parcel { socket, side, mut what, out, finishing } = parcel;
        let index = match self.state.conns.insert(socket, side) {
            Ok(index) => index,
            Err(socket) => return self.turn_away(socket),
        };
        self.counters.connections_now.add(1);
        self.counters.adopted.add(1);
        let conn = self.state.conns.get_mut(index);
        conn.out = out;
        if finishing {
            conn.flags.set(Flags::FINISHING);
        }
        let id = conn.id(index);
        self.state.charge(index);
        self.state.touch(index);
        let io = &mut self.state.io(side);
        self.service.adopted(self.now, id, what.peer, &what.note, io);
        if !what.arrived.is_empty() {
            self.hear(index, id, &mut what.arrived);
        }
        // The kernel tells of a failure once, of an end as often as it is asked.
        if what.broken {
            self.lost(index);
        }
    }

    /// What a connection brought along, which may be closed or given away already.
    fn hear(&mut self, index: u32, id: ConnId, bytes: &mut [u8]) {
        let conn = self.state.conns.get_mut(index);
        if conn.flags.has(Flags::LEAVING) {
            self.state.leaving_of(index).arrived.extend_from_slice(bytes);
        } else if !conn.flags.has(Flags::FLUSHING.or(Flags::DYING)) {
            let side = side_of(index);
            self.service.received(self.now, id, bytes, &mut self.state.io(side));
        }
    }

    fn turn_away(&mut self, socket: TcpStream) {
        self.counters.accepts_refused.add(1);
        // It fails only for what is no socket.
        let _ = net::reset_when_closed(&socket);
        self.ring.close(socket);
    }
}
