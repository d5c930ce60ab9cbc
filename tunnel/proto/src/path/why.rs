//! What a carrier of packets does, and how it came to that, in words for people.
//!
//! Bounds: as many decisions as [`super::Rate`] remembers. Not here: the decisions themselves.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ringway_core::{Moment, Span};

use super::rate::Decision;

/// What the rate is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Trains, until one was spread far enough.
    Trains,
    /// More is tried.
    Up,
    /// As much less, so that what has queued drains.
    Down,
    /// What goes by is sent.
    Cruise,
    /// Less, until a queue is gone.
    Drain,
    /// A window beside somebody who fills the queue.
    Compete,
    /// As much beside somebody whom losses do not bother.
    Hold,
    /// Less, to see whether less is lost.
    Test,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::Trains => {
                "does not know yet what the path passes on: trains of packets tell, once there is \
                 enough to send"
            }
            Doing::Up => "tries a little more than went by",
            Doing::Down => "sends a little less, so that what it tried drains",
            Doing::Cruise => "sends what went by of late",
            Doing::Drain => "sends less until a queue is gone",
            Doing::Compete => "keeps a window as CUBIC does, because somebody else fills the queue",
            Doing::Hold => {
                "keeps what it has, because to give way makes losses and queue no less: somebody \
                 does not mind them, or a limit on the way drops what is beyond it"
            }
            Doing::Test => "sends less, to see whether less is lost",
        })
    }
}

/// See the module. Rates are bytes a second.
#[derive(Clone, Debug)]
pub struct Why {
    /// What the rate is doing.
    pub doing: Doing,
    /// What the path passes on, as far as is known.
    pub bandwidth: u64,
    /// What is sent at; `None` while trains are.
    pub pacing: Option<u64>,
    /// Bytes that may be on their way, and are.
    pub window: u64,
    /// See `window`.
    pub flying: u64,
    /// The path's own loss, from 0 to 1; `None` before anything is known of it.
    pub floor: Option<f64>,
    /// How often something goes the first time, and each further time that it was lost.
    pub copies: [u8; 5],
    /// How far copies of one round are apart, and for how many packets losses run, on average.
    pub apart: Span,
    /// See `apart`.
    pub burst: f64,
    /// Round trip: the shortest of late, and the smooth one.
    pub rtt: (Span, Span),
    /// Datagrams that the other end had no room for: in its host's buffer, in which those of others
    /// count, too, or behind what they would have had to wait for.
    pub dropped: u64,
    /// When the other end was heard of last; before that, when the carrier began or moved.
    pub heard_at: Moment,
    /// Since when questions are not answered, and when the next one leaves; `None` while none is
    /// open.
    pub silent: Option<(Moment, Option<Moment>)>,
    /// What was decided, oldest first.
    pub decisions: Vec<(Moment, Decision)>,
}

impl Why {
    /// Why it sends as fast as it does.
    pub fn rate(&self) -> String {
        let passes = Bits(self.bandwidth);
        match self.pacing {
            Some(pacing) => format!("{}: {}; the path passes {passes}", self.doing, Bits(pacing)),
            None => format!("{}", self.doing),
        }
    }

    /// Why so much is on its way.
    pub fn window(&self) -> String {
        let (least, smooth) = self.rtt;
        let why = match self.doing {
            Doing::Trains => return format!("{} bytes are on their way, of a train", self.flying),
            Doing::Compete => "as many as CUBIC would have there beside who fills the queue",
            Doing::Hold => "as many as path and queue hold of its part",
            Doing::Up => "what the path passes and more that is tried, with room for reports, in",
            Doing::Down | Doing::Cruise | Doing::Drain | Doing::Test => {
                "what the path passes, with room for reports, in"
            }
        };
        let shortest = if why.ends_with(" in") { " " } else { "; " };
        format!(
            "{} of {} bytes are on their way: {why}{shortest}{}, the shortest round trip; it takes \
             {} now",
            self.flying,
            self.window,
            Time(least),
            Time(smooth),
        )
    }

