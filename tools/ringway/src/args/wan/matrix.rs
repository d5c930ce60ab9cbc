//! Arguments of `ringway wan matrix`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(crate) const MATRIX_HELP: &str = "\
Words say what lines are like, and are those of `ringway wan link`; one with several values, as
rtt=10ms,300ms, makes a cell of each. What is not said: 200 Mbit/s, 10 to 300 ms, 1 to 20 % lost
both ways, packets of 1500 bytes. Every run has two new network namespaces and a new link between
them, one connection of iperf3 from the first to the second, and counts what its receiver got.
`bound` is the rate times what is not lost, and beside each result stands its share of that.

ringway            a tunnel with carriers over UDP
ringway-tcp        the same without
cubic, bbr         no tunnel; the kernel's TCP with this congestion control
kcptun             kcptun-client and kcptun-server, mode fast3, AES-128, no compression, no FEC, and
                   windows of 8 round trips' bytes, of 8192 packets at least: what suits it best
gotatun            WireGuard in user space (gotatun-cli of crates.io), the kernel's BBR through it

A run takes as long as 200 round trips, and 20 s at least, after 30 round trips and 5 s to begin
with. What has not come to an end 60 s later (--patience) is ended and has failed. With --into each
run is written down when it is done, and the same command goes on where it was stopped, and tries
again what has failed; what another build of this program or another --seed has measured does not
count. A * behind a share says that the machine could not keep up, and below the table stands with
what.

Needs root, and iperf3. Exit code 1 if a run has failed, or with --check if the tunnel (`ringway`)
brings less than 85 % of the bound somewhere; 2 for words that are wrong; 3 if a program is missing
or no link can be made here.

What it has started and made goes with it. After `kill -9` two empty network namespaces, a
socket and a tunnel's keys are left; `ringway wan link clean rwmPID`, PID being the process, removes
them.

Examples:
  ringway wan matrix --into matrix.jsonl
  ringway wan matrix rtt=100ms loss=1%,20% --rounds 5 --contestants ringway,bbr,kcptun
  ringway wan matrix rtt=30ms,300ms loss=5% --for 10s --contestants ringway --check";

/// Who carries the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contestant {
    /// A tunnel with carriers over UDP.
    Ringway,
    /// A tunnel with carriers over TCP alone.
    RingwayTcp,
    /// The kernel's TCP with CUBIC.
    Cubic,
    /// The kernel's TCP with BBR.
    Bbr,
    /// kcptun.
    Kcptun,
    /// WireGuard by gotatun, and the kernel's TCP with BBR through it.
    Gotatun,
}

impl Contestant {
    /// Whether it is this program, and not another's.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Contestant::Ringway | Contestant::RingwayTcp)
    }

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contestant::Ringway => "ringway",
            Contestant::RingwayTcp => "ringway-tcp",
            Contestant::Cubic => "cubic",
            Contestant::Bbr => "bbr",
            Contestant::Kcptun => "kcptun",
            Contestant::Gotatun => "gotatun",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// What lines are like.
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// Who runs on each, one after the other, once.
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "ringway,cubic,bbr"
    )]
    pub(crate) contestants: Vec<Contestant>,
    /// Runs of each on each; what is said is their median, of an even number the mean of the middle
    /// two.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = rounds())]
    pub(crate) rounds: u32,
    /// How long a run takes, up to 24h [default: 200 round trips, and 20s at least].
    #[arg(long = "for", value_name = "TIME", id = "length")]
    pub(crate) length: Option<String>,
    /// How much longer than its time a run may take to come to an end, before it has failed.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) patience: String,
    /// Links with the same number lose the same packets; each round has the next one.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where to keep results, a line of JSON each; runs that it has of this build and seed are not
    /// done again. A file like any other, no device.
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,
    /// Exit with 1 if the tunnel misses its bar in a cell; `ringway` has to be among those who run.
    #[arg(long)]
    pub(crate) check: bool,
}

fn rounds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1000)
}
