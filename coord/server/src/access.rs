//! The credentials of the server as a shard looks them up: no I/O, no lock, shared by all shards.

use std::sync::Arc;

use ringway_coord_proto::quotas::Credits;
use ringway_coord_proto::{Access, Grantee, Principal};

use crate::credentials::{self, Credentials, Namespaces};
use crate::quotas::Quotas;

/// Who may connect, and what they cover.
#[derive(Clone, Debug)]
pub struct NodeAccess {
    credentials: Option<Arc<Credentials>>,
    /// In the order of the credentials.
    grantees: Arc<[Grantee]>,
    /// Their places, by the number of their principal.
    places: Arc<[u32]>,
    quotas: Option<Quotas>,
}

impl NodeAccess {
    /// Everybody who reaches the port.
    pub fn anyone() -> Self {
        Self::new(None, [Grantee::anyone()].into())
    }

    /// The users of a file.
    pub fn users(credentials: Credentials) -> Self {
        let grantees = credentials.principals().map(grantee_of).collect();
        Self::new(Some(Arc::new(credentials)), grantees)
    }

    fn new(credentials: Option<Arc<Credentials>>, grantees: Arc<[Grantee]>) -> Self {
        let mut places: Vec<u32> = (0..grantees.len() as u32).collect();
        places.sort_by_key(|place| grantees[*place as usize].principal.0);
        Self { credentials, grantees, places: places.into(), quotas: None }
    }

    /// The same, for shards that are about to start under these quotas.
    pub fn with_quotas(self, quotas: &Quotas) -> Self {
        Self { quotas: Some(quotas.clone()), ..self }
    }

    /// The index here of an identity that was verified by an earlier reading of the file; `None` if
    /// its user is gone or has another token by now.
    pub fn heir(&self, earlier: &NodeAccess, index: u32) -> Option<u32> {
        match (&self.credentials, &earlier.credentials) {
            (Some(now), Some(then)) => now.heir(then, index as usize).map(|at| at as u32),
            _ => Some(index),
        }
    }
}

impl Access for NodeAccess {
    fn required(&self) -> bool {
        self.credentials.is_some()
    }

    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32> {
        let Some(credentials) = &self.credentials else { return Some(0) };
        credentials.place_of(user, password).map(|place| place as u32)
    }

    fn grantee(&self, index: u32) -> &Grantee {
        &self.grantees[index as usize]
    }

    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        let number = |place: &u32| self.grantees[*place as usize].principal.0;
        let found = self.places.binary_search_by_key(&principal.0, number).ok()?;
        Some(&self.grantees[self.places[found] as usize])
    }

    fn credits(&self) -> Option<Box<dyn Credits + Send>> {
        self.quotas.as_ref()?.credits()
    }
}

fn grantee_of(principal: &credentials::Principal) -> Grantee {
    let namespaces = match &principal.namespaces {
        Namespaces::All => None,
        Namespaces::Some(words) => {
            Some(words.iter().map(|word| word.as_bytes().to_vec()).collect())
        }
    };
    Grantee {
        principal: Principal(principal.id),
        name: principal.name.as_bytes().to_vec(),
        namespaces,
        operator: principal.operator,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::credentials::Identities;

    fn access(users: &[(&str, char, &str)], identities: &mut Identities) -> NodeAccess {
        let text: String = users
            .iter()
            .map(|(name, token, namespaces)| {
                let token = token.to_string().repeat(64);
                format!(
                    "[[user]]\nname = \"{name}\"\ntoken_sha256 = \"{token}\"\nnamespaces = \
                     [{namespaces}]\n"
                )
            })
            .collect();
        let read = Credentials::from_text(&text, Path::new("users.toml"), identities);
        NodeAccess::users(read.expect("a good file"))
    }

    /// A user without any namespace may use no name, and `*` is all of them.
    #[test]
    fn no_namespace_is_no_name() {
        let access =
            access(&[("all", 'a', "\"*\""), ("none", 'b', "")], &mut Identities::default());
        assert!(access.grantee(0).covers(b"orders/1"));
        assert!(!access.grantee(1).covers(b"orders/1") && !access.grantee(1).covers(b""));
    }

    /// Whoever shows the right token is found among many, and by the number of its principal,
    /// though numbers are given in another order than names stand in.
    #[test]
    fn everybody_is_found_among_many() {
        let identities = &mut Identities::default();
        let names: Vec<String> = (0..500).map(|at| format!("user-{}", at * 7 % 500)).collect();
        let user = |name: &String, token: &str| {
            let digest: String =
                Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("[[user]]\nname = \"{name}\"\ntoken_sha256 = \"{digest}\"\n")
        };
        let read = |names: &[String], identities: &mut Identities| {
            let text: String = names.iter().map(|name| user(name, &format!("of-{name}"))).collect();
            let read = Credentials::from_text(&text, Path::new("users.toml"), identities);
            NodeAccess::users(read.expect("a good file"))
        };
        read(&names[250..], identities);
        let access = read(&names, identities);
        for name in &names {
            let place = access.verify(name.as_bytes(), format!("of-{name}").as_bytes());
            let grantee = access.grantee(place.expect("the right token"));
            assert_eq!(grantee.name, name.as_bytes());
            assert_eq!(access.by_principal(grantee.principal), Some(grantee));
            assert_eq!(access.verify(name.as_bytes(), b"of-user-x"), None);
        }
        assert_eq!(access.by_principal(Principal(u32::MAX)), None);
    }

    /// Who stays in the file under the same token is the same, wherever it stands by now; who is
    /// gone, or has another token, has no heir. A number once given never means another user.
    #[test]
    fn identities_survive_another_reading() {
        let mut identities = Identities::default();
        let users = [("b", 'b', "\"x\""), ("c", 'c', ""), ("d", 'd', "")];
        let first = access(&users, &mut identities);
        let users = [("a", 'a', ""), ("b", 'b', "\"y\""), ("c", 'e', "")];
        let second = access(&users, &mut identities);
        assert_eq!([0, 1, 2].map(|index| second.heir(&first, index)), [Some(1), None, None]);
        assert!(second.grantee(1).covers(b"y/1") && !second.grantee(1).covers(b"x/1"));
        assert_eq!(second.grantee(1).principal, first.grantee(0).principal);
        assert_eq!(second.grantee(2).principal, first.grantee(1).principal, "its sessions are its");
        let new = second.grantee(0).principal;
        assert!((0..3).all(|index| first.grantee(index).principal != new));
    }
}
