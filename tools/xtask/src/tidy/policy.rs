//! The house rules as data: who may depend on whom, where unsafe may stand, what is excused.
//!
//! Changing a rule is changing a table here, in a commit of its own that says why.

/// What one package of the workspace may depend on.
pub(super) struct Package {
    /// The name in its `Cargo.toml`.
    pub(super) name: &'static str,
    /// Packages of ours that it may name in `[dependencies]` and `[build-dependencies]`.
    pub(super) edges: Edges,
    /// Packages of ours that its tests and benches may name on top of that.
    pub(super) dev_edges: &'static [&'static str],
    /// For a sans-io crate: the only crates of others that it may name outside its tests.
    pub(super) vendors: Option<&'static [&'static str]>,
}

/// Edges to packages of ours.
pub(super) enum Edges {
    /// These and no others.
    Only(&'static [&'static str]),
    /// Tools that are not part of the product may look at everything.
    Anything,
}

use Edges::{Anything, Only};

/// What tests of the products may use: the simulator and the fuzz targets.
const TEST_TOOLS: &[&str] = &["ringway-sim", "ringway-fuzz"];

/// Every package there may be. A package of the workspace that is not listed is a finding.
pub(super) const PACKAGES: &[Package] = &[
    product("ringway-core", Only(&[])).sans_io(&[]),
    product("ringway-ring", Only(&["ringway-core"])),
    product("ringway-shards", Only(&["ringway-core", "ringway-ring"])),
    product("ringway-crypto", Only(&["ringway-core"])),
    product("ringway-table", Only(&["ringway-core"])).sans_io(&["hashbrown"]),
    product("ringway-coord-proto", Only(&["ringway-core", "ringway-table"]))
        .sans_io(&["hashbrown", "sha1"]),
    product("ringway-tunnel-proto", Only(&["ringway-core", "ringway-crypto"])).sans_io(&[]),
    product("ringway-tunnel-coding", Only(&[])),
    product(
        "ringway-coord-server",
        Only(&[
            "ringway-core",
            "ringway-ring",
            "ringway-table",
            "ringway-shards",
            "ringway-crypto",
            "ringway-coord-proto",
        ]),
    ),
    product(
        "ringway-tunnel-node",
        Only(&[
            "ringway-core",
            "ringway-shards",
            "ringway-crypto",
            "ringway-tunnel-proto",
            "ringway-tunnel-coding",
        ]),
    ),
    product("ringway-wan", Only(&["ringway-core", "ringway-ring", "ringway-tunnel-proto"])),
    // Its tests talk to a server in their own process, and are built with all faces.
    product("ringway-client", Only(&["ringway-core", "ringway-coord-proto"])).tested_with(&[
        "ringway-sim",
        "ringway-fuzz",
        "ringway-coord-server",
        "ringway-client",
    ]),
    product(
        "ringway",
        Only(&[
            "ringway-core",
            "ringway-coord-server",
            "ringway-tunnel-node",
            "ringway-wan",
            "ringway-client",
            "ringway-perf",
        ]),
    ),
    product("ringway-perf", Anything),
    product("ringway-sim", Only(&["ringway-core", "ringway-table", "ringway-coord-proto"])),
    product("ringway-fuzz", Anything),
    // Chores build in seconds because they name nothing of the product.
    product("xtask", Only(&[])),
];

/// Packages that are for developers: nobody but the named ones may depend on them, and only
/// [`Package::dev_edges`] or this table says so.
pub(super) const NOT_PRODUCTS: &[(&str, &[&str])] = &[
    ("ringway-perf", &["ringway"]),
    ("ringway-sim", &["ringway-fuzz"]),
    ("ringway-fuzz", &[]),
    ("ringway", &[]),
    ("xtask", &[]),
];

const fn product(name: &'static str, edges: Edges) -> Package {
    Package { name, edges, dev_edges: TEST_TOOLS, vendors: None }
}

impl Package {
    /// Packages of ours that its tests may name, instead of [`TEST_TOOLS`] alone.
    const fn tested_with(mut self, dev_edges: &'static [&'static str]) -> Package {
        self.dev_edges = dev_edges;
        self
    }

    /// A sans-io crate: `no_std`, no unsafe, and nothing of others but `vendors`, so that no
    /// clock, socket or random number comes in by way of a dependency.
    const fn sans_io(mut self, vendors: &'static [&'static str]) -> Package {
        self.vendors = Some(vendors);
        self
    }
}

