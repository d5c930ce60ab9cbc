//! Question: what does it cost to look for something to compress where nothing is? The bar is under
//! 1 % of the processor time that the tunnel takes for the same bytes.
//! Measured: the processor time of both sides' shards, system calls and all, for random bytes by a
//! forward that compresses and by one that does not, in turn and in the other order each time; in
//! each round the one is divided by the other, and the middle of these counts.
//! Not measured: who writes and who reads, which are threads of their own.
//!
//! `cargo bench -p ringway-tunnel-node --bench incompressible`; without `--bench`, as tests run it,
//! it moves little and says no number.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use ringway_tunnel_node::config::Config;
use ringway_tunnel_node::{KeyKind, Tunnel, ask, make};

/// The program's own: where another one gives memory back costs more than the looks.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes of a transfer, and rounds of two.
const BYTES: usize = 256 << 20;
const ROUNDS: usize = 21;
/// Random bytes, again and again: further apart than anything that compresses looks back.
const CHANCE_BYTES: usize = 8 << 20;
const PIECE: usize = 64 << 10;

fn main() {
    let measures = std::env::args().any(|word| word == "--bench");
    let (bytes, rounds) = if measures { (BYTES, ROUNDS) } else { (CHANCE_BYTES, 1) };
    let sites = Sites::start();
    let chance = chance(CHANCE_BYTES);
    // What is needed once is there before anything counts.
    let cost = |door: usize, bytes| sites.cost(door, bytes, &chance);
    for door in [OFF, AUTO] {
        cost(door, CHANCE_BYTES);
    }
    let mut costs = Vec::new();
    for round in 0..rounds {
        let first = if round % 2 == 0 { OFF } else { AUTO };
        let mut spent = [Duration::ZERO; 2];
        for door in [first, 1 - first] {
            spent[door] = cost(door, bytes);
        }
        costs.push(spent);
    }
    let saved = sites.saved();
    assert!(saved <= 0, "{saved} bytes were saved: it is no chance");
    if measures {
        report(&mut costs, bytes);
    }
    sites.stop();
}

fn report(costs: &mut [[Duration; 2]], bytes: usize) {
    let gigabytes = bytes as f64 / 1e9;
    let ratio = |spent: &[Duration; 2]| spent[AUTO].as_secs_f64() / spent[OFF].as_secs_f64();
    for (what, door) in [("off", OFF), ("auto", AUTO)] {
        costs.sort_by_key(|spent| spent[door]);
        let at = |place: usize| costs[place][door].as_secs_f64() / gigabytes;
        let (least, middle) = (at(0), at(costs.len() / 2));
        println!("compress {what:4}: {middle:.4} CPU s/GB in the middle, {least:.4} at least");
    }
    costs.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let at = |place: usize| (ratio(&costs[place]) - 1.0) * 100.0;
    let (low, middle, high) = (at(costs.len() / 4), at(costs.len() / 2), at(costs.len() * 3 / 4));
    println!(
        "trying costs {middle:+.2} % of that (half of {} rounds: {low:+.2} to {high:+.2} %); the \
         bar is +1 %",
        costs.len()
    );
}

/// Forwards of the near side.
const OFF: usize = 0;
const AUTO: usize = 1;

struct Sites {
    near: Tunnel,
    far: Tunnel,
    dir: tempfile::TempDir,
}

impl Sites {
    fn start() -> Sites {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        make(KeyKind::Network, &path.join("network.key")).expect("a new file");
        make(KeyKind::Shared, &path.join("pair.psk")).expect("a new file");
        let service = sink();
        let side = |name: &str, more: &str, peer: &str| {
            let text = format!(
                "[tunnel]\nnetwork_key = \"network.key\"\nsocket = \"{name}.sock\"\nshards = 1\n\
                 {more}\n[[peer]]\nname = \"it\"\nshared_key = \"pair.psk\"\n{peer}"
            );
            start(&path.join(format!("{name}.toml")), &text)
        };
        let far = side("far", "listen = \"127.0.0.1:0\"", &format!("allow = [\"{service}\"]\n"));
        let forward = |compress: &str| {
            format!(
                "[[forward]]\nlisten = \"127.0.0.1:0\"\npeer = \"it\"\nto = \"{service}\"\n\
                 compress = \"{compress}\"\n"
            )
        };
        let peer = format!("addresses = \"{}\"\n", far.ready().carriers[0]);
        let near = side("near", "", &(peer + &forward("off") + &forward("auto")));
        Sites { near, far, dir }
    }

    /// The processor time that both sides spend on a transfer by this forward.
    fn cost(&self, door: usize, bytes: usize, chance: &[u8]) -> Duration {
        let before = shards_cpu();
        let mut user = TcpStream::connect(self.near.ready().listeners[door]).expect("it listens");
        let pieces = chance.chunks(PIECE).cycle().take(bytes / PIECE);
        pieces.for_each(|piece| user.write_all(piece).expect("the tunnel takes it"));
        user.shutdown(Shutdown::Write).expect("connected");
        let mut told = [0; 8];
        user.read_exact(&mut told).expect("the service has read to the end");
        assert_eq!(u64::from_le_bytes(told), bytes as u64, "all of it has come");
        shards_cpu() - before
    }

    /// What compression saved, or cost where it is below zero.
    fn saved(&self) -> i64 {
        let status = ask(&self.dir.path().join("near.sock"), 0).expect("it runs");
        status.peers[0].together.saved
    }

    fn stop(self) {
        for side in [self.near, self.far] {
            side.stop();
            side.join().expect("it ends");
        }
    }
}

fn start(path: &Path, text: &str) -> Tunnel {
    std::fs::write(path, text).expect("our directory");
    Tunnel::start(Config::load(path).expect("it is good")).expect("it starts")
}

/// A service that reads to the end and says how much that was.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut some = vec![0; 4 * PIECE];
        for mut stream in listener.incoming().flatten() {
            let mut bytes = 0;
            while let Ok(many @ 1..) = stream.read(&mut some) {
                bytes += many as u64;
            }
            // Who has gone needs no answer, and misses it.
            let _ = stream.write_all(&bytes.to_le_bytes());
        }
    });
    address
}

/// The processor time that shards of this process have had.
fn shards_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let spent = tasks.flatten().filter_map(|task| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).ok();
        read("comm").filter(|name| name.starts_with("ringway-shard"))?;
        read("schedstat")?.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

fn chance(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes / 8).flat_map(|_| draw().to_le_bytes()).collect()
}
