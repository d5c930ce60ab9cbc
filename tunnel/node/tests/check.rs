//! Stories of `check` against tunnels that run, with real sockets: each thing that can be wrong is
//! found, and told from the others.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_tunnel_node::check::{Finding, NotChecked, Patience, Stage, Verdict, check};
use ringway_tunnel_node::config::Config;
use ringway_tunnel_node::{KeyKind, Tunnel, ask, make};

/// A far side in this process answers at once, so what is silent for so long stays silent.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_millis(700) };

/// Two sites in a directory, with keys of their own.
struct Sites {
    dir: tempfile::TempDir,
    near_public: String,
    far_public: String,
    other_public: String,
}

impl Sites {
    fn new() -> Sites {
        let dir = tempfile::tempdir().expect("temporary directory");
        let key = |name: &str, kind| make(kind, &dir.path().join(name)).expect("a new file").public;
        for name in ["network.key", "other-network.key"] {
            key(name, KeyKind::Network);
        }
        for name in ["pair.psk", "other-pair.psk"] {
            key(name, KeyKind::Shared);
        }
        let near_public = key("near.key", KeyKind::Private).expect("a pair").to_string();
        let far_public = key("far.key", KeyKind::Private).expect("a pair").to_string();
        let other_public = key("other.key", KeyKind::Private).expect("a pair").to_string();
        Sites { dir, near_public, far_public, other_public }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// The far side's file. `peer` is how it knows the near one.
    fn far(&self, peer: &str) -> PathBuf {
        let socket = self.dir.path().join("far.sock");
        self.write(
            "far.toml",
            &format!(
                "[tunnel]\nnetwork_key = \"network.key\"\nkey = \"far.key\"\n\
                 listen = [\"127.0.0.1:0\"]\nsocket = {socket:?}\n\
                 [[peer]]\nname = \"near\"\n{peer}\n"
            ),
        )
    }

    fn knows_near(&self) -> String {
        format!("public_key = \"{}\"", self.near_public)
    }

    /// The near side's file. `peer` is how it knows the far one.
    fn near(&self, network: &str, peer: &str, addresses: &str) -> PathBuf {
        let socket = self.dir.path().join("near.sock");
        self.write(
            "near.toml",
            &format!(
                "[tunnel]\nnetwork_key = {network}\nkey = \"near.key\"\nsocket = {socket:?}\n\
                 [[peer]]\nname = \"far\"\n{peer}\naddresses = [{addresses}]\n"
            ),
        )
    }

    fn knows_far(&self) -> String {
        format!("public_key = \"{}\"", self.far_public)
    }
}

/// A tunnel that is stopped when the story is over.
struct Site(Option<Tunnel>);

impl Site {
    fn start(path: &Path) -> Site {
        Site(Some(Tunnel::start(Config::load(path).expect("a configuration")).expect("starts")))
    }

    fn carriers(&self) -> SocketAddr {
        self.0.as_ref().expect("it runs").ready().carriers[0]
    }

    fn sessions(&self) -> usize {
        let socket = &self.0.as_ref().expect("it runs").ready().socket;
        let status = ask(socket, 0).expect("it answers");
        status.peers.iter().map(|peer| peer.sessions.len()).sum()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let tunnel = self.0.take().expect("it runs");
        tunnel.stop();
        tunnel.join().expect("it stops");
    }
}

fn look(path: &Path) -> Vec<Finding> {
    check(path, None, PATIENCE).expect("it is looked at")
}

fn stage(findings: &[Finding], stage: Stage) -> &Finding {
    let found = findings.iter().rfind(|finding| finding.stage == stage);
    found.unwrap_or_else(|| panic!("nothing about {stage}: {findings:?}"))
}

fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Bad)
}

fn quoted(address: SocketAddr) -> String {
    format!("\"{address}\"")
}

/// Before a side is started, everything can be seen to be right; the far side has no session of it.
/// Then it is started, and checking it leaves its session alone.
#[test]
fn all_is_well_and_nothing_is_left_behind() {
    let sites = Sites::new();
    let far = Site::start(&sites.far(&sites.knows_near()));
    let port = far.carriers().port();
    let near = sites.near(
        "\"network.key\"",
        &sites.knows_far(),
        &format!("\"127.0.0.1:{port}\", \"localhost:{port}\""),
    );
    let findings = look(&near);
    assert!(is_well(&findings), "{findings:?}");
    let handshake = stage(&findings, Stage::Handshake);
    assert!(handshake.found.starts_with("answered by the right key"), "{handshake:?}");
    assert_eq!(stage(&findings, Stage::Tunnel).verdict, Verdict::Note, "none runs yet");
    assert!(stage(&findings, Stage::Name).found.contains("127.0.0.1"), "{findings:?}");
    assert_eq!(far.sessions(), 0, "C1");

    let running = Site::start(&near);
    let connected = || stage(&look(&near), Stage::Tunnel).verdict == Verdict::Ok;
    while !connected() {}
    assert_eq!((running.sessions(), far.sessions()), (1, 1), "C1");
    let findings = look(&near);
    assert!(is_well(&findings), "{findings:?}");
    assert!(stage(&findings, Stage::Tunnel).found.starts_with("connected by 1 carrier"));
}