/// A sans-io crate whose root denies unsafe instead of forbidding it, because a leaf named in
/// [`UNSAFE_PLACES`] needs it.
pub(super) const DENY_INSTEAD_OF_FORBID: &[&str] = &["ringway-table"];

/// Where `unsafe` may stand: a path that ends in `/` is a folder, `*` is any run of characters.
pub(super) const UNSAFE_PLACES: &[&str] = &[
    "shards/ring/",
    "shards/runtime/src/mailbox*.rs",
    "shards/runtime/src/mailbox/",
    "shards/runtime/src/sync.rs",
    "coord/table/src/prefetch.rs",
];

/// Sources of the sans-io crates, where nothing is shared: a machine has one owner.
pub(super) const SANS_IO_SOURCES: &[&str] = &[
    "core/src/",
    "coord/table/src/",
    "coord/proto/src/",
    "tunnel/proto/src/",
    "tunnel/wan/src/line/",
];

/// A finding that is right as it is, and why. One that excuses nothing is itself a finding.
pub(super) struct Excuse {
    /// The rule, by its name.
    pub(super) rule: &'static str,
    /// The file, as in [`UNSAFE_PLACES`].
    pub(super) place: &'static str,
    /// Why it is right there.
    pub(super) why: &'static str,
}

/// All excuses.
pub(super) const EXCUSES: &[Excuse] = &[
    Excuse {
        rule: "sleep",
        place: "coord/server/src/control/on_glommio.rs",
        why: "an accept that fails for want of descriptors has no event that says: try again",
    },
    Excuse {
        rule: "sleep",
        place: "tools/ringway/src/doctor.rs",
        why: "the kernel gives back what closed rings were charged when it has time, and is silent",
    },
    Excuse {
        rule: "sleep",
        place: "perf/src/worker.rs",
        why: "the start of a phase is a moment of the clock, the same one for all threads",
    },
    Excuse {
        rule: "sleep",
        place: "perf/tests/mock/mod.rs",
        why: "a server that stalls for a stated time is the fault that the test puts in",
    },
    Excuse {
        rule: "columns",
        place: "coord/proto/src/resp/scripts.rs",
        why: "scripts as the libraries send them, to the byte: their digests are compared",
    },
];

/// Licences of others that agree with ours: none asks for more than to be named.
pub(super) const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// A crate with another licence, that licence, and why it may be used all the same.
pub(super) const LICENCES_OF: &[(&str, &str, &str)] = &[(
    "bitmaps",
    "MPL-2.0+",
    "glommio's; asks for the sources of its own files only, which we use as they are published",
)];

/// Crates that must not come in, not even by way of others, and why.
pub(super) const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "a system library that a build has to find; cryptography is vetted Rust here"),
    ("native-tls", "brings openssl"),
];

/// Crates that are there in two versions, and why.
pub(super) const TWICE: &[(&str, &str)] = &[
    ("fastrand", "glommio 0.9.0, the newest, names the older one"),
    ("futures-lite", "as fastrand"),
    ("getrandom", "as fastrand"),
    ("signal-hook", "as fastrand"),
    ("socket2", "as fastrand; the newer one is the redis crate's, in tests"),
    ("syn", "macros of others name 2; tidy reads the newest Rust with 3"),
];

/// Beginnings of paths that exist on one developer's machine only. Written in two halves: this
/// file is checked as well.
pub(super) const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/Us", "ers/")];

/// Folders of generated bytes, which are not text to be checked.
pub(super) const NOT_TEXT: &[&str] = &["tools/fuzz/corpus/", "Cargo.lock"];

/// Lines of a function, from `fn` to its closing brace.
pub(super) const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file, its `#[cfg(test)]` modules not counted.
pub(super) const FILE_LINES_MAX: usize = 1_000;
/// Parameters of a function, `self` not counted.
pub(super) const ARGUMENTS_MAX: usize = 5;
/// Type parameters of an item, `impl Trait` arguments included, lifetimes and constants not.
pub(super) const TYPE_PARAMETERS_MAX: usize = 2;
/// Characters of a line.
pub(super) const COLUMNS_MAX: usize = 100;
/// Words of a `// SAFETY:` comment that could prove something.
pub(super) const SAFETY_WORDS_MIN: usize = 5;

/// Whether `path` lies in `place`.
pub(super) fn lies_in(path: &str, place: &str) -> bool {
    if place.ends_with('/') {
        return path.starts_with(place);
    }
    match place.split_once('*') {
        None => path == place,
        Some((head, tail)) => path
            .strip_prefix(head)
            .and_then(|rest| rest.strip_suffix(tail))
            .is_some_and(|middle| !middle.contains('/')),
    }
}
