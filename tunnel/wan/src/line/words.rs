//! What people say of a link: `rate=200mbit rtt=300ms loss=5% burst=8 back.loss=1%`.
//!
//! A word says it of both directions; with `there.` or `back.` before it of one. Words are taken
//! in their order. What is kept is what was said, not what follows from it: a queue of two round
//! trips grows when the round trip does.
//!
//! Always holds: what a [`Link`] prints is read as the same link again.

use std::fmt;

use ringway_core::Span;
use thiserror::Error;

use super::{Line, Loss, bytes_in, default_queue_bytes};

/// What a link of two directions is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// From the first end to the second.
    pub there: Way,
    /// From the second end to the first.
    pub back: Way,
    /// The largest packet, in bytes of IP.
    pub mtu: u16,
}

/// What one direction is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// `rate`: bits a second of IP packets.
    pub bits_per_s: u64,
    /// Half of `rtt`, or `delay`.
    pub delay: Span,
    /// `queue`.
    pub queue: Queue,
    /// `loss`: packets of a million.
    pub loss_ppm: u64,
    /// `burst`: the mean length of bursts of loss, in thousandths of a full packet; 0 for losses
    /// that have nothing to do with each other.
    pub burst_milli: u64,
    /// `jitter`: how much longer the delay may be.
    pub jitter: Span,
    /// `reorder`: packets of a million that come late.
    pub reorder_ppm: u64,
    /// `reorder_by`: how late.
    pub reorder_by: Span,
    /// `down`: nothing arrives.
    pub down: bool,
}

/// How much may wait before the bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// What the rate brings in a round trip, of 20 ms at least.
    Usual,
    /// Thousandths of what the rate brings in a round trip.
    BdpMilli(u64),
    /// What the rate brings in this time.
    Time(Span),
    /// So many bytes.
    Bytes(u64),
}

/// A word that says nothing that a line could be like.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{word}`: {why}")]
pub struct WordError {
    word: String,
    why: &'static str,
}

impl Link {
    /// A link of which everything is said here; what is not said is usual: no delay, no loss, a
    /// queue of a round trip's bytes, an MTU of 1500.
    ///
    /// # Errors
    /// The first word that is wrong, or that no rate was given.
    pub fn parse(text: &str) -> Result<Link, WordError> {
        let link = Link { there: Way::NONE, back: Way::NONE, mtu: 1500 }.read(text)?;
        if link.there.bits_per_s == 0 || link.back.bits_per_s == 0 {
            return Err(wrong(text, "a link needs a rate in both directions, as rate=200mbit"));
        }
        Ok(link)
    }

    /// The same link after these words.
    ///
    /// # Errors
    /// The first word that is wrong.
    pub fn changed(self, text: &str) -> Result<Link, WordError> {
        self.read(text)
    }

    /// The round trip without jitter and queues.
    pub fn rtt(&self) -> Span {
        Span(self.there.delay.0 + self.back.delay.0)
    }

    /// Whether anything can arrive in both directions.
    pub fn carries(&self) -> bool {
        [&self.there, &self.back].iter().all(|way| !way.down && way.loss_ppm < 1_000_000)
    }

    /// What it is like from the first end to the second.
    pub fn line_there(&self) -> Line {
        self.there.line(self.rtt(), self.mtu)
    }

    /// What it is like from the second end to the first.
    pub fn line_back(&self) -> Line {
        self.back.line(self.rtt(), self.mtu)
    }

