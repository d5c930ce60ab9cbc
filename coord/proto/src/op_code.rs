//! Op codes that never travel between client and server: what RESP verbs become, and what a parser
//! decided already.

/// The reply is the status in `extra`; nothing is executed.
pub const ANSWERED: u8 = 0xFF;
/// `SET name value NX PX`: kept bytes are the lease in ns (8), who asks (4) and the value.
pub const LOCK_SET: u8 = 0xE0;
/// `GET name`: a lock's value, an owned name's `session:token`.
pub const LOCK_GET: u8 = 0xE1;
/// `DEL name`.
pub const LOCK_DEL: u8 = 0xE2;
/// `PEXPIRE name`: kept bytes are the lease in ns (8).
pub const LOCK_EXPIRE: u8 = 0xE3;
/// `PTTL name`.
pub const LOCK_LEFT: u8 = 0xE4;
/// Delete if the value is the one kept.
pub const LOCK_DEL_IF: u8 = 0xE5;
/// Give a new lease (8, ns), counted from now, if the value is the one kept behind it.
pub const LOCK_EXPIRE_IF: u8 = 0xE6;
/// Add to the lease (8, ns) if the value is the one kept behind it.
pub const LOCK_EXTEND_IF: u8 = 0xE7;

/// Take the name if it is free, renew its lease if the value is the one kept: as `LOCK_SET`.
pub const LOCK_SET_OR_EXPIRE: u8 = 0xE8;
/// How many names this shard has; about no name.
pub const DB_SIZE: u8 = 0xEA;
/// The connections of a shard (1), as lines; served like `LIST`.
pub const CLIENT_LIST: u8 = 0xEB;
/// How many names a slot (2) has; served like `LIST`.
pub const SLOT_COUNT: u8 = 0xEC;

/// Watch a filter without a number, as RESP connections do: the mask of kinds (1), the filter.
pub const WATCH_FILTER: u8 = 0xED;

/// Whether an op may take a free name as a lock.
#[inline]
pub const fn takes_lock(code: u8) -> bool {
    matches!(code, LOCK_SET | LOCK_SET_OR_EXPIRE)
}

/// Whether an op gives a lease, which it names (or what is added to it) first among its kept bytes:
/// it may have to wait until the state directory allows for that lease.
#[inline]
pub const fn may_raise(code: u8) -> bool {
    takes_lock(code) || matches!(code, LOCK_EXPIRE | LOCK_EXPIRE_IF | LOCK_EXTEND_IF)
}

/// A flag of ops that [`may_raise`]: the shard of the connection has heard that the state directory
/// allows the lease. Then so may the shard that executes, though its own news may still be on the
/// way: an op that waited there would be overtaken by what its connection sent behind it.
pub const LEASE_ALLOWED: u8 = 1;

/// A flag of WAIT: it is answered when the wait ends, as commands are that block.
pub const WAIT_BLOCKS: u8 = 0x80;

/// A flag of SEND: it is answered from where the message ends, or by a shard that it is passed on
/// to.
pub const SEND_LATE: u8 = 0x80;

/// Whether an op may be answered later than it is executed, so that its unit cannot be answered
/// directly.
#[inline]
pub const fn may_be_late(op: &crate::turn::Op) -> bool {
    may_raise(op.code)
        || (op.code == crate::wire::op::WAIT && op.flags & WAIT_BLOCKS != 0)
        || (op.code == crate::wire::op::SEND && op.flags & SEND_LATE != 0)
}

/// Whether an op goes through the batch with a name, which may be none.
#[inline]
pub const fn on_name(code: u8) -> bool {
    use crate::wire::op;
    matches!(
        code,
        op::QUERY..=op::CANCEL
            | op::TRANSFER
            | op::REVOKE
            | op::SEND
            | LOCK_SET..=LOCK_SET_OR_EXPIRE
            | DB_SIZE
    )
}

/// What follows an op's name to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// The number in `extra`.
    Number,
    /// The kept bytes that `extra` stands for.
    Kept,
    /// What a message has (`messages`).
    Message,
}

/// What an op on a name has beside it.
#[inline]
pub const fn rest_of(code: u8, flags: u8) -> Rest {
    use crate::wire::op;
    match code {
        op::REGISTER if flags == 0 => Rest::None,
        op::REGISTER | op::RELEASE | op::WAIT | op::CANCEL => Rest::Number,
        op::SEND => Rest::Message,
        op::SET_META | op::TRANSFER | op::REVOKE | LOCK_SET.. => Rest::Kept,
        _ => Rest::None,
    }
}
