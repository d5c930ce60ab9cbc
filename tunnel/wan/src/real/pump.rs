//! The thread of a link: it takes packets from the device at one end and gives them to the device
//! at the other when their line says so.
//!
//! One thread for both directions, which sleeps until a packet comes, one is due, or somebody asks.
//! It goes before all others where it may, because a line that waits for a processor would measure
//! the scheduler; what came out late all the same is counted, and a run with much of that has
//! measured the machine.
//!
//! Bounds: [`HELD_BYTES_MAX`] on the way in each direction, what a packet costs us beside its bytes
//! included; what is beyond is dropped and counted.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_core::{Moment, Span};
use ringway_ring::{Bell, Tun, host};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use serde::{Deserialize, Serialize};

use crate::line::{Counts, Direction, Link};

/// What a direction may hold.
pub const HELD_BYTES_MAX: u64 = 1 << 30;
/// What a packet costs beside its bytes: its place in a queue, and the allocator's.
const PACKET_COST: u64 = 64;
/// The longest that a device has; ours have 9000.
const PACKET_BYTES_MAX: usize = 65_536;
/// Packets that are taken before those that are due are looked at again.
const BATCH: usize = 64;
/// What was due this long ago has come late.
const LATE: Span = Span::from_ms(1);
/// While packets flow, we look at them once in this time, not once for each: to sleep and to wake
/// costs more than to carry a packet. So a packet is up to this late when it is taken and when it
/// is given, unless we spin; then this is how long before its time we begin to.
const TICK: Span = Span::from_us(50);
const SLEEP_MAX: Span = Span::from_s(1);
/// What is asked of the thread and not answered yet; who asks more is told that it does not answer.
const ASKS_MAX: usize = 8;
/// Longer than a thread that lives takes to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What went otherwise than the line wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The device at the other end did not take a packet.
    pub refused: u64,
    /// Packets for which there was no memory left.
    pub no_memory: u64,
    /// Packets that came out more than 1 ms after their time.
    pub late_1ms: u64,
    /// How much later the latest came.
    pub late_us_max: u64,
}

/// What a link is and has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) link: Link,
    /// There, and back.
    pub(super) ways: [(Counts, Trouble); 2],
    pub(super) waiting_bytes: [u64; 2],
}

enum Ask {
    Set(Link),
    Report(SyncSender<Report>),
    Stop,
}

