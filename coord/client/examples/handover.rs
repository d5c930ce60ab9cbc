//! How long does a hand-over take, from the release of one to the grant that the next one sees?
//!
//! `cargo run --release -p ringway-client --example handover -- 127.0.0.1:7400 [ROUNDS]`
//!
//! Two plain connections, a thread each: one holds a name, the other waits for it. The clock runs
//! from the moment before the release is sent until the notice is read. Then they change roles.
//! Prints the median and the 99th percentile, in microseconds.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ringway_client::{Client, Mode, Notice, Options, Waited};

const NAME: &[u8] = b"handover";
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One side: what the other one tells it, and whom it tells.
struct Side {
    client: Client,
    waits: Sender<()>,
    other_waits: Receiver<()>,
    granted: Sender<Instant>,
    other_granted: Receiver<Instant>,
}

impl Side {
    /// Waits until the other side has released the name.
    fn wait(&mut self) -> Result<()> {
        let waited = self.client.wait(&[NAME], Mode::Exclusive, None)?.remove(0)?;
        assert!(matches!(waited, Waited::Queued { .. }), "the other side holds it: {waited:?}");
        self.waits.send(())?;
        loop {
            match self.client.wait_notice(PATIENCE)? {
                Some(Notice::Granted { .. }) => break,
                Some(_) => {}
                None => return Err("no grant came".into()),
            }
        }
        self.granted.send(Instant::now())?;
        Ok(())
    }

    /// Releases the name for the other side; how long that took.
    fn release(&mut self) -> Result<Duration> {
        self.other_waits.recv()?;
        let begun = Instant::now();
        self.client.release(&[NAME])?.remove(0)?;
        Ok(self.other_granted.recv()? - begun)
    }
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let address: SocketAddr = words.next().ok_or("name a server, as 127.0.0.1:7400")?.parse()?;
    let rounds: usize = words.next().map_or(Ok(20_000), |rounds| rounds.parse())?;
    let (waits_a, of_a) = channel();
    let (waits_b, of_b) = channel();
    let (granted_a, to_a) = channel();
    let (granted_b, to_b) = channel();
    let connect = || Client::connect(address, Options::default());
    let (mut a, b) = (connect()?, connect()?);
    a.register_one(NAME)?;
    let (waits, other_waits, granted, other_granted) = (waits_a, of_b, granted_a, to_b);
    let mut a = Side { client: a, waits, other_waits, granted, other_granted };
    let (waits, other_waits, granted, other_granted) = (waits_b, of_a, granted_b, to_a);
    let mut b = Side { client: b, waits, other_waits, granted, other_granted };
    let other = std::thread::spawn(move || -> Result<Vec<Duration>> {
        (0..rounds / 2)
            .map(|_| {
                b.wait()?;
                b.release()
            })
            .collect()
    });
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds / 2 {
        took.push(a.release()?);
        a.wait()?;
    }
    took.extend(other.join().map_err(|_| "the other side failed")??);
    took.sort();
    let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    println!("{} hand-overs: p50 {:.1} us, p99 {:.1} us", took.len(), at(500), at(990));
    Ok(())
}
