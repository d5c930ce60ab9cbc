//! Arguments of `ringway wan`.

pub(crate) mod matrix;
pub(crate) mod sim;

use std::ffi::OsString;

use clap::{Args, Subcommand};

use matrix::MatrixArgs;
use sim::SimArgs;

#[derive(Debug, Args)]
pub(crate) struct WanArgs {
    #[command(subcommand)]
    pub(crate) command: WanCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WanCommand {
    /// Real links between two network namespaces of this machine: rate, delay, loss and outages as
    /// you say, changeable while they run.
    #[command(after_help = LINK_HELP)]
    Link(LinkArgs),
    /// The transport for lossy paths in virtual time: what one connection reaches, without a
    /// network.
    #[command(after_help = sim::SIM_HELP)]
    Sim(Box<SimArgs>),
    /// One connection of iperf3 through the tunnel, and beside it through others, over real links:
    /// a table.
    #[command(after_help = matrix::MATRIX_HELP)]
    Matrix(MatrixArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(subcommand)]
    pub(crate) command: LinkCommand,
}

const LINK_HELP: &str = "\
A link is told in words. One that begins with `there.` is of the direction from the first namespace
to the second only, `back.` of the other; without, of both.

  rate=200mbit      bits a second of IP packets (kbit, mbit, gbit); every link needs it
  rtt=40ms          the round trip; or delay=20ms, of one direction
  queue=2bdp        what waits before the bottleneck: round trips, a time (50ms) or bytes (64kib)
                    [usual: 1bdp, and 20ms at least]
  loss=5%           packets that are lost behind it (also 0.1% or 50ppm)
  burst=8           the mean length of bursts of loss, in full packets [0: no bursts]
  jitter=10ms       up to so much more delay, without changing the order
  reorder=1%        packets that come late, by reorder_by=5ms
  down=1            nothing arrives
  mtu=1500          576 to 9000, of both directions

Examples:
  ringway wan link run 'rate=200mbit rtt=40ms' 'rate=50mbit rtt=300ms loss=5% burst=8'
  ip netns exec rw-b iperf3 -s -1 &
  ip netns exec rw-a iperf3 -c 10.77.2.2
  ringway wan link set 1 loss=5% down=1
  ringway wan link show";

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Make links and run them until Ctrl-C, or until a command has ended. Needs root.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Change links that run.
    #[command(after_help = SET_HELP)]
    Set(SetArgs),
    /// What running links are like, and what they have done to packets.
    #[command(after_help = SHOW_HELP)]
    Show(NameArgs),
    /// Remove what a killed run has left: its two network namespaces, its socket, and keys of
    /// `wan matrix`.
    #[command(after_help = CLEAN_HELP)]
    Clean(NameArgs),
}

const RUN_HELP: &str = "\
Link N is the device wanN with the addresses 10.77.N.1 in the namespace NAME-a and 10.77.N.2 in
NAME-b, in IPv6 fd77:N::1 and fd77:N::2. When all are up, one line `ready ...` is printed. In the
end namespaces, devices and socket are removed.

Examples:
  ringway wan link run 'rate=200mbit rtt=300ms loss=20%'
  ringway wan link run --name lab 'rate=1gbit rtt=10ms mtu=9000' 'rate=20mbit rtt=60ms'
  ringway wan link run 'rate=10mbit rtt=100ms' --exec ping -c 5 10.77.1.2

The exit code is 0, or that of the command, as of a shell: 127 if there is no such command, 126 if
it cannot be run. 3 if the links cannot be made here. Ctrl-C in a terminal reaches the command, too.
A signal to this process alone is SIGTERM to the command, whichever it is: 143 if that ends it.";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What the run is called, and its namespaces before -a and -b.
    #[arg(long, default_value = NAME, value_name = "NAME")]
    pub(crate) name: String,
    /// The same number loses the same packets [default: another one each time].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Wait the last 50 us before a packet is due with a busy processor: more exact, and costs one.
    #[arg(long)]
    pub(crate) spin: bool,
    /// A link in words, in quotes; several run beside each other.
    #[arg(value_name = "LINK", required = true)]
    pub(crate) links: Vec<String>,
    /// Run a command in the first namespace, and end with it. Stands last.
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) exec: Vec<OsString>,
}

