//! The engine: a model's plan, its memory and its threads, and the step.

use crate::arena::Arena;
use crate::batch::{Logits, Rows, Slice};
use crate::error::{BatchError, Error};
use crate::kernels::attention::{CHUNK, Scratch, TILE_ROWS};
use crate::kernels::level::Level;
use crate::kernels::matmul::Isa;
use crate::model::{KvType, Model};
use crate::plan::{self, Asked, Limits, Plan, PlanReport};
use crate::run::{Own, Row, Step, TileOf};
use crate::threads::Team;
use plumb_kv::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What an engine is built for. Its memory is fixed by these numbers.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Threads that compute, the caller of [`Engine::step`] among them.
    pub threads: usize,
    /// Tokens of a step at most.
    pub max_batch_tokens: usize,
    /// Slices of a step at most.
    pub max_seqs: usize,
    /// Rows of logits of a step at most.
    pub max_logit_rows: usize,
    /// Positions of a sequence at most; at most the model's context.
    pub max_context: usize,
    /// Tokens of a KV block: 16, 32 or 64.
    pub block_tokens: usize,
    /// How the cache keeps K and V.
    pub kv: KvType,
    /// Whether to measure the time of each operation: some 50 ns of each.
    pub profile: bool,
    /// The kernels; `None`: the best that this machine has, or what `PLUMB_KERNELS` names.
    pub kernels: Option<Isa>,
    /// The CPU of each thread; the first is the caller's. Empty: the system's choice.
    pub cpus: Vec<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            max_batch_tokens: 512,
            max_seqs: 32,
            max_logit_rows: 32,
            max_context: 4096,
            block_tokens: 16,
            kv: KvType::Int16,
            profile: false,
            kernels: None,
            cpus: Vec::new(),
        }
    }
}

/// Computes steps of one model.
#[derive(Debug)]
pub struct Engine {
    model: Arc<Model>,
    options: EngineOptions,
    plan: Plan,
    arena: Arena,
    team: Team,
    isa: Isa,
    own: Vec<Own>,
    rows: Vec<Row>,
    logit_rows: Vec<u32>,
    tiles: Vec<TileOf>,
    block_bytes: usize,
    /// Of each operation, in all steps; empty unless the options ask for it.
    times: Vec<AtomicU64>,
    asked: Asked,
}

