//! A plan that is kept, its watch, and what is said of both.

use serde::Serialize;

use super::{Bound, name};
use crate::{
    cli::{Exit, Failure, output, setup::Session},
    memory::{self, Bytes, Plan, Verdict, Watch, resident},
    network::Network,
    ort_library,
    provider::Provider,
};

/// What `--json` says of the memory.
#[derive(Clone, Copy, Serialize)]
pub struct Report {
    /// What the process may take, bytes.
    budget: u64,
    /// What is kept for backward passes.
    mode: &'static str,
    /// Images in a mini-batch.
    batch: u32,
    /// Sessions that are kept at most now.
    sessions_kept: usize,
    /// Sessions that all paths together need.
    sessions: usize,
    /// What the process was expected to take at most, bytes.
    expected: u64,
    /// What it has taken at most, bytes.
    peak: u64,
    /// Whether that is more than the budget.
    exceeded: bool,
}

/// What is left of work that is stopped as it takes too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// What was done so far, from where `--resume` goes on.
    Resumable,
    /// Nothing.
    Nothing,
    /// Nothing; there would be with a file as `--out`.
    NothingOnStdout,
}

/// A plan that is kept, and its watch.
pub struct Planned {
    plan: Plan,
    bound: Bound,
    watch: Watch,
    left: Left,
}

impl Planned {
    /// Tells the plan, and keeps the network to it.
    pub(super) fn begin(plan: Plan, bound: Bound, session: &mut Session, left: Left, quiet: bool) -> Self {
        let network = &mut session.network;
        if plan.is_bounded() {
            network.keep_sessions(plan.kept);
        }
        if !quiet {
            let sessions = match plan.is_bounded() {
                true => format!("{} of {} sessions kept", plan.kept, plan.sessions),
                false => format!("all {} sessions kept", plan.sessions),
            };
            let (budget, expected) = (Bytes(plan.budget), Bytes(plan.expected));
            let why = if bound.system().is_some() { " (where the system ends this process)" } else { "" };
            output::words(format_args!(
                "memory: {budget}{why}: {}, batch {}, {sessions}, {expected} expected",
                name(plan.memory),
                plan.batch
            ));
        }
        if let Some(warning) = not_counted(session.running.backend.provider) {
            output::words(warning);
        }
        Self { plan, bound, watch: Watch::new(&plan), left }
    }

    /// Looks at what the process takes. Sessions are closed where that comes near to the budget; an error is that it is
    /// above it, and the work should stop.
    pub fn look(&mut self, network: &mut Network) -> Result<(), Failure> {
        // It told when the plan was made; a look that fails changes nothing.
        match resident().map_or(Verdict::Fine, |resident| self.watch.look(resident)) {
            Verdict::Fine => Ok(()),
            Verdict::Close(kept) => {
                network.keep_sessions(kept);
                ort_library::trim_arena();
                log::info!("memory comes near to the budget: {kept} sessions are kept from now on");
                Ok(())
            }
            Verdict::Exceeded(peak) => Err(self.exceeded(peak)),
        }
    }

    /// As [`Planned::look`] where sessions cannot be closed.
    pub fn check(&self) -> Result<(), Failure> {
        let peak = resident().map_or(0, |resident| resident.peak);
        if peak > self.plan.budget { Err(self.exceeded(peak)) } else { Ok(()) }
    }

    fn exceeded(&self, peak: u64) -> Failure {
        let said = format!("{} ({} were expected)", taken(peak, self.bound), Bytes(self.plan.expected));
        let next = roomier(peak);
        let first = self.bound.first(next.0);
        match self.left {
            Left::Resumable => Failure::usage(said)
                .with_exit(Exit::Stopped)
                .hint(format!("{first}go on with the same command, --resume and --memory-budget {next}")),
            Left::Nothing => {
                Failure::usage(said).and("nothing was written").hint(format!("{first}give it --memory-budget {next}"))
            }
            Left::NothingOnStdout => Failure::usage(said).and("nothing was written").hint(format!(
                "{first}give it --memory-budget {next}; with a file as --out, what was done so far is kept"
            )),
        }
    }

