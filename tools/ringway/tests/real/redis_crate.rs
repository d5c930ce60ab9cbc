//! The `redis` crate, unmodified: locks, scripts, pipelines, our own verbs, pushes, a cluster.

use std::sync::mpsc::channel;

use redis::{Commands, Connection, PushKind, Script, Value, pipe};

use crate::support::{PATIENCE, Server, Setup, until};

/// Both versions of the protocol.
const PROTOCOLS: [&str; 2] = ["resp2", "resp3"];

fn connect(server: &Server, protocol: &str) -> Connection {
    let url = format!("{}?protocol={protocol}", server.url());
    let connection = redis::Client::open(url).and_then(|client| client.get_connection());
    let connection = connection.expect("connects");
    connection.set_read_timeout(Some(PATIENCE)).expect("a socket");
    connection
}

/// The unlock script of the Redis documentation, to the letter.
const UNLOCK: &str = r#"if redis.call("get",KEYS[1]) == ARGV[1] then
    return redis.call("del",KEYS[1])
else
    return 0
end"#;

fn lock(connection: &mut Connection, name: &str, value: &str, ms: u64) -> bool {
    let set = redis::cmd("SET").arg(name).arg(value).arg("NX").arg("PX").arg(ms).to_owned();
    set.query::<Option<String>>(connection).expect("an answer").is_some()
}

/// A lock as the documentation of Redis describes it, by two clients: one has it, the other's
/// unlock changes nothing, the owner's frees it, and the fencing token has grown meanwhile.
#[test]
fn a_lock_with_its_unlock_script() {
    let server = Setup::new().shards(2).start();
    for protocol in PROTOCOLS {
        let (mut one, mut two) = (connect(&server, protocol), connect(&server, protocol));
        let name = format!("lock/{protocol}");
        let unlock = Script::new(UNLOCK);
        let token = |connection: &mut Connection| -> u64 {
            let owner: String =
                redis::cmd("PORT.QUERY").arg(&name).query(connection).expect("it is owned");
            owner.split_once(':').and_then(|(_, token)| token.parse().ok()).expect("a token")
        };
        assert!(lock(&mut one, &name, "one's secret", 20_000));
        assert!(!lock(&mut two, &name, "two's secret", 20_000));
        let first = token(&mut two);
        assert_eq!(one.get::<_, String>(&name), Ok("one's secret".to_owned()));
        let left: i64 = one.pttl(&name).expect("an answer");
        assert!((10_000..=20_000).contains(&left), "{left}");
        let freed: u8 = unlock.key(&name).arg("two's secret").invoke(&mut two).expect("answers");
        assert_eq!(freed, 0, "not its lock");
        let freed: u8 = unlock.key(&name).arg("one's secret").invoke(&mut one).expect("answers");
        assert_eq!(freed, 1);
        assert!(lock(&mut two, &name, "two's secret", 20_000));
        assert!(token(&mut two) > first);
        assert_eq!(two.pexpire(&name, 10_000), Ok(true));
        assert_eq!(two.del::<_, u8>(&name), Ok(1));
        assert_eq!(two.get::<_, Option<String>>(&name), Ok(None));
        // One that nobody frees ends by itself.
        assert!(lock(&mut one, &name, "short", 200));
        until("the lock runs out", || lock(&mut two, &name, "next", 20_000).then_some(()));
        assert_eq!(two.del::<_, u8>(&name), Ok(1));
    }
    server.stop();
}

