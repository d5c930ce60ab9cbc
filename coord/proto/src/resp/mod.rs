//! RESP2 and RESP3 without I/O: the language of every Redis client, spoken to the coordinator.
//!
//! The way of one command: [`parse`] finds its arguments in the received bytes, [`verb`] names it,
//! [`request`] checks every option and gives a borrowed [`request::Request`], the engine decides,
//! and [`encode`] writes the reply. [`scripts`] knows the lock scripts that clients send, so that
//! no Lua is needed; [`command`] answers `COMMAND` from the same table that `verb` looks up in.
//!
//! Always true here:
//! - No input panics or allocates without bound; a command that breaks the protocol is an error
//!   with a text, and the connection is closed after it.
//! - Replies are written in the version that the connection negotiated with `HELLO`.
//!
//! Not here: sessions and names (`engine`), authentication, which shard a name belongs to.
//! The user's view of all this is `docs/resp.md`.

pub mod catalog;
pub mod check;
pub mod command;
pub mod encode;
mod inline;
mod options;
pub mod parse;
pub mod request;
pub mod scripts;
pub mod verb;

pub use encode::{Code, Version, Writer};
pub use parse::{ArgList, Args, Parsed, Progress, RespError, next_command, resume};
pub use request::{Refusal, Request, understand};
pub use verb::Verb;
