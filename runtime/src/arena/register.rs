//! The arena as an allocator that ONNX Runtime calls.
//!
//! The only unsafe code of the program: ONNX Runtime takes allocators through its C interface alone.
#![allow(unsafe_code)]

use std::{
    alloc::{self, Layout},
    collections::HashMap,
    ffi::c_void,
    ptr,
    sync::{Mutex, PoisonError},
};

use memmap2::{MmapMut, MmapOptions};
use ort::{
    AsPointer,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    sys::{OrtAllocator, OrtMemoryInfo},
};

use super::{ALIGNMENT, FreeList};
use crate::engine::boundary;

/// Address ranges that are tried, bytes; only touched pages take memory.
const RESERVATIONS: [usize; 5] = [64 << 30, 16 << 30, 4 << 30, 1 << 30, 256 << 20];
/// Share of a limit on the address space that the range may take: the rest of the process needs some, too.
const SHARE_OF_LIMIT: u64 = 2;

/// How far the arena was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use now.
    pub in_use: usize,
    /// Bytes ever touched.
    pub high_water: usize,
}

/// What ONNX Runtime holds a pointer to. The C struct is first, so that a pointer to it is one to this.
#[repr(C)]
struct Arena {
    interface: OrtAllocator,
    /// What [`describe`] tells; none in tests without a library.
    info: Option<MemoryInfo<'static>>,
    /// Address of the start of the range. Blocks are handed out by address; Rust never reads or writes them.
    base: usize,
    blocks: Mutex<Blocks>,
    _range: MmapMut,
}

/// Blocks within the range, and those that the system's allocator gave because the range was full.
struct Blocks {
    list: FreeList,
    outside: HashMap<usize, Layout>,
}

/// An arena that ONNX Runtime uses. It lives as long as the process: sessions may outlast any owner.
#[derive(Clone, Copy)]
pub struct Registration(&'static Arena);

impl Registration {
    /// How far it was filled.
    pub fn usage(&self) -> Usage {
        let blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let outside: usize = blocks.outside.values().map(Layout::size).sum();
        Usage { in_use: blocks.list.in_use() + outside, high_water: blocks.list.high_water() }
    }
}

/// Makes an arena and registers it for the CPU memory of all sessions of `environment` that ask for
/// the environment's allocators. To be called once per environment, of which a process has one.
///
/// # Errors
/// If no address range can be had or ONNX Runtime refuses the allocator; sessions then go without.
pub fn register(environment: &Environment) -> Result<Registration, String> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current.unwrap_or(u64::MAX);
    let fits = |length: &&usize| **length as u64 <= limit / SHARE_OF_LIMIT;
    let reserve = |&length: &usize| MmapOptions::new().len(length).no_reserve_swap().map_anon().ok();
    let mut range = RESERVATIONS.iter().filter(fits).find_map(reserve).ok_or("no address range is free")?;
    let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
        .map_err(|e| e.to_string())?;
    // SAFETY: the default is a plain struct of empty callbacks and the version that was compiled against.
    let mut interface = unsafe { OrtAllocator::default() };
    interface.Alloc = Some(allocate);
    interface.Free = Some(release);
    interface.Info = Some(describe);
    let blocks = Mutex::new(Blocks { list: FreeList::new(range.len()), outside: HashMap::new() });
    let arena = Box::new(Arena {
        interface,
        info: Some(info),
        base: range.as_mut_ptr().expose_provenance(),
        blocks,
        _range: range,
    });
    // Never freed: ONNX Runtime may call it until the process ends.
    let arena: &'static Arena = Box::leak(arena);
    let pointer = ptr::from_ref(arena).cast_mut().cast::<OrtAllocator>();
    // SAFETY: the environment is alive; `pointer` is to an `OrtAllocator` that lives for ever, whose callbacks
    // only take shared references to `Arena`, which is safe from any thread (its state is in a mutex).
    let status = unsafe { (ort::api().RegisterAllocator)(environment.ptr().cast_mut(), pointer) };
    if status.0.is_null() {
        return Ok(Registration(arena));
    }
    // SAFETY: a status that is not null is an error of ours to release.
    unsafe { (ort::api().ReleaseStatus)(status.0) };
    Err("ONNX Runtime refuses a shared allocator".into())
}

