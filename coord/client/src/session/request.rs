//! Requests and replies over messages: a pattern that the server knows nothing of.
//!
//! A request is a message whose payload begins with [`REQUEST`] and a number; its reply is a
//! message to the *session* that sent it, whose payload begins with [`REPLY`] and the same number.
//! Each is 12 bytes before what is said, so a message of another kind that begins so by chance is
//! rare; and a reply is only taken for one if somebody waits for that number. As with all messages
//! each of the two may be lost: no reply within the time means that nobody knows.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use ringway_client::{Session, SessionError};
//! # fn run(session: Session, other: Session) -> Result<(), SessionError> {
//! // Whoever owns the name answers:
//! session.register(&["accounts/7"])?;
//! let mut messages = session.messages();
//! std::thread::spawn(move || {
//!     while let Some(message) = messages.recv() {
//!         let Some((_, question)) = message.request() else { continue };
//!         let answer = [question, b" is 42"].concat();
//!         // The one who asked may be gone.
//!         let _ = session.reply(&message, answer);
//!     }
//! });
//! // And anybody asks:
//! let reply = other.request("accounts/7", "the balance", Duration::from_secs(1))?;
//! assert_eq!(reply.reply(), Some(b"the balance is 42".as_slice()));
//! # Ok(())
//! # }
//! ```

use crate::notice::Message;

/// What the payload of a request begins with, before its number (8 bytes, little-endian).
pub const REQUEST: [u8; 4] = *b"\0rq\x01";
/// What the payload of a reply begins with, before the request's number.
pub const REPLY: [u8; 4] = *b"\0rp\x01";
/// Bytes before what is said.
pub const HEAD_BYTES: usize = 12;

/// The payload of a request or reply.
pub(crate) fn payload(kind: [u8; 4], number: u64, says: &[u8]) -> Vec<u8> {
    [&kind, &number.to_le_bytes()[..], says].concat()
}

/// The number of the request that a message answers, if it is a reply.
pub(crate) fn reply_number(payload: &[u8]) -> Option<u64> {
    number(REPLY, payload)
}

fn number(kind: [u8; 4], payload: &[u8]) -> Option<u64> {
    let (head, rest) = payload.split_first_chunk::<4>()?;
    let number = rest.first_chunk::<8>()?;
    (*head == kind).then(|| u64::from_le_bytes(*number))
}

impl Message {
    /// The number of the request and what it says, if the message is a request.
    pub fn request(&self) -> Option<(u64, &[u8])> {
        number(REQUEST, &self.payload).map(|number| (number, &self.payload[HEAD_BYTES..]))
    }

    /// What a reply says, without its head.
    pub fn reply(&self) -> Option<&[u8]> {
        reply_number(&self.payload).map(|_| &self.payload[HEAD_BYTES..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Addressee;
    use ringway_core::SessionId;

    /// A request is told from its reply, and both from messages of other kinds.
    #[test]
    fn requests_and_replies_are_told_apart() {
        let message =
            |payload| Message { from: SessionId(1), to: Addressee::Session, fence: None, payload };
        let request = message(payload(REQUEST, 7, b"how much?"));
        assert_eq!(request.request(), Some((7, b"how much?".as_slice())));
        assert_eq!((request.reply(), reply_number(&request.payload)), (None, None));
        let reply = message(payload(REPLY, 7, b""));
        assert_eq!((reply.request(), reply.reply()), (None, Some(b"".as_slice())));
        let other = message(b"\0rq\x01short".to_vec());
        assert_eq!((other.request(), other.reply()), (None, None));
    }
}
