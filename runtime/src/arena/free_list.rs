//! First fit in address order, with neighbours merged: the pure half of the arena.

/// Alignment of every block, bytes: a cache line, and the widest vector of the CPU kernels.
pub const ALIGNMENT: usize = 64;
/// Blocks for which there is room from the beginning: a step of training has a few hundred at once.
const ROOM: usize = 1024;

/// Blocks by offset, with their sizes: a list, as they are few, which asks for no memory once it has been as long.
#[derive(Debug)]
struct Blocks(Vec<(usize, usize)>);

impl Blocks {
    fn new() -> Self {
        Self(Vec::with_capacity(ROOM))
    }

    /// Index of the block at `offset`, or of where it would be.
    fn find(&self, offset: usize) -> Result<usize, usize> {
        self.0.binary_search_by_key(&offset, |&(offset, _)| offset)
    }

    fn insert(&mut self, offset: usize, size: usize) {
        match self.find(offset) {
            Ok(index) => self.0[index].1 = size,
            Err(index) => self.0.insert(index, (offset, size)),
        }
    }

    fn remove(&mut self, offset: usize) -> Option<usize> {
        self.find(offset).ok().map(|index| self.0.remove(index).1)
    }
}

/// Which parts of `0..capacity` are free. Offsets and sizes in bytes.
#[derive(Debug)]
pub struct FreeList {
    /// Free blocks; no two touch.
    free: Blocks,
    /// Blocks in use.
    used: Blocks,
    in_use: usize,
    high_water: usize,
    /// As `high_water`, since [`FreeList::mark`].
    since_mark: usize,
}

