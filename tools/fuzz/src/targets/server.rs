//! What the server's shell reads: admin requests of anybody on the host, and its three files.
//!
//! The files are an operator's, who makes mistakes rather than attacks; but a server that panics
//! over one says nothing about where the mistake is. The oracles: an answer of the admin endpoint
//! is one of a few known ones, however the request is cut; what was checked is written and read
//! back as the same; a record of the state is read exactly as it is written.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use ringway_coord_server::admin::{Exchange, HEAD_BYTES_MAX, Health, NodeView};
use ringway_coord_server::config::{Access, Config, Draft, Host, Key};
use ringway_coord_server::credentials::{Credentials, Identities};
use ringway_coord_server::metrics::{ShardMetrics, ShardView};
use ringway_coord_server::quotas::NamespaceView;
use ringway_coord_server::state::{Record, ServerId, decode, encode, seal};
use ringway_core::{Epoch, Span};

use crate::Target;

/// A connection to the admin endpoint; the first byte says how the rest is cut.
pub const ADMIN: Target = Target {
    name: "admin",
    run: admin,
    seeds: admin_seeds,
    words: &[
        b"GET ",
        b"HEAD ",
        b" HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"/metrics",
        b"/healthz",
        b": ",
    ],
    bytes_max: 9 * 1024,
};

/// A configuration file.
pub const CONFIG: Target = Target {
    name: "config",
    run: config,
    seeds: config_seeds,
    words: &[b" = ", b"\n", b"\"", b"\"\"\"", b"listen", b"admin", b"unix:", b"auto", b"\xC3\xA9"],
    bytes_max: 2048,
};

/// A file of users.
pub const CREDENTIALS: Target = Target {
    name: "credentials",
    run: credentials,
    seeds: credentials_seeds,
    words: &[b"[[user]]\n", b" = ", b"name", b"token_sha256", b"namespaces", b"\"*\"", b"\xC3\xA9"],
    bytes_max: 2048,
};

/// The record of the state directory, as it is and with its checksum mended.
pub const STATE: Target = Target {
    name: "state",
    run: state,
    seeds: state_seeds,
    words: &[b" = ", b"\n", b"checksum = \"", b"epoch = ", b"longest_lease_ms = ", b"true"],
    bytes_max: 512,
};

/// A node that always says the same, so that there are as many answers as pages and mistakes.
struct Node;

impl NodeView for Node {
    fn shards(&self) -> Vec<ShardView> {
        vec![ShardMetrics::default().snapshot(0, Some(1))]
    }

    fn namespaces(&self) -> Vec<NamespaceView> {
        Vec::new()
    }

    fn health(&self) -> Health {
        Health::Starting { wait_ms: 1_250 }
    }
}

/// All answers there are: nothing that a peer says comes back to it.
fn answers() -> &'static BTreeSet<Vec<u8>> {
    static ANSWERS: OnceLock<BTreeSet<Vec<u8>>> = OnceLock::new();
    ANSWERS.get_or_init(|| {
        let pages = ["/", "/metrics", "/healthz", "/shards", "/none"];
        let asks = pages.iter().flat_map(|page| ["GET", "HEAD"].map(|verb| (verb, *page)));
        let requests = asks.map(|(verb, page)| format!("{verb} {page} HTTP/1.1\r\n\r\n"));
        let headers = "A: b\r\n".repeat(HEAD_BYTES_MAX / 7);
        let wrong = [
            "PUT / HTTP/1.1\r\n\r\n".to_owned(),
            "\0".to_owned(),
            format!("GET /{}", "a".repeat(HEAD_BYTES_MAX)),
            format!("GET / HTTP/1.1\r\n{headers}\r\n"),
        ];
        let answer = |request: String| Exchange::default().feed(request.as_bytes(), &Node);
        requests.chain(wrong).map(|request| answer(request).expect("a whole request")).collect()
    })
}

