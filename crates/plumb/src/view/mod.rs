//! What people look at: the terminal, and a page for Prometheus.

pub mod changes;
pub mod output;
pub mod page;
pub mod size;
pub mod watch;
