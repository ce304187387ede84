//! Runs whose inputs and outputs are bound: what other graphs read stays in the provider's memory.

use nasbn_export::onnx::{Dim, ElemType, GraphBuilder};
use nasbn_models::manifest::{NamedPort, Port};
use ort::{
    memory::MemoryInfo,
    session::{IoBinding, Session},
    value::DynValue,
};

use super::{EngineError, Feed, Opener, Residence, boundary};
use crate::provider::Backend;

/// Names of the axes of what is copied to the host; more it does not have.
const AXES: [&str; 4] = ["a", "b", "c", "d"];

/// The memories that values live in.
pub(super) struct Memories {
    host: MemoryInfo<'static>,
    device: MemoryInfo<'static>,
    /// Runs what only copies.
    backend: Backend,
    opener: Option<Opener>,
    /// Copies a tensor of 0, 1, ... axes.
    copies: [Option<Session>; AXES.len() + 1],
}

impl Memories {
    /// Those of a backend.
    ///
    /// # Errors
    /// If ONNX Runtime does not know the provider's memory.
    pub(super) fn of(backend: &Backend) -> Result<Self, EngineError> {
        let (host, device) = (MemoryInfo::default(), backend.memory()?);
        Ok(Self { host, device, backend: backend.of_copies(), opener: None, copies: [const { None }; AXES.len() + 1] })
    }

    fn of_residence(&self, residence: Residence) -> &MemoryInfo<'static> {
        match residence {
            Residence::Host => &self.host,
            Residence::Device => &self.device,
        }
    }

    /// Inputs and outputs of one run. The binding is made anew for each: one that is used again writes its outputs where
    /// those of the last run are, which others still hold.
    ///
    /// # Errors
    /// If `input` fails, or ONNX Runtime refuses.
    pub(super) fn bind<'v>(
        &self,
        session: &Session,
        inputs: &[NamedPort],
        outputs: &[NamedPort],
        input: &mut dyn FnMut(Port) -> Result<Feed<'v>, EngineError>,
        place: impl Fn(Port) -> Residence,
    ) -> Result<IoBinding, EngineError> {
        let mut binding = boundary::onnx_runtime(|| session.create_binding())?;
        for named in inputs {
            let value = input(named.port)?.owned()?;
            boundary::onnx_runtime(|| binding.bind_input(named.name.as_str(), &value))?;
        }
        boundary::onnx_runtime(|| {
            for named in outputs {
                binding.bind_output_to_device(named.name.as_str(), self.of_residence(place(named.port)))?;
            }
            // What comes from the host may still be on its way.
            binding.synchronize_inputs()
        })?;
        Ok(binding)
    }

    /// A copy of a float32 tensor in the host's memory.
    ///
    /// # Errors
    /// If it has more axes than any value has, or ONNX Runtime refuses.
    pub(super) fn fetch(&mut self, value: &DynValue) -> Result<DynValue, EngineError> {
        boundary::onnx_runtime(|| {
            let axes = value.dtype().tensor_shape().map_or(0, |shape| shape.len());
            let Some(copy) = self.copies.get_mut(axes) else {
                return Err(EngineError::Tensor(format!("a tensor of {axes} axes cannot be copied to the host")));
            };
            if copy.is_none() {
                let opener = match &mut self.opener {
                    Some(opener) => opener,
                    none => none.insert(Opener::new(self.backend.clone())?),
                };
                *copy = Some(opener.model(&identity(axes))?);
            }
            let Some(session) = copy else {
                return Err(EngineError::Tensor("what copies to the host was not opened".into()));
            };
            let mut binding = session.create_binding()?;
            binding.bind_input("x", value)?;
            binding.bind_output_to_device("y", &self.host)?;
            let outputs = session.run_binding(&binding)?;
            let copied = outputs.into_iter().next().map(|(_, value)| value);
            copied.ok_or_else(|| EngineError::Tensor("nothing was copied to the host".into()))
        })
    }
}

/// An ONNX model that gives a float32 tensor of some axes as it is.
fn identity(axes: usize) -> Vec<u8> {
    let dims: Vec<Dim<'_>> = AXES.iter().take(axes).map(|name| Dim::Symbol(name)).collect();
    let mut graph = GraphBuilder::new("copy");
    graph.input("x", ElemType::F32, &dims);
    graph.node("Identity", &["x"], &["y"], &[]);
    graph.output("y", ElemType::F32, &dims);
    graph.encode()
}
