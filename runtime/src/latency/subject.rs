//! A session with its inputs, ready to be timed.

use std::time::{Duration, Instant};

use ort::{
    memory::{Allocator, MemoryInfo},
    session::{IoBinding, Session, SessionInputValue},
    value::{DynTensor, DynValue, Tensor, TensorElementType, ValueType},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use nasbn_models::sample;

use crate::provider::Backend;

/// Most bytes that all inputs of a model may hold together.
const MOST_BYTES: u64 = 1 << 30;

/// Why a model is not timed.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// An input whose size is not known, or not possible.
    #[error("input `{name}` has the dimensions {dims:?}, of which {index} is open")]
    Open {
        /// The input.
        name: String,
        /// Its dimensions; -1 where any will do.
        dims: Vec<i64>,
        /// Which of them nothing is known of.
        index: usize,
    },
    /// Dimensions that are not those of the input, or a batch that the model does not take.
    #[error("input `{name}` would have the dimensions {given:?}, the model wants {wanted:?} (-1 where any will do)")]
    Mismatch {
        /// The input.
        name: String,
        /// What was asked for.
        given: Vec<i64>,
        /// What the model wants.
        wanted: Vec<i64>,
    },
    /// An input that is too large.
    #[error(
        "input `{name}` would have the dimensions {dims:?}: with the inputs before it that is more than {MOST_BYTES} bytes"
    )]
    TooLarge {
        /// The input.
        name: String,
        /// Its dimensions.
        dims: Vec<i64>,
    },
    /// An input that is no tensor of numbers.
    #[error("input `{name}` is {found}; tensors of numbers are what can be made up")]
    Kind {
        /// The input.
        name: String,
        /// What it is.
        found: String,
    },
    /// Dimensions for an input that the model does not have.
    #[error("the model has no input `{name}`; it has {inputs}")]
    NoInput {
        /// The name.
        name: String,
        /// What it has.
        inputs: String,
    },
    /// ONNX Runtime fails.
    #[error("ONNX Runtime: {0}")]
    Run(#[from] ort::Error),
}

impl SubjectError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => "give --shape and --batch that fit the model, or leave them out",
            Self::Open { .. } | Self::TooLarge { .. } => "give its dimensions with --shape NAME=1x3x224x224",
            Self::Kind { .. } => "export the model with tensors of numbers as inputs",
            Self::NoInput { .. } => "take a name of the model's in --shape",
            Self::Run(_) => "check that the model runs with this provider, and the library with `nasbn doctor`",
        }
    }
}

/// Dimensions given for an input by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenShape {
    /// Name of the input.
    pub name: String,
    /// All of its dimensions.
    pub dims: Vec<i64>,
}

/// A session and made-up inputs for it.
pub struct Subject {
    session: Session,
    inputs: Vec<(String, DynValue)>,
    /// Where its inputs are and its outputs go, if not to the host.
    binding: Option<IoBinding>,
}

