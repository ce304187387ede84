//! What runs the graphs, and how: the library, its threads, the provider and its caches.

use std::path::Path as FsPath;

use clap::Args;
use nasbn_export::bundle::Bundle;
use nasbn_models::{Path, manifest::Lowering};

use super::{Exit, Failure, args::LibraryArgs, output, setup, training::Graphs};
use crate::{
    engine::{EngineError, Model, Opener},
    latency::{
        bench::{BenchError, block_name, graph_file},
        distinct,
    },
    network::{Network, NetworkOptions},
    ort_library::{self, Library},
    parameters::Layout,
    provider::{
        self, Backend, Choice, EngineCache, Placement, PlacementError, Precision, Provider, ProviderError, Resolved,
        probe, resolve,
    },
    subnet,
};

/// The library, and what runs the graphs in it.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub library: LibraryArgs,
    /// What runs the graphs; one that is named and does not work is an error
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub provider: Choice,
    /// Go on with the CPU, and say so, where the provider that is named does not work
    #[arg(long)]
    pub allow_cpu_fallback: bool,
    /// Numbers that TensorRT computes inference with; training, and all other providers, compute with fp32
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    pub precision: Precision,
}

impl RunArgs {
    /// What can be said of the arguments before anything is loaded.
    fn check(&self, graphs: Option<Graphs>) -> Result<(), Failure> {
        if self.precision == Precision::Fp16 && self.provider != Choice::TensorRt {
            return Err(Failure::usage("--precision fp16 is for --provider tensorrt only")
                .hint("leave it out, or add --provider tensorrt"));
        }
        match self.provider {
            Choice::Cuda => fused(graphs, Provider::Cuda),
            Choice::TensorRt => fused(graphs, Provider::TensorRt),
            Choice::Auto | Choice::Cpu => Ok(()),
        }
    }
}

/// The fused operators are the program's own code for the CPU: a provider that was asked for would not run them.
fn fused(graphs: Option<Graphs>, provider: Provider) -> Result<(), Failure> {
    match (graphs, provider) {
        (Some(Graphs::Fused), Provider::Cuda | Provider::TensorRt) => {
            Err(Failure::usage(format!("--graphs fused is for the CPU only, not for {provider}"))
                .hint("leave --graphs out, or take --provider cpu"))
        }
        _ => Ok(()),
    }
}

/// A library that is loaded, and where its sessions run.
pub struct Running {
    /// The library.
    pub library: Library,
    /// Threads to compute with.
    pub threads: usize,
    /// Where sessions run.
    pub backend: Backend,
}

/// Loads the library and finds the provider. Nothing is written before that is found; then TensorRT's engines are kept
/// beside `bundle`.
pub fn start(args: &RunArgs, graphs: Option<Graphs>, bundle: Option<&Bundle>) -> Result<Running, Failure> {
    args.check(graphs)?;
    let (library, environment) = setup::library(&args.library)?;
    if args.provider == Choice::TensorRt {
        log::info!("TensorRT is tried, which takes seconds");
    }
    let works = |provider| probe(&environment, provider).map(|_| ());
    let Resolved { provider, problem } = resolve(args.provider, args.allow_cpu_fallback, works)?;
    let mut running = Running { library, threads: setup::threads(&args.library), backend: environment.into() };
    if let Some(problem) = problem {
        match args.provider {
            Choice::Auto => output::words(format_args!(
                "warning: {problem}; the CPU is used (hint: {}; --provider cpu ends this warning)",
                problem.hint()
            )),
            _ => fallen_back(&problem),
        }
    }
    running.backend.provider = provider;
    fused(graphs, provider)?;
    if provider == Provider::TensorRt {
        running.backend.precision = args.precision;
        if let Some(bundle) = bundle {
            let (cache, said) = engines(bundle.dir(), &running.version(), &bundle.digest(), args.precision);
            output::words(said);
            running.backend.cache = cache;
        }
    }
    Ok(running)
}

/// Says, whatever is quiet, that the CPU is not what was asked for.
fn fallen_back(problem: &ProviderError) {
    output::words(format_args!(
        "warning: {problem}; EVERYTHING RUNS ON THE CPU (--allow-cpu-fallback), and is reported so (hint: {})",
        problem.hint()
    ));
}

impl Running {
    /// An opener of sessions.
    pub fn opener(&self) -> Result<Opener, Failure> {
        Ok(Opener::new(self.backend.clone()).map_err(EngineError::from)?)
    }

