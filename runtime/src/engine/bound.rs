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
    /// If `input` fails; what `failed` makes of it if ONNX Runtime refuses.
    pub(super) fn bind<'v>(
        &self,
        session: &Session,
        inputs: &[NamedPort],
        outputs: &[NamedPort],
        input: &mut dyn FnMut(Port) -> Result<Feed<'v>, EngineError>,
        place: impl Fn(Port) -> Residence,
        failed: &dyn Fn(ort::Error) -> EngineError,
    ) -> Result<IoBinding, EngineError> {
        let mut binding = boundary::onnx_runtime(|| session.create_binding()).map_err(failed)?;
        for named in inputs {
            let value = input(named.port)?.owned()?;
            boundary::onnx_runtime(|| binding.bind_input(named.name.as_str(), &value)).map_err(failed)?;
        }
        let bound = boundary::onnx_runtime(|| {
            for named in outputs {
                binding.bind_output_to_device(named.name.as_str(), self.of_residence(place(named.port)))?;
            }
            // What comes from the host may still be on its way.
            binding.synchronize_inputs()
        });
        bound.map_err(failed)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::ort_library;

    #[test]
    fn what_cannot_be_bound_is_told_with_the_graph() {
        let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
        let backend = Backend { bound: true, ..ort_library::load(&library, 1).unwrap().into() };
        let opener = Opener::new(backend.clone()).unwrap();
        let session = opener.model(&identity(1)).unwrap();
        let memories = Memories::of(&backend).unwrap();
        let numbers = [1.0, 2.0];
        let bind = |input: &str| {
            let port = |name: &str, port| [NamedPort { name: name.into(), port }];
            let failed = |e: ort::Error| EngineError::Run { file: "graph.onnx".into(), reason: e.to_string() };
            let (inputs, outputs) = (port(input, Port::X), port("y", Port::Y));
            let mut feed = |_| Ok(Feed::Numbers(&numbers));
            memories.bind(&session, &inputs, &outputs, &mut feed, |_| Residence::Device, &failed).map(drop)
        };
        assert!(bind("x").is_ok());
        let error = bind("nobody").unwrap_err();
        assert!(matches!(error, EngineError::Run { .. }) && error.to_string().starts_with("graph.onnx "), "{error}");
    }
}
