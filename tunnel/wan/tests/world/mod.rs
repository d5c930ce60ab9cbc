//! One connection over a line with every fault, until the line works again; and what must hold.

mod belief;
mod street;

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::path::Doing;
use ringway_tunnel_proto::sabotage::Rule;
use ringway_wan::Link;
use ringway_wan::sim::{Cell, ENVELOPE, World};

/// What a failure begins with that no chance excuses.
pub(crate) const BROKEN: &str = "broken: ";

/// What happens in a world, all of it by its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    /// A rule that is switched off.
    pub(crate) broken: Option<Rule>,
}

/// What kind of world it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every fault there is; judged by what arrives.
    Storm,
    /// The same beside others; judged by what arrives.
    #[allow(dead_code, reason = "no rule is switched off in it")]
    Beset,
    /// Loss both ways by itself, at its rate all the time; judged by what it takes as well.
    Steady,
    /// The same in bursts, shorter than copies are apart; judged by how long they hold up others.
    Bursts,
    /// Most of what goes back is lost: judged by how long it takes to hear of a packet.
    Unheard,
    /// Packets come late, and hardly any is lost: judged by what is sent in vain.
    Late,
    /// Nothing at all comes back for some seconds.
    Silent,
    /// Much is lost, and nobody else is there: judged by what arrives of what could.
    Lossy,
    /// At first there is less to send than the line passes, and more each round trip: judged by how
    /// soon it is filled once there is enough.
    Growing,
    /// One packet at a time is written, and some are lost: judged by how long each takes.
    Sparse,
    /// The line becomes slower: judged by the queue that stays.
    Narrower,
    /// The line becomes faster: judged by what arrives of what could.
    Wider,
    /// Beside CUBIC: judged by what both get.
    Crowded,
    /// Beside another one of ours: judged by shares and queue.
    #[allow(dead_code, reason = "no rule is switched off in it")]
    Equal,
    /// Delay varies by itself: judged by what arrives of what could.
    Trembling,
    /// Delay varies by as much as the round trip: judged by what arrives at first of what could.
    Shaken,
    /// Beside BBR, for minutes, with a short buffer: judged by what is left to either.
    #[allow(dead_code, reason = "no rule is switched off in it")]
    Patient,
    /// Beside CUBIC, which leaves: judged by the queue that stays.
    Left,
    /// Beside BBR: judged by what both get.
    Pressed,
    /// Beside CUBIC and a deep buffer, for long: judged by what we get.
    Deep,
    /// Beside BBR, on a line that loses some by itself: judged by what both get.
    Harmed,
    /// The queue is short, and the line becomes slower: judged by what overflows.
    Short,
    /// At some time the line begins to lose more: judged by what arrives of what still could.
    Worse,
    /// Losses come in long bursts: judged by what arrives of what could.
    Uneven,
    /// Packets are gathered and let go on their way: judged by how it begins.
    Gathered,
    /// Delay varies by as much as a round trip: judged by how long trains are.
    Varied,
    /// Nearly everything is lost for some time: judged by whether it is used again.
    Choked,
    /// The way back is a hundredth of the way there: judged by what goes back.
    Quiet,
    /// The receiver's host drops some: judged by what is believed of the line.
    Dropping,
    /// A slow line loses much at once: judged by how it begins.
    Begun,
    /// Of what goes back some is lost: judged by how long first trains of many lines take.
    Heard,
    /// Packets go by another path: judged by what is made of that.
    Moved,
    /// Packets come in pairs: judged by what counts as a round trip.
    Paired,
    /// Much is lost twice: judged by how long it holds up others.
    Thrice,
    /// A line with a short queue loses some by itself: judged by what is believed of it.
    Shallow,
    /// The line is cut off soon after it began: judged by what is made of that.
    Interrupted,
    /// Packets go by a longer way soon after the first, and nobody is told: judged by what many
    /// such lines bring.
    Rerouted,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) read: u64,
    pub(crate) sent: u64,
    pub(crate) overflowed: u64,
    pub(crate) lost: u64,
    pub(crate) cut: u64,
}

