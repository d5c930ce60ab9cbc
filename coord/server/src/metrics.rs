//! What a shard counts, and how others read it without being noticed.
//!
//! One thread writes (the shard), any thread reads. Every number is a relaxed atomic that its
//! writer loads and stores: no locked instruction on the hot path, and a reader sees numbers that
//! are each true at some recent moment, though not all at the same one.
//!
//! Invariants:
//! - M1  Only the shard that owns a [`ShardMetrics`] writes to it.
//! - M2  A counter never goes back; a peak only grows; a gauge is what it was last set to.
//!
//! Bounds: constant time and no allocation to count; at most 5 KiB a shard, checked at compile
//! time.
//! Not here: who asks for the numbers (`admin.rs`), when they are counted (`pump.rs`).
//! Tests: below.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use ringway_coord_proto::stats::{REFUSALS, refusal_index, refusal_status};
use ringway_coord_proto::wire::status;
use ringway_shards::{DURATION_CLASSES, duration_class, duration_class_end_ns};
use serde::{Deserialize, Serialize};

use crate::admin::Health;
use crate::quotas::NamespaceView;

/// Buckets of a latency histogram: below 256 ns, then doubling, the last without an upper bound.
pub const BUCKETS: usize = DURATION_CLASSES;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the owner may. Not a locked add: there is no second writer to lose.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Sets; only the owner may.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Raises to `value` if that is larger; only the owner may.
    #[inline]
    pub fn raise(&self, value: u64) {
        if value > self.0.load(Ordering::Relaxed) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    /// The number as of some recent moment.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How two shards' numbers become one, and what Prometheus is told they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Peak,
}

/// Declares every plain number once: its place in the shard, in the snapshot, and in `/metrics`.
macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident,)+) => {
        /// The numbers of one shard, written by it alone.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct ShardMetrics {
            $($(#[doc = $doc])+ pub $name: Count,)+
            /// How many turns took how long.
            pub turn_buckets: [Count; BUCKETS],
            refused: [Count; REFUSALS],
            verbs: [VerbMetrics; Verb::ALL.len()],
        }

        /// What one shard's numbers were at some recent moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct ShardView {
            /// The shard.
            pub shard: u32,
            /// The core that its thread is pinned to; absent if it is not.
            pub core: Option<u32>,
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// How many turns took how long: below 256 ns, then doubling; the last without an
            /// upper bound. Without the time spent waiting.
            pub turn_buckets: Vec<u64>,
            /// Operations refused, by the name of their status.
            pub refused: BTreeMap<String, u64>,
            /// Operations done and how long they took, by verb; absent if there were none.
            pub verbs: BTreeMap<String, VerbView>,
        }

        impl ShardMetrics {
            /// The numbers as they are now.
            pub fn snapshot(&self, shard: u32, core: Option<u32>) -> ShardView {
                ShardView {
                    shard,
                    core,
                    $($name: self.$name.get(),)+
                    turn_buckets: self.turn_buckets.iter().map(Count::get).collect(),
                    refused: self.refused(),
                    verbs: self.verbs(),
                }
            }
        }

        impl ShardView {
            /// Adds another shard's numbers to these: counters and gauges add up, of peaks the
            /// larger one stays.
            pub fn merge(&mut self, other: &ShardView) {
                $(self.$name = merged(Kind::$kind, self.$name, other.$name);)+
                add_buckets(&mut self.turn_buckets, &other.turn_buckets);
                for (status, count) in &other.refused {
                    *self.refused.entry(status.clone()).or_default() += count;
                }
                for (verb, view) in &other.verbs {
                    self.verbs.entry(verb.clone()).or_default().merge(view);
                }
            }
        }

        /// Name, kind, help and reader of every plain number.
        const NUMBERS: &[Number] = &[
            $(Number {
                name: stringify!($name),
                kind: Kind::$kind,
                help: concat!($($doc),+),
                read: |view| view.$name,
            },)+
        ];
    };
}

