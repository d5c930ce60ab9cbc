//! Stories of the configuration: what is typed, what it becomes, the texts of all errors, and what
//! another reading changes.

use std::os::unix::fs::PermissionsExt;

use ringway_crypto::Secret;

use super::*;
use crate::policy::{Denied, Verdict};

/// Keys without files: each path has its own, and those named `missing` are not there.
struct Made;

impl Made {
    fn secret(path: &Path) -> Result<Secret, KeyFileError> {
        let text = path.to_str().expect("text");
        if text.contains("missing") {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(KeyFileError::Io { path: path.to_owned(), source });
        }
        // Of the same name is the same key: `copy-of-` is a file with the same line in it.
        let name = text.replace("copy-of-", "");
        let mut bytes = [0; 32];
        for (at, byte) in name.bytes().enumerate() {
            bytes[at % 32] ^= byte.rotate_left(at as u32 / 32);
        }
        Ok(Secret::new(bytes))
    }
}

impl Keys for Made {
    fn network(&mut self, path: &Path) -> Result<NetworkKey, KeyFileError> {
        Made::secret(path).map(NetworkKey::new)
    }

    fn private(&mut self, path: &Path) -> Result<PrivateKey, KeyFileError> {
        Made::secret(path).map(PrivateKey::new)
    }

    fn shared(&mut self, path: &Path) -> Result<Psk, KeyFileError> {
        Made::secret(path).map(Psk::new)
    }
}

fn file(text: &str) -> Result<Config, ConfigError> {
    let host = Host { cores: 4, runtime_dir: "/run/user/7/ringway".into() };
    Config::parse_with(text, Path::new("/etc/far.toml"), &host, &mut Made)
}