const SET_HELP: &str = "\
What is not named stays. Packets on the way are treated as a real line would: what waits for the
bottleneck goes on at the new rate, what is beyond arrives.

Examples:
  ringway wan link set 1 loss=5% down=1
  ringway wan link set all rate=20mbit back.loss=10%";

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The run.
    #[arg(long, default_value = NAME, value_name = "NAME")]
    pub(crate) name: String,
    /// The number of a link, or `all`.
    #[arg(value_name = "LINK", value_parser = which)]
    pub(crate) link: Which,
    /// What it is to be like.
    #[arg(value_name = "WORD", required = true)]
    pub(crate) words: Vec<String>,
}

/// One link, or all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which(pub(crate) Option<usize>);

const SHOW_HELP: &str = "\
`lost` and `cut` (while down) are what was asked for, `overflowed` had no room in the queue. What
was nobody's wish stands apart: `refused` by a device, and what came out more than 1 ms late,
because this machine was busy. A measurement with much of that has measured the machine.

Exit code 0, or 4 if no links of this name run.

Examples:
  ringway wan link show
  ringway wan link show --json lab";

const CLEAN_HELP: &str = "\
A run that lives is left alone: exit code 3.

Examples:
  ringway wan link clean
  ringway wan link clean lab
  ringway wan link clean rwm4711        of `ringway wan matrix`, 4711 being its process";

/// A run, by its place or by `--name`, as the other commands have it.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The run [default: rw].
    #[arg(value_name = "NAME")]
    run: Option<String>,
    /// The same, as `run` and `set` have it.
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    name: Option<String>,
}

impl NameArgs {
    pub(crate) fn name(&self) -> &str {
        self.run.as_ref().or(self.name.as_ref()).map_or(NAME, String::as_str)
    }
}

const NAME: &str = "rw";

fn which(text: &str) -> Result<Which, String> {
    if text == "all" {
        return Ok(Which(None));
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(|number| Which(Some(number))).ok_or("give the number of a link, or all".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    /// The lines of the documentation parse; a command takes all that stands behind it.
    #[test]
    fn documented_lines_parse() {
        for line in [
            "ringway wan link run rate=200mbit rate=50mbit",
            "ringway wan link set 1 loss=5% down=1",
            "ringway wan link set all rate=20mbit back.loss=10%",
            "ringway wan link show --json lab",
            "ringway wan link show --name lab",
            "ringway wan link clean lab",
            "ringway wan link clean",
        ] {
            let cli = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Command::Wan(WanArgs { command: WanCommand::Link(args) }) = cli.command else {
                panic!("{line}")
            };
            if let LinkCommand::Show(args) | LinkCommand::Clean(args) = args.command {
                let name = if line.ends_with("lab") { "lab" } else { "rw" };
                assert_eq!(args.name(), name, "{line}");
            }
        }
        let line = "ringway wan link run --name lab --seed 7 rate=1mbit --exec ping -c 5 10.77.1.2";
        let Command::Wan(args) = parse(line).expect(line).command else { panic!("{line}") };
        let WanCommand::Link(LinkArgs { command: LinkCommand::Run(run) }) = args.command else {
            panic!("{line}")
        };
        assert_eq!((run.links.len(), run.exec.len(), run.seed), (1, 4, Some(7)));
    }

    /// What says too little is refused.
    #[test]
    fn half_sentences_are_refused() {
        for line in ["run", "set 1", "set 0 down=1", "set one down=1", "show a --name b", ""] {
            let line = format!("ringway wan link {line}");
            assert_eq!(parse(&line).expect_err(&line).exit_code(), 2, "{line}");
        }
    }
}
