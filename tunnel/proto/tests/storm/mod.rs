//! Whole agents under fire, a seed at a time: carriers are cut, fall silent and stall, sites are
//! started anew, frozen and cut off, keys change, strangers knock.
//!
//! Applications at both sites open flows and write a pattern that follows from the flow's tag, so
//! that each byte is judged when it comes. Then there is peace, everything has to end, a second
//! round of flows has to go well, and after a while nothing may be left over.
//!
//! What is judged:
//! - What was read is a prefix of what was written; an end is heard behind all of it.
//! - In weather that no flow has to suffer from, none is reset but by an application.
//! - Every flow ends at both ends. Flows without carriers end when the time to wait is over.
//! - Nobody but the other site hears a byte, and connections that bring nothing are closed.
//! - A shard of a peer has one session, few attempts, and at the end one or two carriers.
//! - Keys change after a minute. Nothing spins (`net`).
//! - Under load a session has as many carriers as help, and no more than it may; when it is idle
//!   again, one. Nothing is missing of a carrier that was left, and it does not count as lost.

mod hostile;
mod talk;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_crypto::SessionId;
use ringway_tunnel_proto::sabotage::Rule;
use ringway_tunnel_proto::{BondId, BondReport, HALF_OPEN_MAX, NotLetIn, Note};

use crate::net::air::Met;
use crate::net::{CARRIERS_MAX, Net, PEER, STEP, Secrets, Shard, UNHEARD_MAX, WAIT, usable};
use hostile::Hostile;
use talk::Talks;

/// How long there is trouble.
const TROUBLE: Span = Span::from_ms(2500);
/// By when every flow is over once there is peace: the time to wait, and some attempts.
const OVER_BY: Span = Span::from_s(100);
/// By when sites that have forgotten nothing work together again: an answer that does not come, and
/// the pause behind it.
const MEET_WITHIN: Span = Span::from_s(16);
/// After this time nothing is left over: the longest that a stranger is listened to, and more than
/// a carrier that is not needed stays.
const QUIET_FOR: Span = Span::from_s(100);
/// What passes in fair weather.
const MTU_FAIR: usize = 1500;
/// By when packets get through again: the longest pause between two that ask, and what they take.
const AIRED_BY: Span = Span::from_s(35);
/// Attempts of a shard in a second; each fault costs one.
const ATTEMPTS_MAX: u64 = 60;
/// A key is older than a minute by this at most, while something is said.
const KEYS_OLD_AT: Span = Span::from_s(70);
/// How much later than the time to wait flows are given up at most: silence has to be noticed.
const GIVEN_UP_LATE: Span = Span::from_s(2);

/// What a seed's world is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Carriers die.
    Carriers,
    /// And strangers knock, who have heard all that was said.
    Strangers,
    /// Carriers die when keys change.
    Keys,
    /// Sites are started anew.
    Restarts,
    /// Sites are cut off or frozen, some for longer than flows wait.
    Outages,
    /// A site's keys are trusted no more, and then again.
    Trust,
    /// There is more to say than carriers take.
    Load,
}

impl Weather {
    fn of(seed: u64) -> Weather {
        use Weather::{Carriers, Keys, Load, Outages, Restarts, Strangers, Trust};
        [Carriers, Strangers, Keys, Restarts, Outages, Trust, Load][(seed % 7) as usize]
    }

    /// Whether no flow has to suffer from it.
    fn is_mild(self) -> bool {
        use Weather::{Carriers, Keys, Load, Strangers};
        matches!(self, Carriers | Strangers | Keys | Load)
    }
}

/// What a seed came to.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "only the swarm counts")]
pub(crate) struct Outcome {
    /// Flows that ended well.
    pub(crate) closed: usize,
    /// Flows that were reset, by an application or by trouble.
    pub(crate) reset: usize,
    /// Faults that were done.
    pub(crate) faults: usize,
    /// Connections that were dialled.
    pub(crate) dialled: usize,
    /// What datagrams met.
    pub(crate) met: Met,
}

