//! End to end: processes, faults, clients, as a user would run them. What several of these tests
//! share lives here; each test starts real `plumb` processes and talks to them over HTTP.
#![forbid(unsafe_code)]

pub mod http;
pub mod hunt;
pub mod lab;
pub mod ledger;
pub mod models;
pub mod process;
pub mod rightless;
pub mod stack;
pub mod text;
pub mod watch;
