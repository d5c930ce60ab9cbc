//! What stories of several clients are told with: processes, clients with a session, users with
//! credentials, and in words what was answered and heard.

use ringway_coord_proto::wire::{op, push};
use ringway_coord_proto::{Access, Grantee, Principal};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{SessionId, Token};

use crate::native::{Got, Native, Opened, open, opened};
use crate::process::{Process, Settings};

/// A process of so many shards.
pub fn start(shards: usize) -> Process {
    Process::start(&Settings { shards, ..Settings::default() })
}

/// A process that asks for credentials.
pub fn guarded(shards: usize, users: impl Fn() -> Users) -> Process<Users> {
    Process::with_access(&Settings { shards, ..Settings::default() }, users)
}

/// Replies in words.
pub fn words(got: &[Got]) -> String {
    got.iter().map(Got::words).collect::<Vec<_>>().join(", ")
}

/// A client with a session of a lease of ten seconds.
pub fn client<A: Access>(process: &mut Process<A>, node: u64) -> (Native, Opened) {
    let shard = node as usize % process.shards();
    let mut client = Native::connect(process, shard);
    let mine = opened(&client.ask(process, &[open(0, node, 10_000, None)])[0]);
    (client, mine)
}

/// The same of a user who has to authenticate.
pub fn user<A: Access>(process: &mut Process<A>, node: u64, name: &str) -> (Native, Opened) {
    let mut client = Native::connect(process, node as usize % process.shards());
    let mut body = Vec::new();
    body.put_short_bytes(name.as_bytes());
    body.put_short_bytes(b"password");
    let got = client.ask(process, &[(op::AUTH, 0, body), open(0, node, 10_000, None)]);
    (client, opened(&got[1]))
}

/// What a client was told of names since it was asked last: the notice, the name, the token's
/// sequence or the reason, and other sessions by their places in `sessions`.
///
/// # Panics
/// If a notice is not as documented.
pub fn told<A: Access>(
    process: &mut Process<A>,
    client: &mut Native,
    sessions: &[SessionId],
) -> Vec<String> {
    process.settle();
    client.receive(process);
    let in_words = |(code, body): (u8, Vec<u8>)| {
        notice(code, &body, sessions).expect("a notice as documented")
    };
    std::mem::take(&mut client.told).into_iter().map(in_words).collect()
}

fn notice(code: u8, body: &[u8], sessions: &[SessionId]) -> Result<String, Truncated> {
    let mut body = Reader::new(body);
    let other = |id: u64| match sessions.iter().position(|session| session.0 == id) {
        Some(at) => format!("{at}"),
        None => format!("nobody {id}"),
    };
    let ticket_or_token = body.u64()?;
    let token = Token(ticket_or_token).sequence();
    Ok(match code {
        push::GRANTED => {
            let (token, _mode) = (Token(body.u64()?).sequence(), body.u8()?);
            format!("granted {} {token}", text(body.rest()))
        }
        push::WAIT_ENDED => {
            let reason = body.u8()?;
            format!("ended {} {reason}", text(body.rest()))
        }
        push::RECEIVED => {
            let from = other(body.u64()?);
            format!("received {} {token} from {from}", text(body.rest()))
        }
        push::LOST => {
            let (to, reason) = (other(body.u64()?), body.u8()?);
            format!("lost {} {token} to {to}, {reason}", text(body.rest()))
        }
        code => format!("notice {code}"),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Session and token of `[1, session, token]`, as RESP has it with line ends as `|`.
///
/// # Panics
/// If it is not that.
pub fn grant(reply: &str) -> (String, String) {
    let parts: Vec<&str> = reply.split('|').collect();
    assert_eq!((parts[0], parts[1], parts[2], parts.len()), ("*3", ":1", "$16", 7), "{reply}");
    (parts[3].to_owned(), parts[5].to_owned())
}

/// Users who have to authenticate, with whatever password.
pub struct Users(Vec<Grantee>);

impl Users {
    /// Each with a name, the namespace that it is bound to, and whether it is an operator. The
    /// place of each is its principal.
    pub fn new(users: &[(&str, Option<&str>, bool)]) -> Self {
        let user =
            |(at, (name, namespace, operator)): (usize, &(&str, Option<&str>, bool))| Grantee {
                principal: Principal(at as u32),
                name: name.as_bytes().to_vec(),
                namespaces: namespace.map(|namespace| vec![namespace.as_bytes().to_vec()]),
                operator: *operator,
            };
        Self(users.iter().enumerate().map(user).collect())
    }
}

impl Access for Users {
    fn required(&self) -> bool {
        true
    }

    fn verify(&self, user: &[u8], _password: &[u8]) -> Option<u32> {
        self.0.iter().position(|it| it.name == user).map(|at| at as u32)
    }

    fn grantee(&self, index: u32) -> &Grantee {
        &self.0[index as usize]
    }

    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        self.0.get(principal.0 as usize)
    }
}
