//! The house stands on floors: a crate knows floors below its own and no neighbour on its own.

use std::collections::HashMap;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

fn floor(package: &Package) -> Option<u64> {
    package.metadata["plumb"]["floor"].as_u64()
}

#[test]
fn crates_know_only_the_floors_below() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let floors: HashMap<&str, u64> =
        metadata.packages.iter().filter_map(|p| Some((p.name.as_str(), floor(p)?))).collect();
    assert!(floors.len() >= 15, "the house has fifteen crates or more, saw {floors:?}");

    for package in metadata.packages.iter().filter(|p| p.name.starts_with("plumb")) {
        if package.name == "plumb-tests" {
            continue;
        }
        let own = floor(package)
            .unwrap_or_else(|| panic!("{} names no floor in its Cargo.toml", package.name));
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(&below) = floors.get(dependency.name.as_str()) {
                assert!(
                    below < own,
                    "{} (floor {own}) may not know {} (floor {below})",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}
