//! Stories of Redis clients that send messages: the bytes that sender and receiver get, for names
//! of their own shard and of others.

use ringway_sim::redis::Redis;
use ringway_sim::stories::{grant, start};

const SHARDS: [usize; 2] = [1, 3];
/// Names that lie on every shard of three.
const NAMES: [&str; 5] = ["job", "n1", "n2", "n3", "a-name-of-24-characters"];

fn bulk(text: &str) -> String {
    format!("${}|{text}|", text.len())
}

/// `message`, target, sender, payload, source and token.
fn message(words: [Option<&str>; 5]) -> String {
    let all = words.map(|word| word.map_or("_|".to_owned(), bulk)).concat();
    format!(">6|{}{all}", bulk("message"))
}

/// Whoever owns a name hears what is sent to it, with and without a receipt, and can answer to the
/// sender's session. A sender without a session is nobody, and cannot be answered.
#[test]
fn an_owner_hears_and_answers() {
    for shards in SHARDS {
        for name in NAMES {
            let mut process = start(shards);
            let mut a = Redis::connect(&mut process, 0);
            let mut b = Redis::connect(&mut process, shards - 1);
            b.says(&mut process, "HELLO 3");
            let (of_b, _) = grant(&b.says(&mut process, &format!("PORT.REGISTER {name}")));
            let sends = format!("PORT.SEND {name} hi\nport.send {name} ho receipt\nPING");
            assert_eq!(a.says(&mut process, &sends), ":1|:1|+PONG|", "{shards} shards");
            let of_nobody = |payload| message([Some(name), None, Some(payload), None, None]);
            assert_eq!(b.hears(&mut process), [of_nobody("hi"), of_nobody("ho")].concat());
            a.says(&mut process, "HELLO 3");
            let (of_a, _) = grant(&a.says(&mut process, "PORT.REGISTER mine"));
            assert_eq!(a.says(&mut process, &format!("PORT.SEND {name} q")), ":1|");
            let question = message([Some(name), Some(&of_a), Some("q"), None, None]);
            assert_eq!(b.hears(&mut process), question);
            let reply = format!("PORT.SENDTO {of_a} a RECEIPT");
            assert_eq!(b.says(&mut process, &reply), ":1|");
            let answer = message([None, Some(&of_b), Some("a"), None, None]);
            assert_eq!(a.hears(&mut process), answer);
        }
    }
}

/// What did not arrive is said as far as it is known: nobody owns it, it is away since RESP2 hears
/// nothing, it does not read, the session is gone, the name's mode has no receiver.
#[test]
fn what_did_not_arrive_is_said() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        assert_eq!(a.says(&mut process, "PORT.SEND x hi\nPORT.SEND x hi RECEIPT"), ":0|:0|");
        let (of_b, _) = grant(&b.says(&mut process, "PORT.REGISTER x"));
        let away = "-AWAY the session has no connection that could hear it (RESP2 hears nothing)|";
        assert_eq!(
            a.says(&mut process, "PORT.SEND x hi\nPORT.SEND x hi RECEIPT"),
            [":1|", away].concat(),
            "without a receipt it is only on its way"
        );
        assert_eq!(b.hears(&mut process), "");
        b.says(&mut process, "HELLO 3");
        process.set_backlog(b.link, 1 << 20);
        let full = "-RECEIVER_FULL the receiver has too much unread: the message was dropped|";
        assert_eq!(a.says(&mut process, &format!("PORT.SENDTO {of_b} hi RECEIPT")), full);
        process.set_backlog(b.link, 0);
        process.disconnect(b.link);
        process.settle();
        let gone = a.says(&mut process, &format!("PORT.SENDTO {of_b} hi\nPORT.SEND x hi"));
        let text = "-NOSESSION no such session, or it has ended: open a new one|:0|";
        assert_eq!(gone, text, "{shards} shards");
        a.says(&mut process, "PORT.REGISTER pool MODE COUNTING 3");
        let mode = "-MODE a name of mode COUNTING takes no messages: send to its holders|";
        assert_eq!(a.says(&mut process, "PORT.SEND pool hi"), mode);
    }
}

