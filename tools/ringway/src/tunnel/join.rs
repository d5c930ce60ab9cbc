//! `ringway tunnel join`: from a line to a configuration.

use std::io::{self, BufRead, IsTerminal, Read};
use std::process::ExitCode;

use ringway_tunnel_node::{Invite, LINE_BYTES_MAX, Wanted, join};
use serde_json::json;

use crate::args::tunnel::JoinArgs;
use crate::failure::{Failure, host};
use crate::output::{answer, code};

/// What is read of standard input: a line, and the breaks and blanks that a mailer put into it.
const INPUT_BYTES_MAX: u64 = 2 * LINE_BYTES_MAX as u64;

pub(crate) fn run(args: &JoinArgs, json: bool) -> Result<ExitCode, Failure> {
    let line = if args.line == "-" { read()? } else { args.line.clone() };
    let invite = Invite::from_line(&line).map_err(|error| Failure::Usage(error.to_string()))?;
    let wanted = Wanted {
        name: args.name.clone(),
        forwards: args.forwards.clone(),
        socks5: args.socks5.into_iter().collect(),
    };
    let joined = join(&invite, &args.config, &wanted)?;
    if args.line != "-" && !json {
        eprintln!(
            "ringway: note: the invitation is a secret, and is in your shell's history now: take \
             it out there (next time give - and paste it)"
        );
    }
    let config = args.config.display().to_string();
    let files = [config.clone()]
        .into_iter()
        .chain([&joined.network_key, &joined.shared_key].map(|path| path.display().to_string()));
    let files: Vec<String> = files.collect();
    let addresses: Vec<_> = invite.addresses.iter().map(ToString::to_string).collect();
    let next = format!("ringway tunnel --config {config}");
    let value = json!({
        "config": config,
        "peer": joined.name,
        "addresses": addresses,
        "files": files,
        "next": next,
    });
    answer(json, &value, || {
        let (peer, at) = (&joined.name, addresses.join(", "));
        format!("{config}: peer {peer}, at {at}\nwrote: {}\nnext: {next}", files.join(" "))
    });
    Ok(code(true))
}

fn read() -> Result<String, Failure> {
    let stdin = io::stdin();
    let mut text = String::new();
    let mut input = stdin.lock().take(INPUT_BYTES_MAX);
    // A person pastes a line; a file may have it in several.
    let read = if stdin.is_terminal() {
        eprintln!("ringway: paste the invitation, then Enter:");
        input.read_line(&mut text)
    } else {
        input.read_to_string(&mut text)
    };
    read.map_err(|error| host("cannot read the invitation from standard input", error))?;
    Ok(text)
}
