//! Tensors that graphs hand to each other.

use ort::{
    memory::Allocator,
    session::SessionInputValue,
    value::{DynValue, Tensor, TensorRef, ValueType},
};

use super::{
    EngineError, Residence, boundary,
    pool::{Pool, Shared},
};

/// Where a tensor lives, and the tensor.
type Placed = (Residence, DynValue);

/// Places of tensors.
pub(super) type Tensors = Pool<Placed>;

/// A tensor that several may hold: edges that start from one node, and what is kept for gradients. It is gone with the
/// last of them.
#[derive(Clone, Debug)]
pub struct SharedTensor(Shared<Placed>);

impl SharedTensor {
    /// A tensor with a place in `tensors`.
    pub(super) fn new(tensors: &Tensors, value: DynValue, residence: Residence) -> Self {
        Self(tensors.share((residence, value)))
    }

    /// A tensor of zeros on the host.
    pub(super) fn zeros(tensors: &Tensors, dims: &[usize]) -> Result<Self, EngineError> {
        let value = boundary::onnx_runtime(|| {
            let mut value = Tensor::<f32>::new(&Allocator::default(), dims)?;
            // What is in new memory, neither ONNX Runtime nor its wrapper promises.
            value.try_extract_tensor_mut::<f32>()?.1.fill(0.0);
            Ok::<_, ort::Error>(value)
        })?;
        Ok(Self::new(tensors, value.into_dyn(), Residence::Host))
    }

    pub(super) fn value(&self) -> Result<&DynValue, EngineError> {
        self.0.get().map(|(_, value)| value).ok_or_else(|| EngineError::Tensor("it is gone".into()))
    }

    /// In whose memory it is.
    pub fn residence(&self) -> Residence {
        self.0.get().map_or(Residence::Host, |(residence, _)| *residence)
    }

    /// Its dimensions, wherever it is; none for what is no tensor.
    pub fn dims(&self) -> &[i64] {
        match self.value().map(DynValue::dtype) {
            Ok(ValueType::Tensor { shape, .. }) => shape,
            _ => &[],
        }
    }

    /// Its dimensions and numbers.
    ///
    /// # Errors
    /// [`EngineError::NotOnHost`] if it is in a provider's memory; [`EngineError::Tensor`] if its elements are not float32.
    pub fn read(&self) -> Result<(&[i64], &[f32]), EngineError> {
        if self.residence() == Residence::Device {
            return Err(EngineError::NotOnHost);
        }
        let value = self.value()?;
        let (shape, numbers) = boundary::onnx_runtime(|| value.try_extract_tensor::<f32>())?;
        Ok((shape, numbers))
    }

    /// Its numbers, to be written; none if another holds it, or it is not float32 in the host's memory.
    pub(crate) fn numbers_mut(&mut self) -> Option<&mut [f32]> {
        let (residence, value) = self.0.get_mut()?;
        if *residence == Residence::Device {
            return None;
        }
        boundary::onnx_runtime(|| value.try_extract_tensor_mut::<f32>()).ok().map(|(_, numbers)| numbers)
    }
}

/// What a graph is given for an input.
#[derive(Clone, Copy)]
pub enum Feed<'v> {
    /// A tensor.
    Tensor(&'v SharedTensor),
    /// Numbers `[C]` of a channel each.
    Numbers(&'v [f32]),
    /// Class indices `[N]`.
    Labels(&'v [i64]),
}

impl<'v> Feed<'v> {
    /// As an input that borrows.
    pub(super) fn view(self) -> Result<SessionInputValue<'v>, EngineError> {
        boundary::onnx_runtime(|| {
            Ok(match self {
                Self::Tensor(tensor) => tensor.value()?.into(),
                Self::Numbers(numbers) => TensorRef::from_array_view(([numbers.len()], numbers))?.into_dyn().into(),
                Self::Labels(labels) => TensorRef::from_array_view(([labels.len()], labels))?.into_dyn().into(),
            })
        })
    }

    /// As an input that can be bound: a value that owns its memory. `ort` would copy one that borrows by a session of its own,
    /// with options that ONNX Runtime 1.17 to 1.22 refuse.
    pub(super) fn owned(self) -> Result<SessionInputValue<'v>, EngineError> {
        boundary::onnx_runtime(|| {
            Ok(match self {
                Self::Tensor(tensor) => tensor.value()?.into(),
                Self::Numbers(numbers) => copied(numbers)?.into(),
                Self::Labels(labels) => copied(labels)?.into(),
            })
        })
    }
}

/// Numbers in memory of ONNX Runtime's own.
fn copied<T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + Copy>(numbers: &[T]) -> ort::Result<DynValue> {
    let mut tensor = Tensor::<T>::new(&Allocator::default(), [numbers.len()])?;
    tensor.try_extract_tensor_mut::<T>()?.1.copy_from_slice(numbers);
    Ok(tensor.into_dyn())
}
