//! One end of a carrier over a stream of bytes: from its first byte to its records.
//!
//! ```text
//! near:  answering --> up            (a carrier that joins is up at once)
//! far:   knocking --> opening --> [the owner decides] --> up
//! any:   --> deaf: everything more is read and dropped
//! ```
//!
//! The link decides nothing about who may come: it stops and says what it has, and its owner goes
//! on by [`Link::accept`], [`Link::admit`] or [`Link::refuse`]. A far link is *proved* by its first
//! record: only then does the peer hold the session's keys, and no replayer does.
//!
//! Invariants:
//! - L1  Before the first MAC has verified, a link keeps 72 bytes at most, and 1 KiB before it is
//!   up.
//! - L2  What follows a byte that does not verify is never looked at.
//! - L3  Whole records are opened where they lie; only one that is cut is copied.
//!
//! Bounds: a record that is cut keeps at most 64 KiB. Constant work a record, but for its bytes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringway_crypto::{
    Backend, CarrierKind, Direction, Entropy, EpochSecret, Established, FIRST_BYTES, Initiator,
    JoinRequest, KeySpent, Knock, Listener, Psk, RECORD_HEADER_BYTES, RECORD_OVERHEAD,
    RECORD_TEXT_MAX, RecordOpener, RecordSealer, Refused, Spent, Suite, Visitor,
};

/// What a link has come to that its owner has to know.
pub enum Step {
    /// All bytes were taken.
    More,
    /// Somebody of the network wants something: has this salt come before? If so,
    /// [`Link::refuse`].
    Knock(Salted),
    /// Somebody has proved who they are: [`Link::accept`] or [`Link::refuse`].
    Visitor(Box<Visitor>),
    /// Somebody brings a further carrier: [`Link::admit`] or [`Link::refuse`].
    Join(Box<JoinRequest>),
    /// The answer came. [`Link::admit`] with its secret.
    Answered(Box<Established>),
    /// The peer is not what it should be; the link is deaf from here on.
    Refused(Refused),
    /// A record does not verify; the link is deaf from here on.
    Broken,
}

/// What is known of a message before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salted {
    /// Its salt.
    pub salt: [u8; 32],
    /// The sender's clock.
    pub sent_ms: u64,
}

enum State {
    Answering(Box<Initiator>),
    AnswerBody(Box<Initiator>, usize),
    Knocking,
    Body(Box<Knock>),
    /// The owner decides.
    Stopped,
    Up(Box<Up>),
    Deaf,
}

struct Up {
    sealer: RecordSealer,
    opener: RecordOpener,
    suite: Suite,
    backend: Backend,
    carrier: u32,
    /// The direction in which we send.
    out: Direction,
    /// The epoch that we send under.
    epoch: u32,
    /// A record of the peer has opened.
    proved: bool,
}

/// Which carrier of which session a link is, at this end.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The carrier's number.
    pub carrier: u32,
    /// The epoch that it begins with.
    pub epoch: u32,
    /// The direction in which this end sends.
    pub out: Direction,
    /// The session's cipher.
    pub suite: Suite,
    /// The library to use.
    pub backend: Backend,
}

/// See the module.
pub struct Link {
    state: State,
    /// What is kept of a message or a record that is not whole.
    kept: Vec<u8>,
}

impl Link {
    /// A carrier that somebody opened to us.
    pub fn far() -> Link {
        Link { state: State::Knocking, kept: Vec::new() }
    }

    /// A carrier that we opened, with the first message of a session on its way.
    pub fn near(initiator: Initiator) -> Link {
        Link { state: State::Answering(Box::new(initiator)), kept: Vec::new() }
    }

    /// A carrier that we opened to join a session; the message is on its way.
    pub fn joining(place: Place, secret: &EpochSecret) -> Link {
        let mut link = Link { state: State::Stopped, kept: Vec::new() };
        link.admit(place, secret);
        link
    }

    /// Whether records can be sent.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether everything that comes is dropped.
    pub fn is_deaf(&self) -> bool {
        matches!(self.state, State::Deaf)
    }

