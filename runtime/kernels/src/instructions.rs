//! Which vector instructions the kernels are dispatched to.

/// The best instruction set that this machine has; in tests, the one that [`testing::with_each`] asks for.
pub(super) fn instructions() -> pulp::Arch {
    #[cfg(test)]
    if let Some(chosen) = testing::chosen() {
        return chosen;
    }
    pulp::Arch::new()
}

/// Running the same test with each instruction set that the machine has.
#[cfg(test)]
pub(super) mod testing {
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<pulp::Arch>> = const { Cell::new(None) };
    }

    pub(super) fn chosen() -> Option<pulp::Arch> {
        CHOSEN.get()
    }

    /// Calls `test` once for each instruction set; it holds for kernels that run on the calling thread.
    pub(crate) fn with_each(test: impl Fn()) {
        let mut sets = vec![pulp::Arch::new(), pulp::Arch::Scalar];
        #[cfg(target_arch = "x86_64")]
        sets.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
        for set in sets {
            CHOSEN.set(Some(set));
            test();
        }
        CHOSEN.set(None);
    }
}