/// Of a shared name every holder hears a message, and one receipt stands for all.
#[test]
fn all_who_share_a_name_hear() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut holders: Vec<Redis> =
            (0..3).map(|index| Redis::connect(&mut process, index % shards)).collect();
        for holder in &mut holders {
            holder.says(&mut process, "HELLO 3\nPORT.REGISTER x MODE SHARED");
        }
        let mut a = Redis::connect(&mut process, 0);
        assert_eq!(a.says(&mut process, "PORT.SEND x hi RECEIPT"), ":1|");
        let expected = message([Some("x"), None, Some("hi"), None, None]);
        for holder in &mut holders {
            assert_eq!(holder.hears(&mut process), expected, "{shards} shards");
        }
    }
}

/// Who sends as the owner of a name is believed under the name's present token only; the receiver
/// sees both. It goes to a session as well.
#[test]
fn an_old_token_is_fenced() {
    for shards in SHARDS {
        for source in NAMES {
            let mut process = start(shards);
            let mut a = Redis::connect(&mut process, 0);
            let mut b = Redis::connect(&mut process, shards - 1);
            b.says(&mut process, "HELLO 3");
            let (of_b, _) = grant(&b.says(&mut process, "PORT.REGISTER store"));
            let (of_a, token) = grant(&a.says(&mut process, &format!("PORT.REGISTER {source}")));
            let write = format!("PORT.SEND store w TOKEN {token} FROM {source} RECEIPT");
            assert_eq!(a.says(&mut process, &write), ":1|", "{shards} shards");
            let expected =
                message([Some("store"), Some(&of_a), Some("w"), Some(source), Some(&token)]);
            assert_eq!(b.hears(&mut process), expected);
            let to = format!("PORT.SENDTO {of_b} w FROM {source} TOKEN {token}");
            assert_eq!(a.says(&mut process, &to), ":1|");
            let expected = message([None, Some(&of_a), Some("w"), Some(source), Some(&token)]);
            assert_eq!(b.hears(&mut process), expected);
            let again = format!("PORT.RELEASE {source}\nPORT.REGISTER {source}");
            a.says(&mut process, &again);
            let fenced = "-FENCED this session does not hold the source name, \
                or not under this token|";
            assert_eq!(a.says(&mut process, &write), fenced);
            assert_eq!(b.hears(&mut process), "");
        }
    }
}

/// A message to all reaches every session that can hear, and a receipt counts them.
#[test]
fn a_broadcast_is_counted() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, shards - 1);
        let mut hears = Redis::connect(&mut process, 0);
        let mut silent = Redis::connect(&mut process, 0);
        hears.says(&mut process, "HELLO 3\nPORT.REGISTER x");
        silent.says(&mut process, "PORT.REGISTER y");
        assert_eq!(a.says(&mut process, "PORT.BROADCAST hi"), "+OK|");
        let expected = message([None, None, Some("hi"), None, None]);
        assert_eq!(hears.hears(&mut process), expected, "{shards} shards");
        let counts = "*6|$7|reached|:1|$4|away|:1|$4|full|:0|";
        assert_eq!(a.says(&mut process, "PORT.BROADCAST ho RECEIPT"), counts);
        assert_eq!(hears.hears(&mut process), expected.replace("hi", "ho"));
        a.says(&mut process, "HELLO 3");
        let counts = counts.replace("*6", "%3");
        assert_eq!(a.says(&mut process, "PORT.BROADCAST ho RECEIPT"), counts);
    }
}

/// A payload is any bytes, of 32 KiB at most.
#[test]
fn a_message_has_a_bound() {
    let mut process = start(1);
    let mut a = Redis::connect(&mut process, 0);
    a.says(&mut process, "HELLO 3\nPORT.REGISTER x");
    let most = "p".repeat(32 * 1024);
    let heard = a.says(&mut process, &format!("PORT.SEND x {most}"));
    assert!(heard.contains(&bulk(&most)), "it reaches the sender itself");
    let error = "-ERR a message has at most 32768 bytes|";
    for command in ["PORT.SEND x", "PORT.SENDTO 0000000000000001", "PORT.BROADCAST"] {
        assert_eq!(a.says(&mut process, &format!("{command} {most}p")), error);
    }
}
