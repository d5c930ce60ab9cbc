//! Texts of single values: how each is read and written, without knowing of any other.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringway_coord_proto::quotas::NAMESPACES_MAX;
use ringway_core::words;
use toml::de::DeValue;

use super::{AdminPlace, Key, LogFormat, LogLevel, Profile};

/// A type that a text may be meant for.
pub(super) trait Wanted: Sized {
    /// `None` if it is not.
    fn from_text(text: &str) -> Option<Self>;
}

impl Wanted for bool {
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Wanted for u64 {
    fn from_text(text: &str) -> Option<Self> {
        words::number(text)
    }
}

impl Wanted for SocketAddr {
    fn from_text(text: &str) -> Option<Self> {
        match text.strip_prefix("localhost:") {
            Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
            None => text.parse().ok(),
        }
    }
}

impl Wanted for AdminPlace {
    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(AdminPlace::Off);
        }
        match text.strip_prefix("unix:") {
            Some("") => None,
            Some(path) => Some(AdminPlace::Unix(PathBuf::from(path))),
            None => SocketAddr::from_text(text).map(AdminPlace::Tcp),
        }
    }
}

impl Wanted for Profile {
    fn from_text(text: &str) -> Option<Self> {
        let all = [Profile::Lan, Profile::Vm, Profile::Wan];
        all.into_iter().find(|profile| word(profile) == text)
    }
}

impl Wanted for LogLevel {
    fn from_text(text: &str) -> Option<Self> {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        [Error, Warn, Info, Debug, Trace].into_iter().find(|level| word(level) == text)
    }
}

impl Wanted for LogFormat {
    fn from_text(text: &str) -> Option<Self> {
        [LogFormat::Text, LogFormat::Json].into_iter().find(|format| word(format) == text)
    }
}

/// Namespaces and their quotas.
pub(super) struct QuotaList(pub(super) Vec<(String, u64)>);

impl Wanted for QuotaList {
    fn from_text(text: &str) -> Option<Self> {
        let mut quotas: Vec<(String, u64)> = Vec::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, most) = one.split_once('=')?;
            let (name, most) = (name.trim(), u64::from_text(most.trim())?);
            let is_new = quotas.iter().all(|(other, _)| other != name);
            if name.is_empty() || name.contains('/') || !is_new || quotas.len() == NAMESPACES_MAX {
                return None;
            }
            quotas.push((name.to_owned(), most));
        }
        Some(QuotaList(quotas))
    }
}

/// The inverse of reading a [`QuotaList`].
pub(super) fn quotas_text(quotas: &[(String, u64)]) -> String {
    let each: Vec<_> = quotas.iter().map(|(name, most)| format!("{name}={most}")).collect();
    each.join(", ")
}

/// The word for a variant without fields.
pub(super) fn word(variant: &impl Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

/// The text of a plain value; `None` for a table, an array, a date.
pub(super) fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(word) => Some(word.to_string()),
        DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// A share of `whole` or a size in bytes.
pub(super) fn memory(text: &str, whole: u64) -> Option<u64> {
    if let Some(share) = text.strip_suffix('%') {
        let share: u64 = share.trim().parse().ok().filter(|share| (1..=100).contains(share))?;
        return Some((u128::from(whole) * u128::from(share) / 100) as u64);
    }
    words::size(text)
}

/// The key that an unknown name is probably meant for.
pub(super) fn nearest(name: &str) -> Option<Key> {
    let name = name.to_lowercase().replace('-', "_");
    let other_words = match name.as_str() {
        "bind" | "port" | "address" | "addr" => Some(Key::Listen),
        "threads" | "workers" | "cores" => Some(Key::Shards),
        "maxmemory" | "memory" | "max_memory_bytes" => Some(Key::MaxMemory),
        "max_lease" | "lease" | "lease_max" | "lease_max_ms" => Some(Key::MaxLease),
        "dir" | "data_dir" | "state" => Some(Key::State),
        "users" | "auth" | "requirepass" => Some(Key::Credentials),
        "metrics" | "http" => Some(Key::Admin),
        "drain" | "grace_ms" => Some(Key::Drain),
        "log" | "loglevel" => Some(Key::LogLevel),
        _ => None,
    };
    let near = || words::nearest(&name, Key::ALL.iter().map(|key| key.name()));
    other_words.or_else(|| Key::named(near()?))
}

/// The path from the root, so that a printed configuration means the same everywhere.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The memory that this process may use: of the host, or of the tightest cgroup around it.
/// `root` is where /proc and /sys are.
pub(super) fn memory_bytes(root: &Path) -> u64 {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let meminfo = read(root.join("proc/meminfo"));
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|rest| {
        let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    });
    let cgroups = read(root.join("proc/self/cgroup"));
    let group = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let top = root.join("sys/fs/cgroup");
    let around = top.join(group);
    let groups = around.ancestors().take_while(|path| path.starts_with(&top));
    let limits = groups.filter_map(|group| read(group.join("memory.max")).trim().parse().ok());
    limits.chain(total).min().unwrap_or(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(memory("80%", 1000), Some(800));
        assert_eq!(memory("12GiB", 0), Some(12 << 30));
        assert_eq!(memory("500 MB", 0), Some(500_000_000));
        assert_eq!(memory("1_000", 0), Some(1000));
        for wrong in ["", "0%", "101%", "12 gigs"] {
            assert_eq!(memory(wrong, 1000), None, "{wrong}");
        }
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("shard"), Some(Key::Shards));
        assert_eq!(nearest("Max-Memory"), Some(Key::MaxMemory));
        assert_eq!(nearest("max_lease_s"), Some(Key::MaxLease));
        assert_eq!(nearest("allow_plain_remotes"), Some(Key::AllowPlainRemote));
        assert_eq!(nearest("bind"), Some(Key::Listen));
        assert_eq!(nearest("replication_factor"), None);
    }

    /// In a container the limit that counts is the container's.
    #[test]
    fn the_tightest_cgroup_counts() {
        let root = tempfile::tempdir().expect("temporary directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("creates");
            std::fs::write(path, text).expect("writes");
        };
        assert_eq!(memory_bytes(root.path()), 1 << 30, "a host that says nothing");
        write("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_bytes(root.path()), 2048 * 1024);
        write("proc/self/cgroup", "0::/system.slice/ringway.service\n");
        write("sys/fs/cgroup/system.slice/memory.max", "1000000\n");
        write("sys/fs/cgroup/system.slice/ringway.service/memory.max", "max\n");
        assert_eq!(memory_bytes(root.path()), 1_000_000);
    }
}
