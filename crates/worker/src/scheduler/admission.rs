//! Who starts: first come, first served, when the blocks of the whole prompt are there.

use super::{Plan, PullOrder, Scheduler, Sequence};

impl<T> Scheduler<T> {
    /// Starts waiting sequences while there is room, and plans their first chunks.
    pub(super) fn admit(&mut self, plan: &mut Plan) {
        while self.has_slot() {
            let Some(mut next) = self.waiting.pop_front() else { break };
            let wants_room = !next.wants_pull();
            if wants_room && !plan.has_prompt_room() {
                self.waiting.push_front(next);
                break;
            }
            if !self.give_blocks(&mut next) {
                next.release();
                self.waiting.push_front(next);
                break;
            }
            self.join(next, plan);
        }
    }

    /// Whether the next waiting sequence and the siblings it will have fit beside the others.
    fn has_slot(&self) -> bool {
        let started = self.running.iter().chain(&self.pulling);
        let taken: usize = started.map(Sequence::slots).sum();
        let wanted = self.waiting.front().map_or(1, Sequence::slots);
        taken + wanted <= self.limits.max_seqs
    }

    /// Gives a sequence the blocks of all its tokens, shared ones first. False if they are not
    /// there.
    fn give_blocks(&self, sequence: &mut Sequence<T>) -> bool {
        sequence.adopt_cached_prefix(&self.pool);
        let wanted = sequence.missing_blocks(&self.pool);
        let counts = self.pool.counts();
        // Each running sequence will soon need a block: starting one that it then must give back
        // would be work for nothing.
        let reserve = self.running.len() + self.pulling.len();
        if reserve > 0 && wanted + reserve > counts.free + counts.cached {
            return false;
        }
        let Ok(blocks) = self.pool.allocate(wanted) else { return false };
        sequence.add_blocks(blocks);
        true
    }

    fn join(&mut self, mut sequence: Sequence<T>, plan: &mut Plan) {
        if let Some(blocks) = sequence.begin_pull(&self.pool) {
            let first = sequence.cached_blocks();
            plan.pulls.push(PullOrder { id: sequence.id(), first, blocks });
            self.pulling.push(sequence);
            return;
        }
        plan.push_prompt(self.running.len(), &sequence);
        self.running.push(sequence);
    }
}
