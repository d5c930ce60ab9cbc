//! The ops of the protocol as values, and their bytes (`docs/protocol.md` section 3).
//!
//! Always holds: [`Op::put`] appends exactly [`Op::encoded_len`] bytes, or nothing and an error.
//! A length that the wire cannot carry is refused here, before anything is sent.
//! Not here: frames (`core`), what the server answers (`reply`).

use std::time::Duration;

use ringway_coord_proto::wire::{OP_HEADER_BYTES, op, push};
use ringway_core::limits::{
    ADDRESS_BYTES_MAX, FRAME_BYTES_MAX, FRAME_OPS_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX,
    NAME_META_BYTES_MAX,
};
use ringway_core::wire::Put;
use ringway_core::{Epoch, NodeId, Secret, SessionId, ShardId, Slot, Token};

use crate::error::OpError;

/// Bytes that a PING may carry.
pub const PING_BYTES_MAX: usize = 64;
/// Records in one page of sessions.
pub const SESSIONS_PAGE_MAX: u16 = 1024;
/// Holders, waiters or edges in one answer.
pub const WAITERS_PAGE_MAX: u16 = 1024;
/// Bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Bytes of replies in one frame for which a server surely has room: it keeps some free for short
/// replies behind long ones.
pub(crate) const REPLIES_BYTES_MAX: usize = FRAME_BYTES_MAX - 17 * FRAME_OPS_MAX - 128;

/// How many may hold a name at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One holder.
    #[default]
    Exclusive,
    /// Many holders that all share.
    Shared,
    /// As many holders as there are permits; each takes one.
    Counting {
        /// How many; at least one. All who use the name say the same number.
        permits: u32,
    },
}

impl Mode {
    fn code(self) -> u8 {
        match self {
            Mode::Exclusive => op::MODE_EXCLUSIVE,
            Mode::Shared => op::MODE_SHARED,
            Mode::Counting { .. } => op::MODE_COUNTING,
        }
    }

    fn encoded_len(self) -> usize {
        if matches!(self, Mode::Counting { .. }) { 4 } else { 0 }
    }

    fn put(self, out: &mut Vec<u8>) {
        if let Mode::Counting { permits } = self {
            out.put_u32(permits);
        }
    }

    fn check(self) -> Result<(), OpError> {
        if self == (Mode::Counting { permits: 0 }) { Err(OpError::Permits) } else { Ok(()) }
    }
}

/// One place in the queue for a name; what a wait is cancelled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A watch of one connection, by the number that its client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(pub u32);

/// What a watch tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(u8);

impl Events {
    /// A name has got an owner.
    pub const ACQUIRED: Events = Events(1 << (push::KIND_ACQUIRED - 1));
    /// An owner has a name no longer.
    pub const RELEASED: Events = Events(1 << (push::KIND_RELEASED - 1));
    /// The metadata of a name has changed.
    pub const CHANGED: Events = Events(1 << (push::KIND_CHANGED - 1));
    /// The number of those who wait for a name has changed.
    pub const WAITING: Events = Events(1 << (push::KIND_WAITING - 1));
    /// Who owns a name: acquired and released.
    pub const OWNERS: Events = Events(Events::ACQUIRED.0 | Events::RELEASED.0);
    /// All four.
    pub const ALL: Events = Events(0x0F);

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Events) -> Events {
        Events(self.0 | others.0)
    }
}

/// How far a watch has heard one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorAt {
    /// The shard.
    pub shard: ShardId,
    /// The service's epoch.
    pub epoch: Epoch,
    /// The last change heard of.
    pub sequence: u64,
}

/// The body of WATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOrder<'a> {
    /// Its number; no other watch of the connection has it.
    pub watch: WatchId,
    /// What to tell of.
    pub events: Events,
    /// Bytes of notices that the server keeps for it; zero: the server's default.
    pub budget: u32,
    /// Begin with what is owned at the moment.
    pub snapshot: bool,
    /// Go on from here, if the server still can.
    pub resume: Option<&'a [CursorAt]>,
    /// A name, or a prefix that ends in `/`.
    pub filter: &'a [u8],
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// To the owner of the name, or to every holder if it is shared.
    Name(&'a [u8]),
    /// To a session, whatever it owns.
    Session(SessionId),
}

