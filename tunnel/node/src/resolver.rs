//! Names to addresses, by the host's own resolver, which may block for seconds: so on threads of
//! their own.
//!
//! Bounds: [`THREADS`] names at once; those that wait are as many as flows that wait for them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ringway_tunnel_proto::ResetCode;

use crate::shared::Ask;

/// Names that are resolved at once.
const THREADS: usize = 4;
/// Addresses of one name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// What became of one name, or of all of a peer's.
pub(crate) type Found = (Ask, Result<Vec<SocketAddr>, ResetCode>);

/// For whom, and the names with their ports.
type Task = (Ask, Vec<(String, u16)>);

/// See the module.
pub(crate) struct Resolver {
    asks: Option<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    /// Starts the threads; each answer goes to `found`.
    pub(crate) fn start(
        found: impl Fn(Found) + Send + Sync + 'static,
    ) -> std::io::Result<Resolver> {
        let (asks, queue) = channel();
        let (queue, found) = (Arc::new(Mutex::new(queue)), Arc::new(found));
        let spawn = |number| {
            let (queue, found) = (Arc::clone(&queue), Arc::clone(&found));
            let name = format!("ringway-names-{number}");
            std::thread::Builder::new().name(name).spawn(move || serve(&queue, &*found))
        };
        let threads = (0..THREADS).map(spawn).collect::<Result<_, _>>()?;
        Ok(Resolver { asks: Some(asks), threads })
    }

    /// Resolves these names for who asks; those that have no address are left out.
    pub(crate) fn ask(&self, ask: Ask, names: Vec<(String, u16)>) {
        if let Some(asks) = &self.asks {
            // The threads live as long as this does.
            let _ = asks.send((ask, names));
        }
    }
}

impl Drop for Resolver {
    /// Threads end when they have nothing to do. One that waits for a server of names is not
    /// waited for.
    fn drop(&mut self) {
        self.asks = None;
        self.threads.clear();
    }
}

fn serve(queue: &Mutex<Receiver<Task>>, found: &impl Fn(Found)) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((ask, names)) = next else { return };
        let mut addresses = Vec::new();
        let mut code = ResetCode::NoSuchName;
        for (name, port) in names {
            match (name.as_str(), port).to_socket_addrs() {
                Ok(more) => addresses.extend(more),
                // The resolver's own words are not told apart by std: a server of names that does
                // not answer looks like a name that is not there, but for the kind.
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    code = ResetCode::TimedOut;
                }
                Err(_) => {}
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        found((ask, if addresses.is_empty() { Err(code) } else { Ok(addresses) }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ringway_core::ShardId;
    use ringway_tunnel_proto::PeerId;

    use super::*;
    use crate::shared::Whose;

    #[test]
    fn names_become_addresses_or_a_reason() {
        let (told, answers) = mpsc::channel();
        let resolver = Resolver::start(move |found| told.send(found).expect("the test listens"));
        let resolver = resolver.expect("threads");
        let ask =
            Ask { shard: ShardId(0), whose: Whose::Peer(PeerId(3)), name: String::new(), port: 0 };
        resolver.ask(ask.clone(), vec![("localhost".to_owned(), 80)]);
        let (whose, found) = answers.recv().expect("an answer");
        assert_eq!(whose.whose, Whose::Peer(PeerId(3)));
        let found = found.expect("every host has it");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
        resolver.ask(ask, vec![("no.such.name.invalid".to_owned(), 80)]);
        assert_eq!(answers.recv().expect("an answer").1, Err(ResetCode::NoSuchName));
    }
}
