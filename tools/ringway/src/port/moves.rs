//! `ringway port transfer` and `ringway port revoke`: names that change hands.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use ringway_client::{Client, Refusal, Revoked};
use ringway_core::{SessionId, Token};

use super::meta::read_stdin;
use super::{Line, bytes, print};
use crate::args::Name;
use crate::args::client::ServerArgs;
use crate::args::port::{RevokeArgs, TransferArgs};
use crate::connect::{SavedSession, connect};
use crate::failure::{Failure, host};
use crate::output::code;

pub(super) fn transfer(
    args: &TransferArgs,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    let names = names(&args.names)?;
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    if args.token.is_some() && names.len() > 1 {
        return Err(Failure::Usage("--token is for a single name".to_owned()));
    }
    let proof = SavedSession::load(&args.session)?;
    let mut client = connect(server)?;
    client.attach(proof)?;
    let results = match (args.token, names.first()) {
        (Some(token), Some(name)) => client.transfer_if(&[(*name, Token(token))], args.to)?,
        _ => client.transfer(&names, args.to)?,
    };
    let line = |(name, result): (&&[u8], Result<_, Refusal>)| match result {
        Ok(owner) => Line::new(name, "transferred", Some(owner)),
        Err(refusal) => Line::refused(name, refusal),
    };
    let lines: Vec<Line> = names.iter().zip(results).map(line).collect();
    print(json, &lines);
    Ok(code(lines.iter().all(|line| line.why.is_none())))
}

/// The names as typed, with those of standard input in the place of `-`.
fn names(typed: &[Name]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut names = Vec::new();
    for name in typed {
        if name != "-" {
            names.push(name.as_bytes().to_vec());
            continue;
        }
        let read = read_stdin().map_err(|error| host("cannot read standard input", error))?;
        let lines = read.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        names.extend(lines.map(<[u8]>::to_vec));
    }
    Ok(names)
}

pub(super) fn revoke(
    args: &RevokeArgs,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut client = connect(server)?;
    let names = bytes(&args.names);
    let results = client.revoke(&names, args.to)?;
    let mut all_well = true;
    let mut lines = Vec::new();
    for (name, result) in names.iter().zip(results) {
        let result = match result {
            Err(Refusal::Busy) => revoke_all_of(name, args.to, &mut client)?,
            result => result,
        };
        all_well &= match result {
            Ok(Revoked::WasFree) => args.to.is_none(),
            result => result.is_ok(),
        };
        lines.push(match result {
            Ok(Revoked::Freed) => Line::new(name, "revoked", None),
            Ok(Revoked::Moved(owner)) => Line::new(name, "moved", Some(owner)),
            Ok(Revoked::WasFree) => Line::new(name, "free", None),
            Err(refusal) => Line::refused(name, refusal),
        });
    }
    print(json, &lines);
    Ok(code(all_well))
}

/// A name that very many share is taken from some of them at a time.
fn revoke_all_of(
    name: &[u8],
    to: Option<SessionId>,
    client: &mut Client,
) -> Result<Result<Revoked, Refusal>, Failure> {
    loop {
        match client.revoke(&[name], to)?.pop().expect("one answer a name") {
            Err(Refusal::Busy) => {}
            // The last of them may have given it back by themselves.
            Ok(Revoked::WasFree) => return Ok(Ok(Revoked::Freed)),
            result => return Ok(result),
        }
    }
}
