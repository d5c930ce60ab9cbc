//! The configuration of one side of a tunnel, without its key files.
//!
//! The oracles: an error names the file; what was accepted is safe (F1 of `config.rs`), leads only
//! to what is there (F2), changes nothing when it is read again, and reaches no special address
//! but by a rule of exactly that (P1 of `policy.rs`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ringway_crypto::{NetworkKey, PrivateKey, Psk, Secret};
use ringway_tunnel_node::config::{Config, Host, Keys, changes};
use ringway_tunnel_node::policy::{Rule, Verdict, is_special};
use ringway_tunnel_node::{KeyFileError, Target as Place};

use crate::Target;

/// A configuration file.
pub const CONFIG: Target = Target {
    name: "tunnel_config",
    run: config,
    seeds: config_seeds,
    words: &[
        b"[tunnel]\n",
        b"[[peer]]\n",
        b"[[forward]]\n",
        b"[[socks5]]\n",
        b"[[service]]\n",
        b"network_key = \"n\"\n",
        b"listen = \"127.0.0.1:1\"\n",
        b"shared_key = ",
        b"allow = [",
        b"\"any\"",
        b"public = true\n",
        b"peer = \"a\"\n",
        b"/8:",
        b"::ffff:",
        b"\xC3\xA9",
    ],
    bytes_max: 2048,
};

/// A key for each path, the same for the same one.
struct Made;

fn key(path: &Path) -> Secret {
    let mut bytes = [7_u8; 32];
    for (at, byte) in path.as_os_str().as_encoded_bytes().iter().enumerate() {
        bytes[at % 32] = bytes[at % 32].rotate_left(3) ^ byte;
    }
    Secret::new(bytes)
}

impl Keys for Made {
    fn network(&mut self, path: &Path) -> Result<NetworkKey, KeyFileError> {
        Ok(NetworkKey::new(key(path)))
    }

    fn private(&mut self, path: &Path) -> Result<PrivateKey, KeyFileError> {
        Ok(PrivateKey::new(key(path)))
    }

    fn shared(&mut self, path: &Path) -> Result<Psk, KeyFileError> {
        Ok(Psk::new(key(path)))
    }
}

fn read(text: &str) -> Result<Config, String> {
    let host = Host { cores: 8, runtime_dir: "/run/ringway".into() };
    let path = Path::new("/etc/ringway/far.toml");
    Config::parse_with(text, path, &host, &mut Made).map_err(|error| error.to_string())
}

/// Reads a configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match read(text) {
        Ok(config) => config,
        Err(error) => return assert!(error.starts_with("/etc/ringway/far.toml:"), "{error}"),
    };
    let local = |ip: IpAddr| ip.to_canonical().is_loopback();
    let open = config.listeners.iter().any(|listener| !local(listener.listen.ip()));
    assert!(!open || text.contains("public"), "F1");
    assert!(config.admin.is_none_or(|admin| local(admin.ip())), "F1");
    assert!(config.listeners.iter().all(|one| usize::from(one.peer.0) < config.peers.len()), "F2");
    let names: BTreeSet<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names.len(), config.peers.len(), "a name of two peers");
    let again = read(text).expect("it was good a moment ago");
    assert!(again == config && changes(&config, &again).is_nothing());
    for (index, peer) in config.peers.iter().enumerate() {
        assert!(!peer.addresses.is_empty() || !config.listen.is_empty(), "F2");
        let dials = config.credentials(config.peer_named(&peer.name).expect("it is there"));
        assert!(!dials.is_empty(), "peer {index} has a key");
        for rule in peer.policy.rules() {
            assert_eq!(rule.to_string().parse().as_ref(), Ok(rule), "a rule in its own words");
            if let Rule::Service(name) = rule {
                assert!(config.service_named(name).is_some(), "F2");
            }
        }
        special(peer);
    }
}

/// P1, for one address of each kind and a name that leads to each.
fn special(peer: &ringway_tunnel_node::config::Peer) {
    for text in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0"] {
        let ip: IpAddr = text.parse().expect("an address");
        assert!(is_special(ip));
        let plain = ip.to_canonical();
        let named = peer.policy.rules().iter().any(|rule| {
            let text = rule.to_string();
            text.starts_with(&format!("{plain}:")) || text.starts_with(&format!("[{plain}]:"))
        });
        let asked = Place::Address(ip, 80);
        let connects = matches!(peer.policy.may_ask(&asked), Verdict::Connect(_));
        let name = Place::Host("www.example".to_owned(), 80);
        assert!(named || !(connects || peer.policy.may_connect(&name, ip)), "P1 {text}");
    }
}

fn config_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let far = |more: &str| {
        format!("[tunnel]\nnetwork_key = \"n\"\nlisten = \"0.0.0.0:4600\"\n{more}").into_bytes()
    };
    let near = |more: &str| far(&format!("[[peer]]\nname = \"a\"\nshared_key = \"a\"\n{more}"));
    let forward = "[[forward]]\nlisten = \"127.0.0.1:1\"\npeer = \"a\"\n";
    vec![
        ("empty", Vec::new()),
        ("example", Config::example().into()),
        ("far-alone", far("")),
        ("near", near("addresses = \"gw.example:1\"\ncarriers = 9\nrate = \"1 MB/s\"\n")),
        (
            "allow-wide",
            near("allow = [\"any\", \"0.0.0.0/0:*\", \"[::/0]:*\", \"*.example:80\"]\n"),
        ),
        (
            "allow-exact",
            near("allow = [\"127.0.0.1:80\", \"[::1]:1-80\", \"169.254.169.254:80\"]\n"),
        ),
        ("allow-nothing", near("allow = \"127.0.0.0/8:80\"\n")),
        (
            "allow-mapped",
            near("allow = [\"[::ffff:10.0.0.0/104]:22\", \"[::ffff:127.0.0.1]:80\"]\n"),
        ),
        ("allow-wrong", near("allow = [\"10.0.0.1/8:22\"]\n")),
        ("allow-service", near("allow = \"service:w\"\n[[service]]\nname = \"w\"\nto = \"b:1\"\n")),
        ("no-names", far("resolve_names = false\n")),
        ("forward", near(&format!("{forward}to = \"service:web\"\ncompress = \"off\"\n"))),
        (
            "forward-public",
            near(&format!("{forward}to = \"b:1\"\npublic = true\n").replace("127", "1")),
        ),
        ("forward-open", near(&format!("{forward}to = \"b:1\"\n").replace("127", "1"))),
        ("forward-nobody", near(&forward.replace("\"a\"", "\"b\""))),
        ("socks5-taken", near("[[socks5]]\nlisten = \"127.0.0.1:4600\"\npeer = \"a\"\n")),
        ("same-key", near("[[peer]]\nname = \"b\"\nshared_key = \"a\"\n")),
        ("same-name", near("[[peer]]\nname = \"a\"\nshared_key = \"b\"\n")),
        ("no-key", far("[[peer]]\nname = \"a\"\n")),
        (
            "rotation",
            far("key = [\"k\", \"l\"]\n[[peer]]\nname = \"a\"\nshared_key = [\"a\", \"b\"]\n"),
        ),
        ("unknown-field", near("endpoint = \"a:1\"\n")),
        ("unknown-section", far("[[pear]]\n")),
        ("wrong-shape", far("[peer]\nname = [[1], {a = 2}]\n")),
        ("admin-open", far("admin = \"10.0.0.1:1\"\n")),
        ("not-toml", b"[tunnel\n\xF0\x9F\x98\x80".to_vec()),
    ]
}
