//! Results: a line of JSON each in a file, and all of them as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, host};
use crate::output::{hex, table};
use crate::wan::own_program;
use crate::wan::words::mbit_said;

/// What a run is: two that are equal are the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct What {
    /// The link, in words.
    pub(super) link: String,
    pub(super) contestant: String,
    pub(super) seconds: u64,
    pub(super) round: u32,
    /// Which losses; none in files of before this was written down.
    pub(super) seed: Option<u64>,
    /// Which program of ours, by [`build`]; none if it is another's.
    pub(super) build: Option<String>,
}

/// What tells this program from every other build: its own bytes do.
pub(super) fn build() -> Result<String, Failure> {
    let mut program =
        File::open(own_program()).map_err(|error| host("cannot open our own program", error))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = program.read(&mut buffer);
        match read.map_err(|error| host("cannot read our own program", error))? {
            0 => return Ok(hex(&hash.finalize()[..6])),
            bytes => hash.update(&buffer[..bytes]),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {} s", shortened(&self.link), self.contestant, self.seconds)
    }
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) what: What,
    pub(super) mbit_per_s: f64,
    pub(super) bound_mbit_per_s: f64,
    /// Of both ends together, for each 10^9 bytes that arrived; none where it is the kernel's.
    pub(super) cpu_s_per_gb: Option<f64>,
    /// For how long threads of both ends could have run and had no processor.
    pub(super) waited_s: Option<f64>,
    /// Why nothing arrived.
    pub(super) failed: Option<String>,
    /// Packets that the link lost without being told to.
    pub(super) own_losses: u64,
    /// Packets that came out more than 1 ms late.
    pub(super) late: u64,
    /// Packets that came out; none in files of before this was written down.
    pub(super) packets: Option<u64>,
    pub(super) version: String,
}

impl Row {
    /// Part of the bound that arrived; nothing of nothing is nothing.
    pub(super) fn share(&self) -> f64 {
        share(self.mbit_per_s, self.bound_mbit_per_s)
    }

    /// Whether the machine had more to do than it could, so that this says more of it than of who
    /// ran.
    fn is_disturbed(&self) -> bool {
        let late = self.packets.is_some_and(|all| self.late as f64 > all as f64 * LATE_MAX);
        let waited = self.waited_s.is_some_and(|s| s > self.what.seconds as f64 * WAITED_MAX);
        self.own_losses > 0 || late || waited
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failed {
            Some(why) => write!(f, "{}: {why}", self.what),
            None => {
                let (what, got, share) = (&self.what, self.mbit_per_s, 100.0 * self.share());
                write!(f, "{what}: {got:.1} Mbit/s, {share:.1} % of the bound")
            }
        }
    }
}

/// Packets that come late, as a part of those that come, and the time that a tunnel's threads wait
/// for a processor, as a part of a run's: with more the machine was measured.
const LATE_MAX: f64 = 0.01;
const WAITED_MAX: f64 = 0.1;

fn share(mbit_per_s: f64, bound_mbit_per_s: f64) -> f64 {
    if bound_mbit_per_s > 0.0 { mbit_per_s / bound_mbit_per_s } else { 0.0 }
}

/// All results, and the file that has them.
pub(super) struct Rows {
    all: BTreeMap<What, Row>,
    file: Option<File>,
    /// A file that was not there before, while nothing is in it.
    made: Option<PathBuf>,
}

impl Drop for Rows {
    /// Who is stopped before the first result leaves no empty file.
    fn drop(&mut self) {
        // It may be gone by now, or somebody's who writes to it without asking.
        let empty = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
        let _ = self.made.take().filter(empty).map(std::fs::remove_file);
    }
}

