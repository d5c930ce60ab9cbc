//! Invitations: all that a new site needs to connect, as one line that can be pasted.
//!
//! ```text
//! ringway-invite: base64url( version u8 = 2 | length u16 | body | checksum, 8 bytes )
//! body: good until u64 | network key | shared key | inviter's name | guest's name | count u8 |
//!       addresses
//! ```
//!
//! *Good until* is in seconds since 1970: afterwards `join` takes it no more, so that a line that
//! lies about in a mailbox connects nobody by mistake. It does not bind who means ill, since the
//! keys are there to be read; what ends those is to take the peer out at the inviting side.
//!
//! Each text of the body has its length in a byte before it; keys are the lines of key files. The
//! checksum is the beginning of a SHA-256 of all before it: it finds what a mailer or a hand did
//! to the line, and proves nothing about who made it. Whoever has the line is the guest, so it is
//! a secret like the keys in it, and is sent by a way that nobody else can read.
//!
//! Bounds: [`LINE_BYTES_MAX`], blanks not counted; up to 16 addresses.
//! Tests: every cut and every changed letter, below; any text and any body (`tools/fuzz`).

use data_encoding::BASE64URL_NOPAD;
use ringway_crypto::{NetworkKey, Psk};
use ringway_tunnel_proto::Target;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::{ADDRESSES_MAX, is_name};

/// What every invitation begins with, so that a leaked one is recognised.
const PREFIX: &str = "ringway-invite:";
/// Bytes of an invitation.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 3;
const SUM_BYTES: usize = 8;

/// All that a new site needs.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// When it ceases to be taken, in seconds since 1970.
    pub until_s: u64,
    /// The key of the network that both will be in.
    pub network: NetworkKey,
    /// The secret of exactly these two.
    pub shared: Psk,
    /// What the inviting side calls itself.
    pub inviter: String,
    /// What the inviting side calls the new one.
    pub guest: String,
    /// Where the inviting side can be dialled: 1 to 16, the first is preferred.
    pub addresses: Vec<Target>,
}

/// Why a line is no invitation. The line itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoInvite {
    /// It begins with something else.
    #[error(
        "this is no invitation: those begin with `ringway-invite:`, and `ringway tunnel invite` at \
         the other side prints them"
    )]
    NotOne,
    /// It is a key.
    #[error(
        "this is a key, not an invitation: those begin with `ringway-invite:`. If it was sent to \
         you, ask for an invitation instead, and for another key if others could read it"
    )]
    AKey,
    /// A letter that is in none.
    #[error(
        "the invitation was changed on its way: {0:?} is in none. Copy it again, from \
         `ringway-invite:` to its end"
    )]
    Letter(char),
    /// Its end is not there.
    #[error(
        "the invitation was cut: {missing} letters are missing at its end. Copy it again, from \
         `ringway-invite:` to its end"
    )]
    Cut {
        /// How many letters.
        missing: usize,
    },
    /// There is more behind its end.
    #[error(
        "there are {extra} letters behind the end of the invitation: copy it again, without what \
         follows it"
    )]
    Long {
        /// How many letters.
        extra: usize,
    },
    /// It is not what was made.
    #[error(
        "the invitation was changed on its way: its checksum does not fit. Copy it again, from \
         `ringway-invite:` to its end"
    )]
    Altered,
    /// A version that we do not know.
    #[error(
        "the invitation has format {0}, and this program knows format {VERSION}: update the older \
         one of the two"
    )]
    Version(u8),
}

impl Invite {
    /// The line.
    ///
    /// # Panics
    /// If a name or the number of addresses is not what a configuration may have.
    pub fn to_line(&self) -> Zeroizing<String> {
        assert!((1..=ADDRESSES_MAX).contains(&self.addresses.len()), "1 to 16 addresses");
        assert!(is_name(&self.inviter) && is_name(&self.guest), "names of peers");
        // With room for all of it at once: a buffer that grows leaves copies of keys behind.
        let mut body = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
        body.extend_from_slice(&self.until_s.to_be_bytes());
        push(&mut body, &self.network.to_text());
        push(&mut body, &self.shared.to_text());
        push(&mut body, &self.inviter);
        push(&mut body, &self.guest);
        body.push(self.addresses.len() as u8);
        for address in &self.addresses {
            let mut target = Vec::new();
            address.write(&mut target);
            body.extend_from_slice(&target);
        }
        let line = Invite::line_around(&body);
        assert!(line.len() <= LINE_BYTES_MAX, "16 addresses fit");
        line
    }

