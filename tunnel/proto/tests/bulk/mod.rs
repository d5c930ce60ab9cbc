//! One flow from one session to another, over a carrier that takes whatever it is given and brings
//! it half a round trip later, to an application that reads at once: only windows hold it back.

use std::collections::VecDeque;

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::sabotage::Rule;
use ringway_tunnel_proto::{CarrierSlot, Event, Exchange, FlowId, Outlet, Role, Session, Settings};

const STEP: Span = Span::from_ms(1);
/// So many windows of the first size are written.
const WINDOWS: u64 = 64;
/// The window doubles in two round trips at most, six times; the rest is for what begins and ends.
const ROUNDS_MAX: u64 = 20;

/// Bytes that a flow's application was given.
#[derive(Default)]
struct Ear(u64);

impl Outlet for Ear {
    fn data(&mut self, _: FlowId, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }

    fn rekey(&mut self, _: Exchange) {}

    fn keys(&mut self, _: u32) {}

    fn event(&mut self, _: Event) {}
}

/// One end, what it has heard, and records that are on their way to it.
struct End {
    session: Session,
    slot: CarrierSlot,
    ear: Ear,
    coming: VecDeque<(Moment, Vec<u8>)>,
}

impl End {
    fn new(now: Moment, role: Role, window_first: u64, broken: Option<Rule>) -> End {
        let settings = Settings { role, window_first, memory: 64 << 20, flows_max: 9 };
        #[allow(unused_mut, reason = "a product has nothing to switch off")]
        let mut session = Session::new(settings);
        #[cfg(feature = "sabotage")]
        broken.into_iter().for_each(|rule| session.break_rule(rule));
        #[cfg(not(feature = "sabotage"))]
        assert!(broken.is_none(), "a product has nothing to switch off");
        let slot = session.carrier_up(now);
        End { session, slot, ear: Ear::default(), coming: VecDeque::new() }
    }

    /// Everything that it has to say leaves.
    fn says(&mut self, now: Moment) -> Vec<Vec<u8>> {
        if self.session.wake_at().is_some_and(|at| at <= now) {
            self.session.tick(now, &mut self.ear);
        }
        let mut records = Vec::new();
        while self.session.wants(now, self.slot) {
            let mut record = Vec::new();
            self.session.fill(now, self.slot, 16 << 10, &mut record, &mut self.ear);
            if record.is_empty() {
                break;
            }
            records.push(record);
        }
        records
    }

    fn hears(&mut self, now: Moment, flow: FlowId) {
        while let Some((_, record)) = self.coming.pop_front_if(|(at, _)| *at <= now) {
            let heard = self.session.received(now, self.slot, &record, &mut self.ear);
            heard.expect("an honest agent");
            self.session.drained(now, flow, 0);
        }
    }
}

/// Runs it to its end.
///
/// # Errors
/// It takes too long.
pub(crate) fn run(seed: u64, broken: Option<Rule>) -> Result<(), String> {
    let mut rng = Rng::new(seed ^ 0xB0_1C);
    let (window, rtt) = (1024 << rng.below(8), Span::from_ms(10 + 2 * rng.below(96)));
    let begun = Moment(1_000_000_000);
    let [mut near, mut far] =
        [Role::Initiator, Role::Responder].map(|role| End::new(begun, role, window, broken));
    let flow = near.session.open(begun).expect("the first");
    let (all, mut written, mut now) = (WINDOWS * window, 0, begun);
    while far.ear.0 < all {
        if now.since(begun) > Span(ROUNDS_MAX * rtt.0) {
            let came = far.ear.0;
            return Err(format!("{came} of {all} in {ROUNDS_MAX} round trips of {rtt:?}"));
        }
        let more = near.session.room(flow).min((all - written) as usize);
        written += near.session.write(flow, &vec![7; more]) as u64;
        let arrival = now + Span(rtt.0 / 2);
        far.coming.extend(near.says(now).into_iter().map(|record| (arrival, record)));
        near.coming.extend(far.says(now).into_iter().map(|record| (arrival, record)));
        now = now + STEP;
        far.hears(now, flow);
        near.hears(now, flow);
    }
    Ok(())
}
