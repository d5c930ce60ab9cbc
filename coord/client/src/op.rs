//! The ops of the protocol as values, and their bytes (`docs/protocol.md` section 3).
//!
//! Always holds: [`Op::put`] appends exactly [`Op::encoded_len`] bytes, or nothing and an error.
//! A length that the wire cannot carry is refused here, before anything is sent.
//! Not here: frames (`core`), what the server answers (`reply`).

use std::time::Duration;

use ringway_coord_proto::wire::{OP_HEADER_BYTES, op};
use ringway_core::limits::{ADDRESS_BYTES_MAX, FRAME_OPS_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX};
use ringway_core::wire::Put;
use ringway_core::{NodeId, Secret, SessionId, ShardId, Slot, Token};

use crate::error::OpError;

/// Bytes that a PING may carry.
pub const PING_BYTES_MAX: usize = 64;
/// Records in one page of sessions.
pub const SESSIONS_PAGE_MAX: u16 = 1024;

/// How many may hold a name at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One holder.
    #[default]
    Exclusive,
    /// Many holders that all share.
    Shared,
    /// Up to a number of holders.
    Counting,
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
            Op::Query(name) | Op::Register { name, .. } => name.len(),
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
            Op::Sessions { .. } => 10,
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
            Op::Query(name) | Op::Register { name, .. } | Op::Release { name, .. } => {
                check_name(name)
            }
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
                (op::REGISTER, *mode as u8 | if *replicated { op::REGISTER_REPLICATED } else { 0 })
            }
            Op::Release { token: None, .. } => (op::RELEASE, 0),
            Op::Release { token: Some(_), .. } => (op::RELEASE, op::RELEASE_TOKEN),
            Op::Open(open) => (op::OPEN, open_flags(open)),
            Op::Renew(_) => (op::RENEW, 0),
            Op::Close(_) => (op::CLOSE, 0),
            Op::Attach(_) => (op::ATTACH, 0),
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
            Op::Query(name) | Op::Register { name, .. } => out.extend_from_slice(name),
            Op::Release { name, token } => {
                if let Some(token) = token {
                    out.put_u64(token.0);
                }
                out.extend_from_slice(name);
            }
            Op::Open(open) => put_open(out, open),
            Op::Renew(Some(proof)) | Op::Close(Some(proof)) | Op::Attach(proof) => {
                out.put_u64(proof.session.0);
                out.extend_from_slice(&proof.secret.0);
            }
            Op::Renew(None) | Op::Close(None) | Op::ShardMap | Op::Server => {}
            Op::Session(session) | Op::Kill(session) => out.put_u64(session.0),
            Op::Node(node) => out.put_u64(node.0),
            Op::Sessions { cursor, most } => {
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
            Op::Register { name: b"b", mode: Mode::Counting, replicated: true },
            Op::Release { name: b"c", token: None },
            Op::Release { name: b"c", token: Some(Token(8)) },
            Op::Open(open),
            Op::Open(OpenRequest::new(NodeId(1))),
            Op::Renew(None),
            Op::Renew(Some(PROOF)),
            Op::Close(None),
            Op::Close(Some(PROOF)),
            Op::Attach(PROOF),
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
        one_of_each()[4].put(&mut out).expect("valid");
        let mut expected = vec![0x10, 0x03, 47, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0xDC, 5, 0, 0];
        expected.extend_from_slice(&[9; 16]);
        expected.extend_from_slice(b"\x0A10.0.0.1:9\x06\x00rack 4");
        assert_eq!(out, expected);
    }

    /// What the wire cannot carry is refused before it is sent, and nothing is appended.
    #[test]
    fn impossible_ops_are_refused() {
        let long = [b'x'; 300];
        let mut out = vec![];
        for (op, error) in [
            (Op::Query(b""), OpError::Name(0)),
            (Op::Query(&long[..256]), OpError::Name(256)),
            (Op::Ping(&long[..65]), OpError::TooLong { what: "ping", bytes: 65, most: 64 }),
            (Op::Sessions { cursor: 0, most: 1025 }, OpError::Page { asked: 1025, most: 1024 }),
            (Op::Sessions { cursor: 0, most: 0 }, OpError::Page { asked: 0, most: 1024 }),
        ] {
            assert_eq!(op.put(&mut out), Err(error));
        }
        assert!(out.is_empty());
    }
}
