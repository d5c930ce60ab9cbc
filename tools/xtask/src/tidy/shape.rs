//! Rules about shapes: sizes of functions and files, numbers of parameters, headers, the
//! attributes at a crate's root, ignored tests.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::policy::{
    ARGUMENTS_MAX, DENY_INSTEAD_OF_FORBID, FILE_LINES_MAX, FUNCTION_LINES_MAX, PACKAGES,
    TYPE_PARAMETERS_MAX,
};
use super::source::Source;

/// All findings of this module in one file.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut visitor = Shapes { path: source.path, findings: Vec::new(), test_lines: 0 };
    visitor.visit_file(&source.tree);
    let Shapes { mut findings, test_lines, .. } = visitor;

    let lines = source.lines.len().saturating_sub(test_lines);
    if lines > FILE_LINES_MAX && !is_test_file(source.path) {
        let what =
            format!("{lines} lines without tests, at most {FILE_LINES_MAX}: split by subject");
        let over = lines - FILE_LINES_MAX;
        findings.push(Finding::new("file-lines", source.path, 1, what).weighing(over));
    }
    findings.extend(header(source));
    findings
}

/// The attributes that keep a sans-io crate what it is; `package` is the one whose root it is.
pub(super) fn check_sans_io_root(package: &str, source: &Source<'_>) -> Vec<Finding> {
    let has = |name: &str, of: Option<&str>| {
        source.tree.attrs.iter().any(|attribute| match (&attribute.meta, of) {
            (syn::Meta::Path(path), None) => path.is_ident(name),
            (syn::Meta::List(list), Some(of)) => {
                list.path.is_ident(name) && list.tokens.to_string() == of
            }
            _ => false,
        })
    };
    let mut findings = Vec::new();
    let mut flag = |line, what: String| {
        findings.push(Finding::new("sans-io", source.path, line, what));
    };
    if !has("no_std", None) {
        flag(1, format!("{package} is sans-io: its root says `#![no_std]`, tests included"));
    }
    let level = if DENY_INSTEAD_OF_FORBID.contains(&package) { "deny" } else { "forbid" };
    if !has(level, Some("unsafe_code")) && !has("forbid", Some("unsafe_code")) {
        flag(1, format!("{package} is sans-io: its root says `#![{level}(unsafe_code)]`"));
    }
    for item in &source.tree.items {
        if let syn::Item::ExternCrate(item) = item
            && item.ident == "std"
            && !is_test_only(&item.attrs)
        {
            let line = item.span().start().line;
            flag(line, "`extern crate std` lets I/O and clocks in: only under `cfg(test)`".into());
        }
    }
    findings
}

/// The root file of a sans-io package, by its path: the package's name or nothing.
pub(super) fn is_sans_io(package: &str) -> bool {
    PACKAGES.iter().any(|known| known.name == package && known.vendors.is_some())
}

/// A file opens with a `//!` header that says something.
fn header(source: &Source<'_>) -> Option<Finding> {
    let mut doc = String::new();
    for attribute in &source.tree.attrs {
        if let syn::Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value
        {
            doc.push_str(&text.value());
        }
    }
    if doc.split_whitespace().count() >= 3 {
        return None;
    }
    let what = "no `//!` header that says what this file is for, what holds, what is not here";
    Some(Finding::new("header", source.path, 1, what))
}

/// Whole files of tests do not count towards the size of what they test.
fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Whether an item exists in tests only: `cfg(test)`, or `cfg(all(test, ..))`.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let condition: String = list.tokens.to_string().split_whitespace().collect();
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

/// Walks one file.
struct Shapes<'a> {
    path: &'a str,
    findings: Vec<Finding>,
    /// Lines inside `#[cfg(test)] mod ... { }`.
    test_lines: usize,
}

