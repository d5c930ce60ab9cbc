//! A wire that can be cut: connections through it break, and new ones can be made.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// It ends with the test's process.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    through: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of the server.
    pub(crate) fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's");
        let addr = listener.local_addr().expect("bound");
        let through = Arc::new(Mutex::new(Vec::new()));
        let made = Arc::clone(&through);
        let server = Arc::new(Mutex::new(server));
        let target = Arc::clone(&server);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = *target.lock().expect("not poisoned");
                let Ok(server) = TcpStream::connect(target) else { continue };
                let clones = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                made.lock().expect("not poisoned").push(clones(&client));
                let (client2, server2) = (clones(&client), clones(&server));
                std::thread::spawn(move || pass_on(client, server));
                std::thread::spawn(move || pass_on(server2, client2));
            }
        });
        Proxy { addr, server, through }
    }

    /// In front of this one from now on.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().expect("not poisoned") = server;
    }

    /// How many connections were made so far.
    pub(crate) fn made(&self) -> usize {
        self.through.lock().expect("not poisoned").len()
    }

    /// Breaks all connections that there are.
    pub(crate) fn cut(&self) {
        for stream in self.through.lock().expect("not poisoned").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut some = [0; 4096];
    while let Ok(many @ 1..) = from.read(&mut some) {
        if to.write_all(&some[..many]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
