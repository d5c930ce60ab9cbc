//! `ringway tunnel selftest`: two verdicts over our first bytes, and what they mean.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_tunnel_node::selftest::{First, Seen, look_at_ourselves};
use ringway_tunnel_node::{Exempt, Flaw, NoChance, entropy};
use serde_json::{Value, json};

use crate::args::tunnel::SelftestArgs;
use crate::failure::Failure;
use crate::output::{answer, code, table};

pub(crate) fn run(args: &SelftestArgs, json: bool) -> Result<ExitCode, Failure> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let seen = look_at_ourselves(args.messages, now_ms as u64, entropy()?);
    let verdicts = Verdicts::of(&seen);
    answer(json, &verdicts.value(&seen), || verdicts.text(&seen));
    Ok(code(verdicts.uniform))
}

impl From<NoChance> for Failure {
    fn from(error: NoChance) -> Failure {
        Failure::Host(error.to_string())
    }
}

/// Both, over all kinds.
struct Verdicts {
    uniform: bool,
    /// First packets of connections that the heuristic matches, of how many.
    matched: u64,
    opening: u64,
}

impl Verdicts {
    fn of(seen: &[Seen]) -> Verdicts {
        let opening = || seen.iter().filter(|seen| seen.first.opens()).map(|seen| &seen.sample);
        Verdicts {
            uniform: seen.iter().all(|seen| seen.uniformity.is_uniform()),
            matched: opening().map(|sample| sample.fully_encrypted()).sum(),
            opening: opening().map(|sample| sample.messages()).sum(),
        }
    }

    /// Most of the first packets being matched is enough to be blocked: there are several to a
    /// session.
    fn is_matched(&self) -> bool {
        self.matched * 2 > self.opening
    }

    fn share(&self) -> f64 {
        self.matched as f64 / self.opening.max(1) as f64
    }

    fn value(&self, seen: &[Seen]) -> Value {
        let kinds: Vec<Value> = seen.iter().map(kind_value).collect();
        json!({
            "uniform": self.uniform,
            "fully_encrypted_heuristic": {
                "source": "Wu et al., USENIX Security 2023, algorithm 1",
                "matches": self.is_matched(),
                "share_of_first_packets": self.share(),
            },
            "kinds": kinds,
        })
    }

    fn text(&self, seen: &[Seen]) -> String {
        let head = ["message", "count", "bytes", "ones/byte", "entropy", "chi2", "heuristic"];
        let rows: Vec<Vec<String>> = seen.iter().map(row).collect();
        let mut text = table(&head, &rows);
        text.push('\n');
        for seen in seen {
            for flaw in seen.uniformity.flaws.iter().take(FLAWS_SHOWN) {
                put(&mut text, format_args!("{}: {flaw}", what(seen.first)));
            }
            let more = seen.uniformity.flaws.len().saturating_sub(FLAWS_SHOWN);
            if more > 0 {
                put(&mut text, format_args!("{}: and {more} more", what(seen.first)));
            }
        }
        let (uniform, matched) = (yes(self.uniform), yes(self.is_matched()));
        put(&mut text, format_args!("uniform: {uniform}"));
        text.push_str(if self.uniform { UNIFORM } else { NOT_UNIFORM });
        let percent = 100.0 * self.share();
        put(&mut text, format_args!("\n{HEURISTIC}: {matched} ({percent:.1} % of first packets)"));
        text.push_str(if self.is_matched() { MATCHED } else { NOT_MATCHED });
        text + NOT_SEEN
    }
}

const HEURISTIC: &str = "matches the fully-encrypted heuristic";
/// Flaws of one kind that are shown to people; programs get all.
const FLAWS_SHOWN: usize = 5;

