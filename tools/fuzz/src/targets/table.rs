//! The object table against a plain map: the bytes are a list of operations, and bounds of memory.
//!
//! The table's own tests draw their operations from a generator; here coverage chooses them, so
//! the rare order of operations is found that no generator was told to make. Four bytes bound the
//! four regions; then each operation is three bytes: what, which name, which owner.

use std::collections::BTreeMap;

use ringway_core::region::HeapRegion;
use ringway_table::{Full, Grant, HashKey, Name, Owner, OwnerLog, RecordCursor, Regions, Table};

use crate::Target;

/// Operations on a table whose memory may end.
pub const TABLE: Target =
    Target { name: "table", run: table, seeds: table_seeds, words: &[], bytes_max: 3 * 1024 };

/// Owners there are; each has a log.
const OWNERS: usize = 4;
/// A region whose byte has this value has no bound.
const UNBOUNDED: u8 = 255;

const FIND: u8 = 0;
const REGISTER: u8 = 1;
const RELEASE: u8 = 2;
const REPLACE: u8 = 3;
const SWEEP: u8 = 4;
const WALK: u8 = 5;
const MAINTAIN: u8 = 6;
const OPS: u8 = 7;

/// Runs the operations on a table and on a map, and compares them after each.
pub fn table(data: &[u8]) {
    let Some((bounds, ops)) = data.split_first_chunk::<4>() else { return };
    let [records, index, arena, lines] = bounds.map(region);
    let key = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);
    // A table that does not even fit empty is refused, and there is nothing to test.
    let Ok(table) = Table::new(Regions { records, index, arena, lines }, key) else { return };
    let logs = [(); OWNERS].map(|()| OwnerLog::default());
    let mut pair = Pair { table, logs, map: BTreeMap::new(), sequence: 0 };
    for op in ops.chunks_exact(3) {
        pair.step(op[0] % OPS, op[1], op[2]);
    }
    pair.end();
}

/// The table, the logs of its owners, and the map that says what is right.
struct Pair {
    table: Table<HeapRegion>,
    logs: [OwnerLog; OWNERS],
    map: BTreeMap<Vec<u8>, Grant>,
    sequence: u64,
}

impl Pair {
    fn step(&mut self, op: u8, name: u8, owner: u8) {
        let owner = Owner(u32::from(owner) % OWNERS as u32);
        match op {
            SWEEP => self.sweep(owner, 1 + usize::from(name)),
            WALK => self.walk(1 + usize::from(name)),
            MAINTAIN => self.table.maintain(usize::from(name)),
            _ => self.name_op(op, &name_of(name), owner),
        }
        assert_eq!(self.table.len(), self.map.len());
    }

    fn name_op(&mut self, op: u8, bytes: &[u8], owner: Owner) {
        let name = Name::new(bytes).expect("1 to 255 bytes");
        let hash = self.table.hash(&name);
        self.table.prefetch(&[hash]);
        let found = self.table.find(hash, &name);
        assert_eq!(found.map(|(_, grant)| grant), self.map.get(bytes).copied());
        self.sequence += 1;
        let grant = Grant { owner, sequence: self.sequence, epoch_index: 3, flags: 0x55 };
        let log = &mut self.logs[owner.0 as usize];
        match (op, found) {
            (REGISTER, None) => {
                let full = self.table.insert(hash, &name, grant, log) == Err(Full);
                if !full {
                    self.map.insert(bytes.to_vec(), grant);
                }
            }
            (REPLACE, Some((id, before))) => {
                let full = self.table.replace(id, grant, log) == Err(Full);
                if !full {
                    self.map.insert(bytes.to_vec(), grant);
                    if before.owner != owner {
                        self.logs[before.owner.0 as usize].lose();
                    }
                }
            }
            (RELEASE, Some((id, before))) => {
                let log = &mut self.logs[before.owner.0 as usize];
                self.table.remove(id, hash, Some(log));
                self.map.remove(bytes);
            }
            _ => {}
        }
        // Done or refused, the table says what the map says.
        let found = self.table.find(hash, &name).map(|(_, grant)| grant);
        assert_eq!(found, self.map.get(bytes).copied());
    }

