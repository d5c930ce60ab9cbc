//! What a peer may reach through us: rules, and the answer for each flow that it opens.
//!
//! Nothing is allowed unless a rule allows it. A rule about a name says whose *answers* are
//! trusted, not what they are, so there are two questions: may this be asked for
//! ([`Policy::may_ask`], before a name is resolved), and may this address be connected to
//! ([`Policy::may_connect`], for each address that came back, right before the connection is made
//! to that very address).
//!
//! What always holds:
//! - P1  A special address (loopback, link-local, multicast, unspecified, those of metadata
//!   services; [`is_special`]) is reached by a rule that names exactly it, and by no other.
//! - P2  An IPv4 address is the same in each spelling that there is for it.
//! - P3  A name that no rule could allow is not resolved, so that nobody learns of it by DNS.
//! - P4  A service is reached by a rule that names it; `any` is about addresses and names.
//!
//! Bounds: [`RULES_MAX`] rules; both questions walk them once. No input, no state, no clock.
//! Not here: how rules are written in the file beyond their texts (`config.rs`).
//! Tests: stories and properties in `policy_tests.rs`; `tools/fuzz` reads rules.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ringway_tunnel_proto::Target;
pub use ringway_tunnel_proto::limits::RULES_MAX;
use thiserror::Error;

/// What a peer may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    resolve_names: bool,
}

/// One line of what is allowed. Its text is that of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Every address that is not special, every name; `any`, `any:443`.
    Any(Ports),
    /// The addresses of a network: `10.0.0.0/8:22`; or one: `127.0.0.1:80`, `[::1]:80`.
    Net(Net, Ports),
    /// A name, whatever it resolves to that is not special: `db.internal:5432`.
    Host(String, Ports),
    /// Every name below one: `*.example:443`. Kept with its first dot: `.example`.
    Below(String, Ports),
    /// A service of this side: `service:web`.
    Service(String),
}

/// Ports, the first and the last of them: `22`, `8000-8999`, `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

/// A network, or a single address. IPv4 is always written as such (P2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no rule, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoRule {
    /// Nothing that we know.
    #[error(
        "is no target; write \"10.0.0.7:22\", \"10.0.0.0/8:22\", \"[2001:db8::1]:443\", \
         \"db.internal:5432\", \"*.example:443\", \"service:NAME\" or \"any\""
    )]
    Malformed,
    /// No port, or not a port.
    #[error("names no port; write \"{0}:443\", \"{0}:8000-8999\", or \"{0}:*\" for every port")]
    Ports(String),
    /// Bits beyond the prefix: one of the two is not meant.
    #[error("has bits beyond its prefix; write \"{net}\" for the network or \"{address}\" alone")]
    Bits {
        /// The network.
        net: Net,
        /// The address.
        address: IpAddr,
    },
    /// A network of which nothing can be reached (P1).
    #[error(
        "allows nothing: {0} is a network of special addresses (loopback, link-local, multicast, \
         unspecified, metadata), and each of those must be named by itself, without a prefix"
    )]
    Special(Net),
    /// A name that stands for loopback (P1).
    #[error(
        "allows nothing: a name never reaches loopback; write \"127.0.0.1:PORT\" or \
         \"[::1]:PORT\""
    )]
    Localhost,
    /// `*` in a place where it means nothing.
    #[error(
        "has a * where none can be; write \"*.example:443\" for all names below one, or \
         \"any:443\" for all addresses and names"
    )]
    Star,
    /// Not a name.
    #[error("is no name of a host or a service: {0}")]
    Name(ringway_tunnel_proto::NoTarget),
}

/// What becomes of a flow, before anything is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// No.
    Denied(Denied),
    /// Connect to this address.
    Connect(SocketAddr),
    /// Resolve this name; each address that comes back is asked about by [`Policy::may_connect`].
    Resolve(&'a str, u16),
    /// Connect to what this side calls so.
    Service(&'a str),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No rule allows it.
    NoRule,
    /// Rules allow it but for P1: it is special, and none names exactly it.
    Special,
    /// It is a name, and this side resolves none (`resolve_names = false`).
    NoNames,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::NoRule => "no rule of `allow` covers it",
            Denied::Special => {
                "it is loopback, link-local, multicast or a metadata service, which only a rule \
                 of exactly that address allows"
            }
            Denied::NoNames => "it is a name, and resolve_names = false",
        })
    }
}

