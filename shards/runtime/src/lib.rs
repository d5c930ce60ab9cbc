//! placeholder
pub use ringway_ring as ring;
