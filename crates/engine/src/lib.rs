//! One step of a model over a batch: kernels, plan, sampling.
//!
//! Knows tensors, positions and KV blocks. Must never know HTTP.