    /// What there is to say of the rate while nothing comes back.
    pub fn silence(&self, now: Moment) -> String {
        let (since, next) = self.silent.unwrap_or((self.heard_at, None));
        let mut words = format!("nothing has come back in {} of asking", Time(now.since(since)));
        if let Some(next) = next {
            // It may be overdue, by what a turn takes.
            let left = Span(next.0.saturating_sub(now.0));
            words += &format!("; whether it works again is asked in {}", Time(left));
        }
        words
    }

    /// And of the window.
    pub fn given_up(&self) -> String {
        format!(
            "{} bytes are on their way, of questions: what streams had there was given up and goes \
             by others, or waits for one",
            self.flying
        )
    }

    /// Why so much goes again.
    pub fn repair(&self) -> String {
        let [_, first, second, third, later] = self.copies;
        let loses = match self.floor {
            Some(floor) => {
                format!("the path loses {} by itself, for which nobody slows down", Percent(floor))
            }
            None => "what the path loses by itself is not known yet".to_owned(),
        };
        let mut words = format!(
            "{loses}; what is lost goes again {first}, {second} (the less is lost, the more), \
             {third}, then {later} times, {} apart, for losses run for {:.1} packets",
            Time(self.apart),
            self.burst,
        );
        if self.dropped > 0 {
            words += &format!(
                "; {} datagrams arrived there and were dropped, since there was no room for them",
                self.dropped
            );
        }
        words
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Decision::LongerTrain(spread, bytes) => write!(
                f,
                "what came of a train, spread over {}, is too little to tell a rate: the next one \
                 has {bytes} bytes",
                Time(spread)
            ),
            Decision::Train(rate) => write!(f, "a train says that the path passes {}", Bits(rate)),
            Decision::Faster(rate) => {
                write!(f, "more was tried and went by: {}, so still more is tried", Bits(rate))
            }
            Decision::Standing(queue, rate) => write!(
                f,
                "a queue of {} stood for a round trip, in which {} went by: less is sent until it \
                 is gone",
                Time(queue),
                Bits(rate)
            ),
            Decision::Excess(lost, floor) => write!(
                f,
                "{} were lost, the path's own loss is {}: less is sent to see whether that helps",
                Percent(lost),
                Percent(floor)
            ),
            Decision::Slower(rate) => {
                write!(f, "less was lost when less was sent: the path passes {}", Bits(rate))
            }
            Decision::Floor(floor) => {
                write!(f, "the path loses {} whatever is sent", Percent(floor))
            }
            Decision::Compete(queue) => write!(
                f,
                "a queue of {} stays though less is sent, so somebody else fills it",
                Time(queue)
            ),
            Decision::Trial(queue) => write!(
                f,
                "less is sent to see whether somebody else still fills the queue of {}",
                Time(queue)
            ),
            Decision::Alone(_) => f.write_str("the queue is gone, and so is who else filled it"),
            Decision::Yield(lost, floor) => write!(
                f,
                "{} were lost, the path's own loss is {}: the window is smaller",
                Percent(lost),
                Percent(floor)
            ),
        }
    }
}

/// Bytes a second as people say them.
struct Bits(u64);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 as f64 * 8.0;
        match bits {
            ..1e6 => write!(f, "{:.1} kbit/s", bits / 1e3),
            ..1e9 => write!(f, "{:.1} Mbit/s", bits / 1e6),
            _ => write!(f, "{:.2} Gbit/s", bits / 1e9),
        }
    }
}

