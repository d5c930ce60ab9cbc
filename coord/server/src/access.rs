//! The credentials of the server as a shard looks them up: no I/O, no lock, shared by all shards.

use std::sync::Arc;

use ringway_coord_proto::{Access, Grantee, Principal};

use crate::credentials::{self, Credentials, Namespaces};

/// Who may connect, and what they cover.
#[derive(Clone, Debug)]
pub struct NodeAccess {
    credentials: Option<Arc<Credentials>>,
    grantees: Arc<[Grantee]>,
}

impl NodeAccess {
    /// Everybody who reaches the port.
    pub fn anyone() -> Self {
        Self { credentials: None, grantees: Arc::new([Grantee::anyone()]) }
    }

    /// The users of a file.
    pub fn users(credentials: Credentials) -> Self {
        let grantees = credentials.principals().map(grantee_of).collect();
        Self { credentials: Some(Arc::new(credentials)), grantees }
    }
}

impl Access for NodeAccess {
    fn required(&self) -> bool {
        self.credentials.is_some()
    }

    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32> {
        let Some(credentials) = &self.credentials else { return Some(0) };
        let principal = credentials.verify(user, password)?;
        self.grantees.iter().position(|known| known.principal.0 == principal.id).map(|at| at as u32)
    }

    fn grantee(&self, index: u32) -> &Grantee {
        &self.grantees[index as usize]
    }

    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        self.grantees.iter().find(|known| known.principal == principal)
    }
}

fn grantee_of(principal: &credentials::Principal) -> Grantee {
    let namespaces = match &principal.namespaces {
        Namespaces::All => Vec::new(),
        Namespaces::Some(words) => words.iter().map(|word| word.as_bytes().to_vec()).collect(),
    };
    Grantee {
        principal: Principal(principal.id),
        name: principal.name.as_bytes().to_vec(),
        namespaces,
        operator: principal.operator,
    }
}
