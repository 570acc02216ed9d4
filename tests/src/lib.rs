//! End to end: processes, faults, clients. What several of these tests share lives here.
#![forbid(unsafe_code)]