impl FreeList {
    /// All of `0..capacity` is free; a remainder below [`ALIGNMENT`] is left out.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity / ALIGNMENT * ALIGNMENT;
        let mut free = Blocks::new();
        if capacity > 0 {
            free.insert(0, capacity);
        }
        Self { free, used: Blocks::new(), in_use: 0, high_water: 0, since_mark: 0 }
    }

    /// Offset of a new block of `size` bytes (at least one): the lowest that fits; none if none does.
    pub fn allocate(&mut self, size: usize) -> Option<usize> {
        let size = size.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let index = self.free.0.iter().position(|&(_, length)| length >= size)?;
        let (offset, length) = self.free.0[index];
        if length > size {
            // What is left stays in its place among the others.
            self.free.0[index] = (offset + size, length - size);
        } else {
            self.free.0.remove(index);
        }
        self.used.insert(offset, size);
        self.in_use += size;
        self.since_mark = self.since_mark.max(offset + size);
        self.high_water = self.high_water.max(offset + size);
        Some(offset)
    }

    /// Frees the block at `offset`; false (and nothing happens) if there is none.
    pub fn release(&mut self, offset: usize) -> bool {
        let Some(size) = self.used.remove(offset) else { return false };
        self.in_use -= size;
        let (mut start, mut end) = (offset, offset + size);
        let after = self.free.find(offset).unwrap_or_else(|index| index);
        if let Some((before, length)) = after.checked_sub(1).map(|index| self.free.0[index])
            && before + length == start
        {
            self.free.0.remove(after - 1);
            start = before;
        }
        if let Some(length) = self.free.remove(end) {
            end += length;
        }
        self.free.insert(start, end - start);
        true
    }

    /// Bytes in blocks that are in use.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// End of the highest block that there ever was: the memory that was touched.
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// Hands the offset and size of every free block that was touched to `give_back`; the highest block that there ever was
    /// is then the highest that there is.
    pub fn trim(&mut self, mut give_back: impl FnMut(usize, usize)) {
        for &(offset, size) in self.free.0.iter().take_while(|(offset, _)| *offset < self.high_water) {
            give_back(offset, size.min(self.high_water - offset));
        }
        self.mark();
        self.high_water = self.since_mark;
    }

    /// End of the highest block that there was since [`FreeList::mark`].
    pub fn since_mark(&self) -> usize {
        self.since_mark
    }

    /// Begins to look for the highest block anew: from the one that is the highest now.
    pub fn mark(&mut self) {
        self.since_mark = self.used.0.last().map_or(0, |(offset, size)| offset + size);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{Rng, SeedableRng},
    };

    use super::*;

    /// The slow, obviously right twin: a map of cache lines.
    struct Twin(Vec<bool>);

    impl Twin {
        fn allocate(&mut self, size: usize) -> Option<usize> {
            let lines = size.max(1).div_ceil(ALIGNMENT);
            let start =
                (0..self.0.len().checked_sub(lines)? + 1).find(|&s| self.0[s..s + lines].iter().all(|used| !used))?;
            self.0[start..start + lines].fill(true);
            Some(start * ALIGNMENT)
        }

        fn release(&mut self, offset: usize, size: usize) {
            let start = offset / ALIGNMENT;
            self.0[start..start + size.max(1).div_ceil(ALIGNMENT)].fill(false);
        }
    }

    #[test]
    fn gives_the_same_blocks_as_a_map_of_lines() {
        const LINES: usize = 200;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut list = FreeList::new(LINES * ALIGNMENT + 7);
        let mut twin = Twin(vec![false; LINES]);
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        let mut refused = 0;
        for _ in 0..20_000 {
            if rng.next_u32() % 2 == 0 || blocks.is_empty() {
                let size = (rng.next_u32() % 2500) as usize;
                let offset = list.allocate(size);
                assert_eq!(offset, twin.allocate(size));
                match offset {
                    Some(offset) => blocks.push((offset, size)),
                    None => refused += 1,
                }
            } else {
                let (offset, size) = blocks.swap_remove(rng.next_u32() as usize % blocks.len());
                assert!(list.release(offset));
                assert!(!list.release(offset));
                twin.release(offset, size);
            }
            assert_eq!(list.in_use(), twin.0.iter().filter(|&&used| used).count() * ALIGNMENT);
        }
        assert!(refused > 100);
        for (offset, _) in blocks {
            assert!(list.release(offset));
        }
        assert_eq!((list.in_use(), list.free.0.len()), (0, 1));
    }

    #[test]
    fn a_mark_forgets_what_is_gone_and_keeps_what_is_there() {
        let mut list = FreeList::new(1 << 20);
        let blocks: Vec<usize> = (0..4).map(|_| list.allocate(ALIGNMENT).unwrap()).collect();
        list.release(blocks[3]);
        list.release(blocks[0]);
        list.mark();
        assert_eq!((list.since_mark(), list.high_water()), (3 * ALIGNMENT, 4 * ALIGNMENT));
        list.allocate(ALIGNMENT).unwrap();
        assert_eq!(list.since_mark(), 3 * ALIGNMENT, "the hole was filled");
        list.allocate(3 * ALIGNMENT).unwrap();
        assert_eq!((list.since_mark(), list.high_water()), (6 * ALIGNMENT, 6 * ALIGNMENT));
        list.release(blocks[1]);
        let mut given_back = Vec::new();
        list.trim(|offset, size| given_back.push((offset, size)));
        assert_eq!(given_back, [(ALIGNMENT, ALIGNMENT)]);
        list.allocate(ALIGNMENT).unwrap();
        list.release(3 * ALIGNMENT);
        list.trim(|offset, size| given_back.push((offset, size)));
        assert_eq!(given_back[1..], [(3 * ALIGNMENT, 3 * ALIGNMENT)]);
        assert_eq!((list.high_water(), list.in_use()), (3 * ALIGNMENT, 3 * ALIGNMENT));
        let mut empty = FreeList::new(1 << 20);
        empty.mark();
        empty.trim(|_, _| panic!("nothing was touched"));
        assert_eq!(empty.since_mark(), 0);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let mut list = FreeList::new(1 << 20);
        assert_eq!(list.allocate(usize::MAX), None);
        assert_eq!(list.allocate((1 << 20) + 1), None);
        assert_eq!(FreeList::new(10).allocate(1), None);
        assert_eq!(list.high_water(), 0);
        assert_eq!(list.allocate(0), Some(0));
    }
}