    /// What became of the budget, when the work is done and all of its results are written. That more was taken is no failure
    /// then, but it is said, whatever is quiet.
    pub fn end(&self) -> Report {
        let peak = resident().map_or(0, |resident| resident.peak);
        let exceeded = peak > self.plan.budget;
        if exceeded {
            let next = roomier(peak);
            output::words(format_args!(
                "warning: {}; the results are complete (hint: {}give the next such run --memory-budget {next})",
                taken(peak, self.bound),
                self.bound.first(next.0)
            ));
        }
        log::debug!("{:?}, {:?} bytes without activations", ort_library::arena_usage(), memory::standing());
        Report {
            budget: self.plan.budget,
            mode: name(self.plan.memory),
            batch: self.plan.batch,
            sessions_kept: self.watch.kept().get(),
            sessions: self.plan.sessions,
            expected: self.plan.expected,
            peak,
            exceeded,
        }
    }
}

/// That more was taken than there is.
fn taken(peak: u64, bound: Bound) -> String {
    let (peak, most) = (Bytes(peak), Bytes(bound.bytes()));
    match bound.system() {
        Some(_) => format!("{peak} were taken of {most}, where the system ends this process"),
        None => format!("{peak} were taken of a memory budget of {most}"),
    }
}

/// A budget that has room for what was taken.
fn roomier(peak: u64) -> Bytes {
    Bytes(peak.saturating_add(peak / memory::MARGIN_PART))
}

/// Prints a result as JSON, with what became of the memory budget if there was one: that is in no file, as it is another in
/// every run.
pub fn say_json(result: &impl Serialize, memory: Option<Report>) -> Result<(), Failure> {
    let Some(memory) = memory else { return output::json(result) };
    let mut value = serde_json::to_value(result).map_err(Failure::usage)?;
    let memory = serde_json::to_value(memory).map_err(Failure::usage)?;
    value.as_object_mut().map(|fields| fields.insert("memory".into(), memory));
    output::json(&value)
}

/// A warning of what a memory budget does not count; none on the CPU.
fn not_counted(provider: Provider) -> Option<String> {
    (provider != Provider::Cpu).then(|| {
        format!(
            "warning: --memory-budget counts what this process holds in the host's memory; what {provider} holds for the GPU comes \
             besides, on a board from the same chips (hint: leave room for it; --provider cpu takes none)"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasbn_models::manifest::MemoryMode;

    use super::*;

    fn planned(budget: u64, left: Left) -> Planned {
        let plan = Plan {
            budget,
            memory: MemoryMode::Lean,
            batch: 8,
            kept: std::num::NonZeroUsize::MIN,
            sessions: 1,
            expected: budget,
        };
        Planned { plan, bound: Bound { budget, limit: None }, watch: Watch::new(&plan), left }
    }

    #[test]
    fn what_is_said_where_a_budget_is_exceeded_can_be_followed() {
        for (left, stopped, advice) in [
            (Left::Resumable, true, "go on with the same command, --resume and --memory-budget "),
            (Left::Nothing, false, "give it --memory-budget "),
            (Left::NothingOnStdout, false, "give it --memory-budget "),
        ] {
            let failure = planned(1, left).check().unwrap_err();
            let hint = failure.advice().unwrap();
            assert!(failure.message().contains("were taken of a memory budget of 1B"), "{}", failure.message());
            assert!(hint.starts_with(advice), "{hint}");
            assert_eq!(failure.is_stopped(), stopped, "{left:?}: the exit status promises --resume");
            assert_eq!(hint.contains("--resume"), stopped, "{hint}");
            assert_eq!(failure.message().contains("nothing was written"), !stopped, "{}", failure.message());
            assert_eq!(hint.contains("a file as --out"), left == Left::NothingOnStdout, "{hint}");
        }
        assert!(planned(u64::MAX, Left::Nothing).check().is_ok());
        assert!(planned(1, Left::Resumable).end().exceeded && !planned(u64::MAX, Left::Resumable).end().exceeded);
    }

    #[test]
    fn what_the_system_bounds_is_told_with_what_must_be_raised() {
        let mut planned = planned(1, Left::Resumable);
        planned.bound = Bound { budget: 1 << 30, limit: Some(1) };
        let failure = planned.check().unwrap_err();
        assert!(
            failure.message().contains("were taken of 1B, where the system ends this process"),
            "{}",
            failure.message()
        );
        let hint = failure.advice().unwrap();
        assert!(
            hint.starts_with("raise the limit of its memory cgroup (1B) to ") && hint.contains("--resume"),
            "{hint}"
        );
    }

    #[test]
    fn a_budget_that_does_not_count_all_is_warned_of() {
        assert_eq!(not_counted(Provider::Cpu), None);
        for provider in [Provider::Cuda, Provider::TensorRt] {
            let warning = not_counted(provider).unwrap();
            assert!(warning.starts_with("warning: ") && warning.contains("hint: "), "{warning}");
            assert!(warning.contains(&provider.to_string()), "{warning}");
        }
    }
}
