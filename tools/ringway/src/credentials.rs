//! `ringway credentials ...`: the file of users.

use std::process::ExitCode;

use ringway_coord_server::credentials::{CredentialsError, NewUser, Users};
use serde_json::json;

use crate::args::CredentialsCommand;
use crate::failure::Failure;
use crate::output::answer;

pub(crate) fn run(command: &CredentialsCommand, json: bool) -> Result<ExitCode, Failure> {
    let CredentialsCommand::Add(args) = command;
    let new = NewUser {
        name: args.user.clone(),
        namespaces: args.namespaces.clone(),
        operator: args.operator,
    };
    let mut users = Users::open(&args.file).map_err(failure)?;
    let token = users.add(&new).map_err(failure)?;
    let file = args.file.display();
    if !json {
        let user = &args.user;
        eprintln!("ringway: user {user:?} is in {file}; this is its token, shown only now:");
    }
    let value = json!({ "user": args.user, "token": token, "file": file.to_string() });
    answer(json, &value, || token.clone());
    Ok(ExitCode::SUCCESS)
}

fn failure(error: CredentialsError) -> Failure {
    let text = error.to_string();
    match error {
        CredentialsError::Word { .. } | CredentialsError::Syntax { .. } => Failure::Usage(text),
        _ => Failure::Host(text),
    }
}
