//! Who claims ranges, in order of certainty.

mod code;
mod huge_pages;

pub(crate) use huge_pages::huge_page_slack;

use crate::claim::Claims;
use crate::classify::Kinds;
use crate::sample::{Cost, Scene};

/// Lets every owner claim its ranges.
pub(crate) fn claim_all(
    scene: &Scene,
    _kinds: &mut Kinds,
    claims: &mut Claims,
    _cost: &mut Cost,
    _notes: &mut Vec<String>,
) {
    code::claim(scene, claims);
}
