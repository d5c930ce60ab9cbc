//! Who may connect, and to which names.

use redis::Value;
use ringway_client::{Client, Options, Refusal};
use rustix::process::Signal;

use crate::support::{Server, Setup, Told, granted, ringway, until};

/// Beyond loopback a server listens only with credentials *and* the operator's word; each missing
/// one is named. Nothing is bound meanwhile.
#[test]
fn a_remote_listener_needs_credentials_and_consent() {
    let users = Users::new();
    let remote = Setup::new().flag("--listen", "0.0.0.0:0");
    remote.refused().with(2).complains(&[
        "the wire is plain",
        "`ringway credentials add` (missing)",
        "yours alone (missing)",
    ]);
    let consent = remote.clone().flag("--allow-plain-remote", true);
    consent.refused().with(2).complains(&["add` (missing)", "yours alone (given)"]);
    let credentials = remote.flag("--credentials", users.file());
    credentials.refused().with(2).complains(&["add` (given)", "yours alone (missing)"]);
}

/// Natively: nothing before AUTH, nothing with a wrong token, own namespaces only; an operator sees
/// and ends sessions of others.
#[test]
fn credentials_natively() {
    let users = Users::new();
    let (shop, admin) = (users.add(&["shop", "-n", "orders"]), users.add(&["boss", "--operator"]));
    let server = users.serve();
    let mut nobody = server.client();
    assert_eq!(nobody.query(&[b"orders/1"]).expect("answers"), [Err(Refusal::NoAuth)]);
    nobody.ping(b"anybody").expect("as with RESP");
    let wrong = server.client_as("shop", "guess").expect_err("a wrong token");
    assert_eq!(wrong.refusal(), Some(Refusal::Refused), "{wrong}");
    let wrong = server.client_as("nobody", &shop).expect_err("a wrong user");
    assert_eq!(wrong.refusal(), Some(Refusal::Refused), "{wrong}");

    let mut shop = server.client_as("shop", &shop).expect("authenticates");
    let owner = granted(&mut shop, "orders/1");
    granted(&mut shop, "orders");
    for name in ["carts/1", "ordersx", "order", "/orders/1"] {
        let denied = [Err(Refusal::Denied)];
        assert_eq!(shop.register(&[name.as_bytes()]).expect("answers"), denied, "{name}");
        assert_eq!(shop.query(&[name.as_bytes()]).expect("answers"), [Err(Refusal::Denied)]);
    }
    let denied = shop.kill(owner.session).expect_err("only operators kill");
    assert_eq!(denied.refusal(), Some(Refusal::Denied));
    let mut boss = server.client_as("boss", &admin).expect("authenticates");
    assert_eq!(boss.query(&[b"orders/1"]).expect("answers"), [Err(Refusal::Denied)], "no names");
    boss.kill(owner.session).expect("an operator does");
    server.stop();
}

/// The same through RESP: codes that Redis clients know.
#[test]
fn credentials_through_resp() {
    let users = Users::new();
    let shop = users.add(&["shop", "-n", "orders"]);
    let server = users.serve();
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut nobody = client.get_connection().expect("connects without a word");
    let code = |result: redis::RedisResult<Value>| {
        result.expect_err("refused").code().map(str::to_owned).unwrap_or_default()
    };
    let query = |name: &str| redis::cmd("PORT.QUERY").arg(name).to_owned();
    assert_eq!(code(query("orders/1").query(&mut nobody)), "NOAUTH");
    let auth = |password: &str| redis::cmd("AUTH").arg("shop").arg(password).to_owned();
    assert_eq!(code(auth("guess").query(&mut nobody)), "WRONGPASS");
    assert_eq!(code(query("orders/1").query(&mut nobody)), "NOAUTH");
    auth(&shop).exec(&mut nobody).expect("authenticates");
    assert_eq!(query("orders/1").query(&mut nobody), Ok(Value::Nil));
    assert_eq!(code(query("carts/1").query(&mut nobody)), "DENIED");
    let claim = redis::cmd("PORT.REGISTER").arg("carts/1").to_owned();
    assert_eq!(code(claim.query(&mut nobody)), "DENIED");
    let lock = redis::cmd("SET").arg(&["carts/1", "me", "NX", "PX", "1000"]).to_owned();
    assert_eq!(code(lock.query(&mut nobody)), "DENIED");

    for protocol in ["resp2", "resp3"] {
        let url = format!("redis://shop:{shop}@{}/?protocol={protocol}", server.addr);
        let client = redis::Client::open(url).expect("a URL");
        let mut shop = client.get_connection().expect("authenticates in its URL");
        let claim = redis::cmd("PORT.REGISTER").arg(format!("orders/{protocol}")).to_owned();
        let (won, _, _) = claim.query::<(u8, String, u64)>(&mut shop).expect("granted");
        assert_eq!(won, 1);
    }
    server.stop();
}

