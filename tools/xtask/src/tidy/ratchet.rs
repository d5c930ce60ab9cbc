//! The ratchet: alarms that ring already, with how loud they are. They may only get quieter.
//!
//! Invariants:
//! - The file says exactly what is there: more is an error, less is an error that `tidy --lower`
//!   repairs. So it cannot loosen by itself, and raising a number is a line of a diff.
//! - Only alarms about size and form can be ratcheted. Rules of safety and of separation cannot.

use std::collections::BTreeMap;
use std::path::Path;

use super::Finding;

/// Where it is kept.
const FILE: &str = "tools/xtask/ratchet.toml";

/// The rules that can be ratcheted.
const ALARMS: &[&str] =
    &["function-lines", "file-lines", "arguments", "type-parameters", "columns", "header"];

/// Rule, then file, then the sum of the weights of its findings.
type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// The exceptions that are known.
pub(super) struct Ratchet {
    counts: Counts,
}

/// What comes of comparing findings with the ratchet.
pub(super) struct Verdict {
    /// What has to be repaired.
    pub(super) errors: Vec<Finding>,
    /// Entries that promise less than what was reached.
    pub(super) slack: Vec<String>,
}

impl Ratchet {
    /// Reads the file; a missing one is empty.
    pub(super) fn read(root: &Path) -> Result<Ratchet, String> {
        match std::fs::read_to_string(root.join(FILE)) {
            Ok(text) => Ratchet::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ratchet::parse(""),
            Err(error) => Err(format!("{FILE}: {error}")),
        }
    }

    fn parse(text: &str) -> Result<Ratchet, String> {
        let counts: Counts = toml::from_str(text).map_err(|error| format!("{FILE}: {error}"))?;
        match counts.keys().find(|rule| !ALARMS.contains(&rule.as_str())) {
            Some(rule) => Err(format!("{FILE}: `{rule}` cannot be ratcheted, only {ALARMS:?}")),
            None => Ok(Ratchet { counts }),
        }
    }

    /// Writes the file.
    pub(super) fn write(&self, root: &Path) -> Result<(), String> {
        let mut text = String::from(
            "# Alarms that ring already: rule, file, by how much in sum. A number may only go \
             down;\n# `cargo xtask tidy --lower` writes lower ones. See src/tidy/ratchet.rs.\n",
        );
        for (rule, files) in &self.counts {
            text.push_str(&format!("\n[{rule}]\n"));
            for (file, count) in files {
                text.push_str(&format!("\"{file}\" = {count}\n"));
            }
        }
        std::fs::write(root.join(FILE), text).map_err(|error| format!("{FILE}: {error}"))
    }

    /// Lets through what is known, and nothing beyond it.
    pub(super) fn judge(&self, findings: &[Finding]) -> Verdict {
        let sums = sums(findings);
        let errors = findings.iter().filter(|finding| {
            let sum = sums.get(finding.rule).and_then(|files| files.get(&finding.file));
            sum.copied().unwrap_or(0) > self.allowed(finding.rule, &finding.file)
        });
        let mut slack = Vec::new();
        for (rule, files) in &self.counts {
            for (file, allowed) in files {
                let sum = sums.get(rule).and_then(|files| files.get(file)).copied().unwrap_or(0);
                if sum < *allowed {
                    slack.push(format!(
                        "{FILE}: {rule} of {file} is {sum} now, not {allowed}: \
                         keep it there with `cargo xtask tidy --lower`"
                    ));
                }
            }
        }
        Verdict { errors: errors.cloned().collect(), slack }
    }

    /// The same with every number that went down; none goes up and none is added.
    pub(super) fn lowered(&self, findings: &[Finding]) -> Ratchet {
        let sums = sums(findings);
        let mut counts = Counts::new();
        for (rule, files) in &self.counts {
            for (file, allowed) in files {
                let sum = sums.get(rule).and_then(|files| files.get(file)).copied().unwrap_or(0);
                if sum.min(*allowed) > 0 {
                    let files = counts.entry(rule.clone()).or_default();
                    files.insert(file.clone(), sum.min(*allowed));
                }
            }
        }
        Ratchet { counts }
    }

    fn allowed(&self, rule: &str, file: &str) -> usize {
        self.counts.get(rule).and_then(|files| files.get(file)).copied().unwrap_or(0)
    }
}

fn sums(findings: &[Finding]) -> Counts {
    let mut sums = Counts::new();
    for finding in findings {
        let files = sums.entry(finding.rule.to_owned()).or_default();
        *files.entry(finding.file.clone()).or_default() += finding.weight;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(lines_over: usize) -> Vec<Finding> {
        vec![Finding::new("function-lines", "a.rs", 1, "long").weighing(lines_over)]
    }

    /// What is known passes; one line more does not, nor the same in another file.
    #[test]
    fn alarms_never_get_louder() {
        let ratchet = Ratchet::parse("[function-lines]\n\"a.rs\" = 10\n").expect("valid");
        assert!(ratchet.judge(&long(10)).errors.is_empty());
        assert_eq!(ratchet.judge(&long(11)).errors.len(), 1);
        let mut elsewhere = long(1);
        elsewhere[0].file = "b.rs".into();
        assert_eq!(ratchet.judge(&elsewhere).errors.len(), 1);
    }

    /// A number that went down has to be written down, and lowering never raises.
    #[test]
    fn progress_is_kept() {
        let ratchet = Ratchet::parse("[function-lines]\n\"a.rs\" = 10\n").expect("valid");
        assert_eq!(ratchet.judge(&long(9)).slack.len(), 1);
        assert!(ratchet.judge(&long(10)).slack.is_empty());
        assert_eq!(ratchet.lowered(&long(9)).allowed("function-lines", "a.rs"), 9);
        assert_eq!(ratchet.lowered(&long(11)).allowed("function-lines", "a.rs"), 10);
        assert!(ratchet.lowered(&[]).counts.is_empty());
    }

    /// Separation and safety are not matters of degree.
    #[test]
    fn only_alarms_can_be_ratcheted() {
        assert!(Ratchet::parse("[edges]\n\"core/Cargo.toml\" = 1\n").is_err());
        assert!(Ratchet::parse("[unsafe-place]\n\"core/src/lib.rs\" = 1\n").is_err());
    }
}