struct Storm {
    net: Net,
    rng: Rng,
    weather: Weather,
    talks: Talks,
    hostile: Hostile,
    faults: usize,
    /// Since when a session has flows and no carrier, by site, shard and session.
    alone: BTreeMap<(usize, usize, BondId), Moment>,
    /// When attempts were counted, and how many there were.
    attempts: (Moment, u64),
}

/// Runs a seed to its end.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn run(seed: u64, broken: Option<Rule>) -> Result<Outcome, String> {
    storm(seed, broken, false)
}

/// The same, of sites that have datagrams, too, which meet all that they can.
///
/// # Errors
/// What is wrong, in words.
#[allow(dead_code, reason = "only the swarm has air")]
pub(crate) fn run_in_air(seed: u64) -> Result<Outcome, String> {
    storm(seed, None, true)
}

fn storm(seed: u64, broken: Option<Rule>, air: bool) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed);
    let shards = [1 + rng.below(2) as u8, 1 + rng.below(3) as u8];
    use Secrets::{Keys, KeysAndSecond, Shared};
    let secrets = [Keys, KeysAndSecond, Keys, Shared][(seed / 7 % 4) as usize];
    let mut net = Net::with(broken, rng.next_u64(), shards, secrets);
    net.bytes_per_step = 20 << rng.below(9);
    net.carry_every = 1 + rng.below(4);
    // Packets take what there is: nobody needs more carriers then.
    let weather = match Weather::of(seed) {
        Weather::Load if air => Weather::Carriers,
        weather => weather,
    };
    if air {
        net.give_air(rng.next_u64());
        net.air().merges = rng.chance(700);
    }
    let hostile = Hostile::new(rng.next_u64());
    let attempts = (net.now, 0);
    let talks = Talks::new(rng.next_u64());
    let (alone, faults) = (BTreeMap::new(), 0);
    let mut storm = Storm { net, rng, weather, talks, hostile, faults, alone, attempts };
    storm.trouble()?;
    storm.peace()?;
    storm.quiet()?;
    let (closed, reset) = storm.talks.ended();
    let met = storm.net.air.as_ref().map(|air| air.met).unwrap_or_default();
    Ok(Outcome { closed, reset, faults: storm.faults, dialled: storm.net.dialled, met })
}

impl Storm {
    /// One step of time, and what applications do.
    fn turn(&mut self) -> Result<(), String> {
        self.net.step();
        let frozen = self.net.frozen;
        self.talks.turn(&mut self.net, |site| frozen != Some(site))?;
        if (self.net.now.0 / STEP.0).is_multiple_of(32) {
            self.inspect()?;
        }
        Ok(())
    }

    /// So much time, without what nothing happens in.
    fn pass(&mut self, time: Span) -> Result<(), String> {
        let end = self.net.now + time;
        while self.net.now < end {
            let before = self.net.now;
            if let Some(next) = self.net.next().map(|next| next.min(self.talks.next())) {
                let soon = Moment(next.min(end).0.saturating_sub(STEP.0));
                self.net.now = soon.max(before).min(before + Span::from_ms(500));
            }
            let leapt = self.net.now > before;
            self.turn()?;
            if leapt {
                self.inspect()?;
            }
        }
        Ok(())
    }

    fn pass_until(&mut self, most: Span, so: impl Fn(&Storm) -> bool) -> Result<bool, String> {
        let end = self.net.now + most;
        while !so(self) {
            if self.net.now >= end {
                return Ok(false);
            }
            self.pass(Span::from_ms(20))?;
        }
        Ok(true)
    }

    // ---- What happens.

