//! Stories of how commands are understood, and refused.

use super::*;
use crate::resp::parse::{Args, next_command};
use alloc::string::{String, ToString};

/// What is understood of a line typed by hand: the request or the error, as text.
fn story(line: &str) -> String {
    let input = alloc::format!("{line}\r\n").into_bytes();
    let mut args = Args::new();
    next_command(&input, &mut args).expect("well-formed");
    match understand(args.bind(&input)) {
        Ok(request) => alloc::format!("{request:?}"),
        Err(refusal) => alloc::format!("{} {refusal}", refusal.code().word()),
    }
}

fn assert_story(line: &str, expected: &str) {
    let got = story(line);
    assert!(got.starts_with(expected), "{line}\n  gives    {got}\n  expected {expected}");
}

const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

/// Names first, options last, in any order and case.
#[test]
fn registering() {
    for (line, expected) in [
        ("port.register a", "Register { names: Names([a]), mode: Exclusive, replicated: false }"),
        (
            "PORT.REGISTER a b replicated mode counting 3",
            "Register { names: Names([a, b]), mode: Counting(3), replicated: true }",
        ),
        (
            "PORT.REGISTER NAMES 2 mode names MODE SHARED",
            "Register { names: Names([mode, names]), mode: Shared, replicated: false }",
        ),
        ("PORT.REGISTER MODE SHARED", "ERR a name is missing before 'MODE'; syntax: PORT.REG"),
        ("PORT.REGISTER NAMES", "ERR not a count of names: ''"),
        ("PORT.REGISTER NAMES 3 a b", "ERR not a count of names: '3'"),
        ("PORT.REGISTER NAMES 1 a b", "ERR unknown option 'b'"),
        ("PORT.REGISTER a MODE", "ERR a value is missing behind 'MODE'"),
        ("PORT.REGISTER a MODE some", "ERR unknown mode 'some'"),
        ("PORT.REGISTER a MODE COUNTING 0", "ERR value is not an integer or out of range: '0'"),
        ("PORT.REGISTER a REPLICATED REPLICATED", "ERR given twice: 'REPLICATED'"),
        (r#"PORT.REGISTER a """#, "BADNAME a name has 1 to 255 bytes"),
        ("PORT.REGISTER", "ERR wrong number of arguments for 'port.register' command"),
    ] {
        assert_story(line, expected);
    }
    let long = "x".repeat(256);
    assert_story(&alloc::format!("PORT.QUERY a {long}"), "BADNAME");
}

/// A token belongs to one name.
#[test]
fn releasing_and_listing() {
    for (line, expected) in [
        ("PORT.RELEASE a b", "Release { names: Names([a, b]), token: None }"),
        ("PORT.RELEASE a TOKEN 7", "Release { names: Names([a]), token: Some(Token(7)) }"),
        ("PORT.RELEASE a b TOKEN 7", "ERR TOKEN goes with one name"),
        ("PORT.RELEASE a TOKEN 07", "ERR value is not an integer"),
        ("PORT.RELEASE a TOKEN 18446744073709551616", "ERR value is not an integer"),
        ("PORT.LIST", "List(Page { slot: Slot(0), after: [], count: 100, prefix: [] })"),
        (
            "PORT.LIST PREFIX a COUNT 5 CURSOR 7:b:c",
            "List(Page { slot: Slot(7), after: [98, 58, 99], count: 5, prefix: [97] })",
        ),
        ("PORT.LIST CURSOR 0", "List(Page { slot: Slot(0), after: [], count: 100,"),
        ("PORT.LIST CURSOR 7", "ERR not a cursor: '7'"),
        ("PORT.LIST CURSOR 16384:", "ERR value is not an integer or out of range: '16384'"),
        ("PORT.LIST COUNT 4097", "ERR value is not an integer or out of range: '4097'"),
        ("PORT.LIST 7", "ERR unknown option '7'"),
    ] {
        assert_story(line, expected);
    }
}

/// What is for one name takes its options behind it, and says what is missing.
#[test]
fn waiting_and_describing() {
    let session = "00000000000000ff";
    for (line, expected) in [
        ("PORT.WAIT a 0", "Wait { name: [97], mode: Exclusive, ms: 0 }"),
        (
            "port.wait mode 4294967295 mode counting 2",
            "Wait { name: [109, 111, 100, 101], mode: Counting(2), ms: 4294967295 }",
        ),
        ("PORT.WAIT a", "ERR wrong number of arguments for 'port.wait'"),
        ("PORT.WAIT a 4294967296", "ERR value is not an integer or out of range: '4294967296'"),
        ("PORT.WAIT a MODE SHARED", "ERR value is not an integer or out of range: 'MODE'"),
        ("PORT.WAIT a 1 MODE COUNTING 65537", "ERR value is not an integer or out of range"),
        ("PORT.WAIT a 1 MODE SHARED MODE SHARED", "ERR given twice: 'MODE'"),
        ("PORT.WAIT a 1 REPLICATED", "ERR unknown option 'REPLICATED'; syntax: PORT.WAIT name"),
        ("PORT.META a", "Meta([97])"),
        ("PORT.META a SET b", "SetMeta { name: [97], bytes: [98], version: None }"),
        ("PORT.META a VERSION 7 SET ''", "SetMeta { name: [97], bytes: [], version: Some(7)"),
        ("PORT.META a VERSION 7", "ERR VERSION goes with SET"),
        ("PORT.META a SET", "ERR a value is missing behind 'SET'"),
        ("PORT.META a GET", "ERR unknown option 'GET'"),
        ("PORT.REVOKE a", "Revoke { name: [97], to: None }"),
        ("PORT.REVOKE a TO x", "ERR not a session: 'x'"),
        ("PORT.WAITERS a", "Waiters { name: [97], count: 100 }"),
        ("PORT.WAITERS a COUNT 1025", "ERR value is not an integer or out of range: '1025'"),
        ("PORT.TRANSFER ff a", "ERR not a session: 'ff'"),
    ] {
        assert_story(line, expected);
    }
    let to = alloc::format!("PORT.TRANSFER {session}");
    for (rest, expected) in [
        ("a b", "Transfer { to: SessionId(255), names: Names([a, b]), token: None }"),
        ("a TOKEN 7", "Transfer { to: SessionId(255), names: Names([a]), token: Some(Token(7))"),
        ("NAMES 1 token", "Transfer { to: SessionId(255), names: Names([token]), token: None }"),
        ("a b TOKEN 7", "ERR TOKEN goes with one name"),
        ("TOKEN 7", "ERR a name is missing before 'TOKEN'"),
    ] {
        assert_story(&alloc::format!("{to} {rest}"), expected);
    }
    assert_story(
        &alloc::format!("PORT.REVOKE a TO {session}"),
        "Revoke { name: [97], to: Some(SessionId(255)) }",
    );
}

/// A message has one target and its payload, then what it is sent with; a watch has filters.
#[test]
fn sending_and_watching() {
    for (line, expected) in [
        (
            "PORT.SEND a b",
            "Send(Send { to: Name([97]), payload: [98], receipt: false, source: None",
        ),
        (
            "PORT.SEND a '' TOKEN 7 RECEIPT FROM c",
            "Send(Send { to: Name([97]), payload: [], receipt: true, \
             source: Some(([99], Token(7)))",
        ),
        (
            "PORT.SENDTO 00000000000000ff b",
            "Send(Send { to: Session(SessionId(255)), payload: [98]",
        ),
        ("PORT.SENDTO ff b", "ERR not a session: 'ff'"),
        ("PORT.SEND a", "ERR wrong number of arguments for 'port.send'"),
        ("PORT.SEND '' b", "BADNAME"),
        ("PORT.SEND a b FROM c", "ERR FROM and TOKEN go together"),
        ("PORT.SEND a b TOKEN 7", "ERR FROM and TOKEN go together"),
        ("PORT.SEND a b FROM '' TOKEN 7", "BADNAME"),
        ("PORT.SEND a b RECEIPT RECEIPT", "ERR given twice: 'RECEIPT'"),
        (
            "PORT.SEND a b c",
            "ERR unknown option 'c'; syntax: PORT.SEND name payload [RECEIPT] \
             [FROM source TOKEN token]",
        ),
        ("PORT.BROADCAST a receipt", "Broadcast { payload: [97], receipt: true }"),
        ("PORT.BROADCAST a b", "ERR unknown option 'b'"),
        ("PORT.WATCH a b/", "Watch { filters: Names([a, b/]), snapshot: false, kinds: 15 }"),
        (
            "PORT.WATCH a KINDS waiting released snapshot",
            "Watch { filters: Names([a]), snapshot: true, kinds: 10 }",
        ),
        (
            "PORT.WATCH NAMES 1 kinds",
            "Watch { filters: Names([kinds]), snapshot: false, kinds: 15 }",
        ),
        ("PORT.WATCH a KINDS", "ERR a value is missing behind 'KINDS'"),
        (
            "PORT.WATCH a KINDS SNAPSHOT",
            "ERR unknown kind 'SNAPSHOT'; syntax: PORT.WATCH filter [filter ...]|\
             NAMES n filter [filter ...] [SNAPSHOT] [KINDS",
        ),
        ("PORT.WATCH SNAPSHOT", "ERR a name is missing before 'SNAPSHOT'"),
        ("PORT.WATCH ''", "BADNAME"),
        ("PORT.UNWATCH", "Unwatch(None)"),
        ("PORT.UNWATCH a", "Unwatch(Some(Names([a])))"),
        ("PUBLISH a b", "UNSUPPORTED there are no channels"),
    ] {
        assert_story(line, expected);
    }
}

/// Secrets are checked, and never printed.
#[test]
fn sessions() {
    let open =
        alloc::format!("SESSION.OPEN 9 LEASE 500 SECRET {SECRET} BARE ADDRESS 10.0.0.1:80 META x");
    let expected = "Open(Open { node: NodeId(9), lease: Some(Span(500000000)), \
        secret: Some(Secret(..)), bare: true, gateway: false, address: [49,";
    assert_story(&open, expected);
    for (line, expected) in [
        ("SESSION.OPEN x", "ERR value is not an integer or out of range: 'x', a node is"),
        ("SESSION.OPEN 9 LEASE 0", "LEASE invalid expire time: '0'"),
        ("SESSION.OPEN 9 SECRET ff", "ERR a secret has 32 hexadecimal digits"),
        ("SESSION.OPEN 9 BARE GATEWAY", "ERR BARE ends a session with its connection"),
        ("SESSION.RENEW", "Renew([])"),
        ("SESSION.RENEW 00000000000000ff", "ERR wrong number of arguments for 'session.renew'"),
        ("SESSION.CLOSE", "Close(None)"),
        ("SESSION.INFO", "Session(None)"),
        ("SESSION.INFO 00000000000000fF", "Session(Some(SessionId(255)))"),
        ("SESSION.INFO ff", "ERR not a session: 'ff', it has 16"),
        ("SESSION.NODE 18446744073709551615", "Node(NodeId(18446744073709551615))"),
        ("SESSION.LIST COUNT 2 CURSOR 5", "Sessions { cursor: 5, count: 2 }"),
        ("SESSION.KILL 00000000000000ff", "Kill(SessionId(255))"),
    ] {
        assert_story(line, expected);
    }
    let pair = alloc::format!("00000000000000ff {SECRET}");
    let renew = alloc::format!("SESSION.RENEW {pair} {pair}");
    let proof = "Proof { session: SessionId(255), secret: Secret(..) }";
    assert_story(&renew, &alloc::format!("Renew([{proof}, {proof}])"));
    assert_story(&alloc::format!("SESSION.ATTACH {pair}"), &alloc::format!("Attach({proof})"));
    assert_story(&alloc::format!("SESSION.CLOSE {pair}"), "Close(Some(Proof {");
}

/// The lock idiom in every order that clients write it; every other form says what to use.
#[test]
fn set_is_a_lock() {
    let lock = "Lock { name: [107], value: [118], lease: Span(30000000000) }";
    for line in
        ["SET k v NX PX 30000", "SET k v PX 30000 NX", "set k v nx ex 30", "SET k v EX 30 NX"]
    {
        assert_story(line, lock);
    }
    for line in [
        "SET k v",
        "SET k v NX",
        "SET k v PX 30000",
        "SET k v XX PX 30000",
        "SET k v NX PX 30000 GET",
        "SET k v NX KEEPTTL",
        "SETNX k v",
        "GETSET k v",
    ] {
        assert_story(line, "UNSUPPORTED the only form of SET here takes a lock: SET name");
    }
    for (line, expected) in [
        ("SET k v NX PX", "ERR a value is missing behind 'PX'"),
        ("SET k v NX PX -1", "ERR value is not an integer or out of range: '-1'"),
        ("SET k v NX PX 0", "LEASE invalid expire time: '0'"),
        ("SET k v NX EX 5 PX 5000", "ERR given twice: 'PX'"),
        (r#"SET k "" NX PX 5000"#, "ERR the value of a lock is its owner's secret"),
        ("EXPIRE k 5", "Expire { name: [107], lease: Span(5000000000) }"),
        ("PEXPIRE k 5", "Expire { name: [107], lease: Span(5000000) }"),
        ("PEXPIRE k 5 NX", "ERR wrong number of arguments for 'pexpire'"),
        ("PTTL k", "Ttl { name: [107], unit: Ms }"),
        ("DEL a b", "Del(Names([a, b]))"),
        ("UNLINK a", "Del(Names([a]))"),
    ] {
        assert_story(line, expected);
    }
}

/// Scripts get their numbers checked like commands do.
#[test]
fn scripts_are_commands() {
    let unlock = "if redis.call('get',KEYS[1])==ARGV[1] \
        then return redis.call('del',KEYS[1]) else return 0 end";
    let extend = "a4e8783852e6b949f9ef3a97212805108459a890";
    let eval = |rest: &str| alloc::format!("EVAL \"{unlock}\" {rest}");
    let call = "Script(Call { name: [107], value: [118], act:";
    assert_story(&eval("1 k v"), &alloc::format!("{call} Delete"));
    assert_story(&eval("1 k"), "ERR this script needs the lock's value");
    assert_story(&eval("2 k l v"), "UNSUPPORTED a lock script takes one name here");
    assert_story("EVAL \"return 1\" 0", "UNSUPPORTED only known lock scripts are understood");
    let sha = |rest: &str| alloc::format!("EVALSHA {extend} 1 k v {rest}");
    assert_story(&sha("500 0"), &alloc::format!("{call} Extend(Span(500000000))"));
    assert_story(&sha("500 1"), &alloc::format!("{call} Expire(Span(500000000))"));
    assert_story(&sha("500"), "ERR this script needs");
    assert_story(&sha("x 0"), "ERR value is not an integer");
    assert_story("EVALSHA ffff 1 k v", "NOSCRIPT No matching script.");
    assert_story(&alloc::format!("SCRIPT LOAD \"{unlock}\""), "ScriptLoad([");
    assert_story("SCRIPT LOAD \"return 1\"", "UNSUPPORTED only known lock scripts");
    assert_story("SCRIPT EXISTS a b", "ScriptExists([a, b])");
    assert_story("SCRIPT FLUSH ASYNC", "ScriptFlush");
    assert_story("SCRIPT KILL", "ERR unknown subcommand 'KILL': SCRIPT has EXISTS");
}

/// What client libraries send when they connect.
#[test]
fn connecting() {
    for (line, expected) in [
        ("HELLO", "Hello(Hello { version: None, login: None, name: None })"),
        (
            "HELLO 3 AUTH u secret SETNAME n",
            "Hello(Hello { version: Some(Resp3), login: Some(Login(u, ..)), \
             name: Some([110]) })",
        ),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer"),
        ("HELLO 3 AUTH u", "ERR a value is missing behind 'AUTH'"),
        ("AUTH p", "Auth(Login(default, ..))"),
        ("AUTH u p", "Auth(Login(u, ..))"),
        ("AUTH u p x", "ERR wrong number of arguments for 'auth' command"),
        ("CLIENT SETINFO LIB-NAME redis-py", "Client(LibraryName("),
        ("CLIENT SETINFO lib-ver 5.0", "Client(LibraryVersion("),
        ("CLIENT SETINFO LIB-X 5.0", "ERR unknown option 'LIB-X'; syntax: CLIENT SETINFO"),
        ("CLIENT SETNAME 'a b'", "ERR names and versions of clients have at most 64"),
        ("CLIENT NO-EVICT on", "Client(Nothing)"),
        ("CLIENT REPLY OFF", "ERR not possible here: 'OFF'; syntax: CLIENT REPLY ON"),
        ("CLIENT KILL x", "ERR unknown subcommand 'KILL': CLIENT has GETNAME"),
        ("CLIENT", "ERR wrong number of arguments for 'client' command"),
        ("SELECT 0", "Select"),
        ("SELECT 1", "ERR DB index is out of range"),
        ("CONFIG GET save", "ConfigGet([save])"),
        ("CONFIG SET a b", "ERR unknown subcommand 'SET': CONFIG has GET"),
        ("CLUSTER KEYSLOT foo", "Cluster(KeySlot(Slot(12182)))"),
        ("CLUSTER COUNTKEYSINSLOT 16384", "ERR value is not an integer or out of range"),
        ("PING", "Ping(None)"),
        ("PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("MULTI", "UNSUPPORTED there are no transactions"),
        ("HGETALL a b c d", "ERR unknown command 'HGETALL', with args beginning with: 'a' 'b' 'c'"),
        (r#""\x00\r\n" x"#, r"ERR unknown command '\x00\r\n', with args beginning with: 'x'"),
    ] {
        assert_story(line, expected);
    }
}

/// An error repeats what a client sent, but only so much of it, and on one line.
#[test]
fn refusals_are_short() {
    let line = alloc::format!("{} {}", "X".repeat(1000), "y".repeat(1000));
    let text = story(&line);
    assert!(text.len() < 300 && !text.contains('\n'), "{text}");
    assert!(Refusal::plain(Code::Err, "x").to_string() == "x");
}
