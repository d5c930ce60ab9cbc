//! Stories of the configuration: what is typed, what it becomes, and the texts of all errors.

use super::*;

fn host() -> Host {
    Host { cores: 4, memory_bytes: 10 << 30, state_home: Some(PathBuf::from("/srv/state")) }
}

fn file(text: &str) -> Result<Config, ConfigError> {
    let mut draft = Draft::default();
    draft.read_text(text, Path::new("/etc/ringway.toml"))?;
    draft.check(&host())
}

fn refusal(text: &str) -> String {
    file(text).expect_err(text).to_string()
}

const REMOTE: &str = "listen = \"0.0.0.0:7400\"\n";

/// Nothing typed: a local server on all cores, with its state where the user keeps such things.
#[test]
fn the_defaults_serve() {
    let config = file("").expect("defaults are valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
    assert_eq!((config.shards, config.pin, config.spin), (4, true, false));
    assert_eq!(config.state, StatePlace::Dir(PathBuf::from("/srv/state/ringway")));
    assert_eq!(config.memory_bytes_max, 8 << 30);
    assert_eq!(config.lease_max, Span::from_s(30));
    assert_eq!(config.admin.to_string(), "127.0.0.1:7480");
    assert_eq!(config.access, Access::Anyone);
    assert!(config.own_ports);
}

/// Quotas name a namespace each, once, and how many names it may have.
#[test]
fn quotas_are_read() {
    let quotas = file("quotas = \"orders=1_000_000, jobs = 500\"").expect("valid").quotas;
    assert_eq!(quotas, [("orders".to_owned(), 1_000_000), ("jobs".to_owned(), 500)]);
    assert_eq!(file("").expect("valid").quotas, []);
    for wrong in ["orders", "orders=many", "a/b=3", "=3", "a=1,a=2", "a=-1"] {
        let text = refusal(&format!("\nquotas = \"{wrong}\""));
        assert!(text.starts_with("/etc/ringway.toml:2: quotas is "), "{text}");
    }
}

/// A flag beats the file, and the file beats the default, whatever the order they were given in.
#[test]
fn flags_beat_the_file() {
    let mut draft = Draft::default();
    draft.flag(Key::Shards, "2");
    let text = "shards = 3\nmax_lease_ms = 60_000\nprofile = \"wan\"";
    draft.read_text(text, Path::new("ringway.toml")).expect("well formed");
    let config = draft.check(&host()).expect("valid");
    assert_eq!((config.shards, config.lease_max), (2, Span::from_s(60)));
    assert_eq!(config.profile, Profile::Wan);
    assert!(config.spin, "two of four cores are left for others");
}

/// F2: what `--print-config` prints is a file that means the same.
#[test]
fn the_printed_configuration_reads_back() {
    let texts = [
        "",
        "listen = \"[::1]:7500\"\nadmin = \"unix:/run/ringway.sock\"\nshards = 2\nspin = false",
        "listen = \"10.0.0.1:7400\"\ncredentials = \"users.toml\"\nallow_plain_remote = true\n\
         state_dir = \"temporary\"\nlog_level = \"trace\"\nlog_format = \"json\"\npin = false",
        "quotas = \"orders=1_000_000, jobs = 500,\"\ntunnel = \"near.toml\"",
        "admin = \"off\"\nstate_dir = \"with \\\"quotes\\\"\"\nmax_memory = \"1GiB\"\ndrain_ms = 0",
    ];
    for text in texts {
        let config = file(text).expect("valid");
        let printed = config.to_toml();
        assert_eq!(file(&printed).expect("valid"), config, "{printed}");
        for key in Key::ALL {
            let start = format!("{} = ", key.name());
            assert!(printed.lines().any(|line| line.starts_with(&start)), "{key:?}");
        }
    }
}

/// A path in a file is meant from the file's place.
#[test]
fn paths_start_at_their_file() {
    let text = "state_dir = \"var\"\ncredentials = \"/abs/users\"\ntunnel = \"near.toml\"";
    let config = file(text).expect("valid");
    assert_eq!(config.state, StatePlace::Dir(PathBuf::from("/etc/var")));
    assert_eq!(config.access, Access::Users(PathBuf::from("/abs/users")));
    assert_eq!(config.beside, Beside::Tunnel(PathBuf::from("/etc/near.toml")));
    assert_eq!(file("").expect("valid").beside, Beside::Nothing);
}

/// Every error says where it is and what to write instead.
#[test]
fn errors_say_where_and_what() {
    for (text, said) in [
        (
            "\n\nshard = 2",
            "/etc/ringway.toml:3: there is no key \"shard\"; did you mean \"shards\"?",
        ),
        ("port = 7400", "/etc/ringway.toml:1: there is no key \"port\"; did you mean \"listen\"?"),
        ("colour = \"red\"", "there are: listen, shards, own_ports, state_dir,"),
        ("shards = 2\nshards = 3", "/etc/ringway.toml:2: duplicate key"),
        ("listen = ", "/etc/ringway.toml:1: "),
        ("\nshards = two", "; shards takes \"auto\" (one for each core) or a number from 1 to 128"),
        ("max_lease_ms = 30s", "; max_lease_ms takes milliseconds"),
        (
            "# ours\nshards = \"many\"",
            "/etc/ringway.toml:2: shards is \"many\", but it takes \"auto\" (one for each core) or \
             a number from 1 to 128",
        ),
        ("shards = 0", "but it takes \"auto\""),
        ("shards = -1", "but it takes \"auto\""),
        ("shards = 0x4", "shards is \"integer\", but"),
        ("shards = [2]", "shards is \"array\", but"),
        ("[listen]\nport = 7400", "listen is \"table\", but it takes an address and a port"),
        ("listen = \"7400\"", "listen is \"7400\", but it takes an address and a port"),
        ("own_ports = \"yes\"", "own_ports is \"yes\", but it takes true or false"),
        ("max_memory = \"lots\"", "max_memory is \"lots\", but it takes a share"),
        ("max_memory = \"11GiB\"", "this host has 10737418240"),
        ("max_memory = 1000", "4 shards need at least 132120576 (126MiB)"),
        ("max_lease_ms = 5", "max_lease_ms is \"5\", but it takes milliseconds"),
        ("profile = \"vm\"\nmax_lease_ms = 50", "max_lease_ms is \"50\""),
        ("profile = \"moon\"", "profile is \"moon\", but it takes \"lan\", \"vm\" or \"wan\""),
        ("admin = \"unix:\"", "admin is \"unix:\", but it takes a loopback address"),
        ("admin = \"0.0.0.0:7480\"", "admin is 0.0.0.0:7480, which others can reach"),
        ("admin = \"127.0.0.1:7402\"", "port 7402 is also that of the listener or of one of the 4"),
        ("listen = \"127.0.0.1:65533\"", "leaves no room for the shards' own ports"),
        ("credentials = \"\"", "credentials is \"\", but it takes a file"),
        (
            "shards = 8",
            "/etc/ringway.toml:1: shards asks for 8 shards, but this process may use 4 cores",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(said), "{text}\n said: {error}\n not:  {said}");
    }
    let mut draft = Draft::default();
    draft.flag(Key::Drain, "soon");
    let error = draft.check(&host()).expect_err("not a number").to_string();
    assert!(error.starts_with("--drain-ms is \"soon\", but it takes milliseconds"), "{error}");
}

/// F1: beyond loopback, in any spelling, both conditions or nothing; the error says which is there.
#[test]
fn a_plain_remote_listener_needs_both() {
    for (more, credentials, consent) in [
        ("", "missing", "missing"),
        ("credentials = \"u\"", "given", "missing"),
        ("allow_plain_remote = true", "missing", "given"),
    ] {
        for listen in ["0.0.0.0:7400", "[::]:7400", "192.168.1.5:7400", "[::ffff:10.0.0.1]:7400"] {
            let error = refusal(&format!("listen = \"{listen}\"\n{more}"));
            assert!(error.starts_with("/etc/ringway.toml:1: listen is "), "{error}");
            assert!(error.contains(&format!("`ringway credentials add` ({credentials})")));
            assert!(error.contains(&format!("yours alone ({consent})")), "{error}");
        }
    }
    file(&format!("{REMOTE}credentials = \"u\"\nallow_plain_remote = true")).expect("both");
    file("listen = \"127.9.9.9:7400\"").expect("still loopback");
    file("listen = \"localhost:7400\"").expect("still loopback");
}

/// What the host lacks is told apart from what was typed wrongly: another exit code.
#[test]
fn the_hosts_part_is_told_apart() {
    assert!(file("shards = 8").expect_err("too many").is_hosts_doing());
    assert!(!file("shards = 0").expect_err("no number of shards").is_hosts_doing());
    let homeless = Host { state_home: None, ..host() };
    let error = Draft::default().check(&homeless).expect_err("no place for the state");
    assert!(error.is_hosts_doing() && error.to_string().contains("--state"), "{error}");
    let mut draft = Draft::default();
    let error = draft.read_file(Path::new("/nonexistent/ringway.toml")).expect_err("no file");
    assert!(error.to_string().contains("/nonexistent/ringway.toml"), "{error}");
    assert!(matches!(draft.read_file(Path::new("/dev/zero")), Err(ConfigError::TooLong(_))));
    assert!(Host::probe().cores >= 1);
    file("shards = 8\npin = false").expect("shared cores, on purpose");
}
