//! Who does not belong here: they know the network's key, have heard all that was said, and can
//! change what is on its way.

use ringway_core::ConnId;
use ringway_core::rng::Rng;
use ringway_crypto::{
    CarrierKind, Credentials, Dial, Entropy, EpochSecret, FIRST_BYTES, Initiator, NetworkKey, Psk,
    Secret, SuiteSet, write_join,
};
use ringway_tunnel_proto::HALF_OPEN_MAX;

use crate::net::{Net, Secrets, key};

/// Somebody whom neither site knows.
const NOBODY: u8 = 9;

pub(super) struct Hostile {
    rng: Rng,
    entropy: Entropy,
    /// The secret of a session of theirs.
    own: Option<EpochSecret>,
    crowded: bool,
    /// Bytes on their way were changed.
    pub(super) has_forged: bool,
    /// They have a site's key and not the second secret: where they came to, and what they wait
    /// for the answer with.
    thieves: Vec<(usize, ConnId, Option<Initiator>)>,
}

fn hello() -> Vec<u8> {
    ringway_tunnel_proto::probe_hello(ringway_tunnel_proto::Instance([9; 16]))
}

fn keys_of(who: u8, psk: Option<Psk>) -> Credentials {
    Credentials::Keys { mine: key(who), theirs: key(2).public(), psk }
}

fn network() -> NetworkKey {
    NetworkKey::new(Secret::new([100; 32]))
}

impl Hostile {
    pub(super) fn new(seed: u64) -> Hostile {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let entropy = Entropy::from_seed(Secret::new(key));
        Hostile {
            rng: Rng::new(seed),
            entropy,
            own: None,
            crowded: false,
            has_forged: false,
            thieves: Vec::new(),
        }
    }

    /// Does something.
    pub(super) fn act(&mut self, net: &mut Net) {
        let shard = self.rng.below(net.sites[1].len() as u64) as usize;
        match self.rng.below(12) {
            0 | 1 => {
                let many = self.rng.below(3000);
                let mut noise: Vec<u8> = (0..many).map(|_| self.rng.next_u64() as u8).collect();
                net.knock(shard, &mut noise);
            }
            2..=4 => self.repeat(net, shard),
            5 => {
                let mut said = self.first_message(net, NOBODY);
                net.knock(shard, &mut said);
            }
            6 | 7 => self.join(net, shard),
            8 => self.forge(net),
            9 if net.secrets == Secrets::KeysAndSecond => self.steal_in(net, shard),
            9 | 10 => {
                // A program of another time, and of the other site.
                let mut hello = hello();
                hello[0] += 1 + self.rng.below(100) as u8;
                let mut said = Vec::new();
                self.start(net, (&net.secrets.credentials(0), &hello), &mut said);
                net.knock(shard, &mut said);
            }
            _ if !self.crowded && self.rng.chance(150) => {
                self.crowded = true;
                for _ in 0..HALF_OPEN_MAX + 600 {
                    net.knock(0, &mut []);
                }
            }
            _ => {}
        }
    }

    /// Says again what somebody has said, as it was or with a bit changed.
    fn repeat(&mut self, net: &mut Net, shard: usize) {
        let wires = net.wires() as u64;
        if wires == 0 {
            return;
        }
        let pipe = &net.wires[self.rng.below(wires) as usize].pipes[0];
        // What has not arrived yet, or not as it was said, would be heard for the first time: who
        // stands between the two may be later with it, and is told what it cannot read. Once a head
        // has come as it was said its salt is taken, whatever became of what was behind it.
        if pipe.arrived <= FIRST_BYTES || pipe.head_forged {
            return;
        }
        let mut said = pipe.first.clone();
        if self.rng.chance(300) {
            let at = self.rng.below(said.len() as u64) as usize;
            said[at] ^= 1 << self.rng.below(8);
        }
        net.knock(shard, &mut said);
    }

    fn first_message(&mut self, net: &Net, who: u8) -> Vec<u8> {
        let mut out = Vec::new();
        self.start(net, (&keys_of(who, None), &hello()), &mut out);
        out
    }

    /// Somebody has the near site's key, and no second secret or another one.
    fn steal_in(&mut self, net: &mut Net, shard: usize) {
        let second = self.rng.chance(500).then(|| Psk::new(Secret::new([52; 32])));
        let mut said = Vec::new();
        let waits = self.start(net, (&keys_of(1, second), &hello()), &mut said);
        let conn = net.knock(shard, &mut said);
        self.thieves.push((shard, conn, Some(waits)));
    }

