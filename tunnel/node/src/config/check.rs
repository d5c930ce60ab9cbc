//! The sections of the file, field by field, and everything against everything else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringway_core::limits::SHARDS_MAX;
use ringway_core::words;
use ringway_crypto::{PeerProof, PublicKey, Suite};
use ringway_tunnel_proto::Target;

use super::error::{At, ConfigError, WrongIdentity};
use super::read::{Item, Kind, Section, Source};
use super::value::{is_name, rate, span, target};
use super::{
    ADDRESSES_MAX, CARRIERS_MAX, Compress, Config, Door, Host, Identity, Keys, LISTENERS_MAX,
    Listener, PEERS_MAX, Peer, PeerIndex, RULES_MAX, SERVICES_MAX, Service,
};
use crate::key_file::KeyFileError;
use crate::policy::{Policy, Rule};
use ringway_tunnel_proto::limits::{
    CARRIERS_DEFAULT, FLOWS_DEFAULT, FLOWS_MAX, KEYS_MAX, MEMORY, MEMORY_DEFAULT, WAIT_DEFAULT,
    WAIT_MAX,
};

/// Bytes of the path of a socket, by the kernel's rule.
const SOCKET_PATH_MAX: usize = 107;

const LISTEN: &str = "an address and a port, for example \"127.0.0.1:1080\" or \"[::1]:1080\"";
const NAME: &str = "1 to 64 letters, digits, hyphens, dots and underscores";
const BOOL: &str = "true or false";
const OF_PEER: &str = "the name of a [[peer]]";

static TUNNEL: Kind = Kind {
    title: "[tunnel]",
    fields: &[
        (
            "network_key",
            "the file of the key that all sites share (`ringway keygen --network FILE` makes it), \
             or a list of two for a change",
        ),
        ("key", "the file of this side's private key, or a list of two for a change"),
        (
            "listen",
            "an address and a port where carriers come in, for example \"0.0.0.0:4600\", or a list",
        ),
        ("shards", "\"auto\" or 0 (one for each core), or a number from 1 to 128"),
        (
            "ciphers",
            "a list of \"aes-128-gcm\", \"aes-256-gcm\" and \"chacha20-poly1305\", each once",
        ),
        ("flows_max", "a number of flows from 1 to 1048576"),
        ("memory", "a size with its unit, from \"1 MiB\" to \"1 TiB\""),
        (
            "wait",
            "a time with its unit, for example \"60 s\", \"500 ms\" or \"5 min\", to \"24 h\"",
        ),
        ("resolve_names", BOOL),
        ("socket", "the path of a socket, of at most 107 bytes"),
        ("admin", "a loopback address and a port, for example \"127.0.0.1:9464\""),
    ],
    others: &[
        ("bind", "listen"),
        ("address", "listen"),
        ("private_key", "key"),
        ("threads", "shards"),
        ("cores", "shards"),
        ("metrics", "admin"),
        ("cipher", "ciphers"),
        ("timeout", "wait"),
    ],
};

static PEER: Kind = Kind {
    title: "[[peer]]",
    fields: &[
        ("name", NAME),
        ("public_key", "\"ringway-public:...\", or a list of two for a change"),
        ("shared_key", "the file of a key of exactly you two, or a list of two for a change"),
        ("psk", "the file of a second secret beside public_key"),
        (
            "addresses",
            "a host or an address and a port, for example \"gw.example:4600\", or a list of up to \
             16",
        ),
        ("carriers", "a number from 1 to 64"),
        ("udp", BOOL),
        ("allow", "a list of what the peer may reach, for example [\"10.0.0.0/8:22\"]"),
        ("rate", "a rate with its unit, for example \"100 Mbit/s\" or \"10 MB/s\""),
    ],
    others: &[
        ("key", "public_key"),
        ("preshared_key", "shared_key"),
        ("presharedkey", "shared_key"),
        ("endpoint", "addresses"),
        ("address", "addresses"),
        ("listen", "addresses"),
        ("connect", "addresses"),
        ("spawn_max", "carriers"),
        ("datagrams", "udp"),
        ("allowed", "allow"),
        ("targets", "allow"),
        ("allowed_ips", "allow"),
        ("limit", "rate"),
        ("bandwidth", "rate"),
    ],
};

