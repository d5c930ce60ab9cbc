//! Stories of two ends of a carrier, whose bytes are cut anywhere.

use alloc::vec;

use proptest::prelude::*;
use ringway_crypto::{CarrierKind, SessionId, write_join};

use super::*;
use crate::testing::{NOW_MS, dial, entropy, epoch_secret, listener, network};

fn place(out: Direction, carrier: u32) -> Place {
    Place { carrier, epoch: 0, out, suite: Suite::Aes128Gcm, backend: Backend::AwsLc }
}

/// One end, and what came out of it.
struct End {
    link: Link,
    texts: Vec<Vec<u8>>,
    out: Vec<u8>,
    established: Option<EpochSecret>,
    refused: Option<Refused>,
    broken: bool,
    knocks: usize,
}

impl End {
    fn new(link: Link) -> End {
        End {
            link,
            texts: Vec::new(),
            out: Vec::new(),
            established: None,
            refused: None,
            broken: false,
            knocks: 0,
        }
    }

    /// Takes bytes in pieces of `cut`, and lets everybody in.
    fn takes(&mut self, bytes: &mut [u8], cut: usize) {
        let listener = listener();
        for piece in bytes.chunks_mut(cut.max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                let texts = &mut self.texts;
                let (taken, step) = self.link.received(
                    rest,
                    Some((&listener, NOW_MS)),
                    &mut entropy(7),
                    |text, _| {
                        texts.push(text.to_vec());
                        true
                    },
                );
                rest = &mut rest[taken..];
                self.act(step);
            }
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::More => {}
            Step::Knock(salted) => {
                assert_eq!(salted.sent_ms, NOW_MS);
                self.knocks += 1;
            }
            Step::Visitor(visitor) => {
                assert_eq!(*visitor.payload, b"hello");
                let how = (&b"welcome"[..], Backend::Ring);
                let accepted =
                    self.link.accept((*visitor, None), how, &mut entropy(8), &mut self.out);
                self.established = accepted.ok().map(|established| established.secret);
            }
            Step::Join(request) => {
                let secret = epoch_secret();
                request.verify(&secret).expect("it knows the secret");
                self.link.admit(place(Direction::ToInitiator, request.carrier), &secret);
            }
            Step::Answered(established) => {
                assert_eq!(*established.payload, b"welcome");
                self.link.admit(place(Direction::ToResponder, 0), &established.secret);
                self.established = Some(established.secret);
            }
            Step::Refused(why) => self.refused = Some(why),
            Step::Broken => self.broken = true,
        }
    }

    fn says(&mut self, text: &[u8]) {
        let sealed = self.link.seal(&mut self.out, |out| out.extend_from_slice(text));
        assert_eq!(sealed, Ok(text.len()));
    }
}

proptest! {
    /// However the bytes are cut, the handshake ends and every record arrives.
    #[test]
    fn cuts_do_not_matter(
        cut in 1usize..400,
        lens in proptest::collection::vec(1usize..900, 1..8),
    ) {
        let mut message = Vec::new();
        let mut near = End::new(Link::near(dial(&mut message)));
        let mut far = End::new(Link::far());
        far.takes(&mut message, cut);
        prop_assert!(far.link.is_up() && !far.link.is_proved());
        near.takes(&mut core::mem::take(&mut far.out), cut);
        prop_assert!(near.link.is_up());
        let texts: Vec<Vec<u8>> = lens.iter().map(|len| vec![*len as u8; *len]).collect();
        texts.iter().for_each(|text| near.says(text));
        far.takes(&mut core::mem::take(&mut near.out), cut);
        prop_assert_eq!(&far.texts, &texts);
        prop_assert!(far.link.is_proved());
        texts.iter().for_each(|text| far.says(text));
        near.takes(&mut core::mem::take(&mut far.out), cut);
        prop_assert_eq!(&near.texts, &texts);
    }

    /// A carrier that joins says its first record behind its first message, without waiting.
    #[test]
    fn a_joining_carrier_speaks_at_once(cut in 1usize..400) {
        let secret = epoch_secret();
        let mut near = End::new(Link::joining(place(Direction::ToResponder, 5), &secret));
        let to = (&network(), CarrierKind::Tcp, NOW_MS);
        write_join(to, (SessionId(7), 5, 0), &secret, &mut entropy(1), &mut near.out);
        near.says(b"at once");
        let mut far = End::new(Link::far());
        far.takes(&mut core::mem::take(&mut near.out), cut);
        prop_assert_eq!(&far.texts, &[b"at once".to_vec()]);
        prop_assert_eq!(far.knocks, 1);
    }
}