numbers! {
    /// Slots that the shard owns.
    slots: Gauge,
    /// Names with an owner.
    names: Gauge,
    /// Sessions whose home is the shard.
    sessions: Gauge,
    /// Open client connections.
    connections: Gauge,
    /// Connections accepted.
    connections_accepted: Counter,
    /// Operations executed, by whatever protocol they came.
    requests: Counter,
    /// Turns of the shard's loop.
    turns: Counter,
    /// Most operations taken up in one turn, weighed by what they cost.
    turn_ops_max: Peak,
    /// Longest turn, without the time spent waiting, in nanoseconds.
    turn_ns_max: Peak,
    /// Time spent in turns, without the time spent waiting, in nanoseconds.
    turn_ns: Counter,
    /// Operations sent to the shard that owns their slot.
    forwarded_out: Counter,
    /// Operations executed for a connection of another shard.
    forwarded_in: Counter,
    /// Bytes that wait here for room in the mailboxes of other shards.
    mailbox_depth: Gauge,
    /// Most receive buffers that held bytes at once.
    buffers_in_use: Peak,
    /// Bytes received from clients.
    bytes_in: Counter,
    /// Bytes sent to clients.
    bytes_out: Counter,
    /// Bytes of the object table.
    table_bytes: Gauge,
    /// Bytes of buffers: input that waits, replies that wait or are not read yet.
    buffer_bytes: Gauge,
    /// Bytes of everything that the shard allocated, the table included.
    memory_bytes: Gauge,
    /// Sessions ended because their lease ran out.
    expired_sessions: Counter,
    /// Names released because their session had ended.
    swept_names: Counter,
    /// Sessions opened.
    opened_sessions: Counter,
    /// Sessions taken over by their secret.
    resumed_sessions: Counter,
    /// Sessions ended because their node opened another.
    replaced_sessions: Counter,
    /// Sessions ended by an operator.
    killed_sessions: Counter,
    /// Sessions ended by their client, or with their connection.
    closed_sessions: Counter,
    /// Connections closed because their bytes could not be followed.
    protocol_errors: Counter,
    /// Authentications that failed.
    auth_failures: Counter,
    /// Times a connection was no longer read because it did not read its replies.
    readers_blocked: Counter,
    /// Times a connection waited because another shard was behind.
    waits_for_shards: Counter,
    /// Times a connection waited because the memory for buffers was spent.
    waits_for_memory: Counter,
    /// Connections closed because they held most of the memory for buffers when it was spent.
    cut_for_memory: Counter,
    /// Connections refused because the shard had as many as max_memory allows.
    connections_refused: Counter,
    /// Connections closed because they did not authenticate in time.
    auth_timeouts: Counter,
    /// Notices whose connection was gone.
    notices_dropped: Counter,
    /// Messages put into the output of the connection that receives for the session.
    messages_delivered: Counter,
    /// Messages to names that nobody owned.
    messages_unowned: Counter,
    /// Messages dropped because the session had no connection that could hear them.
    messages_away: Counter,
    /// Messages dropped because the receiver had too much unread.
    messages_full: Counter,
    /// Messages refused because the sender did not hold the source name under its token.
    messages_fenced: Counter,
    /// Messages refused because too much was under way to the receiver's shard.
    messages_busy: Counter,
    /// Notices for sessions that had no connection to hear them.
    notices_away: Counter,
    /// Watches of the shard's connections.
    watches: Gauge,
    /// Notices written for watches.
    watch_notices: Counter,
    /// Times a watch could not be told everything.
    watch_gaps: Counter,
    /// Times a watch was passed over because its connection did not read.
    watchers_passed_over: Counter,
    /// Changes dropped for want of room before everybody had heard of them.
    watch_changes_dropped: Counter,
    /// Claims of sessions on names that they share or wait for.
    claims: Gauge,
    /// Bytes of metadata of names, of further holders, and of those who wait.
    side_bytes: Gauge,
    /// Turns that came so late that lease time stood still.
    stalls: Counter,
    /// Messages taken from mailboxes.
    mails: Counter,
    /// Times the shard slept.
    sleeps: Counter,
    /// Receives that ended because no buffer was free.
    buffers_exhausted: Counter,
}

fn merged(kind: Kind, mine: u64, theirs: u64) -> u64 {
    match kind {
        Kind::Counter | Kind::Gauge => mine.saturating_add(theirs),
        Kind::Peak => mine.max(theirs),
    }
}

/// What a client can ask for. RESP commands count under the verb that they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// Who owns a name; `GET`.
    Query,
    /// Claim a name; `SET NX`.
    Register,
    /// Give a name back; `DEL`, the unlock scripts.
    Release,
    /// Open or resume a session.
    Open,
    /// Renew a lease; `PEXPIRE`.
    Renew,
    /// End a session.
    Close,
    /// Add a sending connection.
    Attach,
    /// One session, or a page of them.
    Sessions,
    /// End a session for an operator.
    Kill,
    /// A page of names.
    List,
    /// Echo.
    Ping,
    /// Wait for a name, or no longer.
    Wait,
    /// What is said about a name.
    Meta,
    /// Give a name to another session, or take it away.
    Transfer,
    /// Everything about the server itself: map, counters, `INFO`, `COMMAND`, `AUTH`.
    Server,
    /// A message to a name, a session, or all of them.
    Send,
    /// Watch names, or no longer.
    Watch,
}

