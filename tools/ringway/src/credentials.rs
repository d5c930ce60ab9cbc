//! `ringway credentials ...`: the file of users.

use std::process::ExitCode;

use ringway_coord_server::credentials::{Added, CredentialsError, NewUser, Users};
use serde_json::json;

use crate::args::{
    CredentialsAddArgs, CredentialsCommand, CredentialsListArgs, CredentialsRemoveArgs,
};
use crate::failure::Failure;
use crate::output::{answer, table};

pub(crate) fn run(command: &CredentialsCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        CredentialsCommand::Add(args) => add(args, json),
        CredentialsCommand::Remove(args) => remove(args, json),
        CredentialsCommand::List(args) => list(args, json),
    }
    .map_err(failure)?;
    Ok(ExitCode::SUCCESS)
}

fn add(args: &CredentialsAddArgs, json: bool) -> Result<(), CredentialsError> {
    let new = NewUser {
        name: args.user.clone(),
        namespaces: args.namespaces.clone(),
        operator: args.operator,
    };
    let Added { token, replaced } = Users::open(&args.file)?.add(&new)?;
    let (user, file) = (&args.user, args.file.display());
    if !json && replaced {
        eprintln!(
            "ringway: user {user:?} was in {file} already and has new grants; this is its new \
             token, shown only now (a server that runs takes the old one until SIGHUP):"
        );
    } else if !json {
        eprintln!("ringway: user {user:?} is in {file}; this is its token, shown only now:");
    }
    let value =
        json!({ "user": user, "token": token, "file": file.to_string(), "replaced": replaced });
    answer(json, &value, || token.clone());
    Ok(())
}

fn remove(args: &CredentialsRemoveArgs, json: bool) -> Result<(), CredentialsError> {
    Users::read(&args.file)?.remove(&args.user)?;
    let (user, file) = (&args.user, args.file.display());
    let value = json!({ "user": user, "file": file.to_string(), "removed": true });
    answer(json, &value, || {
        format!("{user}  removed from {file}; send SIGHUP to a server that runs")
    });
    Ok(())
}

fn list(args: &CredentialsListArgs, json: bool) -> Result<(), CredentialsError> {
    let users = Users::read(&args.file)?.list();
    answer(json, &users, || {
        let rows: Vec<_> = users
            .iter()
            .map(|user| {
                let namespaces = match user.namespaces.join(" ") {
                    none if none.is_empty() => "none".to_owned(),
                    some => some,
                };
                let operator = if user.operator { "yes" } else { "no" };
                vec![user.name.clone(), operator.to_owned(), namespaces]
            })
            .collect();
        table(&["user", "operator", "namespaces"], &rows)
    });
    Ok(())
}

fn failure(error: CredentialsError) -> Failure {
    let text = error.to_string();
    match error {
        CredentialsError::Word { .. } | CredentialsError::Syntax { .. } => Failure::Usage(text),
        CredentialsError::Nobody { .. } => Failure::Refused(text),
        _ => Failure::Host(text),
    }
}
