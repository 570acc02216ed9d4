//! The anonymous part of an image: its `.bss`, and relocated pages that stand in a mapping of their
//! own.

use plumb_target::{PAGE, maps};

use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::sample::Scene;

/// Claims each image's writable segments where no file stands behind them.
pub(super) fn claim(scene: &Scene, claims: &mut Claims) {
    for image in &scene.images {
        for segment in image.segments().filter(|segment| segment.write) {
            let start = segment.range.start / PAGE * PAGE;
            let Some(end) = segment.range.end.checked_next_multiple_of(PAGE) else { continue };
            let anonymous = scene.maps[maps::overlapping(&scene.maps, &(start..end))]
                .iter()
                .filter(|map| map.is_anonymous());
            for map in anonymous {
                let range = map.start.max(start)..map.end.min(end);
                let name = format!("{} .bss", image.path.display());
                claims.add(Claim::new(range, Layer::Code, name));
            }
        }
    }
}
