//! One step of a model over a batch: kernels, plan, sampling.
//!
//! Knows tensors, positions and KV blocks. Must never know HTTP, text, or who asks.
//!
//! # Design
//! ```text
//! GGUF ─config, family─▶ Model ─compile─▶ Plan ─┐
//!      └─pack file──────▶ (shared weights)      ├─ Engine::step(batch) ─▶ Logits ─Sampler─▶ token
//!                          Arena, Team, Pool ───┘
//! ```
//! **Loading.** `config` reads the metadata, [`Family`] answers what differs between families, and
//! `model` finds the tensors: one that is missing, misshapen or unknown is an error that names it.
//! Matrices are repacked once a host into a pack file that all instances map (`model::packed`);
//! norms and biases, which are small, are each instance's own.
//!
//! **Plan.** A model is compiled to a list of fused operations (`plan::op`) over buffers placed in
//! one arena by their lifetimes (`plan::place`). [`Engine::explain`] tells all of it. From the last
//! layer's attention on, only the rows that need logits are computed.
//!
//! **Step.** A batch is a list of slices, each some consecutive tokens of one sequence: prefill
//! chunks and decodes alike. `run` cuts every operation into parts that write to disjoint places;
//! the members of the team (`threads`) take the parts and meet between operations. A step allocates
//! nothing and takes no lock.
//!
//! **The same bits always.** A row's results depend on its own sequence alone. No reduction is ever
//! split by batch, chunk or thread: a matrix product accumulates over ascending columns in one lane
//! (`kernels::matmul`), attention over keys in order, in chunks cut at fixed positions
//! (`kernels::attention`), a norm in fixed lanes. Instruction sets differ in how many lanes they
//! take at once, never in the order within one.
//!
//! **Cache.** K and V are integers of 16 bits, or bytes, with a factor a token and head ([`KvType`]), in
//! the blocks of a [`plumb_kv::Pool`]: for each layer K as `[kv_head][head_dim / 2][token]` pairs of
//! dimensions, then V as `[kv_head][token / 2][head_dim]` pairs of tokens, so that neither product of
//! attention ever sums across lanes; then the factors of all layers.
//!
//! **Sampling** ([`sampling`]) is a function of logits, history, seed and place in the output: it
//! gives the same token wherever it runs.

mod arena;
mod batch;
mod config;
mod engine;
mod error;
mod family;
pub mod kernels;
pub mod limits;
mod matrix;
mod model;
mod plan;
mod rope;
mod run;
pub mod sampling;
mod threads;

pub use batch::{Logits, Rows, Slice};
pub use config::{Config, RopeBase};
pub use engine::{Engine, EngineOptions};
pub use error::{BatchError, Error};
pub use family::{Family, Gate, Pairing};
pub use model::{KvType, LoadOptions, Model, PackFile};
pub use plan::{BufferReport, Done, OpReport, PlanReport};
pub use rope::Scaling;
