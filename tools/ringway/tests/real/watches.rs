//! `ringway port watch`: what is owned, and what becomes of it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Held, Proxy, Setup, granted, ringway_at, saved_session, spawn_at};

/// A name from before it was owned until it is free again: each change is a line, in order.
#[test]
fn a_name_is_watched() {
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (saved, session) = saved_session(&server, dir.path(), 1);
    let mut watch = spawn_at(server.addr, &["port", "watch", "leader", "--json"]);
    let next =
        |watch: &Held| -> Value { serde_json::from_str(&watch.line()).expect("an object a line") };
    assert_eq!(next(&watch), json!({ "event": "snapshot", "names": 0 }));
    let at = |words: &[&str]| ringway_at(server.addr, &[words, &["--as", &saved]].concat()).with(0);
    at(&["port", "register", "leader"]);
    let acquired = next(&watch);
    assert_eq!((&acquired["event"], &acquired["name"]), (&json!("acquired"), &json!("leader")));
    assert_eq!((&acquired["session"], &acquired["skipped"]), (&json!(session), &json!(false)));
    assert_eq!(acquired["shared"], json!(false), "only of releases it says more");
    at(&["port", "meta", "leader", "--set", "hello"]);
    let changed = next(&watch);
    assert_eq!((&changed["event"], &changed["version"]), (&json!("changed"), &json!(1)));
    at(&["port", "release", "leader"]);
    let released = next(&watch);
    assert_eq!((&released["event"], &released["token"]), (&json!("released"), &acquired["token"]));
    watch.signal(Signal::INT);
    assert_eq!(watch.wait(), Some(0), "{}", watch.err());
    server.stop();
}

/// Two share a name and go one after the other: the first release says that it is not free yet, the
/// second does not.
#[test]
fn a_release_says_whether_others_are_left() {
    let server = Setup::new().start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (one, _) = saved_session(&server, dir.path(), 1);
    let (other, _) = saved_session(&server, dir.path(), 2);
    let watch = spawn_at(server.addr, &["port", "watch", "room"]);
    let objects = spawn_at(server.addr, &["port", "watch", "room", "--json"]);
    assert_eq!(watch.line(), "snapshot  names 0");
    objects.line();
    let at = |words: &[&str]| ringway_at(server.addr, words).with(0);
    for saved in [&one, &other] {
        at(&["port", "register", "room", "--shared", "--as", saved]);
        watch.line_with("room  acquired  session ");
        objects.line();
    }
    for (saved, shared) in [(&one, true), (&other, false)] {
        at(&["port", "release", "room", "--as", saved]);
        let line = watch.line_with("room  released  session ");
        assert_eq!(line.ends_with("  shared"), shared, "{line}");
        let object: Value = serde_json::from_str(&objects.line()).expect("an object a line");
        assert_eq!((&object["event"], &object["shared"]), (&json!("released"), &json!(shared)));
    }
    server.stop();
}

/// Of a prefix, first what is owned, unless that is not wanted; then the changes, also those that
/// were made while the connection was broken.
#[test]
fn a_prefix_is_watched_over_a_break() {
    let server = Setup::new().shards(2).start();
    let proxy = Proxy::start(server.addr);
    let mut client = server.client();
    granted(&mut client, "svc/a");
    granted(&mut client, "other");
    let watch = spawn_at(proxy.addr, &["port", "watch", "svc/"]);
    assert!(watch.line().starts_with("svc/a  owned  session "));
    assert_eq!(watch.line(), "snapshot  names 1");
    let changes = spawn_at(server.addr, &["port", "watch", "svc/", "--no-snapshot"]);
    assert_eq!(changes.line(), "snapshot  names 1");
    proxy.cut();
    watch.line_with("interrupted");
    granted(&mut client, "svc/b");
    watch.line_with("svc/b  ");
    granted(&mut client, "svc/c");
    watch.line_with("svc/c  acquired  session ");
    assert!(changes.line().starts_with("svc/b  acquired  session "));
    server.stop();
}

/// The server dies and comes back without a memory of the session: the watch goes on with what is
/// owned now, until it is told to stop.
#[test]
fn a_watch_outlives_its_server() {
    let server = Setup::new().start();
    let proxy = Proxy::start(server.addr);
    let mut watch = spawn_at(proxy.addr, &["port", "watch", "svc/"]);
    assert_eq!(watch.line(), "snapshot  names 0");
    server.kill();
    assert_eq!(watch.line(), "interrupted");
    let server = Setup::new().shards(2).start();
    let mut client = server.client();
    granted(&mut client, "svc/a");
    proxy.lead_to(server.addr);
    assert!(watch.line().starts_with("svc/a  owned  session "));
    assert_eq!(watch.line(), "snapshot  names 1");
    granted(&mut client, "svc/b");
    assert!(watch.line().starts_with("svc/b  acquired  session "));
    watch.signal(Signal::INT);
    assert_eq!(watch.wait(), Some(0), "{}", watch.err());
    server.stop();
}
