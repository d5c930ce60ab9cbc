//! The run that coverage guides: libFuzzer around the target that `RINGWAY_FUZZ_TARGET` names.
//!
//! `cargo xtask fuzz TARGET` builds this with LLVM's instrumentation, which the stable compiler
//! has; started without it, libFuzzer says that it sees no coverage and mutates blindly.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::Target;

fuzz_target!(|data: &[u8]| (target().run)(data));

/// The environment is read once: a target runs a million times a second.
fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("RINGWAY_FUZZ_TARGET").unwrap_or_default();
        Target::named(&name).unwrap_or_else(|| panic!("RINGWAY_FUZZ_TARGET={name}: no such target"))
    })
}
