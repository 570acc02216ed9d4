//! What grows because more is mapped, and what only fills what was mapped before.

use super::borne_out::{confirmed, gain};
use super::history::rate;
use super::{Counter, History};
use crate::verdict::{Nature, Verdict, When};

impl History {
    /// Pages of images can be dropped, but not their data: what loads ever more of them leaks it. Data
    /// that was mapped before and is touched ends where it ends.
    pub(super) fn data_of_code(&self, when: When) -> Option<Verdict> {
        let [resident, mapped] = &self.code_data;
        let own = self.judge(&resident.without_glitches(), Nature::Held, when);
        let own = confirmed(own, resident, self.counters.get(&Counter::Anonymous)?);
        if own.leak != Some(true) || gain(mapped, own.window_s)? < rate(&own) / 2.0 {
            return None;
        }
        let why = format!("data of ever more programs or libraries that are loaded: {}", own.why);
        Some(Verdict { why, ..own })
    }

    /// Touching shared memory that was mapped before, and that others map too, ends where it ends.
    pub(super) fn within_what_is_mapped(&self, verdict: Verdict) -> Verdict {
        if verdict.leak != Some(true) {
            return verdict;
        }
        match gain(&self.shared_bound, verdict.window_s) {
            None => {
                let why = "it was looked at too rarely to know that more of it is mapped".into();
                Verdict { leak: None, why, ..verdict }
            }
            Some(mapped) if mapped < rate(&verdict) / 2.0 => {
                let why =
                    "it touches shared memory that was mapped before, and that others map too";
                Verdict { leak: Some(false), why: why.into(), ..verdict }
            }
            Some(_) => verdict,
        }
    }
}