struct Time(Span);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.0 as f64 / 1e3;
        match us {
            ..1e3 => write!(f, "{us:.0} us"),
            ..1e6 => write!(f, "{:.1} ms", us / 1e3),
            _ => write!(f, "{:.1} s", us / 1e6),
        }
    }
}

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::super::{Load, Sender, Word};
    use super::*;

    /// Every number that was decided by is in the words, in units that people use.
    #[test]
    fn decisions_are_told_with_their_numbers() {
        let (short, long) = (Span::from_us(800), Span::from_us(12_340));
        let rate = 12_500_000;
        for (decision, words) in [
            (Decision::LongerTrain(short, 1 << 18), ["800 us", "262144 bytes"]),
            (Decision::Train(rate), ["train", "100.0 Mbit/s"]),
            (Decision::Faster(500_000_000), ["more", "4.00 Gbit/s"]),
            (Decision::Standing(long, 10_000), ["12.3 ms", "80.0 kbit/s"]),
            (Decision::Excess(0.071, 0.05), ["7.1 %", "5.0 %"]),
            (Decision::Slower(rate), ["less", "100.0 Mbit/s"]),
            (Decision::Floor(0.2), ["path", "20.0 %"]),
            (Decision::Compete(long), ["somebody else", "12.3 ms"]),
            (Decision::Trial(long), ["whether", "12.3 ms"]),
            (Decision::Alone(long), ["queue", "gone"]),
            (Decision::Yield(0.09, 0.05), ["9.0 %", "5.0 %"]),
        ] {
            let said = decision.to_string();
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }

    /// What nothing is known of is no number.
    #[test]
    fn what_is_not_known_is_said() {
        let sender: Sender<u64> = Sender::new(Moment(0), 1228);
        let why = sender.why();
        assert!(why.rate().contains("does not know yet"), "{}", why.rate());
        assert!(why.repair().contains("is not known yet; what is lost"), "{}", why.repair());
        let known = Why { floor: Some(0.05), burst: 3.04, ..why };
        assert!(known.repair().starts_with("the path loses 5.0 % by itself"), "{}", known.repair());
        assert!(known.repair().ends_with("losses run for 3.0 packets"), "{}", known.repair());
    }

    /// A window is what it is for a reason that is its own at each time.
    #[test]
    fn windows_are_told_with_their_reasons() {
        let sender: Sender<u64> = Sender::new(Moment(0), 1228);
        let rtt = (Span::from_ms(30), Span::from_ms(42));
        let told = |doing| Why { doing, window: 90_000, rtt, ..sender.why() }.window();
        assert_eq!(told(Doing::Trains), "0 bytes are on their way, of a train");
        for (doing, reason) in [
            (Doing::Up, "passes and more that is tried, with room for reports, in 30.0 ms, the"),
            (
                Doing::Cruise,
                "what the path passes, with room for reports, in 30.0 ms, the shortest",
            ),
            (Doing::Compete, "as CUBIC would have there beside who fills the queue; 30.0 ms, the"),
            (Doing::Hold, "as many as path and queue hold of its part; 30.0 ms, the shortest"),
        ] {
            let said = told(doing);
            assert!(
                said.starts_with("0 of 90000 bytes") && said.ends_with("42.0 ms now"),
                "{said}"
            );
            assert!(said.contains(reason), "{said}");
        }
    }

    /// Where nothing comes back, what is said is for how long, and when somebody asks again.
    #[test]
    fn silence_is_told() {
        let mut sender: Sender<u64> = Sender::new(Moment(0), 1228);
        sender.send(Moment(0), 1228, Load { segment: None, word: Some(Word(0)) });
        assert!(sender.why().silent.is_none(), "nothing was asked yet");
        let mut now = Moment(0);
        while !sender.is_silent(now) {
            now = sender.wake_at(false).expect("it asks on");
            if sender.probe(now, |_| {}) {
                sender.send(now, 100, Load::default());
            }
        }
        let why = sender.why();
        let (since, next) = why.silent.expect("nothing was heard");
        let next = next.expect("it asks again");
        assert!(since < now && next > now, "{since:?} {now:?} {next:?}");
        let later = Moment(next.0 - 2_000_000);
        let words = why.silence(later);
        let silent = Time(later.since(since)).to_string();
        assert!(
            words.starts_with(&format!("nothing has come back in {silent} of asking")),
            "{words}"
        );
        assert!(words.ends_with("is asked in 2.0 ms"), "{words}");
        assert!(why.silence(next + Span::from_ms(1)).ends_with("is asked in 0 us"));
    }
}