/// What a message is sent in the name of: it goes only while that is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence<'a> {
    /// A name of the sender.
    pub name: &'a [u8],
    /// The token under which it has it.
    pub token: Token,
}

/// The body of SEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter<'a> {
    /// To whom.
    pub target: Target<'a>,
    /// In the name of what, if at all.
    pub fence: Option<Fence<'a>>,
    /// Answer when it was handed over instead of when it is on its way.
    pub receipt: bool,
    /// Up to 32768 bytes.
    pub payload: &'a [u8],
}

/// What shows that a session is ours: its id and the secret that OPEN gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The session.
    pub session: SessionId,
    /// Its secret.
    pub secret: Secret,
}

/// What the connection becomes to the session that OPEN opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attendance {
    /// Its receiving connection; losing it releases nothing until the lease runs out.
    #[default]
    Receiving,
    /// Its receiving connection, and the session ends with it.
    Bare,
    /// Nothing: a gateway opens many sessions over one connection and renews them by proof.
    Gateway,
}

/// Whether OPEN starts a new life of the node or takes an earlier one over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// A new incarnation; an earlier session of the node ends, and its names with it.
    #[default]
    Fresh,
    /// The node's present session, which this secret proves to be ours; everything is kept.
    With(Secret),
}

/// The body of OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest<'a> {
    /// The node, by the number its operator gave it.
    pub node: NodeId,
    /// The lease wished for; zero takes the server's default. Whole milliseconds count.
    pub lease: Duration,
    /// New or resumed.
    pub resume: Resume,
    /// What this connection becomes.
    pub attendance: Attendance,
    /// Where other nodes reach this one; up to 255 bytes that the server does not interpret.
    pub address: &'a [u8],
    /// Up to 256 bytes that the server does not interpret.
    pub metadata: &'a [u8],
}

impl OpenRequest<'_> {
    /// A fresh session of `node` with the server's default lease and no address.
    pub const fn new(node: NodeId) -> Self {
        OpenRequest {
            node,
            lease: Duration::ZERO,
            resume: Resume::Fresh,
            attendance: Attendance::Receiving,
            address: b"",
            metadata: b"",
        }
    }
}

/// The body of LIST: a page of names, by slot and within a slot by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListQuery<'a> {
    /// The slot to go on with.
    pub slot: Slot,
    /// Names in the page, at most; up to 4096.
    pub most: u16,
    /// The last name of the page before; empty at first.
    pub after: &'a [u8],
    /// Only names that begin so; empty for all.
    pub prefix: &'a [u8],
}

