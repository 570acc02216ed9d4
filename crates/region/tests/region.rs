//! Regions as the kernel sees them.

use std::fs::File;
use std::io::Write;

use plumb_region::{Error, Region, all};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// The line of `/proc/self/maps` that holds the region's first byte.
fn maps_line(region: &Region) -> String {
    let start = format!("{:x}-", region.base().as_ptr() as usize);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find(|line| line.starts_with(&start)).expect("mapped").to_owned()
}

fn listed(name: &str) -> Vec<usize> {
    all().into_iter().filter(|e| e.name == name).map(|e| e.bytes).collect()
}

#[test]
fn a_region_is_named_in_maps_and_in_the_list_until_it_is_dropped() {
    let region = Region::create("region-test-named", 3 << 12).unwrap();
    assert!(maps_line(&region).ends_with("/memfd:plumb-region-test-named (deleted)"));
    assert_eq!(listed("plumb-region-test-named"), [3 << 12]);
    drop(region);
    assert_eq!(listed("plumb-region-test-named"), [] as [usize; 0]);
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("region-test-named"));
}

#[test]
fn a_peer_reads_what_the_owner_writes_and_cannot_write() {
    let ours = Region::create("region-test-shared", 4096).unwrap();
    let theirs = Region::open("peer", ours.fd().try_clone_to_owned().unwrap(), 4096).unwrap();
    // SAFETY: both are live mappings of 4096 bytes, used by this thread only.
    unsafe {
        ours.base().as_ptr().add(4095).write(77);
        assert_eq!(theirs.base().as_ptr().add(4095).read(), 77);
    }
    assert!(!theirs.writable());
    assert!(maps_line(&theirs).contains(" r--s "), "{}", maps_line(&theirs));

    // SAFETY: a new mapping at an address of the kernel's choice.
    let writable = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            4096,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            ours.fd(),
            0,
        )
    };
    assert_eq!(writable.unwrap_err(), Errno::PERM);
    assert_eq!(rustix::fs::ftruncate(ours.fd(), 0).unwrap_err(), Errno::PERM);
    assert_eq!(rustix::fs::ftruncate(ours.fd(), 8192).unwrap_err(), Errno::PERM);
}

#[test]
fn descriptors_that_could_kill_their_reader_are_refused() {
    let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&unsealed, 4096).unwrap();
    assert!(matches!(Region::open("peer", unsealed, 4096), Err(Error::Unsealed { .. })));

    let ours = Region::create("region-test-short", 4096).unwrap();
    let fd = ours.fd().try_clone_to_owned().unwrap();
    assert!(matches!(Region::open("peer", fd, 8192), Err(Error::Short { held: 4096, .. })));

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0; 4096]).unwrap();
    assert!(matches!(Region::open("peer", file.into(), 4096), Err(Error::Unsealed { .. })));
}

#[test]
fn populating_takes_the_pages_that_are_named_and_keeps_their_bytes() {
    let bytes = 4 << 20;
    let region = Region::create("region-test-populate", bytes).unwrap();
    let resident = || rustix::fs::fstat(region.fd()).unwrap().st_blocks as usize * 512;
    assert_eq!(resident(), 0);
    region.populate(0..1 << 20).unwrap();
    assert_eq!(resident(), 1 << 20);
    // SAFETY: within the region, which nobody else uses.
    unsafe { region.base().add(2 << 20).write(7) };
    region.populate((1 << 20) - 5..usize::MAX).unwrap();
    assert_eq!(resident(), bytes);
    // SAFETY: as above.
    assert_eq!(unsafe { region.base().add(2 << 20).read() }, 7);
    region.populate(9 << 20..9 << 20).unwrap();
}

#[test]
fn a_file_is_mapped_whole_and_listed_by_its_name() {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(b"weights").unwrap();
    let file = File::open(named.path()).unwrap();
    let region = Region::map_file("region-test-weights", file).unwrap();
    assert_eq!(region.len(), 7);
    // SAFETY: seven bytes of a live mapping that nobody writes.
    let read = unsafe { std::slice::from_raw_parts(region.base().as_ptr(), 7) };
    assert_eq!(read, b"weights");
    assert_eq!(listed("region-test-weights"), [7]);

    let empty = tempfile::tempfile().unwrap();
    assert!(matches!(Region::map_file("empty", empty), Err(Error::Size { bytes: 0, .. })));
}

#[test]
fn sizes_and_names_out_of_bounds_are_answered() {
    assert!(matches!(Region::create("none", 0), Err(Error::Size { .. })));
    assert!(matches!(Region::create("vast", usize::MAX), Err(Error::Size { .. })));
    let region = Region::create(&"ü".repeat(400), 1).unwrap();
    assert!(region.name().len() <= 249);
    assert!(Region::create("zero\0byte", 1).unwrap().name().ends_with("zero_byte"));
}

#[test]
fn a_region_as_long_as_a_huge_page_begins_where_one_does_and_reserves_nothing_beside() {
    const HUGE: usize = 2 << 20;
    for bytes in [HUGE, HUGE + 4096, 3 * HUGE - 8192] {
        let region = Region::create("region-test-huge", bytes).unwrap();
        let start = region.base().as_ptr() as usize;
        assert_eq!(start % HUGE, 0);
        let line = maps_line(&region);
        assert!(line.starts_with(&format!("{start:x}-{:x} ", start + bytes)), "{line}");
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let (before, after) = (format!("-{start:x} ---p"), format!("{:x}-", start + bytes));
        assert!(!maps.contains(&before), "{maps}");
        assert!(!maps.lines().any(|l| l.starts_with(&after) && l.contains(" ---p ")), "{maps}");
    }
}

#[test]
fn collapsing_keeps_bytes_and_takes_nothing_beyond() {
    const HUGE: usize = 2 << 20;
    let region = Region::create("region-test-collapse", 2 * HUGE + 8192).unwrap();
    let at = |offset: usize| {
        // SAFETY: a byte of the live mapping, which this thread alone uses.
        unsafe { &mut *region.base().as_ptr().add(offset) }
    };
    region.populate(HUGE..2 * HUGE).unwrap();
    *at(HUGE + 12_345) = 7;
    region.collapse(100..region.len());
    assert_eq!((*at(HUGE + 12_344), *at(HUGE + 12_345)), (0, 7));
    *at(HUGE + 12_345) = 8;
    region.collapse(HUGE..2 * HUGE);
    assert_eq!(*at(HUGE + 12_345), 8);
}
