//! A plan for commands that look at paths and train nothing: score, search, subnet.

use std::sync::Arc;

use nasbn_models::{Path, cost::CostTable};

use super::{Bound, Left, Planned, Rows, Smaller, channels, images, refused, resident_now};
use crate::{
    adapt::candidate::CandidateOptions,
    cli::{Failure, args::ValidationArgs, setup::Session},
    composite::{self, ReferenceImages, ReferenceOptions},
    data::{BatchList, Dataset, Part},
    engine::{EngineError, room_for},
    latency::{Subject, SubjectError, bench::GROUP},
    memory::{self, Ground, Linear, Measured, Request, Way, Work},
    network::Network,
    parameters::BnParameters,
    score::{Images, ScoreOptions, Scorer},
    subnet,
    validation::{recalibrate, validate},
};

/// Copies of a mini-batch that are alive at once: made, handed to the graphs, as noise, as labels and logits.
const COPIES: u64 = 4;
/// Copies of a network's parameters while it is written: as graph, as tensors, as files.
const FILES: u64 = 6;
/// Copies of a network's parameters while it is opened: in the model, as bytes of it, in the session.
const MODELS: u64 = 3;
/// Mini-batches of the composite's images.
const REFERENCE_BATCHES: u64 = 6;
/// Part of the activations that is reckoned with besides: paths of a sample differ, and what they keep of one another leaves holes. On
/// `nas-bench-macro` samples of 8 to 24 paths took 8 to 22 % more than the heaviest path twice.
const HOLES_PART: u64 = 4;
/// Rate of the steps that are tried: they change nothing that is kept.
const RATE: f32 = 1e-3;

/// What will be done.
pub struct Scoring<'a> {
    /// Bytes that the process may take at most.
    pub budget: u64,
    /// Where images come from.
    pub data: Option<&'a Arc<Dataset>>,
    /// Gamma and beta.
    pub parameters: &'a BnParameters,
    /// What is measured; nothing where only validation is.
    pub options: Option<&'a ScoreOptions>,
    /// Mini-batches.
    pub validation: &'a ValidationArgs,
    /// The composite's reference sample, if that is measured.
    pub reference: Option<ReferenceOptions>,
    /// Paths that are looked at; none for all.
    pub paths: &'a [Path],
    /// Whether a network is validated and written.
    pub writes: bool,
    /// Images in the batch of networks whose latency is measured, if it is.
    pub latency: Option<u32>,
    /// What is left if it is stopped.
    pub left: Left,
    /// No words.
    pub quiet: bool,
}