pub(crate) fn good(text: &str) -> Config {
    file(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn public(name: &str) -> String {
    let secret = Made::secret(Path::new(name)).expect("a key");
    PrivateKey::new(secret).public().to_string()
}

/// The least that a side that is dialled must say, in three lines, and what comes behind.
fn far(more: &str) -> String {
    format!("[tunnel]\nnetwork_key = \"network.key\"\nlisten = \"0.0.0.0:4600\"\n{more}")
}

/// The same with a peer: lines 4 to 6.
fn near(more: &str) -> String {
    far(&format!("[[peer]]\nname = \"far\"\nshared_key = \"far.psk\"\n{more}"))
}

#[test]
fn little_need_be_said() {
    let config = good(&near(""));
    assert_eq!((config.shards, config.flows_max, config.memory_bytes), (1, 65_536, 256 << 20));
    assert_eq!((config.wait, config.admin), (Span::from_s(60), None));
    assert_eq!(config.socket, Path::new("/run/user/7/ringway/far.sock"));
    assert_eq!(config.suites, Suite::ALL);
    let peer = config.peer(config.peer_named("far").expect("it is there"));
    assert_eq!((peer.carriers, peer.rate, peer.addresses.len()), (4, None, 0));
    let anything = Target::parse("10.0.0.1:22").expect("a target");
    assert_eq!(peer.policy.may_ask(&anything), Verdict::Denied(Denied::NoRule));
    assert!(good(&far("")).peers.is_empty(), "a far side may begin without anybody");
}

/// The documented example has every field, and each became what it says.
#[test]
fn the_example_is_read() {
    let config = good(Config::example());
    let [branch, laptop] = &config.peers[..] else { panic!("two peers") };
    assert_eq!((branch.carriers, branch.rate), (4, Some(12_500_000)));
    let addresses: Vec<_> = branch.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["gw1.branch.example:4600", "192.0.2.7:4600"]);
    assert!(branch.identity.psk().is_some() && laptop.identity.psk().is_none());
    assert_eq!(branch.policy.rules().len(), 6);
    assert_eq!(config.listeners.len(), 4);
    assert!(matches!(config.listeners[0].door, Door::Forward { compress: Compress::Auto, .. }));
    assert_eq!(config.listeners[2].door, Door::Socks5);
    assert_eq!(config.listeners[3].door, Door::HttpConnect);
    assert!(config.service_named("web").is_some_and(|web| web.proxy_protocol));
    assert_eq!(config.socket, Path::new("/run/ringway/tunnel.sock"));
    for kind in check::KINDS {
        for (field, _) in kind.fields {
            let said = |line: &str| line.trim_start().starts_with(&format!("{field} = "));
            assert!(Config::example().lines().any(said), "{} {field}", kind.title);
        }
    }
}

/// Each key leads to its peer, at the door and when dialling, also while it is being replaced.
#[test]
fn keys_lead_to_peers() {
    let (one, two) = (public("/one"), public("/two"));
    let config = good(&far(&format!(
        "key = [\"site.key\", \"old.key\"]\n\
         [[peer]]\nname = \"a\"\npublic_key = [\"{one}\", \"{two}\"]\npsk = \"a.psk\"\n\
         [[peer]]\nname = \"b\"\nshared_key = [\"b.psk\", \"b-old.psk\"]\n"
    )));
    let (a, b) = (config.peer_named("a").expect("there"), config.peer_named("b").expect("there"));
    for text in [&one, &two] {
        let proof = PeerProof::Key(PublicKey::from_text(text).expect("a key"));
        assert_eq!(config.peer_of(&proof), Some(a));
    }
    let doorman = config.doorman();
    assert_eq!((doorman.identities.len(), doorman.shared.len()), (2, 2));
    for secret in &doorman.shared {
        assert_eq!(config.peer_of(&PeerProof::Shared(secret.id())), Some(b));
    }
    let stranger = PublicKey::from_text(&public("/three")).expect("a key");
    assert_eq!(config.peer_of(&PeerProof::Key(stranger)), None);
    // The second secret of `a` is not a way in by itself.
    let psk = config.peer(a).identity.psk().expect("it has one");
    assert_eq!(config.peer_of(&PeerProof::Shared(psk.id())), None);
    let dials = config.credentials(a);
    let first = Credentials::Keys {
        mine: config.identities[0].clone(),
        theirs: PublicKey::from_text(&one).expect("a key"),
        psk: Some(psk.clone()),
    };
    assert_eq!(dials.len(), 4, "each of ours with each of theirs");
    let same = |one: &Credentials, other: &Credentials| match (one, other) {
        (
            Credentials::Keys { mine, theirs, psk },
            Credentials::Keys { mine: mine2, theirs: theirs2, psk: psk2 },
        ) => mine == mine2 && theirs == theirs2 && psk == psk2,
        _ => false,
    };
    assert!(same(&dials[0], &first));
    assert_eq!(config.credentials(b).len(), 2);
}

/// F3: what is printed of a configuration has no key in it.
#[test]
fn nothing_secret_is_printed() {
    let config = good(Config::example());
    let printed = format!("{config:?}");
    for path in ["/etc/network.key", "/etc/site.key", "/etc/branch.psk", "/etc/laptop.psk"] {
        let text = Psk::new(Made::secret(Path::new(path)).expect("a key")).to_text();
        let key = text.rsplit(':').next().expect("a key");
        assert!(!printed.contains(key), "{printed}");
    }
}

/// Each complaint names the line and says what to write.
fn complains(cases: &[(String, &str)]) {
    for (text, said) in cases {
        let error = file(text).err().unwrap_or_else(|| panic!("taken:\n{text}")).to_string();
        assert!(error.contains(said), "{text}\n said: {error}\n not:  {said}");
        assert!(error.starts_with("/etc/far.toml:"), "{error}");
    }
}

#[test]
fn unknown_words_are_found_with_their_line() {
    let is = str::to_owned;
    complains(&[
        (
            is("network_key = \"x\""),
            "/etc/far.toml:1: the top of the file has no \"network_key\"; \
             did you mean \"[tunnel]\"?",
        ),
        (is("\n[tunel]\n"), "/etc/far.toml:2: the file has no \"tunel\"; did you mean \"tunnel\"?"),
        (is("[colour]"), "has no \"colour\"; there are: tunnel, peer, forward, socks5, "),
        (is("[tunnel]\nkey ="), "/etc/far.toml:2: "),
        (is("[tunnel]\nkey = \"a\"\nkey = \"b\""), "/etc/far.toml:3: duplicate key"),
        (is("tunnel = 3"), "/etc/far.toml:1: [tunnel] is \"something else\", but it takes fields"),
        (is("[[tunnel]]"), "/etc/far.toml:1: [tunnel] is \"something else\", but it takes fields"),
        (
            far("[peer]\nname = \"a\""),
            "/etc/far.toml:4: [[peer]] is \"something else\", but it takes \
             sections, each [[so]]",
        ),
        (far("peer = 3"), "[tunnel] has no \"peer\""),
        (
            far("\nflow_max = 3"),
            "/etc/far.toml:5: [tunnel] has no \"flow_max\"; did you mean \
             \"flows_max\"?",
        ),
        (far("threads = 3"), "did you mean \"shards\"?"),
        (
            near("endpoint = \"a:1\""),
            "/etc/far.toml:7: [[peer]] has no \"endpoint\"; did you mean \
             \"addresses\"?",
        ),
        (
            near("[[forward]]\ntarget = \"a:1\""),
            "[[forward]] has no \"target\"; did you mean \"to\"?",
        ),
        (
            near("[[socks5]]\nto = \"a:1\""),
            "[[socks5]] has no \"to\"; there are: listen, peer, public",
        ),
        (
            is(""),
            "/etc/far.toml:1: the file has no [tunnel], which is the section with network_key",
        ),
        (
            far("[[peer]]\nshared_key = \"x\""),
            "/etc/far.toml:4: [[peer]] has no name, which is 1 to 64",
        ),
        (
            near("\n[[forward]]\nlisten = \"127.0.0.1:1\""),
            "/etc/far.toml:8: [[forward]] has no peer",
        ),
        (
            near("[[forward]]\nlisten = \"127.0.0.1:1\"\npeer = \"far\""),
            "[[forward]] has no to, which",
        ),
        (
            is("[tunnel]\nlisten = \"0.0.0.0:1\""),
            "/etc/far.toml:1: [tunnel] has no network_key, which",
        ),
    ]);
}

#[test]
fn values_say_what_they_take() {
    complains(&[
        (far("shards = 129"), "/etc/far.toml:4: shards is \"129\", but it takes \"auto\" or 0"),
        (far("shards = -1"), "shards is \"-1\""),
        (far("ciphers = [\"aes-128-gcm\", \"rc4\"]"), "ciphers is \"rc4\", but it takes a list of"),
        (far("ciphers = [\"aes-128-gcm\", \"aes-128-gcm\"]"), "each once"),
        (far("flows_max = 0"), "flows_max is \"0\", but it takes a number of flows from 1 to"),
        (far("memory = \"lots\""), "memory is \"lots\", but it takes a size with its unit"),
        (far("memory = 1000"), "memory is \"1000\""),
        (
            far("wait = 60"),
            "wait is \"60\", but it takes a time with its unit, for example \"60 s\"",
        ),
        (far("wait = \"25 h\""), "wait is \"25 h\""),
        (far("resolve_names = \"yes\""), "resolve_names is \"yes\", but it takes true or false"),
        (far("socket = \"\""), "socket is \"\", but it takes the path"),
        (far(&format!("socket = \"/{}\"", "a".repeat(107))), "of at most 107 bytes"),
        (far("admin = \"0.0.0.0:9464\""), "admin is 0.0.0.0:9464, which others can reach"),
        (far("admin = \"off\""), "admin is \"off\", but it takes a loopback address"),
        (far("key = \"\""), "key is \"\", but it takes the file of this side's private key"),
        (far("key = [[\"a\"]]"), "key is \"array\", but"),
        (near("carriers = 65"), "carriers is \"65\", but it takes a number from 1 to 64"),
        (near("carriers = 0"), "carriers is \"0\""),
        (near("rate = \"100 Mbps\""), "rate is \"100 Mbps\", but it takes a rate with its unit"),
        (near("addresses = [\"gw.example\"]"), "addresses is \"gw.example\", but it takes a host"),
        (far("[[peer]]\nname = \"a b\""), "name is \"a b\", but it takes 1 to 64 letters"),
        (near("[[forward]]\nlisten = \"8080\""), "listen is \"8080\", but it takes an address and"),
        (
            near("[[forward]]\nlisten = \"127.0.0.1:1\"\npeer = \"far\"\nto = \"127.1:80\""),
            "/etc/far.toml:10: to is \"127.1:80\", but it takes an address or a name",
        ),
        (
            near(
                "[[forward]]\nlisten = \"127.0.0.1:1\"\npeer = \"far\"\nto = \"a:1\"\n\
                 compress = \"zip\"",
            ),
            "compress is \"zip\", but it takes \"auto\" or \"off\"",
        ),
        (
            far("[[service]]\nname = \"web\"\nto = \"service:web\""),
            "to is \"service:web\", but it takes an address or a name",
        ),
        (
            near(&format!("addresses = [{}]", "\n\"a:1\",".repeat(17))),
            "/etc/far.toml:24: there may be at most 16 of addresses",
        ),
    ]);
}

#[test]
fn keys_are_asked_for_by_name() {
    let (own, other) = (public("/etc/site.key"), public("/other"));
    let peer = |more: &str| format!("[[peer]]\nname = \"a\"\n{more}\n");
    let second = |more: &str| format!("[[peer]]\nname = \"b\"\n{more}\n");
    let with_key = |more: &str| far(&format!("key = \"site.key\"\n{more}"));
    let by_public = format!("public_key = \"{other}\"");
    complains(&[
        (
            "[tunnel]\nnetwork_key = \"missing.key\"".to_owned(),
            "/etc/far.toml:2: network_key: /etc/missing.key: entity not found (make it once for \
             all sites: `ringway keygen --network FILE`)",
        ),
        (far("key = \"missing.key\""), "(make it: `ringway keygen FILE`)"),
        (far(&peer("shared_key = \"missing\"")), "`ringway keygen --shared FILE`"),
        (far("key = [\"a\", \"b\", \"c\"]"), "/etc/far.toml:4: there may be at most 2 of key"),
        (far("key = [\"a\", \"copy-of-a\"]"), "it takes two different keys, where there is a list"),
        (far(&peer("")), "/etc/far.toml:4: peer \"a\" has no key: give it public_key"),
        (
            with_key(&peer(&format!("{by_public}\nshared_key = \"x\""))),
            "peer \"a\" has both public_key and shared_key: take one out",
        ),
        (far(&peer("psk = \"x\"")), "call it shared_key if it is all that you two have"),
        (far(&peer("shared_key = \"x\"\npsk = \"y\"")), "and no public_key"),
        (
            far(&peer(&by_public)),
            "so this side needs one of its own: run `ringway keygen site.key`",
        ),
        (
            with_key(&peer(&format!("public_key = \"{own}\""))),
            "/etc/far.toml:7: public_key of peer \"a\" is this side's own",
        ),
        (
            with_key(&peer("public_key = \"ringway-private:AAAA\"")),
            "/etc/far.toml:7: public_key: it is a private key where a public key belongs",
        ),
        (with_key(&peer("public_key = \"abc\"")), "`ringway keygen --public FILE` prints it"),
        (
            with_key(&(peer(&by_public) + &second(&by_public))),
            "/etc/far.toml:10: public_key is that of peer \"a\", too (line 7), so that each could \
             pose as the other",
        ),
        (
            far(&(peer("shared_key = \"x\"") + &second("shared_key = \"copy-of-x\""))),
            "/etc/far.toml:9: shared_key is that of peer \"a\", too (line 6)",
        ),
        (
            with_key(&(peer(&format!("{by_public}\npsk = \"x\"")) + &second("shared_key = \"x\""))),
            "make a key for each, `ringway keygen --shared FILE`",
        ),
    ]);
}

#[test]
fn sections_fit_together() {
    let forward = |listen: &str, peer: &str| {
        format!("[[forward]]\nlisten = \"{listen}\"\npeer = \"{peer}\"\nto = \"a:1\"\n")
    };
    let two = |one: &str, other: &str| near(&(forward(one, "far") + &forward(other, "far")));
    complains(&[
        (
            near("[[peer]]\nname = \"far\"\nshared_key = \"y\""),
            "/etc/far.toml:8: there is a peer \"far\" already, in line 5",
        ),
        (
            far("[[service]]\nname = \"w\"\nto = \"a:1\"\n[[service]]\nname = \"w\"\nto = \"a:1\""),
            "/etc/far.toml:8: there is a service \"w\" already, in line 5",
        ),
        (
            near(&forward("127.0.0.1:1", "faar")),
            "/etc/far.toml:9: there is no [[peer]] \"faar\"; did you mean \"far\"?",
        ),
        (
            near(&forward("127.0.0.1:1", "somebody")),
            "there is no [[peer]] \"somebody\": name one of this file's [[peer]]",
        ),
        (near("allow = [\"service:web\"]"), "there is no [[service]] \"web\""),
        (near(&forward("0.0.0.0:1", "far")), "/etc/far.toml:8: 0.0.0.0:1 can be reached by others"),
        (near(&forward("[::ffff:10.0.0.1]:1", "far")), "or say public = true"),
        (two("127.0.0.1:1", "127.0.0.1:1"), "/etc/far.toml:12: 127.0.0.1:1 is taken by line 8"),
        (near(&forward("127.0.0.1:4600", "far")), "127.0.0.1:4600 is taken by line 3"),
        (far("admin = \"127.0.0.1:4600\""), "127.0.0.1:4600 is taken by line 3"),
        (
            "[tunnel]\nnetwork_key = \"n\"\n[[peer]]\nname = \"a\"\nshared_key = \"x\"".to_owned(),
            "/etc/far.toml:3: peer \"a\" can never be connected: give it addresses",
        ),
        (near("allow = [\n\"10.0.0.7\"]"), "/etc/far.toml:8: allow: \"10.0.0.7\" names no port"),
        (near("allow = \"127.0.0.0/8:1\""), "allows nothing: 127.0.0.0/8"),
        (
            far("resolve_names = false\n[[peer]]\nname = \"a\"\nshared_key = \"x\"\n\
                 allow = \"b:1\""),
            "/etc/far.toml:8: allow: \"b:1\" is about a name, but this side resolves none",
        ),
    ]);
    let nobody = file("[tunnel]\nnetwork_key = \"n\"").expect_err("no way").to_string();
    assert!(nobody.contains("neither a [[peer]] nor a listen"), "{nobody}");
    assert_eq!(good(&two("127.0.0.1:0", "127.0.0.1:0")).listeners.len(), 2, "whichever are free");
    assert_eq!(good(&two("127.0.0.1:1", "127.0.0.2:1")).listeners.len(), 2);
    let public = near(&(forward("0.0.0.0:1", "far") + "public = true"));
    assert_eq!(good(&public).listeners.len(), 1);
}

/// Without names in the file's rules, the switch still denies those that `any` would allow.
#[test]
fn names_can_be_switched_off() {
    let text = "resolve_names = false\n[[peer]]\nname = \"a\"\nshared_key = \"x\"\nallow = \"any\"";
    let config = good(&far(text));
    let name = Target::parse("db:1").expect("a target");
    let verdict = config.peers[0].policy.may_ask(&name);
    assert_eq!(verdict, Verdict::Denied(Denied::NoNames));
}

/// From files: with their modes, from where the configuration is.
#[test]
fn files_are_read_and_their_modes_looked_at() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("near.toml");
    let open = || Config::load(&path).map_err(|error| (error.is_hosts_doing(), error.to_string()));
    let missing = open().expect_err("there is none");
    assert!(missing.0 && missing.1.starts_with("cannot read the configuration"), "{missing:?}");
    assert!(missing.1.contains("`ringway tunnel join` makes one"), "{missing:?}");
    std::fs::write(&path, near("")).expect("writes");
    for (name, kind) in
        [("network.key", crate::KeyKind::Network), ("far.psk", crate::KeyKind::Shared)]
    {
        let error = open().expect_err("a key is not there");
        assert!(error.0 && error.1.contains(name) && error.1.contains("make it once"), "{error:?}");
        crate::make(kind, &dir.path().join(name)).expect("a new file");
    }
    let config = open().expect("all are there");
    assert_eq!(config.socket.file_name().expect("a name"), "near.sock");
    assert_eq!(Config::socket_of(&path).expect("the same"), config.socket);
    let psk = dir.path().join("far.psk");
    std::fs::set_permissions(&psk, std::fs::Permissions::from_mode(0o644)).expect("own file");
    let (hosts, error) = open().expect_err("others can read it");
    assert!(hosts && error.contains("near.toml:6: shared_key: the key "), "{error}");
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::copy(dir.path().join("network.key"), &psk).expect("copies");
    std::fs::set_permissions(&psk, std::fs::Permissions::from_mode(0o600)).expect("own file");
    let (hosts, error) = open().expect_err("another kind");
    assert!(!hosts && error.contains("network key where a shared key belongs"), "{error}");
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).expect("writes");
    assert!(open().expect_err("too long").1.contains("larger than 1 MiB"));
}

