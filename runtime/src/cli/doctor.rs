//! `nasbn doctor`: which library, and what it can do; which board, and how it is set.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure,
    args::{LibraryArgs, OutputArgs},
    output, setup,
};
use crate::{
    board::Board,
    ort_library::{self, Library},
    provider::{Provider, ProviderError, probe},
};

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn doctor
  nasbn doctor --json --ort-library /opt/onnxruntime/lib/libonnxruntime.so")]
pub struct DoctorArgs {
    /// Read the board's state from here instead of /
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    #[command(flatten)]
    library: LibraryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    nasbn: &'static str,
    library: Library,
    onnxruntime: String,
    build: &'static str,
    /// What a graph was tried on.
    providers: Vec<Tried>,
    architecture: &'static str,
    cores: usize,
    board: &'a Board,
    /// What makes timings swing on this board.
    warnings: &'a [String],
}

/// A provider, and whether it works.
#[derive(Serialize)]
struct Tried {
    provider: Provider,
    /// Whether the library was built with it.
    built_in: bool,
    /// Whether a graph ran on it.
    works: bool,
    /// Why not.
    problem: Option<String>,
    hint: Option<&'static str>,
}

impl Tried {
    fn new(provider: Provider, tried: Result<(), ProviderError>) -> Self {
        let error = tried.err();
        Self {
            provider,
            built_in: !matches!(error, Some(ProviderError::NotBuiltIn { .. })),
            works: error.is_none(),
            problem: error.as_ref().map(ToString::to_string),
            hint: error.as_ref().map(ProviderError::hint),
        }
    }

    fn lines(&self) -> Vec<String> {
        match (&self.problem, self.hint) {
            (Some(problem), hint) => {
                let hint = hint.map(|hint| format!("             hint: {hint}"));
                std::iter::once(format!("provider     {problem}")).chain(hint).collect()
            }
            (None, _) => vec![format!("provider     {} works", self.provider)],
        }
    }
}

/// What `--json` prints where no library can be used.
#[derive(Serialize)]
struct Problem<'a> {
    nasbn: &'static str,
    problem: &'a str,
    hint: Option<&'a str>,
    architecture: &'static str,
    board: &'a Board,
    warnings: &'a [String],
}

pub fn run(args: DoctorArgs) -> Result<Exit, Failure> {
    setup::root(&args.root)?;
    let board = Board::read(&args.root);
    let warnings = board.warnings();
    let (library, environment) = match setup::library(&args.library) {
        Ok(found) => found,
        Err(failure) => {
            if args.output.json {
                let problem = Problem {
                    nasbn: env!("CARGO_PKG_VERSION"),
                    problem: failure.message(),
                    hint: failure.advice(),
                    architecture: std::env::consts::ARCH,
                    board: &board,
                    warnings: &warnings,
                };
                output::json(&problem)?;
            } else {
                lines(&board, &warnings).iter().try_for_each(output::line)?;
            }
            return Err(failure);
        }
    };
    let report = Report {
        nasbn: env!("CARGO_PKG_VERSION"),
        onnxruntime: ort_library::full_version(&library).unwrap_or_else(|| format!("1.{}", library.minor)),
        library,
        build: ort::info(),
        providers: Provider::ALL.map(|p| Tried::new(p, probe(&environment, p).map(|_| ()))).into(),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        board: &board,
        warnings: &warnings,
    };
    if args.output.json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    output::line(format!("nasbn        {}", report.nasbn))?;
    let origin = serde_json::to_value(report.library.origin).unwrap_or_default();
    output::line(format!("library      {} ({})", report.library.path.display(), origin.as_str().unwrap_or("")))?;
    output::line(format!("onnxruntime  {}", report.onnxruntime))?;
    report.providers.iter().flat_map(Tried::lines).try_for_each(output::line)?;
    output::line(format!("machine      {}, {} cores", report.architecture, report.cores))?;
    lines(&board, &warnings).iter().try_for_each(output::line)?;
    Ok(Exit::Done)
}