impl Engine {
    /// Compiles the model's plan and takes all the memory that steps will need.
    ///
    /// # Errors
    /// When the options contradict the model or one another, or memory or threads cannot be had.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Self, Error> {
        check(&model, &options)?;
        let config = model.config();
        let plan = plan::compile(
            &model,
            Limits { rows: options.max_batch_tokens, logit_rows: options.max_logit_rows },
        );
        let shape = model.kv_shape(options.block_tokens, options.kv);
        let (_, block_bytes) = shape.layout().map_err(|error| Error::Options(error.to_string()))?;
        let tiles = options.max_batch_tokens.div_ceil(TileOf::tokens(config)) + options.max_seqs;
        let scratch = || Own::new(Scratch::new(config.head_dim, config.widest()));
        Ok(Self {
            arena: Arena::new("engine-arena", plan.arena)?,
            team: Team::new(options.threads, &options.cpus)?,
            isa: options.kernels.map_or_else(Isa::choose, Ok)?,
            own: (0..options.threads).map(|_| scratch()).collect(),
            rows: Vec::with_capacity(options.max_batch_tokens),
            logit_rows: Vec::with_capacity(options.max_logit_rows),
            tiles: Vec::with_capacity(tiles),
            block_bytes,
            times: plan.ops.iter().filter(|_| options.profile).map(|_| AtomicU64::new(0)).collect(),
            asked: Asked::default(),
            plan,
            model,
            options,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What the engine was built for.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The kernels in use.
    #[must_use]
    pub fn kernels(&self) -> Isa {
        self.isa
    }

    /// Computes one step: writes the keys and values of every token of the batch to its blocks in
    /// `pool`, and the logits that the slices ask for. It allocates nothing and takes no lock.
    ///
    /// A slice's results depend on its sequence alone: not on the rest of the batch, on how the
    /// sequence was cut into slices, or on the number of threads.
    ///
    /// # Errors
    /// [`Error::Batch`] when the batch exceeds the options or contradicts the pool; nothing has
    /// been written then.
    pub fn step(&mut self, pool: &Pool, batch: &[Slice<'_>]) -> Result<Logits<'_>, Error> {
        let view = pool.view();
        self.check(batch, view.blocks, view.block_bytes)?;
        self.list(batch);
        if self.options.profile {
            self.count(batch);
        }
        let step = Step {
            model: &self.model,
            plan: &self.plan,
            isa: self.isa,
            level: Level::of(self.isa),
            arena: self.arena.base(),
            batch,
            rows: &self.rows,
            logit_rows: &self.logit_rows,
            tiles: &self.tiles,
            view,
            block_tokens: self.options.block_tokens,
            kv: self.options.kv,
            own: &self.own,
        };
        let times = &self.times;
        self.team.run(&|me| {
            for (index, op) in step.plan.ops.iter().enumerate() {
                match times.get(index).filter(|_| me.index == 0) {
                    Some(time) => measure(time, || step.run(op, me)),
                    None => step.run(op, me),
                }
            }
        });
        let logits = self.plan.logits;
        let floats = self.arena.floats(logits.offset, self.logit_rows.len() * logits.width);
        Ok(Logits::new(floats, logits.width))
    }

    /// The plan, what it costs, and, where the options ask for it, how long each operation took.
    #[must_use]
    pub fn explain(&self) -> PlanReport {
        let nanos = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Relaxed));
        let times: Vec<_> = self.times.iter().map(nanos).collect();
        let config = self.model.config();
        PlanReport {
            ops: plan::ops(&self.plan, &self.model, &times, &self.asked, self.options.kv),
            buffers: plan::buffers(&self.plan),
            arena_bytes: self.plan.arena,
            scratch_bytes: Scratch::bytes(config.head_dim, config.widest()),
            weight_bytes: self.model.weight_bytes(),
            kernels: self.isa.name(),
            threads: self.options.threads,
        }
    }

    /// Forgets what was profiled so far.
    pub fn forget_profile(&mut self) {
        self.asked = Asked::default();
        self.times.iter().for_each(|time| time.store(0, Ordering::Relaxed));
    }

    /// Adds up what a step is asked for.
    fn count(&mut self, batch: &[Slice<'_>]) {
        let asked = &mut self.asked;
        asked.steps += 1;
        asked.rows += self.rows.len() as u64;
        asked.steps_with_logits += u64::from(!self.logit_rows.is_empty());
        asked.logit_rows += self.logit_rows.len() as u64;
        let window = self.model.config().windows.iter().flatten().max();
        for (seen, window) in asked.seen.iter_mut().zip([None, window]) {
            let visible = |position: usize| {
                let all = position as u64 + 1;
                window.map_or(all, |&window| all.min(u64::from(window)))
            };
            for slice in batch {
                let end = slice.start + slice.tokens.len();
                seen.pairs += (slice.start..end).map(visible).sum::<u64>();
                seen.positions +=
                    (slice.tokens.len() as u64 - 1 + visible(slice.start)).min(end as u64);
            }
        }
    }

    fn check(
        &self,
        batch: &[Slice<'_>],
        blocks: usize,
        block_bytes: usize,
    ) -> Result<(), BatchError> {
        let options = &self.options;
        if block_bytes != self.block_bytes {
            return Err(BatchError::Pool { have: block_bytes, need: self.block_bytes });
        }
        if batch.len() > options.max_seqs {
            return Err(BatchError::Sequences { got: batch.len(), max: options.max_seqs });
        }
        let (mut tokens, mut logit_rows) = (0usize, 0usize);
        for (index, slice) in batch.iter().enumerate() {
            self.check_slice(index, slice, blocks)?;
            tokens += slice.tokens.len();
            logit_rows += slice.logit_rows();
        }
        if tokens > options.max_batch_tokens {
            return Err(BatchError::Tokens { got: tokens, max: options.max_batch_tokens });
        }
        if logit_rows > options.max_logit_rows {
            return Err(BatchError::LogitRows { got: logit_rows, max: options.max_logit_rows });
        }
        Ok(())
    }

    fn check_slice(&self, slice: usize, of: &Slice<'_>, blocks: usize) -> Result<(), BatchError> {
        let (max, vocab) = (self.options.max_context, self.model.config().vocab);
        if of.tokens.is_empty() {
            return Err(BatchError::Empty { slice });
        }
        let end = of.start.saturating_add(of.tokens.len());
        if end > max {
            return Err(BatchError::Context { slice, end, max });
        }
        let need = end.div_ceil(self.options.block_tokens);
        if need > of.blocks.len() {
            return Err(BatchError::Blocks { slice, need, have: of.blocks.len() });
        }
        if let Some(block) = of.blocks[..need].iter().find(|block| block.0 as usize >= blocks) {
            return Err(BatchError::UnknownBlock { slice, block: block.0, blocks });
        }
        match of.tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(&token) => Err(BatchError::Token { slice, token, vocab }),
            None => Ok(()),
        }
    }

    /// Lists the batch's rows, the rows with logits, and the tiles of its attention.
    fn list(&mut self, batch: &[Slice<'_>]) {
        self.rows.clear();
        self.logit_rows.clear();
        self.tiles.clear();
        let tokens = TileOf::tokens(self.model.config());
        for (index, slice) in batch.iter().enumerate() {
            let first = self.rows.len();
            self.rows.extend(slice.tokens.iter().enumerate().map(|(i, &token)| Row {
                token,
                position: (slice.start + i) as u32,
                slice: index as u32,
            }));
            self.tiles.extend(TileOf::cut(slice, index, first, tokens));
            let end = self.rows.len();
            match slice.logits {
                Rows::None => {}
                Rows::Last => self.logit_rows.push(end as u32 - 1),
                Rows::All => self.logit_rows.extend(first as u32..end as u32),
            }
        }
    }
}

/// Adds the time of `run` to `time`.
fn measure(time: &AtomicU64, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    time.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
}

fn check(model: &Model, options: &EngineOptions) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Options(why));
    let config = model.config();
    let sizes = [
        ("threads", options.threads, 1024),
        ("max_batch_tokens", options.max_batch_tokens, 1 << 16),
        ("max_seqs", options.max_seqs, 1 << 16),
        ("max_logit_rows", options.max_logit_rows, 1 << 16),
        ("max_context", options.max_context, config.context),
    ];
    for (name, value, most) in sizes {
        if value == 0 || value > most {
            return refuse(format!("{name} is {value}, but must be 1 to {most}"));
        }
    }
    if options.block_tokens < 16 || !CHUNK.is_multiple_of(options.block_tokens) {
        return refuse(format!(
            "block_tokens is {}, but must be 16, 32 or 64",
            options.block_tokens
        ));
    }
    if !options.cpus.is_empty() && options.cpus.len() != options.threads {
        return refuse(format!("{} cpus for {} threads", options.cpus.len(), options.threads));
    }
    if config.group() > TILE_ROWS {
        return refuse(format!(
            "{} query heads a key head, but at most {TILE_ROWS} are possible",
            config.group()
        ));
    }
    Ok(())
}
