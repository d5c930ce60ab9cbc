//! Lock scripts: what clients send to Redis as Lua, understood without running any.
//!
//! A lock in Redis is released by a script, because nothing else compares and deletes in one step,
//! and every library and every team has its own spelling of the same few programs. Two ways lead
//! to a [`Script`]: the text of `EVAL` is brought to a normal form (no comments, no spaces between
//! symbols, one kind of quotes, strings in upper case) and read as one of a few shapes; the
//! digest of `EVALSHA` is looked up among those of the texts that known libraries send.
//!
//! Always true:
//! - A text is recognised only if it is, up to spelling, a program whose effect on one name is
//!   exactly the [`Script`] that stands for it. Strings may change case only because commands
//!   and options are all that the shapes have as strings.
//! - Nothing is remembered: what is known is compiled in, so `SCRIPT FLUSH` changes nothing.
//!
//! Bounds: texts above 2 KiB are unknown; one pass, no allocation.
//! Not here: Redisson (its locks are hashes with a count and a channel), python-redis-lock (a
//! list that wakes waiters): those are other data types, not a compare-and-delete.
//! Tests: below, with the digests of the libraries' own texts.

use ringway_core::Span;
use sha1::{Digest as _, Sha1};

/// A digest as `EVALSHA` names it.
pub type Digest = [u8; 20];

/// Bytes of a text that can be recognised.
const TEXT_BYTES_MAX: usize = 2048;
/// Bytes of the normal form of such a text.
const NORMAL_BYTES_MAX: usize = 640;

/// What a script does to its one name, whose value is compared with the first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Frees the name if the value is equal.
    Delete,
    /// Makes the lease last for argument 2 from now if the value is equal.
    Expire(Unit),
    /// If the value is equal: adds argument 2 to what is left of the lease, or replaces what is
    /// left if argument 3 is not `0`.
    Extend,
    /// Adds argument 2 to what is left of the lease if the value is equal.
    Add,
    /// Takes the name for argument 2 if it is free.
    Lock,
    /// Makes the lease last for argument 2 from now if the value is equal; takes a free name.
    LockOrExpire,
}

/// What a number of time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Unit {
    /// So many of the unit; `None` if that is zero or above 2^32 milliseconds (49 days).
    pub fn span(self, count: u64) -> Option<Span> {
        let ms = match self {
            Unit::Ms => count,
            Unit::S => count.checked_mul(1_000)?,
        };
        (1..=u64::from(u32::MAX)).contains(&ms).then(|| Span::from_ms(ms))
    }
}

/// A value that a script returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A number.
    Integer(i64),
    /// `+OK`.
    Ok,
    /// Lua's `nil` or `false`.
    Null,
}

/// A known script: its effect, and its answer to each outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it does.
    pub effect: Effect,
    /// The answer when it was done.
    pub done: Answer,
    /// The answer when nobody holds the name.
    pub absent: Answer,
    /// The answer when the name is held under another value.
    pub other: Answer,
}

impl Script {
    const fn new(effect: Effect, no: i64) -> Script {
        let no = Answer::Integer(no);
        Script { effect, done: Answer::Integer(1), absent: no, other: no }
    }
}

const DELETE: Script = Script::new(Effect::Delete, 0);
const EXPIRE: Script = Script::new(Effect::Expire(Unit::Ms), 0);
const EXTEND: Script = Script::new(Effect::Extend, 0);
const ADD: Script = Script::new(Effect::Add, 0);
const LOCK: Script = Script::new(Effect::Lock, 0);
const LOCK_SET: Script =
    Script { effect: Effect::Lock, done: Answer::Ok, absent: Answer::Null, other: Answer::Null };
const DELETE_OR_ABSENT: Script = Script { absent: Answer::Integer(-1), ..DELETE };
const LOCK_OR_EXPIRE: Script = Script::new(Effect::LockOrExpire, 0);

/// The script that a text is, in whatever spelling.
pub fn of_text(text: &[u8]) -> Option<Script> {
    let mut normal = Normal { bytes: [0; NORMAL_BYTES_MAX], len: 0 };
    normal.read(text)?;
    let program = &normal.bytes[..normal.len];
    WHOLE
        .iter()
        .find(|(known, _)| known.as_bytes() == program)
        .map(|(_, script)| *script)
        .or_else(|| Shape(program).compare_and_do())
}

