//! `ringway port send` and `ringway port listen`: messages to whoever owns a name.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Setup, granted, ringway_at, ringway_fed, saved_session, spawn_at};

/// Who owns the name gets the message, from words or from standard input, and who sends is told
/// what became of it; in the name of a name only while the sender owns that.
#[test]
fn messages_find_the_owner_of_a_name() {
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (saved, session) = saved_session(&server, dir.path(), 1);
    let send =
        |words: &[&str]| ringway_at(server.addr, &[&["port", "send", "--json"], words].concat());
    let lost = send(&["inbox", "hello"]).with(1).json();
    assert_eq!((&lost["result"], &lost["why"]), (&json!("free"), &json!("nobody owns it")));

    let mut ears = spawn_at(server.addr, &["port", "listen", "inbox", "other", "--json"]);
    crate::support::until("it listens", || ears.err().contains("other  granted").then_some(()));
    let next = || -> Value { serde_json::from_str(&ears.line()).expect("an object a line") };
    assert_eq!(send(&["inbox", "hello", "--receipt"]).with(0).json()["result"], "delivered");
    let expected = json!({
        "to": "name", "name": "inbox", "from": null, "fence": null, "payload": "hello",
    });
    assert_eq!(next(), expected);
    let fed = ringway_fed(server.addr, &["port", "send", "other", "--as", &saved], b"from\nafar");
    assert_eq!(fed.with(0).out, "other  sent\n");
    let heard = next();
    assert_eq!((&heard["name"], &heard["from"]), (&json!("other"), &json!(session)));
    assert_eq!(heard["payload"], "from\nafar");

    let claimed = ["port", "register", "leader", "--as", &saved, "--json"];
    let token = ringway_at(server.addr, &claimed).with(0).json()[0]["token"].clone();
    let fenced = |token: &str| {
        send(&["inbox", "stop", "--as", &saved, "--from", "leader", "--token", token])
    };
    let refused = fenced("1").with(1).json();
    assert!(refused["why"].as_str().is_some_and(|why| why.starts_with("FENCED")), "{refused}");
    fenced(token.as_str().expect("a token")).with(0);
    assert_eq!(next()["fence"], json!({ "name": "leader", "token": token }));
    let away = send(&["leader", "anybody?", "--receipt"]).with(1).json();
    assert_eq!(away["result"], "away", "a saved session has no connection");

    let reached = send(&["--all", "noon", "--receipt"]).with(0).json();
    assert_eq!((&reached["sessions"], &reached["away"]), (&json!(1), &json!(1)));
    assert_eq!((&next()["to"], &send(&["--all", "a", "b"]).code), (&json!("all"), &Some(2)));
    ears.signal(Signal::INT);
    assert_eq!(ears.wait(), Some(0), "{}", ears.err());
    granted(&mut server.client(), "inbox");
    server.stop();
}

/// Who listens for what another owns is told so; whose name is taken listens no more. For people
/// each message is a line.
#[test]
fn listening_takes_the_name() {
    let server = Setup::new().start();
    let mut client = server.client();
    granted(&mut client, "taken");
    let late = ringway_at(server.addr, &["port", "listen", "free", "taken"]).with(1);
    assert!(late.out.contains("taken  held  session "), "{late:?}");
    granted(&mut client, "free");
    let words = ["port", "listen", "news", "--shared"];
    let mut two = [spawn_at(server.addr, &words), spawn_at(server.addr, &words)];
    for ears in &two {
        crate::support::until("it listens", || ears.err().contains("granted").then_some(()));
    }
    ringway_at(server.addr, &["port", "send", "news", "to all who share it"]).with(0);
    let line = "news  from nobody  to all who share it";
    two.iter().for_each(|ears| assert_eq!(ears.line(), line));
    ringway_at(server.addr, &["port", "revoke", "news"]).with(0);
    for ears in &mut two {
        assert_eq!(ears.wait(), Some(1), "{}", ears.err());
        assert!(ears.err().contains("news is lost"), "{}", ears.err());
    }
    server.stop();
}
