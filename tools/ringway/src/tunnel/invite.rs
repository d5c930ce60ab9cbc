//! `ringway tunnel invite`: the line is the answer, and what to do with it is said beside it.

use std::process::ExitCode;

use ringway_tunnel_node::config::span_in_words;
use ringway_tunnel_node::{Guest, invite};
use serde_json::json;

use crate::args::tunnel::InviteArgs;
use crate::failure::Failure;
use crate::output::{answer, code};

pub(crate) fn run(args: &InviteArgs, json: bool) -> Result<ExitCode, Failure> {
    let most = ringway_tunnel_node::config::ADDRESSES_MAX;
    if args.addresses.len() > most {
        return Err(Failure::Usage(format!("--address may be given at most {most} times")));
    }
    let guest = Guest {
        name: args.name.clone(),
        inviter: args.own_name.clone(),
        addresses: args.addresses.clone(),
        allow: args.allow.clone(),
        valid: args.valid,
    };
    let invited = invite(&args.config, &guest)?;
    let line = invited.invite.to_line();
    let (config, key) = (args.config.display(), invited.shared_key.display());
    if !json {
        eprintln!(
            "ringway: peer {:?} is in {config}, its key in {key}; a tunnel that runs takes it at \
             SIGHUP.\nThe line is a SECRET: whoever has it is this peer. Send it by a way that \
             nobody else can read; there, within {}:\n  ringway tunnel join - --config near.toml",
            args.name,
            span_in_words(args.valid)
        );
        for port in &invited.other_ports {
            eprintln!(
                "ringway: note: this side does not listen at port {port} itself; something in \
                 front of it must lead from there to its listen"
            );
        }
    }
    let value = json!({
        "invite": *line,
        "peer": args.name,
        "own_name": invited.invite.inviter,
        "valid_until_s": invited.invite.until_s,
        "config": config.to_string(),
        "shared_key": key.to_string(),
        "ports_not_listened_at": invited.other_ports,
    });
    answer(json, &value, || line.to_string());
    Ok(code(true))
}
