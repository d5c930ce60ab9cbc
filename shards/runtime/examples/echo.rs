//! An echo server on shards, and with a second argument a load on it: `echo [shards] [depth]`. A
//! third argument names a feature of the kernel to do without, to see what that is worth.
//!
//! The load is one thread with 64 connections and 64 bytes a message; it writes `depth` messages
//! to each connection, then reads the echo of each. It prints messages per second, and the CPU
//! time of the shards per message.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_core::{ConnId, Moment, ShardId};
use ringway_ring::{Feature, ProbeMask};
use ringway_shards::{Io, Peer, Running, Runtime, RuntimeConfig, Service, SpinPolicy};

struct Echo;

impl Service for Echo {
    fn opened(&mut self, _: Moment, _: ConnId, _: Peer, _: &mut Io<'_>) {}

    fn received(&mut self, _: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        io.out(conn).extend_from_slice(bytes);
        if io.backlog(conn) > ringway_core::limits::CONN_OUT_HIGH {
            io.pause(conn);
            io.await_drain(conn, ringway_core::limits::CONN_OUT_LOW);
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
const CONNECTIONS: usize = 64;
/// How long the load lasts.
const LASTS: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let shards = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    // What the load measures is the turn, not the patience before a sleep.
    let spin = SpinPolicy::Off;
    let depth = arguments.next();
    let without = arguments.next();
    let hidden = Feature::all().filter(|feature| Some(feature.name()) == without.as_deref());
    let probe_mask = hidden.fold(ProbeMask::default(), ProbeMask::without);
    let config = RuntimeConfig { shards, spin, probe_mask, ..RuntimeConfig::new(listen) };
    let running = Runtime::start(config, |_| Echo)?;
    let address = running.addresses().base.ok_or("there is a base door")?;
    println!("echo on {address}");
    if let Some(depth) = depth {
        load(&running, address, depth.parse()?)?;
        running.stop();
    }
    running.join()?;
    Ok(())
}

fn load(running: &Running, address: SocketAddr, depth: usize) -> std::io::Result<()> {
    if let [.., last] = ringway_ring::host::cores()?.as_slice() {
        ringway_ring::host::pin_to(*last)?;
    }
    let connect = |_| {
        let client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        Ok(client)
    };
    let mut clients: Vec<TcpStream> =
        (0..CONNECTIONS).map(connect).collect::<std::io::Result<_>>()?;
    let sent = vec![7; MESSAGE * depth];
    let mut got = vec![0; MESSAGE * depth];
    let turns = |running: &Running| -> u64 {
        running.counters().iter().map(|counters| counters.turns.get()).sum()
    };
    let (start, cpu_before, turns_before) = (Instant::now(), shards_cpu()?, turns(running));
    let mut messages = 0;
    while start.elapsed() < LASTS {
        clients.iter_mut().try_for_each(|client| client.write_all(&sent))?;
        clients.iter_mut().try_for_each(|client| client.read_exact(&mut got))?;
        messages += depth * CONNECTIONS;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (shards_cpu()? - cpu_before) as f64;
    println!(
        "depth {depth}: {:.0} messages/s, {:.1} messages a turn, {:.0} ns of CPU a message",
        messages as f64 / seconds,
        messages as f64 / (turns(running) - turns_before) as f64,
        cpu / messages as f64,
    );
    Ok(())
}

/// Nanoseconds that the shards' threads have been on a core, kernel and user together.
fn shards_cpu() -> std::io::Result<u64> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.starts_with("ringway-shard") {
            let statistics = std::fs::read_to_string(path.join("schedstat"))?;
            let on_core = statistics.split(' ').next().unwrap_or_default();
            total += on_core.parse::<u64>().unwrap_or_default();
        }
    }
    Ok(total)
}
