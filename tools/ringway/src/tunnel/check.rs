//! `ringway tunnel check`: why a peer is not connected.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use ringway_tunnel_node::check::{Finding, NotChecked, Patience, Verdict, check};

use crate::args::tunnel::CheckArgs;
use crate::failure::Failure;
use crate::output::{answer, code};

pub(super) fn run(args: &CheckArgs, json: bool) -> Result<ExitCode, Failure> {
    let patience = Duration::from_secs_f64(args.patience);
    let patience = Patience { connect: patience, answer: patience };
    let findings = check(&args.config, args.peer.as_deref(), patience)?;
    answer(json, &findings, || text(&findings));
    Ok(code(findings.iter().all(|finding| finding.verdict != Verdict::Bad)))
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut peer = None;
    for finding in findings {
        if finding.peer.as_deref() != peer {
            peer = finding.peer.as_deref();
            put(&mut text, format_args!("\npeer {}", peer.unwrap_or_default()));
        }
        let verdict = match finding.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "FAIL",
        };
        let place = finding.place.as_ref().map_or_else(String::new, |place| format!("{place} "));
        put(&mut text, format_args!("{verdict}  {place}{}: {}", finding.stage, finding.found));
        let many = finding.remedies.len() > 1;
        for (number, remedy) in (1..).zip(&finding.remedies) {
            let bullet = if many { format!("{number}.") } else { "->".to_owned() };
            put(&mut text, format_args!("      {bullet} {remedy}"));
        }
    }
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes it");
}

impl From<NotChecked> for Failure {
    fn from(error: NotChecked) -> Failure {
        match error {
            NotChecked::NoSuchPeer { .. } => Failure::Usage(error.to_string()),
            NotChecked::Config(error) => error.into(),
            NotChecked::NoChance(_) => Failure::Host(error.to_string()),
        }
    }
}