impl Subject {
    /// Makes up inputs for a session: random numbers between -1 and 1 for floats of single and double precision, zeros
    /// for integers, and for those of half precision what new memory holds (zeros, as far as is known). An open first dimension is `batch`; other open ones must be in `given`.
    ///
    /// # Errors
    /// See [`SubjectError`].
    pub fn new(session: Session, batch: u32, given: &[GivenShape]) -> Result<Self, SubjectError> {
        let names: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
        if let Some(unknown) = given.iter().find(|g| !names.contains(&g.name.as_str())) {
            return Err(SubjectError::NoInput { name: unknown.name.clone(), inputs: names.join(", ") });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (mut inputs, mut left) = (Vec::new(), MOST_BYTES);
        for outlet in session.inputs() {
            let name = outlet.name().to_owned();
            let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
                return Err(SubjectError::Kind { name, found: format!("{:?}", outlet.dtype()) });
            };
            let wanted = shape.to_vec();
            let mut dims = wanted.clone();
            if let Some(given) = given.iter().find(|g| g.name == name) {
                dims.clone_from(&given.dims);
                let fits = |(&given, &wanted): (&i64, &i64)| wanted < 0 || given == wanted;
                if dims.len() != wanted.len() || !dims.iter().zip(&wanted).all(fits) {
                    return Err(SubjectError::Mismatch { name, given: dims, wanted });
                }
            }
            if let Some(first) = dims.first_mut().filter(|first| **first < 0) {
                *first = i64::from(batch);
            }
            // A batch of 1 is what is not asked for.
            if batch > 1 && dims.first().is_some_and(|&first| first != i64::from(batch)) {
                dims[0] = i64::from(batch);
                return Err(SubjectError::Mismatch { name, given: dims, wanted });
            }
            if let Some(index) = dims.iter().position(|&d| d < 0) {
                return Err(SubjectError::Open { name, dims, index });
            }
            let Some(count) = take(&mut left, *ty, &dims) else {
                return Err(SubjectError::TooLarge { name, dims });
            };
            let value = made_up(*ty, &dims, count, &mut rng)?;
            let value = value.ok_or_else(|| SubjectError::Kind { name: name.clone(), found: format!("{ty:?}") })?;
            inputs.push((name, value));
        }
        Ok(Self { session, inputs, binding: None })
    }

    /// Puts its inputs into the memory of `backend`, whose session it is, and leaves its outputs there, always in the same place: a
    /// run then copies nothing between host and provider, and asks for no memory of theirs. On the CPU nothing changes, unless its
    /// values are to be bound, too.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn bound_to(mut self, backend: &Backend) -> Result<Self, SubjectError> {
        if !backend.is_bound() {
            return Ok(self);
        }
        let (host, device) = (MemoryInfo::default(), backend.memory()?);
        let mut binding = self.session.create_binding()?;
        for (name, value) in &self.inputs {
            binding.bind_input(name.as_str(), value)?;
        }
        for outlet in self.session.outputs() {
            // Sequences and maps are always the host's.
            let memory = if outlet.dtype().is_tensor() { &device } else { &host };
            binding.bind_output_to_device(outlet.name(), memory)?;
        }
        binding.synchronize_inputs()?;
        self.binding = Some(binding);
        Ok(self)
    }

    /// Images in a run: the first dimension of its first input, 1 if there is none.
    pub fn batch(&self) -> u32 {
        let first = self.inputs.first().and_then(|(_, value)| value.shape().first().copied());
        first.and_then(|first| u32::try_from(first).ok()).unwrap_or(1).max(1)
    }

    /// Runs it once, outputs thrown away, and says how long that took.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn run(&mut self) -> Result<Duration, SubjectError> {
        if let Some(binding) = &self.binding {
            let start = Instant::now();
            let outputs = self.session.run_binding(binding)?;
            let took = start.elapsed();
            drop(outputs);
            return Ok(took);
        }
        let inputs = self.inputs.iter().map(|(name, value)| (name.as_str(), SessionInputValue::from(value)));
        let inputs: Vec<(&str, SessionInputValue<'_>)> = inputs.collect();
        let start = Instant::now();
        let outputs = self.session.run(inputs)?;
        let took = start.elapsed();
        drop(outputs);
        Ok(took)
    }

    /// Ends the profile of a session that was opened with one, and says which file it is in.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn end_profiling(&mut self) -> Result<String, SubjectError> {
        Ok(self.session.end_profiling()?)
    }

    /// Names and dimensions of its inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, Vec<i64>)> {
        self.inputs.iter().map(|(name, value)| (name.as_str(), value.shape().to_vec()))
    }
}

