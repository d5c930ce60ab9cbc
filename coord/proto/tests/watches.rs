//! Stories of watches, told through the bytes of connections.

use std::collections::BTreeMap;

use ringway_coord_proto::access::Access;
use ringway_coord_proto::stats::VERBS;
use ringway_coord_proto::wire::{op, push, status};
use ringway_core::rng::Rng;
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{SessionId, Span, Token};
use ringway_sim::native::{
    Got, Native, cancel, open, opened, query, register, register_as, release, revoke, set_meta,
    transfer, unwatch, wait, watch, watch_with,
};
use ringway_sim::process::{Process, Settings};
use ringway_sim::stories::{Users, client, guarded, start, words};

const SHARDS: [usize; 2] = [1, 3];
const SNAPSHOT: u8 = op::WATCH_SNAPSHOT;

/// What an answer to `WATCH` says: how it was resumed, and how far each shard was heard.
fn answer(got: &Got) -> (u8, Vec<u8>) {
    let Got::Data(status::DATA, data) = got else { panic!("WATCH answered {got:?}") };
    assert_eq!(data.len(), 2 + 13 * usize::from(data[1]));
    (data[0], data[1..].to_vec())
}

/// A notice of a watch.
#[derive(Clone, Debug, PartialEq)]
struct Notice {
    code: u8,
    watch: u32,
    shard: u8,
    flags: u8,
    kind: u8,
    epoch: u32,
    sequence: u64,
    session: SessionId,
    token: Token,
    name: String,
    extra: u32,
}

fn notice(code: u8, body: &[u8]) -> Notice {
    let mut reader = Reader::new(body);
    let notice = read_notice(code, &mut reader).expect("a notice as documented");
    assert!(reader.is_empty(), "bytes behind {notice:?}");
    notice
}

fn read_notice(code: u8, reader: &mut Reader<'_>) -> Result<Notice, Truncated> {
    let mut notice = Notice {
        code,
        watch: reader.u32()?,
        shard: 0,
        flags: 0,
        kind: 0,
        epoch: 0,
        sequence: 0,
        session: SessionId(0),
        token: Token(0),
        name: String::new(),
        extra: 0,
    };
    match code {
        push::EVENT => {
            (notice.shard, notice.flags, notice.kind) = (reader.u8()?, reader.u8()?, reader.u8()?);
            (notice.epoch, notice.sequence) = (reader.u32()?, reader.u64()?);
            (notice.session, notice.token) = (SessionId(reader.u64()?), Token(reader.u64()?));
            notice.name = String::from_utf8_lossy(reader.short_bytes()?).into_owned();
            notice.extra = if notice.kind > 2 { reader.u32()? } else { 0 };
        }
        push::STATE => {
            notice.shard = reader.u8()?;
            (notice.session, notice.token) = (SessionId(reader.u64()?), Token(reader.u64()?));
            notice.name = String::from_utf8_lossy(reader.bytes(reader.rest().len())?).into_owned();
        }
        push::SNAPSHOT_END | push::GAP => {}
        code => panic!("notice {code}"),
    }
    Ok(notice)
}

impl Notice {
    fn words(&self) -> String {
        let token = self.token.sequence();
        let flags = match self.flags {
            0 => "",
            1 => "!",
            2 => "*",
            _ => "!*",
        };
        let what = match (self.code, self.kind) {
            (push::SNAPSHOT_END, _) => return "end".into(),
            (push::GAP, _) => return "GAP".into(),
            (push::STATE, _) => "=",
            (_, 1) => "+",
            (_, 2) => "-",
            (_, 3) => "~",
            _ => "?",
        };
        let extra = if self.kind > 2 { format!(":{}", self.extra) } else { String::new() };
        format!("{}{what}{token}{extra}{flags}", self.name)
    }
}

/// What a client has heard of its watches since the last time it was asked.
fn heard(client: &mut Native, process: &mut Process<impl Access>) -> Vec<Notice> {
    process.settle();
    client.receive(process);
    client.told.drain(..).map(|(code, body)| notice(code, &body)).collect()
}