/// Our verbs as custom commands: a name is claimed, seen, listed and given back, and a second
/// claimant is told whose it is.
#[test]
fn own_verbs() {
    let server = Setup::new().shards(2).start();
    for protocol in PROTOCOLS {
        let (mut one, mut two) = (connect(&server, protocol), connect(&server, protocol));
        let name = format!("svc/{protocol}");
        let claim = redis::cmd("PORT.REGISTER").arg(&name).to_owned();
        let (won, session, token): (u8, String, u64) = claim.query(&mut one).expect("granted");
        assert_eq!((won, session.len()), (1, 16));
        assert_eq!(claim.query(&mut two), Ok((0_u8, session.clone(), token)), "held by one");
        let several: Vec<Option<String>> =
            redis::cmd("PORT.QUERY").arg(&[&name, "free"]).query(&mut two).expect("answers");
        assert_eq!(several, [Some(format!("{session}:{token}")), None]);
        let list = redis::cmd("PORT.LIST").arg(&["PREFIX", &name]).to_owned();
        let (mut cursor, mut listed) = (String::new(), Vec::new());
        while cursor != "0" {
            let mut page = list.clone();
            if !cursor.is_empty() {
                page.arg("CURSOR").arg(&cursor);
            }
            let (next, some): (String, Vec<(String, String, u64)>) =
                page.query(&mut two).expect("a page");
            listed.extend(some);
            cursor = next;
        }
        assert_eq!(listed, [(name.clone(), session, token)]);
        let give = redis::cmd("PORT.RELEASE").arg(&name).arg("TOKEN").to_owned();
        assert_eq!(give.clone().arg(token + 1).query(&mut one), Ok(0_u8));
        assert_eq!(give.clone().arg(token).query(&mut two), Ok(0_u8), "not its name");
        assert_eq!(give.clone().arg(token).query(&mut one), Ok(1_u8));
        let (won, _, next): (u8, String, u64) = claim.query(&mut two).expect("granted");
        assert!(won == 1 && next > token);
    }
    server.stop();
}

/// A pipeline of a thousand commands on names of both shards: every reply is there, in order, and
/// an error in the middle is that command's alone.
#[test]
fn pipelines_are_answered_in_order() {
    let server = Setup::new().shards(2).start();
    for protocol in PROTOCOLS {
        let mut connection = connect(&server, protocol);
        let mut claims = pipe();
        (0..1000).for_each(|i| {
            claims.cmd("PORT.REGISTER").arg(format!("{protocol}/{i}"));
        });
        let granted: Vec<(u8, String, u64)> = claims.query(&mut connection).expect("answers");
        assert!(granted.iter().all(|(won, _, _)| *won == 1));
        let mut mixed = pipe();
        (0..1000).for_each(|i| {
            mixed.cmd("PORT.QUERY").arg(format!("{protocol}/{i}"));
            mixed.cmd("ECHO").arg(i);
        });
        let answers: Vec<Value> = mixed.query(&mut connection).expect("answers");
        for (i, pair) in answers.chunks(2).enumerate() {
            let (_, session, token) = &granted[i];
            assert_eq!(pair[0], Value::BulkString(format!("{session}:{token}").into_bytes()));
            assert_eq!(pair[1], Value::BulkString(i.to_string().into_bytes()));
        }
        let mut broken = pipe();
        broken.cmd("ECHO").arg("before").cmd("NO.SUCH").arg("x").cmd("ECHO").arg("after");
        broken.ignore_errors();
        let answers: Vec<redis::RedisResult<String>> = broken.query(&mut connection).expect("all");
        assert_eq!(answers[0].as_deref(), Ok("before"));
        assert_eq!(answers[1].as_ref().expect_err("unknown").code(), Some("ERR"));
        assert_eq!(answers[2].as_deref(), Ok("after"));
    }
    server.stop();
}

/// What Redis does and Ringway does not is refused with a code, and the connection goes on.
#[test]
fn what_is_not_provided_is_refused() {
    let server = Setup::new().start();
    let mut connection = connect(&server, "resp3");
    let code = |connection: &mut Connection, words: &[&str]| {
        let command = redis::cmd(words[0]).arg(&words[1..]).to_owned();
        let answer = command.query::<Value>(connection).expect_err("refused");
        answer.code().unwrap_or_default().to_owned()
    };
    for (words, expected) in [
        (&["SET", "a", "b"][..], "UNSUPPORTED"),
        (&["MULTI"], "UNSUPPORTED"),
        (&["INCR", "a"], "ERR"),
        (&["EVAL", "return 1", "0"], "UNSUPPORTED"),
        (&["EVALSHA", "0000000000000000000000000000000000000000", "1", "a", "b"], "NOSCRIPT"),
        (&["SET", "a", "b", "NX", "PX", "1"], "LEASE"),
        (&["PORT.REGISTER", "a", "REPLICATED"], "NOREPLICA"),
        (&["PORT.REGISTER", ""], "BADNAME"),
        (&["SESSION.RENEW"], "NOSESSION"),
        (&["SESSION.RENEW", "00000000000000ff", "00000000000000000000000000000000"], "NOSESSION"),
        (&["SELECT", "1"], "ERR"),
    ] {
        assert_eq!(code(&mut connection, words), expected, "{words:?}");
    }
    assert_eq!(redis::cmd("PING").query(&mut connection), Ok("PONG".to_owned()));
    server.stop();
}