/// The script that a digest in 40 hexadecimal digits names.
pub fn of_digest(hex: &[u8]) -> Option<Script> {
    let digest = parse_digest(hex)?;
    // One byte tells most of them apart, and spares a call to compare twenty.
    let is_it = |known: &Digest| known[0] == digest[0] && *known == digest;
    DIGESTS.iter().find(|(known, _)| is_it(known)).map(|(_, script)| *script)
}

/// The digest under which a text that is known can be called: its own if a known library sends
/// it like this, else that of another text with the same effect and answers.
pub fn digest_of(text: &[u8]) -> Option<Digest> {
    let script = of_text(text)?;
    let own: Digest = Sha1::digest(text).into();
    let is_known = DIGESTS.iter().any(|(known, _)| *known == own);
    let stand_in = DIGESTS.iter().find(|(_, known)| *known == script).map(|(known, _)| *known);
    if is_known { Some(own) } else { stand_in }
}

/// Reads 40 hexadecimal digits of any case.
const fn parse_digest(hex: &[u8]) -> Option<Digest> {
    if hex.len() != 40 {
        return None;
    }
    let mut digest = [0; 20];
    let mut index = 0;
    while index < 40 {
        let nibble = match hex[index] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            digit @ b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        digest[index / 2] = digest[index / 2] << 4 | nibble;
        index += 1;
    }
    Some(digest)
}

const fn known(hex: &str, script: Script) -> (Digest, Script) {
    match parse_digest(hex.as_bytes()) {
        Some(digest) => (digest, script),
        None => panic!("a digest has 40 hexadecimal digits"),
    }
}

/// Digests of the texts that libraries send; the first of a script stands in for other spellings.
static DIGESTS: [(Digest, Script); 22] = [
    // Redis documentation, one line.
    known("b70c2384248f88e6b75b9f89241a180f856ad852", DELETE),
    // Redis documentation.
    known("647c65a442733a1aa440f99908d249d13b4d6c4a", DELETE),
    // redis-py 2.10 to 8.1, release.
    known("c3f8721cbb97f72bc19e972846bd7aaf91901658", DELETE),
    // node-redlock 4, release.
    known("0f0f23b9048b36752b5be114f357ba083449f908", DELETE),
    // node-redlock 5, release.
    known("e4612211c9f8f51c257e26e056b0a654b3187242", DELETE),
    // node-redlock 3, release.
    known("cf0e94b2e9ffc7e04395cf88f7583fc309985910", DELETE),
    // redsync, earlier release.
    known("00583931c4e4d483f6233879c133c71ed5393f9d", DELETE),
    // single quotes, one line.
    known("e9f69f2beb755be68b5e456ee2ce9aadfbc4ebf4", DELETE),
    // single quotes, no spaces.
    known("ae3671744a5dbb24ea37ef607b8b10ac7856d43e", DELETE),
    // redsync, release.
    known("e950836ed1e694540c503ef9972b8de518044d3b", DELETE_OR_ABSENT),
    // redis-py 3.0 to 8.1, reacquire.
    known("1cac51482acf5858da00f6d685d68f886cd6b6b2", EXPIRE),
    // node-redlock 3, extend.
    known("a7aba3bc5d6e99b3003da8b9d80a63b9f4092ecf", EXPIRE),
    // node-redlock 4, extend.
    known("ce46f80993d5dac20dd066eb301a4e37994bdbed", EXPIRE),
    // node-redlock 5, extend.
    known("aed6f382e410db8ba7926d4e5e9aab410bf2a78a", EXPIRE),
    // redsync, extend.
    known("d75bb8b5bd13532ddedd17762e772346e39b321e", EXPIRE),
    // redis-py 3.0 to 8.1, extend.
    known("a4e8783852e6b949f9ef3a97212805108459a890", EXTEND),
    // redis-py 2.10, extend.
    known("4a484ac024e9b025224cd9f8e1d59dbf3c15d00d", ADD),
    // redis-py 2.10, acquire.
    known("5688a2541c9edd77746bcd2385e65ff3639a664f", LOCK),
    // node-redlock 4, acquire.
    known("e5a322e2634ef59a516e8ea150cb085afafee684", LOCK),
    // node-redlock 5, acquire.
    known("96da70f7716f27d278a5218544df37fd8b0a5e4c", LOCK),
    // node-redlock 3, acquire.
    known("862f31bf38e9b63ce28d6e9e5143551bb34ef981", LOCK_SET),
    // redsync, extend or lock.
    known("b6b55c439e02c6f52ffb8be7ec8c0d0ac816ea79", LOCK_OR_EXPIRE),
];