impl Rows {
    /// Reads a file that may have some.
    pub(super) fn open(path: Option<&Path>) -> Result<Rows, Failure> {
        let Some(path) = path else {
            return Ok(Rows { all: BTreeMap::new(), file: None, made: None });
        };
        let shown = path.display();
        // What is no file may have no end, or keep nothing.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(Failure::Usage(format!("--into {shown}: this is no ordinary file")));
        }
        let made = (!path.exists()).then(|| path.to_owned());
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = file.map_err(|error| host(&format!("cannot open {shown}"), error))?;
        // Two that write to it would measure all twice, and one of them might take it away.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let why = "another run writes to it; wait for its end, or give another file";
                Failure::Host(format!("--into {shown}: {why}"))
            }
            TryLockError::Error(error) => host(&format!("cannot lock {shown}"), error),
        })?;
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        read.map_err(|error| host(&format!("cannot read {shown}"), error))?;
        let all = parse(&text).map_err(|why| Failure::Usage(format!("{shown}: {why}")))?;
        if !text.is_empty() && !text.ends_with('\n') {
            let ended = file.write_all(b"\n");
            ended.map_err(|error| host(&format!("cannot write {shown}"), error))?;
        }
        Ok(Rows { all, file: Some(file), made })
    }

    /// Whether this was measured. What failed is tried again.
    pub(super) fn have(&self, what: &What) -> bool {
        self.all.get(what).is_some_and(|row| row.failed.is_none())
    }

    /// How many of these runs there are results of that do not count, because another build or
    /// another seed made them.
    pub(super) fn others<'a>(&self, plan: impl Iterator<Item = &'a What>) -> usize {
        let same = |a: &What, b: &What| {
            (&a.link, &a.contestant, a.seconds, a.round)
                == (&b.link, &b.contestant, b.seconds, b.round)
        };
        let other = |what: &&What| {
            !self.have(what)
                && self.all.values().any(|row| row.failed.is_none() && same(&row.what, what))
        };
        plan.filter(other).count()
    }

    /// Keeps a result (M2).
    pub(super) fn add(&mut self, row: Row) -> Result<(), Failure> {
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(&row).expect("plain numbers and texts") + "\n";
            let kept = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
            kept.map_err(|error| host("cannot keep a result", error))?;
            self.made = None;
        }
        self.all.insert(row.what.clone(), row);
        Ok(())
    }

    /// The results of these runs.
    pub(super) fn of<'a>(&self, plan: impl Iterator<Item = &'a What>) -> Vec<Row> {
        plan.filter_map(|what| self.all.get(what)).cloned().collect()
    }
}

/// The rows of a file; of two of the same run the later counts. The last line may have been cut by
/// the end of who wrote it.
fn parse(text: &str) -> Result<BTreeMap<What, Row>, String> {
    let mut all = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_str::<Row>(line) {
            Ok(row) => {
                all.insert(row.what.clone(), row);
            }
            Err(error) if error.is_eof() => {}
            Err(error) => return Err(format!("line {} is no result: {error}", at + 1)),
        }
    }
    Ok(all)
}

/// A row for each cell, a column for each who ran there: medians of what arrived, and its share of
/// the bound. Below stand what failed, and what the machine has disturbed.
pub(super) fn page(rows: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut cells: Vec<(&str, f64)> = Vec::new();
    for row in rows {
        if !names.contains(&row.what.contestant.as_str()) {
            names.push(&row.what.contestant);
        }
        if !cells.iter().any(|(link, _)| *link == row.what.link) {
            cells.push((&row.what.link, row.bound_mbit_per_s));
        }
    }
    let mut head = vec!["link", "bound"];
    for name in &names {
        head.extend([*name, "%"]);
    }
    let line = |(link, bound): &(&str, f64)| {
        let mut cells = vec![shortened(link), mbit_said(*bound)];
        for name in &names {
            let of = |row: &&Row| row.what.link == *link && row.what.contestant == *name;
            cells.extend(said_of(&rows.iter().filter(of).collect::<Vec<_>>(), *bound));
        }
        cells
    };
    let mut text = table(&head, &cells.iter().map(line).collect::<Vec<_>>());
    for row in rows {
        if let Some(why) = &row.failed {
            text += &format!("failed: {}, round {}: {why}\n", row.what, row.what.round + 1);
        }
    }
    for row in rows.iter().filter(|row| row.is_disturbed()) {
        text += &format!("*: {}, round {}: {}\n", row.what, row.what.round + 1, trouble(row));
    }
    if rows.iter().any(Row::is_disturbed) { text + DISTURBED } else { text }
}

