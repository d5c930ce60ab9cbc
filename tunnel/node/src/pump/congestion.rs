//! Who decides how fast the kernel sends for a connection.
//!
//! What always holds:
//! - C1  Whoever's handshake took less than [`SHORT`] is left to CUBIC: BBR paces by a timer of the
//!   socket, and where a path is that short the timers cost a core about as much as the bytes.
//! - C2  On a longer path a carrier is BBR's, which keeps the queues short that chatter would wait
//!   in and does not take every loss for a full path; a connection of an application or a service
//!   is the host's own choice's.
//!
//! It has to begin with CUBIC, before the handshake: a socket that BBR once had is paced for ever.
//! Where the kernel has no such one, what there is stays. What the handshake says is not looked at
//! again: a path that becomes longer is found by the next carrier.
//!
//! Costs: two or three system calls a connection.

use ringway_core::{ConnId, Span};
use ringway_shards::{CongestionControl, Io, Tuning};

/// The handshake on a path where nothing is to be spread in time.
const SHORT: Span = Span::from_ms(1);

/// A connection is about to be opened by us. Those that come in begin the same way.
pub(super) fn begin(conn: ConnId, io: &mut Io<'_>) {
    set(conn, CongestionControl::CUBIC, io);
}

/// The handshake is over. On a path that is not short, `control` decides from here on.
pub(super) fn settle(conn: ConnId, control: Option<CongestionControl>, io: &mut Io<'_>) {
    if io.tcp_path(conn).is_some_and(|path| path.round_trip < SHORT) {
        return;
    }
    if let Some(control) = control {
        set(conn, control, io);
    }
}

fn set(conn: ConnId, control: CongestionControl, io: &mut Io<'_>) {
    let tuning = Tuning { congestion: Some(control), ..Tuning::default() };
    if let Err(errno) = io.tune(conn, tuning) {
        tracing::debug!("a connection cannot be left to {}: {errno:?}", control.name());
    }
}
