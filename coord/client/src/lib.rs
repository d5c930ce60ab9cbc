//! The client library: what a program says to a coordinator, and what it hears.
//!
//! Three layers. [`core`](mod@crate::core) speaks the protocol without knowing that sockets exist:
//! ops in, bytes out; bytes in, replies and notices out. [`engine`] keeps a session on top of it,
//! in the same manner: lease, reconnects, waits, watches. [`Session`] and, with the feature
//! `tokio`, `tokio::Session` are that for threads and for tasks. [`Client`] is one plain
//! connection without a session that keeps itself: for tools that ask and go.
//!
//! Words: a *frame* carries up to 4096 *ops*; every op gets one reply; a *notice* comes unasked.

#![forbid(unsafe_code)]

pub mod blocking;
pub mod core;
pub mod engine;
pub mod error;
pub mod notice;
pub mod op;
pub mod owners;
pub mod reply;
pub mod session;

#[cfg(feature = "tokio")]
pub use session::tokio;

pub use blocking::{Client, Credentials, Options};
pub use error::{Error, OpError, Refusal, StreamError};
pub use notice::{Addressee, Change, ChangeKind, LossReason, Message, Notice, Owned, WaitEnd};
pub use op::{
    Attendance, CursorAt, Events, Fence, Letter, ListQuery, Mode, Op, OpenRequest, Proof, Resume,
    Target, Ticket, WatchId, WatchOrder,
};
pub use reply::{
    Beginning, Cancelled, Delivery, Described, Durability, EndReason, Holder, ListCursor, ListPage,
    ListedName, MetaSet, Opened, Owner, Queue, Reached, Registered, Revoked, SessionRecord,
    SessionsPage, ShardMap, ShardRun, WaitEdge, Waited, Waiter, WaitsPage, Watching,
};
pub use session::blocking::{Builder, Session};
pub use session::receive;
pub use session::{Held, SessionError};
