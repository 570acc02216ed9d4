//! How much of what was followed from look to look each stack really kept.
//!
//! A block whose object died is soon another's. Where that one is of the same type, holds what others hold
//! too and came before anybody looked again, it passes for the first: what holds nothing of its own is in
//! doubt, unless none of its stack's objects of that kind was ever found dead.

use std::collections::HashMap;

use crate::account::StackId;
use crate::samples::Kept;

/// One way through the program mostly makes objects of one type. Of a type of which it seems to make so many
/// times fewer, they are others' that nobody saw made: these were in the block before it was looked at.
const RARE: f64 = 4.0;

/// A block's size and its object's type: what can be taken for one another.
pub type Class = (u64, u64);

/// What is known of the objects of one stack and class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Followed {
    /// How many seem to be there, for all that were seen; and how many were found dead.
    pub alive: f64,
    /// See `alive`.
    pub dead: f64,
    /// Of those alive, the ones of which a look did not tell whether they are the same.
    pub doubtful: f64,
    /// How many were looked at, and the squares of what each stands for.
    pub count: u64,
    /// See `count`.
    pub squares: f64,
    /// When the first of those alive was given.
    pub first_ns: u64,
}

impl Followed {
    /// One that is alive.
    pub fn add(&mut self, stands_for: f64, is_doubtful: bool, time_ns: u64) {
        self.first_ns = if self.count == 0 { time_ns } else { self.first_ns.min(time_ns) };
        self.count += 1;
        self.alive += stands_for;
        self.squares += stands_for.powi(2);
        if is_doubtful {
            self.doubtful += stands_for;
        }
    }

    /// Those in doubt stay as often as the others of their kind, or may be any number of them: how many,
    /// and the error of that.
    fn likely(&self) -> (f64, f64) {
        let sure = self.alive - self.doubtful;
        let stays = (sure + 1.0) / (sure + self.dead + 1.0);
        (sure + self.doubtful * stays, self.doubtful * (1.0 - stays) / 2.0)
    }
}

/// By stack, what was kept.
pub fn kept(all: &HashMap<(StackId, Class), Followed>) -> Vec<(StackId, Kept)> {
    let mut by: HashMap<StackId, (Kept, f64, f64)> = HashMap::new();
    let made = made(all);
    let mut most: HashMap<StackId, f64> = HashMap::new();
    for ((stack, _), count) in &made {
        let own = most.entry(*stack).or_default();
        *own = own.max(*count);
    }
    for ((stack, class), followed) in all.iter().filter(|(_, f)| f.count > 0) {
        let kind = (*stack, class.1);
        let is_others = made.get(&kind).is_some_and(|count| count * RARE < most[stack]);
        let (likely, in_doubt) =
            if is_others { (0.0, followed.alive / 2.0) } else { followed.likely() };
        let bytes = class.0 as f64;
        let (sum, kept, variance) = by.entry(*stack).or_default();
        sum.first_ns =
            if sum.count == 0 { followed.first_ns } else { sum.first_ns.min(followed.first_ns) };
        sum.count += followed.count;
        sum.pieces += followed.alive;
        sum.bytes += (followed.alive * bytes) as u64;
        sum.squares += followed.squares * bytes.powi(2);
        *kept += likely * bytes;
        *variance += (in_doubt * bytes).powi(2);
    }
    by.into_iter()
        .map(|(stack, (sum, kept, variance))| {
            let all = sum.bytes.max(1) as f64;
            (stack, Kept { survival: kept / all, survival_error: variance.sqrt() / all, ..sum })
        })
        .collect()
}

/// By stack and type, how many objects were looked at, alive or dead. Memory that is no object has no type.
fn made(all: &HashMap<(StackId, Class), Followed>) -> HashMap<(StackId, u64), f64> {
    let mut made: HashMap<(StackId, u64), f64> = HashMap::new();
    for ((stack, (_, kind)), followed) in all.iter().filter(|((_, (_, kind)), _)| *kind != 0) {
        *made.entry((*stack, *kind)).or_default() += followed.alive + followed.dead;
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    const DICTS: Class = (64, 4096);
    const TEXTS: Class = (48, 8192);
    const LEAK: StackId = 1;
    const CHURN: StackId = 2;

    fn of(alive: u64, dead: f64, doubtful: f64) -> Followed {
        let mut followed = Followed { dead, ..Followed::default() };
        (0..alive).for_each(|n| followed.add(1.0, (n as f64) < doubtful, n));
        followed
    }

    /// The bytes that a stack kept, at least and at most.
    fn range(kept: &[(StackId, Kept)], stack: StackId) -> (f64, f64) {
        let (_, k) = kept.iter().find(|(s, _)| *s == stack).expect("it kept some");
        let at = |times: f64| k.bytes as f64 * (k.survival + times * 1.96 * k.survival_error);
        (at(-1.0), at(1.0))
    }

    #[test]
    fn what_holds_nothing_of_its_own_is_in_doubt_where_others_die() {
        let all = HashMap::from([
            ((LEAK, DICTS), of(100, 0.0, 100.0)),
            ((CHURN, DICTS), of(200, 3000.0, 200.0)),
        ]);
        let kept = kept(&all);
        assert_eq!(range(&kept, LEAK), (6400.0, 6400.0));
        let (least, most) = range(&kept, CHURN);
        assert!(least < 0.0 && most > 12_000.0, "any number of them: {kept:?}");
        let (_, churn) = kept.iter().find(|(s, _)| *s == CHURN).expect("it kept some");
        assert!(churn.survival < 0.01, "most likely none: {kept:?}");
    }

    #[test]
    fn what_is_known_for_sure_is_kept_though_others_of_its_stack_die() {
        let all = HashMap::from([
            ((LEAK, DICTS), of(100, 300.0, 0.0)),
            ((CHURN, DICTS), of(5, 3000.0, 0.0)),
            ((CHURN, TEXTS), of(1000, 0.0, 1000.0)),
        ]);
        let kept = kept(&all);
        assert_eq!(range(&kept, LEAK), (6400.0, 6400.0));
        assert_eq!(range(&kept, CHURN).0, 5.0 * 64.0 + 48_000.0, "another kind is for itself");
    }

    #[test]
    fn a_type_that_one_way_hardly_makes_is_somebody_elses() {
        let all = HashMap::from([
            ((CHURN, TEXTS), of(0, 3000.0, 0.0)),
            ((CHURN, (48, 12_288)), of(100, 0.0, 0.0)),
        ]);
        let kept = kept(&all);
        let (_, churn) = kept.iter().find(|(s, _)| *s == CHURN).expect("it seems to keep some");
        assert_eq!(churn.survival, 0.0);
        assert!(range(&kept, CHURN).1 >= 4700.0, "and may do so: {kept:?}");
    }
}