/// One op, borrowed from the caller until it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Who owns the name?
    Query(&'a [u8]),
    /// Claim a name.
    Register {
        /// The name.
        name: &'a [u8],
        /// How many may hold it.
        mode: Mode,
        /// Ask for the class that survives the master.
        replicated: bool,
    },
    /// Who owns the name, and what is its metadata?
    Meta(&'a [u8]),
    /// Set the metadata of a name that is the session's.
    SetMeta {
        /// The name.
        name: &'a [u8],
        /// Only if it has this version; zero: only if it was never set.
        version: Option<u32>,
        /// Up to 256 bytes.
        metadata: &'a [u8],
    },
    /// Claim a name, or wait for it.
    Wait {
        /// The name.
        name: &'a [u8],
        /// How many may hold it.
        mode: Mode,
        /// How long; `None`: without end. Whole milliseconds count, and at least one.
        within: Option<Duration>,
    },
    /// Wait no longer.
    Cancel {
        /// The name.
        name: &'a [u8],
        /// The place that is given up.
        ticket: Ticket,
    },
    /// Who holds the name, and who waits for it?
    Waiters {
        /// The name.
        name: &'a [u8],
        /// Holders in the answer at most, and as many waiters; up to 1024.
        most: u16,
    },
    /// Hand a name over to another session.
    Transfer {
        /// The name.
        name: &'a [u8],
        /// The new owner.
        to: SessionId,
        /// Only if it is held under this token.
        token: Option<Token>,
    },
    /// Take a name away from its owner, on an operator's behalf.
    Revoke {
        /// The name.
        name: &'a [u8],
        /// The new owner; `None`: whoever waits for it.
        to: Option<SessionId>,
    },
    /// A page of who waits for whom.
    Waits {
        /// Where to go on; zero at first.
        cursor: u64,
        /// Edges in the page, at most; up to 1024.
        most: u16,
    },
    /// Hear of what becomes of names.
    Watch(WatchOrder<'a>),
    /// Hear no more of it.
    Unwatch(WatchId),
    /// A message to one.
    Send {
        /// The message.
        letter: Letter<'a>,
        /// Leave the payload out, because the SEND right before it in the same frame has the same.
        /// [`Core::submit`](crate::core::Core::submit) sets this by itself.
        same: bool,
    },
    /// A message to every session.
    Broadcast {
        /// Answer when it was handed over, with counts.
        receipt: bool,
        /// Up to 32768 bytes.
        payload: &'a [u8],
    },
    /// Give a name back.
    Release {
        /// The name.
        name: &'a [u8],
        /// Only if it is held under this token.
        token: Option<Token>,
    },
    /// Open or resume a session.
    Open(OpenRequest<'a>),
    /// Renew the connection's session, or the one proven.
    Renew(Option<Proof>),
    /// End the connection's session, or the one proven.
    Close(Option<Proof>),
    /// Make this one more sending connection of the session.
    Attach(Proof),
    /// Send by the session's lane of this number from now on: frames that were sent before, and
    /// whose replies were lost, are answered as they were.
    Lane(u32),
    /// The record of one session.
    Session(SessionId),
    /// The record of a node's session.
    Node(NodeId),
    /// A page of session records.
    Sessions {
        /// Where to go on; zero at first.
        cursor: u64,
        /// Records in the page, at most; up to 1024.
        most: u16,
    },
    /// End a session on an operator's behalf.
    Kill(SessionId),
    /// A page of names.
    List(ListQuery<'a>),
    /// Have up to 64 bytes echoed.
    Ping(&'a [u8]),
    /// Which shard has which slots.
    ShardMap,
    /// The counters of one shard.
    ShardStats(ShardId),
    /// Version, epoch and state of the server.
    Server,
    /// Prove who is at this connection.
    Auth {
        /// The user.
        user: &'a [u8],
        /// The password.
        password: &'a [u8],
    },
}

impl Op<'_> {
    /// Bytes of the op on the wire, its header included.
    pub fn encoded_len(&self) -> usize {
        OP_HEADER_BYTES + self.body_len()
    }

    fn body_len(&self) -> usize {
        match self {
            Op::Query(name) | Op::Meta(name) => name.len(),
            Op::Register { name, mode, .. } => name.len() + mode.encoded_len(),
            Op::Wait { name, mode, .. } => name.len() + 4 + mode.encoded_len(),
            Op::SetMeta { name, version, metadata } => {
                name.len() + 2 + metadata.len() + 4 * usize::from(version.is_some())
            }
            Op::Cancel { name, .. } => name.len() + 8,
            Op::Waiters { name, .. } => name.len() + 2,
            Op::Transfer { name, token, .. } => name.len() + 8 + 8 * usize::from(token.is_some()),
            Op::Revoke { name, to } => name.len() + 8 * usize::from(to.is_some()),
            Op::Watch(watch) => watch.encoded_len(),
            Op::Unwatch(_) | Op::Lane(_) => 4,
            Op::Send { letter, same } => letter.encoded_len(*same),
            Op::Broadcast { payload, .. } => payload.len(),
            Op::Release { name, token } => name.len() + if token.is_some() { 8 } else { 0 },
            Op::Open(open) => 31 + open.address.len() + open.metadata.len(),
            Op::Renew(proof) | Op::Close(proof) => {
                if proof.is_some() {
                    24
                } else {
                    0
                }
            }
            Op::Attach(_) => 24,
            Op::Session(_) | Op::Node(_) | Op::Kill(_) => 8,
            Op::Sessions { .. } | Op::Waits { .. } => 10,
            Op::List(list) => 6 + list.after.len() + list.prefix.len(),
            Op::Ping(bytes) => bytes.len(),
            Op::ShardMap | Op::Server => 0,
            Op::ShardStats(_) => 1,
            Op::Auth { user, password } => 2 + user.len() + password.len(),
        }
    }

    /// Whether the wire can carry the op: every length and count within its bounds.
    pub fn check(&self) -> Result<(), OpError> {
        match self {
            Op::Query(name) | Op::Meta(name) => check_name(name),
            Op::Release { name, .. } | Op::Cancel { name, .. } => check_name(name),
            Op::Transfer { name, .. } | Op::Revoke { name, .. } => check_name(name),
            Op::Register { name, mode, .. } => mode.check().and_then(|()| check_name(name)),
            Op::Wait { name, mode, within } => {
                mode.check()?;
                check_wait(*within)?;
                check_name(name)
            }
            Op::SetMeta { name, metadata, .. } => {
                check_len("metadata", metadata, NAME_META_BYTES_MAX)?;
                check_name(name)
            }
            Op::Waiters { name, most } => {
                check_page(*most, WAITERS_PAGE_MAX)?;
                check_name(name)
            }
            Op::Waits { most, .. } => check_page(*most, WAITERS_PAGE_MAX),
            Op::Watch(watch) => watch.check(),
            Op::Send { letter, .. } => letter.check(),
            Op::Broadcast { payload, .. } => check_len("payload", payload, MESSAGE_BYTES_MAX),
            Op::Open(open) => {
                check_len("address", open.address, ADDRESS_BYTES_MAX)?;
                check_len("metadata", open.metadata, METADATA_BYTES_MAX)?;
                match u32::try_from(open.lease.as_millis()) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(OpError::Lease(open.lease)),
                }
            }
            Op::Sessions { most, .. } => check_page(*most, SESSIONS_PAGE_MAX),
            Op::List(list) => {
                check_len("after", list.after, NAME_BYTES_MAX)?;
                check_len("prefix", list.prefix, NAME_BYTES_MAX)?;
                check_page(list.most, FRAME_OPS_MAX as u16)
            }
            Op::Ping(bytes) => check_len("ping", bytes, PING_BYTES_MAX),
            Op::Auth { user, password } => {
                check_len("user", user, 255)?;
                check_len("password", password, 255)
            }
            Op::Renew(_) | Op::Close(_) | Op::Attach(_) | Op::Session(_) | Op::Node(_) => Ok(()),
            Op::Kill(_) | Op::ShardMap | Op::ShardStats(_) | Op::Server => Ok(()),
            Op::Unwatch(_) | Op::Lane(_) => Ok(()),
        }
    }

    /// Appends the op, header and body.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        self.check()?;
        let (code, flags) = self.code_and_flags();
        out.put_u8(code);
        out.put_u8(flags);
        out.put_u16(self.body_len() as u16);
        self.put_body(out);
        Ok(())
    }

    fn code_and_flags(&self) -> (u8, u8) {
        match self {
            Op::Query(_) => (op::QUERY, 0),
            Op::Register { mode, replicated, .. } => {
                (op::REGISTER, mode.code() | flag(*replicated, op::REGISTER_REPLICATED))
            }
            Op::Meta(_) => (op::META, 0),
            Op::SetMeta { version, .. } => {
                (op::SET_META, flag(version.is_some(), op::SET_META_VERSION))
            }
            Op::Wait { mode, .. } => (op::WAIT, mode.code()),
            Op::Cancel { .. } => (op::CANCEL, 0),
            Op::Waiters { .. } => (op::WAITERS, 0),
            Op::Transfer { token, .. } => (op::TRANSFER, flag(token.is_some(), op::TRANSFER_TOKEN)),
            Op::Revoke { to, .. } => (op::REVOKE, flag(to.is_some(), op::REVOKE_TO)),
            Op::Waits { .. } => (op::WAITS, 0),
            Op::Watch(watch) => (op::WATCH, watch.flags()),
            Op::Unwatch(_) => (op::UNWATCH, 0),
            Op::Send { letter, same } => (op::SEND, letter.flags() | flag(*same, op::SEND_SAME)),
            Op::Broadcast { receipt, .. } => (op::BROADCAST, flag(*receipt, op::SEND_RECEIPT)),
            Op::Release { token, .. } => (op::RELEASE, flag(token.is_some(), op::RELEASE_TOKEN)),
            Op::Open(open) => (op::OPEN, open_flags(open)),
            Op::Renew(_) => (op::RENEW, 0),
            Op::Close(_) => (op::CLOSE, 0),
            Op::Attach(_) => (op::ATTACH, 0),
            Op::Lane(_) => (op::LANE, 0),
            Op::Session(_) => (op::SESSION, 0),
            Op::Node(_) => (op::NODE, 0),
            Op::Sessions { .. } => (op::SESSIONS, 0),
            Op::Kill(_) => (op::KILL, 0),
            Op::List(_) => (op::LIST, 0),
            Op::Ping(_) => (op::PING, 0),
            Op::ShardMap => (op::SHARD_MAP, 0),
            Op::ShardStats(_) => (op::SHARD_STATS, 0),
            Op::Server => (op::SERVER, 0),
            Op::Auth { .. } => (op::AUTH, 0),
        }
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Op::Query(_) | Op::Meta(_) | Op::Register { .. } | Op::Release { .. } => {
                self.put_claim(out);
            }
            Op::SetMeta { .. } | Op::Wait { .. } | Op::Cancel { .. } => self.put_claim(out),
            Op::Waiters { .. } | Op::Transfer { .. } | Op::Revoke { .. } => self.put_claim(out),
            Op::Watch(watch) => watch.put(out),
            Op::Unwatch(watch) => out.put_u32(watch.0),
            Op::Lane(number) => out.put_u32(*number),
            Op::Send { letter, same } => letter.put(*same, out),
            Op::Broadcast { payload, .. } => out.extend_from_slice(payload),
            Op::Open(open) => put_open(out, open),
            Op::Renew(Some(proof)) | Op::Close(Some(proof)) | Op::Attach(proof) => {
                out.put_u64(proof.session.0);
                out.extend_from_slice(&proof.secret.0);
            }
            Op::Renew(None) | Op::Close(None) | Op::ShardMap | Op::Server => {}
            Op::Session(session) | Op::Kill(session) => out.put_u64(session.0),
            Op::Node(node) => out.put_u64(node.0),
            Op::Sessions { cursor, most } | Op::Waits { cursor, most } => {
                out.put_u64(*cursor);
                out.put_u16(*most);
            }
            Op::List(list) => {
                out.put_u16(list.slot.number());
                out.put_u16(list.most);
                out.put_short_bytes(list.after);
                out.put_short_bytes(list.prefix);
            }
            Op::Ping(bytes) => out.extend_from_slice(bytes),
            Op::ShardStats(shard) => out.put_u8(shard.0),
            Op::Auth { user, password } => {
                out.put_short_bytes(user);
                out.put_short_bytes(password);
            }
        }
    }
}

impl Op<'_> {
    /// The body of an op on one name: some fields, and the name as the rest.
    fn put_claim(&self, out: &mut Vec<u8>) {
        let name = match self {
            Op::Query(name) | Op::Meta(name) => name,
            Op::Register { name, mode, .. } => {
                mode.put(out);
                name
            }
            Op::Wait { name, mode, within } => {
                out.put_u32(within.map_or(0, |within| (within.as_millis() as u32).max(1)));
                mode.put(out);
                name
            }
            Op::SetMeta { name, version, metadata } => {
                version.iter().for_each(|version| out.put_u32(*version));
                out.put_long_bytes(metadata);
                name
            }
            Op::Cancel { name, ticket } => {
                out.put_u64(ticket.0);
                name
            }
            Op::Waiters { name, most } => {
                out.put_u16(*most);
                name
            }
            Op::Transfer { name, to, token } => {
                token.iter().for_each(|token| out.put_u64(token.0));
                out.put_u64(to.0);
                name
            }
            Op::Revoke { name, to } => {
                to.iter().for_each(|to| out.put_u64(to.0));
                name
            }
            Op::Release { name, token } => {
                token.iter().for_each(|token| out.put_u64(token.0));
                name
            }
            _ => return,
        };
        out.extend_from_slice(name);
    }
}

