//! Resident bytes → layers → series → verdict.
//!
//! Knows what a byte belongs to and whether its layer grows. Must never know BPF.
#![forbid(unsafe_code)]
