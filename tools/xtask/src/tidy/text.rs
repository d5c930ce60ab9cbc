//! Rules about plain text: width of lines, paths of somebody's machine.

use super::Finding;
use super::policy::{COLUMNS_MAX, MACHINE_PATHS};

/// Lines that are too wide. A comment may hold a longer link, which cannot be broken.
pub(super) fn columns(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        let is_link = line.trim_start().starts_with("//") && line.contains("://");
        if columns > COLUMNS_MAX && !is_link {
            let what = format!("{columns} columns, at most {COLUMNS_MAX}");
            findings.push(Finding::new("columns", path, at + 1, what));
        }
    }
    findings
}

/// Absolute paths that exist on one machine only.
pub(super) fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(found) = MACHINE_PATHS.iter().find(|needle| names_path(line, needle)) {
            let what = format!("`{found}` is a path of one machine: say it relative, or as `$VAR`");
            findings.push(Finding::new("machine-path", path, at + 1, what));
        }
    }
    findings
}

/// Whether `line` names an absolute path that begins with `needle`, and not a longer or a
/// relative one in which the same characters happen to stand.
fn names_path(line: &str, needle: &str) -> bool {
    let joins = |character: char| character.is_alphanumeric() || "_-.".contains(character);
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        let starts =
            before.is_none_or(|character| !joins(character) && !"/~})>*".contains(character));
        starts && (needle.ends_with('/') || after.is_none_or(|character| !joins(character)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred characters pass, however many bytes they are; a link in a comment may be longer.
    #[test]
    fn wide_lines_are_flagged() {
        assert_eq!(columns("x.rs", &"é".repeat(100)), []);
        assert_eq!(columns("x.rs", &"x".repeat(101)).len(), 1);
        assert_eq!(columns("x.rs", &format!("// https://{}", "x".repeat(120))), []);
        assert_eq!(columns("x.rs", &format!("let x = \"https://{}\";", "x".repeat(120))).len(), 1);
    }

    /// Absolute paths are found in prose, code and shell; look-alikes are not.
    #[test]
    fn paths_of_a_machine_are_flagged() {
        let [home, work, root, _] = MACHINE_PATHS else { panic!("four beginnings") };
        let flagged = |line: String| !machine_paths("x.md", &line).is_empty();
        assert!(flagged(format!("see {home}ann/x")));
        assert!(flagged(format!("cd {work}")));
        assert!(flagged(format!("\"{work}/main\"")));
        assert!(flagged(format!("path={root}/.cargo")));
        assert!(!flagged(format!("https://example.org{work}/x")));
        assert!(!flagged(format!("a turn{work}er pair")));
        assert!(!flagged(format!("{work}load.toml, {root}s")));
        assert!(!flagged(format!("~{work} and ${{DIR}}{work}")));
    }
}
