//! Lines for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Prints an answer: a JSON document, or the lines that `text` makes.
pub(crate) fn answer<T: Serialize>(json: bool, value: &T, text: impl FnOnce() -> String) {
    let printed =
        if json { serde_json::to_string_pretty(value).expect("plain data") } else { text() };
    say(&printed);
}

/// What a shell says of a program that SIGPIPE has ended.
const READER_GONE: i32 = 141;
/// What cannot be written for another reason: something of this host is in the way, as
/// [`Failure::Host`] says it.
const UNWRITTEN: i32 = 3;

/// Prints lines. A reader that has gone away (`| head`) ends the program quietly, and not well:
/// whoever asked by the exit code has not been answered.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let Err(error) = write!(out, "{text}{newline}").and_then(|()| out.flush()) else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(READER_GONE);
    }
    // Whatever does not take the answer may be all that there is to complain to.
    let _ = writeln!(io::stderr(), "ringway: standard output does not take the answer: {error}");
    std::process::exit(UNWRITTEN);
}

/// Says why there is no answer, if anything takes that.
pub(crate) fn complain(failure: &Failure, json: bool) {
    let words = if json {
        json!({ "error": failure.to_string(), "exit_code": failure.code().0 }).to_string()
    } else {
        format!("ringway: {failure}")
    };
    let _ = writeln!(io::stderr(), "{words}");
}

/// 0, or 1 if the answer was no.
pub(crate) fn code(all_well: bool) -> ExitCode {
    if all_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// A name for people: as it is if it can be printed, escaped otherwise.
pub(crate) fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Bytes for programs: a string if they are one, an object with hexadecimal digits otherwise.
pub(crate) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// A number with three digits and a unit: 12.3M.
pub(crate) fn short(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n >= 1e9 => (n / 1e9, "G"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e4 => (n / 1e3, "k"),
        n => (n, ""),
    };
    if scaled >= 100.0 || scaled.fract() == 0.0 {
        format!("{scaled:.0}{unit}")
    } else {
        format!("{scaled:.1}{unit}")
    }
}

/// Nanoseconds with a fitting unit: 12us.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns}ns"),
        10_000..10_000_000 => format!("{}us", ns / 1_000),
        10_000_000..10_000_000_000 => format!("{}ms", ns / 1_000_000),
        _ => format!("{}s", ns / 1_000_000_000),
    }
}

/// Bytes with a fitting unit: 12MiB.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes}B"),
        10_240..10_485_760 => format!("{}KiB", bytes >> 10),
        10_485_760..10_737_418_240 => format!("{}MiB", bytes >> 20),
        _ => format!("{}GiB", bytes >> 30),
    }
}

/// Columns as wide as their widest cell; numbers (what starts with a digit) to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let numeric: Vec<bool> = (0..head.len())
        .map(|at| {
            rows.iter().all(|row| row[at].starts_with(|c: char| c.is_ascii_digit() || c == '-'))
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).zip(&numeric).map(|((cell, width), numeric)| {
            if *numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [short(7.0), short(99.5), short(12_345.0), short(9.87e6)],
            ["7", "99.5", "12.3k", "9.9M"].map(String::from)
        );
        assert_eq!(
            [time(999), time(12_000), time(12_000_000)],
            ["999ns", "12us", "12ms"].map(String::from)
        );
        assert_eq!(size(20 << 20), "20MiB");
    }

    #[test]
    fn bytes_are_shown_as_they_are_or_escaped() {
        assert_eq!(printable("größe".as_bytes()), "größe");
        assert_eq!(printable(b"a\nb"), "a\\nb");
        assert_eq!(printable(b"\xFF"), "\\xff");
        assert_eq!(bytes_json(b"\xFF"), json!({ "hex": "ff" }));
        assert_eq!(unhex(&hex(b"\x00\xAB")), Some(vec![0, 0xAB]));
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("é1"), None);
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long".into(), "100".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name    n\na       1\nlong  100\n");
    }
}