    fn trouble(&mut self) -> Result<(), String> {
        if self.weather == Weather::Load {
            return self.load();
        }
        let mild = self.weather.is_mild();
        self.talks.begin(3 + self.rng.below(6) as usize, mild);
        if self.weather == Weather::Carriers && self.rng.chance(300) {
            self.lose_first()?;
        }
        if self.weather == Weather::Keys {
            // Until then they meet in peace; chatter goes on.
            let joins_late = self.rng.chance(700);
            let minute = if joins_late { 59_700 } else { 59_000 + self.rng.below(600) };
            let minute = minute + self.rng.below(250);
            self.pass(Span::from_ms(minute))?;
            if joins_late {
                self.join_late()?;
            }
            self.talks.begin(4, mild);
        }
        let often = 15 + self.rng.below(100);
        let grave_at = self.net.now + Span::from_ms(self.rng.below(TROUBLE.0 / 1_000_000));
        let end = self.net.now + TROUBLE;
        let mut grave = !mild;
        while self.net.now < end {
            self.turn()?;
            if self.rng.below(often) == 0 {
                self.fault();
            }
            if self.net.air.is_some() && self.rng.below(200) == 0 {
                self.winds_change();
            }
            if self.weather == Weather::Strangers && self.rng.below(40) == 0 {
                self.hostile.act(&mut self.net);
            }
            if grave && self.net.now >= grave_at {
                grave = false;
                self.disaster()?;
            }
        }
        for shard in &mut self.net.sites[0] {
            shard.desk.cut_off = false;
        }
        self.net.bytes_per_step = self.net.bytes_per_step.max(2000);
        if self.weather == Weather::Carriers && self.rng.chance(500) {
            // Nobody who is dialled answers: neither who is joined, nor who is asked then.
            let end = self.net.now + Span::from_ms(900);
            while self.net.now < end {
                self.net.silence(|_| true);
                self.turn()?;
            }
            self.net.silence(|_| true);
        }
        Ok(())
    }

    /// Both sites have more to say than carriers take, and nothing is in the way but the path.
    fn load(&mut self) -> Result<(), String> {
        self.net.narrow = self.rng.chance(500);
        let per_ms = 60 + self.rng.below(200);
        self.net.bytes_per_step = (per_ms * self.net.carry_every) as usize;
        let time = Span::from_ms(6000);
        self.talks.begin_bulk(6, per_ms * 6000);
        let end = self.net.now + time;
        let mut most = 0;
        while self.net.now < end {
            self.turn()?;
            let usable = self.reports(0).iter().map(usable).max();
            most = most.max(usable.unwrap_or_default());
        }
        if !self.net.narrow && most < 3 {
            return Err(format!("{most} carriers, and more would carry more"));
        }
        (self.net.narrow, self.net.bytes_per_step) = (false, 5000);
        Ok(())
    }

    /// Bulk wants further carriers, and what those say when they join is late: keys change
    /// meanwhile.
    fn join_late(&mut self) -> Result<(), String> {
        let before = self.net.bytes_per_step;
        self.net.bytes_per_step = (200 * self.net.carry_every) as usize;
        self.talks.begin_bulk(2, 200_000);
        let (end, known) = (self.net.now + Span::from_ms(2000), self.net.wires());
        let is_new = |storm: &Storm| storm.reports(1).iter().any(|report| report.epoch > 0);
        while self.net.now < end && !is_new(self) {
            self.turn()?;
            let late = self.net.wires.iter_mut().skip(known).map(|wire| &mut wire.pipes[0]);
            late.filter(|pipe| pipe.arrived == 0).for_each(|pipe| pipe.stalled_until = end);
        }
        let now = self.net.now;
        self.net.wires.iter_mut().for_each(|wire| wire.pipes[0].stalled_until = now);
        self.net.bytes_per_step = before;
        Ok(())
    }

    /// The first carrier is lost as soon as it was answered.
    fn lose_first(&mut self) -> Result<(), String> {
        let before = std::mem::replace(&mut self.net.carry_every, 8);
        let end = self.net.now + Span::from_s(1);
        while self.reports(0).iter().all(|report| report.session.is_none()) && self.net.now < end {
            self.turn()?;
        }
        // Flows that began at once would be on their way by it.
        for _ in 0..5 {
            self.turn()?;
        }
        self.net.cut(|_| true);
        self.net.carry_every = before;
        Ok(())
    }