fn heard_words(client: &mut Native, process: &mut Process<impl Access>) -> String {
    let heard = heard(client, process);
    heard.iter().map(Notice::words).collect::<Vec<_>>().join(" ")
}

/// A name's life as its watcher sees it, on whichever shard either is: acquired, released, left by
/// a session that ends, taken over.
#[test]
fn a_watcher_hears_who_has_the_name() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = Native::connect(&mut process, shards - 1);
        let mut a = Native::connect(&mut process, 0);
        let got = watcher.ask(&mut process, &[watch(7, "x"), watch(8, "a/"), query("x")]);
        assert_eq!(answer(&got[0]).0, 0);
        assert_eq!(answer(&got[0]).1[0], 1, "a name has one shard");
        assert_eq!(usize::from(answer(&got[1]).1[0]), shards, "a prefix has all");
        let session = opened(&a.ask(&mut process, &[open(0, 5, 1_000, None)])[0]).session;
        a.ask(&mut process, &[register("x"), register("a/1"), register("b"), register("x")]);
        let all = heard(&mut watcher, &mut process);
        assert_eq!(all.len(), 2, "{all:?}");
        let x = all.iter().find(|notice| notice.watch == 7).unwrap();
        assert_eq!((x.words().as_str(), x.session, x.epoch), ("x+1", session, 1));
        assert!(all.iter().any(|notice| notice.watch == 8 && notice.words() == "a/1+1"));
        a.ask(&mut process, &[release("a/1"), release("a/1")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "a/1-1");
        process.run_for(Span::from_ms(1_100));
        assert_eq!(heard_words(&mut watcher, &mut process), "x-1", "its session has ended");
        assert_eq!(words(&watcher.ask(&mut process, &[unwatch(7), unwatch(7)])), "OK, NOTOWNER");
        a.ask(&mut process, &[open(0, 5, 1_000, None), register("x")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "");
    }
}

/// A name that is handed over was never free: its watcher hears of the next owner alone. Who waits
/// is heard of as well, and what is said about it.
#[test]
fn a_watcher_hears_of_queues_and_metadata() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = Native::connect(&mut process, shards - 1);
        let (mut a, mut b) = (Native::connect(&mut process, 0), Native::connect(&mut process, 0));
        watcher.ask(&mut process, &[watch(7, "x")]);
        a.ask(&mut process, &[register("x")]);
        a.ask(&mut process, &[set_meta(None, b"blue", "x")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "x+1 x~1:1");
        let queued = b.ask(&mut process, &[wait(0, "x")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "x?1:1");
        b.ask(&mut process, &[cancel(&queued[0], "x")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "x?1:0");
        b.ask(&mut process, &[wait(0, "x")]);
        heard(&mut watcher, &mut process);
        a.ask(&mut process, &[release("x")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "x?2:0 x+2");
        let c = opened(&a.ask(&mut process, &[open(0, 9, 5_000, None)])[0]).session;
        b.ask(&mut process, &[transfer(c, "x")]);
        let moved = heard(&mut watcher, &mut process);
        assert_eq!((moved.len(), moved[0].words().as_str(), moved[0].session), (1, "x+3", c));
        b.ask(&mut process, &[revoke(None, "x")]);
        assert_eq!(heard_words(&mut watcher, &mut process), "x-3");
    }
}

/// Of a name that several hold each who comes is told, and each who leaves: with a mark as long as
/// others hold it still.
#[test]
fn a_watcher_hears_of_all_who_share() {
    let mut process = start(3);
    let mut watcher = Native::connect(&mut process, 2);
    let (mut a, mut b) = (Native::connect(&mut process, 0), Native::connect(&mut process, 1));
    watcher.ask(&mut process, &[watch(7, "x")]);
    let share = register_as(op::MODE_SHARED, 0, "x");
    a.ask(&mut process, std::slice::from_ref(&share));
    assert_eq!(heard_words(&mut watcher, &mut process), "x+1");
    b.ask(&mut process, &[share]);
    assert_eq!(heard_words(&mut watcher, &mut process), "x+2");
    a.ask(&mut process, &[release("x")]);
    assert_eq!(heard_words(&mut watcher, &mut process), "x-1*");
    process.disconnect(b.link);
    assert_eq!(heard_words(&mut watcher, &mut process), "x-2");
}

/// A snapshot of a name says who has it at the moment of the start; one of a prefix says it of all
/// names that begin so, in pages, and what changes meanwhile is told among them.
#[test]
fn a_snapshot_says_what_there_is() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let names: Vec<_> = (0..3_000).map(|i| register(&format!("app/{i}"))).collect();
        a.ask(&mut process, &names);
        a.ask(&mut process, &[register("x"), register("other/1")]);
        let mut watcher = Native::connect(&mut process, shards - 1);
        watcher.ask(&mut process, &[watch_with(SNAPSHOT, 1, "x"), watch_with(SNAPSHOT, 2, "y")]);
        let of_names = heard(&mut watcher, &mut process);
        let of = |watch| {
            let all = of_names.iter().filter(|notice| notice.watch == watch);
            all.map(Notice::words).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((of(1).as_str(), of(2).as_str()), ("x=1 end", "end"));
        watcher.ask(&mut process, &[watch_with(SNAPSHOT, 3, "app/")]);
        let all = heard(&mut watcher, &mut process);
        assert_eq!(all.len(), 3_001, "{shards} shards");
        assert_eq!(all.last().unwrap().words(), "end");
        let mut seen: Vec<_> = all.iter().map(|notice| &notice.name).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3_001);
    }
}