/// A session through RESP3: it is told by a push when it is killed or when its lease runs out.
#[test]
fn pushes_tell_of_a_sessions_end() {
    let server = Setup::new().shards(2).start();
    let mut operator = connect(&server, "resp2");
    for (node, reason) in [(1, "killed"), (2, "expired"), (3, "replaced")] {
        let mut connection = connect(&server, "resp3");
        let (tell, pushes) = channel();
        connection.set_push_sender(tell);
        let lease = if reason == "expired" { "300" } else { "20000" };
        let open = redis::cmd("SESSION.OPEN").arg(node).arg("LEASE").arg(lease).to_owned();
        let opened: std::collections::HashMap<String, String> =
            open.query(&mut connection).expect("opens");
        let session = opened["session"].clone();
        redis::cmd("PORT.REGISTER").arg(format!("of/{node}")).exec(&mut connection).expect("it");
        match reason {
            "killed" => redis::cmd("SESSION.KILL").arg(&session).exec(&mut operator).expect("it"),
            "replaced" => open.exec(&mut operator).expect("opens"),
            _ => {}
        }
        // The crate reads pushes while it waits for replies.
        let push = until("the push comes", || {
            redis::cmd("PING").exec(&mut connection).expect("answers");
            pushes.try_recv().ok()
        });
        assert_eq!(push.kind, PushKind::Other("session-ended".to_owned()));
        let words: Vec<String> = push
            .data
            .into_iter()
            .map(|word| redis::from_redis_value(word).expect("text"))
            .collect();
        assert_eq!(words, [session, reason.to_owned()]);
        let query = redis::cmd("PORT.QUERY").arg(format!("of/{node}")).to_owned();
        assert_eq!(query.query(&mut operator), Ok(None::<String>));
    }
    server.stop();
}

/// The crate's cluster client reads `CLUSTER SLOTS`, finds each shard on its own port, and sends
/// every command to the shard that owns its name: nothing is forwarded.
#[test]
fn a_cluster_client_reaches_the_owners() {
    let server = Setup::new().shards(2).start();
    let client = redis::cluster::ClusterClient::new(vec![server.url()]).expect("a URL");
    let mut cluster = client.get_connection().expect("reads the slots");
    for index in 0..200 {
        let (name, value) = (format!("c/{index}"), format!("v{index}"));
        let set = redis::cmd("SET").arg(&[&name, &value, "NX", "PX", "20000"]).to_owned();
        assert_eq!(set.query(&mut cluster), Ok("OK".to_owned()));
        assert_eq!(cluster.get(&name), Ok(value));
        let claim = redis::cmd("PORT.REGISTER").arg(format!("p/{index}")).to_owned();
        let (won, _, _): (u8, String, u64) = claim.query(&mut cluster).expect("granted");
        assert_eq!(won, 1);
    }
    let script = Script::new(UNLOCK);
    assert_eq!(script.key("c/0").arg("v0").invoke(&mut cluster), Ok(1_u8));
    let mut native = server.client();
    let shard = |native: &mut ringway_client::Client, shard: u8, key: &str| -> u64 {
        let stats = native.shard_stats(ringway_core::ShardId(shard)).expect("stats");
        let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
        stats[key].as_u64().unwrap_or_else(|| panic!("no {key} in {stats}"))
    };
    let names: Vec<u64> = (0..2).map(|at| shard(&mut native, at, "names")).collect();
    assert_eq!(names.iter().sum::<u64>(), 399);
    assert!(names.iter().all(|names| *names > 100), "{names:?}");
    server.stop();
}
