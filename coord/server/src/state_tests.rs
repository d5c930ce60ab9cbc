//! Stories of the state directory, above all of machines that die in the middle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

fn open(dir: &Path) -> Result<(StateDir<StdFiles>, Opened), StateError> {
    drive(StateDir::open(dir, StdFiles::new(dir)))
}

const MOST: Span = Span::from_s(30);

/// Whether unsynced bytes survive the first and the second crash.
const LUCK: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// A disk whose machine dies at a chosen act. What was not synced may or may not have survived.
/// The lock and the directory itself are real.
#[derive(Clone, Default)]
struct FaultyDisk {
    /// What a reader sees, and what would be there after a crash.
    live: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    durable: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    /// Acts until the crash; negative: never.
    fuse: Rc<Cell<i64>>,
}

impl FaultyDisk {
    fn burn(&self) -> io::Result<()> {
        let left = self.fuse.get();
        self.fuse.set(left - 1);
        if left == 0 { Err(io::Error::from(ErrorKind::StorageFull)) } else { Ok(()) }
    }

    /// The machine comes back; `lucky` disks had written everything out by themselves.
    fn reboot(&self, lucky: bool) -> FaultyDisk {
        let survived = if lucky { self.live.borrow() } else { self.durable.borrow() }.clone();
        let cell = || Rc::new(RefCell::new(survived.clone()));
        FaultyDisk { live: cell(), durable: cell(), fuse: Rc::new(Cell::new(-1)) }
    }
}

impl Files for FaultyDisk {
    async fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        self.burn()?;
        Ok(self.live.borrow().get(name).map(|bytes| bytes[..bytes.len().min(max)].to_vec()))
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.burn() {
            // A torn write: half of the bytes are there, of the new file only.
            let half = bytes[..bytes.len() / 2].to_vec();
            self.live.borrow_mut().insert(name.to_owned(), half);
            return Err(error);
        }
        self.live.borrow_mut().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.burn()?;
        let bytes = self.live.borrow_mut().remove(from).expect("renames what it wrote");
        self.live.borrow_mut().insert(to.to_owned(), bytes);
        Ok(())
    }

    async fn sync_dir(&self) -> io::Result<()> {
        self.burn()?;
        *self.durable.borrow_mut() = self.live.borrow().clone();
        Ok(())
    }
}

/// What the disk has confirmed, or what clients were told on the strength of it.
#[derive(Clone, Copy, Default, Debug)]
struct Promised {
    epoch: u32,
    lease: Span,
    clean: bool,
}

/// One life of a server: opens, raises, takes another epoch, settles, raises, stops cleanly.
fn live(disk: &FaultyDisk, dir: &Path, promised: &mut Promised) -> Result<(), StateError> {
    drive(async {
        let (mut state, opened) = StateDir::open(dir, disk.clone()).await?;
        assert!(opened.epoch.0 > promised.epoch, "S1: {opened:?} after {promised:?}");
        match opened.previous {
            Previous::Unclean { longest_lease } => assert!(longest_lease >= promised.lease, "S2"),
            Previous::Fresh => assert_eq!(promised.lease, Span::ZERO, "S2"),
            Previous::Clean => {
                assert!(promised.lease == Span::ZERO || promised.clean, "S2");
                promised.lease = Span::ZERO;
            }
        }
        promised.epoch = opened.epoch.0;
        promised.clean = false;
        let kept = promised.lease;
        let raised = state.raise_longest_lease(Span::from_ms(1_500), MOST).await?;
        // What it returns may be granted from now on, and so it is promised.
        assert!(raised >= Span::from_ms(1_500));
        promised.lease = kept.max(raised);
        promised.epoch = state.next_epoch().await?.0;
        // The wait is over: what lives before us granted has run out.
        promised.lease = raised;
        state.settle().await?;
        state.raise_longest_lease(Span::from_s(12), MOST).await?;
        promised.lease = Span::from_s(12);
        // From here on every session has ended, so the lease need not be waited for any more.
        promised.clean = true;
        state.mark_clean().await?;
        Ok(())
    })
}