/// What a client makes of `STATE` and `EVENT`: who has what.
#[derive(Default)]
struct View {
    names: BTreeMap<String, (SessionId, Token)>,
    ended: usize,
    gaps: usize,
}

impl View {
    fn apply(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            match (notice.code, notice.kind) {
                (push::SNAPSHOT_END, _) => self.ended += 1,
                (push::GAP, _) => {
                    self.gaps += 1;
                    self.names.clear();
                }
                (push::EVENT, 2) => drop(self.names.remove(&notice.name)),
                (push::EVENT, 3..) => {}
                _ => drop(self.names.insert(notice.name, (notice.session, notice.token))),
            }
        }
    }
}

/// A snapshot under fire: names come and go, sessions end, and the watcher reads now and then. In
/// the end it knows exactly what the shards know.
#[test]
fn a_snapshot_under_fire_is_exact() {
    for (seed, shards) in (0..12).zip([1, 3, 2].into_iter().cycle()) {
        let mut process = start(shards);
        let mut rng = Rng::new(seed);
        let name = |rng: &mut Rng| format!("app/{}", rng.below(4_000));
        let mut writers: Vec<_> =
            (0..4).map(|i| Native::connect(&mut process, i % shards)).collect();
        for writer in &mut writers {
            let some: Vec<_> = (0..500).map(|_| register(&name(&mut rng))).collect();
            writer.ask(&mut process, &some);
        }
        let mut watcher = Native::connect(&mut process, rng.below(shards as u64) as usize);
        let mut view = View::default();
        watcher.send(&mut process, &[watch_with(SNAPSHOT, 3, "app/")]);
        for _ in 0..300 {
            let at = rng.below(4) as usize;
            let ops: Vec<_> = (0..rng.below(40))
                .map(|_| {
                    let name = name(&mut rng);
                    if rng.chance(500) { register(&name) } else { release(&name) }
                })
                .collect();
            writers[at].send(&mut process, &ops);
            if rng.chance(20) {
                process.disconnect(writers[at].link);
                writers[at] = Native::connect(&mut process, at % shards);
            }
            for _ in 0..rng.below(4) {
                process.turn(rng.below(shards as u64) as usize, rng.below(4) as usize);
            }
            if rng.chance(200) {
                watcher.receive(&mut process);
                let told = watcher.told.drain(..);
                view.apply(told.map(|(code, body)| notice(code, &body)).collect());
            }
        }
        for _ in 0..50 {
            view.apply(heard(&mut watcher, &mut process));
        }
        assert_eq!(view.ended, 1 + view.gaps, "seed {seed}");
        let mut truth = BTreeMap::new();
        for first in (0..4_000).step_by(500) {
            let ops: Vec<_> = (first..first + 500).map(|i| query(&format!("app/{i}"))).collect();
            for (index, got) in watcher.ask(&mut process, &ops).into_iter().enumerate() {
                if let Got::Owner(_, session, token) = got {
                    truth.insert(format!("app/{}", first + index), (session, token));
                }
            }
        }
        assert!(view.names == truth, "seed {seed}: it knows something else");
        assert!(truth.len() > 500);
    }
}

