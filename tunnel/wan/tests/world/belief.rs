//! What is believed of a line, beside what the line is.

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::path::Doing;
use ringway_wan::sim::ENVELOPE;

use super::{Plan, SECOND, Sum};

impl Plan {
    /// For a while the receiver's host drops some of what comes: nobody takes that for the line's
    /// own loss.
    pub(super) fn dropping(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt, loss) = (60 + rng.below(41), 10 + rng.below(40), rng.below(11));
        let dropped = 3 + rng.below(4);
        let words = format!("rate={mbit}mbit rtt={rtt}ms there.loss={loss}%");
        let mut story = self.begin(&words, mbit * 125 * rtt * 40, mbit * 125_000 * 13);
        story.until(Moment(5 * SECOND))?;
        story.world.drop_at_host(dropped as u32 * 10_000);
        story.until(Moment(12 * SECOND))?;
        let floor = 100.0 * story.world.sender().rate().floor();
        if (floor - loss as f64).abs() > 2.2 {
            return Err(format!(
                "{floor:.1} % count as lost, not {loss}: a host drops {dropped} %"
            ));
        }
        story.world.drop_at_host(0);
        story.finish()
    }

    /// A slow line loses much from the first packet on: it is filled long before anybody can know
    /// that this is its own loss.
    pub(super) fn begun(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt, loss) = (3 + rng.below(6), 20 + rng.below(41), 15 + rng.below(7));
        let words = format!("rate={mbit}mbit rtt={rtt}ms there.loss={loss}%");
        let mut story = self.begin(&words, mbit * 125 * rtt * 40, mbit * 125_000 * 10);
        while story.world.sender().rate().doing() == Doing::Trains {
            story.until(story.world.now() + Span::from_ms(rtt))?;
            if story.world.now() > Moment(5 * SECOND) {
                return Err("no train says anything".into());
            }
        }
        story.until(story.world.now() + Span(10 * rtt * 1_000_000))?;
        let before = story.world.carried().1;
        story.until(story.world.now() + Span::from_s(2))?;
        let could = mbit as f64 * 250_000.0 * (1.0 - loss as f64 / 100.0);
        let filled = (story.world.carried().1 - before) as f64 / could;
        if filled < 0.8 {
            return Err(format!("{filled:.2} of what can arrive does, at {mbit} Mbit/s, {loss} %"));
        }
        Ok(Sum::default())
    }

    /// Of what goes back some is lost, at times what is said of the end of a train: nobody waits
    /// for that until they have to ask.
    pub(super) fn heard(self, rng: &mut Rng) -> Result<Sum, String> {
        const LINES: u64 = 100;
        let mut slow = 0;
        for line in 0..LINES {
            let (mbit, rtt) = (200 + rng.below(801), 20 + rng.below(31));
            let words = format!("rate={mbit}mbit rtt={rtt}ms back.loss=10%");
            let plan = Plan { seed: self.seed * LINES + line, ..self };
            let mut story = plan.begin(&words, mbit * 125 * rtt * 40, mbit * 125_000 * 10);
            story.until(Moment(35 * rtt * 100_000))?;
            slow += u64::from(story.world.sender().rate().doing() == Doing::Trains);
        }
        if slow > 8 {
            return Err(format!("{slow} of {LINES} know nothing of their lines after 3.5 rounds"));
        }
        Ok(Sum::default())
    }

    /// Packets go by another path, which is longer and slower: nobody takes that for others.
    pub(super) fn moved(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (60 + rng.below(41), 10 + rng.below(21));
        let (slower, longer) = (8 + rng.below(9), 100 + rng.below(151));
        let words = format!("rate={mbit}mbit rtt={rtt}ms loss=1%");
        let mut story = self.begin(&words, mbit * 125 * longer * 4, mbit * 125_000 * 60);
        story.until(Moment(4 * SECOND))?;
        story.change(&format!("rate={slower}mbit rtt={longer}ms"));
        story.world.change_path();
        let (end, before) = (story.world.now() + Span::from_s(8), story.world.carried().1);
        while story.world.now() < end {
            story.until(story.world.now() + Span::from_ms(50))?;
            let doing = story.world.sender().rate().doing();
            if matches!(doing, Doing::Compete | Doing::Hold) {
                let ms = story.world.now().0 / 1_000_000;
                return Err(format!("it competes with nobody, at {ms} ms"));
            }
        }
        let filled = (story.world.carried().1 - before) as f64 / (slower * 1_000_000) as f64;
        if filled < 0.8 {
            return Err(format!("{filled:.2} of {slower} Mbit/s arrive at {longer} ms"));
        }
        Ok(Sum::default())
    }

    /// Packets come in pairs, a millisecond apart: what the second one waits for before it is
    /// reported is no part of its round trip.
    pub(super) fn paired(self, rng: &mut Rng) -> Result<Sum, String> {
        let rtt = 160 + rng.below(141);
        let words = format!("rate=50mbit rtt={rtt}ms");
        let mut story = self.begin(&words, 1 << 20, 0);
        let run = u64::from(story.link.mtu) - ENVELOPE;
        for pair in 0..100 {
            for (written, pause) in [(2 * pair + 1, 1), (2 * pair + 2, 29)] {
                story.world.write_only(written * run);
                story.until(story.world.now() + Span::from_ms(pause))?;
            }
        }
        assert!(story.world.sender().rtt().is_known(), "pairs have come");
        let smooth = story.world.sender().rtt().smooth().0 as f64 / 1e6;
        if smooth > rtt as f64 + 2.0 {
            return Err(format!("a round trip counts as {smooth:.1} ms and takes {rtt}"));
        }
        Ok(Sum::default())
    }

    /// Where a moderate part is lost, what was lost twice hardly ever needs more than a third
    /// round.
    pub(super) fn thrice(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (80 + rng.below(41), 40 + rng.below(21));
        let words = format!("rate={mbit}mbit rtt={rtt}ms there.loss=11% queue=4bdp");
        let bdp = mbit * 125 * rtt;
        let mut story = self.begin(&words, 40 * bdp, mbit * 125_000 * 15);
        story.until(Moment(SECOND))?;
        let mut rounds = 0.0;
        for _ in 0..20 {
            story.world.forget_kept();
            story.until(story.world.now() + Span::from_ms(500))?;
            rounds += story.world.kept_max().1 as f64 / (20.0 * bdp as f64 * 0.89);
        }
        if !(1.0..2.55).contains(&rounds) {
            return Err(format!("{rounds:.2} round trips wait for what was lost three times"));
        }
        Ok(Sum::default())
    }

    /// An outage comes right behind the first train. However little of a round went by then, what
    /// goes by a few seconds later is what can.
    pub(super) fn interrupted(self, rng: &mut Rng) -> Result<Sum, String> {
        let (mbit, rtt) = (20 + rng.below(81), 150 + rng.below(151));
        let words = format!("rate={mbit}mbit rtt={rtt}ms there.loss={}%", 5 + rng.below(11));
        let mut story = self.begin(&words, mbit * 125 * rtt * 40, mbit * 125_000 * 100);
        while story.world.sender().rate().doing() == Doing::Trains {
            story.until(story.world.now() + Span::from_ms(1))?;
        }
        story.until(story.world.now() + Span::from_ms(rng.below(rtt)))?;
        story.change("there.down=1");
        story.until(story.world.now() + Span::from_ms(rtt + rng.below(600)))?;
        story.change("down=0 loss=0%");
        story.until(story.world.now() + Span::from_s(5))?;
        let before = story.world.carried().1;
        story.until(story.world.now() + Span::from_s(2))?;
        let filled = (story.world.carried().1 - before) as f64 / (mbit * 250_000) as f64;
        if filled < 0.5 {
            return Err(format!("{filled:.2} of {mbit} Mbit/s are used at {rtt} ms"));
        }
        Ok(Sum::default())
    }

    /// Packets go by a longer way soon after the first, which looks like a queue that somebody
    /// else fills, and many are lost. Nobody has next to nothing for that; and what is lost is not
    /// always taken for their work, so a quarter of lines alone may bring little.
    pub(super) fn rerouted(self, rng: &mut Rng) -> Result<Sum, String> {
        const LINES: u64 = 100;
        let mut filled = Vec::new();
        for line in 0..LINES {
            let (mbit, rtt, loss) = (50 + rng.below(51), 20 + rng.below(21), 12 + rng.below(10));
            let words = format!("rate={mbit}mbit rtt={rtt}ms there.loss={loss}% queue=4bdp");
            let plan = Plan { seed: self.seed * LINES + line, ..self };
            let mut story = plan.begin(&words, mbit * 125 * rtt * 100, mbit * 125_000 * 100);
            story.until(Moment((100 + rng.below(400)) * 1_000_000))?;
            story.change(&format!("there.delay={}ms", rtt / 2 + 20 + rng.below(40)));
            story.until(Moment(5 * SECOND))?;
            let before = story.world.carried().1;
            story.until(Moment(10 * SECOND))?;
            let could = mbit as f64 * 625_000.0 * (1.0 - loss as f64 / 100.0);
            filled.push((story.world.carried().1 - before) as f64 / could);
        }
        filled.sort_unstable_by(f64::total_cmp);
        let (least, quarter) = (filled[0], filled[filled.len() / 4]);
        if least < 0.03 || quarter < 0.2 {
            return Err(format!("{least:.3} and {quarter:.3} of what can arrive do"));
        }
        Ok(Sum::default())
    }
}
