//! The arena as an allocator that ONNX Runtime calls.
//!
//! The only unsafe code of the program but for a line in `main.rs`: ONNX Runtime takes allocators through its C interface alone.
#![allow(unsafe_code)]

use std::{
    alloc::{self, Layout},
    collections::HashMap,
    ffi::c_void,
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
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

/// Part of the range that is for what lasts, one of so many.
const LASTING_PART: usize = 4;

/// How far the arena was filled, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub in_use: usize,
    /// Ever touched.
    pub high_water: usize,
    /// Ever touched by what passes (activations).
    pub passing: usize,
    /// Of what passes, in use now.
    pub passing_in_use: usize,
    /// Touched by what passes since [`Registration::mark`], blocks included that the system gave because the range was full.
    pub since_mark: usize,
}

/// Pages are given back to the kernel in multiples of this many bytes: the largest pages of any machine in use.
const PAGE: usize = 64 << 10;

/// How many are opening sessions: what is allocated in the meantime lasts.
static OPENING: AtomicUsize = AtomicUsize::new(0);

/// While there is one, what ONNX Runtime allocates is taken to last as long as a session: weights, and what is made of them.
/// It has a part of the range of its own; among activations it would leave holes that large ones do not fit in, and those
/// would move on to memory that nothing has touched yet.
#[derive(Debug)]
pub struct Lasting(());

impl Lasting {
    /// Begins.
    pub fn begin() -> Self {
        OPENING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        OPENING.fetch_sub(1, Ordering::Relaxed);
    }
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
    range: MmapMut,
}

/// Blocks within the range, and those that the system's allocator gave because the range was full.
struct Blocks {
    /// What passes, at the start of the range.
    list: FreeList,
    /// What lasts, behind it.
    lasting: FreeList,
    /// Offset of what lasts.
    split: usize,
    outside: HashMap<usize, Layout>,
    /// Bytes of `outside` now, and at most since the last mark.
    outside_bytes: usize,
    outside_peak: usize,
}

impl Blocks {
    fn new(length: usize) -> Self {
        let split = (length - length / LASTING_PART).next_multiple_of(ALIGNMENT).min(length);
        let (list, lasting) = (FreeList::new(split), FreeList::new(length - split));
        Self { list, lasting, split, outside: HashMap::new(), outside_bytes: 0, outside_peak: 0 }
    }

    /// Offset of a new block; none if it does not fit in its part.
    fn allocate(&mut self, size: usize, lasts: bool) -> Option<usize> {
        match lasts {
            true => self.lasting.allocate(size).map(|offset| self.split + offset),
            false => self.list.allocate(size),
        }
    }

    /// Frees a block; an unknown offset changes nothing.
    fn release(&mut self, offset: usize) {
        match offset.checked_sub(self.split) {
            Some(offset) => _ = self.lasting.release(offset),
            None => _ = self.list.release(offset),
        }
    }
}

