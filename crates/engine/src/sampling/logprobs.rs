//! Log-probabilities of a row of logits.

use super::cut::descending;
use crate::kernels::exp::exp;

/// The log-probability of `token`, and the `top` most probable tokens with theirs, greatest first,
/// ties by id. Also what a prompt's log-probabilities are made of.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, top: usize) -> (f32, Vec<(u32, f32)>) {
    let normaliser = log_sum_exp(logits);
    let logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |x| x - normaliser);
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(top + 1);
    for (id, &logit) in logits.iter().enumerate() {
        let candidate = (logit, id as u32);
        if best.len() == top && best.last().is_none_or(|last| descending(last, &candidate).is_lt())
        {
            continue;
        }
        let at = best.partition_point(|other| descending(other, &candidate).is_lt());
        best.insert(at, candidate);
        best.truncate(top);
    }
    (logprob, best.into_iter().map(|(logit, id)| (id, logit - normaliser)).collect())
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(exp(x - greatest))).sum();
    (f64::from(greatest) + sum.ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_come_in_order() {
        let logits = [1.0, 3.0, 2.0, 3.0, -5.0];
        let (logprob, top) = logprobs(&logits, 2, 5);
        let ids: Vec<u32> = top.iter().map(|t| t.0).collect();
        assert_eq!(ids, [1, 3, 2, 0, 4]);
        assert_eq!(logprob, top[2].1);
        let sum: f64 = top.iter().map(|t| f64::from(t.1).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(logprobs(&logits, 2, 0).1, []);
        assert_eq!(logprobs(&logits, 2, 1).1.len(), 1);
    }
}
