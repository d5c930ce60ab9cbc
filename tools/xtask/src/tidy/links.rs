//! Links of our documents to each other: the file has to be there, and so has the heading.
//!
//! Not here: links to other hosts. They break without our doing, and tests do not use the network.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// Checks every relative link of every Markdown file; `exists` says whether a path is there.
pub(super) fn check(files: &[(String, String)], exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let documents: BTreeMap<&str, &str> = files
        .iter()
        .filter(|(path, _)| path.ends_with(".md"))
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let mut findings = Vec::new();
    for (path, text) in &documents {
        for (line, target) in links(text) {
            if let Some(what) = broken(path, &target, &documents, exists) {
                findings.push(Finding::new("link", path, line, what));
            }
        }
    }
    findings
}

/// What is wrong with a link in the document at `from`, if anything.
fn broken(
    from: &str,
    target: &str,
    documents: &BTreeMap<&str, &str>,
    exists: &dyn Fn(&str) -> bool,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { from.to_owned() } else { resolve(from, file)? };
    if !exists(&path) {
        return Some(format!("`{target}` points nowhere: there is no {path}"));
    }
    let text = documents.get(path.as_str())?;
    let known = heading.is_empty() || anchors(text).contains(heading);
    (!known).then(|| format!("`{target}`: {path} has no heading of that name"))
}

/// The path that `link` means in the document `from`; `None` leaves the repository's root, which
/// on a hosting site means something else.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// Inline links, images and reference definitions outside code, with their line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line_number, line) in prose_lines(text) {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let Some(end) = rest.find([')', ' ']) else { continue };
            found.push((line_number, rest[..end].trim_matches(['<', '>']).to_owned()));
        }
        let definition = line.trim_start();
        if definition.starts_with('[')
            && !definition.starts_with("[^")
            && let Some((_, target)) = definition.split_once("]: ")
            && let Some(target) = target.split_whitespace().next()
        {
            found.push((line_number, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    found
}

/// The names by which headings can be linked to, as hosting sites make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose_lines(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let mut name = String::new();
        for character in title.trim().chars() {
            match character {
                ' ' => name.push('-'),
                '-' | '_' => name.push(character),
                _ if character.is_alphanumeric() => name.extend(character.to_lowercase()),
                _ => {}
            }
        }
        let times = seen.entry(name.clone()).or_default();
        anchors.insert(if *times == 0 { name } else { format!("{name}-{times}") });
        *times += 1;
    }
    anchors
}

/// Lines outside fenced code, numbered from one.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((at + 1, line))
    })
}

/// The line with its `code` cut out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(documents: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<(String, String)> =
            documents.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        let exists = |path: &str| path == "docs" || files.iter().any(|(known, _)| known == path);
        check(&files, &exists).into_iter().map(|found| found.what).collect()
    }

    /// A link is resolved from the folder of its document.
    #[test]
    fn links_to_missing_files_are_flagged() {
        let protocol = ("docs/protocol.md", "# 1. Preface\n[up](../README.md) [map](map.md)\n");
        let readme =
            ("README.md", "[it](docs/protocol.md), [dir](docs/), [web](https://x.org/y)\n");
        assert_eq!(
            whats(&[protocol, readme]),
            ["`map.md` points nowhere: there is no docs/map.md"]
        );
        let reference = ("README.md", "See [it][1].\n\n[1]: gone.md \"title\"\n");
        assert_eq!(whats(&[reference]), ["`gone.md` points nowhere: there is no gone.md"]);
    }

    /// Code is not prose: what looks like a link there is none.
    #[test]
    fn code_holds_no_links() {
        let readme = ("README.md", "`[x](gone.md)`\n```text\n[x](gone.md)\n```\n");
        assert_eq!(whats(&[readme]), [] as [&str; 0]);
    }

    /// Headings are linked by their lower-case words; the second of a name gets a number.
    #[test]
    fn links_to_missing_headings_are_flagged() {
        let text = "# 1. Frames, and `ops`\n## Same\n## Same\n\
                    [a](#1-frames-and-ops) [b](#same-1) [c](#frames)\n";
        let found = whats(&[("README.md", text)]);
        assert_eq!(found, ["`#frames`: README.md has no heading of that name"]);
    }
}
