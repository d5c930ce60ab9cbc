//! Stories of what a peer may reach, and what must hold for whatever it asks for.

use proptest::prelude::*;

use super::*;

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|text| text.parse().expect(text)).collect();
    Policy::new(rules, true)
}

fn target(text: &str) -> Target {
    Target::parse(text).expect(text)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// What becomes of a flow, told as `connect ADDR`, `resolve NAME` or why not.
fn told(policy: &Policy, text: &str) -> String {
    match policy.may_ask(&target(text)) {
        Verdict::Denied(why) => format!("{why:?}"),
        Verdict::Connect(addr) => format!("connect {addr}"),
        Verdict::Resolve(name, port) => format!("resolve {name}:{port}"),
        Verdict::Service(name) => format!("service {name}"),
    }
}

/// Whether `name` may be connected to when it resolves to `address`.
fn leads(policy: &Policy, name: &str, address: &str) -> bool {
    policy.may_connect(&target(name), ip(address))
}

#[test]
fn nothing_is_allowed_unless_a_rule_says_so() {
    for policy in [Policy::default(), policy(&[]), policy(&["10.0.0.7:22"])] {
        for text in ["10.0.0.1:22", "10.0.0.7:23", "[2001:db8::1]:443"] {
            assert_eq!(told(&policy, text), "NoRule", "{text}");
        }
        assert_eq!(
            policy.may_ask(&Target::service("web").expect("a name")),
            Verdict::Denied(Denied::NoRule)
        );
    }
    assert_eq!(told(&policy(&[]), "db.internal:5432"), "NoRule");
    assert_eq!(told(&Policy::new(vec![Rule::Any(Ports::ALL)], false), "db:1"), "NoNames");
}

#[test]
fn each_kind_of_rule_allows_what_it_says() {
    let policy = policy(&[
        "10.0.0.0/8:22",
        "10.1.2.3:8000-8999",
        "[2001:db8::/32]:443",
        "db.internal:5432",
        "*.example:443",
        "service:web",
    ]);
    for (text, becomes) in [
        ("10.255.0.1:22", "connect 10.255.0.1:22"),
        ("11.0.0.1:22", "NoRule"),
        ("10.255.0.1:23", "NoRule"),
        ("10.1.2.3:8999", "connect 10.1.2.3:8999"),
        ("10.1.2.3:9000", "NoRule"),
        ("[2001:db8:9::1]:443", "connect [2001:db8:9::1]:443"),
        ("[2001:db9::1]:443", "NoRule"),
        ("DB.Internal:5432", "resolve db.internal:5432"),
        ("db.internal:5433", "NoRule"),
        ("www.example:443", "resolve www.example:443"),
        ("a.b.example:443", "resolve a.b.example:443"),
    ] {
        assert_eq!(told(&policy, text), becomes, "{text}");
    }
    let web = Target::service("web").expect("a name");
    assert_eq!(policy.may_ask(&web), Verdict::Service("web"));
    assert!(policy.may_connect(&web, ip("127.0.0.1")), "where it leads is configuration");
    assert!(!policy.may_connect(&Target::service("Web").expect("a name"), ip("127.0.0.1")));
}

/// `*.example` is what is below it, not what merely ends alike.
#[test]
fn below_a_name_is_below_a_dot() {
    let policy = policy(&["*.example:443"]);
    assert!(leads(&policy, "www.example.:443", "192.0.2.1"), "a complete name is the same name");
    for name in ["example:443", "badexample:443", ".example:443", "a..example:443"] {
        assert!(!leads(&policy, name, "192.0.2.1"), "{name}");
        assert_eq!(told(&policy, name), "NoRule", "{name}");
    }
}

/// A name whose owner lets it point at this machine, at its link or at a metadata service gets
/// nowhere, however the answer is spelled: neither by its own rule nor by `any` or a wide network.
#[test]
fn a_name_that_is_bound_again_gets_nowhere() {
    let policies = [
        policy(&["evil.example:80"]),
        policy(&["*.example:80"]),
        policy(&["any"]),
        policy(&["0.0.0.0/0:*", "[::/0]:*"]),
        policy(&["any", "evil.example:80", "0.0.0.0/0:*", "[::/0]:80"]),
    ];
    for policy in policies {
        assert_eq!(told(&policy, "evil.example:80"), "resolve evil.example:80");
        assert!(leads(&policy, "evil.example:80", "192.0.2.1"), "its honest answer");
        for special in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::169.254.169.254",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
        ] {
            assert!(!leads(&policy, "evil.example:80", special), "{policy:?} {special}");
        }
    }
}

