//! Who patched or interposed memory functions of a process.
//!
//! Knows text, GOT and PLT, preloads and tracers. Must never know verdicts.
#![forbid(unsafe_code)]
