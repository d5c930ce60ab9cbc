//! What lies between two sites: it passes bytes on, and does to them what networks do.
//!
//! Each connection is a thread. Bounds: what is on its way is at most 1 MiB a direction.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const ON_THE_WAY_MAX: usize = 1 << 20;
/// How soon orders are noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What becomes of the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Passing,
    /// Nothing passes, and nobody is told: what a router does that has died.
    Silent,
    /// So many bytes a second, each way.
    Crawling(u64),
    /// All of it, but so much later.
    Late(Duration),
}

/// What happens once to bytes that come from the near side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Harm {
    /// A bit of the next bytes is another.
    Flip,
    /// Of the next bytes some in the middle are missing.
    Lack,
    /// The next bytes end in the middle, and then the connection does.
    Cut,
}

#[derive(Default)]
struct Orders {
    mood: Option<Mood>,
    harm: Option<Harm>,
    reset: bool,
    over: bool,
}

struct Shared {
    to: Mutex<SocketAddr>,
    mood: Mutex<Mood>,
    /// Connections are taken and closed at once.
    shut: Mutex<bool>,
    all: Mutex<Vec<Arc<Mutex<Orders>>>>,
}

/// It ends with the test's process.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Wire {
    /// In front of a side.
    pub(crate) fn start(to: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            mood: Mutex::new(Mood::Passing),
            shut: Mutex::new(false),
            all: Mutex::default(),
        });
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if *seen.shut.lock().expect("not poisoned") {
                    reset(&near);
                    continue;
                }
                let Ok(far) = TcpStream::connect(*seen.to.lock().expect("not poisoned")) else {
                    reset(&near);
                    continue;
                };
                let orders = Arc::new(Mutex::new(Orders::default()));
                seen.all.lock().expect("not poisoned").push(Arc::clone(&orders));
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || carry(&seen, &orders, [near, far]));
            }
        });
        Wire { addr, shared }
    }

    /// In front of this one from now on.
    pub(crate) fn lead_to(&self, to: SocketAddr) {
        *self.shared.to.lock().expect("not poisoned") = to;
    }

    /// What becomes of all connections, those to come included.
    pub(crate) fn be(&self, mood: Mood) {
        *self.shared.mood.lock().expect("not poisoned") = mood;
    }

    /// Whether new connections are refused.
    pub(crate) fn shut(&self, shut: bool) {
        *self.shared.shut.lock().expect("not poisoned") = shut;
    }

    fn each(&self, mut order: impl FnMut(usize, &mut Orders)) {
        for (at, one) in self.shared.all.lock().expect("not poisoned").iter().enumerate() {
            let mut orders = one.lock().expect("not poisoned");
            if !orders.over {
                order(at, &mut orders);
            }
        }
    }

    /// What becomes of this connection, whatever becomes of the others.
    pub(crate) fn be_at(&self, at: usize, mood: Mood) {
        self.each(|one, orders| {
            if one == at {
                orders.mood = Some(mood);
            }
        });
    }

    /// Breaks this connection, both ends hear a reset.
    pub(crate) fn reset_at(&self, at: usize) {
        self.each(|one, orders| orders.reset |= one == at);
    }

    /// Breaks all connections that there are.
    pub(crate) fn reset(&self) {
        self.each(|_, orders| orders.reset = true);
    }

    /// Does harm to this connection when it next carries something.
    pub(crate) fn harm_at(&self, at: usize, harm: Harm) {
        self.each(|one, orders| {
            if one == at {
                orders.harm = Some(harm);
            }
        });
    }

    /// Connections that there are now, by the order in which they came.
    pub(crate) fn alive(&self) -> Vec<usize> {
        let mut alive = Vec::new();
        self.each(|at, _| alive.push(at));
        alive
    }
}

/// Ends a connection by a reset, at once, whoever else has it.
pub(crate) fn reset(stream: &TcpStream) {
    // Disconnecting a stream that is not at its end is a reset.
    let _ = rustix::net::connect_unspec(stream);
}

/// One direction of a connection.
#[derive(Default)]
struct Lane {
    held: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    ended: bool,
    told: bool,
    /// Bytes that may pass while it crawls, and since when they are counted.
    budget: f64,
    looked: Option<Instant>,
}

