//! Which command is meant: from a word to a [`Verb`] in a few nanoseconds.
//!
//! The word is folded to upper case as two 64-bit numbers and compared with the verbs of its
//! length: no hash, no table walk, no allocation. What a verb takes and does is in `catalog`.
//!
//! Always true: a word is found if and only if it is a verb's name in some mix of cases.
//! Tests: below, against every name of the catalogue and its neighbours.

/// A command. The order is that of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is described to users in the catalogue")]
pub enum Verb {
    PortQuery,
    PortRegister,
    PortRelease,
    PortList,
    PortWait,
    PortMeta,
    PortTransfer,
    PortRevoke,
    PortWaiters,
    PortSend,
    PortSendTo,
    PortBroadcast,
    PortWatch,
    PortUnwatch,
    SessionOpen,
    SessionRenew,
    SessionClose,
    SessionAttach,
    SessionInfo,
    SessionNode,
    SessionList,
    SessionKill,
    ShardMap,
    ShardStats,
    Get,
    Set,
    Del,
    Unlink,
    Exists,
    Expire,
    PExpire,
    Ttl,
    PTtl,
    Eval,
    EvalSha,
    Script,
    Ping,
    Echo,
    Hello,
    Auth,
    Client,
    Select,
    Quit,
    Reset,
    Info,
    Command,
    Config,
    DbSize,
    Time,
    Cluster,
    ReadOnly,
    ReadWrite,
    Asking,
}

/// How many verbs there are.
pub const VERBS: usize = Verb::Asking as usize + 1;
/// Bytes of the longest name that [`find`] can hold.
const NAME_BYTES: usize = 16;

macro_rules! among {
    ($key:expr; $($name:literal => $verb:ident),+ $(,)?) => {{
        let key = $key;
        $(if key == const { key_of($name) } { return Some(Verb::$verb); })+
        None
    }};
}

/// The verb that `word` names, in any case.
#[inline]
pub fn find(word: &[u8]) -> Option<Verb> {
    let key = fold(word)?;
    match word.len() {
        3 => among!(key; b"GET" => Get, b"SET" => Set, b"DEL" => Del, b"TTL" => Ttl),
        10 => among!(key; b"PORT.QUERY" => PortQuery, b"PORT.WATCH" => PortWatch),
        4 => among!(key;
            b"PING" => Ping, b"EVAL" => Eval, b"PTTL" => PTtl, b"ECHO" => Echo, b"AUTH" => Auth,
            b"INFO" => Info, b"TIME" => Time, b"QUIT" => Quit,
        ),
        5 => among!(key; b"HELLO" => Hello, b"RESET" => Reset),
        6 => among!(key;
            b"EXISTS" => Exists, b"UNLINK" => Unlink, b"EXPIRE" => Expire, b"CLIENT" => Client,
            b"CONFIG" => Config, b"SELECT" => Select, b"DBSIZE" => DbSize, b"SCRIPT" => Script,
            b"ASKING" => Asking,
        ),
        7 => among!(key;
            b"EVALSHA" => EvalSha, b"PEXPIRE" => PExpire, b"COMMAND" => Command,
            b"CLUSTER" => Cluster,
        ),
        8 => among!(key; b"READONLY" => ReadOnly),
        9 => among!(key;
            b"PORT.LIST" => PortList, b"PORT.WAIT" => PortWait, b"PORT.META" => PortMeta,
            b"PORT.SEND" => PortSend,
            b"SHARD.MAP" => ShardMap, b"READWRITE" => ReadWrite,
        ),
        11 => among!(key;
            b"SHARD.STATS" => ShardStats, b"PORT.REVOKE" => PortRevoke,
            b"PORT.SENDTO" => PortSendTo,
        ),
        12 => among!(key;
            b"PORT.RELEASE" => PortRelease, b"PORT.WAITERS" => PortWaiters,
            b"PORT.UNWATCH" => PortUnwatch,
            b"SESSION.OPEN" => SessionOpen,
            b"SESSION.INFO" => SessionInfo, b"SESSION.NODE" => SessionNode,
            b"SESSION.LIST" => SessionList, b"SESSION.KILL" => SessionKill,
        ),
        13 => among!(key;
            b"PORT.REGISTER" => PortRegister, b"SESSION.RENEW" => SessionRenew,
            b"SESSION.CLOSE" => SessionClose, b"PORT.TRANSFER" => PortTransfer,
        ),
        14 => among!(key;
            b"SESSION.ATTACH" => SessionAttach, b"PORT.BROADCAST" => PortBroadcast,
        ),
        _ => None,
    }
}

