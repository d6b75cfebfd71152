//! bpf(2) commands that aya lacks or makes costly: whole per-CPU values, and reading and emptying a hash map in
//! batches. Knows only the layout of the values.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;

/// Types without padding, for which any bytes are a value.
///
/// # Safety
/// The implementing type is `repr(C)`, made of integers only, without padding, and its size is a multiple of 8.
pub unsafe trait Plain: Copy + Default {}
// SAFETY: see their definitions in `jouled_bpf`.
unsafe impl Plain for jouled_bpf::Cpu {}
// SAFETY: as above.
unsafe impl Plain for jouled_bpf::Key {}
// SAFETY: as above.
unsafe impl Plain for jouled_bpf::Total {}

#[repr(C)]
struct ElementAttr {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Reads entry 0 of a per-CPU array into `values`, one value per possible CPU.
pub fn read_cpus<T: Plain>(map: BorrowedFd<'_>, values: &mut [T]) -> io::Result<()> {
    element(BPF_MAP_LOOKUP_ELEM, map, 0, values.as_mut_ptr() as u64)
}

/// Writes entry 0 of a per-CPU array, one value per possible CPU.
pub fn write_cpus<T: Plain>(map: BorrowedFd<'_>, values: &[T]) -> io::Result<()> {
    element(BPF_MAP_UPDATE_ELEM, map, 0, values.as_ptr() as u64)
}

/// Writes one entry of an array of 32-bit numbers or file descriptors.
pub fn write_number(map: BorrowedFd<'_>, index: u32, value: u32) -> io::Result<()> {
    element(BPF_MAP_UPDATE_ELEM, map, index, &raw const value as u64)
}

fn element(command: libc::c_long, map: BorrowedFd<'_>, key: u32, value: u64) -> io::Result<()> {
    let mut attr = ElementAttr { map: map.as_raw_fd() as u32, unused: 0, key: &raw const key as u64, value, flags: 0 };
    bpf(command, &mut attr)
}

/// Buffers for emptying a hash map, reused at each tick.
pub struct Drain<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Plain, V: Plain> Drain<K, V> {
    /// Buffers for this many entries per call. It must exceed the entries of any one bucket of the map, or the kernel
    /// returns ENOSPC.
    pub fn new(entries: usize) -> Self {
        Self { keys: vec![K::default(); entries], values: vec![V::default(); entries] }
    }

    /// Moves every entry of the map to the end of `out`.
    pub fn drain(&mut self, map: BorrowedFd<'_>, out: &mut Vec<(K, V)>) -> io::Result<()> {
        // The kernel's cursor in the map; for hash maps it has four bytes.
        let mut position = 0_u32;
        let mut first = true;
        loop {
            let mut attr = BatchAttr {
                from: if first { 0 } else { &raw const position as u64 },
                to: &raw mut position as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: self.keys.len() as u32,
                map: map.as_raw_fd() as u32,
                element_flags: 0,
                flags: 0,
            };
            let result = bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attr);
            let end = match &result {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(_) => return result,
                Ok(()) => false,
            };
            let count = attr.count as usize;
            out.extend(self.keys.iter().copied().zip(self.values.iter().copied()).take(count));
            if end {
                return Ok(());
            }
            first = false;
        }
    }
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<()> {
    // SAFETY: `attr` is the prefix of bpf_attr that belongs to the command; the pointers in it are to buffers that
    // outlive the call and have the sizes that the map was created with.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