const BEFORE: &str = "[tunnel]\nnetwork_key = \"n\"\nlisten = \"0.0.0.0:4600\"\n\
    [[peer]]\nname = \"a\"\nshared_key = [\"a1\", \"a2\"]\n\
    [[peer]]\nname = \"b\"\nshared_key = \"b1\"\nallow = \"any\"\n\
    [[forward]]\nlisten = \"127.0.0.1:1\"\npeer = \"a\"\nto = \"x:1\"\n\
    [[socks5]]\nlisten = \"127.0.0.1:2\"\npeer = \"b\"\n";

fn reload(edits: &[(&str, &str)]) -> Reload {
    let mut text = BEFORE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    changes(&good(BEFORE), &good(&text))
}

fn stays(before: u16, now: u16, identity: IdentityChange) -> PeerChange {
    let (before, now) = (PeerIndex(before), PeerIndex(now));
    let (addresses, carriers, policy, rate, udp) = (false, false, false, false, false);
    PeerChange::Stays { before, now, identity, addresses, carriers, policy, rate, udp }
}

#[test]
fn the_same_file_changes_nothing() {
    let nothing = reload(&[]);
    assert!(nothing.is_nothing());
    assert_eq!(nothing.peers[1], stays(1, 1, IdentityChange::Same));
    assert_eq!(nothing.listeners[1], ListenerChange::Stays { before: 1, now: 1 });
    assert!(reload(&[("network_key = \"n\"", "network_key = \"m\"\nwait = \"1 s\"")]).is_nothing());
}