/// A link's thread, from outside.
pub(super) struct Pump {
    asks: SyncSender<Ask>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Pump {
    pub(super) fn start(
        number: usize,
        (link, seeds): (Link, [u64; 2]),
        tuns: [Tun; 2],
        spin: bool,
    ) -> io::Result<Pump> {
        let (asks, asked) = sync_channel(ASKS_MAX);
        let bell = Arc::new(Bell::new()?);
        let begun = host::now();
        let lines = [link.line_there(), link.line_back()];
        let [there, back] = [0, 1].map(|at| Carried {
            line: Direction::new(lines[at], seeds[at]),
            trouble: Trouble::default(),
        });
        let mut at_work = AtWork {
            tuns,
            ways: [there, back],
            link,
            begun,
            asked,
            bell: Arc::clone(&bell),
            spin,
            buffer: vec![0; PACKET_BYTES_MAX],
        };
        let thread = std::thread::Builder::new().name(format!("ringway-wan{number}"));
        let thread = Some(thread.spawn(move || at_work.run())?);
        Ok(Pump { asks, bell, thread })
    }

    pub(super) fn set(&self, link: Link) -> io::Result<()> {
        self.tell(Ask::Set(link))
    }

    pub(super) fn report(&self) -> io::Result<Report> {
        let (answer, answered) = sync_channel(1);
        self.tell(Ask::Report(answer))?;
        answered.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
            RecvTimeoutError::Disconnected => gone(),
        })
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn tell(&self, ask: Ask) -> io::Result<()> {
        self.asks.try_send(ask).map_err(|error| match error {
            TrySendError::Full(_) => io::ErrorKind::TimedOut.into(),
            TrySendError::Disconnected(_) => gone(),
        })?;
        self.bell.ring();
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("its device was removed by somebody else")
}

impl Drop for Pump {
    fn drop(&mut self) {
        // One that has ended by itself need not be told.
        let _ = self.asks.send(Ask::Stop);
        self.bell.ring();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread itself.
struct AtWork {
    /// The first end and the second.
    tuns: [Tun; 2],
    /// There and back: the first reads at the first end.
    ways: [Carried; 2],
    link: Link,
    begun: Moment,
    asked: Receiver<Ask>,
    bell: Arc<Bell>,
    spin: bool,
    buffer: Vec<u8>,
}

/// One direction and what was not its doing.
struct Carried {
    line: Direction<Box<[u8]>>,
    trouble: Trouble,
}

impl AtWork {
    fn run(&mut self) -> io::Result<()> {
        // Either makes us less late than we would be; without them, counters say how late.
        let _ = host::run_first();
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut readable = [true; 2];
        loop {
            let mut carried = 0;
            for (at, way) in self.ways.iter_mut().enumerate() {
                if readable[at] {
                    carried += way.take(&self.tuns[at], self.begun, &mut self.buffer)?;
                }
                carried += way.give(&self.tuns[1 - at], self.begun);
            }
            if self.bell.hush() && self.told_to_stop() {
                return Ok(());
            }
            readable = match carried {
                0 => self.wait()?,
                // Who spins looks again at once, and so does who has not taken all there was.
                1..BATCH if !self.spin => self.tick()?,
                _ => [true; 2],
            };
        }
    }

    /// Until there is something to do; at which end there is something to read.
    fn wait(&self) -> io::Result<[bool; 2]> {
        let due = self.ways.iter().filter_map(|way| way.line.wake_at()).min();
        let rest = due.map_or(SLEEP_MAX, |due| due.since(now(self.begun)));
        let rest = if self.spin { Span(rest.0.saturating_sub(TICK.0)) } else { rest };
        let [first, second] = &self.tuns;
        let mut fds = [
            PollFd::new(first, PollFlags::IN),
            PollFd::new(second, PollFlags::IN),
            PollFd::new(&*self.bell, PollFlags::IN),
        ];
        await_any(&mut fds, rest)?;
        // A device that is in error says more when it is read.
        Ok([0, 1].map(|at| !fds[at].revents().is_empty()))
    }

    /// Lets a few packets come together; both ends may have some then.
    fn tick(&self) -> io::Result<[bool; 2]> {
        await_any(&mut [PollFd::new(&*self.bell, PollFlags::IN)], TICK)?;
        Ok([true; 2])
    }

    /// Does what was asked; true if that is to stop.
    fn told_to_stop(&mut self) -> bool {
        while let Ok(ask) = self.asked.try_recv() {
            let now = now(self.begun);
            match ask {
                Ask::Stop => return true,
                Ask::Set(link) => {
                    self.link = link;
                    self.ways[0].line.set(now, link.line_there());
                    self.ways[1].line.set(now, link.line_back());
                }
                Ask::Report(answer) => {
                    let waiting_bytes = [0, 1].map(|at| self.ways[at].line.waiting_bytes(now));
                    let ways =
                        [0, 1].map(|at| (self.ways[at].line.counts(), self.ways[at].trouble));
                    // Who has lost patience needs no answer.
                    let _ = answer.try_send(Report { link: self.link, ways, waiting_bytes });
                }
            }
        }
        false
    }
}

impl Carried {
    /// Takes what there is; how many packets.
    fn take(&mut self, from: &Tun, begun: Moment, buffer: &mut [u8]) -> io::Result<usize> {
        for taken in 0..BATCH {
            let bytes = match read(from, &mut *buffer) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(taken),
                Err(error) => return Err(error.into()),
            };
            let held = self.line.on_the_way_bytes() + PACKET_COST * self.line.on_the_way() as u64;
            if held + bytes as u64 + PACKET_COST > HELD_BYTES_MAX {
                self.trouble.no_memory += 1;
                continue;
            }
            // What has no room in the queue is counted by the line.
            let _ = self.line.offer(now(begun), bytes as u64, buffer[..bytes].into());
        }
        Ok(BATCH)
    }

    /// Gives what is due; how many packets.
    fn give(&mut self, to: &Tun, begun: Moment) -> usize {
        let mut given = 0;
        // The packets that are due now, and not those that become due meanwhile, or the other
        // direction would wait for a line that is always full.
        let now = now(begun);
        while let Some(arrival) = self.line.take(now) {
            let late = now.since(arrival.at);
            self.trouble.late_1ms += u64::from(late > LATE);
            self.trouble.late_us_max = self.trouble.late_us_max.max(late.0 / 1_000);
            if write(to, &arrival.packet) != Ok(arrival.packet.len()) {
                self.trouble.refused += 1;
            }
            given += 1;
        }
        given
    }
}

/// Until one of these can be read, but not longer than this.
fn await_any(fds: &mut [PollFd<'_>], rest: Span) -> io::Result<()> {
    let rest = rest.0.min(SLEEP_MAX.0 - 1);
    match poll(fds, Some(&Timespec { tv_sec: 0, tv_nsec: rest as i64 })) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Since the link began: lines count from there, and live for a limited time.
fn now(begun: Moment) -> Moment {
    Moment(host::now().since(begun).0)
}
