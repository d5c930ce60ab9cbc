//! Arguments of `ringway wan sim`.

use std::path::PathBuf;

use clap::Args;

pub(crate) const SIM_HELP: &str = "\
Words say what lines are like, and are those of `ringway wan link`: rate=200mbit, rtt=40ms, loss=5%,
mtu=1500, burst=8, jitter=10ms, reorder=1%, queue=4bdp, back.loss=0, ... One with several values, as
rtt=10ms,300ms, makes a cell of each. What is not said is that of the documents' table: 12.5 Gbit/s,
10 to 300 ms, 1 to 20 % lost both ways, packets of 9000 and 1500 bytes. `documents` are the figures
that the project set out to beat, of a commercial tunnel's published table.

A cell has to bring 90 % of what can arrive with packets of 9000 bytes, 85 % with smaller ones, 80 %
with bursts, jitter or reordering, and to send at most 1.05 times what it must; at 9000 it has to be
above the documents. Where the queue has room for 4 round trips' bytes (queue=4bdp), the round trip
20 ms, and nothing is delayed by jitter or reordering, the connection may fill a quarter of a round
trip's bytes of it (median) and a half (p99). --check exits with 1 if a cell misses any of these.
With less than 2 GB of memory there is no bar. Lines of which nothing can arrive, or without a round
trip, are refused.

With --start, nine tenths have to be there after 5 round trips and 100 ms (median) and after 8 round
trips (p95), and a quarter of a round trip's bytes may overflow, where 5 % and less are lost; where
more is lost they have to be there after 20 round trips and 200 ms (p95).

With --beside, several send over one bottleneck, of 100 Mbit/s, 40 ms, and a queue of one and of two
round trips' bytes unless words say otherwise: one connection of ours and one of CUBIC, for example,
in both orders of coming, 5 s apart. They have 30 s to settle and are judged for 120 s. All have to
use 90 % of the rate. CUBIC has to keep 35 % of it beside us, and 0.8 times what it keeps beside BBR
in our place; we 25 %; BBR 25 %; ours among themselves have to have Jain's index at 0.95, also where
one has four times the other's round trip. Rows of CUBIC and BBR alone are there to compare with.
Where the link itself loses, delays or reorders packets there is no bar. Of several seeds the worst
of a row is shown.

Examples:
  ringway wan sim                                            the table
  ringway wan sim --check --json > table.json
  ringway wan sim rtt=300ms loss=20% --memory 2g,1g,256m
  ringway wan sim rate=200mbit loss=0 there.loss=5%,20% --seeds 5
  ringway wan sim rate=200mbit rtt=30ms,100ms loss=5% mtu=1500 queue=4bdp --check
  ringway wan sim --start --seeds 50 rate=100mbit,1gbit loss=1%,5%
  ringway wan sim --beside
  ringway wan sim --beside rate=20mbit rtt=25ms queue=100ms --seeds 3
  ringway wan sim rate=200mbit rtt=100ms loss=5% mtu=1500 --for 20s --plot steps.svg \\
      --at 5s rate=50mbit --at 10s rate=200mbit --at 15s down=1 --at 16s down=0";

/// What follows one cell, of which nothing is judged.
const FOLLOWED: [&str; 3] = ["at", "plot", "length"];

#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// What lines are like.
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// What each end may keep of the connection, as 2g or 256m.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "2g",
        value_parser = bytes
    )]
    pub(crate) memory: Vec<u64>,
    /// Seeds of each cell. What is said is the worst of a cell or row; of starts, median and p95.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = count(),
        conflicts_with_all = FOLLOWED
    )]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Round trips before anything is judged, mean jitter included, and at least 500 ms [default:
    /// 40]; with --beside, at least 20 s [default: 30 s].
    #[arg(long, value_name = "ROUNDS", value_parser = count(), conflicts_with_all = FOLLOWED)]
    pub(crate) warm_up: Option<u64>,
    /// Round trips that are judged, mean jitter included, and at least 500 ms [default: 40; with
    /// --beside 120 s].
    #[arg(long, value_name = "ROUNDS", value_parser = count(), conflicts_with_all = FOLLOWED)]
    pub(crate) time: Option<u64>,
    /// Cells at once [default: a core each].
    #[arg(long, value_name = "N", value_parser = count())]
    pub(crate) jobs: Option<u64>,
    /// Exit with 1 if a cell or a row misses its bar.
    #[arg(long, conflicts_with_all = FOLLOWED)]
    pub(crate) check: bool,
    /// Judge how connections start, not how they go on.
    #[arg(long, conflicts_with_all = ["at", "plot", "length", "warm_up", "time"])]
    pub(crate) start: bool,
    /// Judge what ours, CUBIC and BBRv1 leave to each other before one bottleneck.
    #[arg(long, conflicts_with_all = ["start", "at", "plot", "length", "memory"])]
    pub(crate) beside: bool,
    /// The line changes at this time, before the end, to what these words say: one argument, as in
    /// --at 5s 'rate=50mbit loss=3%'. May be given several times. Of one cell only.
    #[arg(long, num_args = 2, value_names = ["TIME", "WORDS"])]
    pub(crate) at: Vec<String>,
    /// How long one cell is followed, with --at and --plot [default: 10s].
    #[arg(long = "for", value_name = "TIME", id = "length")]
    pub(crate) length: Option<String>,
    /// Draw rate, loss, queue and window of one cell over time, as an SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

fn count() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=10_000)
}

fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(['k', 'm', 'g']);
    let scale = match &lower[digits.len()..] {
        "" => Some(1),
        "k" => Some(1_000),
        "m" => Some(1_000_000),
        "g" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(scale).and_then(|(one, all)| one.checked_mul(all));
    // A connection without room for some packets is none; more than this nobody has.
    let bytes = bytes.filter(|bytes| (100_000..=1 << 40).contains(bytes));
    bytes.ok_or_else(|| "give bytes with k, m or g, at least 100k, as 256m".to_owned())
}
