//! Names. Of those that users have the far side resolve a bounded number waits, and who comes
//! beyond it is told; those of the far side itself are resolved again when it is not there any
//! more.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;

use super::CROWD;
use super::flows::{connect, echo, is_reset, says_again};
use super::place::in_a_network_of_its_own;
use super::sites::{Keys, Side, Words};
use super::truth::{asks_socks, by_socks};
use super::wire::reset;
use crate::support::{command, until};

/// Names of one peer's flows that wait, and those that the far side is at meanwhile.
const ASKED_MAX: usize = 1024 + 4;
const NAME: &str = "service.example:80";

/// The far side, which asks this server of names and no other.
fn far_with_names_from(keys: &Keys, server: SocketAddr) -> Side {
    let config = keys.write("far", &Words::default().allow([NAME]), None);
    let resolv = keys.path("resolv.conf");
    let said = format!("nameserver {}\noptions timeout:30 attempts:1\n", server.ip());
    std::fs::write(&resolv, said).expect("our directory");
    start_with(&resolv, "/etc/resolv.conf", &config)
}

/// A side that finds a file of ours in the place of one of the host's.
fn start_with(ours: &Path, place: &str, config: &Path) -> Side {
    let config = config.to_str().expect("text");
    let words = ["--json", "tunnel", "--config", config, "--log-level", "debug"];
    let ringway = command(&words);
    // No process but this one sees the file in its place.
    let script = format!("mount --bind {} {place} && exec \"$@\"", ours.display());
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &script, "sh"]);
    unshare.arg(ringway.get_program()).args(ringway.get_args());
    Side::start_by(unshare, config)
}

/// What a user has been told, if anything.
fn told(user: &mut TcpStream) -> Option<u8> {
    let mut reply = [0; 10];
    user.set_nonblocking(true).expect("a socket");
    match user.read(&mut reply) {
        Ok(10) => Some(reply[1]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        other => panic!("{other:?}: {reply:?}"),
    }
}

/// The server of names does not answer. As many names of a peer wait as may, and those beyond are
/// answered at once: general failure. When their users have gone and the server speaks again, the
/// next one has an answer.
#[test]
fn names_beyond_those_that_may_wait_are_refused() {
    const MORE: usize = 20;
    let _alone = CROWD.lock().unwrap_or_else(PoisonError::into_inner);
    in_a_network_of_its_own(|| {
        let server = UdpSocket::bind("127.0.0.1:53").expect("our own network");
        let keys = Keys::new();
        let far = far_with_names_from(&keys, server.local_addr().expect("bound"));
        let near = keys.near(&Words::default().door("socks5"), far.carriers());
        until("connected", || near.status().peers[0].up.then_some(()));
        let mut waiting: Vec<TcpStream> =
            (0..ASKED_MAX + MORE).map(|_| asks_socks(near.door(0), NAME)).collect();
        let mut codes = Vec::new();
        until("those beyond are told", || {
            waiting.retain_mut(|user| told(user).map(|code| codes.push(code)).is_none());
            (codes.len() >= MORE).then_some(())
        });
        assert_eq!((codes, waiting.len()), (vec![1; MORE], ASKED_MAX));
        assert!(waiting.iter_mut().all(|user| told(user).is_none()), "the others wait");
        waiting.iter().for_each(reset);
        drop(waiting);
        until("the far side has heard of it", || far.session().flows.is_empty().then_some(()));
        // There is no such name.
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((many, from)) = server.recv_from(&mut question) {
                (question[2], question[3]) = (0x81, 0x83);
                let _ = server.send_to(&question[..many], from);
            }
        });
        assert_eq!(by_socks(near.door(0), NAME).1, 4);
        near.stop();
        far.stop();
    });
}

/// The far side has a name, which leads to one process; that one goes away, and the name leads to
/// another one with the same keys at another address. The near side finds it by itself: flows of
/// before are reset, since nobody knows them there, and new ones work.
#[test]
fn a_far_side_whose_name_leads_elsewhere_is_found() {
    in_a_network_of_its_own(|| {
        let (keys, service) = (Keys::new(), echo());
        let far_at = |side: &str, ip: &str| {
            let listen = format!("listen = \"{ip}:4600\"");
            let [network, key, public] =
                ["network.key", "far.key", &keys.public("near.key")].map(str::to_owned);
            let own = [
                format!("network_key = {network:?}"),
                format!("key = {key:?}"),
                format!("public_key = {public:?}"),
            ];
            let words = Words { keys: Some(own), ..Words::default() };
            Side::start(&keys.write(side, &words.set(&listen).allow([service]), None))
        };
        let hosts = keys.path("hosts");
        let leads_to = |ip: &str| {
            std::fs::write(&hosts, format!("{ip} far.example\n")).expect("our directory");
        };
        let first = far_at("far", "127.0.0.2");
        leads_to("127.0.0.2");
        let words = Words::default().peer("addresses = \"far.example:4600\"").forward(service);
        let near = start_with(&hosts, "/etc/hosts", &keys.write("near", &words, None));
        let way = || near.session().carriers.first().and_then(|carrier| carrier.peer);
        until("connected", || (way() == Some(([127, 0, 0, 2], 4600).into())).then_some(()));
        let mut user = connect(near.door(0));
        says_again(&mut user, b"by the first");

        // It is killed.
        drop(first);
        let second = far_at("far2", "127.0.0.3");
        leads_to("127.0.0.3");
        is_reset(&mut user);
        until("connected again", || (way() == Some(([127, 0, 0, 3], 4600).into())).then_some(()));
        let mut user = connect(near.door(0));
        says_again(&mut user, b"by the second");
        drop(user);
        near.stop();
        second.stop();
    });
}
