//! Stories of two sites that become peers, and of what is left when they do not.

use std::collections::BTreeMap;

use ringway_crypto::PeerProof;

use super::*;
use crate::config::Identity;
use crate::policy::Verdict;

/// A directory with a far side, as somebody wrote it.
struct Site {
    dir: tempfile::TempDir,
    far: PathBuf,
}

const FAR: &str = "# Ours. Do not touch!\n[tunnel]   # the far side\nnetwork_key = 'network.key'\n\
    listen = \"0.0.0.0:4600\" # carriers\n\n[[service]]\nname = \"web\"\nto = \"127.0.0.1:80\"";

impl Site {
    fn new(text: &str) -> Site {
        let dir = tempfile::tempdir().expect("temporary directory");
        let far = dir.path().join("far.toml");
        std::fs::write(&far, text).expect("writes");
        make(KeyKind::Network, &dir.path().join("network.key")).expect("a new file");
        Site { dir, far }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All files with their contents.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(self.dir.path()).expect("readable");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.is_file()).map(|path| (path.clone(), bytes(&path))).collect()
    }

    fn invite(&self, guest: &str) -> Result<Invited, PairError> {
        invite(&self.far, &asked(guest))
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("readable")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

fn asked(name: &str) -> Guest {
    Guest {
        name: name.to_owned(),
        inviter: None,
        addresses: vec![Target::parse("gw.example:4600").expect("an address")],
        allow: vec!["127.0.0.1:5201".parse().expect("a rule"), "service:web".parse().expect("one")],
        valid: Span::from_s(3600),
    }
}

fn said<T>(result: Result<T, PairError>) -> String {
    result.err().expect("refused").to_string()
}

/// From an invitation to two configurations that know each other by one secret.
#[test]
fn two_sites_become_peers() {
    let site = Site::new(FAR);
    std::fs::set_permissions(&site.far, Permissions::from_mode(0o640)).expect("own file");
    let invited = site.invite("branch").expect("a new peer");
    assert_eq!((invited.invite.inviter.as_str(), &invited.other_ports), ("gw", &vec![]));
    let text = std::fs::read_to_string(&site.far).expect("text");
    assert!(text.starts_with(FAR), "J2: {text}");
    assert_eq!((mode(&site.far), mode(&site.path("branch.psk"))), (0o640, 0o600));
    assert!(!site.path(".far.toml.new").exists());
    let far = Config::load(&site.far).expect("ready to run");
    let branch = far.peer_named("branch").expect("it was added");
    let target = Target::parse("127.0.0.1:5201").expect("a target");
    assert!(matches!(far.peer(branch).policy.may_ask(&target), Verdict::Connect(_)));

    let line = invited.invite.to_line();
    let invite = Invite::from_line(&line).expect("what was printed");
    let near = tempfile::tempdir().expect("temporary directory");
    let path = near.path().join("near.toml");
    let wanted = Wanted {
        name: None,
        forwards: vec![("127.0.0.1:15201".parse().expect("an address"), target)],
        socks5: vec!["127.0.0.1:1080".parse().expect("an address")],
    };
    let joined = join(&invite, &path, &wanted).expect("new files");
    assert_eq!(joined.name, "gw");
    assert_eq!((mode(&joined.shared_key), mode(&joined.network_key)), (0o600, 0o600));
    let near = Config::load(&path).expect("ready to run");
    assert!(near.networks == far.networks && near.listeners.len() == 2);
    assert_eq!(near.peers[0].addresses, invite.addresses);
    let Identity::Shared(secrets) = &near.peers[0].identity else { panic!("a shared key") };
    assert_eq!(far.peer_of(&PeerProof::Shared(secrets[0].id())), Some(branch));
}

/// Root invites for a tunnel that runs as another user: that user can read the new key, too.
#[test]
fn the_new_key_belongs_to_whom_the_configuration_belongs() {
    let site = Site::new(FAR);
    let file = File::open(&site.far).expect("it was just written");
    let other = match rustix::process::geteuid().is_root() {
        true => (65_534, 65_533),
        false => (file.metadata().expect("ours").uid(), file.metadata().expect("ours").gid()),
    };
    fchown(&file, Some(other.0), Some(other.1)).expect("we may");
    site.invite("branch").expect("a new peer");
    for name in ["far.toml", "branch.psk"] {
        let is = site.path(name).metadata().expect("it is there");
        assert_eq!((is.uid(), is.gid()), other, "{name}");
    }
    assert_eq!(mode(&site.path("branch.psk")), 0o600);
}

/// Each guest has a key of its own, and all stay.
#[test]
fn several_are_invited_one_after_the_other() {
    let site = Site::new(FAR);
    let lines =
        ["a", "b", "c"].map(|guest| site.invite(guest).expect("a new peer").invite.to_line());
    assert!(lines[0] != lines[1] && lines[1] != lines[2]);
    let names: Vec<_> = Config::load(&site.far).expect("valid").peers;
    assert_eq!(names.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

/// A link stays a link, and what it leads to is edited.
#[test]
fn a_link_is_followed() {
    let site = Site::new(FAR);
    std::fs::create_dir(site.path("real")).expect("makes");
    std::fs::rename(&site.far, site.path("real/far.toml")).expect("moves");
    std::os::unix::fs::symlink("real/far.toml", &site.far).expect("links");
    site.invite("branch").expect("a new peer");
    assert!(site.far.symlink_metadata().expect("there").is_symlink());
    assert!(Config::load(&site.far).expect("valid").peer_named("branch").is_some());
    assert!(site.path("branch.psk").exists(), "beside the name that the tunnel is started with");
}

/// J1: whatever stands in the way of an invitation, every file is as it was.
#[test]
fn a_refused_invitation_leaves_nothing() {
    let no_listen = FAR.replace("listen = ", "# ").replace(
        "[[service]]",
        "[[peer]]\nname = \"x\"\nshared_key = \"x.psk\"\naddresses = \"a:1\"\n[[service]]",
    );
    let inline = FAR.replace("[tunnel]", "peer = []\n[tunnel]");
    for (text, edit, told) in [
        (FAR, "taken", "branch.psk is there already, and a key is not overwritten"),
        (FAR, "busy", "another `ringway tunnel invite` is under way, or one was killed"),
        (FAR, "name", "\"a b\" is no name of a peer"),
        (FAR, "service", "there is no [[service]] \"mail\""),
        (FAR, "gone", "cannot read the configuration"),
        ("nonsense", "", "far.toml:1: "),
        (&no_listen, "", "has no listen, so nobody could come in"),
        (&inline, "", "would be wrong with this, so nothing was written"),
    ] {
        let site = Site::new(text);
        make(KeyKind::Shared, &site.path("x.psk")).expect("a new file");
        let mut asked = asked("branch");
        match edit {
            "taken" => std::fs::write(site.path("branch.psk"), "other").expect("writes"),
            "busy" => std::fs::write(site.path(".far.toml.new"), "").expect("writes"),
            "name" => asked.name = "a b".to_owned(),
            "service" => asked.allow.push("service:mail".parse().expect("a rule")),
            "gone" => std::fs::remove_file(&site.far).expect("removes"),
            _ => {}
        }
        let before = site.files();
        let error = said(invite(&site.far, &asked));
        assert!(error.contains(told), "{edit}\n said: {error}\n not:  {told}");
        assert_eq!(site.files(), before, "{edit}");
    }
    let site = Site::new(FAR);
    site.invite("branch").expect("a new peer");
    let before = site.files();
    assert!(said(site.invite("branch")).contains("has a peer \"branch\" already"));
    assert_eq!(site.files(), before);
}

/// J1 and J4: join overwrites nothing, and leaves nothing behind when it cannot finish.
#[test]
fn a_refused_join_leaves_nothing() {
    let site = Site::new(FAR);
    let invite = site.invite("branch").expect("a new peer").invite;
    for (there, told) in [
        ("near.toml", "near.toml is there already, and is not overwritten: name another file"),
        ("gw.psk", "gw.psk is there already, and a key is not overwritten"),
        ("gw.network.key", "gw.network.key is there already, and a key is not overwritten"),
    ] {
        let near = Site::new("");
        std::fs::write(near.path(there), "mine").expect("writes");
        let before = near.files();
        let error = said(join(&invite, &near.path("near.toml"), &Wanted::default()));
        assert!(error.contains(told), "{error}");
        assert_eq!(near.files(), before, "{there}");
    }
    let near = Site::new("");
    let before = near.files();
    let socks5 = vec!["0.0.0.0:1080".parse().expect("an address")];
    let open = Wanted { socks5, ..Wanted::default() };
    assert!(said(join(&invite, &near.path("n.toml"), &open)).contains("can be reached by others"));
    let named = Wanted { name: Some("../x".to_owned()), ..Wanted::default() };
    assert!(said(join(&invite, &near.path("n.toml"), &named)).contains("is no name of a peer"));
    let nowhere = near.path("nowhere/n.toml");
    assert!(said(join(&invite, &nowhere, &Wanted::default())).contains("gw.network.key"));
    assert_eq!(near.files(), before);
}

/// J5: an invitation is good for as long as was said, and then it is not; nothing is written.
#[test]
fn an_invitation_expires() {
    let site = Site::new(FAR);
    let asked_at = wall_ms() / 1000;
    let mut invite = site.invite("branch").expect("a new peer").invite;
    let (least, most) = (asked_at + 3600, wall_ms() / 1000 + 3600);
    assert!((least..=most).contains(&invite.until_s));
    let near = Site::new("");
    let before = near.files();
    invite.until_s = wall_ms() / 1000 - 7 * 3600;
    let error = said(join(&invite, &near.path("near.toml"), &Wanted::default()));
    assert!(error.contains("expired") && error.contains("good until 7 h ago"), "{error}");
    assert_eq!(near.files(), before);
    invite.until_s = wall_ms() / 1000 + 60;
    join(&invite, &near.path("near.toml"), &Wanted::default()).expect("there is a minute left");
}

/// The name that a side has for itself, where nobody says one.
#[test]
fn a_side_is_called_by_its_host() {
    let name = |text: &str| own_name(&[Target::parse(text).expect("an address")]);
    assert_eq!([name("gw7.example:1"), name("192.0.2.1:1"), name("_gw:1")], ["gw7", "far", "far"]);
}
