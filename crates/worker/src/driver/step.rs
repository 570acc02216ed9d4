//! One step: compute the plan, sample, let go of what is finished.

use std::time::Instant;

use plumb_engine::{Error, Rows, Slice};

use super::Driver;
use super::sample::Sampling;
use crate::generation::Event;
use crate::scheduler::{Left, Plan};

impl Driver {
    /// # Errors
    /// The engine's; no sequence has changed then.
    pub(super) fn step(&mut self, plan: &Plan) -> Result<(), Error> {
        let pool = self.scheduler.pool();
        let slices: Vec<Slice<'_>> = plan
            .work
            .iter()
            .map(|work| {
                let sequence = self.scheduler.running(work.slot);
                Slice {
                    tokens: &sequence.tokens()[work.start..][..work.count],
                    start: work.start,
                    blocks: sequence.block_ids(),
                    logits: work.rows,
                }
            })
            .collect();
        let started = Instant::now();
        let mut logits = self.engine.step(&pool, &slices)?;
        drop(slices);
        let (took, tokens) = (started.elapsed(), plan.work.iter().map(|w| w.count).sum());
        self.metrics.stepped(took, tokens);
        self.pace.observe(took, tokens);
        self.scheduler.computed(plan);
        let mut sampling = Sampling {
            scheduler: &mut self.scheduler,
            metrics: &self.metrics,
            tokenizer: &self.tokenizer,
            now: Instant::now(),
        };
        let mut row = 0;
        for work in &plan.work {
            let rows = match work.rows {
                Rows::None => 0,
                Rows::Last => 1,
                Rows::All => work.count,
            };
            if work.rows == Rows::All {
                sampling.score_prompt(work, &mut logits, row);
            }
            if work.samples {
                sampling.sample(work, logits.row(row + rows - 1));
            }
            row += rows;
        }
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        let block_tokens = self.keeper.block_tokens;
        let mut cached = Vec::new();
        let left = self.scheduler.settle(|sequence| {
            let done = sequence.payload.last.is_some();
            if done {
                cached.push(sequence.cached_blocks() * block_tokens);
            }
            done
        });
        for (left, cached) in left.into_iter().zip(cached) {
            self.finish(left, cached);
        }
    }

    fn finish(&mut self, left: Left<super::Job>, cached_tokens: usize) {
        let index = left.index;
        let keep = left.payload.shared.keep && index == 0;
        let mut job = if keep { self.keeper.keep(left, cached_tokens) } else { left.payload };
        if let Some((scored, finish)) = job.last.take() {
            self.metrics.finished(job.shared.arrived.elapsed(), finish);
            let index = job.shared.first_index + index;
            job.tell(Event::Token { index, scored, finish: Some(finish) });
        }
    }
}
