//! What the long-running subcommands say: their log to standard error (`RUST_LOG` says how much),
//! and, where JSON is asked for, one line to standard output once they listen.

use std::io::{IsTerminal, Write};

use serde_json::Value;
use tracing_subscriber::EnvFilter;

/// Starts logging; once a process.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

/// Tells whoever started us where we listen.
pub fn listening(what: &Value) {
    // Whoever does not read it does not need it.
    let _closed = writeln!(std::io::stdout(), "{what}");
}