/// # Safety
/// `this` must be the pointer that [`register`] gave to ONNX Runtime.
unsafe fn arena<'a>(this: *const OrtAllocator) -> &'a Arena {
    // SAFETY: `Arena` is `repr(C)` with the interface first, is never freed and never borrowed mutably.
    unsafe { &*this.cast::<Arena>() }
}

/// A block of at least `size` bytes. ONNX Runtime writes to what it is given without a look, so that a null
/// pointer is no answer: what does not fit in the range comes from the system, and a system without memory
/// ends the process with a message.
unsafe extern "system" fn allocate(this: *mut OrtAllocator, size: usize) -> *mut c_void {
    // SAFETY: ONNX Runtime passes the registered pointer.
    let arena = unsafe { arena(this) };
    let mut blocks = arena.blocks.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(offset) = boundary::program(|| blocks.list.allocate(size)) {
        return ptr::with_exposed_provenance_mut(arena.base + offset);
    }
    let Ok(layout) = Layout::from_size_align(size.max(1), ALIGNMENT) else {
        alloc::handle_alloc_error(Layout::new::<Arena>())
    };
    // SAFETY: the size is not zero.
    let block = unsafe { alloc::alloc(layout) };
    if block.is_null() {
        alloc::handle_alloc_error(layout);
    }
    blocks.outside.insert(block.expose_provenance(), layout);
    block.cast()
}

unsafe extern "system" fn release(this: *mut OrtAllocator, block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: ONNX Runtime passes the registered pointer.
    let arena = unsafe { arena(this) };
    let mut blocks = arena.blocks.lock().unwrap_or_else(PoisonError::into_inner);
    match blocks.outside.remove(&block.addr()) {
        // SAFETY: the block came from `alloc` with this layout, and is forgotten by this call.
        Some(layout) => unsafe { alloc::dealloc(block.cast(), layout) },
        // A block that is not ours is left alone: an unknown offset changes nothing.
        None => _ = boundary::program(|| blocks.list.release(block.addr().wrapping_sub(arena.base))),
    }
}

unsafe extern "system" fn describe(this: *const OrtAllocator) -> *const OrtMemoryInfo {
    // SAFETY: ONNX Runtime passes the registered pointer.
    unsafe { arena(this) }.info.as_ref().map_or(ptr::null(), MemoryInfo::ptr)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An arena with a range of `length` bytes that no ONNX Runtime knows.
    fn alone(length: usize) -> Option<Arena> {
        let mut range = MmapOptions::new().len(length).map_anon().ok()?;
        // SAFETY: the struct is plain, and its callbacks are not called.
        let interface: OrtAllocator = unsafe { std::mem::zeroed() };
        let base = range.as_mut_ptr().expose_provenance();
        let blocks = Mutex::new(Blocks { list: FreeList::new(length), outside: HashMap::new() });
        Some(Arena { interface, info: None, base, blocks, _range: range })
    }

    #[test]
    fn a_full_range_goes_on_outside() -> Result<(), &'static str> {
        const LENGTH: usize = 1 << 16;
        let arena = alone(LENGTH).ok_or("no memory")?;
        let this = ptr::from_ref(&arena).cast_mut().cast::<OrtAllocator>();
        let sizes = [100, LENGTH / 2, LENGTH, 0, 3 * LENGTH, LENGTH / 4];
        // SAFETY: `this` is an arena, and every block is written within its size and released once.
        unsafe {
            let blocks: Vec<*mut c_void> = sizes.iter().map(|&size| allocate(this, size)).collect();
            for (i, (&block, &size)) in blocks.iter().zip(&sizes).enumerate() {
                assert!(!block.is_null() && block.addr().is_multiple_of(ALIGNMENT));
                block.cast::<u8>().write_bytes(i as u8, size);
            }
            for (i, (&block, &size)) in blocks.iter().zip(&sizes).enumerate() {
                let bytes = std::slice::from_raw_parts(block.cast::<u8>(), size);
                assert!(bytes.iter().all(|&b| b == i as u8));
            }
            assert_eq!(arena.blocks.lock().map(|b| b.outside.len()).unwrap_or(0), 2);
            blocks.into_iter().for_each(|block| release(this, block));
            release(this, ptr::null_mut());
        }
        let blocks = arena.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((blocks.list.in_use(), blocks.outside.len()), (0, 0));
        Ok(())
    }
}