/// The board in words; what it does not tell is left out.
fn lines(board: &Board, warnings: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |name: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{name:<12} {text}"));
        }
    };
    say("board", board.model.clone().unwrap_or_default());
    let jetpack = board.jetpack.as_ref().map(|jetpack| format!("JetPack {jetpack}"));
    let l4t = board.l4t.as_ref().map(|l4t| format!("L4T {l4t}"));
    let kernel = board.kernel.as_ref().map(|kernel| format!("Linux {kernel}"));
    say("system", [jetpack, l4t, kernel].into_iter().flatten().collect::<Vec<_>>().join(", "));
    say("power mode", board.power_mode.as_ref().map(ToString::to_string).unwrap_or_default());
    if let Some(cores) = board.cores.filter(|cores| cores.present.is_some_and(|present| present != cores.online)) {
        say("cores", format!("{} of {} online", cores.online, cores.present.unwrap_or(cores.online)));
    }
    for policy in &board.cpu {
        let clock = clock([policy.current_khz, policy.min_khz, policy.max_khz], 1000);
        say("cpu", format!("{}: {}", policy.name, words([policy.governor.clone(), clock])));
    }
    if let Some(gpu) = &board.gpu {
        let clock = clock([gpu.current_hz, gpu.min_hz, gpu.max_hz], 1_000_000);
        say("gpu", format!("{}: {}", gpu.name, words([gpu.governor.clone(), clock])));
    }
    let zones = board.thermal.iter().filter_map(|zone| Some(format!("{} {:.1} °C", zone.name, zone.celsius?)));
    say("temperature", zones.collect::<Vec<_>>().join(", "));
    say("memory", board.memory_bytes.map(|bytes| format!("{:.1} GB", bytes as f64 / 1e9)).unwrap_or_default());
    let rails = board.rails.iter().map(|rail| format!("{} {:.2} W", rail.name, rail.milliwatts / 1000.0));
    let total = board.total_milliwatts.map(|milliwatts| format!("{:.2} W in all", milliwatts / 1000.0));
    say("power", total.into_iter().chain(rails).collect::<Vec<_>>().join(", "));
    board.notes.iter().for_each(|note| say("not read", note.clone()));
    if board.notes.iter().any(|note| note.contains("Permission denied")) {
        say(
            "hint",
            "what may not be read is left out and changes nothing else; a user who may read it sees it".to_owned(),
        );
    }
    warnings.iter().for_each(|warning| say("warning", warning.clone()));
    lines
}

/// Now, lowest and highest frequency allowed, in MHz.
fn clock(frequencies: [Option<u64>; 3], per_mhz: u64) -> Option<String> {
    match frequencies.map(|frequency| frequency.map(|frequency| frequency / per_mhz)) {
        [Some(now), Some(min), Some(max)] => Some(format!("{now} MHz of {min} to {max}")),
        [Some(now), ..] => Some(format!("{now} MHz")),
        [None, _, Some(max)] => Some(format!("at most {max} MHz")),
        _ => None,
    }
}

fn words(parts: [Option<String>; 2]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::fixtures::{self, Kind};

    #[test]
    fn a_board_is_said_in_words_with_what_to_do() {
        let board = Board::read(fixtures::tree(Kind::Tx2).path());
        let said = lines(&board, &board.warnings());
        for expected in [
            "board        quill",
            "system       JetPack 4.6.1, L4T R32.7.1, Linux 4.9.253-tegra",
            "power mode   MAXP_CORE_ARM (3)",
            "cores        4 of 6 online",
            "cpu          policy0: schedutil, 1113 MHz of 345 to 2035",
            "gpu          17000000.gp10b: nvhost_podgov, 114 MHz of 114 to 1134",
            "temperature  BCPU-therm 38.0 °C, GPU-therm 36.5 °C",
            "memory       8.2 GB",
        ] {
            assert!(said.iter().any(|line| line == expected), "{expected}: {said:#?}");
        }
        let begin = |start: &str| said.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(
            (begin("power        2.29 W in all, VDD_"), begin("not read"), begin("warning")),
            (1, 1, 4),
            "{said:#?}"
        );
        assert_eq!(lines(&Board::default(), &[]), Vec::<String>::new());
    }
}
