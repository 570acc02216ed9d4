//! How often to look, so that all looks together stay within the budget.

/// Shares of the budget that go to finding children and to looking at counters, and at most to asking who
/// copies; the rest is for full samples.
const TREE: f64 = 0.2;
const COPIES: f64 = 0.6;
const COUNTERS: f64 = 0.4;
/// What stands still is looked at no more rarely, and what moves.
const SLOWEST: f64 = 10.0;
const SLOWEST_MOVING: f64 = 4.0;
/// A look that is so little too early is in time.
const IN_TIME: f64 = 0.5;
/// The share of the budget that is given out: what writes for us, and our end, is not counted.
const GIVEN_OUT: f64 = 0.95;
/// Seconds of budget that may be spent in advance to learn where something grows.
const ADVANCE: f64 = 20.0;

/// What may be spent and was.
#[derive(Debug)]
pub(super) struct Purse {
    /// Processor seconds a second.
    budget: f64,
    spent: f64,
    /// What a last look in full will cost.
    reserve: f64,
    /// What a look at one process's counters, and its line, cost of late.
    counters: f64,
    /// What asking who copies has cost.
    copies: f64,
    /// What finding all children cost last, and when that was.
    tree: Option<(f64, f64)>,
}

/// Processor seconds of this thread: on a busy machine, waiting is not cost.
pub fn cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

impl Purse {
    pub fn new(budget: f64) -> Self {
        Self {
            budget: GIVEN_OUT * budget,
            spent: 0.0,
            reserve: 0.0,
            counters: 0.0,
            copies: 0.0,
            tree: None,
        }
    }

    pub fn spent(&self) -> f64 {
        self.spent
    }

    /// Keeps so much back for the end.
    pub fn keep(&mut self, seconds: f64) {
        self.reserve = seconds;
    }

    pub fn pay(&mut self, seconds: f64) {
        self.spent += seconds;
    }

    pub fn pay_for_tree(&mut self, seconds: f64, now: f64) {
        self.spent += seconds;
        self.tree = Some((seconds, now));
    }

    /// What looking at so many processes' counters cost; of single costly ones the mean knows.
    pub fn pay_for_counters(&mut self, seconds: f64, looks: usize) {
        self.spent += seconds;
        if looks > 0 {
            let each = seconds / looks as f64;
            self.counters += if self.counters > 0.0 { (each - self.counters) / 8.0 } else { each };
        }
    }

    pub fn pay_for_copies(&mut self, seconds: f64) {
        self.spent += seconds;
        self.copies += seconds;
    }

    /// Whether so much is left for asking who copies.
    pub fn affords_copies(&self, cost: f64, now: f64) -> bool {
        COPIES * self.budget * now - self.copies >= cost
    }

    /// Whether children may be looked for again.
    pub fn may_find_children(&self, now: f64) -> bool {
        self.tree.is_none_or(|(cost, at)| now - at >= cost / (TREE * self.budget))
    }

    /// Whether one of so many that stand still, or move, is to be looked at again.
    pub fn may_look(&self, since: f64, of: usize, moving: bool) -> bool {
        let round = of as f64 * self.counters / (COUNTERS * self.budget);
        let slowest = if moving { SLOWEST_MOVING } else { SLOWEST };
        since + IN_TIME >= round.min(slowest)
    }

    /// Whether so much is left; `urgent`: or will be soon.
    pub fn affords(&self, cost: f64, now: f64, urgent: bool) -> bool {
        let until = if urgent { now + ADVANCE } else { now };
        self.budget * until - self.spent - self.reserve >= cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_looked_at_each_second_and_many_in_turn() {
        let mut purse = Purse::new(0.01 / GIVEN_OUT);
        purse.pay_for_counters(0.000_2 * 5.0, 5);
        assert!(purse.may_look(1.0, 5, false));
        assert!(!purse.may_look(1.0, 200, false), "200 cost 40 ms a round: that is 10 s of it");
        assert!(purse.may_look(9.6, 200, false));
        assert!(purse.may_look(1.0, 5, true), "those few that move are looked at all the same");
        assert!(purse.may_look(SLOWEST, 1_000_000, false));
    }

    #[test]
    fn what_was_spent_must_come_in_again() {
        let mut purse = Purse::new(0.01 / GIVEN_OUT);
        assert!(!purse.affords(0.3, 1.0, false));
        purse.pay(0.3);
        assert!(!purse.affords(0.3, 59.0, false) && purse.affords(0.3, 60.0, false));
        assert!(!purse.affords(0.3, 39.0, true) && purse.affords(0.3, 40.0, true));
        purse.keep(0.1);
        assert!(!purse.affords(0.3, 69.0, false) && purse.affords(0.3, 70.1, false));
        purse.pay_for_tree(0.01, 60.0);
        assert!(!purse.may_find_children(64.0) && purse.may_find_children(65.0));
    }
}
