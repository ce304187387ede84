//! The composite's reference sample: from the options to a composite that is told, and watched.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Exit, Failure, args::ReferenceArgs, budget::Planned, output, setup::Session};
use crate::{
    composite::{self, Composite, CompositeError, PartFit},
    data::Dataset,
    parameters::BnParameters,
};

/// What ends a measurement early.
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    /// Whether the program was asked to stop.
    pub interrupted: &'a AtomicBool,
    /// The memory budget that is kept; none without one.
    pub planned: Option<&'a Planned>,
}

/// The composite of the network as exported, measured on a reference sample. None, with a warning, where a part of it is
/// undefined in this space or on these images.
pub fn composite(
    session: &mut Session,
    data: &Dataset,
    args: ReferenceArgs,
    watched: Watched<'_>,
    quiet: bool,
) -> Result<Option<Composite>, Failure> {
    match measured(session, data, args, watched, quiet)? {
        Ok(composite) => Ok(Some(composite)),
        Err(error) => {
            if !quiet {
                output::words(format_args!("warning: no composite: {error} (hint: {})", error.hint()));
            }
            Ok(None)
        }
    }
}

/// A budget that was exceeded among the reference paths; what is said of measuring them anew is of use only to who can go on.
fn stopped(exceeded: Failure) -> Failure {
    if exceeded.is_stopped() {
        exceeded.and("stopped among the reference paths, which are measured anew")
    } else {
        exceeded
    }
}

/// [`composite`] where nothing can be done without one.
pub fn needed_composite(
    session: &mut Session,
    data: &Dataset,
    args: ReferenceArgs,
    watched: Watched<'_>,
    quiet: bool,
) -> Result<Composite, Failure> {
    let measured = measured(session, data, args, watched, quiet)?;
    measured.map_err(|error| Failure::usage(format!("there is no composite: {error}")).hint(error.hint()))
}

/// The composite, or why there is none.
fn measured(
    session: &mut Session,
    data: &Dataset,
    args: ReferenceArgs,
    watched: Watched<'_>,
    quiet: bool,
) -> Result<Result<Composite, CompositeError>, Failure> {
    let initial = BnParameters::of_bundle(&session.bundle, session.network.layout())?;
    let bar = output::bar(0, quiet);
    bar.set_message("reference paths of the composite");
    let mut exceeded = None;
    let measured = composite::measure(&mut session.network, data, &initial, &args.options(), |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        exceeded = watched.planned.and_then(|planned| planned.check().err());
        exceeded.is_none() && !watched.interrupted.load(Ordering::SeqCst)
    });
    bar.finish_and_clear();
    if let Some(exceeded) = exceeded {
        return Err(stopped(exceeded));
    }
    match measured {
        Ok((composite, fits)) => {
            for fit in fits {
                let PartFit { indicator, paths, undefined, explained } = fit;
                log::info!("{indicator}: {paths} paths ({undefined} undefined), the table explains {explained:.3}");
                if !quiet && (explained.is_nan() || explained < composite::TRUSTED) {
                    output::words(format_args!(
                        "warning: the composite's table of {indicator} explains {explained:.2} of the variance of paths \
                         left out; hint: raise --reference-paths"
                    ));
                }
            }
            Ok(Ok(composite))
        }
        Err(CompositeError::Engine(error)) => Err(error.into()),
        Err(error @ CompositeError::Stopped { .. }) => {
            Err(Failure::usage(&error).with_exit(Exit::Stopped).hint(error.hint()))
        }
        Err(error) => Ok(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_can_go_on_is_told_that_reference_paths_are_measured_anew() {
        let nothing = Failure::usage("too much").and("nothing was written");
        assert_eq!(stopped(nothing).message(), "too much; nothing was written");
        let resumable = stopped(Failure::usage("too much").with_exit(Exit::Stopped));
        assert!(resumable.message().ends_with("stopped among the reference paths, which are measured anew"));
    }
}