    /// Something befalls carriers.
    fn fault(&mut self) {
        self.faults += 1;
        let wires = self.net.wires() as u64;
        let which = self.rng.below(wires.max(1)) as usize;
        let until = self.net.now + Span::from_ms(self.rng.below(1200));
        match self.rng.below(8) {
            0..=2 => self.net.cut(|at| at == which),
            3 => self.net.cut(|_| true),
            4 => self.net.silence(|at| at == which),
            5 | 6 if wires > 0 => {
                let way = self.rng.below(2) as usize;
                self.net.wires[which].pipes[way].stalled_until = until;
            }
            _ => {
                let away = self.rng.below(3) > 0;
                self.net.sites[0].iter_mut().for_each(|shard| shard.desk.cut_off = away);
            }
        }
    }

    /// Datagrams meet something else from now on.
    fn winds_change(&mut self) {
        self.faults += 1;
        let rng = &mut self.rng;
        let air = self.net.air.as_mut().expect("the caller looked");
        match rng.below(12) {
            0 => air.blocked = [rng.chance(700), rng.chance(700)],
            6 | 7 => {
                air.bursts_per_mille = 10 + rng.below(100);
                air.burst_max = Span::from_us(rng.below(40_000));
            }
            8 => {
                air.late_per_mille = 10 + rng.below(200);
                air.late_by = Span::from_ms(1 + rng.below(60));
            }
            // A bottleneck, which records share; wider or narrower than before, or none.
            9 | 10 => air.link = rng.chance(800).then(|| 10 << rng.below(6)),
            11 => air.mtu = 1280 + rng.below(300) as usize,
            1 => air.near = Ipv4Addr::from(rng.next_u64() as u32 | 1),
            2 => air.turn = rng.below(8) as usize,
            _ => {
                air.blocked = [false; 2];
                (air.lost_per_mille, air.twice_per_mille) = (rng.below(300), rng.below(100));
                air.delay = Span::from_ms(rng.below(30));
                air.jitter = Span::from_ms(rng.below(40));
            }
        }
    }

    /// Datagrams get through, all but a few.
    fn winds_rest(&mut self) {
        let Some(air) = self.net.air.as_mut() else { return };
        (air.blocked, air.lost_per_mille, air.twice_per_mille) = ([false; 2], 20, 5);
        (air.bursts_per_mille, air.late_per_mille, air.link, air.mtu) = (0, 0, None, MTU_FAIR);
    }

    /// Packets get through by now, both ways, and streams go by them alone.
    fn inspect_air(&mut self) -> Result<(), String> {
        if self.net.air.is_none() {
            return Ok(());
        }
        // Until now nobody may have noticed that they did not: each asks, and has to be answered.
        let asked_at = self.net.now;
        for Shard { agent, .. } in self.net.sites.iter_mut().flatten() {
            agent.ask_packets(asked_at);
        }
        let works = |report: &BondReport| {
            let mut members = report.packets.iter();
            members.any(|member| member.carrier.usable && member.why.heard_at > asked_at)
        };
        let all = |storm: &Storm| [0, 1].iter().all(|site| storm.reports(*site).iter().all(works));
        if !self.pass_until(AIRED_BY, all)? {
            return Err("packets do not get through".into());
        }
        Ok(())
    }

    /// Bytes of streams that went by records, by site and session; without those whose packets
    /// were found to be held back, which is believed for a while after the weather has changed.
    fn by_records(&self) -> BTreeMap<(usize, SessionId), u64> {
        let reports = [0, 1].map(|site| (site, self.reports(site)));
        let reports =
            reports.iter().flat_map(|(site, all)| all.iter().map(move |one| (*site, one)));
        let stay = reports.filter(|(_, report)| report.by_records.is_none());
        let sent = |report: &BondReport| report.members.iter().map(|one| one.carrier.sent).sum();
        stay.filter_map(|(site, report)| Some(((site, report.session?), sent(report)))).collect()
    }