/// One that does not read costs its budget: others hear at once. When it reads it hears the newest.
#[test]
fn a_watcher_that_does_not_read_delays_nobody() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let mut stuck = Native::connect(&mut process, shards - 1);
        let mut other = Native::connect(&mut process, shards - 1);
        for client in [&mut stuck, &mut other] {
            client.ask(&mut process, &[watch(1, "n/")]);
        }
        process.set_backlog(stuck.link, 65 * 1024);
        for round in 0..100 {
            let ops = (0..10).flat_map(|i| {
                let name = format!("n/{i}");
                [register(&name), release(&name)]
            });
            a.ask(&mut process, &ops.collect::<Vec<_>>());
            let heard = heard(&mut other, &mut process);
            assert_eq!(heard.len(), 10, "round {round}: what happened in one turn is one");
        }
        assert!(heard(&mut stuck, &mut process).is_empty(), "it is passed over");
        process.set_backlog(stuck.link, 0);
        let late = heard(&mut stuck, &mut process);
        assert_eq!(late.len(), 10, "{shards} shards");
        assert!(late.iter().all(|notice| notice.kind == 2 && notice.flags == 1));
        assert_eq!(process.shard(shards - 1).stats().watch_gaps, 0);
    }
}

/// Whoever loses its connection goes on where it was, from any shard; another life of the service
/// says that there is a gap, and a snapshot follows if it was asked for.
#[test]
fn a_watch_resumes_on_another_connection() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let mut before = Native::connect(&mut process, shards - 1);
        let got = before.ask(&mut process, &[watch(1, "n/")]);
        let (_, cursors) = answer(&got[0]);
        process.disconnect(before.link);
        let names: Vec<_> = (0..20).map(|i| register(&format!("n/{i}"))).collect();
        a.ask(&mut process, &names);
        let mut after = Native::connect(&mut process, 0);
        let resume = |flags, cursors: &[u8]| resume(flags, cursors, "n/");
        let got = after.ask(&mut process, &[resume(SNAPSHOT, &cursors)]);
        let (resumed, later) = answer(&got[0]);
        assert_eq!(resumed, 1, "{shards} shards");
        let missed = heard(&mut after, &mut process);
        assert_eq!(missed.len(), 20, "each once, and no snapshot");
        a.ask(&mut process, &[release("n/3")]);
        assert_eq!(heard_words(&mut after, &mut process), "n/3-1");
        assert_eq!(words(&after.ask(&mut process, &[resume(0, &later)])), "EXISTS");
        after.ask(&mut process, &[unwatch(1)]);
        let mut other_life = later.clone();
        other_life[2] = 9;
        let got = after.ask(&mut process, &[resume(SNAPSHOT, &other_life)]);
        assert_eq!(answer(&got[0]).0, 2);
        let snapshot = heard(&mut after, &mut process);
        assert_eq!(snapshot.len(), 20, "19 names and the end");
        after.ask(&mut process, &[unwatch(1)]);
        let got = after.ask(&mut process, &[resume(0, &[0])]);
        assert_eq!(answer(&got[0]).0, 2, "it does not say where it was");
        assert!(heard(&mut after, &mut process).is_empty(), "no snapshot was asked for");
    }
}

/// `WATCH` number 1 of a filter from where another was cut off.
fn resume(flags: u8, cursors: &[u8], filter: &str) -> (u8, u8, Vec<u8>) {
    let (code, _, mut body) = watch(1, "");
    body.extend_from_slice(cursors);
    body.extend_from_slice(filter.as_bytes());
    (code, flags | op::WATCH_RESUME, body)
}