/// Bytes that the reply to an encoded op has at most, as far as that says something: what lists has
/// whatever fits a frame.
pub(crate) fn reply_bytes_max(code: u8) -> usize {
    const STATUS: usize = 1;
    const DATA: usize = STATUS + 4;
    match code {
        op::SEND | op::UNWATCH | op::RENEW | op::RELEASE | op::CLOSE | op::AUTH => DATA + 4,
        op::QUERY | op::REGISTER | op::WAIT | op::CANCEL | op::TRANSFER | op::REVOKE => STATUS + 16,
        op::BROADCAST => DATA + 24,
        op::LANE => DATA + 16,
        op::OPEN => DATA + 33,
        op::SESSION | op::NODE => DATA + 44 + ADDRESS_BYTES_MAX + METADATA_BYTES_MAX,
        op::SET_META => DATA + 4 + NAME_META_BYTES_MAX,
        op::META => DATA + 20 + NAME_META_BYTES_MAX,
        // A cursor has a place for each shard.
        op::WATCH => DATA + 2 + 13 * 255,
        _ => REPLIES_BYTES_MAX,
    }
}

impl WatchOrder<'_> {
    fn encoded_len(&self) -> usize {
        9 + self.resume.map_or(0, |cursor| 1 + 13 * cursor.len()) + self.filter.len()
    }

    fn flags(&self) -> u8 {
        flag(self.snapshot, op::WATCH_SNAPSHOT) | flag(self.resume.is_some(), op::WATCH_RESUME)
    }

    fn check(&self) -> Result<(), OpError> {
        match self.resume.map_or(0, <[_]>::len) {
            shards @ 256.. => {
                Err(OpError::TooLong { what: "cursor", bytes: 13 * shards, most: 13 * 255 })
            }
            _ => check_name(self.filter),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.watch.0);
        out.put_u8(self.events.0);
        out.put_u32(self.budget);
        if let Some(cursor) = self.resume {
            out.put_u8(cursor.len() as u8);
            for at in cursor {
                out.put_u8(at.shard.0);
                out.put_u32(at.epoch.0);
                out.put_u64(at.sequence);
            }
        }
        out.extend_from_slice(self.filter);
    }
}