    /// Version of ONNX Runtime, as exactly as it is known.
    pub fn version(&self) -> String {
        ort_library::full_version(&self.library).unwrap_or_else(|| format!("1.{}", self.library.minor))
    }

    /// Which graphs are run: fused ones on the CPU, unless others are asked for; portable ones with every other provider, which
    /// knows standard operators only.
    pub fn lowering(&self, graphs: Option<Graphs>) -> Lowering {
        match (self.backend.provider, graphs) {
            (Provider::Cpu, None | Some(Graphs::Fused)) => Lowering::Fused,
            (Provider::Cpu, Some(Graphs::Portable)) | (Provider::Cuda | Provider::TensorRt, _) => Lowering::Portable,
        }
    }

    /// Where the nodes of the network of `path` run and, with another provider than the CPU, those of every block, which has
    /// operators that the one network does not: all together, each of them judged.
    pub fn place(
        &mut self,
        args: &RunArgs,
        bundle: &Bundle,
        path: &Path,
        batch: u32,
    ) -> Result<Option<Placement>, Failure> {
        let (asked, supernet) = (self.backend.provider, &bundle.manifest().supernet);
        let model = subnet::untrained(bundle, &Layout::new(supernet), path)?;
        let measured = provider::measure(&self.opener()?, Model::Bytes(&model), batch, &[]);
        let mut all = self.accept(args, &format!("network {}", supernet.format_path(path)), measured)?;
        let blocks = if asked == Provider::Cpu { Vec::new() } else { distinct(supernet) };
        for block in &blocks {
            if self.backend.provider != asked {
                break;
            }
            let name = block_name(bundle, block);
            let file = graph_file(bundle.manifest(), block).ok_or_else(|| BenchError::NoGraph(name.clone()))?;
            let placed = match provider::measure(&self.opener()?, Model::File(&bundle.file_path(file)), batch, &[]) {
                // Nothing is left of it that could run anywhere.
                Err(PlacementError::Empty) => continue,
                measured => self.accept(args, &name, measured)?,
            };
            all = Some(all.unwrap_or_default().with(placed.unwrap_or_default()));
        }
        if self.backend.provider != asked {
            // What was seen is not what will run: that is the CPU now.
            return self.place(args, bundle, path, batch);
        }
        self.tell_left(all.as_ref());
        Ok(all)
    }

    /// A network of the bundle. With another provider than the CPU it is watched where its nodes run.
    pub fn network(&self, bundle: &Bundle, options: NetworkOptions) -> Result<Network, Failure> {
        let mut network = Network::new(self.backend.clone(), bundle.dir(), bundle.manifest(), options)?;
        if self.backend.provider != Provider::Cpu {
            network.watch_placement().map_err(PlacementError::Io)?;
        }
        Ok(network)
    }

    /// Where the nodes of all graphs of `network` that ran ran, said unless it is `quiet`; what the provider left to others
    /// is told whatever is. None on the CPU.
    pub fn told_placement(&self, network: &Network, quiet: bool) -> Option<Placement> {
        let placement = network.placement()?;
        if !quiet && !placement.nodes().is_empty() {
            output::words(format_args!("placement: {placement}"));
        }
        self.tell_left(Some(placement));
        Some(placement.clone())
    }

    /// [`Running::accept`] for the only model that is run, `what`; and nodes that the provider left to others are told.
    pub fn judge(
        &mut self,
        args: &RunArgs,
        what: &str,
        measured: Result<Placement, PlacementError>,
    ) -> Result<Option<Placement>, Failure> {
        let placement = self.accept(args, what, measured)?;
        self.tell_left(placement.as_ref());
        Ok(placement)
    }