/// S1, S2 and S3 at every crash point: the machine dies at act n of a life, with or without what
/// was not synced; the next life starts, sees a larger epoch, and knows every lease promised.
#[test]
fn no_crash_point_loses_a_promise() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut deaths = 0;
    for fuse in 0..40 {
        for (first_lucky, then_lucky) in LUCK {
            let disk = FaultyDisk { fuse: Rc::new(Cell::new(-1)), ..FaultyDisk::default() };
            let mut promised = Promised::default();
            disk.fuse.set(fuse);
            deaths += i32::from(live(&disk, dir.path(), &mut promised).is_err());
            let disk = disk.reboot(first_lucky);
            // It dies again at the same act of its second life, then lives.
            disk.fuse.set(fuse);
            let _ = live(&disk, dir.path(), &mut promised);
            let disk = disk.reboot(then_lucky);
            live(&disk, dir.path(), &mut promised).expect("a healthy disk");
        }
    }
    assert!(deaths > 60, "the crash points were reached: {deaths}");
}

/// An error in the middle of the server's life is reported, and the next attempt succeeds: a disk
/// that was full for a minute does not cost a restart.
#[test]
fn a_full_disk_is_survived() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = FaultyDisk { fuse: Rc::new(Cell::new(-1)), ..FaultyDisk::default() };
    let (mut state, _) = drive(StateDir::open(dir.path(), disk.clone())).expect("opens");
    disk.fuse.set(0);
    let error = drive(state.raise_longest_lease(Span::from_s(4), MOST)).expect_err("disk is full");
    assert!(error.to_string().contains("free some space"), "{error}");
    disk.fuse.set(-1);
    let raised = drive(state.raise_longest_lease(Span::from_s(4), MOST)).expect("there is room");
    assert_eq!(raised, Span::from_s(5));
}

/// The epoch of each start is larger, and the way the last life ended is told.
#[test]
fn a_restart_knows_how_the_last_one_ended() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path().join("a/new/one");
    assert_eq!(inspect(&dir).expect("nothing there").epoch, None);
    let (mut state, opened) = open(&dir).expect("first start");
    assert_eq!((opened.epoch, opened.previous), (Epoch(1), Previous::Fresh));
    drive(state.raise_longest_lease(Span::from_s(7), MOST)).expect("raises");
    let seen = Inspected { epoch: Some(Epoch(1)), wait: Span::ZERO, in_use: true };
    assert_eq!(inspect(&dir).expect("readable"), seen);
    drop(state);

    let longest_lease = Span::from_s(10);
    let seen = Inspected { wait: longest_lease, in_use: false, ..seen };
    assert_eq!(inspect(&dir).expect("readable"), seen);
    let (mut state, second) = open(&dir).expect("after a kill");
    assert_eq!(second.epoch, Epoch(2));
    assert_eq!(second.previous, Previous::Unclean { longest_lease });
    assert_eq!(second.server_id, opened.server_id);
    drive(state.mark_clean()).expect("drains");
    drop(state);

    let (state, third) = open(&dir).expect("after a drain");
    assert_eq!((third.epoch, third.previous), (Epoch(3), Previous::Clean));
    drop(state);
    let (_, fourth) = open(&dir).expect("after a kill without a single grant");
    assert_eq!(fourth.previous, Previous::Unclean { longest_lease: Span::ZERO });
}

/// A server that is killed while it still waits for the leases of the one before hands the whole
/// wait on; one that is killed after it hands on only its own.
#[test]
fn the_wait_is_inherited_until_it_is_over() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut state, _) = open(dir.path()).expect("opens");
    drive(state.raise_longest_lease(Span::from_s(30), MOST)).expect("raises");
    drop(state);
    drop(open(dir.path()).expect("killed while waiting"));
    let (mut state, opened) = open(dir.path()).expect("opens");
    assert_eq!(opened.previous, Previous::Unclean { longest_lease: Span::from_s(30) });
    drive(state.settle()).expect("the wait is over");
    drive(state.raise_longest_lease(Span::from_ms(100), MOST)).expect("raises");
    drop(state);
    let (_, opened) = open(dir.path()).expect("opens");
    assert_eq!(opened.previous, Previous::Unclean { longest_lease: Span::from_s(1) });
}

