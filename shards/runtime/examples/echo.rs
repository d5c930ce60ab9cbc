//! An echo server on shards, and with a second argument a load on it: `echo [shards] [depth]`.
//!
//! The load is one thread with 16 connections, 64 bytes a message and `depth` of them in flight
//! on each; it prints messages per second, and what a message costs the shards in turns.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_core::{ConnId, Moment, ShardId};
use ringway_shards::{Io, Peer, Running, Runtime, RuntimeConfig, Service, ShardCounters};

struct Echo;

impl Service for Echo {
    fn opened(&mut self, _: Moment, _: ConnId, _: Peer, _: &mut Io<'_>) {}

    fn received(&mut self, _: Moment, conn: ConnId, bytes: &[u8], io: &mut Io<'_>) {
        io.out(conn).extend_from_slice(bytes);
        if io.backlog(conn) > ringway_core::limits::CONN_OUT_HIGH {
            io.pause(conn);
        }
    }

    fn closed(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn drained(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        io.resume(conn);
    }

    fn mail(&mut self, _: Moment, _: ShardId, _: &[u8], _: &mut Io<'_>) {}

    fn turn(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn wake_at(&self) -> Option<Moment> {
        None
    }

    fn stop(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn may_stop(&self) -> bool {
        true
    }
}

/// Bytes of a message.
const MESSAGE: usize = 64;
/// Connections of the load.
const CONNECTIONS: usize = 16;
/// How long the load lasts.
const LASTS: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let shards = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let running = Runtime::start(RuntimeConfig { shards, ..RuntimeConfig::new(listen) }, |_| Echo)?;
    println!("echo on {}", running.addresses().base);
    if let Some(depth) = arguments.next() {
        load(&running, depth.parse()?)?;
        running.stop();
    }
    running.join()?;
    Ok(())
}

fn load(running: &Running, depth: usize) -> std::io::Result<()> {
    if let [.., last] = ringway_ring::host::cores()?.as_slice() {
        ringway_ring::host::pin_to(*last)?;
    }
    let connect = |_| {
        let client = TcpStream::connect(running.addresses().base)?;
        client.set_nodelay(true)?;
        Ok(client)
    };
    let mut clients: Vec<TcpStream> =
        (0..CONNECTIONS).map(connect).collect::<std::io::Result<_>>()?;
    let sent = vec![7; MESSAGE * depth];
    let mut got = vec![0; MESSAGE * depth];
    let sum = |of: fn(&ShardCounters) -> u64| -> u64 {
        running.counters().iter().map(|counters| of(counters)).sum()
    };
    let (start, busy) = (Instant::now(), sum(|counters| counters.turn_ns.get()));
    let turns = sum(|counters| counters.turns.get());
    let mut messages = 0;
    clients.iter_mut().try_for_each(|client| client.write_all(&sent))?;
    while start.elapsed() < LASTS {
        for client in &mut clients {
            client.read_exact(&mut got)?;
            client.write_all(&sent)?;
        }
        messages += depth * CONNECTIONS;
    }
    let seconds = start.elapsed().as_secs_f64();
    let turns = sum(|counters| counters.turns.get()) - turns;
    let busy = (sum(|counters| counters.turn_ns.get()) - busy) as f64 / messages as f64;
    println!(
        "depth {depth}: {:.0} messages/s, {:.1} messages a turn, {busy:.0} ns of turns a message",
        messages as f64 / seconds,
        messages as f64 / turns as f64,
    );
    Ok(())
}
