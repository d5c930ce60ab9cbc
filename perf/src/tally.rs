//! Counting replies by what they said, and telling which of them should not have come.

use std::collections::BTreeMap;

use ringway_coord_proto::wire::status;
use serde::{Deserialize, Serialize};

/// What the owner of a queried name has to be for the run to be valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Either is fine.
    #[default]
    Any,
    /// Every queried name must have an owner: the names were filled before.
    Owned,
    /// No queried name may have an owner.
    Free,
}

/// RESP errors are counted under this status, and by their first word beside it.
pub(crate) const RESP_ERROR: u8 = 0xFF;
/// Different RESP error words that are told apart.
const ERROR_WORDS_MAX: usize = 32;

/// Replies of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    by_status: [u64; 256],
    error_words: BTreeMap<String, u64>,
    /// Replies that the run does not permit.
    pub(crate) unexpected: u64,
    first_unexpected: Option<String>,
    expect: Expect,
    tolerant: bool,
}

impl Tally {
    /// Nothing counted.
    pub(crate) fn new(expect: Expect) -> Tally {
        Tally {
            by_status: [0; 256],
            error_words: BTreeMap::new(),
            unexpected: 0,
            first_unexpected: None,
            expect,
            tolerant: false,
        }
    }

    /// Whether `HELD` and `NOTOWNER` are fine: while names of an earlier run are overwritten or
    /// cleared away.
    pub(crate) fn set_tolerant(&mut self, tolerant: bool) {
        self.tolerant = tolerant;
    }

    /// `count` replies of a status that only queries get.
    #[inline]
    pub(crate) fn query(&mut self, status: u8, count: u64) {
        self.by_status[usize::from(status)] += count;
        let fine = match self.expect {
            Expect::Any => true,
            Expect::Owned => status != status::FREE,
            Expect::Free => status == status::FREE,
        };
        if !fine {
            self.reject(status, count);
        }
    }

    /// `count` replies of a status that says that the op was done.
    #[inline]
    pub(crate) fn done(&mut self, status: u8, count: u64) {
        self.by_status[usize::from(status)] += count;
    }

    /// `count` replies of a status that says that the op was not done.
    #[cold]
    pub(crate) fn not_done(&mut self, status: u8, count: u64) {
        self.by_status[usize::from(status)] += count;
        if !(self.tolerant && (status == status::HELD || status == status::NOTOWNER)) {
            self.reject(status, count);
        }
    }

    /// A RESP error, by its text.
    #[cold]
    pub(crate) fn error(&mut self, text: &[u8]) {
        self.by_status[usize::from(RESP_ERROR)] += 1;
        let text = String::from_utf8_lossy(text);
        let word = text.split(' ').next().unwrap_or_default().to_owned();
        let room = self.error_words.len() < ERROR_WORDS_MAX;
        match self.error_words.get_mut(&word) {
            Some(count) => *count += 1,
            None if room => drop(self.error_words.insert(word, 1)),
            None => *self.error_words.entry("...".to_owned()).or_default() += 1,
        }
        self.unexpected += 1;
        self.first_unexpected.get_or_insert_with(|| text.into_owned());
    }

    #[cold]
    fn reject(&mut self, status: u8, count: u64) {
        self.unexpected += count;
        self.first_unexpected.get_or_insert_with(|| status::name(status).to_owned());
    }

    /// Adds another thread's counts.
    pub(crate) fn merge(&mut self, other: &Tally) {
        for (mine, theirs) in self.by_status.iter_mut().zip(&other.by_status) {
            *mine += theirs;
        }
        for (word, count) in &other.error_words {
            *self.error_words.entry(word.clone()).or_default() += count;
        }
        self.unexpected += other.unexpected;
        if self.first_unexpected.is_none() {
            self.first_unexpected.clone_from(&other.first_unexpected);
        }
    }

    /// The first reply that should not have come.
    pub(crate) fn first_unexpected(&self) -> Option<&str> {
        self.first_unexpected.as_deref()
    }

    /// Counts by the word of each status, for the report.
    pub(crate) fn words(&self) -> BTreeMap<String, u64> {
        let mut words = self.error_words.clone();
        for (status, count) in (0u8..=255).zip(self.by_status) {
            if count == 0 || status == RESP_ERROR {
                continue;
            }
            let word = match status::name(status) {
                "UNKNOWN_STATUS" => format!("0x{status:02X}"),
                word => word.to_owned(),
            };
            *words.entry(word).or_default() += count;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FREE is fine unless the run says that all names are owned; then it fails the run.
    #[test]
    fn expectations_are_enforced() {
        for (expect, unexpected) in [(Expect::Any, 0), (Expect::Owned, 3), (Expect::Free, 4)] {
            let mut tally = Tally::new(expect);
            tally.query(status::FREE, 3);
            tally.query(status::OWNED_EPHEMERAL, 4);
            assert_eq!(tally.unexpected, unexpected, "{expect:?}");
        }
    }

    /// Errors are counted by word, and the first text is kept whole for the message.
    #[test]
    fn errors_are_counted_by_word() {
        let mut tally = Tally::new(Expect::Any);
        tally.error(b"ERR unknown command");
        let mut other = Tally::new(Expect::Any);
        other.error(b"ERR again");
        other.error(b"BUSY");
        other.not_done(status::HELD, 2);
        other.set_tolerant(true);
        other.not_done(status::HELD, 2);
        tally.merge(&other);
        assert_eq!(tally.unexpected, 5);
        assert_eq!(tally.first_unexpected(), Some("ERR unknown command"));
        let words = tally.words();
        assert_eq!((words["ERR"], words["BUSY"], words["HELD"]), (2, 1, 4));
    }
}