/// What a rule names exactly is reached, as an address and by a name that resolves to it; its
/// neighbours are not.
#[test]
fn special_addresses_are_reached_by_their_own_rule_only() {
    let policy = policy(&["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "126.0.0.0/7:80"]);
    for text in ["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "126.0.0.1:80"] {
        assert_eq!(told(&policy, text), format!("connect {text}"));
    }
    assert_eq!(told(&policy, "127.0.0.2:80"), "Special", "the wide rule covers it, and may not");
    assert_eq!(told(&policy, "169.254.169.253:80"), "NoRule");
    assert_eq!(told(&policy, "127.0.0.1:81"), "NoRule");
    assert!(leads(&policy, "localhost:80", "127.0.0.1"));
    assert!(!leads(&policy, "localhost:80", "127.0.0.2"));
}

/// A v4-mapped address is the address that it maps: for rules, and for what is connected to.
#[test]
fn v4_mapped_addresses_are_v4() {
    let rules = policy(&["10.0.0.0/8:22", "127.0.0.1:80"]);
    assert_eq!(told(&rules, "[::ffff:10.0.0.1]:22"), "connect 10.0.0.1:22");
    assert_eq!(told(&rules, "[::ffff:127.0.0.1]:80"), "connect 127.0.0.1:80");
    assert_eq!(told(&rules, "[::ffff:127.0.0.2]:80"), "NoRule");
    assert!(leads(&rules, "a.internal:22", "::ffff:10.0.0.1"));
    let mapped: Rule = "[::ffff:10.0.0.0/104]:22".parse().expect("10.0.0.0/8 in other words");
    assert_eq!(mapped.to_string(), "10.0.0.0/8:22");
    assert_eq!(told(&policy(&["[::/0]:22"]), "[::ffff:10.0.0.1]:22"), "NoRule");
}

/// An address spelled out as a number is no name, so no rule about names is asked.
#[test]
fn spelled_out_addresses_do_not_get_past_the_rules() {
    let policy = policy(&["any"]);
    for name in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1."] {
        assert!(Target::host(name.as_bytes(), 80).is_err(), "{name}");
    }
    assert_eq!(told(&policy, "127.0.0.1:80"), "Special");
    assert_eq!(told(&policy, "8.8.8.8:53"), "connect 8.8.8.8:53");
}

/// A flow to an address is connected to that address, not to another that is allowed, too.
#[test]
fn an_address_is_that_address() {
    let policy = policy(&["10.0.0.0/8:22"]);
    assert!(leads(&policy, "10.0.0.1:22", "10.0.0.1"));
    assert!(!leads(&policy, "10.0.0.1:22", "10.0.0.2"));
}

/// A name may be asked for if an address rule could allow where it leads; then only that counts.
#[test]
fn a_name_may_lead_to_an_allowed_address() {
    let policy = policy(&["10.0.0.0/8:22"]);
    assert_eq!(told(&policy, "host.internal:22"), "resolve host.internal:22");
    assert_eq!(told(&policy, "host.internal:80"), "NoRule", "P3");
    assert!(leads(&policy, "host.internal:22", "10.9.9.9"));
    assert!(!leads(&policy, "host.internal:22", "192.0.2.1"));
}

#[test]
fn what_is_no_rule_says_what_to_write() {
    for (text, said) in [
        ("", "is no target; write \"10.0.0.7:22\""),
        ("*", "\"any:443\" for all addresses and names"),
        ("*:443", "\"any:443\" for all addresses and names"),
        ("*example:443", "\"*.example:443\" for all names below one"),
        ("a.*.example:443", "\"*.example:443\" for all names below one"),
        ("db.internal", "names no port; write \"db.internal:443\""),
        ("db.internal:", "names no port; write \"db.internal:443\""),
        ("db.internal:0", "names no port"),
        ("db.internal:70000", "names no port"),
        ("db.internal:9-8", "names no port"),
        ("db.internal:+9", "names no port"),
        ("10.0.0.0/8", "write \"10.0.0.0/8:443\""),
        ("::1", "write \"[::1]:443\""),
        ("2001:db8::1:443", "write \"[2001:db8::1:443]:443\""),
        ("[::1]", "write \"[::1]:443\""),
        ("[::1:80", "is no target"),
        ("[10.0.0.1]:80", "names no port"),
        ("10.0.0.1/8:22", "write \"10.0.0.0/8\" for the network or \"10.0.0.1\" alone"),
        ("10.0.0.0/33:22", "is no target"),
        ("10.0.0.0/+8:22", "is no target"),
        ("10.0.0/8:22", "is no target"),
        ("[::ffff:0.0.0.0/90]:22", "is no target"),
        ("127.0.0.0/8:80", "allows nothing: 127.0.0.0/8 is a network of special addresses"),
        ("[fe80::/10]:80", "each of those must be named by itself"),
        ("[fe80::/64]:80", "each of those must be named by itself"),
        ("localhost:80", "a name never reaches loopback; write \"127.0.0.1:PORT\""),
        ("*.localhost:80", "a name never reaches loopback"),
        ("127.1:80", "is no name of a host or a service"),
        ("a..b:80", "is no name of a host or a service"),
        ("a b:80", "is no name of a host or a service"),
        ("service:", "is no name of a host or a service"),
        ("service:a b", "is no name of a host or a service"),
    ] {
        let error = text.parse::<Rule>().expect_err(text).to_string();
        assert!(error.contains(said), "{text:?}\n said: {error}\n not:  {said}");
    }
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    let special = prop::sample::select(vec![
        ip("127.0.0.1"),
        ip("::1"),
        ip("169.254.169.254"),
        ip("fe80::1"),
        ip("::ffff:127.0.0.1"),
        ip("10.0.0.1"),
    ]);
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
        special,
    ]
}