    /// The line that has this body, with the length and the checksum that it needs. Whether the
    /// body is that of an invitation is not asked: somebody who means ill asks neither, and the
    /// tests play them.
    ///
    /// # Panics
    /// If the body has more than 65535 bytes.
    pub fn line_around(body: &[u8]) -> Zeroizing<String> {
        let body_len = u16::try_from(body.len()).expect("a length has two bytes");
        let len = HEAD_BYTES + body.len() + SUM_BYTES;
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.push(VERSION);
        bytes.extend_from_slice(&body_len.to_be_bytes());
        bytes.extend_from_slice(body);
        let sum = sum(&bytes);
        bytes.extend_from_slice(&sum);
        let letters = PREFIX.len() + BASE64URL_NOPAD.encode_len(len);
        let mut line = Zeroizing::new(String::with_capacity(letters));
        line.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut line);
        line
    }

    /// Reads what [`Invite::to_line`] made; blanks and line breaks within do not matter, since
    /// mailers put them there.
    ///
    /// # Errors
    /// [`NoInvite`].
    pub fn from_line(line: &str) -> Result<Invite, NoInvite> {
        let mut text = Zeroizing::new(String::with_capacity(LINE_BYTES_MAX));
        for letter in line.chars().filter(|letter| !letter.is_whitespace()) {
            if text.len() + letter.len_utf8() > LINE_BYTES_MAX {
                return Err(if text.starts_with(PREFIX) {
                    NoInvite::Long { extra: line.len() - text.len() }
                } else {
                    NoInvite::NotOne
                });
            }
            text.push(letter);
        }
        let Some(text) = text.strip_prefix(PREFIX) else {
            let key = ["private", "network", "shared", "public"].iter().any(|kind| {
                text.strip_prefix("ringway-").is_some_and(|rest| rest.starts_with(kind))
            });
            return Err(if key { NoInvite::AKey } else { NoInvite::NotOne });
        };
        let other = |letter: &char| !letter.is_ascii_alphanumeric() && !"-_".contains(*letter);
        if let Some(letter) = text.chars().find(other) {
            return Err(NoInvite::Letter(letter));
        }
        parse(&whole(text)?).ok_or(NoInvite::Altered)
    }
}

/// The bytes of a line that is as long as it says.
fn whole(text: &str) -> Result<Zeroizing<Vec<u8>>, NoInvite> {
    const HEAD_LETTERS: usize = HEAD_BYTES * 4 / 3;
    let Some(head) = text.get(..HEAD_LETTERS) else {
        return Err(NoInvite::Cut { missing: HEAD_LETTERS - text.len() });
    };
    let head = BASE64URL_NOPAD.decode(head.as_bytes()).map_err(|_| NoInvite::Altered)?;
    let [version, long, short] = head[..] else { return Err(NoInvite::Altered) };
    if version != VERSION {
        return Err(NoInvite::Version(version));
    }
    let body_len = usize::from(u16::from_be_bytes([long, short]));
    let letters = BASE64URL_NOPAD.encode_len(HEAD_BYTES + body_len + SUM_BYTES);
    if text.len() < letters {
        return Err(NoInvite::Cut { missing: letters - text.len() });
    }
    if text.len() > letters {
        return Err(NoInvite::Long { extra: text.len() - letters });
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NoInvite::Altered)?;
    Ok(Zeroizing::new(bytes))
}

fn parse(bytes: &[u8]) -> Option<Invite> {
    let (said, theirs) = bytes.split_last_chunk::<SUM_BYTES>()?;
    if sum(said) != *theirs {
        return None;
    }
    let (until, mut rest) = said.get(HEAD_BYTES..)?.split_first_chunk()?;
    let until_s = u64::from_be_bytes(*until);
    let network = NetworkKey::from_text(pull(&mut rest)?).ok()?;
    let shared = Psk::from_text(pull(&mut rest)?).ok()?;
    let inviter = pull(&mut rest)?.to_owned();
    let guest = pull(&mut rest)?.to_owned();
    let (count, mut rest) = rest.split_first()?;
    let mut addresses = Vec::new();
    for _ in 0..*count {
        let (target, taken) = Target::read(rest).ok()??;
        rest = &rest[taken..];
        addresses.push(target);
    }
    let dialled = addresses.iter().all(|target| !matches!(target, Target::Service(_)));
    let bounded = (1..=ADDRESSES_MAX).contains(&addresses.len());
    let right = rest.is_empty() && dialled && bounded && is_name(&inviter) && is_name(&guest);
    right.then_some(Invite { until_s, network, shared, inviter, guest, addresses })
}

fn push(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).expect("keys and names are short"));
    bytes.extend_from_slice(text.as_bytes());
}

fn pull<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (len, behind) = rest.split_first()?;
    let (text, behind) = behind.split_at_checked(usize::from(*len))?;
    *rest = behind;
    std::str::from_utf8(text).ok()
}

fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let digest = Sha256::new().chain_update(b"ringway invite\0").chain_update(bytes).finalize();
    *digest.first_chunk().expect("8 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringway_crypto::Secret;

    use super::*;

    fn invite(addresses: &[&str]) -> Invite {
        Invite {
            until_s: 2_000_000_000,
            network: NetworkKey::new(Secret::new([1; 32])),
            shared: Psk::new(Secret::new([2; 32])),
            inviter: "gw".to_owned(),
            guest: "branch-7".to_owned(),
            addresses: addresses.iter().map(|text| Target::parse(text).expect(text)).collect(),
        }
    }

    fn refusal(line: &str) -> NoInvite {
        Invite::from_line(line).err().unwrap_or_else(|| panic!("taken: {line}"))
    }

    /// One line, from `ringway-invite:` on, with everything in it; blanks do not matter.
    #[test]
    fn a_line_goes_both_ways() {
        for addresses in [&["gw.example:4600"][..], &["192.0.2.7:1", "[2001:db8::1]:65535", "a:9"]]
        {
            let invite = invite(addresses);
            let line = invite.to_line();
            assert!(line.starts_with("ringway-invite:") && !line.contains(char::is_whitespace));
            assert!(Invite::from_line(&line).is_ok_and(|read| read == invite));
            let wrapped = format!("  {}\r\n\t{}\n\n", &line[..70], &line[70..]);
            assert!(Invite::from_line(&wrapped).is_ok_and(|read| read == invite));
        }
        let long = format!("{}:65535", vec!["a".repeat(60); 4].join("."));
        let most = invite(&[long.as_str(); ADDRESSES_MAX]);
        assert!(Invite::from_line(&most.to_line()).is_ok_and(|read| read == most));
    }

    /// The line that docs/tunnel-protocol.md prints, broken as it is there.
    #[test]
    fn the_documented_line_is_this_one() {
        let doc = include_str!("../../../docs/tunnel-protocol.md");
        let start = doc.rfind("\nringway-invite:").expect("an example");
        let end = start + doc[start..].find("```").expect("its end");
        assert_eq!(doc[start..end].replace('\n', ""), *invite(&["gw.example:4600"]).to_line());
    }

    #[test]
    fn every_cut_is_seen() {
        let line = invite(&["gw.example:4600"]).to_line();
        for end in 0..line.len() {
            match refusal(&line[..end]) {
                NoInvite::NotOne => assert!(end < PREFIX.len(), "cut at {end}"),
                NoInvite::Cut { missing } if end >= PREFIX.len() + 4 => {
                    assert_eq!(end + missing, line.len());
                }
                NoInvite::Cut { .. } => assert!(end >= PREFIX.len()),
                other => panic!("{other:?} at {end}"),
            }
        }
        assert_eq!(refusal(&format!("{}xyz", *line)), NoInvite::Long { extra: 3 });
        assert!(matches!(refusal(&line.repeat(100)), NoInvite::Long { .. }));
    }

    /// Whatever letter is changed to whatever else: it is refused, in words.
    #[test]
    fn every_changed_letter_is_seen() {
        let line = invite(&["gw.example:4600"]).to_line();
        for at in 0..line.len() {
            for other in ["A", "z", "-", "=", "+", "é"] {
                if line[at..=at] != *other {
                    let changed = format!("{}{other}{}", &line[..at], &line[at + 1..]);
                    assert!(!refusal(&changed).to_string().is_empty());
                }
            }
        }
    }

    #[test]
    fn other_lines_are_told_apart() {
        let shared = Psk::new(Secret::new([2; 32])).to_text();
        assert_eq!(refusal(&shared), NoInvite::AKey);
        for other in ["", "hello", "ringway-", "ringway-invitation:AAAA", &"x".repeat(100_000)] {
            assert_eq!(refusal(other), NoInvite::NotOne, "{other}");
        }
        assert_eq!(refusal("ringway-invite:AQAA"), NoInvite::Version(1));
        assert_eq!(refusal("ringway-invite:Ag=="), NoInvite::Letter('='));
        assert_eq!(refusal("ringway-invite:"), NoInvite::Cut { missing: 4 });
    }

    proptest! {
        /// Somebody may make a line with a right checksum around anything: it is an invitation
        /// that is written the same, or none.
        #[test]
        fn any_body_is_an_invitation_or_not(
            at in 0..200_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let line = invite(&["gw.example:4600", "192.0.2.7:1"]).to_line();
            let said = whole(&line[PREFIX.len()..]).expect("whole");
            let mut body = said[HEAD_BYTES..said.len() - SUM_BYTES].to_vec();
            let at = at % body.len();
            let end = body.len().min(at + bytes.len());
            body.splice(at..end, bytes);
            if let Ok(read) = Invite::from_line(&Invite::line_around(&body)) {
                prop_assert!(Invite::from_line(&read.to_line()).is_ok_and(|again| again == read));
            }
        }
    }
}
