//! Names that are described and that change hands, by commands.

use serde_json::{Value, json};

use crate::support::{Setup, ringway_at, ringway_fed, saved_session, until};

/// Metadata by compare-and-set: who has read an older version is told the newer one, and changes
/// nothing.
#[test]
fn metadata_is_compared_and_set() {
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (saved, session) = saved_session(&server, dir.path(), 1);
    let meta = |words: &[&str]| {
        ringway_at(server.addr, &[&["port", "meta", "svc", "--json"], words].concat())
    };
    assert_eq!(meta(&[]).with(1).json()["result"], "free");
    ringway_at(server.addr, &["port", "register", "svc", "--as", &saved]).with(0);
    let told = meta(&[]).with(0).json();
    assert_eq!((&told["session"], &told["version"]), (&json!(session), &json!(0)));

    let set =
        |text: &str, version: &str| meta(&["--set", text, "--version", version, "--as", &saved]);
    assert_eq!(set("weight=4", "0").with(0).json()["version"], 1);
    let late = set("weight=9", "0").with(1).json();
    let expected =
        json!({ "name": "svc", "result": "conflict", "version": 1, "metadata": "weight=4" });
    assert_eq!(late, expected);
    assert_eq!(set("weight=5", "1").with(0).json()["version"], 2);
    let file = dir.path().join("state");
    std::fs::write(&file, b"\xFF\x00").expect("writes");
    meta(&["--set-file", file.to_str().expect("text"), "--as", &saved]).with(0);
    assert_eq!(meta(&[]).with(0).json()["metadata"], json!({ "hex": "ff00" }));
    let fed = ["port", "meta", "svc", "--set-file", "-", "--as", &saved];
    ringway_fed(server.addr, &fed, b"from afar").with(0);
    assert_eq!(meta(&[]).with(0).json()["metadata"], "from afar");

    meta(&["--set", &"x".repeat(257), "--as", &saved]).with(2).complains(&["256"]);
    meta(&["--as", &saved]).with(2);
    let (other, _) = saved_session(&server, dir.path(), 2);
    meta(&["--set", "mine", "--as", &other]).with(1).complains(&["NOTOWNER"]);
    let text = ringway_at(server.addr, &["port", "meta", "svc"]).with(0).out;
    assert!(text.starts_with("svc  owned  session ") && text.contains("version 4"), "{text}");
    server.stop();
}

/// The balancer's act: 5000 names from standard input go over to another session, each under a
/// larger token; what is not this session's is said, and does not keep the others.
#[test]
fn thousands_of_names_are_transferred() {
    const NAMES: usize = 5000;
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (from, _) = saved_session(&server, dir.path(), 1);
    let (to, session) = saved_session(&server, dir.path(), 2);
    let names: Vec<String> = (0..NAMES).map(|at| format!("users/{at}")).collect();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let claim = ["port", "register", "--json", "--as", &from];
    let before = ringway_at(server.addr, &[&claim[..], &words].concat()).with(0).json();
    let lines = names.join("\n") + "\n";
    let move_all = ["port", "transfer", &session, "-", "--as", &from, "--json"];
    let after = ringway_fed(server.addr, &move_all, lines.as_bytes()).with(0).json();
    let (before, after) = (before.as_array().expect("lines"), after.as_array().expect("lines"));
    assert_eq!((before.len(), after.len()), (NAMES, NAMES));
    let token_of =
        |line: &Value| line["token"].as_str().and_then(|token| token.parse::<u64>().ok());
    for (before, after) in before.iter().zip(after) {
        assert_eq!((&after["name"], &after["result"]), (&before["name"], &json!("transferred")));
        assert_eq!(after["session"], json!(session));
        assert!(token_of(after) > token_of(before), "{before} {after}");
    }
    let info = ringway_at(server.addr, &["session", "info", &session, "--json"]).with(0).json();
    assert_eq!(info["names"], NAMES);

    let again = ["port", "transfer", &session, "users/1", "--as", &from];
    assert!(ringway_at(server.addr, &again).with(1).out.contains("NOTOWNER"));
    let back = |token: &str| {
        let first = before[0]["session"].as_str().expect("a session");
        let words = ["port", "transfer", first, "users/1", "--as", &to, "--token", token];
        ringway_at(server.addr, &words)
    };
    assert!(back("1").with(1).out.contains("NOTOWNER"));
    let line = back(after[1]["token"].as_str().expect("a token")).with(0).out;
    assert!(line.starts_with("users/1  transferred  session "), "{line}");
    let nobody = ["port", "transfer", "00000000000000ff", "users/2", "--as", &to];
    assert!(ringway_at(server.addr, &nobody).with(1).out.contains("NOSESSION"));
    let two = ["port", "transfer", &session, "a", "b", "--token", "1", "--as", &to];
    ringway_at(server.addr, &two).with(2);
    server.stop();
}

/// An operator takes names: for a session, or so that they are free; what was free is said.
#[test]
fn an_operator_takes_names() {
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (saved, _) = saved_session(&server, dir.path(), 1);
    let (_, other) = saved_session(&server, dir.path(), 2);
    let at = |words: &[&str]| ringway_at(server.addr, &[words, &["--json"]].concat());
    at(&["port", "register", "a", "b", "--as", &saved]).with(0);
    let moved = at(&["port", "revoke", "a", "--to", &other]).with(0).json();
    assert_eq!((&moved[0]["result"], &moved[0]["session"]), (&json!("moved"), &json!(other)));
    let taken = at(&["port", "revoke", "b", "nobody's"]).with(0).json();
    assert_eq!((&taken[0]["result"], &taken[1]["result"]), (&json!("revoked"), &json!("free")));
    at(&["port", "revoke", "nobody's", "--to", &other]).with(1);
    let gone = at(&["port", "revoke", "a", "--to", "00000000000000ff"]).with(1).json();
    assert!(gone[0]["why"].as_str().is_some_and(|why| why.starts_with("NOSESSION")), "{gone}");
    let owners = at(&["port", "query", "a", "b"]).with(0).json();
    assert_eq!((&owners[0]["session"], &owners[1]["token"]), (&json!(other), &Value::Null));
    let given = format!("gives \"a\" to session {other}: GRANTED");
    for line in [&given, "revokes \"b\": OK"] {
        until(line, || server.log().contains(line).then_some(()));
    }
    server.stop();
}
