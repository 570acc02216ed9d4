//! Packed weights are shared, found again, and never trusted when they are not what they should be.

mod common;

use common::tiny::Tiny;
use common::{Bench, bits};
use plumb_engine::{LoadOptions, Model, PackFile};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn load(path: &Path, pack_file: PackFile) -> Arc<Model> {
    Model::load(path, &LoadOptions { pack_file }).unwrap()
}

fn answer(model: &Arc<Model>) -> Vec<Vec<u32>> {
    bits(&Bench::new(model, 1, 8).every_row(&[5, 17, 33, 2, 8], 5))
}

/// The pack file beside a model.
fn pack_file(model: &Path) -> PathBuf {
    let files = std::fs::read_dir(model.parent().unwrap()).unwrap();
    let mut packed = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "packed"));
    let found = packed.next().expect("a pack file");
    assert!(packed.next().is_none());
    found
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// Whether this process maps the file of that inode.
fn maps(inode: u64) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| line.split_whitespace().nth(4) == Some(&inode.to_string()))
}

#[test]
fn the_second_load_maps_what_the_first_one_built() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::llama().write(dir.path());
    let first = load(&path, PackFile::Shared);
    let built = inode(&pack_file(&path));
    let second = load(&path, PackFile::Shared);
    assert_eq!(inode(&pack_file(&path)), built, "it was built again");
    assert!(maps(built) && !maps(inode(&path)), "the packed weights alone stay mapped");
    assert_eq!(first.digest(), second.digest());
    let own = load(&path, PackFile::None);
    assert_eq!(own.digest(), first.digest());
    assert_eq!(answer(&first), answer(&own));
    assert_eq!(answer(&second), answer(&own));
}

#[test]
fn damaged_and_unfinished_files_are_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::llama().write(dir.path());
    let want = answer(&load(&path, PackFile::Shared));
    let packed = pack_file(&path);
    let whole = std::fs::read(&packed).unwrap();
    let header = {
        let mut bytes = whole.clone();
        bytes[20] ^= 1;
        bytes
    };
    for damaged in [&whole[..whole.len() - 1], &whole[..10], &[], &header] {
        std::fs::write(&packed, damaged).unwrap();
        // What a killed builder leaves behind.
        let mut unfinished = packed.clone().into_os_string();
        unfinished.push(".unfinished");
        std::fs::write(unfinished, b"half").unwrap();
        assert_eq!(answer(&load(&path, PackFile::Shared)), want, "{} bytes", damaged.len());
        assert!(std::fs::read(&packed).unwrap() == whole, "{} bytes", damaged.len());
    }
}

#[test]
fn another_model_of_the_same_name_is_packed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::llama().write(dir.path());
    let first = load(&path, PackFile::Shared);
    // One bit of the last tensor's last weights: same length, same layout.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let second = load(&path, PackFile::Shared);
    assert_ne!(first.digest(), second.digest());
    assert_eq!(answer(&second), answer(&load(&path, PackFile::None)));
}

#[test]
fn a_strangers_pack_file_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::llama().write(dir.path());
    let want = answer(&load(&path, PackFile::Shared));
    let packed = pack_file(&path);
    // Only root can give files away; another user could not plant one as ours either.
    if std::os::unix::fs::chown(&packed, Some(12345), None).is_ok() {
        let planted = inode(&packed);
        assert_eq!(answer(&load(&path, PackFile::Shared)), want);
        assert_ne!(inode(&pack_file(&path)), planted, "it was trusted");
    }
}

#[test]
fn a_copied_model_keeps_its_pack_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::llama().write(dir.path());
    drop(load(&path, PackFile::Shared));
    let built = inode(&pack_file(&path));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    drop(load(&path, PackFile::Shared));
    assert_eq!(inode(&pack_file(&path)), built, "it was built again");
    // Only the next start reads it whole: from then on it is known by its stamp. Other bytes under the
    // same stamp would not be noticed, and are not looked for.
    let touched = std::fs::metadata(&path).unwrap().modified().unwrap();
    let first = load(&path, PackFile::Shared).digest();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let end = file.metadata().unwrap().len() - 1;
    file.write_all_at(&[0xA5], end).unwrap();
    file.set_modified(touched).unwrap();
    assert_eq!(load(&path, PackFile::Shared).digest(), first, "it was read whole again");
}

#[test]
fn builders_at_the_same_time_build_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::gemma3().write(dir.path());
    let want = answer(&load(&path, PackFile::None));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let loads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| answer(&load(&path, PackFile::Shared)))).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == want));
    pack_file(&path);
}