static FORWARD: Kind = Kind {
    title: "[[forward]]",
    fields: &[
        ("listen", LISTEN),
        ("peer", OF_PEER),
        (
            "to",
            "an address or a name at the peer's side and a port, for example \"127.0.0.1:80\" or \
             \"db.internal:5432\", or \"service:NAME\"",
        ),
        ("compress", "\"auto\" or \"off\""),
        ("public", BOOL),
    ],
    others: &[("bind", "listen"), ("from", "listen"), ("target", "to"), ("remote", "to")],
};

const DOOR_FIELDS: &[(&str, &str)] = &[("listen", LISTEN), ("peer", OF_PEER), ("public", BOOL)];

static SOCKS5: Kind = Kind { title: "[[socks5]]", fields: DOOR_FIELDS, others: FORWARD.others };

static HTTP_CONNECT: Kind =
    Kind { title: "[[http_connect]]", fields: DOOR_FIELDS, others: FORWARD.others };

static SERVICE: Kind = Kind {
    title: "[[service]]",
    fields: &[
        ("name", NAME),
        ("to", "an address or a name and a port, for example \"127.0.0.1:80\""),
        ("proxy_protocol", BOOL),
    ],
    others: &[("target", "to"), ("address", "to"), ("proxy", "proxy_protocol")],
};

/// Every kind of section.
pub(super) static KINDS: [&Kind; 6] = [&TUNNEL, &PEER, &FORWARD, &SOCKS5, &HTTP_CONNECT, &SERVICE];

/// Everything that the text says.
pub(super) fn config(
    source: Source<'_>,
    host: &Host,
    keys: &mut dyn Keys,
) -> Result<Config, ConfigError> {
    let document = source.document()?;
    source.check_sections(&document, &KINDS)?;
    let tunnel = source.sections(&document, &TUNNEL, 1)?.pop();
    let tunnel = tunnel.ok_or_else(|| ConfigError::Missing {
        at: source.at(0),
        section: "the file",
        field: TUNNEL.title,
        wanted: "the section with network_key, and with listen where carriers come in",
    })?;
    let mut check = Check { source, keys, taken: BTreeMap::new() };
    let mut config = check.tunnel(&tunnel, host)?;
    let resolve_names = tunnel.flag("resolve_names", true)?;
    config.services = check.services(source.sections(&document, &SERVICE, SERVICES_MAX)?)?;
    let peers = source.sections(&document, &PEER, PEERS_MAX)?;
    check.peers(peers, resolve_names, &mut config)?;
    for kind in [&FORWARD, &SOCKS5, &HTTP_CONNECT] {
        for section in source.sections(&document, kind, LISTENERS_MAX)? {
            let listener = check.listener(&section, kind, &config)?;
            config.listeners.push(listener);
        }
    }
    if config.peers.is_empty() && config.listen.is_empty() {
        return Err(ConfigError::Nobody(source.path.to_owned()));
    }
    Ok(config)
}

/// Where the socket is, and nothing else of the text.
pub(super) fn socket_of(source: Source<'_>, host: &Host) -> Result<PathBuf, ConfigError> {
    let document = source.document()?;
    let tunnel = source.sections(&document, &TUNNEL, 1)?.pop();
    let named = tunnel.map(|tunnel| tunnel.one("socket")).transpose()?.flatten();
    socket(source, named, host)
}

fn socket(source: Source<'_>, named: Option<Item>, host: &Host) -> Result<PathBuf, ConfigError> {
    let fits = |path: &Path| path.as_os_str().len() <= SOCKET_PATH_MAX;
    match named {
        Some(item) => {
            let path = path(source, &item)?;
            if fits(&path) { Ok(path) } else { Err(item.wrong()) }
        }
        None => {
            let name = source.path.file_stem().unwrap_or("tunnel".as_ref());
            Ok(host.runtime_dir.join(name).with_added_extension("sock"))
        }
    }
}