impl Verb {
    /// All of them, by their number.
    pub const ALL: [Verb; 17] = [
        Verb::Query,
        Verb::Register,
        Verb::Release,
        Verb::Open,
        Verb::Renew,
        Verb::Close,
        Verb::Attach,
        Verb::Sessions,
        Verb::Kill,
        Verb::List,
        Verb::Ping,
        Verb::Wait,
        Verb::Meta,
        Verb::Transfer,
        Verb::Server,
        Verb::Send,
        Verb::Watch,
    ];

    /// The word for it, in JSON and as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Query => "query",
            Verb::Register => "register",
            Verb::Release => "release",
            Verb::Open => "open",
            Verb::Renew => "renew",
            Verb::Close => "close",
            Verb::Attach => "attach",
            Verb::Sessions => "sessions",
            Verb::Kill => "kill",
            Verb::List => "list",
            Verb::Ping => "ping",
            Verb::Wait => "wait",
            Verb::Meta => "meta",
            Verb::Transfer => "transfer",
            Verb::Server => "server",
            Verb::Send => "send",
            Verb::Watch => "watch",
        }
    }
}

#[derive(Debug, Default)]
struct VerbMetrics {
    latency_ns_sum: Count,
    buckets: [Count; BUCKETS],
}

const _: () = assert!(size_of::<ShardMetrics>() <= 5 * 1024, "the header says so");

impl ShardMetrics {
    /// Counts `ops` operations of a verb, each of which took `latency_ns` from the beginning of the
    /// turn that executed it until the turn's replies were written. Operations of one turn share a
    /// latency, so a batch costs one call.
    #[inline]
    pub fn verb_done(&self, verb: Verb, ops: u64, latency_ns: u64) {
        let metrics = &self.verbs[verb as usize];
        metrics.latency_ns_sum.add(latency_ns.wrapping_mul(ops));
        metrics.buckets[duration_class(latency_ns)].add(ops);
    }

    /// Counts `ops` operations that were answered with this status instead of being done.
    #[inline]
    pub fn refused_with(&self, status: u8, ops: u64) {
        if let Some(index) = refusal_index(status) {
            self.refused[index].add(ops);
        }
    }

    fn refused(&self) -> BTreeMap<String, u64> {
        let counted = self.refused.iter().enumerate().filter_map(|(index, count)| {
            let (status, count) = (refusal_status(index), count.get());
            (count > 0).then(|| (status::name(status).to_owned(), count))
        });
        counted.collect()
    }

    fn verbs(&self) -> BTreeMap<String, VerbView> {
        let done = Verb::ALL.into_iter().filter_map(|verb| {
            let metrics = &self.verbs[verb as usize];
            let buckets: Vec<u64> = metrics.buckets.iter().map(Count::get).collect();
            let count: u64 = buckets.iter().sum();
            let latency_ns_sum = metrics.latency_ns_sum.get();
            let view = VerbView { count, latency_ns_sum, buckets };
            (count > 0).then(|| (verb.name().to_owned(), view))
        });
        done.collect()
    }
}

/// What one verb did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbView {
    /// Operations.
    pub count: u64,
    /// The sum of their latencies, in nanoseconds.
    pub latency_ns_sum: u64,
    /// How many took how long: below 256 ns, then doubling; the last without an upper bound.
    pub buckets: Vec<u64>,
}

impl VerbView {
    /// The latency below which `per_mille` of the operations stayed, in nanoseconds: interpolated
    /// within its bucket, so good to a factor of two. Zero if there were no operations.
    pub fn quantile_ns(&self, per_mille: u64) -> u64 {
        let wanted = (self.count * per_mille).div_ceil(1000).max(1);
        let mut below = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if below + count >= wanted {
                let start = if bucket == 0 { 0 } else { duration_class_end_ns(bucket - 1) };
                let width = u128::from(duration_class_end_ns(bucket) - start);
                let part = width * u128::from(wanted - below) / u128::from(count.max(1));
                return start + part as u64;
            }
            below += count;
        }
        0
    }

    /// What was added since `earlier`, an older view of the same verb.
    pub fn since(&self, earlier: &VerbView) -> VerbView {
        let older = |bucket| earlier.buckets.get(bucket).copied().unwrap_or(0);
        let buckets = self.buckets.iter().enumerate();
        VerbView {
            count: self.count.saturating_sub(earlier.count),
            latency_ns_sum: self.latency_ns_sum.saturating_sub(earlier.latency_ns_sum),
            buckets: buckets.map(|(at, count)| count.saturating_sub(older(at))).collect(),
        }
    }

    fn merge(&mut self, other: &VerbView) {
        self.count += other.count;
        self.latency_ns_sum = self.latency_ns_sum.saturating_add(other.latency_ns_sum);
        add_buckets(&mut self.buckets, &other.buckets);
    }
}