/// A client that keeps a view of a prefix over lost connections, as `docs/protocol.md` says.
struct Keeper {
    client: Native,
    view: View,
    cursors: BTreeMap<u8, (u32, u64)>,
}

impl Keeper {
    fn new(process: &mut Process, shard: usize) -> Self {
        let client = Native::connect(process, shard);
        let mut this = Self { client, view: View::default(), cursors: BTreeMap::new() };
        assert_eq!(this.begin(process, watch_with(SNAPSHOT, 1, "app/")), 0);
        this
    }

    /// How it was resumed.
    fn begin(&mut self, process: &mut Process, ask: (u8, u8, Vec<u8>)) -> u8 {
        let got = self.client.ask(process, &[ask]);
        let (resumed, cursors) = answer(&got[0]);
        if resumed == 2 {
            // Nothing of before is true any more, but for what this watch has told already.
            self.view.names.clear();
        }
        self.hear(process);
        let mut reader = Reader::new(&cursors);
        for _ in 0..reader.u8().expect("a count") {
            let shard = reader.u8().expect("a shard");
            let at = (reader.u32().expect("an epoch"), reader.u64().expect("a sequence"));
            let known = self.cursors.entry(shard).or_insert(at);
            *known = (*known).max(at);
        }
        resumed
    }

    fn hear(&mut self, process: &mut Process) {
        let heard = heard(&mut self.client, process);
        for notice in heard.iter().filter(|notice| notice.code == push::EVENT) {
            self.cursors.insert(notice.shard, (notice.epoch, notice.sequence));
        }
        self.view.apply(heard);
    }

    /// Its connection is lost, something happens, and it goes on with another.
    fn reconnects(
        &mut self,
        process: &mut Process,
        shard: usize,
        meanwhile: impl FnOnce(&mut Process),
    ) -> u8 {
        process.disconnect(self.client.link);
        meanwhile(process);
        self.client = Native::connect(process, shard);
        let mut cursors = vec![self.cursors.len() as u8];
        for (shard, (epoch, sequence)) in &self.cursors {
            cursors.push(*shard);
            cursors.extend_from_slice(&epoch.to_le_bytes());
            cursors.extend_from_slice(&sequence.to_le_bytes());
        }
        self.begin(process, resume(SNAPSHOT, &cursors, "app/"))
    }

    fn knows_all(&mut self, process: &mut Process, owned: &[bool]) -> bool {
        self.hear(process);
        let names = owned.iter().enumerate().filter(|(_, owned)| **owned);
        let names: Vec<_> = names.map(|(at, _)| format!("app/{at}")).collect();
        let mut known: Vec<_> = self.view.names.keys().cloned().collect();
        known.sort_by_key(|name| name[4..].parse::<u32>().expect("a number"));
        known == names
    }
}

/// Registers or releases a range of names, and remembers who is owned.
fn change(
    process: &mut Process,
    by: &mut Native,
    owned: &mut [bool],
    (at, own): (std::ops::Range<usize>, bool),
) {
    let names: Vec<_> = at.clone().map(|at| format!("app/{at}")).collect();
    for names in names.chunks(1_000) {
        let op = |name: &String| if own { register(name) } else { release(name) };
        by.ask(process, &names.iter().map(op).collect::<Vec<_>>());
    }
    owned[at].fill(own);
}

