//! What a process of these stories does. It is this test's own binary, started again with its work
//! in the environment, and ends when its standard input does.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use ringway_client::{
    Client, Described, MetaSet, Mode, OpenRequest, Options, Owner, Refusal, Registered, Resume,
    Session,
};
use ringway_core::rng::Rng;
use ringway_core::{NodeId, SessionId};
use rustix::time::{ClockId, clock_gettime};

use super::LEASE;
use crate::support::pass;

/// Where a process finds what it has to do.
pub(super) const WORDS: &str = "RINGWAY_TEST_WORKER";
/// How long whoever holds a lock is busy with it.
const WORK: Duration = Duration::from_millis(4);
/// Names in the sample, few enough for processes to meet.
pub(super) const NAMES: u64 = 5;

/// No story of its own: the work of a process, if this is one. Otherwise there is nothing to do.
#[test]
fn works() {
    let Ok(words) = std::env::var(WORDS) else { return };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let words: Vec<&str> = words.split(' ').collect();
    let [what, server, node, path] = words.as_slice() else { panic!("told {words:?}") };
    let node: u64 = node.parse().expect("a number");
    let server: SocketAddr = server.parse().expect("an address");
    let mut pen = Pen::open(path);
    match *what {
        "locks" => std::thread::scope(|scope| {
            scope.spawn(|| take_turns(server, (2 * node, node), "lock", Mode::Exclusive, path));
            let two = Mode::Counting { permits: 2 };
            take_turns(server, (2 * node + 1, node), "seats", two, path);
        }),
        "session" => ask_about_names(|| Kept::open(server, node), node, &mut pen),
        "plain" => ask_about_names(|| Plain::open(server, node), node, &mut pen),
        other => panic!("told {other}"),
    }
}

/// Writes lines at the end of a file, each at once and whole.
struct Pen(File);

impl Pen {
    fn open(path: &str) -> Pen {
        Pen(OpenOptions::new().append(true).create(true).open(path).expect("a place for notes"))
    }

    fn note(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).expect("writes");
    }
}

/// The moment, in nanoseconds of the machine's clock.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Enters a critical section again and again. What it notes there is what it does: a storage that
/// compares tokens would take or refuse these lines. `valid` says that at its end nobody else can
/// have been let in, as far as its holder knew.
fn take_turns(server: SocketAddr, (node, who): (u64, u64), name: &str, mode: Mode, path: &str) {
    let mut pen = Pen::open(path);
    let builder = Session::builder().node(node).lease(LEASE);
    loop {
        let Ok(session) = builder.connect(server.to_string()) else { continue };
        while let Ok(held) = session.lock_as(name, mode, None) {
            let token = held.token().0;
            pen.note(&format!("begin {name} {token} {who}"));
            pass(WORK);
            pen.note(&format!("end {name} {token} {who}"));
            if !held.is_lost() {
                pen.note(&format!("valid {name} {token} {who}"));
            }
        }
    }
}

