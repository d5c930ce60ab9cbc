//! One Rust file, parsed twice: as a syntax tree for shapes, as a flat run of words for rules
//! that also hold inside macros.
//!
//! Comments and string literals are in neither, so no rule is fooled by prose.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A parsed file.
pub(super) struct Source<'a> {
    /// Relative to the top of the workspace.
    pub(super) path: &'a str,
    /// The text, line by line; the first line is at index zero.
    pub(super) lines: Vec<&'a str>,
    /// The syntax tree.
    pub(super) tree: syn::File,
    /// All words and punctuation in order, groups flattened.
    pub(super) words: Vec<Word>,
}

/// An identifier, a character of punctuation, a bracket, or `""` for a literal.
pub(super) struct Word {
    /// As written.
    pub(super) text: String,
    /// Counted from one.
    pub(super) line: usize,
}

/// A file that is not Rust.
pub(super) struct SyntaxError {
    /// Counted from one.
    pub(super) line: usize,
    /// What the parser says.
    pub(super) what: String,
}

impl<'a> Source<'a> {
    /// Parses `text`.
    pub(super) fn parse(path: &'a str, text: &'a str) -> Result<Source<'a>, SyntaxError> {
        let tree = syn::parse_file(text).map_err(|error| SyntaxError {
            line: error.span().start().line,
            what: error.to_string(),
        })?;
        let stream: TokenStream = text.parse().map_err(|error: proc_macro2::LexError| {
            SyntaxError { line: error.span().start().line, what: error.to_string() }
        })?;
        let mut words = Vec::new();
        flatten(stream, &mut words);
        Ok(Source { path, lines: text.lines().collect(), tree, words })
    }

    /// The word at `index`, or nothing beyond either end.
    pub(super) fn word(&self, index: Option<usize>) -> &str {
        index.and_then(|index| self.words.get(index)).map_or("", |word| word.text.as_str())
    }
}

/// Depth is bounded by the compiler's own recursion limit on what it accepts.
fn flatten(stream: TokenStream, words: &mut Vec<Word>) {
    for token in stream {
        let line = token.span().start().line;
        match token {
            TokenTree::Ident(ident) => words.push(Word { text: ident.to_string(), line }),
            TokenTree::Punct(punct) => {
                words.push(Word { text: punct.as_char().to_string(), line });
            }
            TokenTree::Literal(_) => words.push(Word { text: String::new(), line }),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                words.push(Word { text: open.to_owned(), line });
                flatten(group.stream(), words);
                let line = group.span_close().start().line;
                words.push(Word { text: close.to_owned(), line });
            }
        }
    }
}