fn any_ports() -> impl Strategy<Value = Ports> {
    let range = (1..=u16::MAX, 1..=u16::MAX);
    let range = range.prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) });
    prop_oneof![Just(Ports::ALL), range]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let net =
        (any_ip(), any::<u8>(), any_ports()).prop_filter_map("nothing", |(ip, cut, ports)| {
            let base = ip.to_canonical();
            let prefix = cut % (bits(base) + 1);
            let net = Net { base: masked(base, prefix), prefix };
            let nothing = !net.is_single() && SPECIAL.iter().any(|special| net.lies_in(*special));
            (!nothing).then_some(Rule::Net(net, ports))
        });
    let name = "[a-z][a-z0-9]{0,3}(\\.[a-z]{1,3}){0,2}";
    prop_oneof![
        any_ports().prop_map(Rule::Any),
        net,
        (name, any_ports()).prop_map(|(name, ports)| Rule::Host(name, ports)),
        (name, any_ports()).prop_map(|(name, ports)| Rule::Below(format!(".{name}"), ports)),
        name.prop_map(Rule::Service),
    ]
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (any_ip(), 1..=u16::MAX).prop_map(|(ip, port)| Target::Address(ip, port)),
        ("[a-z]{1,2}(\\.[a-z]{1,2}){0,3}\\.?", 1..=u16::MAX)
            .prop_map(|(name, port)| Target::Host(name, port)),
        "[a-z]{1,3}".prop_map(Target::Service),
    ]
}

proptest! {
    /// Rules are read as they are written.
    #[test]
    fn rules_go_both_ways(rule in any_rule()) {
        prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
    }

    /// Any text is a rule that is written and read the same, or none.
    #[test]
    fn any_text_is_a_rule_or_not(text in "[*a-z0-9.:/\\[\\]-]{0,24}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }

    /// P1, for whatever rules there are, whatever is asked for and whatever it resolves to.
    #[test]
    fn special_addresses_need_their_own_rule(
        rules in prop::collection::vec(any_rule(), 0..8),
        target in any_target(),
        resolved in any_ip(),
    ) {
        let policy = Policy::new(rules, true);
        let named = |ip: IpAddr| policy.rules().iter().any(
            |rule| matches!(rule, Rule::Net(net, _) if *net == Net::single(ip)),
        );
        let connects = match policy.may_ask(&target) {
            Verdict::Connect(addr) => Some(addr.ip()),
            Verdict::Resolve(..) if policy.may_connect(&target, resolved) => Some(resolved),
            Verdict::Resolve(..) | Verdict::Denied(_) | Verdict::Service(_) => None,
        };
        if let Some(ip) = connects {
            prop_assert!(!is_special(ip) || named(ip), "{:?} {}", policy, ip);
        }
    }

    /// The two questions agree: what may not be asked may not be connected to, and an address that
    /// may be asked for may be connected to.
    #[test]
    fn the_two_questions_agree(
        rules in prop::collection::vec(any_rule(), 0..8),
        target in any_target(),
        resolved in any_ip(),
    ) {
        let policy = Policy::new(rules, true);
        match policy.may_ask(&target) {
            Verdict::Denied(_) => prop_assert!(!policy.may_connect(&target, resolved)),
            Verdict::Connect(addr) => prop_assert!(policy.may_connect(&target, addr.ip())),
            Verdict::Resolve(..) => {}
            Verdict::Service(_) => prop_assert!(policy.may_connect(&target, resolved)),
        }
    }

    /// P2: an answer for an IPv4 address is the answer for its mapped form. More rules never
    /// allow less.
    #[test]
    fn spelling_does_not_matter_and_rules_only_allow(
        mut rules in prop::collection::vec(any_rule(), 1..8),
        bits in any::<u32>(),
        port in 1..=u16::MAX,
    ) {
        let plain = Ipv4Addr::from_bits(bits);
        let policy = Policy::new(rules.clone(), true);
        let ask = |ip: IpAddr| policy.may_connect(&Target::Address(ip, port), ip);
        prop_assert_eq!(ask(plain.into()), ask(plain.to_ipv6_mapped().into()));
        rules.pop();
        let fewer = Policy::new(rules, true);
        let was = fewer.may_connect(&Target::Address(plain.into(), port), plain.into());
        prop_assert!(!was || ask(plain.into()));
    }
}