    fn read(mut self, text: &str) -> Result<Link, WordError> {
        let mut said: Vec<&str> = Vec::new();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| wrong(word, NO_WORD))?;
            if said.contains(&key) {
                return Err(wrong(word, "this was said before; say it once"));
            }
            said.push(key);
            if said.contains(&"rtt") && said.contains(&"delay") {
                return Err(wrong(word, "rtt and delay say the same; say one of them"));
            }
            let done = match key.split_once('.') {
                Some(("there", key)) => self.there.read(key, value),
                Some(("back", key)) => self.back.read(key, value),
                Some(_) => Err("only `there.` and `back.` may stand before a dot"),
                None => self.read_both(key, value),
            };
            done.map_err(|why| wrong(word, why))?;
        }
        for way in [&self.there, &self.back] {
            way.check().map_err(|why| wrong(text.trim(), why))?;
        }
        Ok(self)
    }

    fn read_both(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "rtt" => {
                let rtt = read_time(value)?;
                self.there.delay = Span(rtt.0 / 2);
                self.back.delay = Span(rtt.0 - rtt.0 / 2);
            }
            "mtu" => {
                const WANTED: &str = "give bytes, from 576 to 9000";
                let mtu = value.parse().map_err(|_| WANTED)?;
                self.mtu = Some(mtu).filter(|mtu| MTUS.contains(mtu)).ok_or(WANTED)?;
            }
            _ => {
                self.there.read(key, value)?;
                self.back.read(key, value)?;
            }
        }
        Ok(())
    }
}

impl Way {
    const NONE: Way = Way {
        bits_per_s: 0,
        delay: Span::ZERO,
        queue: Queue::Usual,
        loss_ppm: 0,
        burst_milli: 0,
        jitter: Span::ZERO,
        reorder_ppm: 0,
        reorder_by: Span::from_ms(5),
        down: false,
    };

    fn line(&self, rtt: Span, mtu: u16) -> Line {
        let queue_bytes = match self.queue {
            Queue::Usual => default_queue_bytes(self.bits_per_s, rtt),
            Queue::BdpMilli(milli) => {
                let bdp = u128::from(bytes_in(self.bits_per_s, rtt));
                (bdp * u128::from(milli) / 1_000) as u64
            }
            Queue::Time(time) => bytes_in(self.bits_per_s, time),
            Queue::Bytes(bytes) => bytes,
        };
        let loss = match self.burst_milli {
            0 => Loss::Alone { ppm: self.loss_ppm },
            mean_milli => {
                Loss::Bursts { ppm: self.loss_ppm, mean_milli, slot_bytes: u64::from(mtu) }
            }
        };
        let reorder_by = if self.reorder_ppm == 0 { Span::ZERO } else { self.reorder_by };
        Line {
            bits_per_s: self.bits_per_s,
            queue_bytes,
            loss,
            delay: self.delay,
            jitter: self.jitter,
            reorder_ppm: self.reorder_ppm,
            reorder_by,
            down: self.down,
        }
    }

    fn read(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "rate" => self.bits_per_s = rate(value)?,
            "delay" => self.delay = read_time(value)?,
            "queue" => self.queue = queue(value)?,
            "loss" => self.loss_ppm = share(value)?,
            "burst" => {
                let packets = scaled(value, &[("", 1_000)]).filter(|milli| *milli <= 1_000_000_000);
                self.burst_milli = packets.ok_or("give packets, as 8 or 2.5; 0 for no bursts")?;
            }
            "jitter" => self.jitter = read_time(value)?,
            "reorder" => self.reorder_ppm = share(value)?,
            "reorder_by" => self.reorder_by = read_time(value)?,
            "down" => self.down = flag(value)?,
            "rtt" | "mtu" => return Err("this is of both directions, without `there.` or `back.`"),
            _ => return Err(NO_WORD),
        }
        Ok(())
    }

    /// What no single word says.
    fn check(&self) -> Result<(), &'static str> {
        if self.burst_milli == 0 {
            return Ok(());
        }
        if self.burst_milli < 1_000 {
            return Err("a burst has one packet at least; burst=0 is loss without bursts");
        }
        // A burst is left after `burst` slots, so what lies between two has one slot at least.
        let others = 1_000_000 - self.loss_ppm;
        if others > 0 && self.burst_milli * others < 1_000 * self.loss_ppm {
            return Err("bursts that short cannot take so much: burst must be at least \
                        loss / (1 - loss)");
        }
        Ok(())
    }
}