impl Policy {
    /// What these rules allow, of which there are at most [`RULES_MAX`]. Without `resolve_names`
    /// names are denied, whatever the rules say.
    pub fn new(rules: Vec<Rule>, resolve_names: bool) -> Policy {
        assert!(rules.len() <= RULES_MAX, "the configuration has counted them");
        Policy { rules, resolve_names }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What becomes of a flow to `target`.
    pub fn may_ask<'a>(&self, target: &'a Target) -> Verdict<'a> {
        match target {
            Target::Address(ip, port) => match self.address(*ip, *port) {
                Ok(()) => Verdict::Connect(SocketAddr::new(ip.to_canonical(), *port)),
                Err(why) => Verdict::Denied(why),
            },
            Target::Host(..) if !self.resolve_names => Verdict::Denied(Denied::NoNames),
            Target::Host(name, port) => {
                // A name may resolve to an address that a rule allows: that is seen afterwards.
                let could = |rule: &Rule| match rule {
                    Rule::Net(_, ports) => ports.contain(*port),
                    rule => rule.covers_name(name, *port),
                };
                match self.rules.iter().any(could) {
                    true => Verdict::Resolve(name, *port),
                    false => Verdict::Denied(Denied::NoRule),
                }
            }
            Target::Service(name) => match self.service(name) {
                true => Verdict::Service(name),
                false => Verdict::Denied(Denied::NoRule),
            },
        }
    }

    /// Whether the flow to `target` may be connected to this address, which is what its name was
    /// resolved to, or what it asked for. Of a service only its own rule is asked: where it leads
    /// is this side's configuration.
    pub fn may_connect(&self, target: &Target, resolved: IpAddr) -> bool {
        match target {
            Target::Address(ip, port) => {
                ip.to_canonical() == resolved.to_canonical()
                    && self.address(resolved, *port).is_ok()
            }
            Target::Host(..) if !self.resolve_names => false,
            Target::Host(name, port) => {
                let named = || self.rules.iter().any(|rule| rule.covers_name(name, *port));
                self.address(resolved, *port).is_ok() || (!is_special(resolved) && named())
            }
            Target::Service(name) => self.service(name),
        }
    }

    /// Whether a rule about addresses allows this one.
    fn address(&self, ip: IpAddr, port: u16) -> Result<(), Denied> {
        let ip = ip.to_canonical();
        let special = is_special(ip);
        let mut why = Denied::NoRule;
        for rule in &self.rules {
            let (covers, exactly) = match rule {
                Rule::Any(ports) => (ports.contain(port), false),
                Rule::Net(net, ports) => (ports.contain(port) && net.contains(ip), net.is_single()),
                Rule::Host(..) | Rule::Below(..) | Rule::Service(_) => (false, false),
            };
            match (covers, exactly || !special) {
                (true, true) => return Ok(()),
                (true, false) => why = Denied::Special,
                (false, _) => {}
            }
        }
        Err(why)
    }

    fn service(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| matches!(rule, Rule::Service(allowed) if allowed == name))
    }
}

impl Rule {
    /// Whether it allows the name itself, wherever it leads.
    fn covers_name(&self, name: &str, port: u16) -> bool {
        // `db.internal.` is the same name, said to be complete.
        let name = name.strip_suffix('.').unwrap_or(name);
        let (covers, ports) = match self {
            Rule::Any(ports) => (true, ports),
            Rule::Host(host, ports) => (name.eq_ignore_ascii_case(host), ports),
            Rule::Below(dotted, ports) => (is_below(name, dotted), ports),
            Rule::Net(..) | Rule::Service(_) => return false,
        };
        covers && ports.contain(port)
    }
}

/// Whether there is a label or more in front of `dotted`, and none of them is empty.
fn is_below(name: &str, dotted: &str) -> bool {
    let at = name.len().checked_sub(dotted.len());
    let parts = at.and_then(|at| name.split_at_checked(at));
    parts.is_some_and(|(front, end)| {
        end.eq_ignore_ascii_case(dotted) && front.split('.').all(|label| !label.is_empty())
    })
}