    /// Whether the peer has shown that it has the session's keys.
    pub fn is_proved(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.proved)
    }

    /// Whether the peer is in the middle of a message or a record.
    pub fn is_within(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Takes bytes of the carrier, from the front; returns how many. Texts of records go to `text`,
    /// in place; if it says false, the rest is not taken. After a step other than
    /// [`Step::More`] the owner acts on it and comes again with the rest.
    pub fn received(
        &mut self,
        bytes: &mut [u8],
        listener: Option<(&Listener, u64)>,
        entropy: &mut Entropy,
        mut text: impl FnMut(&mut [u8], &mut Rekeying<'_>) -> bool,
    ) -> (usize, Step) {
        let mut taken = 0;
        loop {
            let rest = &mut bytes[taken..];
            let step = match &mut self.state {
                State::Deaf | State::Stopped => return (bytes.len(), Step::More),
                State::Up(up) => {
                    let (more, step) = up.records(&mut self.kept, rest, &mut text);
                    taken += more;
                    step
                }
                _ => {
                    let wanted = self.wanted();
                    let more = (wanted - self.kept.len()).min(rest.len());
                    self.kept.extend_from_slice(&rest[..more]);
                    taken += more;
                    if self.kept.len() < wanted {
                        return (taken, Step::More);
                    }
                    self.message(listener, entropy)
                }
            };
            match step {
                Ok(None) if taken < bytes.len() && !self.is_up() => {}
                Ok(None) => return (taken, Step::More),
                Ok(Some(step)) => return (taken, step),
                Err(step) => {
                    self.refuse();
                    return (bytes.len(), step);
                }
            }
        }
    }

    /// Bytes of the message that is being read.
    fn wanted(&self) -> usize {
        match &self.state {
            State::Answering(_) | State::Knocking => FIRST_BYTES,
            State::AnswerBody(_, len) => *len,
            State::Body(knock) => knock.body_len(),
            State::Stopped | State::Up(_) | State::Deaf => 0,
        }
    }

    /// A whole message, or the first part of one, is in `kept`.
    fn message(
        &mut self,
        listener: Option<(&Listener, u64)>,
        entropy: &mut Entropy,
    ) -> Result<Option<Step>, Step> {
        let mut kept = core::mem::take(&mut self.kept);
        let first = || Step::Refused(Refused::Length);
        match core::mem::replace(&mut self.state, State::Stopped) {
            State::Answering(mut initiator) => {
                let first = kept.first_chunk().ok_or_else(first)?;
                let len = initiator.answered(first).map_err(Step::Refused)?;
                self.state = State::AnswerBody(initiator, len);
                Ok(None)
            }
            State::AnswerBody(initiator, _) => {
                let established = initiator.finish(&mut kept).map_err(Step::Refused)?;
                Ok(Some(Step::Answered(Box::new(established))))
            }
            State::Knocking => {
                let (listener, now_ms) = listener.ok_or(Step::Refused(Refused::Stranger))?;
                let first = kept.first_chunk().ok_or_else(first)?;
                let knock = listener.knock(first, now_ms).map_err(Step::Refused)?;
                // What was said for a carrier of another kind was moved here.
                if knock.head.kind != CarrierKind::Tcp {
                    return Err(Step::Refused(Refused::Forged));
                }
                let salted = Salted { salt: knock.salt, sent_ms: knock.head.sent_ms };
                self.state = State::Body(Box::new(knock));
                Ok(Some(Step::Knock(salted)))
            }
            State::Body(knock) if knock.head.mode == ringway_crypto::Mode::Join => {
                let request = knock.read_join(&mut kept).map_err(Step::Refused)?;
                Ok(Some(Step::Join(Box::new(request))))
            }
            State::Body(knock) => {
                let (listener, _) = listener.ok_or(Step::Refused(Refused::Stranger))?;
                let visitor = knock.read(listener, &mut kept, entropy).map_err(Step::Refused)?;
                Ok(Some(Step::Visitor(Box::new(visitor))))
            }
            State::Stopped | State::Up(_) | State::Deaf => Ok(None),
        }
    }

    /// Answers a visitor and goes up: appends the answer, which says `payload`, to `out`.
    ///
    /// # Errors
    /// [`Refused`]: the link is deaf.
    pub fn accept(
        &mut self,
        (visitor, psk): (Visitor, Option<&Psk>),
        (payload, backend): (&[u8], Backend),
        entropy: &mut Entropy,
        out: &mut Vec<u8>,
    ) -> Result<Established, Refused> {
        let established =
            visitor.accept(psk, payload, entropy, out).inspect_err(|_| self.refuse())?;
        let (suite, out) = (established.suite, Direction::ToInitiator);
        self.admit(Place { carrier: 0, epoch: 0, out, suite, backend }, &established.secret);
        Ok(established)
    }

    /// Goes up as a carrier of a session, under the secret of `place.epoch`.
    pub fn admit(&mut self, place: Place, secret: &EpochSecret) {
        let Place { carrier, epoch, out, suite, backend } = place;
        let sealer = RecordSealer::new(&secret.traffic(suite, out, carrier), backend);
        let opener = RecordOpener::new(&secret.traffic(suite, out.reversed(), carrier), backend);
        let up = Up { sealer, opener, suite, backend, carrier, out, epoch, proved: false };
        self.state = State::Up(Box::new(up));
    }

    /// Drops everything more that comes.
    pub fn refuse(&mut self) {
        self.state = State::Deaf;
        self.kept = Vec::new();
    }

    /// Appends one record to `out`; `fill` appends its text. If it appends nothing, nothing is
    /// sent. Returns how long the text was.
    ///
    /// # Errors
    /// [`KeySpent`]; nothing was appended.
    ///
    /// # Panics
    /// If the link is not up, or the text longer than [`RECORD_TEXT_MAX`].
    pub fn seal(
        &mut self,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<usize, KeySpent> {
        let State::Up(up) = &mut self.state else { panic!("only a link that is up sends records") };
        let start = out.len();
        out.resize(start + RECORD_HEADER_BYTES, 0);
        fill(out);
        let text_len = out.len() - start - RECORD_HEADER_BYTES;
        if text_len == 0 {
            out.truncate(start);
            return Ok(0);
        }
        out.resize(start + text_len + RECORD_OVERHEAD, 0);
        up.sealer.seal(&mut out[start..]).inspect_err(|_| out.truncate(start))?;
        Ok(text_len)
    }

    /// The epoch that this end sends under; zero before it is up.
    pub fn epoch(&self) -> u32 {
        if let State::Up(up) = &self.state { up.epoch } else { 0 }
    }

    /// Sends under `epoch` from the next record on. The one before said so.
    pub fn change_over(&mut self, epoch: u32, secret: &EpochSecret) {
        if let State::Up(up) = &mut self.state {
            up.sealer.rekey(&secret.traffic(up.suite, up.out, up.carrier), up.backend);
            up.epoch = epoch;
        }
    }

    /// What the present key has sealed.
    pub fn spent(&self) -> Spent {
        if let State::Up(up) = &self.state { up.sealer.spent() } else { Spent::default() }
    }
}

/// Lets the reader of a text change the keys of the records behind it.
pub struct Rekeying<'a> {
    opener: &'a mut RecordOpener,
    keys: (Suite, Direction, u32, Backend),
}

impl Rekeying<'_> {
    /// The records behind this one are under the epoch of this secret.
    pub fn change_over(&mut self, secret: &EpochSecret) {
        let (suite, direction, carrier, backend) = self.keys;
        self.opener.rekey(&secret.traffic(suite, direction, carrier), backend);
    }
}

