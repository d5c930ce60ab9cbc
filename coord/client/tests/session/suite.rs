//! What both faces do, told once: `wait!` is how the face waits for an answer, and `Session` is its
//! session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringway_client::engine::{Event, Fault, LinkFault, Over, WatchEnd, WatchItem};
use ringway_client::receive::Events;
use ringway_client::{
    Client, Delivery, EndReason, MetaSet, Mode, Options, Refusal, Registered, Revoked, SessionError,
};
use ringway_core::{SessionId, Token};

use super::Session;
use super::mock::{self, Seen};
use super::server::{self, Wire, until};

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn session(addr: SocketAddr, node: u64) -> Session {
    let builder = Session::builder().node(node).lease(Duration::from_secs(10));
    wait!(builder.connect(addr.to_string())).expect("the server answers")
}

#[track_caller]
fn hear(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let begun = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let event = events.recv_timeout(left).expect("it is told");
        if wanted(&event) {
            return event;
        }
    }
}

/// Waits until one waits for the name.
#[track_caller]
fn waited_for(holder: &Session, name: &str) {
    until("it waits", || {
        let queue = wait!(holder.waiters(name, 10)).expect("answered").expect("held");
        queue.waiters_in_all == 1
    });
}

fn granted(result: &Result<Registered, Refusal>) -> Token {
    match result {
        Ok(Registered::Granted(owner)) => owner.token,
        other => panic!("{other:?}"),
    }
}

/// Twenty thousand names are one call, and each result stands where its name stood.
#[test]
fn batches_keep_their_order() {
    let session = session(server::addr(), 101);
    let names: Vec<String> = (0..20_000).map(|number| format!("batch/{number}")).collect();
    let registered = wait!(session.register(&names)).expect("answered");
    let tokens: Vec<Token> = registered.iter().map(granted).collect();
    let owners = wait!(session.query(&names)).expect("answered");
    for (owner, token) in owners.iter().zip(&tokens) {
        let owner = owner.expect("no refusal").expect("owned");
        assert_eq!((owner.session, owner.token), (session.id(), *token));
    }
    let halves: Vec<(&String, Token)> = names.iter().zip(tokens).take(10_000).collect();
    let released = wait!(session.release_if(&halves)).expect("answered");
    assert!(released.iter().all(Result::is_ok) && released.len() == 10_000);
    let listed = wait!(session.list("batch/")).expect("listed");
    assert_eq!(listed.len(), 10_000);
    let wrong = wait!(session.query(&["good", ""])).expect_err("an empty name");
    assert!(matches!(wrong, SessionError::Fault { fault: Fault::Op(_), .. }), "{wrong}");
}

/// A lock goes from one process to the next when it is let go, under a larger token.
#[test]
fn a_lock_is_handed_over() {
    let (first, second) = (session(server::addr(), 111), session(server::addr(), 112));
    let held = wait!(first.lock("handed", Some(PATIENCE))).expect("free");
    assert!(!held.is_lost() && held.valid_for() > Duration::from_secs(5));
    let late = wait!(second.lock("handed", Some(Duration::from_millis(20)))).expect_err("held");
    assert!(matches!(late, SessionError::TimedOut { .. }), "{late}");
    let token = held.token();
    let waiter = std::thread::spawn(move || wait!(second.lock("handed", Some(PATIENCE))));
    waited_for(&first, "handed");
    drop(held);
    let next = waiter.join().expect("it waits").expect("handed over");
    assert!(next.token() > token);
}

