//! Question: what does a byte of a bulk flow cost both agents, sockets not counted? The bar for all
//! of near and far, sockets included, is 0.9 CPU seconds a GB: 0.9 ns a byte.
//! Measured: write, cut, seal, open, reassemble, deliver, acknowledge; one flow, one carrier, the
//! bytes handed over in pieces as a receive buffer brings them.
//! Not measured: system calls, the kernel's copies, several carriers.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_core::{Moment, Span};
use ringway_crypto::{
    Backend, CarrierKind, Credentials, Dial, Direction, Entropy, EpochSecret, FIRST_BYTES,
    Initiator, Listener, NetworkKey, PrivateKey, RECORD_OVERHEAD, Secret, Suite, SuiteSet,
};
use ringway_tunnel_proto::{
    CarrierSlot, Event, Exchange, FlowId, Link, Outlet, Place, Role, Session, Settings,
};

const WINDOW: u64 = 1 << 20;

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

fn epoch() -> EpochSecret {
    let key = |byte| PrivateKey::new(secret(byte));
    let listener = Listener {
        networks: vec![NetworkKey::new(secret(3))],
        identities: vec![key(2)],
        shared: Vec::new(),
        suites: Suite::ALL.to_vec(),
    };
    let credentials = Credentials::Keys { mine: key(1), theirs: key(2).public(), psk: None };
    let dial = Dial {
        network: &listener.networks[0],
        credentials: &credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: 0,
    };
    let (mut message, mut entropy) = (Vec::new(), Entropy::from_seed(secret(4)));
    Initiator::start(&dial, &[], &mut entropy, &mut message);
    let (first, body) = message.split_first_chunk_mut::<FIRST_BYTES>().expect("a message");
    let knock = listener.knock(first, 0).expect("it is good");
    let visitor = knock.read(&listener, body, &mut entropy).expect("it is good");
    visitor.accept(None, &[], &mut entropy, &mut Vec::new()).expect("good points").secret
}

/// An application that copies what it gets to where a socket would take it from.
#[derive(Default)]
struct App {
    taken: Vec<u8>,
    delivered: u64,
}

impl Outlet for App {
    fn data(&mut self, _: FlowId, bytes: &[u8]) {
        self.taken.clear();
        self.taken.extend_from_slice(bytes);
        self.delivered += bytes.len() as u64;
    }

    fn event(&mut self, _: Event) {}

    fn rekey(&mut self, _: Exchange) {}

    fn keys(&mut self, _: u32) {}
}

struct End {
    session: Session,
    link: Link,
    app: App,
    wire: Vec<u8>,
}

impl End {
    fn new(role: Role, out: Direction, epoch: &EpochSecret) -> End {
        let settings = Settings { role, window_first: WINDOW, memory: WINDOW, flows_max: 8 };
        let place =
            Place { carrier: 0, epoch: 0, out, suite: Suite::Aes128Gcm, backend: Backend::AwsLc };
        let mut session = Session::new(settings);
        session.carrier_up(Moment(1));
        let link = Link::joining(place, epoch);
        End { session, link, app: App::default(), wire: Vec::new() }
    }

    /// Seals what there is to say, in records of `room` bytes.
    fn send(&mut self, now: Moment, room: usize) {
        let (session, app) = (&mut self.session, &mut self.app);
        while session.wants(now, CarrierSlot(0)) {
            let filled = self.link.seal(&mut self.wire, |out| {
                session.fill(now, CarrierSlot(0), room, out, app);
            });
            if filled.expect("the key is fresh") == 0 {
                break;
            }
        }
    }

    /// Takes what the other end sealed, in pieces of `piece` bytes.
    fn receive(&mut self, now: Moment, wire: &mut [u8], piece: usize) {
        let mut entropy = Entropy::from_seed(secret(9));
        let (session, app) = (&mut self.session, &mut self.app);
        for piece in wire.chunks_mut(piece) {
            self.link.received(piece, None, &mut entropy, |text, _| {
                session.received(now, CarrierSlot(0), text, app).is_ok()
            });
        }
    }
}

fn bulk(criterion: &mut Criterion) {
    let epoch = epoch();
    let mut group = criterion.benchmark_group("bulk, both agents");
    for (record, piece) in
        [(16 << 10, 16 << 10), (16 << 10, 64 << 10), (64 << 10, 64 << 10), (64 << 10, 256 << 10)]
    {
        let mut near = End::new(Role::Initiator, Direction::ToResponder, &epoch);
        let mut far = End::new(Role::Responder, Direction::ToInitiator, &epoch);
        let flow = near.session.open(Moment(1)).expect("the first");
        let mut now = Moment(1);
        // What one receive of the application's socket brings.
        let written = vec![7; 64 << 10];
        group.throughput(Throughput::Bytes(written.len() as u64));
        group.bench_function(format!("records {record}, pieces {piece}"), |bencher| {
            bencher.iter(|| {
                now = now + Span::from_us(50);
                assert_eq!(near.session.write(flow, &written), written.len());
                near.send(now, record - RECORD_OVERHEAD);
                far.receive(now, &mut near.wire, piece);
                near.wire.clear();
                far.session.drained(now, flow, 0);
                far.send(now, record - RECORD_OVERHEAD);
                near.receive(now, &mut far.wire, piece);
                far.wire.clear();
            });
        });
        black_box(far.app.delivered);
    }
    group.finish();
}

criterion_group!(benches, bulk);
criterion_main!(benches);
