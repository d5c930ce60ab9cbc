//! A lock around a critical section, and the check without which no lock is safe.
//!
//! ```text
//! cargo run -p ringway-client --example lock -- 127.0.0.1:7400 1 /tmp/counter 100
//! ```
//!
//! Any number of processes add one to a number in a file, as often as they are told, in turn. A
//! process that holds the lock may stand still for longer than its lease (paging, a virtual machine
//! that moves), and go on when another one has the lock. It cannot know. The storage can: every
//! grant has a larger token than those before, and a write under a smaller one is refused.

use std::env::args;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use ringway_client::Session;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: lock ADDRESS NODE FILE TIMES [MILLISECONDS OF WORK]";
    let words: Vec<String> = args().skip(1).collect();
    let [address, node, path, times, work @ ..] = words.as_slice() else {
        return Err(usage.into());
    };
    let (node, mut left): (u64, u32) = (node.parse()?, times.parse()?);
    let work = Duration::from_millis(work.first().map_or(Ok(0), |work| work.parse())?);
    let builder = Session::builder().node(node).lease(Duration::from_millis(500));
    let mut session = builder.connect(address)?;
    let mut storage = Storage::open(path)?;
    while left > 0 {
        let Ok(held) = session.lock("counter", None) else {
            session = builder.connect(address)?;
            continue;
        };
        let token = held.token().0;
        println!("node {node} is in under token {token}");
        let number = storage.read()?;
        // If the process stands still here, somebody else may add one meanwhile.
        work_for(work);
        if storage.write(token, number + 1)? {
            left -= 1;
        } else {
            println!("node {node} was refused with token {token}");
        }
        // Dropping `held` lets the next one in.
    }
    println!("node {node} is done");
    Ok(())
}

/// Whatever has to be done before the result can be written.
fn work_for(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A number in a file, with the largest token under which it was written.
struct Storage {
    file: File,
}

impl Storage {
    fn open(path: &str) -> std::io::Result<Storage> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Storage { file })
    }

    fn read(&mut self) -> Result<u64, Box<dyn Error>> {
        Ok(self.content()?.1)
    }

    /// Writes the number, unless somebody with a larger token has written; whether it did. A real
    /// storage does the comparison and the write as one: here the kernel's lock on the file does.
    fn write(&mut self, token: u64, number: u64) -> Result<bool, Box<dyn Error>> {
        self.file.lock()?;
        let newer = self.content()?.0 > token;
        if !newer {
            self.file.set_len(0)?;
            self.file.rewind()?;
            write!(self.file, "{token} {number}")?;
        }
        self.file.unlock()?;
        Ok(!newer)
    }

    /// The token and the number; zeros at first.
    fn content(&mut self) -> Result<(u64, u64), Box<dyn Error>> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        match text.split_once(' ') {
            Some((token, number)) => Ok((token.parse()?, number.parse()?)),
            None => Ok((0, 0)),
        }
    }
}
