//! The table that the transport is measured by: round trips and losses, what the documents say of
//! each, and what it has to reach. And many cells at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringway_core::Span;

/// The table's round trips, in milliseconds.
pub const RTTS: [u64; 6] = [10, 30, 50, 100, 200, 300];
/// The table's losses, in percent.
pub const LOSSES: [u64; 6] = [1, 3, 5, 10, 15, 20];
/// What one connection reaches according to the documents on 12.5 Gbit/s, in Mbit/s: a row for each
/// loss, a column for each round trip.
pub const DOCUMENTS: [[u64; 6]; 6] = [
    [11_900, 11_100, 9_550, 6_100, 4_860, 3_620],
    [11_100, 10_300, 6_800, 5_910, 4_830, 3_450],
    [9_630, 9_540, 6_000, 5_860, 4_360, 2_970],
    [6_090, 6_090, 6_090, 5_770, 3_840, 2_640],
    [5_620, 5_390, 4_850, 3_410, 2_510, 1_930],
    [4_080, 3_910, 3_820, 3_570, 2_870, 2_030],
];
/// What a cell has to reach with packets of 9000 bytes, as a part of what can arrive.
pub const BAR_9000: f64 = 0.9;
/// The same with smaller ones.
pub const BAR_OTHER: f64 = 0.85;
/// The same with bursts, jitter or reordering.
pub const BAR_DISTURBED: f64 = 0.8;
/// Bytes sent for each that came, times the part that is not lost, may be so many.
pub const WASTE_MAX: f64 = 1.05;

/// What the documents say, in Mbit/s, if this is a cell of their table.
pub fn documents(rtt: Span, loss_ppm: u64) -> Option<u64> {
    let row = LOSSES.iter().position(|loss| loss * 10_000 == loss_ppm)?;
    let column = RTTS.iter().position(|ms| Span::from_ms(*ms) == rtt)?;
    Some(DOCUMENTS[row][column])
}

/// Does `work` to all items with so many threads, those of the greatest `cost` first. `done` hears
/// of each that is done. What comes of them stands in the order of the items.
///
/// # Panics
/// If `work` does.
pub fn all<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    cost: &dyn Fn(&T) -> u64,
    work: &(dyn Fn(&T) -> R + Sync),
    done: &(dyn Fn(usize) + Sync),
) -> Vec<R> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(cost(&items[*at])));
    let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(&items[*at]);
                    results.lock().expect("nobody panics with it").push((*at, result));
                    done(count.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut results = results.into_inner().expect("nobody panics with it");
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_found() {
        assert_eq!(documents(Span::from_ms(300), 200_000), Some(2_030));
        assert_eq!(documents(Span::from_ms(50), 10_000), Some(9_550));
        assert_eq!(documents(Span::from_ms(50), 12_000), None);
        assert_eq!(documents(Span::from_ms(40), 10_000), None);
    }

    #[test]
    fn results_stand_in_the_order_of_their_items() {
        let items: Vec<u64> = (0..50).collect();
        let told = AtomicUsize::new(0);
        let last = |count| {
            told.fetch_max(count, Ordering::Relaxed);
        };
        assert_eq!(
            all(&items, 3, &|n| n % 7, &|n| n * 2, &last),
            items.iter().map(|n| n * 2).collect::<Vec<_>>()
        );
        assert_eq!(told.into_inner(), 50);
        assert!(all(&[0_u8; 0], 3, &|_| 0, &|n| *n, &|_| {}).is_empty());
    }
}