/// Programs that are recognised as a whole, in normal form.
const WHOLE: [(&str, Script); 10] = [
    // redis-py, release.
    (
        concat!(
            r#"local token=redis.call("GET",KEYS[1])"#,
            r#"if not token or token~=ARGV[1]then return 0 end "#,
            r#"redis.call("DEL",KEYS[1])return 1"#
        ),
        DELETE,
    ),
    // redis-py, reacquire.
    (
        concat!(
            r#"local token=redis.call("GET",KEYS[1])"#,
            r#"if not token or token~=ARGV[1]then return 0 end "#,
            r#"redis.call("PEXPIRE",KEYS[1],ARGV[2])return 1"#
        ),
        EXPIRE,
    ),
    // redis-py since 3.0, extend.
    (
        concat!(
            r#"local token=redis.call("GET",KEYS[1])"#,
            r#"if not token or token~=ARGV[1]then return 0 end "#,
            r#"local expiration=redis.call("PTTL",KEYS[1])"#,
            r#"if not expiration then expiration=0 end if expiration<0 then return 0 end "#,
            r#"local newttl=ARGV[2]if ARGV[3]=="0"then newttl=ARGV[2]+expiration end "#,
            r#"redis.call("PEXPIRE",KEYS[1],newttl)return 1"#
        ),
        EXTEND,
    ),
    // redis-py 2.10, extend and acquire.
    (
        concat!(
            r#"local token=redis.call("GET",KEYS[1])"#,
            r#"if not token or token~=ARGV[1]then return 0 end "#,
            r#"local expiration=redis.call("PTTL",KEYS[1])"#,
            r#"if not expiration then expiration=0 end if expiration<0 then return 0 end "#,
            r#"redis.call("PEXPIRE",KEYS[1],expiration+ARGV[2])return 1"#
        ),
        ADD,
    ),
    (
        concat!(
            r#"if redis.call("SETNX",KEYS[1],ARGV[1])==1 then "#,
            r#"if ARGV[2]~=""then redis.call("PEXPIRE",KEYS[1],ARGV[2])end return 1 end return 0"#
        ),
        LOCK,
    ),
    // node-redlock 4 and 5: acquire, extend, release. With one name they are the plain forms.
    (
        concat!(
            r#"for i,key in ipairs(KEYS)do if redis.call("EXISTS",key)==1 then return 0 end end "#,
            r#"for i,key in ipairs(KEYS)do redis.call("SET",key,ARGV[1],"PX",ARGV[2])end "#,
            r#"return#KEYS"#
        ),
        LOCK,
    ),
    (
        concat!(
            r#"for i,key in ipairs(KEYS)do if redis.call("GET",key)~=ARGV[1]"#,
            r#"then return 0 end end "#,
            r#"for i,key in ipairs(KEYS)do redis.call("SET",key,ARGV[1],"PX",ARGV[2])end "#,
            r#"return#KEYS"#
        ),
        EXPIRE,
    ),
    (
        concat!(
            r#"local count=0 for i,key in ipairs(KEYS)do "#,
            r#"if redis.call("GET",key)==ARGV[1]then "#,
            r#"redis.pcall("DEL",key)count=count+1 end end return count"#
        ),
        DELETE,
    ),
    // node-redlock 3, acquire; also redlock-rb and others.
    (r#"return redis.call("SET",KEYS[1],ARGV[1],"NX","PX",ARGV[2])"#, LOCK_SET),
    // redsync, extend with WithSetNXOnExtend.
    (
        concat!(
            r#"if redis.call("GET",KEYS[1])==ARGV[1]then "#,
            r#"return redis.call("PEXPIRE",KEYS[1],ARGV[2])"#,
            r#"elseif redis.call("SET",KEYS[1],ARGV[1],"PX",ARGV[2],"NX")then return 1 "#,
            r#"else return 0 end"#
        ),
        LOCK_OR_EXPIRE,
    ),
];

/// A program in normal form: tokens without anything between them, except a space between two
/// words. Two programs with the same normal form are the same program, or not valid Lua.
struct Normal {
    bytes: [u8; NORMAL_BYTES_MAX],
    len: usize,
}

impl Normal {
    /// Reads a text; `None` if it is too long or uses what no lock script needs.
    fn read(&mut self, text: &[u8]) -> Option<()> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut rest = text;
        while let Some((first, after)) = rest.split_first() {
            rest = match first {
                // A semicolon only separates statements.
                b';' => after,
                space if space.is_ascii_whitespace() => after,
                b'-' if after.first() == Some(&b'-') => Self::behind_comment(after)?,
                b'"' | b'\'' => self.take_string(*first, after)?,
                letter if is_word(*letter) => self.take_word(rest)?,
                symbol => {
                    self.put(*symbol)?;
                    after
                }
            };
        }
        Some(())
    }

    /// A comment to the end of the line; long ones (`--[[`) are not known here.
    fn behind_comment(after: &[u8]) -> Option<&[u8]> {
        if after.get(1) == Some(&b'[') {
            return None;
        }
        let end = after.iter().position(|byte| *byte == b'\n').unwrap_or(after.len());
        after.get(end..)
    }

    fn take_string<'a>(&mut self, quote: u8, text: &'a [u8]) -> Option<&'a [u8]> {
        let len = text.iter().position(|byte| *byte == quote)?;
        let (string, after) = text.split_at_checked(len)?;
        if !string.iter().all(|byte| is_word(*byte)) {
            return None;
        }
        self.put(b'"')?;
        string.iter().try_for_each(|byte| self.put(byte.to_ascii_uppercase()))?;
        self.put(b'"')?;
        after.get(1..)
    }

    fn take_word<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        let len = text.iter().position(|byte| !is_word(*byte)).unwrap_or(text.len());
        let (word, after) = text.split_at_checked(len)?;
        if self.len > 0 && is_word(self.bytes[self.len - 1]) {
            self.put(b' ')?;
        }
        word.iter().try_for_each(|byte| self.put(*byte))?;
        Some(after)
    }

    fn put(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.len)? = byte;
        self.len += 1;
        Some(())
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A program in normal form that is read from its start.
struct Shape<'a>(&'a [u8]);

