//! What `nasbn score` measures, from its arguments.

use super::ScoreArgs;
use crate::{
    adapt::candidate::CandidateOptions,
    cli::Failure,
    data::DataSource,
    indicators::catalogue::{Indicator, Measurement, Perspective, Selection},
    score::ScoreOptions,
};

/// What is measured unless `--indicators` says otherwise.
const USUAL: &str = "bn_all,bn_last,validation,composite";

/// The names of `--indicators`; none if it is not given.
fn names(args: &ScoreArgs) -> impl Iterator<Item = &str> {
    args.indicators.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// Whether `--indicators` names an indicator or its perspective; what `all` brings along is not named.
fn names_it(args: &ScoreArgs, indicator: &Indicator) -> bool {
    names(args).any(|name| name == indicator.name || name == indicator.perspective.name())
}

/// Whether the composite was asked for by name, so that a table without it is of no use.
pub fn composite_is_named(args: &ScoreArgs, selection: &Selection) -> bool {
    selection.indicators().iter().any(|i| i.measurement == Measurement::Composite && names_it(args, i))
}

/// Where images come from, if any are needed.
pub fn images_of<'a>(args: &'a ScoreArgs, options: &ScoreOptions) -> Result<Option<&'a DataSource>, Failure> {
    let chosen = options.selection.indicators();
    let needing = chosen.iter().filter(|i| i.measurement.needs_images()).map(|i| i.name);
    let needing: Vec<&str> = needing.chain(options.adapt.map(|_| "--adapt-steps")).collect();
    match (&args.data.data, needing.as_slice()) {
        (_, []) => Ok(None),
        (Some(source), _) => Ok(Some(source)),
        (None, needing) => {
            Err(Failure::usage(format!("--data is missing: images are needed for {}", needing.join(", ")))
                .hint("name some, as with --data digits, or only --indicators that need none, as bn_all,bn_last,zen"))
        }
    }
}

/// What is measured, from the arguments.
pub fn options(args: &ScoreArgs) -> Result<ScoreOptions, Failure> {
    Ok(ScoreOptions {
        selection: selection(args)?,
        recalibrate: args.validation.recalibrate as usize,
        mc_batches: args.mc.mc_batches as usize,
        ntk_outputs: args.ntk_outputs,
        adapt: adaptation(args)?,
        noise_images: args.validation.batch as usize,
        seed: args.seed,
    })
}

fn adaptation(args: &ScoreArgs) -> Result<Option<CandidateOptions>, Failure> {
    let rate = args.adapt_rate.unwrap_or(1.0);
    if !(rate.is_finite() && rate > 0.0) {
        return Err(Failure::usage(format!("--adapt-rate must be a finite number above 0, not {rate}"))
            .hint("1 is usual; leave it out"));
    }
    Ok((args.adapt_steps > 0).then_some(CandidateOptions { steps: args.adapt_steps, rate }))
}

fn selection(args: &ScoreArgs) -> Result<Selection, Failure> {
    let hint = "`nasbn score --help` lists indicators and perspectives";
    if args.indicators.is_some() && names(args).next().is_none() {
        return Err(Failure::usage("--indicators names no indicator").hint(format!("`cost` gives costs alone; {hint}")));
    }
    let list = args.indicators.as_deref().unwrap_or(USUAL);
    let mut selection = Selection::parse(list).map_err(|e| Failure::usage(&e).hint(hint))?;
    if args.no_validation {
        let left = selection.clone().only(|i| i.perspective != Perspective::Validation);
        if left.indicators().is_empty() && !selection.indicators().is_empty() {
            return Err(Failure::usage(format!("--no-validation leaves out all that --indicators names: {selection}"))
                .hint("leave out one of the two"));
        }
        selection = left;
    }
    if args.adapt_steps == 0 {
        if names(args).any(|name| name == "adapt_loss") {
            return Err(Failure::usage("adapt_loss is the loss of steps that are not taken")
                .hint("say how many with --adapt-steps"));
        }
        selection = selection.only(|i| i.measurement != Measurement::Adaptation);
    } else if !selection.indicators().iter().any(|i| reads_parameters(i.measurement)) {
        let chosen = if selection.indicators().is_empty() { "costs".to_owned() } else { selection.to_string() };
        return Err(Failure::usage(format!("--adapt-steps changes nothing in a table of {chosen}"))
            .hint("leave it out, or name --indicators that read gamma and beta, as bn_all or validation"));
    }
    Ok(selection)
}

/// Whether a measurement depends on gamma and beta, and so on a candidate's own training.
const fn reads_parameters(measurement: Measurement) -> bool {
    use Measurement::{Adaptation, Composite, Cost, Gamma, Gradient, Kernel, MonteCarlo, Signs, SynFlow, Units, Zen};
    match measurement {
        Cost | Units | Zen | SynFlow | Composite => false,
        Gamma | Signs | Kernel | Adaptation | MonteCarlo | Measurement::Validation | Gradient => true,
    }
}
