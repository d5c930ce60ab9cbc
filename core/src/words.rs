//! Words of people: what an unknown one is probably meant for, and sizes with units.

use alloc::vec::Vec;

/// The one among `known` that an unknown word is probably meant for.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let near = known.into_iter().map(|known| (distance(&word, known), known));
    let near = near.filter(|(distance, known)| *distance <= 1 + known.len() / 5).min();
    near.map(|(_, known)| known)
}

/// How many letters must be added, removed or changed to make one word of the other.
pub fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for at in 0..other.len() {
            let changed = diagonal + usize::from(letter != other[at]);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// A whole number; separators as in TOML are allowed: 30_000.
pub fn number(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

/// A number and what stands behind it: `("100", "Mbit/s")` of `100 Mbit/s`.
pub fn number_and_unit(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim())
}

/// A size in bytes: `12GiB`, `500 MB`, `1_000`.
pub fn size(text: &str) -> Option<u64> {
    let (digits, unit) = number_and_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number(digits)?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("12GiB"), Some(12 << 30));
        assert_eq!(size("500 MB"), Some(500_000_000));
        assert_eq!(size("1_000"), Some(1000));
        for wrong in ["", "-5", "12 gigs", "GiB", "99999999999TiB", "1.5GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert_eq!(number_and_unit("100 Mbit/s"), ("100", "Mbit/s"));
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["listen", "shards", "shared_key"];
        assert_eq!(nearest("shard", known), Some("shards"));
        assert_eq!(nearest("Shared-Key", known), Some("shared_key"));
        assert_eq!(nearest("replicas", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