/// A watcher that does not read hears `GAP` and lists anew; it loses its connection and goes on by
/// its cursor; it is away for too long, is told so, and goes on from there once more. After each
/// of these it knows all names, and no more.
#[test]
fn a_watcher_resumes_across_a_gap() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let mut owned = vec![false; 60_000];
        change(&mut process, &mut a, &mut owned, (0..3_000, true));
        let mut keeper = Keeper::new(&mut process, shards - 1);
        assert!(keeper.knows_all(&mut process, &owned), "{shards} shards");
        // It reads nothing while more happens than is kept for it.
        process.set_backlog(keeper.client.link, 65 * 1024);
        change(&mut process, &mut a, &mut owned, (500..2_500, false));
        change(&mut process, &mut a, &mut owned, (3_000..30_000, true));
        process.set_backlog(keeper.client.link, 0);
        for _ in 0..50 {
            keeper.hear(&mut process);
        }
        assert!(keeper.view.gaps > 0, "{shards} shards: it was told");
        assert_eq!(keeper.view.ended, 1 + keeper.view.gaps, "and listed what there is");
        assert!(keeper.knows_all(&mut process, &owned), "{shards} shards: after the gap");
        // Events on every shard bring the cursor across the gap.
        change(&mut process, &mut a, &mut owned, (100..200, false));
        keeper.hear(&mut process);
        let gaps = keeper.view.gaps;
        let resumed = keeper.reconnects(&mut process, 0, |process| {
            change(process, &mut a, &mut owned, (150..250, true));
            change(process, &mut a, &mut owned, (250..350, false));
        });
        assert_eq!((resumed, keeper.view.gaps), (1, gaps), "{shards} shards: it goes on");
        assert!(keeper.knows_all(&mut process, &owned), "{shards} shards: by its cursor");
        // More than is kept happens while it is away.
        let resumed = keeper.reconnects(&mut process, shards - 1, |process| {
            change(process, &mut a, &mut owned, (0..20_000, false));
            change(process, &mut a, &mut owned, (30_000..60_000, true));
        });
        assert_eq!(resumed, 2, "{shards} shards: the gap is said");
        for _ in 0..50 {
            keeper.hear(&mut process);
        }
        assert!(keeper.knows_all(&mut process, &owned), "{shards} shards: listed anew");
        let resumed = keeper.reconnects(&mut process, 0, |process| {
            change(process, &mut a, &mut owned, (59_000..59_100, false));
        });
        assert_eq!(resumed, 1, "{shards} shards: from behind the gap");
        assert!(keeper.knows_all(&mut process, &owned), "{shards} shards: complete");
    }
}

/// What cannot be understood, or is not allowed, is refused by itself; a watch that has been
/// refused leaves nothing behind.
#[test]
fn a_bad_watch_is_refused() {
    let mut process = start(3);
    let mut a = Native::connect(&mut process, 0);
    let with = |at: usize, value: u8| {
        let (code, flags, mut body) = watch(1, "x");
        body[at] = value;
        (code, flags, body)
    };
    let got = a.ask(
        &mut process,
        &[
            watch(1, ""),
            watch(1, &"n".repeat(256)),
            with(4, 0),
            with(4, 0x10),
            watch_with(4, 1, "x"),
            (op::WATCH, 0, vec![1, 2, 3]),
            watch_with(op::WATCH_RESUME, 1, ""),
            (op::UNWATCH, 0, vec![1]),
            unwatch(1),
            watch(1, "x"),
            watch(1, "y"),
        ],
    );
    assert_eq!(
        words(&got),
        "BADNAME, BADNAME, MALFORMED, UNSUPPORTED, UNSUPPORTED, MALFORMED, MALFORMED, MALFORMED, \
         NOTOWNER, DATA, EXISTS"
    );
}

/// Watches go with their connection, also when it goes before they have begun.
#[test]
fn nothing_is_left_of_a_lost_connection() {
    let mut process = start(3);
    let mut a = Native::connect(&mut process, 0);
    for round in 0..20 {
        let mut watcher = Native::connect(&mut process, round % 3);
        let ops: Vec<_> = (0..50).map(|i| watch_with(SNAPSHOT, i, &format!("{i}/"))).collect();
        watcher.send(&mut process, &ops);
        for shard in 0..round % 4 {
            process.turn(shard % 3, 1);
        }
        process.disconnect(watcher.link);
        process.settle();
    }
    a.ask(&mut process, &(0..50).map(|i| register(&format!("{i}/1"))).collect::<Vec<_>>());
    assert_eq!(process.strays(), 0);
    let watches: usize = (0..3).map(|shard| process.shard(shard).watches()).sum();
    assert_eq!(watches, 0);
    process.run_for(Span::from_s(200));
    (0..3).for_each(|shard| process.stop(shard));
    process.disconnect(a.link);
    process.settle();
    assert!((0..3).all(|shard| process.shard(shard).may_stop()), "nobody waits for an answer");
}