/// An arena that ONNX Runtime uses. It lives as long as the process: sessions may outlast any owner.
#[derive(Clone, Copy)]
pub struct Registration(&'static Arena);

impl Registration {
    /// How far it was filled.
    pub fn usage(&self) -> Usage {
        let blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        Usage {
            in_use: blocks.list.in_use() + blocks.lasting.in_use() + blocks.outside_bytes,
            high_water: blocks.list.high_water() + blocks.lasting.high_water(),
            passing: blocks.list.high_water(),
            passing_in_use: blocks.list.in_use(),
            since_mark: blocks.list.since_mark() + blocks.outside_peak,
        }
    }

    /// Gives what is free back to the kernel. Takes time when it is touched again: for when memory is short.
    pub fn trim(&self) {
        let mut blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let give_back = |start: usize, size: usize| {
            let (first, end) = (start.next_multiple_of(PAGE), (start + size) / PAGE * PAGE);
            if first < end {
                // SAFETY: the pages are within free blocks, which hold nothing that is read again; the lock is held, so that
                // none of them is handed out in the meantime. Private and anonymous, they read as zeros then.
                let advised =
                    unsafe { self.0.range.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
                // Where the kernel does not take them, they stay.
                advised.unwrap_or_else(|error| log::debug!("memory was not given back: {error}"));
            }
        };
        let split = blocks.split;
        blocks.list.trim(give_back);
        blocks.lasting.trim(|offset, size| give_back(split + offset, size));
    }

    /// Begins [`Usage::since_mark`] anew, from what is in use now.
    pub fn mark(&self) {
        let mut blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.list.mark();
        blocks.outside_peak = blocks.outside_bytes;
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
    let blocks = Mutex::new(Blocks::new(range.len()));
    let arena =
        Box::new(Arena { interface, info: Some(info), base: range.as_mut_ptr().expose_provenance(), blocks, range });
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
    if let Some(offset) = boundary::program(|| blocks.allocate(size, OPENING.load(Ordering::Relaxed) > 0)) {
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
    blocks.outside_bytes += layout.size();
    blocks.outside_peak = blocks.outside_peak.max(blocks.outside_bytes);
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
        Some(layout) => {
            blocks.outside_bytes -= layout.size();
            // SAFETY: the block came from `alloc` with this layout, and is forgotten by this call.
            unsafe { alloc::dealloc(block.cast(), layout) }
        }
        // A block that is not ours is left alone: an unknown offset changes nothing.
        None => boundary::program(|| blocks.release(block.addr().wrapping_sub(arena.base))),
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
        let blocks = Mutex::new(Blocks::new(length));
        Some(Arena { interface, info: None, base, blocks, range })
    }

    #[test]
    fn a_full_range_goes_on_outside() -> Result<(), &'static str> {
        const LENGTH: usize = 1 << 16;
        let arena = alone(LENGTH).ok_or("no memory")?;
        let this = ptr::from_ref(&arena).cast_mut().cast::<OrtAllocator>();
        let sizes = [100, LENGTH / 2, LENGTH, 0, 3 * LENGTH, LENGTH / 8];
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
            let outside = arena.blocks.lock().map(|b| (b.outside.len(), b.outside_bytes));
            assert_eq!(outside.unwrap_or_default(), (2, 4 * LENGTH));
            blocks.into_iter().for_each(|block| release(this, block));
            release(this, ptr::null_mut());
        }
        let blocks = arena.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((blocks.list.in_use(), blocks.outside.len(), blocks.outside_bytes), (0, 0, 0));
        assert_eq!(blocks.outside_peak, 4 * LENGTH);
        Ok(())
    }

    #[test]
    fn what_is_given_back_can_be_used_again_and_what_is_in_use_stays() -> Result<(), &'static str> {
        const LENGTH: usize = 64 * PAGE;
        let arena = alone(LENGTH).ok_or("no memory")?;
        // As registered: for ever.
        let arena: &'static Arena = Box::leak(Box::new(arena));
        let this = ptr::from_ref(arena).cast_mut().cast::<OrtAllocator>();
        // SAFETY: `this` is an arena, and every block is read and written within its size and released once.
        unsafe {
            let blocks: Vec<*mut u8> = (0..4).map(|_| allocate(this, 4 * PAGE + ALIGNMENT).cast()).collect();
            for (i, block) in blocks.iter().enumerate() {
                block.write_bytes(i as u8 + 1, 4 * PAGE + ALIGNMENT);
            }
            [0, 2].into_iter().for_each(|i: usize| release(this, blocks[i].cast()));
            Registration(arena).trim();
            for i in [1, 3_usize] {
                let bytes = std::slice::from_raw_parts(blocks[i], 4 * PAGE + ALIGNMENT);
                assert!(bytes.iter().all(|&b| b == i as u8 + 1));
            }
            let again: *mut u8 = allocate(this, 4 * PAGE).cast();
            assert_eq!(again, blocks[0]);
            let zeros = std::slice::from_raw_parts(again, 4 * PAGE).iter().filter(|&&b| b == 0).count();
            assert!(zeros >= 3 * PAGE, "{zeros} bytes were given back");
            again.write_bytes(9, 4 * PAGE);
            [again, blocks[1], blocks[3]].into_iter().for_each(|block| release(this, block.cast()));
            Registration(arena).trim();
        }
        let usage = Registration(arena).usage();
        assert_eq!((usage.in_use, usage.high_water), (0, 0));
        Ok(())
    }

    #[test]
    fn what_lasts_lies_apart_and_leaves_no_holes() {
        const LENGTH: usize = 1 << 16;
        let mut blocks = Blocks::new(LENGTH);
        let passing: Vec<_> = (0..4).map(|_| blocks.allocate(LENGTH / 8, false)).collect();
        let lasting = blocks.allocate(LENGTH / 8, true);
        assert_eq!((passing[3], lasting), (Some(3 * LENGTH / 8), Some(LENGTH - LENGTH / LASTING_PART)));
        passing.into_iter().flatten().for_each(|offset| blocks.release(offset));
        assert_eq!((blocks.list.in_use(), blocks.lasting.in_use()), (0, LENGTH / 8));
        assert_eq!(blocks.allocate(LENGTH / 2, false), Some(0), "a hole was left");
        assert_eq!(blocks.allocate(LENGTH / 4, true), None);
        lasting.into_iter().for_each(|offset| blocks.release(offset));
        blocks.release(usize::MAX);
        assert_eq!(blocks.allocate(LENGTH / 4, true), lasting);
    }
}
