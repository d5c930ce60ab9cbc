//! Credentials of a run: which client may use which names, and what it is told of all others.
//!
//! In most runs every client is an operator; an operator's rights end at names as anybody's do. In
//! the others nobody may look at, end, or send to another's session. Whoever is not a client of the
//! plan may use all names.

use ringway_coord_proto::access::{Access, Grantee};
use ringway_coord_proto::quotas::Credits;
use ringway_coord_proto::sessions::Principal;
use ringway_core::rng::Rng;

use crate::limited::Pool;

/// The only password.
pub(crate) const PASSWORD: &[u8] = b"open sesame";

/// Who may use what; without users it asks for nothing.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    users: Vec<Grantee>,
    operators: bool,
    anyone: Grantee,
    /// A namespace, and how many names it may have.
    quota: Option<(Vec<u8>, u64)>,
    pool: Option<Pool>,
}

/// What stands before the first slash of a name.
fn namespace(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

impl Gate {
    /// Everybody may do everything.
    pub(crate) fn open() -> Self {
        let (users, anyone) = (Vec::new(), Grantee::anyone());
        Self { users, operators: true, anyone, quota: None, pool: None }
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

    /// A namespace that has several of the names may have fewer.
    pub(crate) fn draw_quota(&mut self, rng: &mut Rng, names: &[String]) {
        let of = |name: &String| names.iter().filter(|n| namespace(n) == namespace(name)).count();
        if let Some(name) = names.iter().find(|name| of(name) > 1) {
            let most = 1 + rng.below(of(name) as u64 - 1);
            self.quota = Some((namespace(name).as_bytes().to_vec(), most));
        }
    }

    /// The same in another life of the process: nothing is used up.
    pub(crate) fn renewed(&self) -> Self {
        let pool = self.quota.as_ref().map(|(namespace, most)| Pool::new(namespace, *most));
        Self { pool, ..self.clone() }
    }

    /// How many names the namespace of this one may have, if that is limited.
    pub(crate) fn quota_of(&self, name: &str) -> Option<u64> {
        let (of, most) = self.quota.as_ref()?;
        (of == namespace(name).as_bytes()).then_some(*most)
    }

    /// How much of the quota is missing.
    pub(crate) fn missing(&self) -> u64 {
        let quota = self.quota.as_ref().zip(self.pool.as_ref());
        quota.map_or(0, |((_, most), pool)| most - pool.left())
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

    fn credits(&self) -> Option<Box<dyn Credits + Send>> {
        let pool = self.pool.clone()?;
        Some(Box::new(pool))
    }

    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        let known = self.users.iter().find(|grantee| grantee.principal == principal);
        known.or((principal == self.anyone.principal).then_some(&self.anyone))
    }
}