/// What was said for a carrier of another kind was moved here: it is not answered.
#[test]
fn what_was_said_on_another_kind_of_carrier_is_refused() {
    let secret = epoch_secret();
    for kind in [CarrierKind::Http, CarrierKind::Udp, CarrierKind::Relay] {
        let (mut far, mut said) = (End::new(Link::far()), Vec::new());
        let to = (&network(), kind, NOW_MS);
        write_join(to, (SessionId(7), 5, 0), &secret, &mut entropy(1), &mut said);
        far.takes(&mut said, 400);
        assert_eq!((far.refused, far.knocks), (Some(Refused::Forged), 0), "{kind:?}");
    }
}

/// L2: behind a changed byte nothing is read, wherever it was changed; what was before it was.
#[test]
fn behind_a_changed_byte_there_is_silence() {
    let secret = epoch_secret();
    let mut wire = Vec::new();
    let mut near = End::new(Link::joining(place(Direction::ToResponder, 5), &secret));
    for text in [b"first", b"other"] {
        near.says(text);
    }
    wire.append(&mut near.out);
    for at in 0..wire.len() {
        let mut harmed = wire.clone();
        harmed[at] ^= 1;
        let mut far = End::new(Link::joining(place(Direction::ToInitiator, 5), &secret));
        far.takes(&mut harmed, 11);
        let whole = at / (5 + RECORD_OVERHEAD);
        assert_eq!(far.texts.len(), whole, "byte {at}");
        assert!(far.broken && !far.link.is_up());
    }
}

/// L1: a stranger's bytes are dropped after 72 of them, and nothing more is kept.
#[test]
fn a_stranger_is_dropped_after_72_bytes() {
    let mut far = End::new(Link::far());
    far.takes(&mut [7; 71], 71);
    assert_eq!((far.refused, far.link.kept.len()), (None, 71));
    far.takes(&mut [7; 5000], 100);
    assert_eq!((far.refused, far.link.kept.capacity()), (Some(Refused::Stranger), 0));
}

/// A change of keys takes hold behind the record that announces it, in the same bytes.
#[test]
fn keys_change_between_two_records() {
    let (old, new) = (epoch_secret(), {
        let (offer, public) = ringway_crypto::RekeyOffer::new(&mut entropy(1));
        let (next, _) =
            ringway_crypto::answer_rekey(&epoch_secret(), &public, &mut entropy(2)).expect("good");
        drop(offer);
        next
    });
    let mut near = End::new(Link::joining(place(Direction::ToResponder, 5), &old));
    near.says(b"change");
    near.link.change_over(1, &new);
    assert_eq!((near.link.epoch(), near.link.spent()), (1, Spent::default()));
    near.says(b"changed");
    let mut far = Link::joining(place(Direction::ToInitiator, 5), &old);
    let mut texts = Vec::new();
    let (taken, step) = far.received(&mut near.out.clone(), None, &mut entropy(3), |text, keys| {
        texts.push(text.to_vec());
        if text == b"change" {
            keys.change_over(&new);
        }
        true
    });
    assert!(matches!(step, Step::More) && taken == near.out.len());
    assert_eq!(texts, [b"change".to_vec(), b"changed".to_vec()]);
}