/// A name whose owner has ended is asked for in a way for which there is no memory: it is free, and
/// its watchers hear so although nobody sweeps it any more.
#[test]
fn a_grant_that_fails_hides_no_end() {
    let mut process = Process::start(&Settings { side_bytes: 0, ..Settings::default() });
    let (mut a, _) = client(&mut process, 1);
    let (mut b, _) = client(&mut process, 2);
    let mut watcher = Native::connect(&mut process, 0);
    watcher.ask(&mut process, &[watch(1, "x")]);
    a.ask(&mut process, &[register("x")]);
    assert_eq!(heard_words(&mut watcher, &mut process), "x+1");
    // Both are read in one turn, and swept is behind that.
    a.send(&mut process, &[(op::CLOSE, 0, Vec::new())]);
    b.send(&mut process, &[register_as(op::MODE_SHARED, 0, "x")]);
    process.settle();
    b.receive(&mut process);
    assert_eq!(words(&b.frames.pop().expect("answered")), "FULL");
    assert_eq!(heard_words(&mut watcher, &mut process), "x-1");
    let verbs = process.shard(0).stats().verbs;
    assert_eq!(verbs[VERBS.iter().position(|verb| *verb == "watch").expect("counted")], 1);
}

/// Two users, of which one sees a namespace only.
fn users(namespace: &str) -> Users {
    Users::new(&[("0", None, false), ("1", Some(namespace), false)])
}

/// A user watches what its namespaces cover. When they are taken away the watch ends with `GAP`.
#[test]
fn a_watch_needs_access() {
    let mut process = guarded(2, || users("mine"));
    let mut user = Native::connect(&mut process, 0);
    let mut all = Native::connect(&mut process, 1);
    let auth = |user: &[u8]| (op::AUTH, 0, [&[1], user, &[1], b"p"].concat());
    assert_eq!(words(&user.ask(&mut process, &[watch(1, "mine/")])), "NOAUTH");
    all.ask(&mut process, &[auth(b"0")]);
    let got = user.ask(
        &mut process,
        &[auth(b"1"), watch(1, "mine/"), watch(2, "mine"), watch(3, "yours/"), watch(4, "mines/")],
    );
    assert_eq!(words(&got), "OK, DATA, DATA, DENIED, DENIED");
    all.ask(&mut process, &[register("mine/1"), register("yours/1")]);
    assert_eq!(heard_words(&mut user, &mut process), "mine/1+1");
    process.replace_access(|| users("none"));
    assert_eq!(heard_words(&mut user, &mut process), "GAP GAP");
    all.ask(&mut process, &[release("mine/1")]);
    assert_eq!(heard_words(&mut user, &mut process), "");
}

/// A connection that the server closes amid a snapshot hears no more of it: nothing is written
/// behind the end, however far the snapshot was.
#[test]
fn a_snapshot_ends_with_its_connection() {
    for (shards, delay) in
        [2, 3, 5].into_iter().flat_map(|shards| (0..8).map(move |at| (shards, at)))
    {
        let mut process = start(shards);
        let mut operator = Native::connect(&mut process, 0);
        let mut watcher = Native::connect(&mut process, 1);
        let bare = opened(&watcher.ask(&mut process, &[open(op::OPEN_BARE, 7, 10_000, None)])[0]);
        operator.ask(&mut process, &[register("a/1"), register("a/2"), register("a/3")]);
        watcher.send(&mut process, &[watch_with(SNAPSHOT, 1, "a/")]);
        for turn in 0..16 {
            if turn == delay {
                let kill = (op::KILL, 0, bare.session.0.to_le_bytes().to_vec());
                operator.send(&mut process, &[kill]);
            }
            for shard in 0..shards {
                process.turn(shard, 1);
            }
        }
        process.settle();
        assert!(process.is_closed(watcher.link));
        assert_eq!(process.strays(), 0, "{shards} shards, killed in turn {delay}");
    }
}