/// A path is meant from where the file is.
fn path(source: Source<'_>, item: &Item) -> Result<PathBuf, ConfigError> {
    if item.text.is_empty() || item.text.contains('\0') {
        return Err(item.wrong());
    }
    Ok(source.path.parent().unwrap_or(Path::new("")).join(&item.text))
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// What was seen so far, to compare with.
struct Check<'a> {
    source: Source<'a>,
    keys: &'a mut dyn Keys,
    /// By port: addresses that sockets will be bound to, and their lines.
    taken: BTreeMap<u16, Vec<(SocketAddr, usize)>>,
}

impl Check<'_> {
    fn tunnel(&mut self, tunnel: &Section<'_>, host: &Host) -> Result<Config, ConfigError> {
        let shards = match tunnel.one("shards")? {
            Some(item) if item.text != "auto" && item.text != "0" => {
                let count = |text: &str| words::number(text).filter(|n| *n <= SHARDS_MAX as u64);
                item.read(count)? as usize
            }
            Some(_) => host.cores.clamp(1, SHARDS_MAX),
            None => 1,
        };
        let memory_bytes = match tunnel.one("memory")? {
            Some(item) => item.read(|text| words::size(text).filter(|n| MEMORY.contains(n)))?,
            None => MEMORY_DEFAULT,
        };
        let wait = match tunnel.one("wait")? {
            Some(item) => item.read(|text| span(text).filter(|wait| *wait <= WAIT_MAX))?,
            None => WAIT_DEFAULT,
        };
        let networks = self.key_list(tunnel, "network_key", |keys, path| keys.network(path))?;
        if networks.is_empty() {
            return Err(tunnel.missing("network_key"));
        }
        let mut listen = Vec::new();
        for item in tunnel.list("listen", ADDRESSES_MAX)? {
            let addr = item.read(address)?;
            self.take(addr, &item.at)?;
            listen.push(addr);
        }
        Ok(Config {
            networks,
            identities: self.key_list(tunnel, "key", |keys, path| keys.private(path))?,
            listen,
            shards,
            suites: suites(tunnel)?,
            flows_max: tunnel.within("flows_max", FLOWS_DEFAULT as u64, 1..=FLOWS_MAX as u64)?
                as usize,
            memory_bytes,
            wait,
            socket: socket(self.source, tunnel.one("socket")?, host)?,
            admin: self.admin(tunnel)?,
            peers: Vec::new(),
            listeners: Vec::new(),
            services: Vec::new(),
            proofs: Vec::new(),
        })
    }

    fn admin(&mut self, tunnel: &Section<'_>) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(item) = tunnel.one("admin")? else { return Ok(None) };
        let addr = item.read(address)?;
        if !addr.ip().to_canonical().is_loopback() {
            return Err(ConfigError::AdminNotLocal { at: item.at, addr });
        }
        self.take(addr, &item.at)?;
        Ok(Some(addr))
    }

    /// The keys in the files that a field names, of which there are at most two.
    fn key_list<K: PartialEq>(
        &mut self,
        section: &Section<'_>,
        field: &str,
        read: fn(&mut dyn Keys, &Path) -> Result<K, KeyFileError>,
    ) -> Result<Vec<K>, ConfigError> {
        let mut all: Vec<K> = Vec::new();
        for item in section.list(field, KEYS_MAX)? {
            let path = path(self.source, &item)?;
            let (at, field) = (item.at.clone(), item.field);
            let key = read(self.keys, &path);
            let key = key.map_err(|source| ConfigError::Key { at, field, source })?;
            if all.contains(&key) {
                let wanted = "two different keys, where there is a list";
                return Err(ConfigError::Value { at: item.at, field, given: item.text, wanted });
            }
            all.push(key);
        }
        Ok(all)
    }

    /// Notes that a socket will be bound to `addr`.
    fn take(&mut self, addr: SocketAddr, at: &At) -> Result<(), ConfigError> {
        let ip = addr.ip().to_canonical();
        // Port 0 is whichever is free.
        if addr.port() == 0 {
            return Ok(());
        }
        let taken = self.taken.entry(addr.port()).or_default();
        let meets = |other: &SocketAddr| {
            let other = other.ip().to_canonical();
            let same_family = other.is_ipv4() == ip.is_ipv4();
            other == ip || (same_family && (other.is_unspecified() || ip.is_unspecified()))
        };
        if let Some((_, first)) = taken.iter().find(|(other, _)| meets(other)) {
            let (at, first) = (at.clone(), *first);
            return Err(ConfigError::TakenTwice { at, addr, first });
        }
        taken.push((addr, at.line));
        Ok(())
    }

    fn services(&self, sections: Vec<Section<'_>>) -> Result<Vec<Service>, ConfigError> {
        let mut names = Names::new("service");
        let mut services = Vec::with_capacity(sections.len());
        for section in sections {
            services.push(Service {
                name: names.take(&section)?,
                to: section.must("to")?.read(|text| Target::parse(text).ok())?,
                proxy_protocol: section.flag("proxy_protocol", false)?,
            });
        }
        Ok(services)
    }

    fn peers(
        &mut self,
        sections: Vec<Section<'_>>,
        resolve_names: bool,
        config: &mut Config,
    ) -> Result<(), ConfigError> {
        let mut names = Names::new("peer");
        let mut seen = Seen::default();
        for (index, section) in sections.iter().enumerate() {
            let name = names.take(section)?;
            let identity = self.identity(section, &name, config, &mut seen)?;
            let mut addresses = Vec::new();
            for item in section.list("addresses", ADDRESSES_MAX)? {
                addresses.push(item.read(|text| Target::parse(text).ok())?);
            }
            if addresses.is_empty() && config.listen.is_empty() {
                return Err(ConfigError::Nowhere { at: section.at.clone(), peer: name });
            }
            let index = PeerIndex(index as u16);
            config.proofs.extend(identity.proofs().into_iter().map(|proof| (proof, index)));
            let carriers =
                section.within("carriers", CARRIERS_DEFAULT as u64, 1..=CARRIERS_MAX as u64)?;
            config.peers.push(Peer {
                name,
                identity,
                addresses,
                carriers: carriers as usize,
                udp: section.flag("udp", false)?,
                policy: policy(section, resolve_names, &config.services)?,
                rate: section.one("rate")?.map(|item| item.read(rate)).transpose()?,
            });
        }
        config.proofs.sort_unstable();
        Ok(())
    }

    fn identity(
        &mut self,
        section: &Section<'_>,
        peer: &str,
        config: &Config,
        seen: &mut Seen,
    ) -> Result<Identity, ConfigError> {
        let mut publics = Vec::new();
        for item in section.list("public_key", KEYS_MAX)? {
            let (at, peer) = (item.at.clone(), peer.to_owned());
            let key = PublicKey::from_text(&item.text);
            let key = key.map_err(|source| ConfigError::PublicKey { at: at.clone(), source })?;
            if config.identities.iter().any(|mine| mine.public() == key) {
                return Err(ConfigError::OwnKey { at, peer });
            }
            seen.take(PeerProof::Key(key), "public_key", &peer, at)?;
            publics.push(key);
        }
        let shared = self.key_list(section, "shared_key", |keys, path| keys.shared(path))?;
        let psk = match section.one("psk")? {
            Some(_) => self.key_list(section, "psk", |keys, path| keys.shared(path))?.pop(),
            None => None,
        };
        let first = shared.iter().map(|secret| ("shared_key", secret));
        for (field, secret) in first.chain(psk.iter().map(|secret| ("psk", secret))) {
            let at = section.at_of(field);
            seen.take(PeerProof::Shared(secret.id()), field, peer, at)?;
        }
        let wrong = match (publics.is_empty(), shared.is_empty(), &psk) {
            (true, true, None) => WrongIdentity::Neither,
            (false, false, _) => WrongIdentity::Both,
            (true, _, Some(_)) => WrongIdentity::PskAlone,
            (false, true, _) if config.identities.is_empty() => WrongIdentity::NoPrivateKey,
            (false, true, _) => return Ok(Identity::Keys { publics, psk }),
            (true, false, None) => return Ok(Identity::Shared(shared)),
        };
        let (at, peer) = (section.at.clone(), peer.to_owned());
        Err(ConfigError::Identity { at, peer, wrong })
    }

    fn listener(
        &mut self,
        section: &Section<'_>,
        kind: &Kind,
        config: &Config,
    ) -> Result<Listener, ConfigError> {
        let item = section.must("listen")?;
        let listen = item.read(address)?;
        if !listen.ip().to_canonical().is_loopback() && !section.flag("public", false)? {
            return Err(ConfigError::Public { at: item.at, addr: listen });
        }
        self.take(listen, &item.at)?;
        let peer = section.must("peer")?;
        let names = || config.peers.iter().map(|peer| peer.name.as_str());
        let index = config.peer_named(&peer.text);
        let index = index.ok_or_else(|| nothing("[[peer]]", &peer.at, &peer.text, names()))?;
        let door = match kind.title {
            "[[forward]]" => Door::Forward {
                to: section.must("to")?.read(target)?,
                compress: match section.one("compress")? {
                    None => Compress::Auto,
                    Some(item) => item.read(|text| match text {
                        "auto" => Some(Compress::Auto),
                        "off" => Some(Compress::Off),
                        _ => None,
                    })?,
                },
            },
            "[[socks5]]" => Door::Socks5,
            _ => Door::HttpConnect,
        };
        Ok(Listener { listen, peer: index, door })
    }
}

