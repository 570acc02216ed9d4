//! What of Plumb works on this machine and for this user, and what to do about the rest.
//!
//! Each check tries the thing itself where it can: it loads the programs, reads a child, scans a
//! page table. A setting is read only where nothing can be tried.

mod child;
mod kernel;
mod layouts;
mod reading;
mod rights;
mod serving;
mod tracing;

use serde::Serialize;

use child::Child;
pub use child::stand_still;

/// How well something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works.
    Ok,
    /// It works in part, or was never tried on what is here.
    Limited,
    /// It does not work here, or not for this user.
    Missing,
}

/// One row of the answer.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at: one word, stable.
    pub name: &'static str,
    /// How well it works.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What needs it.
    pub needed_for: &'static str,
    /// What to do about it; none where nothing is wrong.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, needed_for: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), needed_for, advice: None }
    }

    /// The same with less than all of it working, and what to do.
    fn but(self, state: State, advice: impl Into<String>) -> Self {
        Self { state, advice: Some(advice.into()), ..self }
    }
}

/// Looks at everything. This program is started again, to have something to read.
///
/// # Errors
/// No child could be started.
pub fn examine() -> std::io::Result<Vec<Check>> {
    let child = Child::start()?;
    let mut checks = kernel::checks();
    checks.extend(rights::checks());
    checks.extend(reading::checks(child.process()));
    checks.extend(tracing::checks(child.process()));
    checks.extend(layouts::checks(child.process()));
    checks.extend(serving::checks());
    Ok(checks)
}