/// The first and the last eight bytes of a word (of a shorter one: four), in upper case. Together
/// with the length they determine a word of up to 16 bytes.
#[inline]
fn fold(word: &[u8]) -> Option<(u64, u64)> {
    if let (Some(first), Some(last)) = (word.first_chunk::<8>(), word.last_chunk::<8>()) {
        let key = (upper(u64::from_le_bytes(*first)), upper(u64::from_le_bytes(*last)));
        return (word.len() <= NAME_BYTES).then_some(key);
    }
    if let (Some(first), Some(last)) = (word.first_chunk::<4>(), word.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return Some((upper(u64::from(first) | u64::from(last) << 32), 0));
    }
    match word {
        [a, b, c] => Some((upper(u64::from_le_bytes([*a, *b, *c, 0, 0, 0, 0, 0])), 0)),
        _ => None,
    }
}

/// [`fold`] of a name that is upper case already, at compile time.
const fn key_of(name: &[u8]) -> (u64, u64) {
    let (mut first, mut last) = ([0u8; 8], [0u8; 8]);
    let mut index = 0;
    while index < name.len() {
        if name.len() >= 8 {
            if index < 8 {
                first[index] = name[index];
            }
            if index + 8 >= name.len() {
                last[index + 8 - name.len()] = name[index];
            }
        } else if name.len() >= 4 {
            if index < 4 {
                first[index] = name[index];
            }
            if index + 4 >= name.len() {
                first[index + 8 - name.len()] = name[index];
            }
        } else {
            first[index] = name[index];
        }
        index += 1;
    }
    (u64::from_le_bytes(first), u64::from_le_bytes(last))
}

/// ASCII upper case of eight bytes at once. A byte is a lower-case letter if adding up to 0x80
/// from `a` sets its top bit and adding up to 0x80 from beyond `z` does not.
#[inline]
const fn upper(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7F);
    let from_a = low + ONES * (0x80 - b'a' as u64);
    let beyond_z = low + ONES * (0x7F - b'z' as u64);
    let is_lower = from_a & !beyond_z & !word & (ONES * 0x80);
    word ^ (is_lower >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::catalog::CATALOG;

    /// Every name of the catalogue is found in upper, lower and mixed case, and leads back to its
    /// entry.
    #[test]
    fn finds_every_verb() {
        for (index, spec) in CATALOG.iter().enumerate() {
            let name = spec.name.as_bytes();
            let verb = find(name).expect(spec.name);
            assert_eq!((verb, verb as usize), (spec.verb, index), "{}", spec.name);
            assert_eq!(find(&name.to_ascii_uppercase()), Some(verb));
            let mut mixed = name.to_vec();
            mixed.iter_mut().step_by(2).for_each(u8::make_ascii_uppercase);
            assert_eq!(find(&mixed), Some(verb));
        }
    }

    /// A word that differs in any one byte, or is longer or shorter, is another word. Folding must
    /// not let `\x0E` pass for `.` either, nor `\xE7` for `G`.
    #[test]
    fn finds_nothing_else() {
        for spec in &CATALOG {
            let name = spec.name.as_bytes();
            for at in 0..name.len() {
                for byte in 0..=255u8 {
                    let mut word = name.to_vec();
                    word[at] = byte;
                    let same = word.eq_ignore_ascii_case(name);
                    let known = CATALOG
                        .iter()
                        .any(|other| word.eq_ignore_ascii_case(other.name.as_bytes()));
                    assert!(find(&word).is_some() == known && (known || !same));
                }
            }
            assert_eq!(find(&[name, b"X"].concat()), None);
        }
        assert_eq!(find(b""), None);
        assert_eq!(find(&[b'G'; 300]), None);
    }

    /// All 256 bytes in all eight places.
    #[test]
    fn upper_is_ascii_upper() {
        for byte in 0..=255u8 {
            let mut bytes = *b"a\xE1Zz@[`{";
            for at in 0..8 {
                bytes[at] = byte;
                let expected = bytes.to_ascii_uppercase();
                assert_eq!(upper(u64::from_le_bytes(bytes)).to_le_bytes(), *expected);
            }
        }
    }
}