/// Numbers of a tensor, whose bytes are taken from `left`; none if it has more than are left.
fn take(left: &mut u64, ty: TensorElementType, dims: &[i64]) -> Option<usize> {
    let count = dims.iter().try_fold(1u64, |count, &d| count.checked_mul(d.unsigned_abs()))?;
    let bytes = match ty {
        TensorElementType::Float64 | TensorElementType::Int64 | TensorElementType::Uint64 => 8,
        TensorElementType::Float32 | TensorElementType::Int32 | TensorElementType::Uint32 => 4,
        TensorElementType::Float16
        | TensorElementType::Bfloat16
        | TensorElementType::Int16
        | TensorElementType::Uint16 => 2,
        // The other ones of which tensors are made up.
        _ => 1,
    };
    *left = left.checked_sub(count.checked_mul(bytes)?)?;
    usize::try_from(count).ok()
}

/// A tensor of made-up numbers; none for types that are not numbers.
fn made_up(
    ty: TensorElementType,
    dims: &[i64],
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Option<DynValue>, SubjectError> {
    const STEPS: u32 = 1 << 20;
    let mut random = || f64::from(sample::below(rng, STEPS)) / f64::from(STEPS / 2) - 1.0;
    let dims = dims.to_vec();
    Ok(Some(match ty {
        TensorElementType::Float32 => {
            Tensor::from_array((dims, (0..count).map(|_| random() as f32).collect::<Vec<_>>()))?.into_dyn()
        }
        TensorElementType::Float64 => {
            Tensor::from_array((dims, (0..count).map(|_| random()).collect::<Vec<_>>()))?.into_dyn()
        }
        TensorElementType::Int64 => Tensor::from_array((dims, vec![0i64; count]))?.into_dyn(),
        TensorElementType::Int32 => Tensor::from_array((dims, vec![0i32; count]))?.into_dyn(),
        TensorElementType::Int16 => Tensor::from_array((dims, vec![0i16; count]))?.into_dyn(),
        TensorElementType::Uint64 => Tensor::from_array((dims, vec![0u64; count]))?.into_dyn(),
        TensorElementType::Uint32 => Tensor::from_array((dims, vec![0u32; count]))?.into_dyn(),
        TensorElementType::Uint16 => Tensor::from_array((dims, vec![0u16; count]))?.into_dyn(),
        TensorElementType::Uint8 => Tensor::from_array((dims, vec![0u8; count]))?.into_dyn(),
        TensorElementType::Int8 => Tensor::from_array((dims, vec![0i8; count]))?.into_dyn(),
        TensorElementType::Bool => Tensor::from_array((dims, vec![false; count]))?.into_dyn(),
        // Rust has no numbers of half precision to fill it with. The wrapper's version that this program is pinned to clears new
        // memory, which it does not promise; only the time could depend on it.
        TensorElementType::Float16 | TensorElementType::Bfloat16 => {
            DynTensor::new(&Allocator::default(), ty, dims)?.into_dyn()
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_inputs_share_one_bound() {
        use TensorElementType::{Bfloat16, Bool, Float16, Float32, Float64, Int16, Int64, Uint16, Uint32, Uint64};
        let mut left = MOST_BYTES;
        assert_eq!(take(&mut left, Float32, &[1, 3, 224, 224]), Some(150_528));
        assert_eq!(left, MOST_BYTES - 4 * 150_528);
        // No one of them is over the bound by itself.
        let mut left = MOST_BYTES;
        let half = [1 << 14, 1 << 12];
        assert!(take(&mut left, Int64, &half).is_some() && take(&mut left, Float64, &half).is_some());
        assert_eq!((left, take(&mut left, Bool, &[1]), take(&mut left, Bool, &[5, 0])), (0, None, Some(0)));
        for (ty, bytes) in [(Float16, 2), (Bfloat16, 2), (Int16, 2), (Uint16, 2), (Uint32, 4), (Uint64, 8)] {
            let mut left = MOST_BYTES;
            assert_eq!((take(&mut left, ty, &[5, 7]), MOST_BYTES - left), (Some(35), 35 * bytes), "{ty:?}");
        }
        // Products beyond 64 bits, of numbers and of bytes.
        for dims in [&[i64::MAX, 3][..], &[1 << 62], &[1 << 30]] {
            assert_eq!(take(&mut MOST_BYTES.clone(), Float64, dims), None, "{dims:?}");
        }
    }
}
