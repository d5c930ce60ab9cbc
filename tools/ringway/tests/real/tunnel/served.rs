//! A tunnel on the shards of a server: each works as if it were alone.

use std::net::SocketAddr;
use std::path::Path;

use ringway_tunnel_node::status::Status;
use rustix::process::Signal;

use super::flows::{
    End, Load, Transfer, connect, echo, end_of, is_reset, listen, mirror, says_again,
};
use super::service::Notified;
use super::sites::{Keys, Words};
use super::tools::run;
use crate::support::{Server, Setup, granted, held, ringway, until};

/// A server with two shards, and one side of a tunnel on them.
fn setup(side: &Path) -> Setup {
    Setup::new().shards(2).flag("--tunnel", side.display())
}

/// An address that its ready line names.
#[track_caller]
fn address(server: &Server, key: &str) -> SocketAddr {
    let word = server.word(key).unwrap_or_else(|| panic!("no {key}"));
    word.parse().expect("an address")
}

#[track_caller]
fn status(side: &Path) -> Status {
    let side = side.to_str().expect("text");
    let told = ringway(&["--json", "tunnel", "status", "--config", side]).with(0);
    serde_json::from_value(told.json()).expect("a status")
}

/// Has it read its files again; returns when it has.
#[track_caller]
fn reload(server: &Server) {
    let before = server.log().len();
    server.signal(Signal::HUP);
    let words = "the tunnel's configuration was read again";
    until(words, || server.log()[before..].contains(words).then_some(()));
}

/// redis-cli at another site talks to the server by way of the tunnel that runs on the server's own
/// shards, once SIGHUP has told that it may.
#[test]
fn a_server_is_reached_through_the_tunnel_that_it_runs() {
    let keys = Keys::new();
    let far = keys.write("far", &Words::default(), None);
    let server = setup(&far).start();
    let near = Words::default().forward(server.addr);
    let near = keys.near(&near, address(&server, "tunnel_carriers"));
    until("the sites are connected", || near.status().peers[0].up.then_some(()));
    is_reset(&mut connect(near.door(0)));

    keys.write("far", &Words::default().allow([server.addr]), None);
    reload(&server);
    let at = |addr: SocketAddr| {
        ["-h".to_owned(), "127.0.0.1".into(), "-p".into(), addr.port().to_string()]
    };
    let redis = |addr: SocketAddr, words: &[&str]| {
        let at = at(addr);
        let at: Vec<&str> = at.iter().map(String::as_str).collect();
        run(&[&["redis-cli"], &at[..], words].concat()).trim().to_owned()
    };
    for lock in 0..8 {
        let lock = format!("lock {lock}");
        let claim = ["SET", &lock, "me", "NX", "PX", "30000"];
        assert_eq!(redis(near.door(0), &claim), "OK");
        assert_eq!(redis(near.door(0), &claim), "");
        assert_eq!(redis(server.addr, &["GET", &lock]), "me");
        assert_eq!(redis(near.door(0), &["GET", &lock]), "me");
    }
    let told = status(&far);
    assert!(told.peers[0].up && told.pid == server.pid(), "{told:?}");
    assert_eq!(told.listen, [address(&server, "tunnel_carriers")]);
    near.stop();
    server.stop();
}

/// Both sites run server and tunnel on two shards each. Users come to every shard at either side
/// and are given to the one that has the session; much goes both ways; and the servers answer
/// meanwhile. A stop ends both.
#[test]
fn two_servers_are_two_sites() {
    let keys = Keys::new();
    let (here, there) = (echo(), mirror("127.0.0.1:0"));
    let far_side = keys.write("far", &Words::default().allow([there]).forward(here), None);
    let far = setup(&far_side).start();
    let carriers = address(&far, "tunnel_carriers");
    let near_side =
        keys.write("near", &Words::default().allow([here]).forward(there), Some(carriers));
    let near = setup(&near_side).start();
    let load = |seed| Load { seed, up: 8 << 20, down: 6 << 20 };
    let transfers: Vec<_> =
        (0..6).map(|seed| Transfer::begin(address(&near, "tunnel_listen"), load(seed))).collect();
    let mut users: Vec<_> = (0..12).map(|_| connect(address(&far, "tunnel_listen"))).collect();
    let mut clients = [near.client(), near.client(), far.client()];
    let mut round = 0;
    while round < 50 || !transfers.iter().all(Transfer::is_over) {
        let [one, other, elsewhere] = &mut clients;
        if round < 1000 {
            let name = format!("name {round}");
            granted(one, &name);
            held(other, &name);
            granted(elsewhere, &name);
        }
        let word = format!("round {round}");
        users.iter_mut().for_each(|user| says_again(user, word.as_bytes()));
        round += 1;
    }
    println!("{round} rounds beside the transfers");
    transfers.into_iter().for_each(Transfer::arrives);
    for side in [&near_side, &far_side] {
        let told = status(side);
        let flows: u64 = told.peers[0].sessions.iter().map(|session| session.flow_count).sum();
        assert!(told.peers[0].up && flows == 12, "{told:?}");
    }
    reload(&near);
    users.iter_mut().for_each(|user| says_again(user, &[7; 100_000]));

    // Nothing is left to say but that it ends, and that cannot be an end that says all is well.
    near.stop();
    for mut user in users {
        assert_eq!(end_of(&mut user), (Vec::new(), End::Reset));
    }
    assert!(!far.log().contains("panicked"), "{}", far.log());
    far.stop();
}

/// A tunnel that cannot run keeps the server from starting, and says why.
#[test]
fn a_tunnel_that_cannot_run_is_said_at_the_start() {
    let keys = Keys::new();
    let missing = keys.path("missing.toml");
    setup(&missing).refused().with(3).complains(&["missing.toml"]);
    let side = keys.write("far", &Words::default().set("colour = 3"), None);
    setup(&side).refused().with(2).complains(&["far.toml:", "colour"]);
    let (_taken, addr) = listen("127.0.0.1:0");
    let listens = Words::default().set(&format!("listen = \"{addr}\""));
    let side = keys.write("far", &listens, None);
    setup(&side).refused().with(3).complains(&[&addr.to_string(), "taken"]);
}

/// systemd hears when it serves, reads its files again, and stops; `--json` names both.
#[test]
fn systemd_and_programs_are_told_of_both() {
    let keys = Keys::new();
    let heard = Notified::at(keys.path("notify"));
    let side = keys.write("far", &Words::default(), None);
    let mut command = setup(&side).command();
    command.arg("--json").env("NOTIFY_SOCKET", &heard.place);
    let server = crate::support::hold(command);
    let ready: serde_json::Value = serde_json::from_str(&server.line()).expect("JSON");
    assert!(ready["listen"].is_string() && ready["tunnel"]["carriers"][0].is_string(), "{ready}");
    assert_eq!((&ready["shards"], &ready["tunnel"]["shards"]), (&2.into(), &2.into()));
    heard.hears("READY=1");
    server.signal(Signal::HUP);
    heard.hears_of_a_reload();
    heard.hears("READY=1");
    server.signal(Signal::TERM);
    heard.hears("STOPPING=1");
    let mut server = server;
    assert_eq!(server.wait(), Some(0), "{}", server.err());
}
