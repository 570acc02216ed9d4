//! A model of a model: what it answers depends on every token that its blocks hold, so that a block
//! that was shared, lost or overwritten wrongly shows in the answer.

use std::collections::HashMap;
use std::sync::Arc;

use plumb_kv::{BlockId, BlockShape, LayerShape, Pool};
use plumb_worker::scheduler::{Limits, NewSequence, Plan, PullOrder, Scheduler, SeqId};

const BLOCK: usize = 4;
/// Far beyond what any of these runs needs: reaching it means that nothing gets on.
const MAX_STEPS: usize = 20_000;

#[derive(Debug, Clone)]
pub struct Request {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub n: u32,
    /// The step at which it arrives.
    pub arrives: usize,
    pub all_rows: bool,
    /// Tokens of the prompt that a peer holds.
    pub remote: Option<usize>,
    /// The step at which its client leaves.
    pub aborts: Option<usize>,
}

impl Request {
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Self {
        Self { prompt, max_tokens, n: 1, arrives: 0, all_rows: false, remote: None, aborts: None }
    }
}

/// The next token after `tokens` in answer `index`.
fn next_token(tokens: &[u32], index: u32) -> u32 {
    let mix = tokens.iter().fold(17u32, |h, t| h.wrapping_mul(31).wrapping_add(*t));
    mix.wrapping_add(index.wrapping_mul(7)) % 1000
}

pub fn solo_answer(request: &Request, index: u32) -> Vec<u32> {
    let mut tokens = request.prompt.clone();
    for _ in 0..request.max_tokens {
        tokens.push(next_token(&tokens, index));
    }
    tokens.split_off(request.prompt.len())
}

#[derive(Debug)]
struct Payload {
    answer: Vec<u32>,
    max_tokens: usize,
}

pub struct Simulation {
    scheduler: Scheduler<Payload>,
    pool: Arc<Pool>,
    limits: Limits,
    /// The token whose KV each slot of each block holds.
    memory: HashMap<BlockId, [Option<u32>; BLOCK]>,
    answers: HashMap<SeqId, Vec<u32>>,
    token_steps: HashMap<u64, Vec<usize>>,
    computed: HashMap<u64, usize>,
    pulls: Vec<(usize, PullOrder)>,
    pub pulls_fail: bool,
}

impl Simulation {
    pub fn new(limits: Limits, blocks: usize) -> Self {
        // One layer of four bytes a block: the content that is tracked is ours.
        let layers = vec![LayerShape { bytes: 4, window: None }];
        let shape = BlockShape { layers, tokens: BLOCK };
        let pool = Pool::new("scheduler-test", shape, blocks).unwrap();
        Self {
            scheduler: Scheduler::new(Arc::clone(&pool), limits),
            pool,
            limits,
            memory: HashMap::new(),
            answers: HashMap::new(),
            token_steps: HashMap::new(),
            computed: HashMap::new(),
            pulls: Vec::new(),
            pulls_fail: false,
        }
    }

    pub fn answer(&self, request: usize, index: u32) -> Option<Vec<u32>> {
        self.answers.get(&SeqId { request: request as u64, index }).cloned()
    }

    /// The steps in which a request got tokens.
    pub fn steps_of(&self, request: usize) -> &[usize] {
        &self.token_steps[&(request as u64)]
    }

    /// Tokens that were computed for a request.
    pub fn computed_of(&self, request: usize) -> usize {
        self.computed[&(request as u64)]
    }

    pub fn used_blocks(&self) -> usize {
        self.pool.counts().used
    }

    /// Until everything that was asked for is answered or gone.
    pub fn run(&mut self, requests: &[Request]) {
        let last = requests.iter().map(|r| r.arrives.max(r.aborts.unwrap_or(0))).max();
        let mut plan = Plan::default();
        for step in 0..MAX_STEPS {
            self.arrivals_and_aborts(requests, step);
            self.end_pulls(requests, step);
            self.scheduler.plan(&mut plan);
            self.check(&plan);
            for order in plan.pulls.drain(..) {
                // Some take longer than others.
                self.pulls.push((step + order.id.request as usize % 3, order));
            }
            self.compute(&plan);
            self.sample(&plan, step);
            let census = self.scheduler.census();
            let idle = census.waiting + census.running + census.pulling == 0;
            if idle && self.pulls.is_empty() && Some(step) >= last {
                return;
            }
        }
        panic!("nothing gets on: {:?}", self.scheduler.census());
    }