/// Eight threads of one session and eight of another want one lock. Nobody is in it with another,
/// and each grant's token is larger than the one before.
#[test]
fn one_at_a_time() {
    let sessions = [session(server::addr(), 121), session(server::addr(), 122)];
    let (inside, largest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let session = sessions[number % 2].clone();
            let (inside, largest) = (Arc::clone(&inside), Arc::clone(&largest));
            std::thread::spawn(move || {
                for _ in 0..20 {
                    let held = wait!(session.lock("crowded", Some(PATIENCE))).expect("granted");
                    assert!(!inside.swap(true, Ordering::SeqCst), "two are in it");
                    let token = held.token().0 as usize;
                    assert!(largest.fetch_max(token, Ordering::SeqCst) < token);
                    inside.store(false, Ordering::SeqCst);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("nobody is in it with another"));
}

/// A counting name has as many holders as permits, and the next one waits for any of them.
#[test]
fn permits_are_counted() {
    let sessions: Vec<Session> = (131..135).map(|node| session(server::addr(), node)).collect();
    let mode = Mode::Counting { permits: 3 };
    let mut held: Vec<_> = sessions[..3]
        .iter()
        .map(|session| wait!(session.lock_as("permits", mode, Some(PATIENCE))).expect("free"))
        .collect();
    let short = Some(Duration::from_millis(20));
    assert!(wait!(sessions[3].lock_as("permits", mode, short)).is_err(), "a fourth");
    held.pop();
    assert!(wait!(sessions[3].lock_as("permits", mode, Some(PATIENCE))).is_ok());
}

/// The wire is cut in the middle of work. The session is resumed with all it holds; calls of the
/// meantime are answered; nobody else had the lock.
#[test]
fn a_cut_wire_loses_nothing() {
    let wire = Wire::to(server::addr());
    let session = session(wire.addr, 141);
    let mut events = session.events();
    let held = wait!(session.lock("cut", None)).expect("free");
    for round in 0..5 {
        wire.cut();
        let names: Vec<String> = (0..100).map(|number| format!("cut/{round}/{number}")).collect();
        let registered = wait!(session.register(&names)).expect("sent again");
        assert!(registered.iter().all(|result| granted(result).0 > 0));
        hear(&mut events, |event| matches!(event, Event::Interrupted(_)));
        hear(&mut events, |event| *event == Event::Resumed);
    }
    assert!(!held.is_lost());
    let owner = wait!(session.query(&["cut"])).expect("answered")[0].expect("no refusal");
    assert_eq!(owner.map(|owner| owner.token), Some(held.token()));
}

/// The answer is lost on its way, again and again, to what must not be done twice: metadata under a
/// version, and names given back and forth. Each is done once, and nobody is told that it is
/// unknown.
#[test]
fn a_lost_answer_is_told_again() {
    let (wire, back) = (Wire::to(server::addr()), Wire::to(server::addr()));
    let (here, there) = (session(wire.addr, 145), session(back.addr, 146));
    let names: Vec<String> = (0..200).map(|number| format!("lost/{number}")).collect();
    wait!(here.register(&names)).expect("answered");
    wait!(here.register(&["lost"])).expect("answered");
    let mut version = 0;
    for round in 0..20 {
        wire.lose_next();
        let set = wait!(here.set_meta("lost", Some(version), format!("{round}")));
        version += 1;
        assert_eq!(set.expect("ours"), MetaSet::Done(version));
        wire.lose_next();
        back.lose_next();
        for (from, to) in [(&here, &there), (&there, &here)] {
            let moved = wait!(from.transfer(&names, to.id())).expect("answered");
            let lost = moved.iter().find(|moved| !matches!(moved, Ok(o) if o.session == to.id()));
            assert_eq!(lost, None, "round {round}");
        }
    }
    let described = wait!(here.meta(&["lost"])).expect("answered")[0].clone().expect("no refusal");
    assert_eq!(described.expect("ours").metadata, b"19");
}

/// Many callers at once, while the wire is cut whenever it is whole: each of them counts for
/// itself, and nothing is counted twice.
#[test]
fn many_callers_count_over_a_bad_wire() {
    let wire = Wire::to(server::addr());
    let session = session(wire.addr, 147);
    let done = Arc::new(AtomicBool::new(false));
    let counting: Vec<_> = (0..6)
        .map(|number| {
            let (session, done) = (session.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let name = format!("count/{number}");
                wait!(session.register(&[&name])).expect("answered");
                let mut version = 0;
                while version < 20 || !done.load(Ordering::SeqCst) {
                    let metadata = [number; 250];
                    let set = wait!(session.set_meta(&name, Some(version), metadata));
                    version += 1;
                    assert_eq!(set.expect("ours"), MetaSet::Done(version), "{name}");
                }
            })
        })
        .collect();
    let mut events = session.events();
    for round in 0..40 {
        match round % 2 {
            0 => wire.cut(),
            _ => wire.lose_next(),
        }
        hear(&mut events, |event| *event == Event::Resumed);
    }
    done.store(true, Ordering::SeqCst);
    counting.into_iter().for_each(|thread| thread.join().expect("it counts right"));
}

/// While a lock is waited for, the wire is cut, and the holder lets go meanwhile: the grant is
/// learnt when there is a connection again.
#[test]
fn a_grant_while_the_wire_is_cut_is_learnt() {
    let (holder, wire) = (session(server::addr(), 151), Wire::to(server::addr()));
    let waiter = session(wire.addr, 152);
    for _ in 0..5 {
        let held = wait!(holder.lock("away", Some(PATIENCE))).expect("free");
        let waiting = std::thread::spawn({
            let waiter = waiter.clone();
            move || wait!(waiter.lock("away", Some(PATIENCE))).map(|held| held.token())
        });
        waited_for(&holder, "away");
        wire.cut();
        let token = held.token();
        drop(held);
        assert!(waiting.join().expect("it waits").expect("granted") > token);
    }
}

/// The network goes silent. The holder hears that the lease is at risk, then that it is lost, with
/// nothing but its own clock, before anybody else can have the lock.
#[test]
fn a_silent_network_is_at_risk_then_lost() {
    let wire = Wire::to(server::addr());
    let builder = Session::builder().node(161).lease(Duration::from_millis(600));
    let session = wait!(builder.connect(wire.addr.to_string())).expect("the server answers");
    let mut events = session.events();
    let held = wait!(session.lock("silent", None)).expect("free");
    let other = self::session(server::addr(), 162);
    wire.silence();
    hear(&mut events, |event| matches!(event, Event::AtRisk { .. }));
    let next = std::thread::spawn({
        let other = other.clone();
        move || {
            let next = wait!(other.lock("silent", Some(PATIENCE))).expect("expired");
            (next.token(), Instant::now())
        }
    });
    // No renewal is confirmed any more, so this moment stays.
    let ours_ends = Instant::now() + held.valid_for();
    until("it is lost", || held.is_lost());
    hear(&mut events, |event| *event == Event::Lost(Over::Expired));
    assert_eq!((events.recv(), session.over()), (None, Some(Over::Expired)));
    let (token, granted_at) = next.join().expect("it waits");
    assert!(token > held.token());
    assert!(granted_at > ours_ends, "ours was over before it was another's");
    let error = wait!(session.query(&["silent"])).expect_err("it is over");
    assert_eq!(error.over(), Some(Over::Expired), "{error}");
    assert!(wait!(session.lock("other", None)).is_err());
}

/// An operator ends one session, another process of the same node ends another.
#[test]
fn ended_sessions_say_why() {
    let killed = session(server::addr(), 171);
    let mut events = killed.events();
    let mut operator = Client::connect(server::addr(), Options::default()).expect("it answers");
    operator.kill(killed.id()).expect("anyone is an operator here");
    let lost = hear(&mut events, |event| matches!(event, Event::Lost(_)));
    assert_eq!(lost, Event::Lost(Over::Ended(EndReason::Killed)));

    let replaced = session(server::addr(), 172);
    let mut events = replaced.events();
    let successor = session(server::addr(), 172);
    let lost = hear(&mut events, |event| matches!(event, Event::Lost(_)));
    assert_eq!(lost, Event::Lost(Over::Ended(EndReason::Replaced)));
    assert_eq!(replaced.events().recv(), Some(lost), "who asks late is told, too");
    assert_eq!(successor.over(), None);
}

/// A balancer moves five thousand names from one process to another, which hears of each.
#[test]
fn names_are_transferred() {
    let (from, to) = (session(server::addr(), 181), session(server::addr(), 182));
    let names: Vec<String> = (0..5000).map(|number| format!("move/{number}")).collect();
    let before = wait!(from.register(&names)).expect("answered");
    let mut events = to.events();
    let moved = wait!(from.transfer(&names, to.id())).expect("answered");
    for (before, moved) in before.iter().zip(&moved) {
        let moved = moved.as_ref().expect("ours to give");
        assert!(moved.session == to.id() && moved.token > granted(before));
    }
    let received = hear(&mut events, |event| matches!(event, Event::Received { .. }));
    let Event::Received { from: giver, .. } = received else { panic!("{received:?}") };
    assert_eq!(giver, Some(from.id()));
    let again = wait!(from.transfer(&names[..1], to.id())).expect("answered");
    assert_eq!(again, [Err(Refusal::NotOwner)]);
}

/// An operator takes a lock away, for the next one who waits: its holder sees it, and letting go of
/// it afterwards does not harm the next holder.
#[test]
fn a_revoked_lock_is_lost() {
    let (holder, other) = (session(server::addr(), 191), session(server::addr(), 192));
    let mut events = holder.events();
    let held = wait!(holder.lock("revoked", None)).expect("free");
    let next = std::thread::spawn(move || wait!(other.lock("revoked", Some(PATIENCE))));
    waited_for(&holder, "revoked");
    let mut operator = Client::connect(server::addr(), Options::default()).expect("it answers");
    let revoked = operator.revoke(&[b"revoked"], None).expect("answered");
    assert_eq!(revoked, [Ok(Revoked::Freed)]);
    hear(&mut events, |event| matches!(event, Event::Taken { .. }));
    assert!(held.is_lost() && holder.over().is_none());
    let next = next.join().expect("it waits").expect("freed");
    drop(held);
    let owner = wait!(holder.query(&["revoked"])).expect("answered")[0].expect("no refusal");
    assert_eq!(owner.map(|owner| owner.token), Some(next.token()));
}

/// Metadata is set by who has seen the version it replaces.
#[test]
fn metadata_is_compared_and_set() {
    let session = session(server::addr(), 201);
    wait!(session.register(&["described"])).expect("answered");
    let set = wait!(session.set_meta("described", None, "weight=1")).expect("ours");
    let MetaSet::Done(version) = set else { panic!("{set:?}") };
    let next = wait!(session.set_meta("described", Some(version), "weight=2")).expect("ours");
    assert_eq!(next, MetaSet::Done(version + 1));
    let late = wait!(session.set_meta("described", Some(version), "weight=3")).expect("ours");
    assert_eq!(late, MetaSet::Conflict(version + 1, b"weight=2".to_vec()));
    let described = wait!(session.meta(&["described", "nothing"])).expect("answered");
    let first = described[0].clone().expect("no refusal").expect("owned");
    assert_eq!((first.version, first.metadata.as_slice()), (version + 1, b"weight=2".as_slice()));
    assert_eq!(described[1], Ok(None));
}

/// Sessions claim more at once than their server takes in, and their connections break, and again
/// whenever there are new ones. What the server was in the middle of is asked again: each name is
/// granted, and nobody is told that there was no time for it.
#[test]
fn claims_outlive_the_connections_that_made_them() {
    const SESSIONS: u64 = 8;
    const BREAKS: usize = 6;
    let wire = Wire::to(server::addr());
    let sessions: Vec<_> = (0..SESSIONS).map(|number| session(wire.addr, 261 + number)).collect();
    let mut all_events: Vec<Events> = sessions.iter().map(Session::events).collect();
    std::thread::scope(|scope| {
        for (number, session) in sessions.iter().enumerate() {
            scope.spawn(move || {
                let name = |at| format!("claims/{number}/{at}");
                let names: Vec<String> = (0..40_000).map(name).collect();
                let claimed = wait!(session.register(&names)).expect("answered");
                let tokens: Vec<Token> = claimed.iter().map(granted).collect();
                assert_eq!(tokens.len(), names.len());
            });
        }
        for _ in 0..BREAKS {
            wire.cut();
            for events in &mut all_events {
                hear(events, |event| *event == Event::Resumed);
            }
        }
    });
}

/// What a closed session held is free when closing returns; the last handle closes, too.
#[test]
fn closing_frees_at_once() {
    let (closing, other) = (session(server::addr(), 211), session(server::addr(), 212));
    wait!(closing.register(&["closed"])).expect("answered");
    wait!(closing.close());
    let registered = wait!(other.register(&["closed"])).expect("answered");
    granted(&registered[0]);
    assert_eq!(closing.over(), Some(Over::Closed));
    assert_eq!(wait!(closing.query(&["closed"])).expect_err("closed").over(), Some(Over::Closed));
    let dropped = session(server::addr(), 213);
    wait!(dropped.register(&["dropped"])).expect("answered");
    drop(dropped);
    assert!(wait!(other.lock("dropped", Some(Duration::from_secs(5)))).is_ok(), "before its lease");
}

/// The first server of a list is not there, or goes away: the next one is asked.
#[test]
fn other_servers_are_tried() {
    let (first, second) = (Wire::to(server::addr()), Wire::to(server::addr()));
    let nowhere = "127.0.0.1:1".to_owned();
    let addresses = [nowhere, first.addr.to_string(), second.addr.to_string()];
    let builder = Session::builder().node(221).lease(Duration::from_secs(10));
    let session = wait!(builder.connect_any(addresses)).expect("the second answers");
    let mut events = session.events();
    first.silence();
    first.cut();
    hear(&mut events, |event| *event == Event::Resumed);
    wait!(session.query(&["other"])).expect("the third answers");
}

/// Nobody is there: the error says so, and what to do.
#[test]
fn an_unreachable_server_is_an_error() {
    let builder = Session::builder().node(231).open_within(Duration::from_millis(200));
    let error = wait!(builder.connect("127.0.0.1:1")).expect_err("nobody listens there");
    let Some(Over::Unreachable(LinkFault::Connect(_))) = error.over() else { panic!("{error}") };
    assert!(error.to_string().contains("is `ringway serve` running there?"), "{error}");
}

/// A request finds its reply, although other messages come in between; each is read once.
#[test]
fn requests_find_their_replies() {
    let addr = mock::serve(|seen, says| {
        assert_eq!(seen.code, 0x48);
        says.replies.push(0);
        let payload = &seen.body[9..];
        let message = |payload: &[u8]| {
            let head = [&[2][..], &9u64.to_le_bytes(), &[0]].concat();
            (0x20, [&head, payload].concat())
        };
        match payload {
            // Ours to answer: a reply came to the session that asked.
            [0, b'r', b'p', 1, ..] => says.notices.push(message(b"thanks")),
            [_, b'r', b'q', _, ..] => {
                assert_eq!(&seen.body[..9], b"\x08accounts");
                says.notices.push(message(b"by the way"));
                says.notices.push(message(&[b"\0rp\x01", &payload[4..12], b"42"].concat()));
                says.notices.push(message(&[b"\0rq\x01", &payload[4..12], b"and you?"].concat()));
            }
            other => panic!("{other:?}"),
        }
    });
    let session = session(addr, 241);
    let mut messages = session.messages();
    let reply = wait!(session.request("accounts", "how many?", PATIENCE)).expect("answered");
    assert_eq!(reply.reply(), Some(b"42".as_slice()));
    assert_eq!(messages.recv().map(|message| message.payload), Some(b"by the way".to_vec()));
    let request = messages.recv().expect("a request to us");
    assert_eq!(request.request().map(|(_, says)| says), Some(b"and you?".as_slice()));
    assert_eq!(request.from, SessionId(9));
}

/// A request to nobody is not waited for, and one without a reply is over when its time is.
#[test]
fn requests_without_replies_end() {
    let addr = mock::serve(|seen: &Seen, says| {
        says.replies.push(if seen.body.starts_with(b"\x06nobody") { 0x01 } else { 0x00 });
    });
    let session = session(addr, 251);
    let error = wait!(session.request("nobody", "?", PATIENCE)).expect_err("no owner");
    assert!(error.to_string().contains("nobody owns the name"), "{error}");
    let error = wait!(session.request("mute", "?", Duration::from_millis(30))).expect_err("mute");
    assert!(matches!(error, SessionError::TimedOut { .. }), "{error}");
    assert_eq!(wait!(session.send("nobody", "?")).expect("answered"), Delivery::NoOwner);
}

/// A watch tells the state at one moment and then each change; the owner cache asks once and is
/// kept right by its watch.
#[test]
fn owners_are_kept_right_by_watches() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let addr = mock::serve(move |seen, says| match seen.code {
        0x40 => {
            counted.fetch_add(1, Ordering::SeqCst);
            mock::watching(&mut says.replies);
            let (watch, name) = (&seen.body[..4], &seen.body[9..]);
            says.notices.push((0x31, mock::state(watch, 7, name)));
            says.notices.push((0x32, watch.to_vec()));
        }
        // A message makes the mock change the owner: the watch of "svc/b" has number 2.
        0x48 => {
            says.replies.push(0);
            let watch = 2u32.to_le_bytes();
            says.notices.push((0x30, mock::event(&watch, 2, 6, 7, b"svc/b")));
            says.notices.push((0x30, mock::event(&watch, 1, 7, 8, b"svc/b")));
        }
        other => panic!("{other:#x}"),
    });
    let session = session(addr, 261);
    let mut watch = session.watch_prefix("svc/");
    let first = watch.recv_news().expect("told");
    assert!(matches!(first, WatchItem::Snapshot(names) if names[0].name == b"svc/"));
    let token = |owner: Option<ringway_client::Holder>| owner.map(|owner| owner.token);
    for _ in 0..100 {
        let owner = wait!(session.owner("svc/b")).expect("told");
        assert_eq!(token(owner), Some(Token(7)));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "one for the prefix and one for the name");
    wait!(session.send("svc/b", "change")).expect("sent");
    until("the change is known", || {
        token(wait!(session.owner("svc/b")).expect("told")) == Some(Token(8))
    });
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// One who does not read is not sent more than it may leave unread: it begins anew with a state
/// when it reads again.
#[test]
fn a_slow_watcher_begins_anew() {
    let addr = mock::serve(|seen, says| match seen.code {
        0x40 => {
            mock::watching(&mut says.replies);
            let watch = &seen.body[..4];
            says.notices.push((0x31, mock::state(watch, 7, b"s/a")));
            says.notices.push((0x32, watch.to_vec()));
            if watch == 1u32.to_le_bytes() {
                let event = |at| (0x30, mock::event(watch, 1, at, at, b"s/b"));
                says.notices.extend((10..4000).map(event));
            }
        }
        0x01 => {
            says.replies.push(1);
            let event = |at| (0x30, mock::event(&1u32.to_le_bytes(), 1, at, at, b"s/b"));
            says.notices.extend((10..4000).map(event));
        }
        other => panic!("{other:#x}"),
    });
    let session = session(addr, 271);
    let mut watch = session.watch_prefix("s/");
    (0..4).for_each(|_| drop(wait!(session.query(&["n"])).expect("answered")));
    assert_eq!(watch.recv(), Some(WatchItem::Interrupted), "what was known is void");
    let news = watch.recv_news().expect("told");
    assert!(matches!(news, WatchItem::Snapshot(names) if names.len() == 1));
}

/// A server that does not know watches ends them with a reason; owners are asked for each time.
#[test]
fn without_watches_owners_are_asked_for() {
    let addr = mock::serve(|seen, says| match seen.code {
        0x01 => {
            says.replies.push(0x40);
            says.replies.extend_from_slice(&9u64.to_le_bytes());
            says.replies.extend_from_slice(&7u64.to_le_bytes());
        }
        _ => says.replies.push(0xC1),
    });
    let session = session(addr, 281);
    let owner = wait!(session.owner("n")).expect("asked").expect("owned");
    assert_eq!((owner.session, owner.token), (SessionId(9), Token(7)));
    let ended = WatchItem::Ended(WatchEnd::Refused(Refusal::UnknownOp));
    assert_eq!(session.watch_prefix("s/").recv(), Some(ended));
}
