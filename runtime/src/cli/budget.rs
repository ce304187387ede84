//! `--memory-budget`: from the option to a plan that is told, kept and watched.

mod bound;
mod planned;
mod scoring;

use clap::Args;
use nasbn_models::{Path, Supernet, manifest::MemoryMode};

use super::{
    Exit, Failure, output,
    setup::{self, Session},
    training::{Memory, TrainingArgs},
    units,
};
use crate::{
    adapt::run::PREFETCH,
    data::{Dataset, Part},
    memory::{
        self, Bytes, Ground, LEAST_BATCH, Linear, Measured, Plan, ProbeError, Request, Resident, Sessions, TooSmall,
        Way, Work, resident,
    },
    network::{Network, NetworkOptions},
    ort_library,
    parameters::{BnParameters, Layout},
};

pub use bound::{Bound, refused_images};
pub use planned::{Left, Planned, Report, say_json};
pub use scoring::Scoring;

/// Mini-batches of a run that are alive at once: those made ahead, one being made, one in use, and its copy for the graphs.
const BATCHES: usize = PREFETCH + 3;
/// Vectors of a number for each BatchNorm channel that training holds: gamma and beta of parameters, gradients, two moments
/// and a checkpoint of these (parameters, moments; as numbers, as bytes, as a file), mean and variance.
const VECTORS: u64 = 2 * (1 + 1 + 2 + 3 * 3 + 1);
/// What `lean` takes at four images, times this, is room enough to try `fast` in: it takes up to three times as much.
const FAST_OVER_LEAN: u64 = 4;

/// The budget, where `--max-memory` is no limit on what is searched for.
#[derive(Args)]
pub struct BudgetArgs {
    /// Most memory that this process may take, images and library included, but not that of an accelerator (1GiB, 800MiB; K,
    /// M and G are KiB, MiB and GiB); what cannot keep it is refused before anything is written
    #[arg(long, visible_alias = "max-memory", value_name = "BYTES", value_parser = units::bytes)]
    pub memory_budget: Option<u64>,
}

/// What a mode is called on the command line.
const fn name(memory: MemoryMode) -> &'static str {
    match memory {
        MemoryMode::Fast => "fast",
        MemoryMode::Lean => "lean",
    }
}

/// What will be trained.
#[derive(Clone, Copy)]
pub struct Training<'a> {
    /// The path; none for all of the supernet.
    pub path: Option<&'a Path>,
    /// Mini-batches that are held at once; none for those of a run.
    pub held: Option<usize>,
    /// Whether it goes on with a run, whose mini-batches and mode stay as they are.
    pub resumed: bool,
    /// What is left if it is stopped.
    pub left: Left,
}

