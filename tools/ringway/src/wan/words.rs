//! Cells by words: one link for each choice of one value of each word.

use ringway_wan::Link;

use crate::failure::Failure;

/// More cells than anybody waits for.
const CELLS_MAX: usize = 10_000;

/// A link for each choice of one value of each word; `usual` says which words have values if none
/// is said. The values of the first of those change slowest.
pub(super) fn links(words: &[String], usual: &[(&str, &str)]) -> Result<Vec<Link>, Failure> {
    let said: Vec<&str> = words.iter().flat_map(|words| words.split_whitespace()).collect();
    let named =
        |key: &str| said.iter().any(|word| word.split_once('=').is_some_and(|w| w.0 == key));
    let added = usual.iter().filter(|(key, _)| !named(key));
    let added: Vec<String> = added.map(|(key, values)| format!("{key}={values}")).collect();
    let order = |word: &&str| usual.iter().position(|(key, _)| word.split('=').next() == Some(key));
    let mut all: Vec<&str> = added.iter().map(String::as_str).chain(said).collect();
    // The table's own words first, because others may stand for a part of what they say.
    all.sort_by_key(|word| order(word).unwrap_or(usual.len()));
    let mut texts = vec![String::new()];
    for word in all {
        let (key, values) = word.split_once('=').unwrap_or((word, ""));
        let values: Vec<&str> = values.split(',').collect();
        if texts.len() * values.len() > CELLS_MAX {
            return Err(Failure::Usage(format!("these are more than {CELLS_MAX} cells")));
        }
        let with = |text: &String, value: &&str| format!("{text} {key}={value}");
        texts =
            texts.iter().flat_map(|text| values.iter().map(move |one| with(text, one))).collect();
    }
    let read = |text: &String| Link::parse(text).map_err(|why| Failure::Usage(why.to_string()));
    texts.iter().map(read).collect()
}