impl Letter<'_> {
    fn encoded_len(&self, same: bool) -> usize {
        let target = match self.target {
            Target::Name(name) => 1 + name.len(),
            Target::Session(_) => 8,
        };
        let fence = self.fence.map_or(0, |fence| 1 + fence.name.len() + 8);
        target + fence + if same { 0 } else { self.payload.len() }
    }

    fn flags(&self) -> u8 {
        flag(self.receipt, op::SEND_RECEIPT)
            | flag(self.fence.is_some(), op::SEND_FENCED)
            | flag(matches!(self.target, Target::Session(_)), op::SEND_SESSION)
    }

    fn check(&self) -> Result<(), OpError> {
        if let Target::Name(name) = self.target {
            check_name(name)?;
        }
        if let Some(fence) = self.fence {
            check_name(fence.name)?;
        }
        check_len("payload", self.payload, MESSAGE_BYTES_MAX)
    }

    fn put(&self, same: bool, out: &mut Vec<u8>) {
        match self.target {
            Target::Name(name) => out.put_short_bytes(name),
            Target::Session(session) => out.put_u64(session.0),
        }
        if let Some(fence) = self.fence {
            out.put_short_bytes(fence.name);
            out.put_u64(fence.token.0);
        }
        if !same {
            out.extend_from_slice(self.payload);
        }
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn check_wait(within: Option<Duration>) -> Result<(), OpError> {
    match within {
        Some(within) if u32::try_from(within.as_millis()).is_err() => Err(OpError::Wait(within)),
        _ => Ok(()),
    }
}

fn open_flags(open: &OpenRequest<'_>) -> u8 {
    let resume = match open.resume {
        Resume::Fresh => 0,
        Resume::With(_) => op::OPEN_RESUME,
    };
    resume
        | match open.attendance {
            Attendance::Receiving => 0,
            Attendance::Bare => op::OPEN_BARE,
            Attendance::Gateway => op::OPEN_GATEWAY,
        }
}

fn put_open(out: &mut Vec<u8>, open: &OpenRequest<'_>) {
    out.put_u64(open.node.0);
    out.put_u32(open.lease.as_millis() as u32);
    match open.resume {
        Resume::Fresh => out.extend_from_slice(&[0; 16]),
        Resume::With(secret) => out.extend_from_slice(&secret.0),
    }
    out.put_short_bytes(open.address);
    out.put_long_bytes(open.metadata);
}

fn check_name(name: &[u8]) -> Result<(), OpError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(OpError::Name(name.len()));
    }
    Ok(())
}

