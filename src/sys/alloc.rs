//! The system's allocator, asked for large alignments in a way that does not break memory into pieces.
//!
//! glibc serves an alignment above 16 from a block that is larger by the alignment, and gives back what is left in front
//! and behind. Something small and long-lived moves in there; then the freed block is too small for the same request, and
//! the next one takes fresh memory. Tasks of tokio are aligned to 128 octets, so each miss beside a cache that fills cost
//! its task's size for good. Here a block is asked for that has room for any place in it, and all of it comes back.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

/// What the system's allocator gives without being asked.
const USUAL: usize = 16;

/// To be the program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Whole;

// SAFETY: blocks of the usual alignment are the system's own. Any other lies inside a block of the system's that is larger
// by its alignment; where that begins is written right before it, into octets that belong to nobody else, and is read back
// when it is freed. `GlobalAlloc`'s own `realloc` copies by way of the two, and is used where the alignment is not usual.
unsafe impl GlobalAlloc for Whole {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_usual(layout) {
            // SAFETY: the layout is not empty, as the caller promises.
            return unsafe { System.alloc(layout) };
        }
        let Some(block) = around(layout) else { return null_mut() };
        // SAFETY: the block is not empty, and is the one around this layout.
        unsafe { place(System.alloc(block), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_usual(layout) {
            // SAFETY: the layout is not empty, as the caller promises.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let Some(block) = around(layout) else { return null_mut() };
        // SAFETY: as in `alloc`.
        unsafe { place(System.alloc_zeroed(block), layout.align()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_usual(layout) {
            // SAFETY: it came from the system with this layout.
            return unsafe { System.dealloc(at, layout) };
        }
        let block = around(layout).expect("a block was made for this layout");
        // SAFETY: `place` has written the start of the block before this place.
        unsafe { System.dealloc(at.cast::<*mut u8>().sub(1).read(), block) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_usual(layout) {
            // SAFETY: `at` is the system's.
            return unsafe { System.realloc(at, layout, size) };
        }
        // SAFETY: the caller promises that `size` is in bounds for this alignment and not zero.
        unsafe {
            let fresh = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !fresh.is_null() {
                at.copy_to_nonoverlapping(fresh, layout.size().min(size));
                self.dealloc(at, layout);
            }
            fresh
        }
    }
}

fn is_usual(layout: Layout) -> bool {
    layout.align() <= USUAL
}

/// The block that has room for a layout at any place; `None` where it would be larger than any can be.
fn around(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size().checked_add(layout.align())?, USUAL).ok()
}

/// The first place in a block that is aligned and has room for a pointer before it.
///
/// # Safety
///
/// `start` is null, or a block of [`around`] a layout of this alignment.
unsafe fn place(start: *mut u8, align: usize) -> *mut u8 {
    if start.is_null() {
        return start;
    }
    // At least 16, since the block has the usual alignment, and at most `align`.
    let shift = align - (start.addr() & (align - 1));
    // SAFETY: the block is larger than the layout by `align`, so the place and what follows lie in it, and so does the
    // pointer before it, which is aligned because the place is.
    unsafe {
        let at = start.add(shift);
        at.cast::<*mut u8>().sub(1).write(start);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_hold_their_octets_and_keep_them_when_they_grow() {
        for (size, align) in [(1, 1), (24, 8), (16, 16), (1, 32), (2304, 128), (100, 64), (10_000, 4096)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout is not empty; every block is freed once, with the layout that it has by then.
            unsafe {
                let block = Whole.alloc(layout);
                assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                block.write_bytes(0xa5, size);
                let block = Whole.realloc(block, layout, 2 * size);
                assert!(block.addr().is_multiple_of(align), "{layout:?}");
                assert!((0..size).all(|at| block.add(at).read() == 0xa5), "{layout:?}");
                block.write_bytes(0x5a, 2 * size);
                Whole.dealloc(block, Layout::from_size_align(2 * size, align).unwrap());
                let zeroed = Whole.alloc_zeroed(layout);
                assert!((0..size).all(|at| zeroed.add(at).read() == 0), "{layout:?}");
                Whole.dealloc(zeroed, layout);
            }
        }
    }

    #[test]
    fn what_cannot_be_had_is_null() {
        let layout = Layout::from_size_align(isize::MAX as usize - 127, 128).unwrap();
        // SAFETY: the layout is not empty, and nothing was made that would have to be freed.
        assert!(unsafe { Whole.alloc(layout) }.is_null());
    }
}