/// What one asks of a server: the answer in words, or nothing if none came.
trait Link {
    fn session(&self) -> SessionId;
    /// Until this moment the session cannot have ended by itself; `None`: it is over.
    fn valid_until(&mut self) -> Option<u64>;
    fn ask(&mut self, act: &Act<'_>) -> Option<String>;
    fn close(self);
}

/// What is asked about a name.
enum Act<'a> {
    Query(&'a [u8]),
    Register(&'a [u8]),
    Release(&'a [u8]),
    Transfer(&'a [u8], SessionId),
    Meta(&'a [u8]),
    Set(&'a [u8], u32, &'a str),
}

/// Both faces have the same methods, and fail in their own ways.
macro_rules! answer {
    ($link:expr, $act:expr) => {{
        let link = $link;
        let said = match $act {
            Act::Query(name) => link.query(&[*name]).map(|all| told(all, query_words)),
            Act::Register(name) => link.register(&[*name]).map(|all| told(all, register_words)),
            Act::Release(name) => link.release(&[*name]).map(|all| told(all, |()| RELEASED.into())),
            Act::Transfer(name, to) => {
                link.transfer(&[*name], *to).map(|all| told(all, owner_words))
            }
            Act::Meta(name) => link.meta(&[*name]).map(|all| told(all, meta_words)),
            Act::Set(name, version, value) => {
                link.set_meta(name, Some(*version), value.as_bytes()).map(set_words)
            }
        };
        said.map_err(|error| error.refusal())
    }};
}

const RELEASED: &str = "released";

fn owner_words(owner: Owner) -> String {
    format!("owner {} {}", owner.session.0, owner.token.0)
}

fn query_words(owner: Option<Owner>) -> String {
    owner.map_or("free".into(), owner_words)
}

fn register_words(registered: Registered) -> String {
    let (Registered::Granted(owner) | Registered::Held(owner)) = registered;
    owner_words(owner)
}

fn meta_words(meta: Option<Described>) -> String {
    let Some(Described { session, token, version, metadata }) = meta else { return "free".into() };
    format!("meta {} {} {version} {}", session.0, token.0, word(&metadata))
}

fn set_words(set: MetaSet) -> String {
    match set {
        MetaSet::Done(version) => format!("done {version}"),
        MetaSet::Conflict(version, value) => format!("conflict {version} {}", word(&value)),
    }
}

/// The only result.
fn told<T>(mut all: Vec<Result<T, Refusal>>, say: impl FnOnce(T) -> String) -> String {
    all.pop().expect("one was asked for").map_or_else(refused, say)
}

fn refused(refusal: Refusal) -> String {
    match refusal {
        Refusal::NotOwner => "notowner".into(),
        Refusal::NoSession => "nosession".into(),
        other => panic!("refused: {other}"),
    }
}

fn word(bytes: &[u8]) -> &str {
    if bytes.is_empty() { "-" } else { std::str::from_utf8(bytes).expect("text") }
}

/// A session of the library, which asks again for what a broken connection took.
struct Kept(Session);

impl Kept {
    fn open(server: SocketAddr, node: u64) -> Option<Kept> {
        Session::builder().node(node).lease(LEASE).connect(server.to_string()).ok().map(Kept)
    }
}

impl Link for Kept {
    fn session(&self) -> SessionId {
        self.0.id()
    }

    fn valid_until(&mut self) -> Option<u64> {
        // Read first, so that it is rather too early than too late.
        let now = now();
        let left = self.0.valid_for().as_nanos() as u64;
        (self.0.over().is_none() && left > 0).then_some(now + left)
    }

    fn ask(&mut self, act: &Act<'_>) -> Option<String> {
        match answer!(&self.0, act) {
            Ok(said) => Some(said),
            Err(refusal) => refusal.map(refused),
        }
    }

    fn close(self) {
        self.0.close();
    }
}

/// A plain connection: who breaks it leaves open whether the last thing was done.
struct Plain {
    server: SocketAddr,
    client: Client,
    request: OpenRequest<'static>,
    session: SessionId,
    renewed: u64,
}

impl Plain {
    fn open(server: SocketAddr, node: u64) -> Option<Plain> {
        let request = OpenRequest { lease: LEASE, ..OpenRequest::new(NodeId(node)) };
        let (renewed, mut client) = (now(), connect(server)?);
        let opened = client.open(request).ok()?;
        let request = OpenRequest { resume: Resume::With(opened.secret), ..request };
        Some(Plain { server, client, request, session: opened.session, renewed })
    }

    /// Renews when it is time to, over a new connection if need be.
    fn renew(&mut self) -> Option<()> {
        let begun = now();
        if begun < self.renewed + LEASE.as_nanos() as u64 / 4 {
            return Some(());
        }
        match self.client.renew().map_err(|error| error.refusal()) {
            Ok(()) => {}
            Err(Some(_)) => return None,
            Err(None) => while begun + LEASE.as_nanos() as u64 > now() && !self.resume()? {},
        }
        self.renewed = begun;
        Some(())
    }

    fn resume(&mut self) -> Option<bool> {
        let Some(client) = connect(self.server) else { return Some(false) };
        self.client = client;
        match self.client.open(self.request).map_err(|error| error.refusal()) {
            Ok(_) => Some(true),
            Err(Some(_)) => None,
            Err(None) => Some(false),
        }
    }
}

fn connect(server: SocketAddr) -> Option<Client> {
    Client::connect(server, Options { timeout: LEASE, credentials: None }).ok()
}

impl Link for Plain {
    fn session(&self) -> SessionId {
        self.session
    }

    fn valid_until(&mut self) -> Option<u64> {
        self.renew()?;
        Some(self.renewed + LEASE.as_nanos() as u64)
    }

    fn ask(&mut self, act: &Act<'_>) -> Option<String> {
        match answer!(&mut self.client, act) {
            Ok(said) => Some(said),
            Err(Some(refusal)) => Some(refused(refusal)),
            Err(None) => {
                // The next renewal makes a new connection.
                self.renewed = self.renewed.min(now() - LEASE.as_nanos() as u64 / 4);
                None
            }
        }
    }

    fn close(mut self) {
        let _ = self.client.close_session(None);
    }
}

/// Asks this and that about names, session after session, and notes each question before it is
/// asked, and each answer when it has come.
fn ask_about_names<L: Link>(open: impl Fn() -> Option<L>, node: u64, pen: &mut Pen) {
    let mut rng = Rng::new(now() ^ node);
    let mut values = 0;
    loop {
        pen.note(&format!("open {} {node}", now()));
        let Some(mut link) = open() else { continue };
        pen.note(&format!("opened {} {}", now(), link.session().0));
        let me = format!("peer/{node}");
        link.ask(&Act::Register(me.as_bytes()));
        while let Some(until) = link.valid_until()
            && !rng.chance(5)
        {
            pen.note(&format!("valid {until}"));
            let name = format!("sample/{}", rng.below(NAMES));
            values += 1;
            let value = format!("{}/{values}", link.session().0);
            something(&mut link, (name.as_bytes(), &value), &mut rng, pen);
            pass(Duration::from_micros(rng.below(1500)));
        }
        pen.note(&format!("closing {}", now()));
        link.close();
        pen.note(&format!("closed {}", now()));
    }
}

/// One thing that may be asked about a name, or a few that go together.
fn something<L: Link>(link: &mut L, (name, value): (&[u8], &str), rng: &mut Rng, pen: &mut Pen) {
    match rng.below(6) {
        0 => drop(noted(link, &Act::Query(name), pen)),
        1 => drop(noted(link, &Act::Register(name), pen)),
        2 => drop(noted(link, &Act::Release(name), pen)),
        3 => drop(noted(link, &Act::Meta(name), pen)),
        4 => {
            let peer = format!("peer/{}", rng.below(8));
            let found = link.ask(&Act::Query(peer.as_bytes())).unwrap_or_default();
            let mut words = found.split(' ').skip(1);
            let to = words.next().and_then(|session| session.parse().ok()).map(SessionId);
            if let Some(to) = to.filter(|to| *to != link.session()) {
                noted(link, &Act::Transfer(name, to), pen);
            }
        }
        _ => {
            // Read, and set if nobody has meanwhile.
            let read = noted(link, &Act::Meta(name), pen).unwrap_or_default();
            let version = read.split(' ').nth(3).and_then(|version| version.parse().ok());
            noted(link, &Act::Set(name, version.unwrap_or(0), value), pen);
        }
    }
}

fn noted<L: Link>(link: &mut L, act: &Act<'_>, pen: &mut Pen) -> Option<String> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let asked = match act {
        Act::Query(name) => format!("query {}", text(name)),
        Act::Register(name) => format!("register {}", text(name)),
        Act::Release(name) => format!("release {}", text(name)),
        Act::Transfer(name, to) => format!("transfer {} {}", text(name), to.0),
        Act::Meta(name) => format!("meta {}", text(name)),
        Act::Set(name, version, value) => format!("set {} {version} {value}", text(name)),
    };
    pen.note(&format!("call {} {asked}", now()));
    let said = link.ask(act);
    let ret = now();
    pen.note(&said.as_ref().map_or("lost".into(), |said| format!("ret {ret} {said}")));
    said
}