impl Ports {
    /// Every port.
    pub const ALL: Ports = Ports { first: 1, last: u16::MAX };

    /// Whether this is one of them.
    pub const fn contain(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    fn parse(text: &str) -> Option<Ports> {
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port| digits && *port != 0)
        };
        if text == "*" {
            return Some(Ports::ALL);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Ports { first: port(first)?, last: port(last)? };
        (ports.first <= ports.last).then_some(ports)
    }
}

impl Net {
    /// A single address.
    pub fn single(address: IpAddr) -> Net {
        let base = address.to_canonical();
        Net { base, prefix: bits(base) }
    }

    /// Whether it is one address.
    pub fn is_single(self) -> bool {
        self.prefix == bits(self.base)
    }

    /// Whether this address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        bits(address) == bits(self.base) && masked(address, self.prefix) == self.base
    }

    fn lies_in(self, outer: Net) -> bool {
        outer.prefix <= self.prefix && outer.contains(self.base)
    }

    /// `10.0.0.0/8`, `10.0.0.1`, `2001:db8::/32`.
    fn parse(text: &str) -> Result<Net, NoRule> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NoRule::Malformed)?;
        let Some(prefix) = prefix else { return Ok(Net::single(written)) };
        let digits = prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| digits).ok_or(NoRule::Malformed)?;
        if prefix > bits(written) {
            return Err(NoRule::Malformed);
        }
        let base = written.to_canonical();
        // A v4-mapped network of at most 96 bits holds all of IPv4 and more: no rule means that.
        let shorter = bits(written) - bits(base);
        let prefix = prefix.checked_sub(shorter).ok_or(NoRule::Malformed)?;
        let net = Net { base: masked(base, prefix), prefix };
        if net.base != base {
            return Err(NoRule::Bits { net, address: base });
        }
        Ok(net)
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first `prefix` bits of it, the others zero.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

const fn v4(octets: [u8; 4], prefix: u8) -> Net {
    let [a, b, c, d] = octets;
    Net { base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

const fn v6(words: [u16; 3], last: u16, prefix: u8) -> Net {
    let [a, b, c] = words;
    Net { base: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)), prefix }
}

/// Networks whose addresses are a machine itself, its link, or what a cloud tells its machines:
/// none of them is what an operator means by a name or a wide network.
const SPECIAL: [Net; 15] = [
    v4([0, 0, 0, 0], 8),           // This host: Linux connects 0.0.0.0 to loopback.
    v4([127, 0, 0, 0], 8),         // Loopback.
    v4([169, 254, 0, 0], 16),      // Link-local, and there 169.254.169.254: metadata.
    v4([224, 0, 0, 0], 4),         // Multicast.
    v4([255, 255, 255, 255], 32),  // Broadcast.
    v4([100, 100, 100, 200], 32),  // Metadata of Alibaba Cloud.
    v4([168, 63, 129, 16], 32),    // The host agent of Azure.
    v4([192, 0, 0, 192], 32),      // Metadata of Oracle Cloud, in its first form.
    v6([0, 0, 0], 0, 128),         // Unspecified.
    v6([0, 0, 0], 1, 128),         // Loopback.
    v6([0xfe80, 0, 0], 0, 10),     // Link-local.
    v6([0xff00, 0, 0], 0, 8),      // Multicast.
    v6([0xfd00, 0xec2, 0], 0, 32), // Metadata of AWS: fd00:ec2::254, and its siblings.
    v6([0xfd20, 0xce, 0], 0x254, 128), // Metadata of Google Cloud.
    v6([0xfec0, 0, 0], 0, 10),     // Site-local, which no network has used since 2004.
];

/// Whether an address is one that only a rule of exactly that address reaches (P1). An IPv6
/// address that a translator turns into an IPv4 address is what that one is.
pub fn is_special(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let hidden = match address {
        IpAddr::V6(v6) => translated(v6),
        IpAddr::V4(_) => None,
    };
    let listed = |address| SPECIAL.iter().any(|net| net.contains(address));
    listed(address) || hidden.is_some_and(|hidden| listed(hidden.into()))
}