fn add_buckets(mine: &mut Vec<u64>, theirs: &[u64]) {
    mine.resize(mine.len().max(theirs.len()), 0);
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
}

/// A histogram's buckets as Prometheus wants them: upper bound in seconds, and count.
fn bounded(buckets: &[u64]) -> Vec<(f64, u64)> {
    let ends = (0..).map(|bucket| match bucket + 1 {
        BUCKETS => f64::INFINITY,
        _ => duration_class_end_ns(bucket) as f64 / 1e9,
    });
    ends.zip(buckets.iter().copied()).collect()
}

struct Number {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: fn(&ShardView) -> u64,
}

/// Everything as Prometheus reads it (the OpenMetrics text format).
pub fn prometheus_text(
    health: Health,
    shards: Vec<ShardView>,
    namespaces: Vec<NamespaceView>,
) -> String {
    let mut registry = Registry::with_prefix("ringway");
    registry.register_collector(Box::new(Scrape { health, shards, namespaces }));
    let mut text = String::new();
    let encoded = prometheus_client::encoding::text::encode(&mut text, &registry);
    encoded.expect("a string takes whatever is written to it");
    text
}

#[derive(Debug)]
struct Scrape {
    health: Health,
    shards: Vec<ShardView>,
    namespaces: Vec<NamespaceView>,
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Encoded {
        let ready = ConstGauge::new(i64::from(self.health.is_ready()));
        let help = "1 if names are granted now";
        ready.encode(encoder.encode_descriptor("ready", help, None, MetricType::Gauge)?)?;
        self.encode_numbers(&mut encoder)?;
        self.encode_refusals(&mut encoder)?;
        self.encode_namespaces(&mut encoder)?;
        self.encode_turns(&mut encoder)?;
        self.encode_latencies(&mut encoder)
    }
}