impl Shapes<'_> {
    fn flag(&mut self, rule: &'static str, line: usize, over: usize, what: String) {
        self.findings.push(Finding::new(rule, self.path, line, what).weighing(over));
    }

    fn function(&mut self, signature: &syn::Signature, body: Option<&syn::Block>) {
        let name = &signature.ident;
        let first = signature.span().start().line;
        if let Some(body) = body {
            let lines = body.span().end().line - first + 1;
            if lines > FUNCTION_LINES_MAX {
                let what =
                    format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: split it");
                self.flag("function-lines", first, lines - FUNCTION_LINES_MAX, what);
            }
        }
        let typed = signature.inputs.iter().filter_map(|input| match input {
            syn::FnArg::Typed(typed) => Some(typed),
            _ => None,
        });
        let arguments = typed.clone().count();
        if arguments > ARGUMENTS_MAX {
            let what = format!(
                "`{name}` takes {arguments} arguments, at most {ARGUMENTS_MAX}: make a struct"
            );
            self.flag("arguments", first, arguments - ARGUMENTS_MAX, what);
        }
        let anonymous = typed.filter(|typed| matches!(*typed.ty, syn::Type::ImplTrait(_))).count();
        self.type_parameters(&signature.generics, anonymous, &name.to_string());
    }

    fn type_parameters(&mut self, generics: &syn::Generics, anonymous: usize, of: &str) {
        let count = generics.type_params().count() + anonymous;
        if count > TYPE_PARAMETERS_MAX {
            let line = generics.span().start().line.max(1);
            let what = format!("`{of}` has {count} type parameters, at most {TYPE_PARAMETERS_MAX}");
            self.flag("type-parameters", line, count - TYPE_PARAMETERS_MAX, what);
        }
    }
}