/// Feeds a request at once and in pieces.
pub fn admin(data: &[u8]) {
    let Some((cut, request)) = data.split_first() else { return };
    let at_once = Exchange::default().feed(request, &Node);
    let mut exchange = Exchange::default();
    let mut in_pieces = None;
    for piece in request.chunks(1 + usize::from(*cut)) {
        let answer = exchange.feed(piece, &Node);
        assert!(in_pieces.is_none() || answer.is_none(), "a second answer");
        in_pieces = in_pieces.or(answer);
    }
    assert_eq!(at_once, in_pieces, "the answer depends on the cut");
    match at_once {
        Some(answer) => assert!(answers().contains(&answer), "{}", answer.escape_ascii()),
        None => assert!(request.len() < HEAD_BYTES_MAX, "a head without an end"),
    }
}

/// A host on which most configurations are possible, and relative paths mean the same everywhere.
fn host() -> Host {
    Host { cores: 8, memory_bytes: 16 << 30, state_home: Some("/var/lib".into()) }
}

fn read_config(text: &str) -> Result<Config, String> {
    let mut draft = Draft::default();
    let path = Path::new("/etc/ringway/ringway.toml");
    draft.read_text(text, path).map_err(|error| error.to_string())?;
    draft.check(&host()).map_err(|error| error.to_string())
}

