//! Who may do what, as far as a shard needs to know it: looked up without I/O.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::quotas::{Credits, namespace_of};
use crate::sessions::Principal;

/// An identity and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grantee {
    /// Its number, the same on every shard.
    pub principal: Principal,
    /// Its name, for lists and logs.
    pub name: Vec<u8>,
    /// The namespaces it may use; `None`: all of them.
    pub namespaces: Option<Vec<Vec<u8>>>,
    /// Whether it may act on other principals' sessions.
    pub operator: bool,
}

impl Grantee {
    /// What a connection is where no credentials are asked for.
    pub const fn anyone() -> Self {
        Self { principal: Principal(0), name: Vec::new(), namespaces: None, operator: true }
    }

    /// Whether it may learn about names of any namespace, and so about all names together.
    pub const fn sees_all(&self) -> bool {
        self.operator || self.namespaces.is_none()
    }

    /// Whether a name belongs to one of its namespaces: what stands before the first `/`.
    #[inline]
    pub fn covers(&self, name: &[u8]) -> bool {
        self.namespaces.as_ref().is_none_or(|namespaces| {
            let namespace = namespace_of(name);
            namespaces.iter().any(|covered| covered == namespace)
        })
    }
}

/// The credentials of a server.
pub trait Access {
    /// Whether a connection has to authenticate before anything else.
    fn required(&self) -> bool;
    /// Checks user and password; the grantee's index in [`Self::grantee`] if they are right.
    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32>;
    /// A verified identity.
    fn grantee(&self, index: u32) -> &Grantee;
    /// The identity with a number.
    fn by_principal(&self, principal: Principal) -> Option<&Grantee>;
    /// The way to the credits of namespaces that have a quota; `None` if none has. A shard asks
    /// once, at its start.
    fn credits(&self) -> Option<Box<dyn Credits + Send>> {
        None
    }
}

/// No credentials: everybody on loopback may do everything.
#[derive(Debug)]
pub struct Open {
    anyone: Grantee,
}

impl Default for Open {
    fn default() -> Self {
        Self { anyone: Grantee::anyone() }
    }
}

impl Access for Open {
    fn required(&self) -> bool {
        false
    }

    fn verify(&self, _user: &[u8], _password: &[u8]) -> Option<u32> {
        Some(0)
    }

    fn grantee(&self, _index: u32) -> &Grantee {
        &self.anyone
    }

    fn by_principal(&self, _principal: Principal) -> Option<&Grantee> {
        Some(&self.anyone)
    }
}