impl<'ast> Visit<'ast> for Shapes<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, Some(&item.block));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, Some(&item.block));
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.default.as_ref());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.type_parameters(&item.generics, 0, &item.ident.to_string());
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.type_parameters(&item.generics, 0, &item.ident.to_string());
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.type_parameters(&item.generics, 0, &item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.type_parameters(&item.generics, 0, "impl");
        visit::visit_item_impl(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() && is_test_only(&item.attrs) {
            let span = item.span();
            self.test_lines += span.end().line - span.start().line + 1;
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let hidden = match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg_attr") => {
                list.tokens.clone().into_iter().any(|token| token.to_string() == "ignore")
            }
            _ => false,
        };
        if hidden || attribute.path().is_ident("ignore") {
            let line = attribute.span().start().line;
            let what = "an ignored test proves nothing: make it pass, make it small, or drop it";
            self.flag("ignore", line, 1, what.to_owned());
        }
        visit::visit_attribute(self, attribute);
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn rules(text: &str) -> Vec<(&'static str, usize)> {
        let source = Source::parse("x/src/lib.rs", text).ok().expect("a snippet is Rust");
        check(&source).into_iter().map(|found| (found.rule, found.weight)).collect()
    }

    fn with_header(text: &str) -> String {
        format!("//! A file that does something.\n{text}")
    }

    /// Seventy lines pass, seventy-one do not, wherever the function stands.
    #[test]
    fn long_functions_are_flagged() {
        let body = |lines: usize| "    work();\n".repeat(lines - 2);
        let free = |lines| with_header(&format!("fn f() {{\n{}}}\n", body(lines)));
        assert_eq!(rules(&free(70)), []);
        assert_eq!(rules(&free(73)), [("function-lines", 3)]);
        let method = with_header(&format!("impl X {{\nfn f(&self) {{\n{}}}\n}}\n", body(71)));
        assert_eq!(rules(&method), [("function-lines", 1)]);
        let default = with_header(&format!("trait X {{\nfn f(&self) {{\n{}}}\n}}\n", body(71)));
        assert_eq!(rules(&default), [("function-lines", 1)]);
    }

    /// Doc comments and attributes above a function are not part of its length.
    #[test]
    fn docs_do_not_make_a_function_long() {
        let docs = "/// Why.\n".repeat(80);
        assert_eq!(rules(&with_header(&format!("{docs}#[inline]\nfn f() {{}}\n"))), []);
    }

    /// A file's own tests do not count, whatever follows them; the rest does.
    #[test]
    fn long_files_are_flagged_without_their_tests() {
        let code = "const A: u8 = 1;\n";
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code.repeat(500));
        assert_eq!(rules(&with_header(&format!("{}{tests}", code.repeat(999)))), []);
        assert_eq!(
            rules(&with_header(&format!("{}{tests}", code.repeat(1_009)))),
            [("file-lines", 10)]
        );
        let loom = tests.replace("cfg(test)", "cfg(all(test, loom))");
        assert_eq!(rules(&with_header(&format!("{}{tests}{loom}", code.repeat(999)))), []);
        let not = tests.replace("cfg(test)", "cfg(not(test))");
        assert_eq!(rules(&with_header(&format!("{}{not}", code.repeat(999)))).len(), 1);
        let text = with_header(&code.repeat(2_000));
        let source = Source::parse("x/tests/stories.rs", &text).ok().expect("Rust");
        assert_eq!(check(&source), []);
    }

    /// `self` is free, everything else counts.
    #[test]
    fn many_arguments_are_flagged() {
        let five = "impl X { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8) {} }";
        assert_eq!(rules(&with_header(five)), []);
        let seven = "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {}";
        assert_eq!(rules(&with_header(seven)), [("arguments", 2)]);
    }

    /// `impl Trait` is a type parameter in disguise; lifetimes and constants are not.
    #[test]
    fn many_type_parameters_are_flagged() {
        assert_eq!(rules(&with_header("struct X<'a, A, B, const N: usize>(&'a [(A, B); N]);")), []);
        assert_eq!(rules(&with_header("struct X<A, B, C>(A, B, C);")), [("type-parameters", 1)]);
        let disguised = "fn f<A, B>(a: A, b: B, c: impl Fn(), d: impl Fn()) {}";
        assert_eq!(rules(&with_header(disguised)), [("type-parameters", 2)]);
    }

    /// A header may stand behind a crate's attributes, but it has to say something.
    #[test]
    fn files_without_a_header_are_flagged() {
        assert_eq!(rules("#![no_main]\n//! A driver of a target.\nfn f() {}"), []);
        assert_eq!(rules("/// Not the file's header.\nfn f() {}"), [("header", 1)]);
        assert_eq!(rules("//! placeholder\n"), [("header", 1)]);
    }

    /// Neither the plain attribute nor the one behind a condition gets through.
    #[test]
    fn ignored_tests_are_flagged() {
        assert_eq!(rules(&with_header("#[test]\nfn ignore() {}")), []);
        assert_eq!(rules(&with_header("#[test]\n#[ignore]\nfn f() {}")), [("ignore", 1)]);
        assert_eq!(rules(&with_header("#[ignore = \"slow\"]\nfn f() {}")), [("ignore", 1)]);
        assert_eq!(rules(&with_header("#[cfg_attr(miri, ignore)]\nfn f() {}")), [("ignore", 1)]);
    }

    /// A sans-io root states both attributes, and lets std in for its tests only.
    #[test]
    fn sans_io_roots_are_held_to_it() {
        let count = |package: &str, text: &str| {
            let source = Source::parse("x/src/lib.rs", text).ok().expect("Rust");
            check_sans_io_root(package, &source).len()
        };
        let good = "#![no_std]\n#![forbid(unsafe_code)]\n#[cfg(test)]\nextern crate std;";
        assert_eq!(count("ringway-core", good), 0);
        assert_eq!(count("ringway-core", "#![forbid(unsafe_code)]"), 1);
        assert_eq!(count("ringway-core", "#![cfg_attr(not(test), no_std)]"), 2);
        assert_eq!(count("ringway-core", "#![no_std]\n#![deny(unsafe_code)]"), 1);
        assert_eq!(count("ringway-table", "#![no_std]\n#![deny(unsafe_code)]"), 0);
        let leaky = "#![no_std]\n#![forbid(unsafe_code)]\nextern crate std;";
        assert_eq!(count("ringway-core", leaky), 1);
    }
}
