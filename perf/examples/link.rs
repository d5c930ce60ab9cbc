//! Question: what does a bad line do to a tunnel? This is the line: it carries IP packets between
//! two TUN devices, its standard input and output, in both directions as `emulator.rs` says.
//!
//! `link RATE_MBIT RTT_MS [LOSS_PPM]`, started by `perf/link.py`, which makes the devices: opening
//! them takes an ioctl, and inherited descriptors need no unsafe code. The queue of each direction
//! takes the bytes of a round trip, of 20 ms at least. Every second a line of JSON on standard
//! error says what it has counted so far. It ends when it is killed, or with a device.
//!
//! A packet that is `late` came out after it was due, because the emulator did not get a core: a
//! run with much of that has measured the machine.

use std::collections::VecDeque;
use std::io::{self, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use ringway_core::{Moment, Span};
use ringway_perf::emulator::{Emulator, Fate, Line};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};

/// No device here has a larger MTU.
const PACKET_BYTES_MAX: usize = 65_536;
/// Packets that are taken before those that are due are looked at again.
const BATCH: usize = 64;
const SECOND: Span = Span::from_s(1);

/// One direction: what it has taken and not given yet, and what became of the rest.
struct Direction<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    emulator: Emulator,
    travelling: VecDeque<(Moment, Vec<u8>)>,
    count: Count,
}

#[derive(Default, serde::Serialize)]
struct Count {
    packets: u64,
    bytes: u64,
    overflowed: u64,
    lost: u64,
    /// The device at the other end did not take it: a loss of our own.
    refused: u64,
    late_1ms: u64,
    late_us_max: u64,
}

impl Direction<'_> {
    fn take(&mut self, clock: &Instant, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let bytes = match read(self.from, &mut *buffer) {
                Err(Errno::AGAIN) => return Ok(()),
                read => read?,
            };
            match self.emulator.offer(now(clock), bytes as u64) {
                Fate::Arrives(due) => self.travelling.push_back((due, buffer[..bytes].to_vec())),
                Fate::Overflowed => self.count.overflowed += 1,
                Fate::Lost => self.count.lost += 1,
            }
        }
        Ok(())
    }

    fn give(&mut self, now: Moment) {
        while let Some((due, packet)) = self.travelling.pop_front_if(|(due, _)| *due <= now) {
            let late = now.since(due);
            self.count.late_1ms += u64::from(late > Span::from_ms(1));
            self.count.late_us_max = self.count.late_us_max.max(late.0 / 1_000);
            match write(self.to, &packet) {
                Ok(_) => {
                    self.count.packets += 1;
                    self.count.bytes += packet.len() as u64;
                }
                Err(_) => self.count.refused += 1,
            }
        }
    }
}

fn now(clock: &Instant) -> Moment {
    Moment(clock.elapsed().as_nanos() as u64)
}

fn line() -> Result<Line, Box<dyn std::error::Error>> {
    let args: Vec<u64> =
        std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let (&[rate_mbit, rtt_ms] | &[rate_mbit, rtt_ms, _]) = args.as_slice() else {
        return Err("link RATE_MBIT RTT_MS [LOSS_PPM], two TUN devices as input and output".into());
    };
    let bits_per_s = rate_mbit * 1_000_000;
    Ok(Line {
        bits_per_s,
        queue_bytes: bits_per_s / 8 * rtt_ms.max(20) / 1_000,
        loss_ppm: args.get(2).copied().unwrap_or(0),
        delay: Span(Span::from_ms(rtt_ms).0 / 2),
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let line = line()?;
    let (near, far) = (stdin(), stdout());
    let (near, far) = (near.as_fd(), far.as_fd());
    let mut directions = [(near, far, 1), (far, near, 2)].map(|(from, to, seed)| Direction {
        from,
        to,
        emulator: Emulator::new(line, seed),
        travelling: VecDeque::new(),
        count: Count::default(),
    });
    ioctl_fionbio(near, true)?;
    ioctl_fionbio(far, true)?;
    let clock = Instant::now();
    let mut report_at = Moment(0) + SECOND;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        for direction in &mut directions {
            direction.take(&clock, &mut buffer)?;
            direction.give(now(&clock));
        }
        let now = now(&clock);
        if now >= report_at {
            let [up, down] = &directions;
            let said = serde_json::json!({ "up": up.count, "down": down.count });
            eprintln!("{said}");
            report_at = report_at + SECOND;
        }
        let due = directions.iter().filter_map(|direction| direction.travelling.front());
        let wake = due.map(|(due, _)| *due).fold(report_at, Moment::min).since(now);
        let wake = Timespec { tv_sec: 0, tv_nsec: wake.0.min(SECOND.0 - 1) as i64 };
        let mut ready = [PollFd::new(&near, PollFlags::IN), PollFd::new(&far, PollFlags::IN)];
        match poll(&mut ready, Some(&wake)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}