fn suites(tunnel: &Section<'_>) -> Result<Vec<Suite>, ConfigError> {
    let mut suites = Vec::new();
    for item in tunnel.list("ciphers", Suite::ALL.len())? {
        let suite = item.read(Suite::from_name)?;
        if suites.contains(&suite) {
            return Err(item.wrong());
        }
        suites.push(suite);
    }
    if suites.is_empty() { Ok(Suite::ALL.to_vec()) } else { Ok(suites) }
}

fn policy(
    section: &Section<'_>,
    resolve_names: bool,
    services: &[Service],
) -> Result<Policy, ConfigError> {
    let mut rules = Vec::new();
    for item in section.list("allow", RULES_MAX)? {
        let Item { text: given, at, .. } = item;
        let rule: Rule = match given.parse() {
            Ok(rule) => rule,
            Err(source) => return Err(ConfigError::Rule { at, given, source }),
        };
        if !resolve_names && matches!(rule, Rule::Host(..) | Rule::Below(..)) {
            return Err(ConfigError::NoNames { at, given });
        }
        if let Rule::Service(name) = &rule
            && services.iter().all(|service| service.name != *name)
        {
            let names = services.iter().map(|service| service.name.as_str());
            return Err(nothing("[[service]]", &at, name, names));
        }
        rules.push(rule);
    }
    Ok(Policy::new(rules, resolve_names))
}