/// Reads a configuration. What is accepted can be printed and read again (F2), and is safe (F1).
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read_config(text) {
        Ok(config) => {
            let remote = !config.listen.ip().to_canonical().is_loopback();
            let known = config.access != Access::Anyone && config.allow_plain_remote;
            assert!(!remote || known, "F1: {text}");
            let printed = config.to_toml();
            assert_eq!(read_config(&printed).as_ref(), Ok(&config), "F2: {printed}");
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

/// Reads a file of users. Whoever it names is found, and nobody by a token of ours.
pub fn credentials(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let credentials =
        match Credentials::from_text(text, Path::new("users.toml"), &mut Identities::default()) {
            Ok(credentials) => credentials,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for principal in credentials.principals() {
        assert!(principal.id != 0 && ids.insert(principal.id), "a number of two users");
        assert!(!principal.name.is_empty() && names.insert(&principal.name), "a name of two");
        assert_eq!(credentials.verify(principal.name.as_bytes(), data), None);
        assert!(!principal.covers(b"\xFF/x") || principal.covers(b""), "no word is not UTF-8");
    }
    assert_eq!(credentials.verify(b"", b""), None);
}

/// Reads a record as it is; and, since hardly any damage survives the checksum, its text sealed.
pub fn state(data: &[u8]) {
    read_record(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = &text[..text.rfind("checksum = \"").unwrap_or(text.len())];
    read_record(seal(text.to_owned()).as_bytes());
}

fn read_record(bytes: &[u8]) {
    match decode(bytes) {
        Ok(record) => {
            assert_eq!(encode(&record).as_bytes(), bytes, "one record, one text");
            assert!(record.epoch <= Epoch::MAX);
            let lease = Span::from_ms(record.longest_lease_ms);
            assert_eq!(lease.as_ms_ceil(), record.longest_lease_ms, "the wait after a crash");
        }
        Err(damage) => assert!(!damage.to_string().is_empty()),
    }
}

fn admin_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let get = b"\xFFGET /healthz HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";
    let whole = |request: &[u8]| [&[255], request].concat();
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    vec![
        ("healthz", get.to_vec()),
        ("healthz-byte-by-byte", [&[0], &get[1..]].concat()),
        ("metrics", whole(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")),
        ("shards-twice", whole(&b"GET /shards HTTP/1.1\r\n\r\n".repeat(2))),
        ("head", whole(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("post", whole(b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")),
        ("not-there", whole(b"GET /etc/passwd HTTP/1.1\r\n\r\n")),
        ("half", whole(b"GET /healthz HTTP/1.1\r\nHost")),
        ("http-2", whole(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        ("tls", whole(b"\x16\x03\x01\x02\x00\x01")),
        ("too-many-headers", whole(headers.as_bytes())),
        ("too-long", whole(&[b"GET /".as_slice(), &[b'a'; HEAD_BYTES_MAX]].concat())),
    ]
}

fn config_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let all = read_config("").expect("the defaults").to_toml();
    let remote = "listen = \"0.0.0.0:7400\"\ncredentials = \"users.toml\"\n\
                  allow_plain_remote = true\nadmin = \"unix:/run/ringway.sock\"\n";
    let keys: String = Key::ALL.iter().map(|key| format!("{} = \"auto\"\n", key.name())).collect();
    vec![
        ("empty", Vec::new()),
        ("all-keys", all.into_bytes()),
        ("remote", remote.into()),
        ("remote-without-consent", "listen = \"[::]:7400\"\ncredentials = \"users.toml\"\n".into()),
        ("admin-not-local", "admin = \"10.0.0.1:7480\"\n".into()),
        ("port-clash", "listen = \"localhost:7400\"\nshards = 4\nadmin = \"[::1]:7402\"\n".into()),
        ("no-room-for-ports", "listen = \"127.0.0.1:65535\"\n".into()),
        ("memory", "max_memory = \"12 GiB\"\nmax_lease_ms = 30_000\nprofile = \"wan\"\n".into()),
        ("few-cores", "shards = 128\npin = true\n".into()),
        ("state-off", "state_dir = \"temporary\"\nadmin = \"off\"\ncredentials = \"off\"\n".into()),
        ("paths", "state_dir = \"\"\"\na\\tb\"\"\"\ncredentials = '../\"users\" \u{e9}'\n".into()),
        ("auto-everywhere", keys.into_bytes()),
        ("unknown-key", "# \u{e9}\u{e9}\nmax-memry = 1\n".into()),
        ("table", "[listen]\nx = 1\n".into()),
        ("not-toml", "listen: \u{1F600}\n".into()),
        ("string-not-closed", "listen = \"\u{e9}\u{e9}\u{e9}".into()),
        ("number-not-decimal", "drain_ms = 0x10\nspin = 1979-05-27\n".into()),
    ]
}

fn credentials_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let user = |name: &str, more: &str| {
        let digest = "5e".repeat(32);
        format!("[[user]]\nname = \"{name}\"\ntoken_sha256 = \"{digest}\"\n{more}\n").into_bytes()
    };
    let two =
        [user("shop", "namespaces = [\"orders\", \"carts\"]"), user("ops", "operator = true")];
    vec![
        ("one", user("a", "namespaces = [\"*\"]")),
        ("two", two.concat()),
        ("nobody", Vec::new()),
        ("twice", user("a", "").repeat(2)),
        ("namespace-with-slash", user("a", "namespaces = [\"x/y\"]")),
        ("name-with-space", user("a b", "")),
        ("name-not-ascii", user("\u{e9}\u{1F600}", "namespaces = [\"\u{e9}\"]")),
        ("digest-too-short", b"[[user]]\nname = \"a\"\ntoken_sha256 = \"5e\"\n".to_vec()),
        ("digest-not-ascii", user("a", "").into_iter().chain(*b"x = '\xC3\xA9").collect()),
        ("unknown-field", user("a", "password = \"x\"")),
        ("not-a-list", b"user = 3\n".to_vec()),
    ]
}

fn state_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let record = Record {
        server_id: ServerId(0x0123_4567_89AB_CDEF),
        epoch: Epoch(77),
        longest_lease_ms: 30_000,
        clean: false,
    };
    let text = encode(&record);
    let sealed = |from: &str, to: &str| {
        let text = text.replace(from, to);
        let at = text.rfind("checksum").expect("sealed");
        seal(text[..at].to_owned()).into_bytes()
    };
    let largest = u64::MAX / 1_000_000;
    vec![
        ("running", text.clone().into_bytes()),
        ("clean", encode(&Record { clean: true, longest_lease_ms: 0, ..record }).into_bytes()),
        ("last-epoch", encode(&Record { epoch: Epoch::MAX, ..record }).into_bytes()),
        ("epoch-too-large", sealed("epoch = 77", "epoch = 4294967295")),
        ("longest-lease", encode(&Record { longest_lease_ms: largest, ..record }).into_bytes()),
        ("lease-too-long", sealed("_ms = 30000", "_ms = 18446744073709551615")),
        ("number-with-sign", sealed("epoch = 77", "epoch = +77")),
        ("field-missing", sealed("clean = false\n", "")),
        ("field-twice", sealed("clean = false\n", "clean = false\nclean = true\n")),
        ("later-format", sealed("format = 1", "format = 2")),
        ("wrong-sum", text.replace("77", "78").into_bytes()),
        ("cut", text.as_bytes()[..text.len() / 2].to_vec()),
        ("empty", Vec::new()),
    ]
}
