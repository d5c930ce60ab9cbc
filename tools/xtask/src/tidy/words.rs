//! Rules about single words: where `unsafe` stands and what proves it, sleeping, unfinished code.
//!
//! They read the flat run of words, so they also see what stands inside macro calls.

use super::Finding;
use super::policy::{SAFETY_WORDS_MIN, SANS_IO_SOURCES, UNSAFE_PLACES, lies_in};
use super::source::Source;

/// All findings of this module in one file.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, word) in source.words.iter().enumerate() {
        let before = source.word(index.checked_sub(1));
        let after = source.word(Some(index + 1));
        let mut flag = |rule, what: &str| {
            findings.push(Finding::new(rule, source.path, word.line, what));
        };
        match (word.text.as_str(), after) {
            ("unsafe", _) if !UNSAFE_PLACES.iter().any(|place| lies_in(source.path, place)) => {
                flag("unsafe-place", "unsafe stands only where policy.rs says; use a safe API");
            }
            ("unsafe", "{" | "impl") if !is_proven(source, word.line) => {
                let what = "no `// SAFETY:` comment above that says who owns what, and until when";
                flag("safety-comment", what);
            }
            ("unsafe", "fn" | "extern" | "trait")
                if !is_function_type(source, index) && !states_contract(source, word.line) =>
            {
                flag("safety-comment", "no `# Safety` section that says what callers owe");
            }
            ("sleep" | "nanosleep" | "usleep", _) if is_call(before, after) => {
                flag("sleep", "wait for the condition itself, not for time to pass");
            }
            ("Arc", _) if SANS_IO_SOURCES.iter().any(|place| lies_in(source.path, place)) => {
                flag("sans-io", "nothing is shared in a sans-io crate: `&mut self`, one owner");
            }
            ("todo" | "unimplemented", "!") => {
                flag("todo", "unfinished code does not land: finish it or leave it out");
            }
            _ => {}
        }
    }
    findings.extend(ignored_doc_tests(source));
    findings
}

/// `unsafe fn(..)`, perhaps with an ABI, as a type: it has no name and owes nothing by itself.
fn is_function_type(source: &Source<'_>, index: usize) -> bool {
    let function = (index + 1..=index + 3).find(|at| source.word(Some(*at)) == "fn");
    function.is_some_and(|at| source.word(Some(at + 1)) == "(")
}

/// A call or a path to a function of that name; not a method, not a definition.
fn is_call(before: &str, after: &str) -> bool {
    before != "." && before != "fn" && (after == "(" || before == ":")
}

/// A comment that proves something, directly above the statement which `line` belongs to.
fn is_proven(source: &Source<'_>, line: usize) -> bool {
    let comment = comment_above(source, line);
    comment.split_once("SAFETY:").is_some_and(|(_, proof)| {
        let next = proof.find("SAFETY:").unwrap_or(proof.len());
        proof[..next].split_whitespace().count() >= SAFETY_WORDS_MIN
    })
}

/// What callers of an unsafe function owe, or for a foreign block and for methods of somebody
/// else's trait, why the declaration is right.
fn states_contract(source: &Source<'_>, line: usize) -> bool {
    let comment = comment_above(source, line);
    comment.contains("# Safety") || comment.contains("SAFETY:")
}

/// The comment and doc lines directly above a statement or item, without their slashes. Looks
/// through attributes and the earlier lines of the same statement, at most ten of them.
fn comment_above(source: &Source<'_>, line: usize) -> String {
    let mut comment = Vec::new();
    let mut code_lines = 0;
    for text in source.lines[..line.saturating_sub(1)].iter().rev() {
        let text = text.trim();
        if text.starts_with("//") {
            comment.push(text.trim_start_matches(['/', '!']));
        } else if text.starts_with("#[") {
            continue;
        } else {
            code_lines += 1;
            let ends_statement = text.is_empty() || text.ends_with([';', '{', '}']);
            if !comment.is_empty() || ends_statement || code_lines > 10 {
                break;
            }
        }
    }
    comment.reverse();
    comment.join(" ")
}