    fn arrivals_and_aborts(&mut self, requests: &[Request], step: usize) {
        for (number, request) in requests.iter().enumerate() {
            if request.arrives == step {
                self.scheduler.add(NewSequence {
                    id: SeqId { request: number as u64, index: 0 },
                    prompt: request.prompt.clone(),
                    salt: Arc::from(&b""[..]),
                    siblings: request.n - 1,
                    all_rows: request.all_rows,
                    remote_tokens: request.remote,
                    payload: Payload { answer: Vec::new(), max_tokens: request.max_tokens },
                });
            }
            if request.aborts == Some(step) {
                self.scheduler.abort(|id| id.request == number as u64);
            }
        }
    }

    fn end_pulls(&mut self, requests: &[Request], step: usize) {
        let (done, going) = std::mem::take(&mut self.pulls).into_iter().partition(|p| p.0 <= step);
        self.pulls = going;
        for (_, order) in Vec::<(usize, PullOrder)>::into_iter(done) {
            let prompt = &requests[order.id.request as usize].prompt;
            if !self.pulls_fail {
                for (i, block) in order.blocks.iter().enumerate() {
                    let from = (order.first + i) * BLOCK;
                    let held = std::array::from_fn(|at| Some(prompt[from + at]));
                    self.memory.insert(block.id(), held);
                }
            }
            self.scheduler.pulled(order.id, !self.pulls_fail);
        }
    }

    fn check(&self, plan: &Plan) {
        let tokens: usize = plan.work.iter().map(|w| w.count).sum();
        assert!(tokens <= self.limits.max_batch_tokens, "{plan:?}");
        assert!(plan.work.len() <= self.limits.max_seqs, "{plan:?}");
        let mut slots: Vec<usize> = plan.work.iter().map(|w| w.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), plan.work.len(), "a sequence twice in one step");
        let mut written = HashMap::new();
        for work in &plan.work {
            let sequence = self.scheduler.running(work.slot);
            for position in work.start..work.start + work.count {
                let block = sequence.block_ids()[position / BLOCK];
                let other = written.insert(block, sequence.id());
                assert!(other.is_none_or(|o| o == sequence.id()), "{block:?} has two writers");
            }
        }
    }

    /// Writes the step's tokens, and reads back all that came before them.
    fn compute(&mut self, plan: &Plan) {
        for work in &plan.work {
            let sequence = self.scheduler.running(work.slot);
            *self.computed.entry(sequence.id().request).or_default() += work.count;
            for position in work.start..work.start + work.count {
                let block = sequence.block_ids()[position / BLOCK];
                let slots = self.memory.entry(block).or_default();
                slots[position % BLOCK] = Some(sequence.tokens()[position]);
            }
        }
        for work in &plan.work {
            let sequence = self.scheduler.running(work.slot);
            for (position, token) in sequence.tokens()[..work.start + work.count].iter().enumerate()
            {
                let block = sequence.block_ids()[position / BLOCK];
                let held = self.memory.get(&block).and_then(|slots| slots[position % BLOCK]);
                assert_eq!(held, Some(*token), "{:?} at {position}", sequence.id());
            }
        }
        self.scheduler.computed(plan);
    }

    fn sample(&mut self, plan: &Plan, step: usize) {
        for work in plan.work.iter().filter(|w| w.samples) {
            let (id, siblings) = {
                let sequence = self.scheduler.running(work.slot);
                (sequence.id(), sequence.siblings())
            };
            let tokens = self.scheduler.running(work.slot).tokens().to_vec();
            for index in 1..=siblings {
                let token = next_token(&tokens, index);
                let max_tokens = self.scheduler.running(work.slot).payload.max_tokens;
                let payload = Payload { answer: vec![token], max_tokens };
                let from = *self.scheduler.running(work.slot).block_ids().last().unwrap();
                let to = self.scheduler.fork(work.slot, index, token, payload);
                if let Some(to) = to {
                    let content = self.memory[&from];
                    self.memory.insert(to, content);
                }
            }
            let token = next_token(&tokens, id.index);
            let sequence = self.scheduler.running_mut(work.slot);
            sequence.payload.answer.push(token);
            sequence.push(token);
            self.token_steps.entry(id.request).or_default().push(step);
        }
        let answers = &mut self.answers;
        self.scheduler.settle(|sequence| {
            let payload = &sequence.payload;
            let done = payload.answer.len() >= payload.max_tokens;
            if done {
                answers.insert(sequence.id(), payload.answer.clone());
            }
            done
        });
    }
}