const MTUS: std::ops::RangeInclusive<u16> = 576..=9000;
const NO_WORD: &str = "a line is told rate=200mbit, rtt=40ms or delay=20ms, loss=5%, burst=8, \
                       jitter=10ms, reorder=1%, reorder_by=5ms, queue=2bdp, down=1 or mtu=1500; \
                       `there.` or `back.` before one says it of one direction";

fn wrong(word: &str, why: &'static str) -> WordError {
    WordError { word: word.to_owned(), why }
}

fn rate(value: &str) -> Result<u64, &'static str> {
    let units = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];
    let rate = scaled(value, &units).filter(|rate| RATES.contains(rate));
    rate.ok_or("give bits a second with a unit, from 1kbit to 1000gbit, as 200mbit or 12.5gbit")
}

/// Reads a time with its unit, up to a minute: `40ms`, `0.5s`.
///
/// # Errors
/// What to give instead.
pub fn read_time(value: &str) -> Result<Span, &'static str> {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    span(value, &units, TIME_MAX).ok_or("give a time with its unit, up to 60s, as 40ms or 500us")
}

/// Reads how long something takes, with its unit, up to a day: `90s`, `10m`.
///
/// # Errors
/// What to give instead.
pub fn read_length(value: &str) -> Result<Span, &'static str> {
    span(value, &LENGTHS, LENGTH_MAX).ok_or("give a time with its unit, up to 24h, as 90s or 10m")
}

fn span(value: &str, units: &[(&str, u64)], most: Span) -> Option<Span> {
    let zero = (value == "0").then_some(0);
    zero.or_else(|| scaled(value, units)).map(Span).filter(|span| *span <= most)
}

fn share(value: &str) -> Result<u64, &'static str> {
    let ppm = scaled(value, &[("ppm", 1), ("%", 10_000), ("", 10_000)]);
    ppm.filter(|ppm| *ppm <= 1_000_000).ok_or("give percent from 0 to 100, as 5% or 0.1%, or ppm")
}

fn queue(value: &str) -> Result<Queue, &'static str> {
    let bytes = [("mib", 1 << 20), ("kib", 1 << 10), ("mb", 1_000_000), ("kb", 1_000), ("b", 1)];
    if value == "usual" {
        return Ok(Queue::Usual);
    }
    let bdp = scaled(value, &[("bdp", 1_000)]).filter(|milli| *milli <= 1_000_000);
    let bdp = bdp.map(Queue::BdpMilli);
    let time = || read_time(value).ok().map(Queue::Time);
    let bytes = || scaled(value, &bytes).filter(|bytes| *bytes <= QUEUE_MAX).map(Queue::Bytes);
    bdp.or_else(time).or_else(bytes).ok_or(
        "give round trips, a time or bytes, as 2bdp, 50ms or 64kib; usual is 1bdp, 20ms at least",
    )
}

fn flag(value: &str) -> Result<bool, &'static str> {
    match value {
        "1" | "yes" | "on" => Ok(true),
        "0" | "no" | "off" => Ok(false),
        _ => Err("give 1 or 0"),
    }
}

/// `12.5gbit` with `("gbit", 1_000_000_000)`: a decimal number times its unit, exactly. The first
/// unit that fits is taken, so longer ones stand before shorter ones.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(*scale)?;
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let parts = fraction.parse::<u64>().ok()?.checked_mul(*scale)?;
    let base = 10_u64.pow(fraction.len() as u32);
    // What is finer than the unit's last digit was not meant.
    parts.is_multiple_of(base).then(|| whole.checked_add(parts / base))?
}

/// The words that make this link of none.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (there, back) = (self.there.words(), self.back.words());
        for (one, other) in there.iter().zip(&back) {
            if one == other {
                write!(f, "{one} ")?;
            } else {
                write!(f, "there.{one} back.{other} ")?;
            }
        }
        write!(f, "mtu={}", self.mtu)
    }
}