const UNIFORM: &str = "\
No bit, no value and no position of a byte tells these messages from chance, and none begins
like another. There is no pattern of ours that a filter could look for.
";
const NOT_UNIFORM: &str = "\
Something above tells these messages from chance, so a filter can look for it. This is a bug:
please report it with what --json prints; there are no secrets in it. Chance alone fails a test
in fewer than one of 10 000 runs: run it again to be sure.
";
const MATCHED: &str = "\
That is the price of the first: four ones in eight bits and nothing printable is itself what
some censors look for. From 2021 on the Great Firewall was measured to block connections whose
first packet looks like no protocol it knows (Wu et al., USENIX Security 2023). Behind such a
censor carriers over plain TCP do not get through for long. Elsewhere it does not matter.
";
const NOT_MATCHED: &str = "\
Most first packets are exempt from the rules that the Great Firewall was measured to apply from
2021 on (Wu et al., USENIX Security 2023).
";
const NOT_SEEN: &str = "
Not judged: how long the messages are (427 to 939 bytes by chance, whatever they are), when and how
much is sent after them, how many connections there are, the ports, and that whoever connects to
the far side without a key hears nothing.
";

fn yes(verdict: bool) -> &'static str {
    if verdict { "yes" } else { "no" }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes it");
}

fn what(first: First) -> &'static str {
    match first {
        First::Keys => "first message, key pairs",
        First::Shared => "first message, shared key",
        First::Join => "first message, further carrier",
        First::KeysAnswer => "answer, key pairs",
        First::SharedAnswer => "answer, shared key",
        First::Record => "first record",
    }
}

fn row(seen: &Seen) -> Vec<String> {
    let judged = &seen.uniformity;
    let bytes = seen.sample.lengths().map_or_else(String::new, |lengths| {
        if lengths.min == lengths.max {
            format!("{}", lengths.min)
        } else {
            format!("{} to {}, {} lengths", lengths.min, lengths.max, lengths.distinct)
        }
    });
    let matched = 100.0 * seen.sample.fully_encrypted() as f64 / seen.sample.messages() as f64;
    vec![
        what(seen.first).into(),
        seen.sample.messages().to_string(),
        bytes,
        format!("{:.4}", judged.ones_per_byte),
        format!("{:.5}", judged.entropy_bits),
        format!("{:.0}", judged.chi_square),
        if seen.first.opens() { format!("{matched:.1} %") } else { "-".into() },
    ]
}

fn kind_value(seen: &Seen) -> Value {
    let judged = &seen.uniformity;
    let lengths = seen.sample.lengths();
    let classes = classes(seen);
    let exempt: serde_json::Map<String, Value> = seen
        .sample
        .exempt()
        .iter()
        .map(|(rule, count)| (rule_name(*rule).to_string(), json!(count)))
        .collect();
    let heuristic = json!({ "matched": seen.sample.fully_encrypted(), "exempt": exempt });
    let constant: Vec<usize> = judged.flaws.iter().filter_map(constant).collect();
    json!({
        "kind": seen.first.name(),
        "messages": seen.sample.messages(),
        "uniform": judged.is_uniform(),
        "flaws": judged.flaws.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bytes": judged.bytes,
        "ones_per_byte": judged.ones_per_byte,
        "entropy_bits_per_byte": judged.entropy_bits,
        "chi_square_255": judged.chi_square,
        "positions_judged": judged.positions,
        "constant_positions": constant,
        "lengths": lengths.map(|lengths| json!({
            "min": lengths.min,
            "max": lengths.max,
            "mean": lengths.mean,
            "distinct": lengths.distinct,
            "commonest": lengths.commonest,
            "by_64_bytes": classes,
        })),
        "heuristic": if seen.first.opens() { heuristic } else { Value::Null },
    })
}

/// How many messages are at least so long and less than 64 bytes longer.
fn classes(seen: &Seen) -> serde_json::Map<String, Value> {
    let mut classes: Vec<(usize, u64)> = Vec::new();
    for (len, count) in seen.sample.by_length() {
        let class = len / 64 * 64;
        match classes.last_mut() {
            Some((last, sum)) if *last == class => *sum += count,
            _ => classes.push((class, count)),
        }
    }
    classes.into_iter().map(|(class, count)| (class.to_string(), json!(count))).collect()
}

fn constant(flaw: &Flaw) -> Option<usize> {
    if let Flaw::Constant(at) = flaw { Some(*at) } else { None }
}

fn rule_name(rule: Exempt) -> &'static str {
    match rule {
        Exempt::Bits => "bits",
        Exempt::PrintableStart => "printable_start",
        Exempt::PrintableHalf => "printable_half",
        Exempt::PrintableRun => "printable_run",
        Exempt::Tls => "tls",
        Exempt::Http => "http",
    }
}
