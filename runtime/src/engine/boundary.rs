//! Whose code runs on a thread: the program's own, ONNX Runtime's, or that of a fused operator which ONNX Runtime calls.
//!
//! A training step's memory is ONNX Runtime's affair: the wrapper `ort` makes names, lists and handles for every call, and ONNX
//! Runtime tensors. What the program itself asks of the allocator in a step is to be nothing, and a test that counts has to tell the two
//! apart. So every call to `ort` on a step's way goes through `onnx_runtime`; where ONNX Runtime calls back, fused operators run in
//! `kernel`, and what the arena writes down in `program`. It costs two writes to a variable of the thread.
//!
//! Inside are, and nothing else: making a tensor on the host or a view of numbers, binding inputs and outputs, running a
//! session, taking its outputs out of their list, the contents of a tensor, and opening a session.

use std::cell::Cell;

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The program's own.
    Program,
    /// ONNX Runtime's, or its wrapper's.
    OnnxRuntime,
    /// A fused operator's.
    Kernel,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::Program) };
}

/// Whose code runs on this thread; the program's own on a thread that is about to end.
pub fn place() -> Place {
    PLACE.try_with(Cell::get).unwrap_or(Place::Program)
}

/// Goes back to where it came from, in a panic, too.
struct Back(Place);

impl Drop for Back {
    fn drop(&mut self) {
        let _ = PLACE.try_with(|place| place.set(self.0));
    }
}

fn at<T>(there: Place, run: impl FnOnce() -> T) -> T {
    let _back = Back(place());
    let _ = PLACE.try_with(|place| place.set(there));
    run()
}

/// Runs what the program does when ONNX Runtime calls it and is no operator: it keeps the list of what is free in the arena.
pub(crate) fn program<T>(run: impl FnOnce() -> T) -> T {
    at(Place::Program, run)
}

/// Runs what calls `ort`.
pub(crate) fn onnx_runtime<T>(run: impl FnOnce() -> T) -> T {
    at(Place::OnnxRuntime, run)
}

/// Runs what a fused operator computes.
pub(crate) fn kernel<T>(run: impl FnOnce() -> T) -> T {
    at(Place::Kernel, run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_nest_and_are_left_in_a_panic() {
        assert_eq!(place(), Place::Program);
        onnx_runtime(|| {
            assert_eq!(kernel(|| onnx_runtime(place)), Place::OnnxRuntime);
            assert_eq!(kernel(place), Place::Kernel);
            assert_eq!(place(), Place::OnnxRuntime);
        });
        let panicked = std::panic::catch_unwind(|| onnx_runtime(|| assert_eq!(place(), Place::Program)));
        assert!(panicked.is_err());
        assert_eq!(place(), Place::Program);
        let other = std::thread::spawn(place).join();
        assert!(matches!(onnx_runtime(|| other), Ok(Place::Program)), "every thread has its own");
    }
}