const SECOND: u64 = 1_000_000_000;
/// A line that works brings something within so long.
const PAUSE_MAX: Span = Span::from_s(30);
/// Packets that a kept segment may be of, beside those within the memory.
const SPARE_SEGMENTS: u64 = 4096;

struct Story {
    link: Link,
    world: World,
    written: u64,
    memory: u64,
}

impl Plan {
    /// Runs it.
    ///
    /// # Errors
    /// What does not hold.
    pub(crate) fn run(self) -> Result<Sum, String> {
        let mut rng = Rng::new(self.seed ^ 0x51_3C_11);
        match self.kind {
            Kind::Storm => self.storm(&mut rng),
            Kind::Beset => self.beset(&mut rng),
            Kind::Steady => self.steady(&mut rng),
            Kind::Bursts => self.bursts(&mut rng),
            Kind::Unheard => self.unheard(&mut rng),
            Kind::Late => self.late(&mut rng),
            Kind::Silent => self.silent(&mut rng),
            Kind::Lossy => self.lossy(&mut rng),
            Kind::Growing => self.growing(&mut rng),
            Kind::Sparse => self.sparse(&mut rng),
            Kind::Narrower => self.narrower(&mut rng),
            Kind::Wider => self.wider(&mut rng),
            Kind::Crowded => self.crowded(&mut rng),
            Kind::Equal => self.equal(&mut rng),
            Kind::Trembling => self.trembling(&mut rng),
            Kind::Shaken => self.shaken(&mut rng),
            Kind::Patient => self.patient(&mut rng),
            Kind::Left => self.left(&mut rng),
            Kind::Pressed => self.pressed(&mut rng),
            Kind::Deep => self.deep(&mut rng),
            Kind::Harmed => self.harmed(&mut rng),
            Kind::Short => self.short(&mut rng),
            Kind::Worse => self.worse(&mut rng),
            Kind::Uneven => self.uneven(&mut rng),
            Kind::Gathered => self.gathered(&mut rng),
            Kind::Varied => self.varied(&mut rng),
            Kind::Choked => self.choked(&mut rng),
            Kind::Quiet => self.quiet(&mut rng),
            Kind::Dropping => self.dropping(&mut rng),
            Kind::Begun => self.begun(&mut rng),
            Kind::Heard => self.heard(&mut rng),
            Kind::Moved => self.moved(&mut rng),
            Kind::Paired => self.paired(&mut rng),
            Kind::Shallow => self.shallow(&mut rng),
            Kind::Thrice => self.thrice(&mut rng),
            Kind::Interrupted => self.interrupted(&mut rng),
            Kind::Rerouted => self.rerouted(&mut rng),
        }
    }

    fn begin(self, words: &str, memory: u64, written: u64) -> Story {
        let link = Link::parse(words).unwrap_or_else(|why| panic!("{why}"));
        let (there, back) = (link.line_there(), link.line_back());
        let (warm_up, time) = (Span::from_s(1), Span::from_s(1));
        let mtu = u64::from(link.mtu);
        let cell = Cell { there, back, mtu, memory, warm_up, time, seed: self.seed };
        let mut world = World::new(cell);
        #[cfg(feature = "sabotage")]
        if let Some(rule) = self.broken {
            world.break_rule(rule);
        }
        #[cfg(not(feature = "sabotage"))]
        assert!(self.broken.is_none(), "a product has nothing to switch off");
        world.write_only(written);
        Story { link, world, written, memory }
    }

    /// Faults come and go for some seconds; then the line works, and everything arrives.
    fn storm(self, rng: &mut Rng) -> Result<Sum, String> {
        let mbit = 20 + rng.below(81);
        let rtt = [2, 5, 10, 30, 60, 100, 200, 300][rng.below(8) as usize];
        let mtu = [1280, 1500, 4000, 9000][rng.below(4) as usize];
        let mut words = format!("rate={mbit}mbit rtt={rtt}ms mtu={mtu}");
        faults(rng, rtt, &mut words);
        let seconds = 1 + rng.below(4);
        let memory = (mbit * 125_000 * rtt / 1000 * (1 + rng.below(8))).max(40 * mtu);
        let written = mbit * 125_000 * seconds * (1 + rng.below(10)) / 12;
        let mut story = self.begin(&words, memory, written);
        story.world.prove([0, 10_000, 50_000][rng.below(3) as usize]);
        let mut down_until = None;
        for tenth in 1..=seconds * 10 {
            story.until(Moment(tenth * SECOND / 10 + rng.below(SECOND / 20)))?;
            let Some(change) = trouble(rng, (tenth, rtt), &mut down_until) else { continue };
            story.change(&change);
        }
        story.change(CALM);
        story.finish()
    }

