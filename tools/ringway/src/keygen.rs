//! `ringway keygen`: keys for sites that are connected by a tunnel.

use std::process::ExitCode;

use ringway_tunnel_node::{KeyFileError, KeyKind, make, read_private};
use serde_json::json;

use crate::args::KeygenArgs;
use crate::failure::Failure;
use crate::output::{answer, code};

pub(crate) fn run(args: &KeygenArgs, json: bool) -> Result<ExitCode, Failure> {
    let kind = match (args.network, args.shared) {
        (true, _) => KeyKind::Network,
        (_, true) => KeyKind::Shared,
        _ => KeyKind::Private,
    };
    let public = if args.public {
        Some(read_private(&args.file)?.public())
    } else {
        make(kind, &args.file)?.public
    };
    let file = args.file.display().to_string();
    let public = public.map(|key| key.to_string());
    let value = json!({ "file": file, "kind": name(kind), "public": public });
    answer(json, &value, || match &public {
        Some(public) => public.clone(),
        None => format!("{file}: bring it to the others by a way that nobody else can read"),
    });
    Ok(code(true))
}

fn name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Private => "private",
        KeyKind::Network => "network",
        KeyKind::Shared => "shared",
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}