/// A peer that comes first in the file moves the others, and touches none of them.
#[test]
fn a_new_peer_leaves_the_others_alone() {
    let new = "[[peer]]\nname = \"c\"\nshared_key = \"c1\"\n[[peer]]\nname = \"a\"";
    let reload = reload(&[("[[peer]]\nname = \"a\"", new)]);
    assert_eq!(
        reload.peers,
        [
            stays(0, 1, IdentityChange::Same),
            stays(1, 2, IdentityChange::Same),
            PeerChange::Added(PeerIndex(0)),
        ]
    );
    assert!(reload.listeners.iter().all(|one| matches!(one, ListenerChange::Stays { .. })));
    assert!(!reload.is_nothing());
}

/// Another name is another peer; its listeners lead elsewhere, by the same sockets.
#[test]
fn a_peer_goes_and_another_comes() {
    let reload = reload(&[("name = \"b\"", "name = \"c\""), ("peer = \"b\"", "peer = \"c\"")]);
    assert_eq!(
        reload.peers[1..],
        [PeerChange::Removed(PeerIndex(1)), PeerChange::Added(PeerIndex(1))]
    );
    assert_eq!(reload.listeners[1], ListenerChange::Changed { before: 1, now: 1 });
}

/// A rotation goes on with the key that stays; what shares no key with before is somebody else.
#[test]
fn keys_rotate_without_an_end() {
    let told = |edits: &[(&str, &str)]| reload(edits).peers[0].clone();
    let rotated = stays(0, 0, IdentityChange::Rotated);
    assert_eq!(told(&[("[\"a1\", \"a2\"]", "\"a2\"")]), rotated);
    assert_eq!(told(&[("[\"a1\", \"a2\"]", "[\"a3\", \"a1\"]")]), rotated);
    assert_eq!(told(&[("[\"a1\", \"a2\"]", "\"a3\"")]), stays(0, 0, IdentityChange::Replaced));
}