    /// Loses a part of what it sends both ways, at its rate all the time: little is sent in vain,
    /// and few round trips' bytes wait for what is lost again and again.
    fn steady(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (60 + rng.below(41), [20, 40, 60][rng.below(3) as usize]);
        let (loss, back) = ([5, 10, 20][rng.below(3) as usize], rng.below(41));
        let words =
            format!("rate={mbit}mbit rtt={rtt}ms there.loss={loss}% back.loss={back}% queue=4bdp");
        let (bdp, part) = (mbit * 125 * rtt, 1.0 - loss as f64 / 100.0);
        let mut story = self.begin(&words, 40 * bdp, mbit * 125_000 * 4);
        story.world.prove(0);
        story.until(Moment(SECOND))?;
        story.world.forget_kept();
        story.until(Moment(3 * SECOND))?;
        let (_, early) = story.world.kept_max();
        let rounds = early as f64 / (bdp as f64 * part);
        let floor = story.world.sender().rate().floor();
        let rounds_max = if loss == 20 { 6.3 } else { 4.2 };
        if rounds > rounds_max {
            return Err(format!("{rounds:.2} round trips wait, at {loss} % of loss"));
        }
        if floor > loss as f64 / 100.0 + 0.1 {
            return Err(format!("it believes that {floor:.3} are lost, not {loss} %"));
        }
        story.finish()
    }