/// Raising is rare: a client that asks for a little more each time costs a write per ladder step.
#[test]
fn the_ladder_makes_writes_rare_and_never_short() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = FaultyDisk { fuse: Rc::new(Cell::new(1_000_000)), ..FaultyDisk::default() };
    let (mut state, _) = drive(StateDir::open(dir.path(), disk.clone())).expect("opens");
    let before = disk.fuse.get();
    for ms in 1..=30_000 {
        let span = Span::from_ms(ms);
        let kept = drive(state.raise_longest_lease(span, MOST)).expect("raises");
        assert!(kept >= span && kept <= MOST);
    }
    assert_eq!(before - disk.fuse.get(), 5 * 3, "1, 2, 5, 10, 30 s; write, rename, sync each");
    assert_eq!(ladder(Span::from_s(90_000)), Span::from_s(90_000));
    let odd = Span::from_s(45);
    assert_eq!(drive(state.raise_longest_lease(odd, odd)).expect("raises"), odd);
}

/// S4: the second server on a directory is told who has it.
#[test]
fn a_second_server_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (state, _) = open(dir.path()).expect("opens");
    let error = open(dir.path()).expect_err("locked").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(error.contains("--state"), "{error}");
    drop(state);
    open(dir.path()).expect("free again");
}

/// Every changed bit and every cut of the record is noticed; the message says what to do.
#[test]
fn damage_is_refused() {
    let record = Record {
        server_id: ServerId(0x1234),
        epoch: Epoch(77),
        longest_lease_ms: 30_000,
        clean: false,
    };
    let good = encode(&record).into_bytes();
    assert_eq!(decode(&good), Ok(record));
    for at in 0..good.len() {
        assert!(decode(&good[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
        }
    }
    let mut longer = good.clone();
    longer.push(b'\n');
    assert!(decode(&longer).is_err());

    let dir = tempfile::tempdir().expect("temporary directory");
    let endless = encode(&Record { longest_lease_ms: u64::MAX / 1_000_000 + 1, ..record });
    for (bytes, said) in [
        (&b""[..], "not a whole record"),
        (&b"\xFF\xFE"[..], "not a whole record"),
        (b"format = 2\nchecksum = \"\"\n", "its format is 2"),
        (b"format = 1\nchecksum = \"\"\n", "checksum does not match"),
        // Whole, but no record of ours: a lease of half a million years is no wait.
        (endless.as_bytes(), "not a whole record"),
    ] {
        std::fs::write(dir.path().join(STATE_FILE), bytes).expect("writes");
        let error = open(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains(said) && error.contains("Restore"), "{error}");
    }
}

/// What is not a directory is called that; a torn `state.toml.new` is not an obstacle.
#[test]
fn odd_places_are_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("writes");
    for path in [file.clone(), file.join("below")] {
        let error = open(&path).expect_err("a file").to_string();
        assert!(error.contains("is not a directory"), "{error}");
    }
    std::fs::write(dir.path().join(STATE_FILE_NEW), "format = ").expect("writes");
    let (_, opened) = open(dir.path()).expect("opens");
    assert_eq!(opened.previous, Previous::Fresh);
}

/// The last epoch is used, and the one after it is refused rather than wrapped.
#[test]
fn epochs_end() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let last = Record {
        server_id: ServerId(1),
        epoch: Epoch(Epoch::MAX.0 - 1),
        longest_lease_ms: 0,
        clean: true,
    };
    std::fs::write(dir.path().join(STATE_FILE), encode(&last)).expect("writes");
    let (mut state, opened) = open(dir.path()).expect("opens");
    assert_eq!(opened.epoch, Epoch::MAX);
    assert!(matches!(drive(state.next_epoch()), Err(StateError::EpochsUsedUp(_))));
    drop(state);
    assert!(matches!(open(dir.path()), Err(StateError::EpochsUsedUp(_))));
}
