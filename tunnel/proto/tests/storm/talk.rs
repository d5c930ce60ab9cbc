//! What applications say to each other, and what they must hear.

use std::collections::BTreeMap;

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::{BondId, FlowId, ResetCode};

use crate::net::{App, Net, PEER, Shard};

/// Bytes of a tag, at the beginning of an opener's stream.
const TAG: u64 = 8;
/// Who has little to say says it this often.
const CHAT_EVERY: Span = Span::from_ms(200);

/// One end of a flow.
type Place = (usize, usize, BondId, FlowId);

/// How a flow ended at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Closed,
    /// By the other end or the agents.
    Reset,
    /// By the application.
    ResetHere,
    /// The site was started anew.
    Lost,
}

#[derive(Debug, Default)]
struct End {
    place: Option<Place>,
    wrote: u64,
    finished: bool,
    read: u64,
    heard_end: bool,
    over: Option<Over>,
}

/// A flow: its opener is end 0 and writes stream 0.
#[derive(Debug)]
struct Talk {
    lens: [u64; 2],
    ends: [End; 2],
    /// Nothing but its applications may reset it.
    sure: bool,
    slow: bool,
    /// When each end says more.
    next_at: [Moment; 2],
    /// One end resets it here.
    resets_at: Option<(usize, u64)>,
}

pub(super) struct Talks {
    rng: Rng,
    all: Vec<Talk>,
    by_place: BTreeMap<Place, (usize, usize)>,
    /// What came of flows whose tag is not whole.
    unknown: BTreeMap<Place, Vec<u8>>,
    /// Flows that are to be opened: whether they are sure.
    to_open: Vec<bool>,
    chat_until: Moment,
    chat: bool,
    hush_until: Moment,
    /// Bytes of each stream of the next flows, if they are bulk.
    bulk: Option<u64>,
}

/// The byte at an offset of a stream.
fn pattern(talk: usize, stream: usize, offset: u64) -> u8 {
    if stream == 0 && offset < TAG {
        return (talk as u64).to_le_bytes()[offset as usize];
    }
    let word = (talk as u64) << 40 ^ (stream as u64) << 32 ^ offset;
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8
}

impl Talks {
    pub(super) fn new(seed: u64) -> Talks {
        Talks {
            rng: Rng::new(seed),
            all: Vec::new(),
            by_place: BTreeMap::new(),
            unknown: BTreeMap::new(),
            to_open: Vec::new(),
            chat_until: Moment(0),
            chat: false,
            hush_until: Moment(0),
            bulk: None,
        }
    }

    /// So many flows are opened as soon as that is possible.
    pub(super) fn begin(&mut self, many: usize, sure: bool) {
        self.bulk = None;
        self.to_open.extend(std::iter::repeat_n(sure, many));
    }

    /// So many flows with so many bytes each way, which nobody resets.
    pub(super) fn begin_bulk(&mut self, many: usize, bytes: u64) {
        self.begin(many, true);
        self.bulk = Some(bytes);
    }

    /// Something short is said all the time.
    pub(super) fn chat_until(&mut self, until: Moment) {
        (self.chat_until, self.chat) = (until, true);
    }

    /// Who has opened a flow says its first words and then nothing before this time.
    pub(super) fn hush_until(&mut self, until: Moment) {
        self.hush_until = until;
    }

    /// One of them speaks then after all.
    pub(super) fn speak_at(&mut self, at: Moment) {
        self.hush_until = at;
        if let Some(talk) = self.all.iter_mut().rfind(|talk| talk.ends[0].over.is_none()) {
            talk.next_at[0] = at;
        }
    }

    /// When an application does something by itself.
    pub(super) fn next(&self) -> Moment {
        let open = |talk: &&Talk| talk.ends.iter().any(|end| end.over.is_none());
        self.all.iter().filter(open).flat_map(|talk| talk.next_at).min().unwrap_or(Moment(u64::MAX))
    }