/// The side that is dialled is told whether it can be reached and whether its peer has come.
#[test]
fn who_is_dialled_sees_its_own_half() {
    let sites = Sites::new();
    let file = sites.far(&sites.knows_near());
    let findings = look(&file);
    assert!(!is_well(&findings));
    assert_eq!(stage(&findings, Stage::Listen).found, "nothing listens there");

    let far = Site::start(&file);
    let findings = look(&file);
    assert_eq!(stage(&findings, Stage::Listen).verdict, Verdict::Ok, "{findings:?}");
    let peer = stage(&findings, Stage::Tunnel);
    assert_eq!((peer.verdict, peer.peer.as_deref()), (Verdict::Bad, Some("near")));
    assert!(peer.found.contains("has not come"), "{peer:?}");

    let address = quoted(far.carriers());
    let _near = Site::start(&sites.near("\"network.key\"", &sites.knows_far(), &address));
    while !is_well(&look(&file)) {}
}

/// Whatever key is wrong, the far side is silent; what can be told from here is told, and the
/// public keys that have to be compared are named.
#[test]
fn silence_has_a_list_of_causes() {
    let sites = Sites::new();
    let far = Site::start(&sites.far(&sites.knows_near()));
    let address = quoted(far.carriers());
    let stranger = format!("public_key = \"{}\"", sites.other_public);
    let cases = [
        ("\"other-network.key\"", sites.knows_far(), sites.near_public.as_str()),
        ("\"network.key\"", "shared_key = \"pair.psk\"".to_owned(), "`shared_key`"),
        ("\"network.key\"", stranger.clone(), sites.other_public.as_str()),
    ];
    for (network, peer, cause) in cases {
        let findings = look(&sites.near(network, &peer, &address));
        assert_eq!(stage(&findings, Stage::Tcp).verdict, Verdict::Ok);
        let handshake = stage(&findings, Stage::Handshake);
        assert_eq!(handshake.found, "silence for 0.7 s");
        assert!(handshake.remedies[0].contains("log"), "{handshake:?}");
        assert!(handshake.remedies.iter().any(|one| one.contains(cause)), "{handshake:?}");
    }
    drop(far);

    let far = Site::start(&sites.far(&stranger));
    let address = quoted(far.carriers());
    let findings = look(&sites.near("\"network.key\"", &sites.knows_far(), &address));
    assert!(stage(&findings, Stage::Handshake).found.starts_with("silence"));
}

/// A second secret that differs shows only at the end of the handshake, so it can be told.
#[test]
fn another_second_secret_is_told_from_the_rest() {
    let sites = Sites::new();
    let far = Site::start(&sites.far(&format!("{}\npsk = \"pair.psk\"", sites.knows_near())));
    let knows = format!("{}\npsk = \"other-pair.psk\"", sites.knows_far());
    let findings = look(&sites.near("\"network.key\"", &knows, &quoted(far.carriers())));
    let handshake = stage(&findings, Stage::Handshake);
    assert_eq!(handshake.verdict, Verdict::Bad);
    assert!(handshake.remedies[0].contains("`psk`"), "{handshake:?}");
}

/// While a network's key is replaced, it is seen which side has not heard of it.
#[test]
fn a_network_key_that_is_not_there_yet_is_seen() {
    let sites = Sites::new();
    let far = Site::start(&sites.far(&sites.knows_near()));
    let keys = "[\"other-network.key\", \"network.key\"]";
    let findings = look(&sites.near(keys, &sites.knows_far(), &quoted(far.carriers())));
    let handshake = stage(&findings, Stage::Handshake);
    assert_eq!(handshake.verdict, Verdict::Bad);
    assert!(handshake.found.contains("second `network_key`"), "{handshake:?}");
}

/// What is no ringway is told from one that is silent: a dead port, a black hole, a closed door and
/// somebody else's.
#[test]
fn what_is_no_tunnel_is_told_apart() {
    let sites = Sites::new();
    let bound = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let look_at = |listener: &TcpListener| {
        let address = quoted(listener.local_addr().expect("bound"));
        sites.near("\"network.key\"", &sites.knows_far(), &address)
    };
    let dead = bound();
    let path = look_at(&dead);
    drop(dead);
    let findings = look(&path);
    assert!(stage(&findings, Stage::Tcp).found.starts_with("refused"), "{findings:?}");
    assert!(findings.iter().all(|finding| finding.stage != Stage::Handshake));

    // The kernel connects whoever comes; nobody reads.
    let hole = bound();
    let findings = look(&look_at(&hole));
    assert!(stage(&findings, Stage::Handshake).found.starts_with("silence"), "{findings:?}");

    for (says, found) in [(&b""[..], "closed without a word"), (b"SSH-2.0-x\r\n", "something else")]
    {
        let other = bound();
        let path = look_at(&other);
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = other.accept().expect("somebody comes");
            stream.write_all(says).expect("writes");
        });
        let findings = look(&path);
        serving.join().expect("serves");
        let handshake = stage(&findings, Stage::Handshake);
        assert!(handshake.found.starts_with(found), "{handshake:?}");
    }
}

/// A name that nobody has, a file that says nonsense, a peer that is not there.
#[test]
fn what_cannot_be_looked_at_is_said() {
    let sites = Sites::new();
    let network = "\"network.key\"";
    let path = sites.near(network, &sites.knows_far(), "\"no.such.name.invalid:4600\"");
    let findings = look(&path);
    let name = stage(&findings, Stage::Name);
    assert_eq!(name.verdict, Verdict::Bad);
    assert!(name.remedies[0].contains("getent hosts no.such.name.invalid"), "{name:?}");
    let error = check(&path, Some("office"), PATIENCE).expect_err("there is none");
    assert!(matches!(error, NotChecked::NoSuchPeer { .. }), "{error}");
    let path = sites.near("\"nowhere.key\"", &sites.knows_far(), "\"127.0.0.1:1\"");
    let error = check(&path, None, PATIENCE).expect_err("no key");
    assert!(error.to_string().contains("nowhere.key"), "{error}");
    assert!(matches!(error, NotChecked::Config(error) if error.is_hosts_doing()));
}