    /// A burst is shorter than a millisecond, and a round of copies longer.
    fn bursts(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt, burst) = (100, 20 + rng.below(41), 3 + rng.below(2));
        let words =
            format!("rate={mbit}mbit rtt={rtt}ms there.loss=20% there.burst={burst} queue=4bdp");
        let bdp = mbit * 125 * rtt;
        let mut story = self.begin(&words, 40 * bdp, mbit * 125_000 * 3);
        story.world.prove(0);
        story.until(Moment(SECOND))?;
        story.world.forget_kept();
        story.until(Moment(3 * SECOND))?;
        let (_, early) = story.world.kept_max();
        let rounds = early as f64 / (bdp as f64 * 0.8);
        if rounds > 4.8 {
            return Err(format!("{rounds:.2} round trips wait for copies that share a burst"));
        }
        story.finish()
    }

    /// Most reports are lost, and a round trip's numbers fill many: what came is heard of soon
    /// all the same, and not only when its turn comes.
    fn unheard(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt, loss) = (600, 120 + rng.below(41), 2 + rng.below(4));
        // As many packets a second as 9 Gbit/s are in such of 9000 bytes.
        let words = format!("rate={mbit}mbit rtt={rtt}ms mtu=576 there.loss={loss}%");
        let bdp = mbit * 125 * rtt;
        let mut story = self.begin(&words, 40 * bdp, 1000 * bdp);
        let round = Span::from_ms(rtt);
        story.until(Moment(8 * round.0))?;
        story.change("back.loss=60%");
        story.until(story.world.now() + Span(4 * round.0))?;
        let (_, before) = story.world.sender().bytes();
        let mut flying = 0;
        for _ in 0..100 {
            story.until(story.world.now() + Span(round.0 / 10))?;
            flying += story.world.sender().bytes().0;
        }
        let (_, sent) = story.world.sender().bytes();
        // By Little's law.
        let trips = flying as f64 / 10.0 / (sent - before) as f64;
        if trips > 1.55 {
            return Err(format!("for {trips:.2} round trips nobody knows what became of a packet"));
        }
        Ok(Sum::default())
    }

    /// Hardly anything is lost, but packets come late: little is sent in vain.
    fn late(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (30 + rng.below(71), [60, 100, 200][rng.below(3) as usize]);
        let (late, by) = (1 + rng.below(5), 2 + rng.below(rtt / 3));
        let words =
            format!("rate={mbit}mbit rtt={rtt}ms reorder={late}% reorder_by={by}ms loss=1%");
        let mut story = self.begin(&words, mbit * 125 * rtt * 10, mbit * 125_000 * 4);
        story.world.prove(0);
        let run = u64::from(story.link.mtu) - ENVELOPE;
        let sum = story.finish()?;
        // Neither did they bring what was not there, nor were they lost in any way.
        let (sent, asked) = (sum.sent / run, sum.read / run + sum.lost + sum.overflowed + sum.cut);
        let vain = sent.saturating_sub(asked) as f64 / sent as f64;
        if vain > 0.005 {
            return Err(format!("{:.1} % are sent in vain", vain * 100.0));
        }
        Ok(sum)
    }

    /// Whoever waits for the answer to each packet hardly ever waits for three round trips, though
    /// one in five is lost.
    fn sparse(self, rng: &mut Rng) -> Result<Sum, String> {
        let rtt = 40 + rng.below(161);
        let words = format!("rate=50mbit rtt={rtt}ms there.loss=20%");
        let mut story = self.begin(&words, 1 << 20, 0);
        let run = u64::from(story.link.mtu) - ENVELOPE;
        let mut took: Vec<u64> = Vec::new();
        for packet in 1..=100 {
            let begin = story.world.now();
            story.world.write_only(packet * run);
            while story.world.read() < packet * run {
                story.until(story.world.now() + Span(rtt * 50_000))?;
            }
            took.push(story.world.now().since(begin).0 / 1_000_000);
            // The other end answers.
            story.until(story.world.now() + Span::from_ms(rtt))?;
        }
        took.sort_unstable();
        let late = took.iter().filter(|ms| **ms > 5 * rtt / 2).count();
        if late > 10 {
            return Err(format!("{late} of 100 packets took longer than 2.5 trips of {rtt} ms"));
        }
        Ok(Sum::default())
    }

    /// What may be written grows as a stream's window does: twice as much each round trip. What
    /// trains have found meanwhile is not forgotten.
    fn growing(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (100 + rng.below(101), 100 + rng.below(201));
        let loss = 1 + rng.below(15);
        let words = format!("rate={mbit}mbit rtt={rtt}ms loss={loss}%");
        let (bdp, part) = (mbit * 125 * rtt, 1.0 - loss as f64 / 100.0);
        let mut window = 64 * 1024;
        let mut story = self.begin(&words, 40 * bdp, window);
        let round = Span::from_ms(rtt);
        while window < 8 * bdp {
            story.until(story.world.now() + round)?;
            window *= 2;
            story.world.write_only(story.world.read() + window);
        }
        story.world.write_only(200 * bdp);
        story.written = 200 * bdp;
        story.until(story.world.now() + round)?;
        let before = story.world.carried().1;
        story.until(story.world.now() + Span(16 * round.0))?;
        let filled = (story.world.carried().1 - before) as f64 / (16.0 * bdp as f64 * part);
        if filled < 0.8 {
            return Err(format!("{filled:.2} of what can arrive does, at {rtt} ms and {loss} %"));
        }
        Ok(Sum::default())
    }

    /// All falls silent for some seconds. What is on its way then is given up before they are over,
    /// so that whoever has another way may send it there.
    fn silent(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (20 + rng.below(81), 10 + rng.below(200));
        let words = format!("rate={mbit}mbit rtt={rtt}ms loss={}%", rng.below(10));
        let mut story = self.begin(&words, mbit * 125 * rtt * 10, mbit * 125_000 * 8);
        story.world.prove(10_000);
        story.until(Moment(SECOND + rng.below(SECOND)))?;
        story.change("down=1");
        let (flying, _) = story.world.sender().bytes();
        story.until(story.world.now() + Span::from_ms(3500))?;
        if flying > 0 && story.world.given_up() == 0 {
            return Err(format!("{flying} bytes are not given up after seconds of silence"));
        }
        story.change("down=0");
        story.finish()
    }
}

