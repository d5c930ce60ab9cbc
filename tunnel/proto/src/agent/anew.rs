//! Beginning anew: this machine may be a copy of another, or one that was set back, or its clock
//! jumped.
//!
//! A copy of a process has its keys, its counters and its generator of chance. If both go on, two
//! different records leave under one key and one number, and with that both are open to who sees
//! them; and both draw the same keys for what they begin next. Nobody can tell from within which of
//! the two is the first one, so whoever may be a copy drops every key, and draws with chance that
//! the other one does not have.
//!
//! Nothing is said to the peers, since it would be said under those keys. They find their carriers
//! closed, come back, and are told in a fresh handshake that the session is no more.
//!
//! Cost: that of ending each session. Not here: how it is found out (the shell), and what a copy
//! has sent before it was. Tests: `tests/agents.rs`.

use super::*;

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Sessions.
    pub sessions: usize,
    /// Flows, which were reset.
    pub flows: usize,
}

impl Agent {
    /// Drops every key and all that depends on one: sessions end here, their carriers are closed
    /// without a word, flows are reset ([`ResetCode::Gone`]: their other ends will not be found
    /// again), and handshakes that are under way come to nothing. Who dials begins new sessions.
    /// `fresh` is chance that a copy of this machine does not have.
    ///
    /// Handshakes that were sent before are not answered, as at a start: what this process knows of
    /// them may be from before a part of them. For who would rather wait than be replayed to.
    pub fn begin_anew(&mut self, now: Moment, fresh: &[u8], host: &mut impl Host) -> Dropped {
        self.entropy.stir(fresh);
        let now_ms = host.wall_ms();
        host.registry(|registry| registry.begin_anew(now_ms));
        let bonds: Vec<BondId> = self.by_peer.iter().map(|(_, bond)| *bond).collect();
        let mut dropped = Dropped::default();
        for bond in bonds {
            let Some(found) = self.get(bond) else { continue };
            dropped.sessions += usize::from(found.known.is_some());
            dropped.flows += found.flows.flow_count();
            self.end(now, bond, ResetCode::Gone, host);
        }
        self.close_newcomers(host);
        dropped
    }

    /// Who was answered and has not shown the session's keys yet is asked to come again.
    fn close_newcomers(&mut self, host: &mut impl Host) {
        for at in 0..self.carriers.len() {
            let its = self.carriers[at]
                .take_if(|carrier| matches!(carrier.standing, Standing::Newcomer(_)));
            if let Some(carrier) = its {
                self.forget_half_open(&carrier);
                host.close(carrier.conn, false);
            }
        }
    }
}