impl Up {
    /// Opens whole records where they lie (L3). Returns how many bytes were taken.
    fn records(
        &mut self,
        kept: &mut Vec<u8>,
        bytes: &mut [u8],
        text: &mut impl FnMut(&mut [u8], &mut Rekeying<'_>) -> bool,
    ) -> (usize, Result<Option<Step>, Step>) {
        let mut taken = 0;
        while taken < bytes.len() || kept.len() > RECORD_HEADER_BYTES {
            let rest = &mut bytes[taken..];
            let go_on = if kept.is_empty()
                && let Some((header, body)) = whole(rest)
            {
                match self.opener.body_len(header) {
                    Err(_) => return (taken, Err(Step::Broken)),
                    Ok(len) if len <= body.len() => {
                        taken += RECORD_HEADER_BYTES + len;
                        self.open(&mut body[..len], text)
                    }
                    Ok(_) => {
                        kept.extend_from_slice(rest);
                        return (bytes.len(), Ok(None));
                    }
                }
            } else {
                match self.complete(kept, rest) {
                    Err(step) => return (taken, Err(step)),
                    Ok((more, false)) => return (taken + more, Ok(None)),
                    Ok((more, true)) => {
                        taken += more;
                        let mut record = core::mem::take(kept);
                        let go_on = self.open(&mut record[RECORD_HEADER_BYTES..], text);
                        record.clear();
                        *kept = record;
                        go_on
                    }
                }
            };
            match go_on {
                Err(step) => return (taken, Err(step)),
                Ok(true) => {}
                Ok(false) => return (taken, Ok(None)),
            }
        }
        (taken, Ok(None))
    }

    /// Adds to a record that was cut. Returns how many bytes it took, and whether it is whole.
    fn complete(&mut self, kept: &mut Vec<u8>, bytes: &[u8]) -> Result<(usize, bool), Step> {
        let mut taken = bytes.len().min(RECORD_HEADER_BYTES.saturating_sub(kept.len()));
        kept.extend_from_slice(&bytes[..taken]);
        let Some(header) = kept.first_chunk() else { return Ok((taken, false)) };
        let len = self.opener.body_len(header).map_err(|_| Step::Broken)?;
        let missing = RECORD_HEADER_BYTES + len - kept.len();
        let more = missing.min(bytes.len() - taken);
        kept.reserve(missing);
        kept.extend_from_slice(&bytes[taken..taken + more]);
        taken += more;
        Ok((taken, more == missing))
    }

    fn open(
        &mut self,
        body: &mut [u8],
        text: &mut impl FnMut(&mut [u8], &mut Rekeying<'_>) -> bool,
    ) -> Result<bool, Step> {
        let opened = self.opener.open(body).map_err(|_| Step::Broken)?;
        self.proved = true;
        let keys = (self.suite, self.out.reversed(), self.carrier, self.backend);
        Ok(text(opened, &mut Rekeying { opener: &mut self.opener, keys }))
    }
}

/// A header and what follows it, if a header is there.
fn whole(bytes: &mut [u8]) -> Option<(&[u8; RECORD_HEADER_BYTES], &mut [u8])> {
    let (header, body) = bytes.split_first_chunk_mut()?;
    Some((header, body))
}

const _: () = assert!(RECORD_TEXT_MAX >= 1024, "a record holds any control frame");

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