impl<'a> Shape<'a> {
    /// The classic: if the value is mine, then delete or renew, else say no.
    ///
    /// `[local V=get] if get|V == ARGV[1] then [return] act [return 1] [elseif V == false then
    /// return N] (else return N end | end return N | end)`
    fn compare_and_do(mut self) -> Option<Script> {
        let mut variable = None;
        if self.eat("local ") {
            variable = Some(self.take_name()?);
            self.expect("=")?;
            self.expect(GET)?;
        }
        self.eat(" ");
        self.expect("if")?;
        self.eat(" ");
        let parenthesis = self.eat("(");
        self.expect_comparison(variable)?;
        if parenthesis {
            self.expect(")")?;
        }
        self.expect("then ")?;
        let (effect, done) = self.take_act()?;
        let missing = match variable {
            Some(variable) => self.take_missing(variable)?,
            None => None,
        };
        let other = self.take_no()?;
        let absent = missing.unwrap_or(other);
        self.0.is_empty().then_some(Script { effect, done, absent, other })
    }

    fn expect_comparison(&mut self, variable: Option<&[u8]>) -> Option<()> {
        if self.eat("ARGV[1]==") {
            return self.expect_value(variable);
        }
        self.expect_value(variable)?;
        self.expect("==ARGV[1]")
    }

    fn expect_value(&mut self, variable: Option<&[u8]>) -> Option<()> {
        match variable {
            None => self.expect(GET),
            Some(name) => self.expect_bytes(name),
        }
    }

    /// The act, and what it returns when done.
    fn take_act(&mut self) -> Option<(Effect, Answer)> {
        let returned = self.eat("return ");
        let effect = ACTS.iter().find_map(|(text, effect)| self.eat(text).then_some(*effect))?;
        if !returned {
            self.expect("return 1")?;
        }
        Some((effect, Answer::Integer(1)))
    }

    /// What is returned for a name that nobody holds, if that is a case of its own.
    fn take_missing(&mut self, variable: &[u8]) -> Option<Option<Answer>> {
        self.eat(" ");
        if !self.eat("elseif ") {
            return Some(None);
        }
        self.expect_bytes(variable)?;
        self.expect("==false then return")?;
        Some(Some(self.take_number()?))
    }