impl Way {
    /// All that is said of it, what is usual included, in one order.
    fn words(&self) -> [String; 9] {
        let queue = match self.queue {
            Queue::Usual => "usual".to_owned(),
            Queue::BdpMilli(milli) => said(milli, &[("bdp", 1_000)]),
            Queue::Time(time) => said_time(time),
            Queue::Bytes(bytes) => format!("{bytes}b"),
        };
        let rates = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];
        [
            format!("rate={}", said(self.bits_per_s, &rates)),
            format!("delay={}", said_time(self.delay)),
            format!("queue={queue}"),
            format!("loss={}", said(self.loss_ppm, &[("%", 10_000)])),
            format!("burst={}", said(self.burst_milli, &[("", 1_000)])),
            format!("jitter={}", said_time(self.jitter)),
            format!("reorder={}", said(self.reorder_ppm, &[("%", 10_000)])),
            format!("reorder_by={}", said_time(self.reorder_by)),
            format!("down={}", u8::from(self.down)),
        ]
    }
}

fn said_time(time: Span) -> String {
    said(time.0, &[("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)])
}

/// A number in the largest unit of which it has one, or the smallest there is.
fn said(number: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, scale)| number >= *scale);
    let (unit, scale) = fitting.or(units.last()).expect("there is a unit");
    let (whole, rest) = (number / scale, number % scale);
    let digits = scale.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    let fraction = fraction.trim_end_matches('0');
    if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}.{fraction}{unit}") }
}

