//! Credentials of a run: which client may use which names, and what it is told of all others.
//!
//! In most runs every client is an operator; an operator's rights end at names as anybody's do. In
//! the others nobody may look at, end, or send to another's session. Whoever is not a client of the
//! plan may use all names.

use ringway_coord_proto::access::{Access, Grantee};
use ringway_coord_proto::sessions::Principal;
use ringway_core::rng::Rng;

/// The only password.
pub(crate) const PASSWORD: &[u8] = b"open sesame";

/// Who may use what; without users it asks for nothing.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    users: Vec<Grantee>,
    operators: bool,
    anyone: Grantee,
}

/// What stands before the first slash of a name.
fn namespace(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

impl Gate {
    /// Everybody may do everything.
    pub(crate) fn open() -> Self {
        Self { users: Vec::new(), operators: true, anyone: Grantee::anyone() }
    }

    /// A user for each client with two thirds of the names, and one more with all of them.
    pub(crate) fn draw(rng: &mut Rng, clients: usize, names: &[String]) -> Self {
        let mut gate = Self { operators: rng.chance(667), ..Self::open() };
        for user in 0..=clients {
            let granted = names.iter().filter(|_| user == clients || rng.chance(667));
            let namespaces = granted.map(|name| namespace(name).as_bytes().to_vec()).collect();
            gate.users.push(Grantee {
                principal: Principal(user as u32 + 1),
                name: user_name(user),
                namespaces: Some(namespaces),
                operator: gate.operators,
            });
        }
        gate
    }

    /// The user name of a client, if it needs one.
    pub(crate) fn user_of(&self, client: usize) -> Option<&[u8]> {
        let last = self.users.len().checked_sub(1)?;
        Some(&self.users[client.min(last)].name)
    }

    /// Whether everybody may look at and end all sessions.
    pub(crate) fn has_operators(&self) -> bool {
        self.operators
    }

    /// Whether a client may use a name.
    pub(crate) fn allows(&self, client: usize, name: &str) -> bool {
        let Some(last) = self.users.len().checked_sub(1) else { return true };
        let granted = self.users[client.min(last)].namespaces.iter().flatten();
        granted.into_iter().any(|granted| granted == namespace(name).as_bytes())
    }
}

fn user_name(user: usize) -> Vec<u8> {
    format!("user{user}").into_bytes()
}

impl Access for Gate {
    fn required(&self) -> bool {
        !self.users.is_empty()
    }

    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32> {
        let found = self.users.iter().position(|grantee| grantee.name == user)?;
        (password == PASSWORD).then_some(found as u32)
    }

    fn grantee(&self, index: u32) -> &Grantee {
        self.users.get(index as usize).unwrap_or(&self.anyone)
    }

    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        let known = self.users.iter().find(|grantee| grantee.principal == principal);
        known.or((principal == self.anyone.principal).then_some(&self.anyone))
    }
}