    /// The owner ends: exactly its names go, each once, never more at a time than asked for.
    fn sweep(&mut self, owner: Owner, budget: usize) {
        let log = &mut self.logs[owner.0 as usize];
        let held = self.map.values().filter(|grant| grant.owner == owner).count();
        assert_eq!(log.live() as usize, held);
        let mut released = 0;
        loop {
            let before = released;
            let done = self.table.sweep(owner, log, (budget, 0), |_, name, grant| {
                assert_eq!(self.map.remove(name), Some(grant));
                assert_eq!(grant.owner, owner);
                released += 1;
            });
            assert!(released - before <= budget);
            if done {
                break;
            }
        }
        assert_eq!(released, held);
        assert!(log.is_empty());
    }

    /// Every name is met once.
    fn walk(&self, budget: usize) {
        let mut met = BTreeMap::new();
        let mut cursor = Some(RecordCursor::default());
        while let Some(from) = cursor {
            cursor = self.table.walk(from, budget, |_, name, grant| {
                assert_eq!(met.insert(name.to_vec(), grant), None, "met twice");
            });
        }
        assert_eq!(met, self.map);
    }

    fn end(mut self) {
        self.walk(7);
        for owner in 0..OWNERS {
            self.sweep(Owner(owner as u32), 5);
        }
        assert!(self.table.is_empty() && self.map.is_empty());
    }
}

fn region(byte: u8) -> HeapRegion {
    let bound = 256 + 24 * usize::from(byte);
    HeapRegion::new(if byte == UNBOUNDED { usize::MAX } else { bound })
}

/// 256 names of all lengths that differ in one byte, at the end or in the middle.
fn name_of(number: u8) -> Vec<u8> {
    let len = if number < 170 { 1 + usize::from(number) % 17 } else { usize::from(number) };
    let mut name = vec![b'x'; len];
    name[len / 2] = number;
    name
}

fn table_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let open = [UNBOUNDED; 4];
    let with = |bounds: [u8; 4], ops: &[[u8; 3]]| [&bounds[..], ops.concat().as_slice()].concat();
    let all = |op: u8, owner: u8| (0..=255).map(move |name| [op, name, owner]);
    let fill: Vec<[u8; 3]> = all(REGISTER, 0).collect();
    let churn: Vec<[u8; 3]> =
        all(REGISTER, 0).chain(all(RELEASE, 0)).chain(all(REGISTER, 1)).collect();
    let to_and_fro: Vec<[u8; 3]> =
        (0..200).map(|turn| [if turn == 0 { REGISTER } else { REPLACE }, 9, turn % 2]).collect();
    let sweeps: Vec<[u8; 3]> =
        all(REGISTER, 2).chain([[SWEEP, 3, 2], [WALK, 4, 0], [MAINTAIN, 9, 0]]).collect();
    vec![
        (
            "one-of-each",
            with(
                open,
                &[
                    [REGISTER, 1, 0],
                    [FIND, 1, 0],
                    [REPLACE, 1, 1],
                    [WALK, 0, 0],
                    [RELEASE, 1, 0],
                    [REGISTER, 200, 3],
                    [SWEEP, 0, 3],
                    [MAINTAIN, 1, 0],
                ],
            ),
        ),
        ("fill", with(open, &fill)),
        ("churn", with(open, &churn)),
        ("two-owners-in-turn", with(open, &to_and_fro)),
        ("sweep-while-walking", with(open, &sweeps)),
        ("records-end", with([20, UNBOUNDED, UNBOUNDED, UNBOUNDED], &fill)),
        ("index-ends", with([UNBOUNDED, 0, UNBOUNDED, UNBOUNDED], &fill)),
        ("arena-ends", with([UNBOUNDED, UNBOUNDED, 5, UNBOUNDED], &fill)),
        ("lines-end", with([UNBOUNDED, UNBOUNDED, UNBOUNDED, 1], &fill)),
    ]
}