/// A plan for training, which `training` and the session then follow: mini-batch and mode are those that were asked for, or
/// those that fit where none was.
pub fn training(
    budget: u64,
    session: &mut Session,
    data: &Dataset,
    training: &mut TrainingArgs,
    what: Training<'_>,
    quiet: bool,
) -> Result<Planned, Failure> {
    let supernet = session.network.supernet().clone();
    let bound = Bound::new(budget);
    let budget = bound.bytes();
    let rows = Rows::new(&supernet, what.path.map_or(&[], std::slice::from_ref), bound)?;
    let parameters = BnParameters::initial(session.network.layout());
    let step = |network: &mut Network, path: &Path, images| -> Result<(), Failure> {
        Ok(memory::training(network, path, &parameters, images)?)
    };
    let before = resident_now()?.now;
    let tried = if training.memory.is_some() { training.memory() } else { MemoryMode::Lean };
    rows.settle(session.network_in(tried)?, step)?;
    let image = 4 * data.spec().elements() as u64;
    let batches = what.held.map_or(BATCHES, |held| held + 1);
    let mut ground = Ground {
        resident: before,
        peak: 0,
        images: images(data),
        buffers: Linear { fixed: channels(session.network.layout()) * VECTORS, per_image: image * batches as u64 },
    };
    let probe = |network: &mut Network| -> Result<Way, Failure> {
        let measured = rows.confined(network, |network| {
            memory::measure(network, |network, images| step(network, &rows.heaviest, images))
        })?;
        let memory = network.options().memory;
        log::debug!("{}: {measured:?}", name(memory));
        let works = vec![Work { bytes: measured.activations, images: None }];
        Ok(Way { memory, resident: measured.resident, sessions: rows.sessions(&measured), works })
    };
    let (batch, named) = (training.batch(), training.batch.is_some());
    let request = Request { budget, batch, least_batch: if named { batch } else { LEAST_BATCH.min(batch) } };
    let mut ways = Vec::new();
    if training.memory.is_none() {
        let way = probe(&mut session.network_in(MemoryMode::Lean)?)?;
        if is_room(budget, &way) {
            ways.push(probe(&mut session.network)?);
        }
        ways.push(way);
    } else {
        ways.push(probe(&mut session.network)?);
    }
    // What was tried counts, too.
    ground.peak = resident_now()?.peak;
    let smaller = match what.resumed {
        true => Smaller { resumed: true, ..Smaller::default() },
        false => {
            let fast = training.memory == Some(Memory::Fast);
            Smaller { batch: Some(batch).filter(|_| named), fast, resumed: false }
        }
    };
    let plan = memory::plan(&request, &ground, &ways).map_err(|e| refused(&e, smaller, bound))?;
    if session.network.options().memory != plan.memory {
        session.network = session.network_in(plan.memory)?;
    }
    let plan = rows.refine(&mut session.network, (request, plan), &ground, ways, step)?;
    if !quiet && plan.batch < batch {
        output::words(format_args!(
            "warning: mini-batches of {batch} images do not fit in {}: they are of {}, which gives another result (hint: name \
             a --batch, or raise {})",
            Bytes(budget),
            plan.batch,
            bound.name()
        ));
    }
    training.batch = Some(plan.batch);
    training.memory = Some(match plan.memory {
        MemoryMode::Fast => Memory::Fast,
        MemoryMode::Lean => Memory::Lean,
    });
    Ok(Planned::begin(plan, bound, session, what.left, quiet))
}

/// Whether `fast` can be tried within the budget, given what `lean` takes.
fn is_room(budget: u64, lean: &Way) -> bool {
    let activations = lean.works.iter().map(|work| work.bytes.at(memory::PROBE_IMAGES[1])).max().unwrap_or(0);
    let taken = activations.saturating_mul(FAST_OVER_LEAN).saturating_add(lean.sessions.bytes);
    taken.saturating_add(lean.resident).saturating_add(memory::MARGIN_BYTES) <= budget
}

fn resident_now() -> Result<Resident, Failure> {
    Ok(resident().ok_or(ProbeError::NotTold)?)
}

/// Bytes of a vector of a number for each BatchNorm channel.
fn channels(layout: &Layout) -> u64 {
    4 * layout.channels() as u64
}

/// Bytes of a data set's images.
fn images(data: &Dataset) -> u64 {
    let count = data.split(Part::Train).len() + data.split(Part::Validation).len();
    (count as u64).saturating_mul(data.spec().elements() as u64)
}

/// Paths that are probed.
struct Rows {
    /// The heaviest of those that will be run.
    heaviest: Path,
    /// Others that have all operators of the supernet among them, from heavy to light; none where few paths will be run.
    others: Vec<Path>,
    /// Operators of the heaviest, and of all that will be run.
    of_path: usize,
    all: usize,
    /// What the process may take: no probe goes to where the system ends it.
    bound: Bound,
}

impl Rows {
    /// The paths for work on those of `among`, or on all of the space.
    fn new(supernet: &Supernet, among: &[Path], bound: Bound) -> Result<Self, Failure> {
        let mut others = memory::rows(supernet);
        let heaviest = match memory::heaviest_of(supernet, among).or(others.first()) {
            Some(path) => path.clone(),
            // All rows lead nowhere: any path that leads somewhere then stands for all.
            None => setup::some_path(supernet, 0)?,
        };
        others.retain(|path| *path != heaviest);
        if !among.is_empty() {
            others.clear();
        }
        let of_path = memory::operators(supernet, std::slice::from_ref(&heaviest));
        let all = memory::operators(supernet, among).max(of_path);
        Ok(Self { heaviest, others, of_path, all, bound })
    }

