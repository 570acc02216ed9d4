//! Who claims ranges, in order of certainty.

mod code;
mod glibc;
mod huge_pages;
mod others;
mod python;
mod stacks;

pub(crate) use huge_pages::huge_page_slack;

use std::time::Instant;

use crate::claim::Claims;
use crate::classify::Kinds;
use crate::sample::{Cost, Scene};

/// Lets every owner claim its ranges.
pub(crate) fn claim_all(
    scene: &Scene,
    kinds: &mut Kinds,
    claims: &mut Claims,
    cost: &mut Cost,
    notes: &mut Vec<String>,
) {
    stacks::claim(scene, claims);
    code::claim(scene, claims);
    let Some(memory) = &scene.memory else { return };
    let begun = Instant::now();
    python::claim(scene, memory, claims, notes);
    cost.python_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    others::claim(scene, memory, claims, notes);
    glibc::claim(scene, memory, kinds, claims, notes);
    others::claim_linked(scene, memory, claims, notes);
    others::note_runtimes(scene, notes);
    cost.heap_s = begun.elapsed().as_secs_f64();
}
