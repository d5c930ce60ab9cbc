//! What a service can do with UDP sockets.

use std::net::SocketAddr;

use ringway_core::limits::datagrams::BACKLOG_MAX;
use ringway_ring::{DatagramSocket, Errno, SocketMemory, Towards};

use super::Io;
use crate::service::NoSocket;
use crate::sockets::SocketId;

impl Io<'_> {
    /// Opens a UDP socket of this service's at an address that nobody else has; port 0 takes a free
    /// one. What arrives is [`crate::Service::datagrams`].
    ///
    /// # Errors
    /// When there is none for it, because the service has too many, or for what the host says.
    pub fn open_datagrams(
        &mut self,
        address: SocketAddr,
        memory: SocketMemory,
    ) -> Result<SocketId, NoSocket> {
        let socket = DatagramSocket::bind(address, memory);
        self.add_datagrams(socket.map_err(|error| NoSocket::Host(Errno::of(&error)))?)
    }

    /// As [`Self::open_datagrams`], with a socket that is bound already: one of several that share
    /// an address ([`DatagramSocket::bind_together`]), one for each shard.
    ///
    /// # Errors
    /// When the service has too many.
    pub fn add_datagrams(&mut self, socket: DatagramSocket) -> Result<SocketId, NoSocket> {
        let sockets = &mut self.state.sockets;
        if !sockets.has_buffers {
            return Err(NoSocket::Full);
        }
        if sockets.put_together {
            socket.put_together().map_err(NoSocket::Host)?;
        }
        let index = sockets.insert(socket, self.side).map_err(|_| NoSocket::Full)?;
        sockets.touch(index);
        Ok(sockets.get_mut(index).id(index))
    }

    /// Closes a socket; its id is dead from this call on. What was appended leaves, as far as the
    /// socket has room.
    pub fn close_datagrams(&mut self, socket: SocketId) {
        if let Some((index, found)) = self.state.sockets.open_mut(socket, self.side) {
            found.close();
            self.state.sockets.touch(index);
        }
    }

    /// Where a socket is bound. A system call.
    pub fn datagrams_address(&self, socket: SocketId) -> Option<SocketAddr> {
        self.datagram_socket(socket)?.local_address().ok()
    }

    /// How much memory a socket has in the kernel: less than was asked for where neither the limits
    /// of the host (`net.core.rmem_max`, `net.core.wmem_max`) nor our rights allow more. System
    /// calls.
    pub fn datagrams_memory(&self, socket: SocketId) -> Option<SocketMemory> {
        self.datagram_socket(socket)?.memory().ok()
    }

    /// A train to be sent at the end of the turn: append the datagrams, one after the other, all
    /// of `segment_bytes` but the last, which may be shorter. At most
    /// [`Towards::datagrams_max`]; more is a bug, which ends the process. What the kernel does not
    /// take is told by [`crate::Service::unsent`]; a train that nothing is appended to is none.
    /// Trains leave in their order, but where the socket runs full, a later one may overtake those
    /// that have to wait.
    ///
    /// `None`: the socket is gone, or more than `BACKLOG_MAX` bytes wait for room in it
    /// ([`Self::await_datagrams`]).
    #[inline]
    pub fn train(&mut self, socket: SocketId, towards: Towards) -> Option<&mut Vec<u8>> {
        let sockets = &mut self.state.sockets;
        let (index, found) = sockets.open_mut(socket, self.side)?;
        if found.backlog() >= BACKLOG_MAX {
            return None;
        }
        sockets.touch(index);
        let bytes = sockets.pools[self.side].take();
        Some(sockets.get_mut(index).append(towards, bytes))
    }

    /// As [`Self::train`], all at once; `false` if it was not taken.
    #[inline]
    pub fn send_train(&mut self, socket: SocketId, towards: Towards, bytes: &[u8]) -> bool {
        self.train(socket, towards).is_some_and(|train| {
            train.extend_from_slice(bytes);
            true
        })
    }

    /// Bytes that were appended and have not left; zero for a socket that is gone.
    #[inline]
    pub fn datagrams_backlog(&self, socket: SocketId) -> usize {
        self.state.sockets.open(socket, self.side).map_or(0, |found| found.backlog())
    }

    /// Calls [`crate::Service::datagrams_drained`] once fewer than so many bytes wait: once, in a
    /// later turn, also if fewer do already. Another call replaces it.
    pub fn await_datagrams(&mut self, socket: SocketId, below: usize) {
        if let Some((index, found)) = self.state.sockets.open_mut(socket, self.side)
            && found.mark.replace(below.max(1)).is_none()
        {
            self.state.sockets.marked.push(index);
        }
    }

    fn datagram_socket(&self, socket: SocketId) -> Option<&DatagramSocket> {
        self.state.sockets.open(socket, self.side)?.socket.as_ref()
    }
}
