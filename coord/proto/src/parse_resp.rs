//! RESP commands to ops.

use ringway_core::{ConnId, Region};

use crate::access::Access;
use crate::conn::Speech;
use crate::env::Env;
use crate::resp::Version;
use crate::shard::Shard;

impl<R: Region, A: Access> Shard<R, A> {
    pub(crate) fn parse_commands(&mut self, id: ConnId, bytes: &[u8], env: &mut impl Env) -> usize {
        self.close(id, env);
        bytes.len()
    }

    pub(crate) fn resp_version(&self, id: ConnId) -> Version {
        match self.conns.get(id.index as usize).map(|conn| conn.speech) {
            Some(Speech::Resp3) => Version::Resp3,
            _ => Version::Resp2,
        }
    }
}