impl Scrape {
    fn encode_numbers(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        for number in NUMBERS {
            let kind = match number.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Peak => MetricType::Gauge,
            };
            let name = format!("shard_{}", number.name);
            let help = number.help.trim().trim_end_matches('.');
            let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
            for view in &self.shards {
                let labels = [("shard", view.shard)];
                let metric = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new((number.read)(view)).encode(metric)?,
                    _ => ConstGauge::new((number.read)(view)).encode(metric)?,
                }
            }
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let help = "Operations refused, by status";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("shard_refused", help, None, kind)?;
        for view in &self.shards {
            for (status, count) in &view.refused {
                let labels = [("shard", view.shard.to_string()), ("status", status.clone())];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_namespaces(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        type Number = fn(&NamespaceView) -> u64;
        let of: [(&str, &str, Number); 2] = [
            ("namespace_names", "Names of a namespace with a quota", |view| view.names),
            ("namespace_names_max", "Names that it may have", |view| view.names_max),
        ];
        for (name, help, number) in of {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for view in &self.namespaces {
                let labels = [("namespace", view.namespace.as_str())];
                ConstGauge::new(number(view)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_turns(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let help = "Turns of the shard's loop, without the time spent waiting";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut family = encoder.encode_descriptor("shard_turn_duration", help, unit, kind)?;
        for view in &self.shards {
            let labels = [("shard", view.shard)];
            let (sum, count) = (view.turn_ns as f64 / 1e9, view.turn_buckets.iter().sum());
            let mut metric = family.encode_family(&labels)?;
            let buckets = bounded(&view.turn_buckets);
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_latencies(&self, encoder: &mut DescriptorEncoder) -> Encoded {
        let help = "From the beginning of the turn that executed it until its replies were written";
        let unit = Some(&Unit::Seconds);
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor("shard_latency", help, unit, kind)?;
        for view in &self.shards {
            for (verb, done) in &view.verbs {
                let labels = [("shard", view.shard.to_string()), ("verb", verb.clone())];
                let buckets = bounded(&done.buckets);
                let sum = done.latency_ns_sum as f64 / 1e9;
                let mut metric = family.encode_family(&labels)?;
                metric.encode_histogram::<NoLabelSet>(sum, done.count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two shards counted adds up, verb by verb, and the longest turn of either is kept.
    #[test]
    fn shards_merge() {
        let (one, two) = (ShardMetrics::default(), ShardMetrics::default());
        one.requests.add(3);
        two.requests.add(4);
        one.turn_ns_max.raise(900);
        two.turn_ns_max.raise(100);
        two.turn_ns_max.raise(50);
        one.verb_done(Verb::Query, 10, 1_000);
        two.verb_done(Verb::Query, 5, 2_000_000_000_000);
        two.verb_done(Verb::Kill, 1, 1);
        one.refused_with(status::HELD, 1);
        two.refused_with(status::HELD, 1);
        two.refused_with(status::FULL, 1);
        let mut view = one.snapshot(0, Some(2));
        view.merge(&two.snapshot(1, None));
        assert_eq!((view.requests, view.turn_ns_max), (7, 900));
        assert_eq!(view.verbs["query"].count, 15);
        assert_eq!(view.verbs["query"].buckets[BUCKETS - 1], 5);
        assert_eq!(view.verbs["kill"].count, 1);
        assert!(!view.verbs.contains_key("open"), "silence is not a row");
        assert_eq!(view.refused["HELD"], 2);
        assert_eq!(view.refused["FULL"], 1);
    }

    /// Every refusal of the protocol has a slot of its own: none is counted under another's name.
    #[test]
    fn refusals_do_not_collide() {
        for status in (0xC0..=0xFFu8).chain([status::HELD, status::STARTING]) {
            let name = status::name(status);
            if name == "UNKNOWN_STATUS" {
                continue;
            }
            let metrics = ShardMetrics::default();
            metrics.refused_with(status, 1);
            let view = metrics.snapshot(0, None);
            let found: Vec<_> = view.refused.keys().map(String::as_str).collect();
            assert_eq!(found, [name], "{status:#x}");
        }
    }

    /// A quantile lies in the right bucket, and grows with the share asked for.
    #[test]
    fn quantiles_follow_the_buckets() {
        let metrics = ShardMetrics::default();
        assert_eq!(VerbView::default().quantile_ns(500), 0);
        metrics.verb_done(Verb::Query, 990, 300);
        metrics.verb_done(Verb::Query, 10, 100_000);
        let view = metrics.snapshot(0, None).verbs.remove("query").expect("counted");
        assert!((256..=512).contains(&view.quantile_ns(500)));
        assert!((256..=512).contains(&view.quantile_ns(990)));
        assert!((65_536..=131_072).contains(&view.quantile_ns(999)));
        let before = view.clone();
        metrics.verb_done(Verb::Query, 1, 100_000);
        let view = metrics.snapshot(0, None).verbs.remove("query").expect("counted");
        assert_eq!(view.since(&before).count, 1);
        assert!(view.since(&before).quantile_ns(500) >= 65_536);
    }

    /// The text names every number once per shard, with its type, and ends as OpenMetrics asks.
    #[test]
    fn prometheus_reads_it() {
        let metrics = ShardMetrics::default();
        metrics.requests.add(12);
        metrics.verb_done(Verb::Query, 12, 700);
        metrics.refused_with(status::HELD, 1);
        metrics.turn_buckets[3].add(1);
        let shards = vec![metrics.snapshot(0, None), ShardMetrics::default().snapshot(1, None)];
        let (namespace, names, names_max) = ("orders".to_owned(), 3, 5);
        let namespaces = vec![NamespaceView { namespace, names, names_max }];
        let text = prometheus_text(Health::Ready, shards, namespaces);
        let bucket = "ringway_shard_latency_seconds_bucket";
        let at = |le: &str| format!("{bucket}{{le=\"{le}\",shard=\"0\",verb=\"query\"}} 12");
        let (microsecond, all) = (at("0.000001024"), at("+Inf"));
        for line in [
            "# TYPE ringway_ready gauge",
            "ringway_ready 1",
            "# TYPE ringway_shard_requests counter",
            "ringway_shard_requests_total{shard=\"0\"} 12",
            "ringway_shard_requests_total{shard=\"1\"} 0",
            "ringway_shard_refused_total{shard=\"0\",status=\"HELD\"} 1",
            "ringway_namespace_names{namespace=\"orders\"} 3",
            "ringway_namespace_names_max{namespace=\"orders\"} 5",
            "ringway_shard_turn_duration_seconds_count{shard=\"0\"} 1",
            "ringway_shard_latency_seconds_count{shard=\"0\",verb=\"query\"} 12",
            &microsecond,
            &all,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
    }
}