    fn start(
        &mut self,
        net: &Net,
        (credentials, hello): (&Credentials, &[u8]),
        out: &mut Vec<u8>,
    ) -> Initiator {
        let dial = Dial {
            network: &network(),
            credentials,
            kind: CarrierKind::Tcp,
            suites: SuiteSet::ALL,
            now_ms: net.wall_ms(),
        };
        Initiator::start(&dial, hello, &mut self.entropy, out)
    }

    /// A session's secret that is none of the two sites'.
    fn secret(&mut self, net: &Net) -> EpochSecret {
        if let Some(own) = &self.own {
            return own.clone();
        }
        let mut said = self.first_message(net, NOBODY);
        let (first, body) = said.split_first_chunk_mut::<FIRST_BYTES>().expect("a message");
        let listener = Secrets::Keys.listener(1);
        let knock = listener.knock(first, net.wall_ms()).expect("it is good");
        let visitor = knock.read(&listener, body, &mut self.entropy).expect("it is good");
        let accepted = visitor.accept(None, &[], &mut self.entropy, &mut Vec::new());
        self.own.insert(accepted.expect("good points").secret).clone()
    }

    /// Brings a carrier for a session of others.
    fn join(&mut self, net: &mut Net, shard: usize) {
        let secret = self.secret(net);
        let reports = net.sites[0].iter().flat_map(|shard| shard.agent.report(false, &shard.desk));
        let Some(session) = reports.filter_map(|report| report.session).next() else { return };
        // If the far side has not heard of the session yet, it has none of that number.
        if !net.sites[1].iter().any(|shard| {
            shard.agent.report(false, &shard.desk).iter().any(|one| one.session == Some(session))
        }) {
            return;
        }
        let (mut out, number) = (Vec::new(), self.rng.below(40) as u32);
        let network = network();
        let dial = (&network, CarrierKind::Tcp, net.wall_ms());
        write_join(dial, (session, number, 0), &secret, &mut self.entropy, &mut out);
        net.knock(shard, &mut out);
    }

    /// Changes a byte on its way.
    fn forge(&mut self, net: &mut Net) {
        let wires = net.wires() as u64;
        if wires == 0 {
            return;
        }
        let way = self.rng.below(2) as usize;
        let pipe = &mut net.wires[self.rng.below(wires) as usize].pipes[way];
        let len = pipe.bytes.len() as u64;
        if len > 0 {
            let at = self.rng.below(len) as usize;
            pipe.bytes[at] ^= 1 << self.rng.below(8);
            pipe.head_forged |= pipe.arrived + at < FIRST_BYTES;
            self.has_forged = true;
        }
    }

    /// They were told nothing; who has a key alone nothing that they can read.
    pub(super) fn judge_said(&mut self, net: &Net) -> Result<(), String> {
        for (shard, conn, waits) in &mut self.thieves {
            let said = net.sites[1][*shard].desk.strangers.get(conn);
            let whole = said.and_then(|said| said.split_first_chunk::<FIRST_BYTES>());
            let Some((first, body)) = whole else { continue };
            let Some(mut initiator) = waits.take() else { continue };
            let taken = initiator.answered(first).map(|_| ());
            if taken.and_then(|()| initiator.finish(&mut body.to_vec())).is_ok() {
                return Err("a stolen key was enough".into());
            }
        }
        let thieves = &self.thieves;
        for (at, shard) in net.sites[1].iter().enumerate() {
            let is_thief = |conn| thieves.iter().any(|one| (one.0, one.1) == (at, conn));
            let mut strangers = shard.desk.strangers.iter();
            if let Some((_, said)) =
                strangers.find(|(conn, said)| !said.is_empty() && !is_thief(**conn))
            {
                return Err(format!("a stranger was told {} bytes", said.len()));
            }
        }
        Ok(())
    }

    /// And none of them is still there.
    pub(super) fn judge(&mut self, net: &Net) -> Result<(), String> {
        self.judge_said(net)?;
        for (at, shard) in net.sites[1].iter().enumerate() {
            if shard.desk.strangers.keys().any(|conn| net.is_open(at, *conn)) {
                return Err("a stranger is still there".into());
            }
        }
        Ok(())
    }
}
