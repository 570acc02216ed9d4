//! One other process: maps, memory, threads, ELF images, symbols, text against file, layouts of
//! allocators and of CPython.
//!
//! Knows how to look at a process from outside without changing it. Must never know verdicts, BPF,
//! or serving.
