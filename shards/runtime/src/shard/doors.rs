//! Who comes in: the doors of a shard, and what opens them, shuts them and makes them wait.
//!
//! Always: a door's place is used again only after its accept has ended, so that a completion
//! always finds the door it belongs to.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use ringway_ring::{Errno, Tag, net};

use super::Shard;
use crate::io::DoorWish;
use crate::pair::Side;
use crate::service::{ACCEPT_PAUSE, ListenerKind, Peer, Service};
use crate::timers::Due;

/// A door.
#[derive(Debug)]
pub(crate) struct Door {
    /// `None` once the door is shut for good and nothing in the kernel is about it.
    listener: Option<TcpListener>,
    side: Side,
    kind: ListenerKind,
    armed: bool,
    shut: bool,
}

impl Door {
    pub(crate) fn new(listener: TcpListener, side: Side, kind: ListenerKind) -> Door {
        Door { listener: Some(listener), side, kind, armed: false, shut: false }
    }
}

impl<S: Service> Shard<S> {
    pub(super) fn accepted(&mut self, tag: Tag, result: Result<OwnedFd, Errno>, more: bool) {
        let door = &mut self.doors[tag.0 as usize];
        door.armed = more;
        if !more && door.shut {
            door.listener = None;
        }
        match result {
            Ok(socket) => {
                self.shortage_told = false;
                self.open(TcpStream::from(socket), tag);
            }
            Err(errno) if errno.is_shortage() => self.pause_accepting(errno),
            // A connection that was reset while it waited, or a cancellation.
            Err(_) => {}
        }
        if !more {
            self.arm_doors();
        }
    }

    fn pause_accepting(&mut self, errno: Errno) {
        if !std::mem::replace(&mut self.accept_paused, true) {
            self.counters.accept_pauses.add(1);
            self.state.timers.add(self.now + ACCEPT_PAUSE, Due::Accept);
        }
        if !std::mem::replace(&mut self.shortage_told, true) {
            tracing::warn!(
                shard = self.shard.0,
                "cannot accept connections: {errno}; they wait. Try a larger `ulimit -n`"
            );
        }
    }

    /// A descriptor or an index has become free.
    pub(super) fn there_is_room(&mut self) {
        if std::mem::take(&mut self.accept_paused) {
            self.arm_doors();
        }
    }

    pub(super) fn arm_doors(&mut self) {
        if self.accept_paused || self.drain.is_draining() {
            return;
        }
        for (index, door) in self.doors.iter_mut().enumerate() {
            if let (false, Some(listener)) = (door.armed, &door.listener) {
                door.armed = true;
                self.ring.accept(listener, Tag(index as u32));
            }
        }
    }

    fn open(&mut self, socket: TcpStream, tag: Tag) {
        self.counters.accepts.add(1);
        let door = &self.doors[tag.0 as usize];
        if door.shut && !self.drain.is_draining() {
            self.ring.close(socket);
            return;
        }
        // A peer that is gone already has no address; it has no need of us either.
        let Ok(address) = socket.peer_addr() else { return };
        let (peer, side) = (Peer { address, listener: door.kind }, door.side);
        match self.state.conns.insert(socket, side) {
            Err(socket) => {
                self.counters.accepts_refused.add(1);
                self.ring.close(socket);
            }
            Ok(index) => {
                self.counters.connections_now.add(1);
                self.state.touch(index);
                let id = self.state.conns.get_mut(index).id(index);
                self.service.opened(self.now, id, peer, &mut self.state.io(side));
            }
        }
    }

    /// Opens and shuts what the service asked for, in its order.
    pub(super) fn settle_doors(&mut self) {
        if self.state.door_wishes.is_empty() {
            return;
        }
        for wish in std::mem::take(&mut self.state.door_wishes) {
            match wish {
                DoorWish::Open(listener, side, number) => self.add_door(listener, side, number),
                DoorWish::Shut(side, number) => {
                    for index in 0..self.doors.len() {
                        let door = &self.doors[index];
                        if door.side == side && door.kind == ListenerKind::Extra(number) {
                            self.shut_door(index);
                        }
                    }
                }
            }
        }
        self.arm_doors();
    }

    fn add_door(&mut self, listener: TcpListener, side: Side, number: u16) {
        if self.drain.is_draining() {
            net::stop_listening(&listener);
            return;
        }
        let door = Door::new(listener, side, ListenerKind::Extra(number));
        let free = |door: &Door| door.listener.is_none() && !door.armed;
        match self.doors.iter().position(free) {
            Some(index) => self.doors[index] = door,
            None => self.doors.push(door),
        }
    }

    /// Nobody comes in by this door any more.
    pub(super) fn shut_door(&mut self, index: usize) {
        let door = &mut self.doors[index];
        if std::mem::replace(&mut door.shut, true) {
            return;
        }
        if let Some(listener) = &door.listener {
            net::stop_listening(listener);
        }
        if door.armed {
            self.ring.stop_accepting(Tag(index as u32));
        } else {
            door.listener = None;
        }
    }
}