    /// Does a little work with a network that is closed then, so that what the first work of all takes for good (pages of
    /// code, what allocators keep) is not taken for what sessions take.
    fn settle(
        &self,
        mut network: Network,
        work: impl Fn(&mut Network, &Path, u32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.confined(&mut network, |network| work(network, &self.heaviest, memory::PROBE_IMAGES[0]))
    }

    /// Does work that is refused as soon as it comes near to where the system would end it.
    fn confined<T>(
        &self,
        network: &mut Network,
        work: impl FnOnce(&mut Network) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        network.stop_at(self.bound.limit);
        let done = work(network);
        network.stop_at(None);
        done
    }

    /// Sessions of all paths, given those of one: as many for each operator.
    fn sessions(&self, measured: &Measured) -> Sessions {
        let all = (measured.sessions * self.all).div_ceil(self.of_path.max(1));
        Sessions::alike(measured.sessions, all, measured.session_bytes)
    }

    /// The plan once more, with what the sessions of other operators take: they are opened as long as there is room.
    fn refine(
        &self,
        network: &mut Network,
        (request, plan): (Request, Plan),
        ground: &Ground,
        ways: Vec<Way>,
        work: impl Fn(&mut Network, &Path, u32) -> Result<(), Failure>,
    ) -> Result<Plan, Failure> {
        let way = ways.into_iter().find(|way| way.memory == plan.memory);
        let Some(mut way) = way.filter(|way| plan.kept.get() >= way.sessions.of_path) else { return Ok(plan) };
        let images = memory::PROBE_IMAGES[0];
        let activations = way.works.iter().map(|work| work.bytes.at(images)).max().unwrap_or(0);
        let coming = activations.saturating_add(way.sessions.bytes);
        let (opened, taken) = self.confined(network, |network| {
            work(network, &self.heaviest, images)?;
            ort_library::trim_arena();
            let (opened, before) = (network.sessions(), memory::standing()?);
            for path in &self.others {
                // They must fit beside what the work will take, and now: as much as the heaviest path takes; these take less.
                let grown = memory::standing()?.saturating_sub(before);
                let then = plan.expected.saturating_add(grown);
                if then.max(resident_now()?.now.saturating_add(coming)) > request.budget {
                    break;
                }
                work(network, path, images)?;
            }
            Ok((network.sessions() - opened, memory::standing()?.saturating_sub(before)))
        })?;
        if opened > 0 {
            let others = way.sessions.all - way.sessions.of_path;
            way.sessions.others = (u128::from(taken) * others as u128).div_ceil(opened as u128) as u64;
            log::debug!("{opened} other sessions take {taken} bytes");
        }
        let same = Request { batch: plan.batch, least_batch: plan.batch, ..request };
        // What fitted before fits still: only the sessions beyond a path's have changed.
        Ok(memory::plan(&same, ground, std::slice::from_ref(&way)).unwrap_or(plan))
    }
}

/// What was named, and could be otherwise to take less.
#[derive(Clone, Copy, Default)]
struct Smaller {
    batch: Option<u32>,
    fast: bool,
    resumed: bool,
}

/// A budget that cannot be kept.
fn refused(error: &TooSmall, smaller: Smaller, bound: Bound) -> Failure {
    let mut hint = format!("{}give it --memory-budget {} or more", bound.first(error.least), Bytes(error.least));
    if let Some(batch) = smaller.batch.filter(|&batch| batch > 2) {
        hint += &format!(", or a smaller --batch than {batch}");
    }
    if smaller.fast {
        hint += ", or leave out --memory fast";
    }
    if smaller.resumed {
        hint += ", or begin anew in another --out: mini-batches and --memory of a run stay as they were";
    }
    if error.is_of_images() {
        hint += "; it is the images that do not fit: use fewer, or a bundle of smaller --image-size";
    }
    let failure = Failure::usage(error).hint(hint);
    if bound.system().is_some() { failure.and("it is no more, as the system ends this process there") } else { failure }
}

impl Session {
    /// Another network of the bundle, as this one but for its memory mode.
    pub fn network_in(&self, memory: MemoryMode) -> Result<Network, Failure> {
        let options = NetworkOptions { memory, ..self.network.options() };
        self.running.network(&self.bundle, options)
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Engine(error) => error.into(),
            other => Self::usage(&other).with_exit(Exit::Device).hint(other.hint()),
        }
    }
}