fn carry(shared: &Shared, orders: &Mutex<Orders>, ends: [TcpStream; 2]) {
    for end in &ends {
        end.set_nonblocking(true).expect("a socket");
        end.set_nodelay(true).expect("a socket");
    }
    let mut lanes = [Lane::default(), Lane::default()];
    let broke = loop {
        let mood = {
            let orders = orders.lock().expect("not poisoned");
            if orders.reset {
                break true;
            }
            orders.mood.unwrap_or_else(|| *shared.mood.lock().expect("not poisoned"))
        };
        let moved = (0..2).try_fold(false, |moved, way| {
            let lane = &mut lanes[way];
            let heard = lane.hear(way, &ends[way], mood, orders)?;
            Ok::<_, std::io::Error>(moved | heard | lane.tell(&ends[1 - way], mood)?)
        });
        match moved {
            Err(_) => break true,
            Ok(_) if lanes.iter().all(|lane| lane.told) => break false,
            Ok(true) => {}
            Ok(false) => rest(&ends, &lanes, mood),
        }
    };
    if broke {
        ends.iter().for_each(reset);
    }
    orders.lock().expect("not poisoned").over = true;
}

/// Waits until something may have changed.
fn rest(ends: &[TcpStream; 2], lanes: &[Lane; 2], mood: Mood) {
    let wants = |end: usize| {
        let mut flags = PollFlags::empty();
        if mood != Mood::Silent && !lanes[end].ended && lanes[end].bytes < ON_THE_WAY_MAX {
            flags |= PollFlags::IN;
        }
        if mood == Mood::Passing && lanes[1 - end].bytes > 0 {
            flags |= PollFlags::OUT;
        }
        flags
    };
    // An end of which nothing is wanted is not asked: that it is gone would be told for ever.
    let asked = (0..2).filter(|end| !wants(*end).is_empty());
    let mut fds: Vec<PollFd<'_>> =
        asked.map(|end| PollFd::from_borrowed_fd(ends[end].as_fd(), wants(end))).collect();
    let _ = poll(&mut fds, Some(&LOOK));
}

impl Lane {
    fn hear(
        &mut self,
        way: usize,
        mut from: &TcpStream,
        mood: Mood,
        orders: &Mutex<Orders>,
    ) -> std::io::Result<bool> {
        if self.ended || self.bytes >= ON_THE_WAY_MAX || mood == Mood::Silent {
            return Ok(false);
        }
        let mut some = vec![0; 64 * 1024];
        let many = match from.read(&mut some) {
            Ok(many) => many,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        some.truncate(many);
        self.ended = many == 0;
        if way == 0 {
            let mut orders = orders.lock().expect("not poisoned");
            if many > 0
                && let Some(harm) = orders.harm.take()
            {
                match harm {
                    Harm::Flip => some[many / 2] ^= 0x10,
                    Harm::Lack => drop(some.drain(many / 3..many / 2 + 1)),
                    Harm::Cut => {
                        some.truncate(many / 2);
                        self.ended = true;
                    }
                }
            }
        }
        let late = if let Mood::Late(by) = mood { by } else { Duration::ZERO };
        self.bytes += some.len();
        self.held.push_back((Instant::now() + late, some));
        Ok(true)
    }

    fn tell(&mut self, mut to: &TcpStream, mood: Mood) -> std::io::Result<bool> {
        let now = Instant::now();
        let spent = now - self.looked.replace(now).unwrap_or(now);
        let mut may = usize::MAX;
        match mood {
            Mood::Silent => return Ok(false),
            Mood::Crawling(rate) => {
                let most = rate as f64 / 20.0 + 1.0;
                self.budget = (self.budget + rate as f64 * spent.as_secs_f64()).min(most);
                may = self.budget as usize;
            }
            Mood::Passing | Mood::Late(_) => {}
        }
        let mut moved = false;
        while let Some((due, bytes)) = self.held.front_mut() {
            if *due > now || may == 0 {
                return Ok(moved);
            }
            let some = bytes.len().min(may);
            match to.write(&bytes[..some]) {
                Ok(many) => {
                    may -= many;
                    self.budget -= many as f64;
                    self.bytes -= many;
                    bytes.drain(..many);
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error),
            }
            if bytes.is_empty() {
                self.held.pop_front();
            }
        }
        if self.ended && !std::mem::replace(&mut self.told, true) {
            to.shutdown(Shutdown::Write)?;
        }
        Ok(moved)
    }
}