const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
const TIME_MAX: Span = Span::from_s(60);
const LENGTHS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const LENGTH_MAX: Span = Span::from_s(24 * 3600);
const QUEUE_MAX: u64 = 1 << 34;

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> Link {
        Link::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Everything that can be said, once for both directions, once for one.
    #[test]
    fn a_link_is_what_was_said() {
        let link = link(
            "rate=200mbit rtt=300ms loss=5% burst=8 jitter=10ms reorder=1% queue=2bdp mtu=9000 \
             back.rate=12.5gbit back.loss=0.1 back.down=1 there.delay=1.5ms back.queue=64kib \
             back.burst=0",
        );
        let there = link.line_there();
        assert_eq!(there.bits_per_s, 200_000_000);
        assert_eq!(there.delay, Span::from_us(1_500));
        assert_eq!(there.queue_bytes, 2 * 200_000_000 / 8 * 1_515 / 10_000);
        let bursts = Loss::Bursts { ppm: 50_000, mean_milli: 8_000, slot_bytes: 9_000 };
        assert_eq!(there.loss, bursts);
        assert_eq!((there.jitter, there.reorder_ppm), (Span::from_ms(10), 10_000));
        assert!(!there.down);
        let back = link.line_back();
        assert_eq!(back.bits_per_s, 12_500_000_000);
        assert_eq!((back.delay, back.queue_bytes), (Span::from_ms(150), 65_536));
        assert_eq!(back.loss, Loss::Alone { ppm: 1_000 });
        assert!(back.down);
    }

    /// A queue of which nothing is said follows the round trip, and is never below 20 ms.
    #[test]
    fn the_usual_queue_follows_the_round_trip() {
        let near = link("rate=8mbit rtt=1ms");
        assert_eq!(near.line_there().queue_bytes, 20_000);
        let far = near.changed("rtt=300ms").unwrap();
        assert_eq!(far.line_there().queue_bytes, 300_000);
        assert_eq!(far.line_back(), Line::of(8_000_000, Span::from_ms(300)));
        assert_eq!(far.changed("queue=5ms").unwrap().line_back().queue_bytes, 5_000);
        let set = far.changed("loss=5 down=1").unwrap();
        assert_eq!((set.there.loss_ppm, set.back.down), (50_000, true));
        assert_eq!(set.rtt(), Span::from_ms(300));
    }

    #[test]
    fn links_that_carry_nothing_are_known() {
        for words in ["down=1", "back.down=1", "loss=100%", "there.loss=100%", "back.loss=100%"] {
            assert!(!link(&format!("rate=1mbit {words}")).carries(), "{words}");
        }
        assert!(link("rate=1mbit loss=99.9999%").carries());
    }

    /// What takes long is said in larger units than what a packet takes.
    #[test]
    fn lengths_are_longer_than_delays() {
        let of = |text: &str| read_length(text).ok();
        assert_eq!(of("90s"), Some(Span::from_s(90)));
        assert_eq!([of("1.5m"), of("24h")], [Some(Span::from_s(90)), Some(Span::from_s(86_400))]);
        assert_eq!(of("500ms"), Some(Span::from_ms(500)));
        assert_eq!([of("0"), of("10us")], [Some(Span::ZERO), Some(Span::from_us(10))]);
        for wrong in ["90", "25h", "1500m", "99999999999999999999h", "ten", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    /// What is printed is read as the same again.
    #[test]
    fn what_is_printed_is_read_again() {
        for text in [
            "rate=200mbit",
            "rate=12.5gbit rtt=0.3ms loss=0.05% burst=2.5 reorder=7ppm reorder_by=1001ns down=on",
            "rate=1001kbit there.rate=1kbit rtt=1ns queue=0.5bdp back.queue=7b mtu=576",
            "rate=1gbit queue=50ms loss=100% there.loss=99.9999%",
        ] {
            let link = link(text);
            assert_eq!(Link::parse(&link.to_string()), Ok(link), "{link}");
        }
        let shown = link("rate=200mbit rtt=40ms back.loss=5%").to_string();
        assert!(
            shown.starts_with("rate=200mbit delay=20ms queue=usual there.loss=0% back.loss=5%")
        );
    }

    /// Every mistake names the word and what would be right.
    #[test]
    fn mistakes_are_explained() {
        for (text, words) in [
            ("", "needs a rate"),
            ("rtt=40ms", "needs a rate"),
            ("there.rate=1mbit", "both directions"),
            ("rate=200", "with a unit"),
            ("rate=0mbit", "1kbit"),
            ("rate=200mbit rtt=40", "with its unit"),
            ("rate=1mbit rtt=61s", "up to 60s"),
            ("rate=1mbit loss=101%", "0 to 100"),
            ("rate=1mbit loss=-1%", "0 to 100"),
            ("rate=1mbit loss=0.00001%", "percent"),
            ("rate=1mbit loss=5% loss=6%", "once"),
            ("rate=1mbit rtt=40ms delay=5ms", "say one of them"),
            ("rate=1mbit delay=5ms rtt=40ms", "say one of them"),
            ("rate=1mbit burst=0.5", "one packet at least"),
            ("rate=1mbit loss=80% burst=3", "cannot take so much"),
            ("rate=1mbit queue=much", "2bdp"),
            ("rate=1mbit mtu=100", "576"),
            ("rate=1mbit down=2", "1 or 0"),
            ("rate=1mbit there.rtt=1ms", "both directions"),
            ("rate=1mbit up.loss=1%", "`there.` and `back.`"),
            ("rate=1mbit speed=1", "a line is told"),
            ("fast", "a line is told"),
            ("rate=99999999999999999999gbit", "1000gbit"),
            ("rate=.5mbit", "unit"),
            ("rate=1.mbit", "unit"),
        ] {
            let error = Link::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(Link::parse("rate=1mbit loss=80% burst=4").is_ok());
        assert!(Link::parse("rate=1mbit loss=100% burst=4").is_ok());
    }

    proptest::proptest! {
        /// No words of anybody end the program.
        #[test]
        fn any_words_are_answered(text in "([a-z_.]{0,10}=?[0-9.]{0,22}[a-z%]{0,4} ?){0,4}") {
            let _ = Link::parse(&text);
            let _ = Link::parse("rate=1mbit").unwrap().changed(&text);
        }
    }
}