    /// What follows from where the nodes of `what` ran: an error if others did everything in the provider's place, unless a
    /// fallback is allowed; then the provider is the CPU from now on. Where it is not known, only the CPU itself may go on.
    fn accept(
        &mut self,
        args: &RunArgs,
        what: &str,
        measured: Result<Placement, PlacementError>,
    ) -> Result<Option<Placement>, Failure> {
        let provider = self.backend.provider;
        let placement = match measured {
            Ok(placement) => placement,
            Err(error) if provider == Provider::Cpu && !matches!(error, PlacementError::Subject(_)) => {
                output::words(format_args!("warning: where nodes ran is not known: {error} (hint: {})", error.hint()));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Err(problem) = placement.check(provider, what) {
            if !args.allow_cpu_fallback {
                return Err(problem.into());
            }
            fallen_back(&problem);
            self.backend = self.backend.on_cpu();
        }
        Ok(Some(placement))
    }

    /// Says, whatever is quiet, which nodes the provider left to others.
    fn tell_left(&self, placement: Option<&Placement>) {
        let provider = self.backend.provider;
        if provider == Provider::Cpu {
            return;
        }
        if let Some(left) = placement.and_then(|placement| placement.left_in_words(provider)) {
            output::words(format_args!("warning: {provider} left {left}"));
        }
        match placement.map_or(0, Placement::copies) {
            0 => {}
            copies => output::words(format_args!(
                "warning: between nodes values are copied to or from the memory of {provider} in {copies} places"
            )),
        }
    }
}

/// TensorRT's caches in the bundle's directory and what is said of them before they are used; none where nothing can be
/// written there.
fn engines(directory: &FsPath, version: &str, bundle: &[u8], precision: Precision) -> (Option<EngineCache>, String) {
    match EngineCache::open(directory, version, bundle, precision) {
        Ok(cache) => {
            let said = announced(&cache);
            (Some(cache), said)
        }
        Err(error) => {
            let said = format!(
                "warning: TensorRT's engines are built anew every time, from seconds to minutes for each graph: nothing \
                 can be kept in {}: {error} (hint: copy the bundle to where it can be written)",
                directory.display()
            );
            (None, said)
        }
    }
}

/// A cache in words: hit or miss, and what a miss takes.
fn announced(cache: &EngineCache) -> String {
    let directory = cache.timing().display();
    match cache.engines() {
        0 => format!(
            "tensorrt: engine cache {directory}: miss; engines are built now, from seconds to minutes for each graph, and kept"
        ),
        engines => format!("tensorrt: engine cache {directory}: hit, engines: {engines}; what is there takes seconds"),
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self::usage(&error).with_exit(Exit::Device).hint(error.hint())
    }
}

impl From<PlacementError> for Failure {
    fn from(error: PlacementError) -> Self {
        Self::usage(&error).with_exit(Exit::Device).hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn arguments(provider: Choice, precision: Precision) -> RunArgs {
        let library = LibraryArgs { ort_library: None, threads: None };
        RunArgs { library, provider, allow_cpu_fallback: false, precision }
    }

    #[test]
    fn what_does_not_go_together_is_refused_before_anything_is_loaded() {
        let check = |provider, precision, graphs| {
            arguments(provider, precision).check(graphs).map_err(|f| f.message().to_owned())
        };
        let (fp32, fp16) = (Precision::Fp32, Precision::Fp16);
        for provider in [Choice::Auto, Choice::Cpu, Choice::Cuda] {
            assert!(check(provider, fp16, None).unwrap_err().contains("fp16"), "{provider:?}");
            assert!(check(provider, fp32, Some(Graphs::Portable)).is_ok());
        }
        assert!(check(Choice::TensorRt, fp16, None).is_ok());
        assert!(check(Choice::Cuda, fp32, Some(Graphs::Fused)).unwrap_err().contains("not for cuda"));
        assert!(check(Choice::TensorRt, fp32, Some(Graphs::Fused)).unwrap_err().contains("not for tensorrt"));
        assert!(check(Choice::Auto, fp32, Some(Graphs::Fused)).is_ok());
        // What `auto` comes to is looked at once it is known.
        assert!(fused(Some(Graphs::Fused), Provider::Cuda).is_err() && fused(None, Provider::Cuda).is_ok());
    }

    #[test]
    fn a_cache_is_announced_as_miss_and_hit() {
        let bundle = tempfile::tempdir().unwrap();
        let engines = || engines(bundle.path(), "1.23.2", &[7; 32], Precision::Fp16);
        let (cache, said) = engines();
        let cache = cache.unwrap();
        assert!(said.contains("tensorrt-1.23.2: miss; engines are built now"), "{said}");
        fs::write(cache.of_model(b"graph", Precision::Fp16).unwrap().0.join("a.engine"), b"engine").unwrap();
        let (_, said) = engines();
        assert!(said.contains("tensorrt-1.23.2: hit, engines: 1"), "{said}");
    }

    #[test]
    fn a_bundle_that_cannot_be_written_is_warned_of() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("cache"), b"a file where the directory would be").unwrap();
        let (cache, said) = engines(bundle.path(), "1.23.2", &[7; 32], Precision::Fp32);
        assert!(cache.is_none() && said.starts_with("warning: ") && said.contains("hint: copy the bundle"), "{said}");
    }
}
