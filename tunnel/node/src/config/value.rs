//! Texts of single values.

use ringway_core::{Span, words};
use ringway_tunnel_proto::Target;

/// Bytes a second of the slowest and of the fastest limit: 8 kbit/s and 1 Tbit/s.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=125_000_000_000;

/// A length of time with its unit: `60 s`.
pub fn span(text: &str) -> Option<Span> {
    let (number, unit) = words::number_and_unit(text);
    let ns: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    Some(Span(words::number(number)?.checked_mul(ns)?))
}

/// A length of time for people, in the largest unit of which it has two: `90 min`.
pub fn span_in_words(span: Span) -> String {
    match span.as_ms_ceil() / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// Bytes a second: `100 Mbit/s`, `10 MB/s`.
pub(super) fn rate(text: &str) -> Option<u64> {
    let (number, unit) = words::number_and_unit(text);
    let number = words::number(number)?;
    let bits = |factor: u64| Some(number.checked_mul(factor)? / 8);
    let bytes = match unit {
        "kbit/s" => bits(1_000),
        "Mbit/s" => bits(1_000_000),
        "Gbit/s" => bits(1_000_000_000),
        _ => {
            let unit = unit.strip_suffix("/s").filter(|unit| unit.len() > 1)?;
            words::size(&format!("{number}{unit}"))
        }
    };
    bytes.filter(|bytes| RATES.contains(bytes))
}

/// A name that is printed, used in labels and as the beginning of file names.
pub(crate) fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&text.len())
        && text.bytes().all(good)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// Where a flow is to go: an address or a name and a port, or `service:NAME`.
pub(super) fn target(text: &str) -> Option<Target> {
    match text.strip_prefix("service:") {
        Some(name) => Target::service(name).ok(),
        None => Target::parse(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_have_units() {
        assert_eq!(span("60 s"), Some(Span::from_s(60)));
        for (said, words) in [("90 s", "90 s"), ("3 min", "3 min"), ("24 h", "24 h")] {
            assert_eq!(span(said).map(span_in_words).as_deref(), Some(words));
        }
        assert_eq!(span_in_words(Span::from_s(3 * 86_400 + 5)), "3 days");
        assert_eq!(span("250ms"), Some(Span::from_ms(250)));
        assert_eq!(
            (span("2 min"), span("1h")),
            (Some(Span::from_s(120)), Some(Span::from_s(3600)))
        );
        for wrong in ["60", "", "s", "-1 s", "1.5 s", "1 day", "99999999999999999999 s"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
        assert_eq!(rate("100 Mbit/s"), Some(12_500_000));
        assert_eq!(rate("1Gbit/s"), Some(125_000_000));
        assert_eq!((rate("10 MB/s"), rate("1 MiB/s")), (Some(10_000_000), Some(1 << 20)));
        for wrong in ["100", "100 Mbps", "0 Mbit/s", "1 kbit/s", "100 Mbit", "1/s", "99 TB/s"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_plain() {
        for good in ["far", "branch-7", "gw1.example", "a", "7"] {
            assert!(is_name(good), "{good}");
        }
        for wrong in ["", "a b", "../x", ".hidden", "-x", "a/b", "größe", &"a".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
