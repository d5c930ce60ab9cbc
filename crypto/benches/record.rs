//! Question: what do records cost over the bare cipher? The bar is 85 % of the library's own rate
//! at 16 KiB with AES-128-GCM, in the same run, and 10 GB/s where the processor has AVX-512.
//! Measured: sealing and opening in place, the header's block included, by each library.
//! Not measured: sockets, copies, texts that are not in the cache.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_crypto::{
    Backend, CarrierKind, Credentials, Dial, Direction, Entropy, EpochSecret, FIRST_BYTES,
    Initiator, NetworkKey, PrivateKey, RECORD_HEADER_BYTES, RECORD_OVERHEAD, RecordOpener,
    RecordSealer, Secret, Suite, SuiteSet,
};

/// Records that are sealed before they are opened, outside the clock.
const BATCH: usize = 64;

/// The secret of a session, by a handshake with nobody's answer: one side is enough for a bench.
fn secret() -> EpochSecret {
    let key = |byte| PrivateKey::new(Secret::new([byte; 32]));
    let network = NetworkKey::new(Secret::new([3; 32]));
    let mut entropy = Entropy::from_seed(Secret::new([4; 32]));
    let credentials = Credentials::Keys { mine: key(1), theirs: key(2).public(), psk: None };
    let dial = Dial {
        network: &network,
        credentials: &credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: 0,
    };
    let mut message = Vec::new();
    Initiator::start(&dial, &[], &mut entropy, &mut message);
    let listener = ringway_crypto::Listener {
        networks: vec![network],
        identities: vec![key(2)],
        shared: Vec::new(),
        suites: Suite::ALL.to_vec(),
    };
    let (first, body) = message.split_first_chunk_mut::<FIRST_BYTES>().expect("a message");
    let knock = listener.knock(first, 0).expect("it is good");
    let visitor = knock.read(&listener, body, &mut entropy).expect("it is good");
    visitor.accept(None, &[], &mut entropy, &mut Vec::new()).expect("good points").secret
}

fn bare(len: usize, suite: Suite, backend: Backend) -> impl FnMut() {
    let key = backend.key(suite, &[7; 32]);
    let mut text = vec![0; len];
    let mut number = 0u64;
    move || {
        number += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        key.seal(nonce, &[], &mut text);
    }
}

fn opening(
    sealer: &mut RecordSealer,
    opener: &mut RecordOpener,
    len: usize,
    rounds: u64,
) -> Duration {
    let mut records = vec![vec![0; len + RECORD_OVERHEAD]; BATCH];
    let mut took = Duration::ZERO;
    let mut left = rounds as usize;
    while left > 0 {
        let batch = &mut records[..left.min(BATCH)];
        left -= batch.len();
        for record in &mut *batch {
            sealer.seal(record).expect("the key is fresh");
        }
        let start = Instant::now();
        for record in batch {
            let (header, body) =
                record.split_first_chunk_mut::<RECORD_HEADER_BYTES>().expect("a record");
            assert_eq!(opener.body_len(header), Ok(body.len()));
            opener.open(body).expect("the next record");
        }
        took += start.elapsed();
    }
    took
}

fn bench(criterion: &mut Criterion) {
    let secret = secret();
    for suite in Suite::ALL {
        for len in [64, 1400, 16 * 1024, 64 * 1024 - RECORD_OVERHEAD] {
            let mut group = criterion.benchmark_group(format!("{suite}/{len}"));
            group.throughput(Throughput::Bytes(len as u64));
            for backend in [Backend::AwsLc, Backend::Ring] {
                let keys = secret.traffic(suite, Direction::ToResponder, 0);
                group.bench_function(format!("bare {backend}"), |b| {
                    b.iter(bare(len, suite, backend));
                });
                let mut sealer = RecordSealer::new(&keys, backend);
                let mut record = vec![0; len + RECORD_OVERHEAD];
                group.bench_function(format!("seal {backend}"), |b| {
                    b.iter(|| sealer.seal(&mut record).expect("the key is fresh"));
                });
                let mut sealer = RecordSealer::new(&keys, backend);
                let mut opener = RecordOpener::new(&keys, backend);
                group.bench_function(format!("open {backend}"), |b| {
                    b.iter_custom(|rounds| opening(&mut sealer, &mut opener, len, rounds));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