const DISTURBED: &str = "\
* the machine could not keep up: the link lost packets by itself, more than 1 % came out more than
  1 ms late, or the tunnel's threads waited for a processor for more than a tenth of the time\n";

/// What came of the rounds of one in a cell: what arrived, and its share of the bound.
fn said_of(rounds: &[&Row], bound: f64) -> [String; 2] {
    if rounds.iter().any(|row| row.failed.is_some()) {
        return ["failed".to_owned(), "-".to_owned()];
    }
    let Some(got) = median(rounds.iter().map(|row| row.mbit_per_s).collect()) else {
        return ["-".to_owned(), "-".to_owned()];
    };
    let mark = if rounds.iter().any(|row| row.is_disturbed()) { "*" } else { "" };
    [mbit_said(got), format!("{:.1}{mark}", 100.0 * share(got, bound))]
}

/// What the machine has done to a run, in words.
fn trouble(row: &Row) -> String {
    let of = row.packets.map_or(String::new(), |all| format!(" of {all}"));
    let mut text = format!("{} packets lost by itself, {}{of} late", row.own_losses, row.late);
    if let Some(waited_s) = row.waited_s {
        text += &format!(", waited {waited_s:.1} s for a processor");
    }
    text
}

/// The middle one; of an even number the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) =
        (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((below + above) / 2.0)
}

