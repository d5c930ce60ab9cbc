//! Prints who leaves what to whom before one bottleneck; `cargo run --release -p ringway-wan
//! --example beside -- 30 120` settles for 30 s and judges 120 s.

use ringway_core::Span;
use ringway_wan::sim::rivals::beside;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let settle = Span::from_s(args.next().unwrap_or(30));
    let time = Span::from_s(args.next().unwrap_or(120));
    let seed = args.next().unwrap_or(1);
    let rows = beside(settle, time, seed, |row| println!("{row}"));
    let below = rows.iter().filter(|row| !row.reached).count();
    println!("{below} below their bar");
}
