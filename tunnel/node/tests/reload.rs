//! A story of another reading of the file, with real sockets: a port that could not be opened is
//! opened by the next reading, though nothing in the file is different then.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use ringway_tunnel_node::config::Config;
use ringway_tunnel_node::{KeyKind, Tunnel, make};

/// A site whose peer is nowhere, with a forward at `port` if there is one.
fn site(dir: &Path, port: Option<SocketAddr>) -> Config {
    let socket = dir.join("site.sock");
    let forward = port.map_or_else(String::new, |listen| {
        format!("[[forward]]\nlisten = \"{listen}\"\npeer = \"far\"\nto = \"127.0.0.1:1\"\n")
    });
    let text = format!(
        "[tunnel]\nnetwork_key = \"network.key\"\nlisten = \"127.0.0.1:0\"\nsocket = {socket:?}\n\
         [[peer]]\nname = \"far\"\nshared_key = \"pair.psk\"\n{forward}"
    );
    let path = dir.join("site.toml");
    std::fs::write(&path, text).expect("writes");
    Config::load(&path).expect("valid")
}

#[test]
fn a_port_that_was_taken_is_opened_by_the_next_reading() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (name, kind) in [("network.key", KeyKind::Network), ("pair.psk", KeyKind::Shared)] {
        make(kind, &dir.path().join(name)).expect("a new file");
    }
    let tunnel = Tunnel::start(site(dir.path(), None)).expect("starts");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("bound");

    for _ in 0..2 {
        let done = tunnel.reload(site(dir.path(), Some(port)));
        let failed: Vec<SocketAddr> = done.failed.iter().map(|(addr, _)| *addr).collect();
        assert_eq!((failed, done.nothing), (vec![port], false), "it is taken, each time");
    }
    drop(other);
    let done = tunnel.reload(site(dir.path(), Some(port)));
    assert_eq!((done.failed.len(), done.nothing), (0, false), "{:?}", done.failed);
    TcpStream::connect(port).expect("it is open");
    assert!(tunnel.reload(site(dir.path(), Some(port))).nothing, "it is not opened twice");

    tunnel.stop();
    tunnel.join().expect("ends");
}
