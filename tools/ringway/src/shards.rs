//! `ringway shards`: what every shard has and does.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringway_client::{Client, ShardMap, ShardRun};
use ringway_coord_server::metrics::{ShardView, Verb, VerbView};
use ringway_core::ShardId;
use serde_json::{Value, json};

use crate::args::client::{ServerArgs, ShardsArgs};
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{say, short, size, table, time};
use crate::signals::Stop;

pub(crate) fn run(args: &ShardsArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let stop = Stop::install()?;
    let mut client = connect(server)?;
    let interval = Duration::from_secs_f64(args.watch.unwrap_or(1.0));
    let clear = args.watch.is_some() && std::io::stdout().is_terminal();
    let mut before = Sample::take(&mut client)?;
    loop {
        if stop.wait_for(interval) {
            return Ok(ExitCode::SUCCESS);
        }
        let now = Sample::take(&mut client)?;
        let rates = now.since(&before);
        let text = match (json, args.watch.is_some()) {
            (true, true) => Value::from_iter(rates.iter().map(Rates::json)).to_string(),
            (true, false) => format!("{:#}", Value::from_iter(rates.iter().map(Rates::json))),
            (false, _) => page(&rates),
        };
        let home = if clear && !json { "\x1b[H\x1b[2J" } else { "" };
        say(&format!("{home}{text}"));
        if args.watch.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

/// All shards' counters at one moment.
struct Sample {
    at: Instant,
    map: ShardMap,
    views: Vec<ShardView>,
}

impl Sample {
    fn take(client: &mut Client) -> Result<Sample, Failure> {
        let map = client.shard_map()?;
        let at = Instant::now();
        let views = (0..map.shards).map(|shard| {
            let text = client.shard_stats(ShardId(shard))?;
            serde_json::from_str(&text).map_err(|error| {
                let why = "is it of another release?";
                Failure::Unreachable(format!("the server's counters are not ours ({error}); {why}"))
            })
        });
        let views = views.collect::<Result<_, _>>()?;
        Ok(Sample { at, map, views })
    }

    fn since<'a>(&'a self, before: &Sample) -> Vec<Rates<'a>> {
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        let paired = self.views.iter().enumerate().map(|(at, now)| {
            // A server that was restarted meanwhile begins at zero again.
            let same = before.views.get(at).filter(|old| old.requests <= now.requests);
            let old = same.cloned().unwrap_or_default();
            let runs = self.map.runs.iter().filter(|run| u32::from(run.shard.0) == now.shard);
            Rates::new(now, &old, seconds, runs.collect())
        });
        paired.collect()
    }
}

/// What one shard did between two samples.
struct Rates<'a> {
    now: &'a ShardView,
    /// Where its slots lie.
    runs: Vec<&'a ShardRun>,
    requests_per_s: f64,
    turn_ops: f64,
    /// None if nothing was asked.
    forwarded_share: Option<f64>,
    busy_share: f64,
    verbs: Vec<(&'a str, VerbView, f64)>,
}

impl<'a> Rates<'a> {
    fn new(now: &'a ShardView, old: &ShardView, seconds: f64, runs: Vec<&'a ShardRun>) -> Self {
        let part = |of: u64, whole: u64| if whole == 0 { 0.0 } else { of as f64 / whole as f64 };
        let requests = now.requests - old.requests;
        let turns = now.turns.saturating_sub(old.turns);
        let forwarded = now.forwarded_out.saturating_sub(old.forwarded_out);
        // What its own connections asked about names and sessions: done here but not for another
        // shard, or sent away. Questions about the server itself, as ours are, are not among them.
        let for_others = now.forwarded_in.saturating_sub(old.forwarded_in);
        let about_us = count_of(now, Verb::Server).saturating_sub(count_of(old, Verb::Server));
        let asked = requests.saturating_sub(for_others + about_us) + forwarded;
        let verbs = now.verbs.iter().map(|(verb, done)| {
            let done = match old.verbs.get(verb) {
                Some(earlier) => done.since(earlier),
                None => done.clone(),
            };
            let per_s = done.count as f64 / seconds;
            (verb.as_str(), done, per_s)
        });
        Rates {
            now,
            runs,
            requests_per_s: requests as f64 / seconds,
            turn_ops: part(requests, turns),
            forwarded_share: (asked > 0).then(|| part(forwarded, asked)),
            busy_share: now.turn_ns.saturating_sub(old.turn_ns) as f64 / 1e9 / seconds,
            verbs: verbs.filter(|(_, done, _)| done.count > 0).collect(),
        }
    }

    /// The shard's own port.
    fn port(&self) -> Option<u16> {
        self.runs.iter().find_map(|run| run.port)
    }

    /// Its slots, as people write ranges.
    fn slots(&self) -> String {
        let range = |run: &&ShardRun| format!("{}-{}", run.first.number(), run.last.number());
        self.runs.iter().map(range).collect::<Vec<_>>().join(",")
    }