impl Scoring<'_> {
    /// The plan, told and kept: only sessions can be fewer, as all else would change results.
    pub fn plan(&self, session: &mut Session) -> Result<Planned, Failure> {
        let supernet = session.network.supernet().clone();
        let bound = Bound::new(self.budget);
        let rows = Rows::new(&supernet, self.paths, bound)?;
        let path = rows.heaviest.clone();
        let all = |network: &mut Network, path: &Path, images| {
            self.own(network, path, images)?;
            self.reference(network, path, images)
        };
        let resident = resident_now()?.now;
        rows.settle(session.network_in(session.network.options().memory)?, all)?;
        let layout = session.network.layout();
        let channels_of_path: usize = layout.path(&supernet, &path).map(|slot| layout.slots()[slot].range.len()).sum();
        let image = 4 * u64::from(supernet.image().channels) * supernet.image().pixels();
        let mut buffers = Linear {
            fixed: channels(layout) * (8 + self.options.map_or(0, |o| 2 * o.mc_batches as u64)),
            // Jacobians with respect to gamma and beta are twice there when they are summed up.
            per_image: COPIES * image + 4 * 4 * channels_of_path as u64,
        };
        if let Some(reference) = self.reference {
            buffers.fixed += REFERENCE_BATCHES * image * reference.batch as u64;
        }
        let files = if self.writes { FILES * 4 * CostTable::new(&supernet).cost(&path).params } else { 0 };
        let (own, reference) = rows.confined(&mut session.network, |network| {
            let own = memory::measure(network, |network, images| self.own(network, &path, images))?;
            Ok((own, memory::measure(network, |network, images| self.reference(network, &path, images))?))
        })?;
        let works = vec![
            // A path by itself leaves no holes that were not there when it was probed.
            Work {
                bytes: if self.paths.len() == 1 { own.activations } else { own.activations.higher_by(HOLES_PART) },
                images: None,
            },
            Work {
                bytes: reference.activations.higher_by(HOLES_PART),
                images: self.reference.and_then(|r| u32::try_from(r.batch).ok()),
            },
            // Activations are given back before files are made.
            Work { bytes: Linear { fixed: files, per_image: 0 }, images: None },
        ];
        let measured = Measured {
            sessions: own.sessions + reference.sessions,
            session_bytes: own.session_bytes + reference.session_bytes,
            ..own
        };
        if let Some(batch) = self.latency {
            buffers.fixed += GROUP as u64 * network(session, bound, &path, batch)?;
        }
        let memory = session.network.options().memory;
        let way = Way { memory, resident: own.resident, sessions: rows.sessions(&measured), works };
        log::debug!("{way:?}");
        let images = self.data.map_or(0, |data| images(data));
        let ground = Ground { resident, peak: resident_now()?.peak, images, buffers };
        let batch = self.validation.batch;
        let request = Request { budget: bound.bytes(), batch, least_batch: batch };
        let plan = memory::plan(&request, &ground, std::slice::from_ref(&way))
            .map_err(|e| refused(&e, Smaller { batch: Some(batch), ..Smaller::default() }, bound))?;
        let plan = rows.refine(&mut session.network, (request, plan), &ground, vec![way], all)?;
        Ok(Planned::begin(plan, bound, session, self.left, self.quiet))
    }

    /// What the composite's reference sample does with a path, if that is measured.
    fn reference(&self, network: &mut Network, path: &Path, images: u32) -> Result<(), Failure> {
        let (Some(reference), Some(data)) = (self.reference, self.data) else { return Ok(()) };
        let options = ReferenceOptions { batch: images as usize, ..reference };
        let images = ReferenceImages::new(data, &options, 0)?;
        // The same path twice: all that paths can share is kept.
        composite::parts_of_all(network, self.parameters, &images, &[path.clone(), path.clone()], |_| true)?;
        Ok(())
    }

    /// What is done with a path, on mini-batches of `images`.
    fn own(&self, network: &mut Network, path: &Path, images: u32) -> Result<(), Failure> {
        let size = images as usize;
        let few = |part: Part, data: &Arc<Dataset>| -> Vec<usize> { (0..size.min(data.split(part).len())).collect() };
        let of = |data: &Arc<Dataset>| -> Result<Images, Failure> {
            let indices = few(Part::Validation, data);
            let list = || BatchList::new(data, Part::Validation, &indices, size);
            let training = data.fixed_batches(Part::Train, size.min(data.split(Part::Train).len()), 1, 0)?;
            Ok(Images { training, validation: list()?, uncertainty: list()?.iter().collect() })
        };
        let images = self.data.map_or_else(|| Ok(Images::default()), of)?;
        if let Some(options) = self.options {
            let adapt = options.adapt.map(|_| CandidateOptions { steps: 1, rate: RATE });
            let options = ScoreOptions { adapt, noise_images: size, ..options.clone() };
            Scorer::new(network, self.parameters, &images, options).values(path)?;
        }
        if self.writes {
            let statistics = recalibrate(network, path, self.parameters, &images.training)?;
            validate(network, path, self.parameters, &statistics, images.validation.iter())?;
        }
        Ok(())
    }
}

/// Bytes of a whole network's session that is ready to be timed, and of its activations.
fn network(session: &Session, bound: Bound, path: &Path, batch: u32) -> Result<u64, Failure> {
    let cost = CostTable::new(session.network.supernet()).cost(path);
    let activations = cost.peak_activation_bytes.saturating_mul(batch.into());
    room_for(activations.saturating_add(MODELS * 4 * cost.params), bound.limit)?;
    let before = resident_now()?.now;
    let model = subnet::untrained(&session.bundle, session.network.layout(), path)?;
    let opener = session.network.opener()?;
    let open = || -> Result<Subject, SubjectError> {
        let mut subject = Subject::new(opener.model(&model)?, batch, &[])?;
        subject.run()?;
        Ok(subject)
    };
    let _open = open().map_err(|error| EngineError::Tensor(error.to_string()))?;
    Ok(resident_now()?.now.saturating_sub(before))
}
