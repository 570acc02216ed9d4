//! What moves logits before anything is chosen.

use super::Params;
use std::collections::HashMap;

/// Applies bans, biases and penalties to `logits`, in vLLM's order.
pub(super) fn apply(params: &Params, prompt: &[u32], output: &[u32], logits: &mut [f32]) {
    if output.len() < params.min_tokens {
        each(logits, params.stop_tokens.iter().copied(), |logit| *logit = f32::NEG_INFINITY);
    }
    for &(token, bias) in &params.logit_bias {
        each(logits, [token], |logit| *logit += bias);
    }
    let repetition = params.repetition_penalty != 1.0;
    let counted = params.presence_penalty != 0.0 || params.frequency_penalty != 0.0;
    if !repetition && !counted {
        return;
    }
    let mut counts: HashMap<u32, u32> = HashMap::new();
    output.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
    if repetition {
        prompt.iter().for_each(|&token| {
            counts.entry(token).or_default();
        });
        each(logits, counts.keys().copied(), |logit| {
            *logit = if *logit > 0.0 {
                *logit / params.repetition_penalty
            } else {
                *logit * params.repetition_penalty
            };
        });
    }
    for (token, count) in counts.into_iter().filter(|&(_, count)| count > 0) {
        each(logits, [token], |logit| {
            *logit -= params.frequency_penalty * count as f32;
            *logit -= params.presence_penalty;
        });
    }
}

/// Tokens outside the vocabulary have no logit to change.
fn each(logits: &mut [f32], tokens: impl IntoIterator<Item = u32>, change: impl Fn(&mut f32)) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            change(logit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_sees_prompt_and_output_the_others_output_alone() {
        let params = Params {
            repetition_penalty: 2.0,
            frequency_penalty: 0.25,
            presence_penalty: 1.0,
            ..Params::default()
        };
        let mut logits = [4.0, -4.0, 4.0, 4.0];
        apply(&params, &[0, 1, 99], &[2, 2], &mut logits);
        assert_eq!(logits, [2.0, -8.0, 2.0 - 0.5 - 1.0, 4.0]);
    }

    #[test]
    fn stop_tokens_are_banned_until_there_are_enough() {
        let params = Params { min_tokens: 2, stop_tokens: vec![1], ..Params::default() };
        let mut logits = [0.0, 5.0];
        apply(&params, &[], &[0], &mut logits);
        assert_eq!(logits, [0.0, f32::NEG_INFINITY]);
        let mut logits = [0.0, 5.0];
        apply(&params, &[], &[0, 0], &mut logits);
        assert_eq!(logits, [0.0, 5.0]);
    }

    #[test]
    fn biases_are_added() {
        let params = Params { logit_bias: vec![(1, -100.0), (7, 1.0)], ..Params::default() };
        let mut logits = [0.0, 5.0];
        apply(&params, &[], &[], &mut logits);
        assert_eq!(logits, [0.0, -95.0]);
    }
}
