//! Which tokens can be drawn at all: min-p, then top-k, then top-p.

use super::Params;
use crate::kernels::exp::exp;
use std::cmp::Ordering;

/// A token that can be drawn, with its probability relative to the most probable one.
pub(super) type Candidate = (f32, u32);

/// Greatest first, ties by id.
pub(super) fn descending(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Fills `candidates` from logits. At least one token is left unless no logit is a number.
pub(super) fn cut(params: &Params, logits: &[f32], candidates: &mut Vec<Candidate>) {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let inverse = 1.0 / params.temperature;
    candidates.clear();
    for (token, &logit) in logits.iter().enumerate() {
        let weight = exp((logit - greatest) * inverse);
        // NaN is below everything; so is what a bias of −∞ has banned.
        if logit > f32::NEG_INFINITY && weight >= params.min_p {
            candidates.push((weight, token as u32));
        }
    }
    if params.top_k > 0 && params.top_k < candidates.len() {
        keep_greatest(candidates, params.top_k);
    }
    if params.top_p < 1.0 {
        keep_share(candidates, params.top_p);
    }
}

/// Keeps the `k` greatest and those equal to the last of them.
fn keep_greatest(candidates: &mut Vec<Candidate>, k: usize) {
    let (_, &mut (least, _), _) = candidates.select_nth_unstable_by(k - 1, descending);
    candidates.retain(|candidate| candidate.0 >= least);
}

/// Keeps the greatest until they reach `share` of the sum.
fn keep_share(candidates: &mut Vec<Candidate>, share: f32) {
    // In the order of ids, so that the sum does not depend on how the candidates were selected.
    candidates.sort_unstable_by_key(|candidate| candidate.1);
    let sum: f64 = candidates.iter().map(|candidate| f64::from(candidate.0)).sum();
    let wanted = sum * f64::from(share);
    // Few tokens make up most of it: sorting them all would take longer than a small model's step.
    let mut sorted = 64;
    loop {
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted, descending);
        }
        let head = sorted.min(candidates.len());
        candidates[..head].sort_unstable_by(descending);
        let mut reached = 0.0;
        let kept = candidates[..head].iter().position(|candidate| {
            reached += f64::from(candidate.0);
            reached >= wanted
        });
        match kept {
            Some(last) => return candidates.truncate(last + 1),
            None if head == candidates.len() => return,
            None => sorted *= 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(params: &Params, probabilities: &[f32]) -> Vec<u32> {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut candidates = Vec::new();
        cut(params, &logits, &mut candidates);
        let mut ids: Vec<u32> = candidates.iter().map(|c| c.1).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn each_cut_keeps_what_it_says() {
        let p = [0.1, 0.4, 0.05, 0.3, 0.15];
        let with = |change: fn(&mut Params)| {
            let mut params = Params::default();
            change(&mut params);
            left(&params, &p)
        };
        assert_eq!(with(|_| ()), [0, 1, 2, 3, 4]);
        assert_eq!(with(|x| x.top_k = 2), [1, 3]);
        assert_eq!(with(|x| x.top_k = 9), [0, 1, 2, 3, 4]);
        assert_eq!(with(|x| x.top_p = 0.71), [1, 3, 4]);
        assert_eq!(with(|x| x.top_p = 0.39), [1]);
        assert_eq!(with(|x| x.top_p = 0.0), [1]);
        assert_eq!(with(|x| x.min_p = 0.3), [1, 3, 4]);
        // Top-p is of what top-k has left: 0.4 of 0.7 is more than half.
        assert_eq!(with(|x| (x.top_k, x.top_p) = (2, 0.55)), [1]);
    }

    #[test]
    fn a_long_flat_distribution_is_cut_where_it_should_be() {
        let p = vec![1e-4; 10_000];
        let kept = left(&Params { top_p: 0.5, ..Params::default() }, &p);
        assert!((4999..=5001).contains(&kept.len()), "{}", kept.len());
    }

    #[test]
    fn equals_of_the_last_are_kept_by_top_k() {
        assert_eq!(
            left(&Params { top_k: 2, ..Params::default() }, &[0.2, 0.4, 0.2, 0.2]),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn what_is_not_a_number_is_never_left() {
        let mut candidates = Vec::new();
        cut(&Params::default(), &[f32::NAN, f32::NEG_INFINITY, 1.0], &mut candidates);
        assert_eq!(candidates, [(1.0, 2)]);
        cut(&Params::default(), &[f32::NAN], &mut candidates);
        assert_eq!(candidates, []);
    }
}
