//! `ringway port meta`.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use ringway_client::{Client, Described, MetaSet};
use serde_json::json;

use super::Line;
use crate::args::client::ServerArgs;
use crate::args::port::MetaArgs;
use crate::connect::{SavedSession, connect};
use crate::failure::{Failure, host};
use crate::output::{answer, bytes_json, code, printable};

pub(super) fn run(args: &MetaArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let name = args.name.as_bytes();
    let metadata = match (&args.set, &args.set_file) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(path)) => read(path)?,
        (None, None) if args.session.is_some() => {
            let missing = "--as and --version are for --set or --set-file";
            return Err(Failure::Usage(missing.to_owned()));
        }
        (None, None) => return describe(name, &mut connect(server)?, json),
    };
    let mut client = connect(server)?;
    if let Some(path) = &args.session {
        client.attach(SavedSession::load(path)?)?;
    }
    let (result, version, metadata) = match client.set_meta(name, args.version, &metadata)? {
        MetaSet::Done(version) => ("set", version, metadata),
        MetaSet::Conflict(version, metadata) => ("conflict", version, metadata),
    };
    let value = json!({
        "name": bytes_json(name),
        "result": result,
        "version": version,
        "metadata": bytes_json(&metadata),
    });
    answer(json, &value, || {
        let metadata = printable(&metadata);
        format!("{}  {result}  version {version}  {metadata}\n", printable(name))
    });
    Ok(code(result == "set"))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = if path == Path::new("-") { read_stdin() } else { std::fs::read(path) };
    read.map_err(|error| host(&format!("cannot read {}", path.display()), error))
}

/// Everything that standard input has.
pub(super) fn read_stdin() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn describe(name: &[u8], client: &mut Client, json: bool) -> Result<ExitCode, Failure> {
    let described = match client.meta(&[name])?.pop().expect("one answer a name") {
        Ok(described) => described,
        Err(refusal) => {
            Line::refused(name, refusal).print(json);
            return Ok(code(false));
        }
    };
    let value = json!({
        "name": bytes_json(name),
        "result": if described.is_some() { "owned" } else { "free" },
        "session": described.as_ref().map(|of| of.session.to_string()),
        "token": described.as_ref().map(|of| of.token.to_string()),
        "version": described.as_ref().map(|of| of.version),
        "metadata": described.as_ref().map(|of| bytes_json(&of.metadata)),
    });
    answer(json, &value, || match &described {
        None => format!("{}  free\n", printable(name)),
        Some(Described { session, token, version, metadata }) => format!(
            "{}  owned  session {session}  token {token}  version {version}  {}\n",
            printable(name),
            printable(metadata)
        ),
    });
    Ok(code(described.is_some()))
}
