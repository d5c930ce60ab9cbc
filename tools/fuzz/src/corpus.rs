//! The corpora: `corpus/<target>/`, one input a file.
//!
//! Files named `seed-*` are written by `cargo run -p ringway-fuzz -- seeds` from the targets'
//! own seeds; `crash-*` were found by a driver and stay after the bug is gone; `found-*` are the
//! few of a guided run's inputs that reach code which no other reaches; anything else was put there
//! by hand.

use std::io;
use std::path::PathBuf;

use crate::{TARGETS, Target};

/// Where the corpora are.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Every input of a target with its file name, by name; none if there is no folder.
pub fn load(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let folder = root().join(target.name);
    let mut inputs = Vec::new();
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(inputs),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.push((name, std::fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Writes every target's seeds, and removes those of earlier versions.
pub fn write_seeds() -> io::Result<()> {
    for target in TARGETS {
        let folder = root().join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (name, _) in load(target)? {
            if name.starts_with("seed-") {
                std::fs::remove_file(folder.join(name))?;
            }
        }
        for (name, bytes) in (target.seeds)() {
            std::fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}

/// Keeps an input that failed, under a name made from its bytes, and says where.
pub fn keep(target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    // FNV-1a: any name that is the same for the same bytes.
    let hash = input.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let folder = root().join(target.name);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("crash-{hash:016x}"));
    std::fs::write(&path, input)?;
    Ok(path)
}
