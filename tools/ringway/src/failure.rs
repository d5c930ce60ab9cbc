//! Why a command did not do what it was asked, and the exit code that says so.

use std::process::ExitCode;

use ringway_client::engine::{Fault, Over};
use ringway_client::{Error, SessionError};
use ringway_coord_server::config::ConfigError;
use thiserror::Error;

/// Sorted by who must act. The number of each is part of the interface: scripts branch on it, as on
/// 141 of who reads no more (`output.rs`).
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// 1: the server answered, and the answer is no.
    #[error("{0}")]
    Refused(String),
    /// 2: the words of the command or of its configuration are wrong.
    #[error("{0}")]
    Usage(String),
    /// 3: this host lacks something, or something is in the way.
    #[error("{0}")]
    Host(String),
    /// 4: no server could be reached, or the connection broke, for longer than a lease if there is
    /// one that outlives connections.
    #[error("{0}")]
    Unreachable(String),
    /// A number of its own, of a command whose number is otherwise another program's.
    #[error("{1}")]
    Own(u8, String),
}

impl Failure {
    pub(crate) fn code(&self) -> Code {
        match self {
            Failure::Refused(_) => Code(1),
            Failure::Usage(_) => Code(2),
            Failure::Host(_) => Code(3),
            Failure::Unreachable(_) => Code(4),
            Failure::Own(code, _) => Code(*code),
        }
    }

    /// Of a session that is over: either the server has said so, or nobody could be asked.
    pub(crate) fn over(over: Over, text: String) -> Failure {
        match over {
            Over::Expired | Over::Unreachable(_) => Failure::Unreachable(text),
            _ => Failure::Refused(text),
        }
    }
}

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code.0)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let text = error.to_string();
        match error {
            Error::Refused { .. } => Failure::Refused(text),
            Error::Op { .. } => Failure::Usage(text),
            _ => Failure::Unreachable(text),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        let text = error.to_string();
        match error {
            SessionError::Refused { .. }
            | SessionError::TimedOut { .. }
            | SessionError::Undelivered { .. } => Failure::Refused(text),
            SessionError::Start(_) => Failure::Host(text),
            SessionError::Fault { fault, .. } => match fault {
                Fault::Op(_) | Fault::TooMany(..) => Failure::Usage(text),
                Fault::Unknown => Failure::Unreachable(text),
                Fault::Over(over) => Failure::over(over, text),
            },
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}

/// A host's error with what was being done.
pub(crate) fn host(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Host(format!("{what}: {error}"))
}
