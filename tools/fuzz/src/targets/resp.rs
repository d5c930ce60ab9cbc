//! The RESP parser: commands as they arrive on a connection, however the network cuts them.
//!
//! Two oracles: the same bytes in other pieces give the same commands and the same error, and a
//! command that was understood, framed again as an array, is understood as itself.

use ringway_coord_proto::resp::check::{fuzz_commands, parse_whole};

use crate::Target;

/// A stream of commands from a client.
pub const RESP: Target =
    Target { name: "resp", run: resp, seeds: resp_seeds, words: WORDS, bytes_max: 2048 };

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"*1\r\n",
    b"*3\r\n$",
    b"*-1\r\n",
    b"*0\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$4\r\nPING\r\n",
    b"*65537\r\n",
    b"$65537\r\n",
    b"\"\\x41\\n\"",
    b"'\\''",
    b"GET / HTTP/1.1\r\n",
    b"PORT.REGISTER",
    b"PORT.WAIT",
    b"PORT.META",
    b"PORT.TRANSFER",
    b"PORT.REVOKE",
    b"PORT.WAITERS",
    b"PORT.SEND",
    b"PORT.SENDTO",
    b"PORT.BROADCAST",
    b"PORT.WATCH",
    b"PORT.UNWATCH",
    b"RECEIPT",
    b"SNAPSHOT",
    b"KINDS",
    b"COUNTING",
    b"VERSION",
    b"SET",
];

/// Any bytes, in any pieces; what is understood survives being written again.
pub fn resp(data: &[u8]) {
    fuzz_commands(data);
    let mut commands = parse_whole(data).commands;
    // Empty lines are commands without arguments; they get no reply and are not written.
    commands.retain(|args| !args.is_empty());
    let again: Vec<u8> = commands.iter().flat_map(|args| array(args)).collect();
    let stream = parse_whole(&again);
    assert_eq!(stream.error, None, "a command that was understood is refused when framed");
    assert_eq!(stream.commands, commands);
}

/// A command in the form that clients send.
fn array<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn command(words: &str) -> Vec<u8> {
    array(&words.split(' ').collect::<Vec<_>>())
}

fn resp_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let lock = array(&["SET", "{job}/7", "\x01\x02 owner \r\n", "NX", "PX", "30000"]);
    let unlock = "if redis.call('get',KEYS[1]) == ARGV[1] then \
                  return redis.call('del',KEYS[1]) else return 0 end";
    let unlock = array(&["EVAL", unlock, "1", "{job}/7", "owner"]);
    let commands = ["PING", "HELLO 3 AUTH user word SETNAME me", "GET a", "DEL a b c", "INFO"];
    let pipelined: Vec<u8> = commands.iter().flat_map(|words| command(words)).collect();
    let mixed = [&pipelined[..], b"PING\r\n", b"\r\n", &command("ECHO x")].concat();
    vec![
        ("ping", command("PING")),
        ("inline", b"PING\r\nSET a \"x\\x41\\n y\" NX\nGET 'it\\'s'\r\n".to_vec()),
        ("lock", lock.clone()),
        ("unlock-script", unlock),
        ("session", command("SESSION.OPEN 17 LEASE 10000 ADDRESS 10.0.0.1:80")),
        ("port", command("PORT.REGISTER a b {t}c")),
        ("wait", command("PORT.WAIT {t}c 30000 MODE COUNTING 3")),
        ("meta", command("PORT.META {t}c SET blue VERSION 7")),
        ("transfer", command("PORT.TRANSFER 0000100040000001 NAMES 1 token TOKEN 17592186044417")),
        ("revoke", command("PORT.REVOKE {t}c TO 0000100040000001")),
        ("waiters", command("PORT.WAITERS {t}c COUNT 9")),
        ("send", command("PORT.SEND {t}c hello RECEIPT FROM {t}d TOKEN 17592186044417")),
        ("send-to", command("PORT.SENDTO 0000100040000001 hello")),
        ("broadcast", command("PORT.BROADCAST hello RECEIPT")),
        ("watch", command("PORT.WATCH {t}c svc/ SNAPSHOT KINDS ACQUIRED RELEASED")),
        ("unwatch", command("PORT.UNWATCH {t}c svc/")),
        ("cluster", command("CLUSTER KEYSLOT {user1000}.following")),
        ("pipelined", pipelined),
        ("arrays-and-lines", mixed),
        ("empty-arguments", b"*2\r\n$0\r\n\r\n$0\r\n\r\n".to_vec()),
        ("no-arguments", b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n".to_vec()),
        ("half-a-command", lock[..lock.len() - 9].to_vec()),
        ("count-not-a-number", b"*x\r\n".to_vec()),
        ("count-of-many-digits", b"*00000000000000001\r\n".to_vec()),
        ("count-too-large", b"*1048577\r\n".to_vec()),
        ("bulk-expected", b"*1\r\n:1\r\n".to_vec()),
        ("bulk-length-negative", b"*1\r\n$-1\r\n".to_vec()),
        ("bulk-too-long", b"*1\r\n$65537\r\n".to_vec()),
        ("bulk-without-its-end", b"*1\r\n$4\r\nPINGxx*1\r\n".to_vec()),
        ("quotes-not-closed", b"SET a \"x\r\n".to_vec()),
        ("http", b"POST /x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ]
}