    /// Flows that ended well, and flows that did not.
    pub(super) fn ended(&self) -> (usize, usize) {
        let good = |talk: &&Talk| talk.ends[0].over == Some(Over::Closed);
        let many = self.all.iter().filter(good).count();
        (many, self.all.len() - many)
    }

    pub(super) fn turn(
        &mut self,
        net: &mut Net,
        runs: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        if self.chat && net.now < self.chat_until && self.are_over(net) {
            self.to_open.push(true);
        }
        for site in (0..2).filter(|site| runs(*site)) {
            for shard in 0..net.sites[site].len() {
                self.open(net, site, shard);
                for ((bond, flow), app) in std::mem::take(&mut net.sites[site][shard].desk.past) {
                    self.hear((site, shard, bond, flow), app)?;
                }
                let flows: Vec<_> = net.sites[site][shard].desk.apps.keys().copied().collect();
                for (bond, flow) in flows {
                    self.serve(net, (site, shard, bond, flow))?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, net: &mut Net, site: usize, shard: usize) {
        let now = net.now;
        let Shard { agent, desk } = &mut net.sites[site][shard];
        // The far side opens some, and each shard of the near one.
        let wants = !self.to_open.is_empty() && self.rng.below(if site == 0 { 4 } else { 12 }) == 0;
        let Some(bond) = agent.bond_to(PEER).filter(|_| wants) else { return };
        let Ok(flow) = agent.open(now, bond) else { return };
        let sure = self.to_open.pop().expect("there is one");
        let place = (site, shard, bond, flow);
        if let Some(past) = desk.apps.insert((bond, flow), App::default()) {
            desk.past.push(((bond, flow), past));
        }
        let bulk = self.bulk;
        let mut length = || bulk.unwrap_or(1 << self.rng.below(18));
        let lens = [TAG + length(), length() - 1];
        let end = End { place: Some(place), ..End::default() };
        let slow = self.rng.chance(400) && bulk.is_none();
        let who = self.rng.below(2) as usize;
        let resets = self.rng.chance(150) && bulk.is_none();
        let resets_at = resets.then(|| (who, lens[1 - who] / 2));
        self.by_place.insert(place, (self.all.len(), 0));
        let ends = [end, End::default()];
        self.all.push(Talk { lens, ends, sure, slow, next_at: [now; 2], resets_at });
    }

    /// Reads, judges, and writes.
    fn serve(&mut self, net: &mut Net, place: Place) -> Result<(), String> {
        let (site, shard, bond, flow) = place;
        let now = net.now;
        let Shard { agent, desk } = &mut net.sites[site][shard];
        let app = desk.apps.get_mut(&(bond, flow)).expect("it was there");
        let read = std::mem::take(&mut app.read);
        let heard = App { read, ..*app };
        let (came, over) = (!heard.read.is_empty(), heard.closed || heard.reset.is_some());
        if over {
            desk.apps.remove(&(bond, flow));
        }
        self.hear(place, heard)?;
        if over {
            return Ok(());
        }
        if came {
            agent.drained_by_application(now, bond, flow, 0);
        }
        let Some((at, me)) = self.by_place.get(&place).copied() else { return Ok(()) };
        let talk = &mut self.all[at];
        let end = &mut talk.ends[me];
        if talk.resets_at.is_some_and(|(who, read)| who == me && end.read >= read) {
            agent.reset(bond, flow, ResetCode::Broken);
            end.over = Some(Over::ResetHere);
            desk.apps.remove(&(bond, flow));
            self.by_place.remove(&place);
            return Ok(());
        }
        if now < talk.next_at[me] {
            return Ok(());
        }
        if end.wrote < talk.lens[me] {
            // One that is slow says all within some seconds.
            let most = if talk.slow { talk.lens[me] / 20 + 1 } else { 16 * 1024 };
            let unsent = agent.flow(bond, flow).map_or(0, |report| report.unsent);
            let room = 65_536u64.saturating_sub(unsent);
            let more = (TAG + self.rng.below(most)).min(talk.lens[me] - end.wrote).min(room);
            let bytes: Vec<u8> =
                (end.wrote..end.wrote + more).map(|offset| pattern(at, me, offset)).collect();
            if more > 0 {
                agent.push(bond, flow, &bytes);
                end.wrote += more;
            }
        } else if !end.finished {
            agent.finish(bond, flow);
            end.finished = true;
        }
        if me == 0 && now < self.hush_until {
            talk.next_at[me] = self.hush_until;
        } else if talk.slow {
            talk.next_at[me] = now + CHAT_EVERY;
        }
        Ok(())
    }

    /// What one end has heard, judged.
    fn hear(&mut self, place: Place, heard: App) -> Result<(), String> {
        let mut read = heard.read;
        if !self.by_place.contains_key(&place) {
            let known = self.unknown.entry(place).or_default();
            known.append(&mut read);
            if let Some(tag) = known.first_chunk::<{ TAG as usize }>() {
                let at = u64::from_le_bytes(*tag) as usize;
                read = self.unknown.remove(&place).expect("it was there");
                let talk = self.all.get_mut(at).ok_or("a flow that nobody opened")?;
                if talk.ends[1].place.replace(place).is_some() {
                    return Err(format!("flow {at} came twice"));
                }
                self.by_place.insert(place, (at, 1));
            } else {
                if heard.closed || heard.reset.is_some() {
                    self.unknown.remove(&place);
                }
                return if heard.closed {
                    Err("a flow without a tag closed".into())
                } else {
                    Ok(())
                };
            }
        }
        let (at, me) = self.by_place[&place];
        let Talk { lens, ends, sure, .. } = &mut self.all[at];
        let all = lens[1 - me];
        let others = (ends[1 - me].over, ends[1 - me].finished);
        let end = &mut ends[me];
        for byte in read {
            if end.read >= all || end.heard_end || byte != pattern(at, 1 - me, end.read) {
                return Err(format!("flow {at} has a wrong byte at {}", end.read));
            }
            end.read += 1;
        }
        end.heard_end = heard.finished;
        if heard.finished && (end.read != all || !others.1) {
            return Err(format!("flow {at} ended at {} of {all}", end.read));
        }
        if let Some(code) = heard.reset {
            if *sure && others.0 != Some(Over::ResetHere) {
                return Err(format!("flow {at} was reset by nobody: {code:?}"));
            }
            end.over = Some(Over::Reset);
        } else if heard.closed {
            if !end.heard_end || !end.finished {
                return Err(format!("flow {at} closed at {} of {all}", end.read));
            }
            end.over = Some(Over::Closed);
        }
        if end.over.is_some() {
            self.by_place.remove(&place);
        }
        Ok(())
    }

    /// A site is started anew, and its applications with it.
    pub(super) fn lose_site(&mut self, net: &Net, site: usize) {
        let shards = 0..net.sites[site].len();
        let of_site = |place: &Place| place.0 == site && shards.contains(&place.1);
        for (place, (at, me)) in &self.by_place {
            if of_site(place) {
                self.all[*at].ends[*me].over = Some(Over::Lost);
            }
        }
        self.by_place.retain(|place, _| !of_site(place));
        self.unknown.retain(|place, _| !of_site(place));
    }

    /// Whether all flows are over at both ends.
    pub(super) fn are_over(&self, net: &Net) -> bool {
        self.to_open.is_empty()
            && self.by_place.is_empty()
            && net.sites.iter().flatten().all(|shard| shard.desk.apps.is_empty())
            && self.all.iter().all(|talk| talk.ends[0].over.is_some())
    }

    pub(super) fn what_hangs(&self, net: &Net) -> String {
        let mut words = format!(" {} to open, {:?}", self.to_open.len(), self.unknown.keys());
        for (place, (at, me)) in &self.by_place {
            let (site, shard, bond, flow) = *place;
            let report = net.sites[site][shard].agent.flow(bond, flow);
            let talk = &self.all[*at];
            words += &format!("\n  end {me} of {at} at {place:?}: {talk:?}: {report:?}");
        }
        words
    }
}