/// An example in a doc comment that nobody runs is an ignored test, too.
fn ignored_doc_tests(source: &Source<'_>) -> Vec<Finding> {
    let is_ignored = |line: &str| {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        doc.is_some_and(|doc| {
            doc.trim().strip_prefix("```").is_some_and(|fence| fence.contains("ignore"))
        })
    };
    let numbered = source.lines.iter().enumerate().filter(|(_, line)| is_ignored(line));
    numbered
        .map(|(at, _)| {
            let what = "an example that is not compiled rots: use `no_run`, `text`, or run it";
            Finding::new("ignore", source.path, at + 1, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn rules_at(path: &str, text: &str) -> Vec<&'static str> {
        let source = Source::parse(path, text).ok().expect("a snippet is Rust");
        check(&source).into_iter().map(|found| found.rule).collect()
    }

    fn rules(text: &str) -> Vec<&'static str> {
        rules_at("coord/proto/src/lib.rs", text)
    }

    /// Unsafe is seen in macros and attributes, not in comments and strings.
    #[test]
    fn unsafe_stands_only_in_its_places() {
        assert_eq!(rules("// unsafe\nfn f() { log(\"unsafe {}\"); }"), [] as [&str; 0]);
        assert_eq!(rules("// SAFETY: a b c d e\nunsafe impl Send for X {}"), ["unsafe-place"]);
        assert_eq!(rules("fn f() { assert!(unsafe { g() }); }"), ["unsafe-place"]);
        assert_eq!(rules("#[unsafe(no_mangle)]\nfn f() {}"), ["unsafe-place"]);
        let proven = "// SAFETY: the slot is ours until the head moves past it.\n\
                      unsafe impl Send for X {}";
        let clean: [&str; 0] = [];
        assert_eq!(rules_at("shards/ring/src/sq.rs", proven), clean);
        assert_eq!(rules_at("shards/runtime/src/mailbox.rs", proven), clean);
        assert_eq!(rules_at("shards/runtime/src/mailbox_tests.rs", proven), clean);
        assert_eq!(rules_at("coord/table/src/prefetch.rs", proven), clean);
        assert_eq!(rules_at("shards/runtime/src/shard.rs", proven), ["unsafe-place"]);
        assert_eq!(rules_at("coord/table/src/index.rs", proven), ["unsafe-place"]);
    }

    /// The proof stands above the statement, belongs to it alone, and is more than a word.
    #[test]
    fn unsafe_blocks_are_proven() {
        let ring = |text: &str| rules_at("shards/ring/src/sq.rs", text);
        let clean: [&str; 0] = [];
        let split = "fn f() {\n// SAFETY: the ring owns these bytes until the last completion.\n\
                     let x =\n    unsafe { g() };\n}";
        assert_eq!(ring(split), clean);
        assert_eq!(ring("fn f() {\n    unsafe { g() };\n}"), ["safety-comment"]);
        assert_eq!(
            ring("fn f() {\n// SAFETY: values are valid\nunsafe { g() };\n}"),
            ["safety-comment"]
        );
        let stale = "fn f() {\n// SAFETY: the ring owns these bytes until it ends.\n\
                     unsafe { g() };\nunsafe { h() };\n}";
        assert_eq!(ring(stale), ["safety-comment"]);
        let blank = "fn f() {\n// SAFETY: the ring owns these bytes until it ends.\n\n\
                     unsafe { g() };\n}";
        assert_eq!(ring(blank), ["safety-comment"]);
    }

    /// An unsafe function says what its callers owe; a function type owes nothing.
    #[test]
    fn unsafe_functions_state_their_contract() {
        let ring = |text: &str| rules_at("shards/ring/src/sq.rs", text);
        let clean: [&str; 0] = [];
        assert_eq!(
            ring("/// Pushes.\n///\n/// # Safety\n/// Bytes live.\nunsafe fn f() {}"),
            clean
        );
        assert_eq!(ring("/// Pushes.\npub unsafe fn f() {}"), ["safety-comment"]);
        assert_eq!(ring("type F = unsafe fn(u8);"), clean);
        assert_eq!(ring("type F = unsafe extern \"C\" fn(u8);"), clean);
        assert_eq!(ring("unsafe extern \"C\" { fn f(); }"), ["safety-comment"]);
    }

    /// Sleeping is a call of a function, whoever's it is; methods and definitions are not.
    #[test]
    fn sleeping_is_flagged() {
        let clean: [&str; 0] = [];
        assert_eq!(rules("fn f() { std::thread::sleep(SECOND); }"), ["sleep"]);
        assert_eq!(rules("fn f() { sleep(SECOND).await; }"), ["sleep"]);
        assert_eq!(rules("fn f() { waits.each(thread::sleep); }"), ["sleep"]);
        assert_eq!(rules("fn sleep(ring: &mut Ring) { ring.sleep(); }"), clean);
        assert_eq!(rules("// thread::sleep(x)\nfn f() { say(\"sleep(1)\"); }"), clean);
    }

    /// A machine has one owner; what its tests use is their affair.
    #[test]
    fn sans_io_crates_share_nothing() {
        let clean: [&str; 0] = [];
        let text = "struct Lease(alloc::sync::Arc<State>);";
        assert_eq!(rules_at("coord/proto/src/lease.rs", text), ["sans-io"]);
        assert_eq!(rules_at("coord/proto/tests/resp.rs", text), clean);
        assert_eq!(rules_at("coord/server/src/pump.rs", text), clean);
    }

    /// Neither `todo!` nor an example that nobody compiles lands.
    #[test]
    fn unfinished_code_is_flagged() {
        let clean: [&str; 0] = [];
        assert_eq!(rules("fn f() { todo!() }"), ["todo"]);
        assert_eq!(rules("fn f() { unimplemented!(\"later\") }"), ["todo"]);
        assert_eq!(rules("fn f() { let todo = list(); g(todo) }"), clean);
        assert_eq!(rules("/// ```ignore\n/// f();\n/// ```\nfn f() {}"), ["ignore"]);
        assert_eq!(rules("/// ```no_run\n/// f();\n/// ```\nfn f() {}"), clean);
    }
}
