//! Who may connect, and to which names.

use redis::Value;
use ringway_client::{Options, Refusal};

use crate::support::{Server, Setup, Told, granted, ringway};

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

    fn serve(&self) -> Server {
        let server = Setup::new().shards(2).flag("--credentials", self.file()).start();
        let refused = ringway_client::Client::connect(server.addr, Options::default());
        refused.expect("a preface needs no credentials");
        server
    }
}
