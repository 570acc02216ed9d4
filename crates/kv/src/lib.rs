//! KV blocks: pool, prefix index, leases, and their transfer between processes (shared memory, TCP).
//!
//! Knows blocks of bytes that stand for tokens. Must never know models or HTTP.
