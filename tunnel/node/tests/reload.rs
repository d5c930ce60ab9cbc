//! A story of another reading of the file, with real sockets: a port that could not be opened is
//! opened by the next reading, though nothing in the file is different then; until then the status
//! and `check` say so.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use ringway_tunnel_node::check::{Patience, Stage, Verdict, check};
use ringway_tunnel_node::config::Config;
use ringway_tunnel_node::{KeyKind, Tunnel, ask, make};

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
        let status = ask(&dir.path().join("site.sock"), 0).expect("it runs");
        let [unopened] = &status.unopened[..] else { panic!("{:?}", status.unopened) };
        assert_eq!((unopened.listen, unopened.kind.as_str()), (Some(port), "forward"));
        assert_eq!(unopened.peer, "far");
        assert!(unopened.why.contains("in use"), "{unopened:?}");
        let found = check(&dir.path().join("site.toml"), None, Patience::default());
        let found = found.expect("the file is good");
        let at = found.iter().find(|one| one.place == Some(port.to_string())).expect("it is told");
        assert_eq!(
            (at.verdict, at.stage, at.peer.as_deref()),
            (Verdict::Bad, Stage::Listen, Some("far"))
        );
        assert!(at.found.contains("forward") && at.found.contains("in use"), "{at:?}");
    }
    drop(other);
    let done = tunnel.reload(site(dir.path(), Some(port)));
    assert_eq!((done.failed.len(), done.nothing), (0, false), "{:?}", done.failed);
    TcpStream::connect(port).expect("it is open");
    assert_eq!(ask(&dir.path().join("site.sock"), 0).expect("it runs").unopened, []);
    assert!(tunnel.reload(site(dir.path(), Some(port))).nothing, "it is not opened twice");

    tunnel.stop();
    tunnel.join().expect("ends");
}