/// The IPv4 address that is reached by way of NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) or as an
/// IPv4-compatible address (RFC 4291).
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let last = Ipv4Addr::from_bits(bits as u32);
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0, 0, 0, 0, 0, 0, ..] => {
            Some(last)
        }
        [0x2002, ..] => Some(Ipv4Addr::from_bits((bits >> 80) as u32)),
        _ => None,
    }
}

impl FromStr for Rule {
    type Err = NoRule;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Rule, NoRule> {
        if let Some(name) = text.strip_prefix("service:") {
            return match Target::service(name) {
                Ok(_) => Ok(Rule::Service(name.to_owned())),
                Err(why) => Err(NoRule::Name(why)),
            };
        }
        if text == "any" {
            return Ok(Rule::Any(Ports::ALL));
        }
        if text.is_empty() || text == "*" {
            return Err(if text.is_empty() { NoRule::Malformed } else { NoRule::Star });
        }
        let (place, ports) = split(text)?;
        if place == "any" {
            return Ok(Rule::Any(ports));
        }
        if looks_like_address(place) {
            let net = Net::parse(place)?;
            let nothing = !net.is_single() && SPECIAL.iter().any(|special| net.lies_in(*special));
            return if nothing { Err(NoRule::Special(net)) } else { Ok(Rule::Net(net, ports)) };
        }
        let (below, name) = match place.strip_prefix('*') {
            Some(rest) => (true, rest.strip_prefix('.').ok_or(NoRule::Star)?),
            None => (false, place),
        };
        if name.contains('*') {
            return Err(NoRule::Star);
        }
        let name = host_name(name)?;
        Ok(if below { Rule::Below(format!(".{name}"), ports) } else { Rule::Host(name, ports) })
    }
}

/// Parts a rule into its place, without brackets, and its ports.
fn split(text: &str) -> Result<(&str, Ports), NoRule> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or(NoRule::Malformed)?;
        // Both `[2001:db8::]/32:443` and `[2001:db8::/32]:443` are seen.
        let ports = rest.strip_prefix(':').and_then(Ports::parse);
        return match ports {
            Some(ports) if inner.contains(':') => Ok((inner, ports)),
            _ => Err(NoRule::Ports(format!("[{inner}]"))),
        };
    }
    match text.rsplit_once(':') {
        // The last word of an IPv6 address without brackets is no port.
        Some((place, _)) if place.contains(':') => Err(NoRule::Ports(format!("[{text}]"))),
        Some((place, ports)) => {
            Ok((place, Ports::parse(ports).ok_or_else(|| NoRule::Ports(place.to_owned()))?))
        }
        None => Err(NoRule::Ports(text.to_owned())),
    }
}

fn looks_like_address(place: &str) -> bool {
    place.contains([':', '/']) || place.parse::<Ipv4Addr>().is_ok()
}

/// A name as a target would have it, without a dot at its end.
fn host_name(name: &str) -> Result<String, NoRule> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match Target::host(name.as_bytes(), 1) {
        Ok(Target::Host(name, _)) if name == "localhost" || name.ends_with(".localhost") => {
            Err(NoRule::Localhost)
        }
        Ok(Target::Host(name, _)) if name.split('.').all(|label| !label.is_empty()) => Ok(name),
        Ok(_) => Err(NoRule::Name(ringway_tunnel_proto::NoTarget::Name)),
        Err(why) => Err(NoRule::Name(why)),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Any(ports) if *ports == Ports::ALL => f.write_str("any"),
            Rule::Any(ports) => write!(f, "any:{ports}"),
            Rule::Net(net, ports) if net.base.is_ipv6() => write!(f, "[{net}]:{ports}"),
            Rule::Net(net, ports) => write!(f, "{net}:{ports}"),
            Rule::Host(name, ports) => write!(f, "{name}:{ports}"),
            Rule::Below(dotted, ports) => write!(f, "*{dotted}:{ports}"),
            Rule::Service(name) => write!(f, "service:{name}"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (1, u16::MAX) => f.write_str("*"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => write!(f, "{}", self.base),
            false => write!(f, "{}/{}", self.base, self.prefix),
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