#[test]
fn what_changes_for_a_peer_is_told() {
    let more = "\"any:1\"\nrate = \"1 MB/s\"\ncarriers = 9\nudp = true";
    let told = reload(&[("\"any\"", more)]).peers;
    let PeerChange::Stays { identity, addresses, carriers, policy, rate, udp, .. } = told[1] else {
        panic!("{told:?}")
    };
    assert_eq!(identity, IdentityChange::Same);
    assert_eq!((addresses, carriers, policy, rate, udp), (false, true, true, true, true));
}

/// Listeners are known by their addresses: what else is said there changes, its socket stays.
#[test]
fn listeners_come_go_and_change() {
    let told = |edits: &[(&str, &str)]| reload(edits).listeners;
    assert_eq!(
        told(&[("to = \"x:1\"", "to = \"x:2\"")])[0],
        ListenerChange::Changed { before: 0, now: 0 }
    );
    assert_eq!(
        told(&[("127.0.0.1:2", "127.0.0.1:3")]),
        [
            ListenerChange::Stays { before: 0, now: 0 },
            ListenerChange::Removed(1),
            ListenerChange::Added(1),
        ]
    );
    assert_eq!(
        told(&[("[[socks5]]", "[[http_connect]]")])[1],
        ListenerChange::Changed { before: 1, now: 1 }
    );
}

/// What needs a restart is said once for each reading until there was one.
#[test]
fn what_waits_for_a_restart_is_said_again() {
    let old = good(BEFORE);
    let text = BEFORE.replace("0.0.0.0:4600", "0.0.0.0:4601").replace(
        "[tunnel]\n",
        "[tunnel]\nshards = 2\nmemory = \"1 GiB\"\nsocket = \"/s\"\nadmin = \"127.0.0.1:9\"\n",
    );
    let mut new = good(&text);
    let all = [Restart::Shards, Restart::Listen, Restart::Memory, Restart::Socket, Restart::Admin];
    assert_eq!(changes(&old, &new).restart, all);
    assert!(all[0].to_string().starts_with("shards in [tunnel] was changed: that needs a restart"));
    new.keep_until_restart(&old);
    assert_eq!((new.shards, &new.listen, new.admin), (1, &old.listen, None));
    assert!(changes(&old, &new).restart.is_empty());
    assert_eq!(changes(&new, &good(&text)).restart, all);
}
