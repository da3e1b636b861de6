use super::*;

fn memory() -> DeviceMemory {
    DeviceMemory::new(1 << 20).unwrap()
}

#[test]
fn bytes_come_back_and_ranges_are_checked() {
    let memory = memory();
    let a = memory.allocate(100).unwrap();
    assert_eq!(a % 512, 0);
    memory.write(a + 3, &[1, 2, 3]).unwrap();
    let mut back = [0; 3];
    memory.read(a + 3, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3]);
    assert!(
        memory.write(a + 98, &[0; 3]).unwrap_err().to_string().contains("byte 98 of allocation of 100 bytes")
    );
    assert!(memory.read(a + 100, &mut back).is_err());
    memory.fill(a, &[7, 8], 50).unwrap();
    memory.read(a + 97, &mut back).unwrap();
    assert_eq!(back, [8, 7, 8]);
    let b = memory.allocate(100).unwrap();
    memory.copy(b, a, 100).unwrap();
    memory.read(b + 97, &mut back).unwrap();
    assert_eq!(back, [8, 7, 8]);
}

#[test]
fn memory_runs_out_and_comes_back() {
    let memory = memory();
    let a = memory.allocate(1 << 19).unwrap();
    assert_eq!(memory.capacity(), (1 << 19, 1 << 20));
    assert!(matches!(memory.allocate((1 << 19) + 1), Err(MemoryError::OutOfMemory { .. })));
    memory.free(a).unwrap();
    assert!(memory.free(a).unwrap_err().to_string().contains("freed already"));
    assert!(memory.free(a + 8).is_err());
    memory.allocate(1 << 20).unwrap();
}

#[test]
fn page_locked_memory_is_host_memory() {
    let memory = memory();
    let p = memory.allocate_pinned(8).unwrap();
    // SAFETY: the address is a host pointer to 8 bytes.
    unsafe { (p as *mut u64).write(42) };
    let mut back = [0; 8];
    memory.read(p, &mut back).unwrap();
    assert_eq!(u64::from_le_bytes(back), 42);
    assert!(memory.find(p).unwrap().pinned);
}

#[test]
fn descriptions_name_the_nearest_allocation() {
    let memory = memory();
    let a = memory.allocate(64).unwrap();
    memory.set_tag(a, "weights").unwrap();
    assert_eq!(memory.describe(a + 68), "4 bytes past the end of allocation 'weights' of 64 bytes");
    assert_eq!(memory.describe(a - 8), "8 bytes before allocation 'weights' of 64 bytes");
    memory.free(a).unwrap();
    assert_eq!(memory.describe(a + 1), "byte 1 of a freed allocation 'weights' of 64 bytes");
    assert!(memory.describe(5).contains("no device address"));
}

#[test]
fn snapshots_restore_and_compare() {
    let memory = memory();
    let a = memory.allocate(16).unwrap();
    let b = memory.allocate(8).unwrap();
    memory.write(a, &[1; 16]).unwrap();
    let before = memory.snapshot();
    memory.write(a + 9, &[2]).unwrap();
    assert_eq!(memory.first_difference(&before), Some(a + 9));
    memory.write(b + 1, &[3]).unwrap();
    memory.restore(&before);
    assert_eq!(memory.first_difference(&before), None);
    let mut bytes = [0; 16];
    memory.read(a, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 16]);
    assert_eq!(memory.first_difference(&memory.snapshot()), None);
    // Written in one of the two is enough, and what was unwritten is so again.
    memory.write(b + 2, &[7]).unwrap();
    assert_eq!(memory.first_difference(&before), Some(b + 2));
}

#[test]
fn a_snapshot_outlives_its_allocations() {
    let memory = memory();
    let [a, b, c] = [4, 8, 16].map(|size| memory.allocate(size).unwrap());
    [a, b, c].iter().for_each(|&address| memory.write(address, &[1; 4]).unwrap());
    let before = memory.snapshot();
    memory.free(b).unwrap();
    let d = memory.allocate(8).unwrap();
    [a, c, d].iter().for_each(|&address| memory.write(address, &[2; 4]).unwrap());
    assert_eq!(memory.first_difference(&before), Some(a));
    memory.restore(&before);
    for (address, byte) in [(a, 1), (c, 1), (d, 2)] {
        let mut bytes = [0; 4];
        memory.read(address, &mut bytes).unwrap();
        assert_eq!(bytes, [byte; 4]);
    }
}
