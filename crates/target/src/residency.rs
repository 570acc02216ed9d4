//! Resident bytes of any range, asked many times.

use crate::{Pagemap, Range};

/// The resident runs of some ranges, in order, with running sums: a question costs a binary search.
#[derive(Debug, Default, Clone)]
pub struct Residency {
    runs: Vec<Range>,
    /// Resident bytes before each run.
    before: Vec<u64>,
    total: u64,
}

impl Residency {
    /// Reads what is resident of `ranges` (page aligned, sorted, apart).
    pub fn read(pagemap: &Pagemap, ranges: &[Range]) -> Self {
        let runs = ranges.iter().flat_map(|range| pagemap.resident(range));
        Self::of(runs.map(|run| run.range))
    }

    /// Made of resident runs that are sorted and apart; others are left out.
    pub fn of(runs: impl IntoIterator<Item = Range>) -> Self {
        let mut made = Self::default();
        for run in runs {
            let follows = made.runs.last().is_none_or(|last| last.end <= run.start);
            if run.start < run.end && follows {
                made.before.push(made.total);
                made.total += run.end - run.start;
                made.runs.push(run);
            }
        }
        made
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Range] {
        &self.runs
    }

    /// All resident bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Resident bytes of `range`, which need not be aligned.
    pub fn bytes_in(&self, range: &Range) -> u64 {
        self.below(range.end).saturating_sub(self.below(range.start))
    }

    /// Whether the byte at `address` is resident.
    pub fn contains(&self, address: u64) -> bool {
        let at = self.runs.partition_point(|run| run.end <= address);
        self.runs.get(at).is_some_and(|run| run.start <= address)
    }

    fn below(&self, address: u64) -> u64 {
        let at = self.runs.partition_point(|run| run.start < address);
        let Some(last) = at.checked_sub(1) else { return 0 };
        let run = &self.runs[last];
        self.before[last] + (address.min(run.end) - run.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_parts_of_runs() {
        let residency = Residency::of([10..20, 30..40, 40..50]);
        assert_eq!(residency.total(), 30);
        for (range, bytes) in [(0..100, 30), (15..35, 10), (20..30, 0), (45..46, 1), (0..5, 0)] {
            assert_eq!(residency.bytes_in(&range), bytes, "{range:?}");
        }
        assert!(residency.contains(30) && !residency.contains(20) && !residency.contains(50));
    }
}