fn check_len(what: &'static str, bytes: &[u8], most: usize) -> Result<(), OpError> {
    if bytes.len() > most {
        return Err(OpError::TooLong { what, bytes: bytes.len(), most });
    }
    Ok(())
}

fn check_page(asked: u16, most: u16) -> Result<(), OpError> {
    if asked == 0 || asked > most {
        return Err(OpError::Page { asked, most });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_coord_proto::wire::next_op;

    const PROOF: Proof = Proof { session: SessionId(0x1122), secret: Secret([7; 16]) };

    const CURSOR: [CursorAt; 2] = [
        CursorAt { shard: ShardId(0), epoch: Epoch(1), sequence: 2 },
        CursorAt { shard: ShardId(1), epoch: Epoch(1), sequence: 3 },
    ];
    const LETTER: Letter<'static> =
        Letter { target: Target::Name(b"you"), fence: None, receipt: false, payload: b"hi" };

    const FENCE: Option<Fence<'static>> = Some(Fence { name: b"me", token: Token(8) });

    fn watch(resume: Option<&'static [CursorAt]>) -> WatchOrder<'static> {
        let (watch, events) = (WatchId(5), Events::OWNERS);
        WatchOrder { watch, events, budget: 0, snapshot: true, resume, filter: b"svc/" }
    }

    fn one_of_each() -> Vec<Op<'static>> {
        let open = OpenRequest {
            lease: Duration::from_millis(1500),
            resume: Resume::With(Secret([9; 16])),
            attendance: Attendance::Bare,
            address: b"10.0.0.1:9",
            metadata: b"rack 4",
            ..OpenRequest::new(NodeId(77))
        };
        let slot = Slot::from_bits(5);
        vec![
            Op::Query(b"a"),
            Op::Register { name: b"b", mode: Mode::Counting { permits: 3 }, replicated: true },
            Op::Register { name: b"b", mode: Mode::Shared, replicated: false },
            Op::Release { name: b"c", token: None },
            Op::Release { name: b"c", token: Some(Token(8)) },
            Op::Open(open),
            Op::Open(OpenRequest::new(NodeId(1))),
            Op::Renew(None),
            Op::Renew(Some(PROOF)),
            Op::Close(None),
            Op::Close(Some(PROOF)),
            Op::Attach(PROOF),
            Op::Lane(3),
            Op::Session(SessionId(4)),
            Op::Node(NodeId(5)),
            Op::Sessions { cursor: 3, most: 10 },
            Op::Kill(SessionId(4)),
            Op::List(ListQuery { slot, most: 10, after: b"x", prefix: b"y/" }),
            Op::Ping(b"hello"),
            Op::ShardMap,
            Op::ShardStats(ShardId(1)),
            Op::Server,
            Op::Auth { user: b"u", password: b"p" },
            Op::Meta(b"d"),
            Op::SetMeta { name: b"d", version: None, metadata: b"" },
            Op::SetMeta { name: b"d", version: Some(3), metadata: b"weight=4" },
            Op::Wait { name: b"e", mode: Mode::Exclusive, within: None },
            Op::Wait {
                name: b"e",
                mode: Mode::Counting { permits: 9 },
                within: Some(Duration::ZERO),
            },
            Op::Cancel { name: b"e", ticket: Ticket(3) },
            Op::Waiters { name: b"e", most: 10 },
            Op::Transfer { name: b"e", to: SessionId(4), token: None },
            Op::Transfer { name: b"e", to: SessionId(4), token: Some(Token(8)) },
            Op::Revoke { name: b"e", to: None },
            Op::Revoke { name: b"e", to: Some(SessionId(4)) },
            Op::Waits { cursor: 3, most: 10 },
            Op::Watch(watch(None)),
            Op::Watch(watch(Some(&CURSOR))),
            Op::Unwatch(WatchId(5)),
            Op::Send { letter: LETTER, same: false },
            Op::Send {
                letter: Letter { target: Target::Session(SessionId(4)), ..LETTER },
                same: true,
            },
            Op::Send { letter: Letter { fence: FENCE, receipt: true, ..LETTER }, same: false },
            Op::Broadcast { receipt: true, payload: b"all" },
        ]
    }

    /// The announced length is what decides where a frame is split, so it must be exact.
    #[test]
    fn every_op_is_as_long_as_it_says() {
        for op in one_of_each() {
            let mut out = vec![];
            op.put(&mut out).expect("valid");
            assert_eq!(out.len(), op.encoded_len(), "{op:?}");
            let mut rest = out.as_slice();
            next_op(&mut rest).expect("a whole op");
            assert!(rest.is_empty(), "{op:?} left {rest:?}");
        }
    }

    /// OPEN is the op with the most fields; its bytes are written out here once.
    #[test]
    fn open_is_as_documented() {
        let mut out = vec![];
        let open = one_of_each().into_iter().find(|op| matches!(op, Op::Open(_)));
        open.expect("one of each").put(&mut out).expect("valid");
        let mut expected = vec![0x10, 0x03, 47, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0xDC, 5, 0, 0];
        expected.extend_from_slice(&[9; 16]);
        expected.extend_from_slice(b"\x0A10.0.0.1:9\x06\x00rack 4");
        assert_eq!(out, expected);
    }

    /// Every op of waiting, watching and sending, written out by hand from the documents.
    #[test]
    fn ops_with_fields_are_as_documented() {
        let told = |op: Op<'_>| {
            let mut out = vec![];
            op.put(&mut out).expect("valid");
            out
        };
        let permits = Mode::Counting { permits: 3 };
        let register = Op::Register { name: b"n", mode: permits, replicated: false };
        assert_eq!(told(register), b"\x02\x02\x05\0\x03\0\0\0n");
        let within = Some(Duration::from_millis(258));
        let wait = Op::Wait { name: b"n", mode: permits, within };
        assert_eq!(told(wait), b"\x06\x02\x09\0\x02\x01\0\0\x03\0\0\0n");
        let transfer = Op::Transfer { name: b"n", to: SessionId(4), token: Some(Token(8)) };
        assert_eq!(told(transfer), b"\x09\x01\x11\0\x08\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0n");
        let mut expected = b"\x40\x03\x28\0\x05\0\0\0\x03\0\0\0\0\x02".to_vec();
        expected.extend_from_slice(b"\0\x01\0\0\0\x02\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x01\x01\0\0\0\x03\0\0\0\0\0\0\0svc/");
        assert_eq!(told(Op::Watch(watch(Some(&CURSOR)))), expected);
        let letter = Letter { fence: FENCE, receipt: true, ..LETTER };
        let send = Op::Send { letter, same: false };
        assert_eq!(told(send), b"\x48\x03\x11\0\x03you\x02me\x08\0\0\0\0\0\0\0hi");
        let letter = Letter { target: Target::Session(SessionId(4)), ..LETTER };
        assert_eq!(told(Op::Send { letter, same: true }), b"\x48\x0C\x08\0\x04\0\0\0\0\0\0\0");
    }

    /// What the wire cannot carry is refused before it is sent, and nothing is appended.
    #[test]
    fn impossible_ops_are_refused() {
        let long = [b'x'; 300];
        let none = Mode::Counting { permits: 0 };
        let mut out = vec![];
        for (op, error) in [
            (Op::Query(b""), OpError::Name(0)),
            (Op::Query(&long[..256]), OpError::Name(256)),
            (Op::Ping(&long[..65]), OpError::TooLong { what: "ping", bytes: 65, most: 64 }),
            (Op::Sessions { cursor: 0, most: 1025 }, OpError::Page { asked: 1025, most: 1024 }),
            (Op::Register { name: b"n", mode: none, replicated: false }, OpError::Permits),
            (Op::Wait { name: b"n", mode: none, within: None }, OpError::Permits),
            (Op::Sessions { cursor: 0, most: 0 }, OpError::Page { asked: 0, most: 1024 }),
        ] {
            assert_eq!(op.put(&mut out), Err(error));
        }
        assert!(out.is_empty());
    }
}
