//! Production-like traffic against any server of OpenAI's API, and what its users would have felt.
//!
//! Knows requests, clocks and percentiles. Must never know what an instance is made of: whatever is
//! reported here can be seen by any client.
//!
//! # Design
//! [`Traffic`] says what is asked and when, from a seed alone: so two servers can be given the same
//! requests. [`run`] sends it, either open loop (Poisson arrivals at a rate, whatever the server
//! does) or closed loop (so many clients, each asking again when it was answered). Open loop counts
//! every time from the moment at which a request was *due*: a server that makes its clients wait to
//! be heard is not excused for it. [`Report`] adds up:
//!
//! - **TTFT**: from due to the first event that carries text;
//! - **ITL**: between two events that carry text;
//! - **TPOT**: from the first text to the last, divided by the output tokens after the first, as the
//!   server counts them in `usage`;
//! - **goodput**: answers a second that kept every limit of [`Slo`].
#![forbid(unsafe_code)]

mod ask;
mod html;
mod report;
mod run;
mod traffic;

pub use ask::{Answer, Failure};
pub use html::html;
pub use report::{Percentiles, Report, Slo};
pub use run::{Error, Options, Progress, run};
pub use traffic::{Arrivals, Bound, Traffic};