    fn row(&self) -> Vec<String> {
        let now = self.now;
        vec![
            now.shard.to_string(),
            now.core.map_or("-".to_owned(), |core| core.to_string()),
            self.port().map_or("-".to_owned(), |port| port.to_string()),
            self.slots(),
            short(now.names as f64),
            short(now.sessions as f64),
            short(now.connections as f64),
            short(self.requests_per_s),
            short(self.turn_ops),
            self.forwarded_share.map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0)),
            format!("{:.1}%", self.busy_share * 100.0),
            size(now.mailbox_depth),
            now.buffers_in_use.to_string(),
            size(now.memory_bytes),
        ]
    }

    fn json(&self) -> Value {
        let mut value = serde_json::to_value(self.now).expect("plain numbers");
        let latencies = self.verbs.iter().map(|(verb, done, per_s)| {
            let quantiles = json!({
                "per_s": per_s,
                "p50_ns": done.quantile_ns(500),
                "p99_ns": done.quantile_ns(990),
                "p999_ns": done.quantile_ns(999),
            });
            ((*verb).to_owned(), quantiles)
        });
        let ranges = self.runs.iter().map(|run| [run.first.number(), run.last.number()]);
        let rates = json!({
            "port": self.port(),
            "slot_ranges": ranges.collect::<Vec<_>>(),
            "requests_per_s": self.requests_per_s,
            "turn_ops": self.turn_ops,
            "forwarded_share": self.forwarded_share,
            "busy_share": self.busy_share,
            "latency": Value::Object(latencies.collect()),
        });
        if let (Some(all), Value::Object(rates)) = (value.as_object_mut(), rates) {
            all.extend(rates);
        }
        value
    }
}

/// How often a verb was done since the server's start.
fn count_of(view: &ShardView, verb: Verb) -> u64 {
    view.verbs.get(verb.name()).map_or(0, |done| done.count)
}

fn page(rates: &[Rates<'_>]) -> String {
    let head = [
        "shard", "core", "port", "slots", "names", "sess", "conns", "ops/s", "ops/turn", "fwd",
        "busy", "mail", "bufs", "mem",
    ];
    let rows: Vec<_> = rates.iter().map(Rates::row).collect();
    let mut text = table(&head, &rows);
    let verbs = rates.iter().flat_map(|rates| {
        rates.verbs.iter().map(|(verb, done, per_s)| {
            vec![
                rates.now.shard.to_string(),
                (*verb).to_owned(),
                short(*per_s),
                time(done.quantile_ns(500)),
                time(done.quantile_ns(990)),
                time(done.quantile_ns(999)),
            ]
        })
    });
    let verbs: Vec<_> = verbs.collect();
    if !verbs.is_empty() {
        text.push('\n');
        text.push_str(&table(&["shard", "verb", "ops/s", "p50", "p99", "p99.9"], &verbs));
    }
    text
}

#[cfg(test)]
mod tests {
    use ringway_coord_server::metrics::ShardMetrics;
    use ringway_core::Slot;

    use super::*;

    fn sample(at: Instant, metrics: &ShardMetrics) -> Sample {
        let (first, last) = (Slot::from_bits(0), Slot::from_bits(16383));
        let run = ShardRun { first, last, shard: ShardId(0), port: Some(7401) };
        let map = ShardMap { version: 1, shards: 1, runs: vec![run] };
        Sample { at, map, views: vec![metrics.snapshot(0, Some(3))] }
    }

    /// Rates are of the time between two samples, not of the server's whole life.
    #[test]
    fn rates_are_of_the_interval() {
        let metrics = ShardMetrics::default();
        metrics.requests.add(1_000_000);
        metrics.verb_done(Verb::Query, 1_000_000, 1_000_000_000);
        let begun = Instant::now();
        let before = sample(begun, &metrics);
        metrics.requests.add(3_000);
        metrics.turns.add(30);
        metrics.forwarded_out.add(1_000);
        metrics.forwarded_in.add(2_000);
        metrics.verb_done(Verb::Query, 3_000, 700);
        let now = sample(begun + Duration::from_secs(2), &metrics);
        let rates = now.since(&before);
        let json = rates[0].json();
        assert_eq!(json["requests_per_s"], 1500.0);
        assert_eq!(json["turn_ops"], 100.0);
        assert_eq!(json["forwarded_share"], 0.5);
        assert_eq!(json["core"], 3);
        assert!(json["latency"]["query"]["p99_ns"].as_u64().expect("a number") < 1_024);
        let page = page(&rates);
        assert!(page.contains("query") && page.contains("50.0%"), "{page}");
        assert!(page.contains("7401") && page.contains("0-16383"), "{page}");
        assert_eq!(json["slot_ranges"], json!([[0, 16383]]));
    }

    /// A server that is asked for nothing but its numbers has no forwarded share.
    #[test]
    fn our_own_questions_are_not_a_share() {
        let metrics = ShardMetrics::default();
        let begun = Instant::now();
        let before = sample(begun, &metrics);
        metrics.requests.add(2);
        metrics.verb_done(Verb::Server, 2, 700);
        let now = sample(begun + Duration::from_secs(1), &metrics);
        let rates = now.since(&before);
        assert_eq!(rates[0].json()["forwarded_share"], Value::Null);
        assert_eq!(rates[0].row()[9], "-");
    }

    /// A restarted server's counters begin again; no rate is negative or absurd.
    #[test]
    fn a_restart_is_not_a_negative_rate() {
        let (old, new) = (ShardMetrics::default(), ShardMetrics::default());
        old.requests.add(1_000);
        new.requests.add(10);
        let begun = Instant::now();
        let now = sample(begun + Duration::from_secs(1), &new);
        assert_eq!(now.since(&sample(begun, &old))[0].json()["requests_per_s"], 10.0);
    }
}
