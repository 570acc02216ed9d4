//! The command line: one file a subcommand, no logic of its own.
#![forbid(unsafe_code)]

fn main() {}
