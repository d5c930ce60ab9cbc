//! Where datagrams come in: UDP sockets at the addresses where carriers do, one for each shard.
//!
//! Bounds: as many sockets as there are addresses and shards. Not here: what shards do with them
//! (`pump/ports.rs`).

use std::io;
use std::net::SocketAddr;

use ringway_core::ShardId;
use ringway_shards::{ControlPort, DatagramSocket, SocketMemory};

use crate::shared::{Mail, Shared};

/// Sockets at each of these addresses, for each shard.
fn bind(at: &[SocketAddr], shards: usize) -> io::Result<Vec<Vec<DatagramSocket>>> {
    let mut all: Vec<Vec<DatagramSocket>> = (0..shards).map(|_| Vec::new()).collect();
    for address in at {
        let together = DatagramSocket::bind_together(*address, shards, SocketMemory::default());
        for (of_shard, socket) in all.iter_mut().zip(together?) {
            of_shard.push(socket);
        }
    }
    Ok(all)
}

/// Whether shards listen for datagrams.
#[derive(Debug, Default)]
pub(crate) struct Listening(bool);

impl Listening {
    /// Makes it so that shards listen at these addresses, if the configuration wants it, and
    /// otherwise not.
    ///
    /// # Errors
    /// An address cannot be had. Then nothing has changed.
    pub(crate) fn follow(
        &mut self,
        shared: &Shared,
        at: &[SocketAddr],
        port: &mut ControlPort,
    ) -> io::Result<()> {
        let wants = shared.site().config.listens_for_datagrams() && !at.is_empty();
        if wants == self.0 {
            return Ok(());
        }
        let sockets = bind(if wants { at } else { &[] }, shared.shards)?;
        for (shard, sockets) in sockets.into_iter().enumerate() {
            shared.send(ShardId(shard as u8), Mail::Ports(sockets), port);
        }
        self.0 = wants;
        Ok(())
    }
}