    fn take_no(&mut self) -> Option<Answer> {
        self.eat(" ");
        if self.eat("else return") {
            let answer = self.take_number()?;
            self.expect(" end")?;
            return Some(answer);
        }
        self.expect("end")?;
        if self.0.is_empty() {
            return Some(Answer::Null);
        }
        self.expect(" return")?;
        self.take_number()
    }

    /// A small number behind `return`, or a word for none.
    fn take_number(&mut self) -> Option<Answer> {
        for (text, answer) in [
            (" 0", Answer::Integer(0)),
            ("-1", Answer::Integer(-1)),
            (" nil", Answer::Null),
            (" false", Answer::Null),
        ] {
            if self.eat(text) {
                return Some(answer);
            }
        }
        None
    }

    fn take_name(&mut self) -> Option<&'a [u8]> {
        let len = self.0.iter().position(|byte| !is_word(*byte))?;
        let (name, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        let shadows = [&b"redis"[..], b"KEYS", b"ARGV"].contains(&name);
        (!shadows).then_some(name)
    }

    fn eat(&mut self, text: &str) -> bool {
        self.expect(text).is_some()
    }

    fn expect(&mut self, text: &str) -> Option<()> {
        self.expect_bytes(text.as_bytes())
    }

    fn expect_bytes(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }
}

const GET: &str = r#"redis.call("GET",KEYS[1])"#;