impl Plan {
    /// On its way each packet waits for a moment, now for others, now not, as hosts gather packets.
    /// How fast the line is is found all the same, soon, and not overrated.
    fn gathered(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt, jitter) = (200 + rng.below(801), 20 + rng.below(41), 400 + rng.below(600));
        let words = format!("rate={mbit}mbit rtt={rtt}ms there.jitter={jitter}us");
        let bdp = mbit * 125 * rtt;
        let mut story = self.begin(&words, 40 * bdp, 1000 * bdp);
        story.world.run_until(Moment((5 * rtt + 100) * 1_000_000));
        let (before, overflowed) = (story.world.carried().1, story.world.counts().0.overflowed);
        let round = Span::from_ms(rtt);
        story.world.run_until(story.world.now() + Span(4 * round.0));
        let filled = (story.world.carried().1 - before) as f64 / (4 * bdp) as f64;
        let over = (overflowed * u64::from(story.link.mtu)) as f64 / bdp as f64;
        if filled < 0.8 || over > 0.25 {
            return Err(format!(
                "{filled:.2} of the line after 5 rounds, {over:.2} rounds overflow"
            ));
        }
        Ok(Sum::default())
    }

    /// Delay varies both ways by as much as a round trip: trains come pushed together or pulled
    /// apart. None of them is far too long for that.
    fn varied(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt, loss) = (100 + rng.below(201), 20 + rng.below(31), rng.below(11));
        let words = format!("rate={mbit}mbit rtt={rtt}ms jitter={rtt}ms loss={loss}%");
        let bdp = mbit * 125 * rtt;
        let mut story = self.begin(&words, 40 * bdp, 1000 * bdp);
        let mut longest = 0;
        while let Doing::Trains = story.world.sender().rate().doing() {
            longest = longest.max(story.world.sender().bytes().0);
            story.until(story.world.now() + Span::from_ms(1))?;
        }
        let rounds = longest as f64 / bdp as f64;
        if rounds > 0.9 {
            return Err(format!("a train of {rounds:.2} round trips at {rtt} ms"));
        }
        Ok(Sum::default())
    }

    /// Nearly everything is lost for a while, and then nothing. However little is sent meanwhile,
    /// it is enough to find out.
    fn choked(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (20 + rng.below(31), 20 + rng.below(81));
        let words = format!("rate={mbit}mbit rtt={rtt}ms queue=20ms");
        let mut story = self.begin(&words, mbit * 125 * rtt * 40, mbit * 125_000 * 100);
        story.until(Moment(2 * SECOND))?;
        story.change(&format!("there.loss={}%", 96 + rng.below(4)));
        story.until(Moment((8 + rng.below(10)) * SECOND))?;
        story.change("there.loss=0%");
        let healed = story.world.now();
        while story.world.now() < healed + PAUSE_MAX {
            let before = story.world.carried().1;
            story.until(story.world.now() + Span::from_ms(500))?;
            let came = story.world.carried().1 - before;
            if came > mbit * 62_500 / 2 {
                return Ok(Sum::default());
            }
        }
        Err(format!("not half of {mbit} Mbit/s are used {} s after losses", PAUSE_MAX.0 / SECOND))
    }

    /// What goes back is a hundredth of what comes, and some reports a round trip.
    fn quiet(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (2 + rng.below(60), 10 + rng.below(151));
        let words = format!("rate={mbit}mbit rtt={rtt}ms back.rate={}kbit", 20 + mbit * 11);
        let mut story = self.begin(&words, mbit * 125 * rtt * 10 + 1_000_000, mbit * 125_000 * 8);
        story.until(Moment(5 * SECOND))?;
        let (there, back) = story.world.counts();
        let part = back.offered_bytes as f64 / there.arrived_bytes as f64;
        let a_round = back.offered as f64 * rtt as f64 / 5000.0;
        let filled = there.arrived_bytes as f64 / (mbit * 125_000 * 5) as f64;
        if part > 0.015 || a_round > 30.0 || filled < 0.85 {
            return Err(format!("{part:.4} go back, in {a_round:.1} reports a round; {filled:.2}"));
        }
        Ok(Sum::default())
    }
}

/// Words for a line on which faults are over, and its bits a second.
const CALM: &str = "down=0 loss=0% reorder=0% jitter=0ms rate=50mbit";
const CALM_RATE: u64 = 50_000_000;

