//! One step of a model over a batch: kernels, plan, sampling.
//!
//! Knows tensors, positions and KV blocks. Must never know HTTP.

mod arena;
mod batch;
mod config;
mod engine;
mod error;
mod family;
pub mod kernels;
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
pub use plan::{BufferReport, OpReport, PlanReport};
pub use rope::Scaling;