const ACTS: [(&str, Effect); 6] = [
    (r#"redis.call("DEL",KEYS[1])"#, Effect::Delete),
    (r#"redis.call("UNLINK",KEYS[1])"#, Effect::Delete),
    (r#"redis.call("PEXPIRE",KEYS[1],ARGV[2])"#, Effect::Expire(Unit::Ms)),
    (r#"redis.call("PEXPIRE",KEYS[1],tonumber(ARGV[2]))"#, Effect::Expire(Unit::Ms)),
    (r#"redis.call("EXPIRE",KEYS[1],ARGV[2])"#, Effect::Expire(Unit::S)),
    (r#"redis.call("EXPIRE",KEYS[1],tonumber(ARGV[2]))"#, Effect::Expire(Unit::S)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const EXPIRE_S: Script = Script::new(Effect::Expire(Unit::S), 0);

    /// The texts as the libraries of the table above send them, to the byte.
    const SENT: [(&str, Script); 22] = [
        (
            "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end",
            DELETE,
        ),
        (
            "if redis.call(\"get\",KEYS[1]) == ARGV[1] then\n    return redis.call(\"del\",KEYS[1])\nelse\n    return 0\nend",
            DELETE,
        ),
        (
            "\n        local token = redis.call('get', KEYS[1])\n        if not token or token ~= ARGV[1] then\n            return 0\n        end\n        redis.call('del', KEYS[1])\n        return 1\n    ",
            DELETE,
        ),
        (
            "\n\tlocal count = 0\n\tfor i, key in ipairs(KEYS) do\n\t\t-- Only remove entries for *this* lock value.\n\t\tif redis.call(\"get\", key) == ARGV[1] then\n\t\t\tredis.pcall(\"del\", key)\n\t\t\tcount = count + 1\n\t\tend\n\tend\n\n\t-- Return the number of entries removed.\n\treturn count\n",
            DELETE,
        ),
        (
            "\n  local count = 0\n  for i, key in ipairs(KEYS) do\n    -- Only remove entries for *this* lock value.\n    if redis.call(\"get\", key) == ARGV[1] then\n      redis.pcall(\"del\", key)\n      count = count + 1\n    end\n  end\n\n  -- Return the number of entries removed.\n  return count\n",
            DELETE,
        ),
        (
            "if redis.call(\"get\", KEYS[1]) == ARGV[1] then return redis.call(\"del\", KEYS[1]) else return 0 end",
            DELETE,
        ),
        (
            "\n\tif redis.call(\"GET\", KEYS[1]) == ARGV[1] then\n\t\treturn redis.call(\"DEL\", KEYS[1])\n\telse\n\t\treturn 0\n\tend\n",
            DELETE,
        ),
        (
            "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
            DELETE,
        ),
        (
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
            DELETE,
        ),
        (
            "\n\tlocal val = redis.call(\"GET\", KEYS[1])\n\tif val == ARGV[1] then\n\t\treturn redis.call(\"DEL\", KEYS[1])\n\telseif val == false then\n\t\treturn -1\n\telse\n\t\treturn 0\n\tend\n",
            DELETE_OR_ABSENT,
        ),
        (
            "\n        local token = redis.call('get', KEYS[1])\n        if not token or token ~= ARGV[1] then\n            return 0\n        end\n        redis.call('pexpire', KEYS[1], ARGV[2])\n        return 1\n    ",
            EXPIRE,
        ),
        (
            "if redis.call(\"get\", KEYS[1]) == ARGV[1] then return redis.call(\"pexpire\", KEYS[1], ARGV[2]) else return 0 end",
            EXPIRE,
        ),
        (
            "\n\t-- Return 0 if an entry exists with a *different* lock value.\n\tfor i, key in ipairs(KEYS) do\n\t\tif redis.call(\"get\", key) ~= ARGV[1] then\n\t\t\treturn 0\n\t\tend\n\tend\n\n\t-- Update the entry for each provided key.\n\tfor i, key in ipairs(KEYS) do\n\t\tredis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])\n\tend\n\n\t-- Return the number of entries updated.\n\treturn #KEYS\n",
            EXPIRE,
        ),
        (
            "\n  -- Return 0 if an entry exists with a *different* lock value.\n  for i, key in ipairs(KEYS) do\n    if redis.call(\"get\", key) ~= ARGV[1] then\n      return 0\n    end\n  end\n\n  -- Update the entry for each provided key.\n  for i, key in ipairs(KEYS) do\n    redis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])\n  end\n\n  -- Return the number of entries updated.\n  return #KEYS\n",
            EXPIRE,
        ),
        (
            "\n\tif redis.call(\"GET\", KEYS[1]) == ARGV[1] then\n\t\treturn redis.call(\"PEXPIRE\", KEYS[1], ARGV[2])\n\telse\n\t\treturn 0\n\tend\n",
            EXPIRE,
        ),
        (
            "\n        local token = redis.call('get', KEYS[1])\n        if not token or token ~= ARGV[1] then\n            return 0\n        end\n        local expiration = redis.call('pttl', KEYS[1])\n        if not expiration then\n            expiration = 0\n        end\n        if expiration < 0 then\n            return 0\n        end\n\n        local newttl = ARGV[2]\n        if ARGV[3] == \"0\" then\n            newttl = ARGV[2] + expiration\n        end\n        redis.call('pexpire', KEYS[1], newttl)\n        return 1\n    ",
            EXTEND,
        ),
        (
            "\n        local token = redis.call('get', KEYS[1])\n        if not token or token ~= ARGV[1] then\n            return 0\n        end\n        local expiration = redis.call('pttl', KEYS[1])\n        if not expiration then\n            expiration = 0\n        end\n        if expiration < 0 then\n            return 0\n        end\n        redis.call('pexpire', KEYS[1], expiration + ARGV[2])\n        return 1\n    ",
            ADD,
        ),
        (
            "\n        if redis.call('setnx', KEYS[1], ARGV[1]) == 1 then\n            if ARGV[2] ~= '' then\n                redis.call('pexpire', KEYS[1], ARGV[2])\n            end\n            return 1\n        end\n        return 0\n    ",
            LOCK,
        ),
        (
            "\n\t-- Return 0 if an entry already exists.\n\tfor i, key in ipairs(KEYS) do\n\t\tif redis.call(\"exists\", key) == 1 then\n\t\t\treturn 0\n\t\tend\n\tend\n\n\t-- Create an entry for each provided key.\n\tfor i, key in ipairs(KEYS) do\n\t\tredis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])\n\tend\n\n\t-- Return the number of entries added.\n\treturn #KEYS\n",
            LOCK,
        ),
        (
            "\n  -- Return 0 if an entry already exists.\n  for i, key in ipairs(KEYS) do\n    if redis.call(\"exists\", key) == 1 then\n      return 0\n    end\n  end\n\n  -- Create an entry for each provided key.\n  for i, key in ipairs(KEYS) do\n    redis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])\n  end\n\n  -- Return the number of entries added.\n  return #KEYS\n",
            LOCK,
        ),
        ("return redis.call(\"set\", KEYS[1], ARGV[1], \"NX\", \"PX\", ARGV[2])", LOCK_SET),
        (
            "\n\tif redis.call(\"GET\", KEYS[1]) == ARGV[1] then\n\t\treturn redis.call(\"PEXPIRE\", KEYS[1], ARGV[2])\n\telseif redis.call(\"SET\", KEYS[1], ARGV[1], \"PX\", ARGV[2], \"NX\") then\n\t\treturn 1\n\telse\n\t\treturn 0\n\tend\n",
            LOCK_OR_EXPIRE,
        ),
    ];

    fn hex(digest: Digest) -> Vec<u8> {
        digest.iter().flat_map(|byte| alloc::format!("{byte:02x}").into_bytes()).collect()
    }

    /// A library may send its text or the digest of it: both mean the same, and loading a text
    /// gives the digest that the library has computed by itself.
    #[test]
    fn text_and_digest_agree() {
        for (index, (text, script)) in SENT.iter().enumerate() {
            let digest: Digest = Sha1::digest(text.as_bytes()).into();
            assert_eq!(of_text(text.as_bytes()), Some(*script), "{text}");
            assert_eq!(DIGESTS[index], (digest, *script), "{text}");
            assert_eq!(digest_of(text.as_bytes()), Some(digest));
            assert_eq!(of_digest(&hex(digest)), Some(*script));
            assert_eq!(of_digest(&hex(digest).to_ascii_uppercase()), Some(*script));
        }
    }

    /// Spellings that no library has, but people have: white space, quotes, case, comments,
    /// parentheses, a variable, the order of the comparison, where zero is returned.
    #[test]
    fn spelling_does_not_matter() {
        for text in [
            "if (redis.call('GET',KEYS[1])==ARGV[1]) then return redis.call('DEL',KEYS[1]) else return 0 end",
            "if redis.call('get',KEYS[1]) == ARGV[1]  then return redis.call('del',KEYS[1]); else  return 0; end",
            "-- unlock\nif ARGV[1] == redis.call(\"Get\", KEYS[1]) then\r\n return redis.call(\"unlink\", KEYS[1])\r\nend\r\nreturn 0",
            "local v = redis.call('get', KEYS[1]) if v == ARGV[1] then redis.call('del', KEYS[1]) return 1 end return 0",
        ] {
            assert_eq!(of_text(text.as_bytes()), Some(DELETE), "{text}");
            let stand_in = digest_of(text.as_bytes()).expect("known");
            assert_eq!(of_digest(&hex(stand_in)), Some(DELETE), "can be called as loaded");
        }
        let renew = "if redis.call('get',KEYS[1])==ARGV[1] then \
                     return redis.call('expire',KEYS[1],tonumber(ARGV[2])) else return 0 end";
        assert_eq!(of_text(renew.as_bytes()), Some(EXPIRE_S));
        let nil = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end";
        assert_eq!(of_text(nil.as_bytes()).map(|script| script.other), Some(Answer::Null));
    }

    /// What differs in more than spelling is another program, however small the difference.
    #[test]
    fn other_programs_are_unknown() {
        for text in [
            "",
            "return 1",
            "if redis.call('get',KEYS[1]) ~= ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
            "if redis.call('get',KEYS[2]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
            "if redis.call('get',KEYS[1]) == ARGV[2] then return redis.call('del',KEYS[1]) else return 0 end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[2]) else return 0 end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('incr',KEYS[1]) else return 0 end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 1 end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end x()",
            "if redis.call('g et',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end --[[",
            "local redis = redis.call('get', KEYS[1]) if redis == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
            "local v = redis.call('get', KEYS[1]) if w == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
        ] {
            assert_eq!(of_text(text.as_bytes()), None, "{text}");
        }
        let long = [b"if ".repeat(600), b"-- ".repeat(2000)];
        assert!(long.iter().all(|text| of_text(text).is_none() && digest_of(text).is_none()));
    }

    /// A digest is 40 digits; anything else is simply unknown.
    #[test]
    fn odd_digests_are_unknown() {
        let good = hex(DIGESTS[0].0);
        for odd in [&good[..39], &[&good[..], b"0"].concat(), &[b'g'; 40], b"", &[b'0'; 40]] {
            assert_eq!(of_digest(odd), None);
        }
    }

    /// A lease is at least a millisecond and fits into 32 bits of them.
    #[test]
    fn spans_are_bounded() {
        assert_eq!(Unit::Ms.span(0), None);
        assert_eq!(Unit::Ms.span(1), Some(Span::from_ms(1)));
        assert_eq!(Unit::Ms.span(1 << 32), None);
        assert_eq!(Unit::S.span(30), Some(Span::from_s(30)));
        assert_eq!(Unit::S.span(u64::MAX), None);
    }
}
