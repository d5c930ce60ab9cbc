//! Results: a line of JSON each in a file, and all of them as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, host};
use crate::output::{hex, table};
use crate::wan::own_program;

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
    pub(super) version: String,
}

impl Row {
    /// Part of the bound that arrived.
    pub(super) fn share(&self) -> f64 {
        self.mbit_per_s / self.bound_mbit_per_s
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

/// All results, and the file that has them.
pub(super) struct Rows {
    all: BTreeMap<What, Row>,
    file: Option<File>,
}

impl Rows {
    /// Reads a file that may have some.
    pub(super) fn open(path: Option<&Path>) -> Result<Rows, Failure> {
        let Some(path) = path else { return Ok(Rows { all: BTreeMap::new(), file: None }) };
        let shown = path.display();
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = file.map_err(|error| host(&format!("cannot open {shown}"), error))?;
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        read.map_err(|error| host(&format!("cannot read {shown}"), error))?;
        let all = parse(&text).map_err(|why| Failure::Usage(format!("{shown}: {why}")))?;
        if !text.is_empty() && !text.ends_with('\n') {
            let ended = file.write_all(b"\n");
            ended.map_err(|error| host(&format!("cannot write {shown}"), error))?;
        }
        Ok(Rows { all, file: Some(file) })
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
/// the bound.
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
        let mut cells = vec![shortened(link), format!("{bound:.0}")];
        for name in &names {
            let of = |row: &&Row| row.what.link == *link && row.what.contestant == *name;
            let got: Vec<f64> = rows.iter().filter(of).map(|row| row.mbit_per_s).collect();
            let middle = median(got);
            cells.push(middle.map_or("-".to_owned(), |got| format!("{got:.1}")));
            cells.push(middle.map_or("-".to_owned(), |got| format!("{:.1}", 100.0 * got / bound)));
        }
        cells
    };
    table(&head, &cells.iter().map(line).collect::<Vec<_>>())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
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
        let mut rows = Rows::open(Some(&path)).expect("the file");
        assert!(rows.have(&row("ringway", 0, 1.0).what));
        assert!(!rows.have(&row("cubic", 0, 1.0).what) && !rows.have(&row("bbr", 0, 1.0).what));
        rows.add(row("cubic", 0, 20.0)).expect("it is kept");
        let rows = Rows::open(Some(&path)).expect("the file");
        assert!(rows.have(&row("cubic", 0, 1.0).what));
        std::fs::write(&path, "no result\n").expect("our file");
        assert!(Rows::open(Some(&path)).is_err());
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
             rate=200mbit delay=5ms loss=1% mtu=1500    198    178.2  90.0   19.8  10.0\n"
        );
    }
}