/// The CLI reads the token from a file, and says what is missing without it.
#[test]
fn credentials_on_the_command_line() {
    let users = Users::new();
    let token = users.dir.path().join("shop.token");
    std::fs::write(&token, users.add(&["shop", "-n", "orders"]) + "\n").expect("writes");
    let server = users.serve();
    let addr = server.addr.to_string();
    let at = |words: &[&str]| -> Told { ringway(&[&["--server", &addr], words].concat()) };
    at(&["port", "query", "orders/1"]).with(1);
    let token = token.to_str().expect("text");
    let shop = ["--user", "shop", "--token-file", token];
    at(&[&shop[..], &["port", "query", "orders/1"]].concat()).with(0);
    let denied = at(&[&shop[..], &["port", "register", "--once", "carts/1"]].concat());
    assert!(denied.with(1).out.contains("DENIED"));
    server.stop();
}

/// The file is read again on SIGHUP. Who is gone, or has another token, loses its connections and
/// comes back with the new one only; who stays keeps its connection and has the new grants at once.
/// A file that is not good changes nothing, and the log says where it is wrong.
#[test]
fn credentials_are_read_again_on_sighup() {
    let users = Users::new();
    let [stays, goes, renewed] = ["stays", "goes", "renewed"].map(|user| users.add(&[user, "-nx"]));
    let server = users.serve();
    let connect = |user: &str, token: &str| server.client_as(user, token);
    let mut kept = connect("stays", &stays).expect("authenticates");
    let mut gone = connect("goes", &goes).expect("authenticates");
    let mut old = connect("renewed", &renewed).expect("authenticates");
    let owner = granted(&mut kept, "x/kept");
    granted(&mut gone, "x/gone");
    granted(&mut old, "x/old");
    let asked = |client: &mut Client, name: &str| client.query(&[name.as_bytes()]);

    users.remove("goes").with(0);
    users.remove("goes").with(1).complains(&["no user \"goes\""]);
    let added = ringway(&["credentials", "add", "renewed", "-nx", "--file", &users.file()]).with(0);
    assert!(added.err.contains("already"), "{added:?}");
    // The same user's token, with other grants: as an operator with an editor changes them.
    let text = std::fs::read_to_string(users.file()).expect("written");
    let (before, after) = text.split_once("name = \"stays\"").expect("it is there");
    let after = after.replacen("[\"x\"]", "[\"x\", \"y\"]", 1);
    std::fs::write(users.file(), format!("{before}name = \"stays\"{after}")).expect("writes");
    assert_eq!(asked(&mut kept, "y/1").expect("answers"), [Err(Refusal::Denied)], "not yet");
    server.signal(Signal::HUP);
    until("the new grants count", || (asked(&mut kept, "y/1").ok()? == [Ok(None)]).then_some(()));
    assert_eq!(granted(&mut kept, "x/kept"), owner, "it never lost it");
    for client in [&mut gone, &mut old] {
        until("its connection is closed", || asked(client, "x/1").err());
    }
    until("their bare sessions ended with them", || {
        let free = [Ok(None), Ok(None)];
        (kept.query(&[b"x/gone", b"x/old"]).expect("answers") == free).then_some(())
    });
    for (user, token) in [("goes", &goes), ("renewed", &renewed)] {
        let refused = connect(user, token).expect_err("a token of the past");
        assert_eq!(refused.refusal(), Some(Refusal::Refused), "{user}: {refused}");
    }
    connect("renewed", added.out.trim()).expect("the new token");

    let listed = ringway(&["credentials", "list", "--json", "--file", &users.file()]).with(0);
    let names: Vec<_> = listed.json().as_array().expect("a list").iter().map(user_of).collect();
    assert_eq!(names, ["first", "renewed", "stays"]);
    std::fs::write(users.file(), text.replace("token_sha256", "password")).expect("writes");
    server.signal(Signal::HUP);
    let line = 1 + text.lines().position(|line| line.contains("token_sha256")).expect("some line");
    until("the complaint", || {
        let log = server.log();
        log.contains(&format!("users.toml:{line}: unknown field")).then_some(())
    });
    assert!(server.log().contains("the earlier credentials stay in force"), "{}", server.log());
    connect("stays", &stays).expect("as before");
    granted(&mut kept, "y/still");

    std::fs::write(users.file(), text).expect("writes");
    for user in names {
        users.remove(&user).with(0);
    }
    server.signal(Signal::HUP);
    until("nobody is left", || asked(&mut kept, "y/1").err());
    server.stop();
}

fn user_of(listed: &serde_json::Value) -> String {
    listed["user"].as_str().expect("a name").to_owned()
}

struct Users {
    dir: tempfile::TempDir,
}

impl Users {
    fn new() -> Users {
        let users = Users { dir: tempfile::tempdir().expect("temporary directory") };
        users.add(&["first"]);
        users
    }

    fn file(&self) -> String {
        self.dir.path().join("users.toml").to_str().expect("text").to_owned()
    }

    /// Adds a user; its token.
    fn add(&self, words: &[&str]) -> String {
        let file = self.file();
        let told = ringway(&[&["credentials", "add"], words, &["--file", &file]].concat()).with(0);
        told.out.trim().to_owned()
    }

    fn remove(&self, user: &str) -> Told {
        ringway(&["credentials", "remove", user, "--file", &self.file()])
    }

    fn serve(&self) -> Server {
        let server = Setup::new().shards(2).flag("--credentials", self.file()).start();
        let refused = ringway_client::Client::connect(server.addr, Options::default());
        refused.expect("a preface needs no credentials");
        server
    }
}
