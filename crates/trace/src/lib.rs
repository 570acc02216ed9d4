//! eBPF programs and their loader, interval accounting, unwinding, Python frames.
//!
//! Knows events and stacks. Must never know verdicts.