fn nothing<'a>(
    what: &'static str,
    at: &At,
    name: &str,
    there: impl Iterator<Item = &'a str>,
) -> ConfigError {
    let meant = words::nearest(name, there).map(str::to_owned);
    ConfigError::Nothing { at: at.clone(), what, name: name.to_owned(), meant }
}

/// Names, each of which may be taken once.
struct Names {
    what: &'static str,
    lines: BTreeMap<String, usize>,
}

impl Names {
    fn new(what: &'static str) -> Names {
        Names { what, lines: BTreeMap::new() }
    }

    fn take(&mut self, section: &Section<'_>) -> Result<String, ConfigError> {
        let item = section.must("name")?;
        let name = item.read(|text| is_name(text).then(|| text.to_owned()))?;
        match self.lines.insert(name.clone(), item.at.line) {
            None => Ok(name),
            Some(first) => Err(ConfigError::Twice { at: item.at, what: self.what, name, first }),
        }
    }
}

/// Keys of peers, each of which may be taken once.
#[derive(Default)]
struct Seen(BTreeMap<PeerProof, (String, usize)>);

impl Seen {
    fn take(
        &mut self,
        proof: PeerProof,
        field: &'static str,
        peer: &str,
        at: At,
    ) -> Result<(), ConfigError> {
        match self.0.insert(proof, (peer.to_owned(), at.line)) {
            None => Ok(()),
            Some((other, first)) => Err(ConfigError::SameKey { at, field, other, first }),
        }
    }
}