/// Words for what changes at this tenth of a second, mostly nothing; what is down stays down for
/// some.
fn trouble(rng: &mut Rng, (tenth, rtt): (u64, u64), down: &mut Option<u64>) -> Option<String> {
    Some(match (*down, rng.below(44)) {
        (Some(until), _) if until > tenth => return None,
        (Some(_), _) => {
            *down = None;
            "down=0".to_owned()
        }
        (None, dice @ 0..=2) => {
            *down = Some(tenth + 1 + rng.below(12));
            ["there.down=1", "back.down=1", "down=1"][dice as usize].to_owned()
        }
        (None, 3 | 4) => format!("there.rate={}mbit", 5 + rng.below(96)),
        (None, 5) => format!("loss={}% burst=0", rng.below(25)),
        (None, 6) => format!("back.loss={}% burst=0", rng.below(50)),
        (None, 7) => format!("there.delay={}ms", rng.below(rtt + 20)),
        (None, 8) => format!("back.delay={}ms", rng.below(rtt + 20)),
        (None, 9) => format!("back.rate={}kbit", 300 + rng.below(20_000)),
        _ => return None,
    })
}

/// Words for some of the faults that a line can have.
fn faults(rng: &mut Rng, rtt: u64, words: &mut String) {
    use std::fmt::Write as _;
    let some = |rng: &mut Rng| rng.chance(500);
    if some(rng) {
        let (there, back) = (rng.below(21), rng.below(31));
        let _ = write!(words, " there.loss={there}% back.loss={back}%");
        if some(rng) {
            let _ = write!(words, " burst={}", 2 + rng.below(19));
        }
    }
    if some(rng) {
        let _ = write!(words, " jitter={}ms", 1 + rng.below(rtt.min(30)));
    }
    if some(rng) {
        let _ = write!(words, " reorder={}% reorder_by={}ms", rng.below(6), 1 + rng.below(20));
    }
    match rng.below(4) {
        0 => {
            let _ = write!(words, " queue={}kb", 2 + rng.below(30));
        }
        1 => words.push_str(" queue=4bdp"),
        _ => {}
    }
}

impl Story {
    fn change(&mut self, words: &str) {
        self.link = self.link.changed(words).unwrap_or_else(|why| panic!("{why}"));
        self.world.set_lines(self.link.line_there(), self.link.line_back());
    }

    /// Runs until then, and looks at bounds.
    fn until(&mut self, end: Moment) -> Result<(), String> {
        self.world.run_until(end);
        let mtu = u64::from(self.link.mtu);
        let (writer, reader) = self.world.kept_max();
        if writer > self.memory + mtu || reader > self.memory + mtu {
            return Err(format!("{BROKEN}{writer} and {reader} bytes are kept of {}", self.memory));
        }
        // Copies outlive their runs, but not for long.
        let segments = self.world.sender().kept() as u64;
        if segments > 2 * self.memory / (mtu - ENVELOPE) + SPARE_SEGMENTS {
            return Err(format!("{BROKEN}{segments} segments are kept for {} bytes", self.memory));
        }
        Ok(())
    }

    /// The line works: everything is read, without longer pauses, and then nothing is on its way
    /// or kept any more.
    fn finish(mut self) -> Result<Sum, String> {
        let (mut read, mut at) = (self.world.read(), self.world.now());
        while !self.world.is_done() {
            let now = self.world.now();
            if self.world.read() > read {
                (read, at) = (self.world.read(), now);
            }
            if now.since(at) > PAUSE_MAX {
                let (flying, _) = self.world.sender().bytes();
                let kept = self.world.sender().kept();
                return Err(format!(
                    "{BROKEN}{read} of {} are read, {flying} bytes are on their way, {kept} \
                     segments are kept, and nothing happens from {} ms on",
                    self.written,
                    at.0 / 1_000_000,
                ));
            }
            self.until(now + Span::from_ms(50))?;
        }
        let (there, _) = self.world.counts();
        let read = self.world.read();
        if read < self.written {
            return Err(format!("{BROKEN}{read} of {} are read", self.written));
        }
        let (sent, _) = self.world.carried();
        Ok(Sum { read, sent, overflowed: there.overflowed, lost: there.lost, cut: there.cut })
    }
}
