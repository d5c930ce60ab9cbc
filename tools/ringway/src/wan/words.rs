//! Cells by words: one link for each choice of one value of each word.

use ringway_wan::Link;

use crate::failure::Failure;
use crate::output::table;

/// More cells than anybody waits for.
const CELLS_MAX: usize = 10_000;

/// A link for each choice of one value of each word, once; `usual` says which words have values if
/// none is said. The values of the first of those change slowest.
pub(super) fn links(words: &[String], usual: &[(&str, &str)]) -> Result<Vec<Link>, Failure> {
    let said = said_of(words);
    if let Some(odd) = said.iter().find(|word| !word.contains('=')) {
        let why = Link::parse(odd).expect_err("it says nothing of a line");
        return Err(Failure::Usage(why.to_string()));
    }
    let added = usual.iter().filter(|(key, _)| !is_said(&said, key));
    let added: Vec<String> = added.map(|(key, values)| format!("{key}={values}")).collect();
    let order = |word: &&str| usual.iter().position(|(key, _)| word.split('=').next() == Some(key));
    let mut all: Vec<&str> = added.iter().map(String::as_str).chain(said).collect();
    // The table's own words first, because others may stand for a part of what they say.
    all.sort_by_key(|word| order(word).unwrap_or(usual.len()));
    let mut texts = vec![String::new()];
    for word in all {
        let (key, values) = word.split_once('=').expect("each has one");
        let values: Vec<&str> = values.split(',').collect();
        if texts.len() * values.len() > CELLS_MAX {
            return Err(Failure::Usage(format!("these are more than {CELLS_MAX} cells")));
        }
        let with = |text: &String, value: &&str| format!("{text} {key}={value}");
        texts =
            texts.iter().flat_map(|text| values.iter().map(move |one| with(text, one))).collect();
    }
    let read = |text: &String| Link::parse(text).map_err(|why| Failure::Usage(why.to_string()));
    let mut links: Vec<Link> = Vec::new();
    for text in &texts {
        let link = read(text)?;
        if !links.contains(&link) {
            links.push(link);
        }
    }
    Ok(links)
}

fn said_of(words: &[String]) -> Vec<&str> {
    words.iter().flat_map(|words| words.split_whitespace()).collect()
}

/// Whether a word says this. Who says a delay has said the round trip.
fn is_said(said: &[&str], key: &str) -> bool {
    let says = |key| said.iter().any(|word| word.split('=').next() == Some(key));
    says(key) || key == "rtt" && says("delay")
}

/// The words that have several values: as said, or that of which nothing is said.
pub(super) fn several(words: &[String], usual: &[(&str, &str)]) -> Vec<String> {
    let said = said_of(words);
    let unsaid = usual.iter().filter(|(key, values)| values.contains(',') && !is_said(&said, key));
    let unsaid = unsaid.map(|(key, _)| format!("{key} (of which nothing is said)"));
    let lists = said.iter().filter(|word| word.contains(',')).map(|word| (*word).to_owned());
    lists.chain(unsaid).collect()
}

/// Mbit/s with so many digits that slow lines have some, too.
pub(super) fn mbit_said(mbit: f64) -> String {
    match mbit {
        1000.0.. => format!("{mbit:.0}"),
        10.0.. => format!("{mbit:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{mbit:.3}"),
    }
}

/// Of each link, as printed, the words that are not the same in all of them, but for those of these
/// keys, for which a table has columns anyway.
pub(super) fn varying(links: &[&str], shown: &[&str]) -> Vec<String> {
    let varies = |word: &&str| {
        let key = word.split('=').next().unwrap_or_default();
        !shown.contains(&key) && !links.iter().all(|link| link.split(' ').any(|one| one == *word))
    };
    let words = |link: &&str| link.split(' ').filter(varies).collect::<Vec<_>>().join(" ");
    links.iter().map(words).collect()
}

/// A table whose rows are of these links, with a column behind the first ones for the words that
/// differ, if any do.
pub(super) fn table_of(
    head: &[&str],
    (behind, shown): (usize, &[&str]),
    links: &[&str],
    mut rows: Vec<Vec<String>>,
) -> String {
    let words = varying(links, shown);
    let mut head = head.to_vec();
    if words.iter().any(|words| !words.is_empty()) {
        head.insert(behind, "words");
        for (row, words) in rows.iter_mut().zip(words) {
            row.insert(behind, if words.is_empty() { "-".to_owned() } else { words });
        }
    }
    table(&head, &rows)
}