    /// What flows do suffer from.
    fn disaster(&mut self) -> Result<(), String> {
        let brief = Span::from_ms(self.rng.below(8000));
        let long = Span(WAIT.0 + Span::from_s(6).0 + brief.0);
        let time = if self.rng.chance(700) { long } else { brief };
        let site = self.rng.below(2) as usize;
        match self.weather {
            Weather::Restarts => {
                for _ in 0..1 + self.rng.below(3) {
                    let site = self.rng.below(2) as usize;
                    let shards = self.net.sites[site].len() as u8;
                    self.talks.lose_site(&self.net, site);
                    self.alone.retain(|at, _| at.0 != site);
                    self.net.start(site, shards);
                    self.pass(brief)?;
                }
            }
            Weather::Outages if self.rng.chance(500) => {
                // Nobody has anything to say, and nobody hears that nothing gets through.
                self.net.sites[0].iter_mut().for_each(|shard| shard.desk.cut_off = false);
                self.talks.hush_until(self.net.now + Span::from_s(60));
                self.talks.begin(4, false);
                self.pass(Span::from_ms(4000))?;
                self.talks.speak_at(self.net.now);
                self.net.sites[0].iter_mut().for_each(|shard| shard.desk.cut_off = true);
                self.net.silence(|_| true);
                self.pass(long)?;
                self.net.sites[0].iter_mut().for_each(|shard| shard.desk.cut_off = false);
            }
            Weather::Outages if self.rng.chance(300) => {
                self.net.frozen = Some(site);
                self.pass(time)?;
                self.net.frozen = None;
                self.alone.clear();
            }
            Weather::Outages => {
                self.net.sites[0].iter_mut().for_each(|shard| shard.desk.cut_off = true);
                if self.rng.chance(600) {
                    self.net.silence(|_| true);
                } else {
                    self.net.cut(|_| true);
                }
                self.pass(time)?;
                self.net.sites[0].iter_mut().for_each(|shard| shard.desk.cut_off = false);
            }
            Weather::Trust => {
                let own = 2 - site as u8;
                self.net.trust(site, &[7]);
                let mut agents = self.net.sites[site].iter().map(|shard| &shard.agent);
                if agents.any(|agent| agent.bond_to(PEER).is_some()) {
                    return Err("a key that is trusted no more has a session".into());
                }
                self.pass(Span(time.0 / 8))?;
                self.net.trust(site, &[own]);
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything ends, and what begins now goes well.
    fn peace(&mut self) -> Result<(), String> {
        let up = |storm: &Storm| {
            storm.net.sites[0].iter().all(|shard| shard.agent.bond_to(PEER).is_some())
        };
        self.winds_rest();
        let mild = self.weather.is_mild();
        let soon = if mild { MEET_WITHIN } else { OVER_BY };
        if !self.pass_until(soon, up)? {
            return Err("they do not meet again".into());
        }
        if !self.pass_until(OVER_BY, |storm| storm.talks.are_over(&storm.net))? {
            return Err(format!("not over:{}", self.talks.what_hangs(&self.net)));
        }
        if !mild {
            // A far end that is gone may have had nobody to tell.
            self.pass(UNHEARD_MAX)?;
            if !self.pass_until(OVER_BY, up)? {
                return Err("they do not meet again".into());
            }
        }
        self.inspect_air()?;
        let before = self.by_records();
        self.talks.begin(4, true);
        if !self.pass_until(OVER_BY, |storm| storm.talks.are_over(&storm.net))? {
            return Err(format!("not over in peace:{}", self.talks.what_hangs(&self.net)));
        }
        let more = |(of, sent): (_, u64)| before.get(&of).is_some_and(|before| sent > *before);
        if self.net.air.is_some() && self.by_records().into_iter().any(more) {
            return Err("records carry streams though packets get through".into());
        }
        Ok(())
    }

    /// After a while nothing is left over.
    fn quiet(&mut self) -> Result<(), String> {
        if self.weather == Weather::Keys {
            self.talks.chat_until(self.net.now + Span::from_s(12));
            self.pass(Span::from_s(13))?;
            self.inspect_keys()?;
        }
        self.pass(QUIET_FOR)?;
        let [near, far] = [0, 1].map(|site| self.reports(site));
        for report in near.iter().chain(&far) {
            let most = if self.weather == Weather::Load { 1 } else { 2 };
            if !report.up || report.members.len() > most {
                return Err(format!("a session of {} carriers", report.members.len()));
            }
            if report.members.iter().any(|member| member.carrier.suspect) {
                return Err("a carrier that does not answer is kept".into());
            }
        }
        let carriers: usize = near.iter().map(|report| report.members.len()).sum();
        let connections = [0, 1].map(|site| self.net.connections(site));
        if connections != [carriers; 2] || self.net.wires() != carriers {
            return Err(format!("{carriers} carriers, and {connections:?} connections"));
        }
        if !self.net.sites.iter().flatten().all(|shard| shard.agent.is_quiet()) {
            return Err("flows are left over".into());
        }
        self.hostile.judge(&self.net)
    }

    // ---- What is judged on the way.

    fn reports(&self, site: usize) -> Vec<BondReport> {
        let shards = self.net.sites[site].iter();
        shards.flat_map(|shard| shard.agent.report(true, &shard.desk)).collect()
    }

    fn inspect(&mut self) -> Result<(), String> {
        let now = self.net.now;
        let sessions = self.reports(1).len() - self.net.replacing(1);
        if sessions > self.net.sites[0].len() {
            return Err(format!("{sessions} sessions"));
        }
        // Some that had been given up may have come back since: behind the turn they are let go of.
        let many = std::mem::take(&mut self.net.most_usable);
        if many > CARRIERS_MAX {
            return Err(format!("{many} carriers"));
        }
        for site in (0..2).filter(|site| self.net.frozen != Some(*site)) {
            for (shard, it) in self.net.sites[site].iter().enumerate() {
                for report in it.agent.report(true, &it.desk) {
                    let at = (site, shard, report.bond);
                    if report.up || report.flows.is_empty() {
                        self.alone.remove(&at);
                        continue;
                    }
                    let since = *self.alone.entry(at).or_insert(now);
                    if now > since + WAIT + GIVEN_UP_LATE {
                        return Err("flows wait for longer than they may".into());
                    }
                }
            }
        }
        let attempts = self.net.sites[0].iter().map(|shard| shard.desk.attempts).sum::<u64>();
        let (since, before) = self.attempts;
        if now.since(since) >= Span::from_s(1) {
            let most = ATTEMPTS_MAX * self.net.sites[0].len() as u64;
            if attempts.saturating_sub(before) > most {
                return Err(format!("{} attempts in a second", attempts - before));
            }
            self.attempts = (now, attempts);
        }
        if self.net.connections(1) > HALF_OPEN_MAX + 512 {
            return Err(format!("{} connections", self.net.connections(1)));
        }
        self.read_notes()
    }

    /// Agents do not say what cannot be in such weather.
    fn read_notes(&mut self) -> Result<(), String> {
        let sites = self.net.sites.iter_mut().enumerate();
        for (site, shard) in sites.flat_map(|(at, site)| site.iter_mut().map(move |it| (at, it))) {
            for (conn, bytes) in std::mem::take(&mut shard.desk.lost) {
                if self.net.left.contains(&(site, conn)) {
                    return Err(format!("a carrier that was left is lost, with {bytes} bytes"));
                }
            }
            for note in std::mem::take(&mut shard.desk.notes) {
                let wrong = match note {
                    Note::Broken(_) => !self.hostile.has_forged,
                    Note::NotLetIn(NotLetIn::NoSession) => self.weather.is_mild(),
                    _ => false,
                };
                if wrong {
                    return Err(format!("{note:?}"));
                }
            }
        }
        self.hostile.judge_said(&self.net)
    }

    /// Something was said all the time, by sessions that are older than a key may be.
    fn inspect_keys(&self) -> Result<(), String> {
        let epochs: Vec<u32> = self.reports(0).iter().map(|report| report.epoch).collect();
        let old = self.net.now >= Moment(0) + KEYS_OLD_AT;
        if old && epochs.contains(&0) { Err("keys do not change".into()) } else { Ok(()) }
    }
}