/// The words of a link that are not as usual.
fn shortened(link: &str) -> String {
    let usual = ["queue=usual", "burst=0", "jitter=0ns", "reorder=0%", "reorder_by=5ms", "down=0"];
    link.split(' ').filter(|word| !usual.contains(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(contestant: &str, round: u32, mbit_per_s: f64) -> Row {
        let link = "rate=200mbit delay=5ms queue=usual loss=1% mtu=1500".to_owned();
        let build = (contestant == "ringway").then(|| "0123456789ab".to_owned());
        let contestant = contestant.to_owned();
        let what = What { link, contestant, seconds: 20, round, seed: Some(1), build };
        Row {
            what,
            mbit_per_s,
            bound_mbit_per_s: 198.0,
            cpu_s_per_gb: None,
            waited_s: None,
            failed: (mbit_per_s == 0.0).then(|| "no way".to_owned()),
            own_losses: 0,
            late: 3,
            packets: Some(20_000),
            version: "1".to_owned(),
        }
    }

    /// What is there is not measured again, what failed is; a line that was cut is forgotten.
    #[test]
    fn results_are_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("matrix.jsonl");
        let mut rows = Rows::open(Some(&path)).expect("a new file");
        rows.add(row("ringway", 0, 190.0)).expect("it is kept");
        rows.add(row("cubic", 0, 0.0)).expect("it is kept");
        let text = std::fs::read_to_string(&path).expect("the file");
        std::fs::write(&path, format!("{text}{{\"link\":\"rate=")).expect("our file");
        drop(rows);
        let mut rows = Rows::open(Some(&path)).expect("the file");
        assert!(rows.have(&row("ringway", 0, 1.0).what));
        assert!(!rows.have(&row("cubic", 0, 1.0).what) && !rows.have(&row("bbr", 0, 1.0).what));
        rows.add(row("cubic", 0, 20.0)).expect("it is kept");
        drop(rows);
        let rows = Rows::open(Some(&path)).expect("the file");
        assert!(rows.have(&row("cubic", 0, 1.0).what));
        std::fs::write(&path, "no result\n").expect("our file");
        drop(rows);
        assert!(Rows::open(Some(&path)).is_err());
    }

    /// Who measures nothing leaves nothing, and takes nothing away.
    #[test]
    fn a_file_without_results_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("matrix.jsonl");
        drop(Rows::open(Some(&path)).expect("a new file"));
        assert!(!path.exists());
        std::fs::write(&path, "").expect("our file");
        let rows = Rows::open(Some(&path)).expect("the file");
        let Err(Failure::Host(why)) = Rows::open(Some(&path)).map(drop) else { panic!() };
        assert!(why.contains("another run writes to it"), "{why}");
        drop(rows);
        assert!(path.exists(), "it was there before");
    }

    /// What another build or seed has measured does not count, nor what says neither; of others'
    /// programs the build is nothing.
    #[test]
    fn results_are_of_a_build_and_a_seed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("matrix.jsonl");
        let mut rows = Rows::open(Some(&path)).expect("a new file");
        let of = |contestant: &str| row(contestant, 0, 190.0);
        rows.add(of("ringway")).expect("it is kept");
        rows.add(of("cubic")).expect("it is kept");
        let (ringway, cubic) = (of("ringway").what, of("cubic").what);
        let rebuilt = What { build: Some("ba9876543210".to_owned()), ..ringway.clone() };
        let [reseeded, cubic_reseeded] =
            [&ringway, &cubic].map(|what| What { seed: Some(2), ..what.clone() });
        let unknown = What { round: 1, ..ringway.clone() };
        drop(rows);
        let rows = Rows::open(Some(&path)).expect("the file");
        assert!(rows.have(&ringway) && rows.have(&cubic));
        assert_eq!(rows.others([&ringway, &cubic, &unknown].into_iter()), 0);
        for other in [&rebuilt, &reseeded, &cubic_reseeded] {
            assert!(!rows.have(other) && rows.others([other].into_iter()) == 1, "{other}");
        }
        let text = std::fs::read_to_string(&path).expect("the file");
        let old = text.replace(r#","seed":1"#, "").replace(r#","build":"0123456789ab""#, "");
        assert!(!old.contains("seed") && !old.contains("0123"), "{old}");
        std::fs::write(&path, old).expect("our file");
        drop(rows);
        let rows = Rows::open(Some(&path)).expect("an older file");
        assert_eq!(rows.others([&ringway, &cubic].into_iter()), 2);
        assert_eq!(build().expect("it is there").len(), 12);
    }

    #[test]
    fn a_cell_has_a_line_and_medians() {
        let rows = [
            row("ringway", 0, 99.0),
            row("cubic", 0, 19.8),
            row("ringway", 1, 198.0),
            row("ringway", 2, 178.2),
        ];
        assert_eq!(
            page(&rows),
            "link                                     bound  ringway     %  cubic     %\n\
             rate=200mbit delay=5ms loss=1% mtu=1500  198.0    178.2  90.0   19.8  10.0\n"
        );
        let two = [row("cubic", 0, 19.8), row("cubic", 1, 59.4)];
        assert!(page(&two).ends_with(" 39.6  20.0\n"), "{}", page(&two));
    }

    /// What failed is no result, whatever other rounds brought, and never a number.
    #[test]
    fn failures_are_told() {
        let nothing = Row { bound_mbit_per_s: 0.0, ..row("bbr", 0, 0.0) };
        for rows in [vec![row("cubic", 0, 19.8), row("cubic", 1, 0.0)], vec![nothing]] {
            let page = page(&rows);
            assert!(page.contains("  failed  -\nfailed: rate=") && page.ends_with(": no way\n"));
            assert!(!page.contains("NaN") && !page.contains("0.0"), "{page}");
        }
    }

    /// A run that the machine has disturbed is marked, with what it did.
    #[test]
    fn what_the_machine_did_is_told() {
        let calm = row("ringway", 0, 198.0);
        assert!(!page(std::slice::from_ref(&calm)).contains('*'));
        let late = Row { late: 201, ..calm.clone() };
        let losing = Row { own_losses: 1, ..calm.clone() };
        let waiting = Row { waited_s: Some(2.1), ..calm.clone() };
        for (row, told) in [
            (late, "201 of 20000 late"),
            (losing, "1 packets lost by itself"),
            (waiting, "waited 2.1 s"),
        ] {
            let page = page(&[calm.clone(), row]);
            assert!(page.contains("  100.0*\n*: rate=") && page.contains(told), "{page}");
        }
    }

    /// What is no file has no end, or nothing is kept in it.
    #[test]
    fn only_files_keep_results() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in [Path::new("/dev/full"), Path::new("/dev/zero"), dir.path()] {
            let refused = Rows::open(Some(path)).err();
            assert!(matches!(refused, Some(Failure::Usage(_))), "{}", path.display());
        }
    }
}
