//! The kernels as custom operators of ONNX Runtime: the domain `nasbn`, version 1.
//!
//! | operator | inputs | attributes | outputs |
//! | --- | --- | --- | --- |
//! | `BatchNormTrain` | x, gamma, beta, residual? | epsilon, relu | y, mean, var |
//! | `BatchNormApply` | x, gamma, beta, mean, var, residual? | epsilon, relu | y |
//! | `BatchNormTrainGrad` | dy, x, gamma, beta, mean, var | epsilon, relu | dx, dgamma, dbeta |
//! | `BatchNormApplyGrad` | dy, x, gamma, beta, mean, var | epsilon, relu | dx, dgamma, dbeta |
//! | `SignAgreement` | x, gamma, beta, mean, var | epsilon | `[N,N]` |
//! | `DepthwiseConv` | x, w | kernel, stride, pad | y |
//! | `DepthwiseConvGrad` | dy, w | kernel, stride, pad, height, width | dx |
//! | `GlobalAvgPool` | x | | y |
//! | `GlobalAvgPoolGrad` | dy | height, width | dx |
//!
//! All tensors are float32. Activations are `[N,H,W,C]`, what belongs to a channel `[C]`, filters
//! `[kernel,kernel,C]`, pooled values `[N,C]`, and so are dgamma and dbeta of `BatchNormApplyGrad`: a row a sample. `epsilon` is 1e-5 and `relu` 0 unless given; the other attributes are
//! required. No shape is inferred: the batch is symbolic, and ONNX Runtime then asks the kernels, which it has to do
//! anyway.

use ort::operator::{
    BoxedKernel, ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{TensorElementType, ValueRef, ValueRefMut};

use crate::engine::boundary;

use nasbn_kernels::{
    Affine, BatchNorm, Depthwise, Dims, Filter, Gradients, KernelError, Parallel, SampleGradients, Statistics, Trained,
    global_avg_pool, global_avg_pool_grad,
};

/// Name of the operators' domain in a graph.
pub const DOMAIN: &str = "nasbn";
/// Version of the domain that a graph has to import.
pub const VERSION: u32 = 1;

/// All operators, ready for [`ort::session::builder::SessionBuilder::with_operators`].
///
/// # Errors
/// Those of ONNX Runtime.
pub fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?
        .add(Definition { name: "BatchNormTrain", inputs: 3, optional: true, outputs: 3, create: batch_norm_train })?
        .add(Definition { name: "BatchNormApply", inputs: 5, optional: true, outputs: 1, create: batch_norm_apply })?
        .add(Definition {
            name: "BatchNormTrainGrad",
            inputs: 6,
            optional: false,
            outputs: 3,
            create: batch_norm_train_grad,
        })?
        .add(Definition {
            name: "BatchNormApplyGrad",
            inputs: 6,
            optional: false,
            outputs: 3,
            create: batch_norm_apply_grad,
        })?
        .add(Definition { name: "SignAgreement", inputs: 5, optional: false, outputs: 1, create: sign_agreement })?
        .add(Definition { name: "DepthwiseConv", inputs: 2, optional: false, outputs: 1, create: depthwise_conv })?
        .add(Definition {
            name: "DepthwiseConvGrad",
            inputs: 2,
            optional: false,
            outputs: 1,
            create: depthwise_conv_grad,
        })?
        .add(Definition { name: "GlobalAvgPool", inputs: 1, optional: false, outputs: 1, create: pool })?
        .add(Definition { name: "GlobalAvgPoolGrad", inputs: 1, optional: false, outputs: 1, create: pool_grad })
}

/// What ONNX Runtime asks about an operator, and how its kernel is made.
struct Definition {
    name: &'static str,
    inputs: usize,
    /// Whether one more input may follow.
    optional: bool,
    outputs: usize,
    create: fn(&KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError>,
}

impl Operator for Definition {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        self.name
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        VERSION..=VERSION
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let required = (0..self.inputs).map(|_| OperatorInput::required(TensorElementType::Float32));
        required.chain(self.optional.then(|| OperatorInput::optional(TensorElementType::Float32)))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        (0..self.outputs).map(|_| OperatorOutput::required(TensorElementType::Float32))
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<BoxedKernel<'attr>> {
        (self.create)(context).map_err(into_ort)
    }
}

/// ONNX Runtime's own threads.
struct Pool<'a>(&'a ComputeContext);

impl Parallel for Pool<'_> {
    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError> {
        // `par_for` wants its closure to be Send too, which a reference to something Sync is.
        let task = move |task| boundary::kernel(|| body(task));
        let ran = boundary::onnx_runtime(|| self.0.par_for(tasks, 0, task));
        ran.map_err(|error| KernelError::Pool(error.to_string()))
    }
}

fn into_ort(error: KernelError) -> ort::Error {
    ort::Error::new(error.to_string())
}

fn required(context: &KernelContext<'_>, operator: &'static str, attribute: &'static str) -> Result<i64, KernelError> {
    context.get::<i64>(attribute).ok_or(KernelError::Attribute {
        operator,
        attribute,
        found: "missing".to_owned(),
        expected: "an integer",
    })
}

fn positive(context: &KernelContext<'_>, operator: &'static str, attribute: &'static str) -> Result<i64, KernelError> {
    let value = required(context, operator, attribute)?;
    if value >= 1 {
        Ok(value)
    } else {
        Err(KernelError::Attribute { operator, attribute, found: value.to_string(), expected: "1 or more" })
    }
}

fn batch_norm(context: &KernelContext<'_>, operator: &'static str) -> Result<BatchNorm, KernelError> {
    let relu = match context.get::<i64>("relu") {
        None | Some(0) => false,
        Some(1) => true,
        Some(other) => {
            let (attribute, found) = ("relu", other.to_string());
            return Err(KernelError::Attribute { operator, attribute, found, expected: "0 or 1" });
        }
    };
    BatchNorm::new(operator, context.get::<f32>("epsilon").unwrap_or(1e-5), relu)
}

fn depthwise(context: &KernelContext<'_>, operator: &'static str) -> Result<(Filter, Depthwise), KernelError> {
    let attribute = |name| required(context, operator, name);
    let filter = Filter::new(operator, attribute("kernel")?, attribute("stride")?, attribute("pad")?)?;
    Ok((filter, Depthwise::new(operator, filter)))
}

/// The inputs and outputs of a call, by number and by name.
struct Call<'a> {
    operator: &'static str,
    context: &'a ComputeContext,
}

impl<'a> Call<'a> {
    fn maybe(&self, index: usize) -> ort::Result<Option<ValueRef<'a>>> {
        boundary::onnx_runtime(|| match index < self.context.num_inputs()? {
            true => self.context.input(index),
            false => Ok(None),
        })
    }

    fn input(&self, index: usize, tensor: &'static str) -> ort::Result<ValueRef<'a>> {
        self.maybe(index)?.ok_or_else(|| into_ort(KernelError::Missing { operator: self.operator, tensor }))
    }

    fn output(&self, index: usize, tensor: &'static str, shape: &[i64]) -> ort::Result<ValueRefMut<'a>> {
        let value = boundary::onnx_runtime(|| self.context.output(index, shape))?;
        value.ok_or_else(|| into_ort(KernelError::Missing { operator: self.operator, tensor }))
    }

    /// The shape and values of an activation.
    fn activation<'v>(&self, tensor: &'static str, value: &'v ValueRef<'_>) -> ort::Result<(Dims, &'v [f32])> {
        let (shape, values) = value.try_extract_tensor::<f32>()?;
        Ok((Dims::from_onnx(self.operator, tensor, shape).map_err(into_ort)?, values))
    }

    /// The values of a tensor whose shape has to be `expected`.
    fn shaped<'v>(&self, tensor: &'static str, value: &'v ValueRef<'_>, expected: &[i64]) -> ort::Result<&'v [f32]> {
        let (shape, values) = value.try_extract_tensor::<f32>()?;
        if **shape == *expected {
            return Ok(values);
        }
        let (operator, found, expected) = (self.operator, shape.to_vec(), format!("{expected:?}"));
        Err(into_ort(KernelError::Shape { operator, tensor, found, expected }))
    }

    fn residual<'v>(&self, value: Option<&'v ValueRef<'_>>, dims: Dims) -> ort::Result<Option<&'v [f32]>> {
        value.map(|value| self.shaped("residual", value, &dims.to_onnx())).transpose()
    }
}

/// Makes a kernel of a function of the call and the kernel's state.
fn kernel<T: Send + 'static>(
    operator: &'static str,
    mut state: T,
    compute: impl Fn(&mut T, &Call<'_>) -> ort::Result<()> + Send + 'static,
) -> BoxedKernel<'static> {
    let run = move |context: &ComputeContext| boundary::kernel(|| compute(&mut state, &Call { operator, context }));
    Box::new(run) as Box<dyn Kernel>
}

fn batch_norm_train(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "BatchNormTrain";
    Ok(kernel(OPERATOR, batch_norm(context, OPERATOR)?, |norm, call| {
        let (x, gamma, beta) = (call.input(0, "x")?, call.input(1, "gamma")?, call.input(2, "beta")?);
        let residual = call.maybe(3)?;
        let (dims, x) = call.activation("x", &x)?;
        let channel = [dims.to_onnx()[3]];
        let affine =
            Affine { gamma: call.shaped("gamma", &gamma, &channel)?, beta: call.shaped("beta", &beta, &channel)? };
        let residual = call.residual(residual.as_ref(), dims)?;
        let mut y = call.output(0, "y", &dims.to_onnx())?;
        let mut mean = call.output(1, "mean", &channel)?;
        let mut var = call.output(2, "var", &channel)?;
        let out = Trained {
            y: y.try_extract_tensor_mut::<f32>()?.1,
            mean: mean.try_extract_tensor_mut::<f32>()?.1,
            var: var.try_extract_tensor_mut::<f32>()?.1,
        };
        norm.train(&Pool(call.context), dims, x, affine, residual, out).map_err(into_ort)
    }))
}

fn batch_norm_apply(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "BatchNormApply";
    Ok(kernel(OPERATOR, batch_norm(context, OPERATOR)?, |norm, call| {
        let (x, gamma, beta) = (call.input(0, "x")?, call.input(1, "gamma")?, call.input(2, "beta")?);
        let (mean, var, residual) = (call.input(3, "mean")?, call.input(4, "var")?, call.maybe(5)?);
        let (dims, x) = call.activation("x", &x)?;
        let channel = [dims.to_onnx()[3]];
        let affine =
            Affine { gamma: call.shaped("gamma", &gamma, &channel)?, beta: call.shaped("beta", &beta, &channel)? };
        let statistics =
            Statistics { mean: call.shaped("mean", &mean, &channel)?, var: call.shaped("var", &var, &channel)? };
        let residual = call.residual(residual.as_ref(), dims)?;
        let mut y = call.output(0, "y", &dims.to_onnx())?;
        let y = y.try_extract_tensor_mut::<f32>()?.1;
        norm.apply(&Pool(call.context), dims, x, affine, statistics, residual, y).map_err(into_ort)
    }))
}

fn batch_norm_train_grad(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    gradient_of_batch_norm(context, "BatchNormTrainGrad", false)
}

fn batch_norm_apply_grad(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    gradient_of_batch_norm(context, "BatchNormApplyGrad", true)
}

/// The gradient of a BatchNorm, of gamma and beta summed over the batch or `of_samples`.
fn gradient_of_batch_norm(
    context: &KernelContext<'_>,
    operator: &'static str,
    of_samples: bool,
) -> Result<BoxedKernel<'static>, KernelError> {
    Ok(kernel(operator, batch_norm(context, operator)?, move |norm, call| {
        let (dy, x) = (call.input(0, "dy")?, call.input(1, "x")?);
        let (gamma, beta) = (call.input(2, "gamma")?, call.input(3, "beta")?);
        let (mean, var) = (call.input(4, "mean")?, call.input(5, "var")?);
        let (dims, x) = call.activation("x", &x)?;
        let dy = call.shaped("dy", &dy, &dims.to_onnx())?;
        let channel = [dims.to_onnx()[3]];
        let affine =
            Affine { gamma: call.shaped("gamma", &gamma, &channel)?, beta: call.shaped("beta", &beta, &channel)? };
        let statistics =
            Statistics { mean: call.shaped("mean", &mean, &channel)?, var: call.shaped("var", &var, &channel)? };
        let [n, .., c] = dims.to_onnx();
        let rows: &[i64] = if of_samples { &[n, c] } else { &channel };
        let mut dx = call.output(0, "dx", &dims.to_onnx())?;
        let mut dgamma = call.output(1, "dgamma", rows)?;
        let mut dbeta = call.output(2, "dbeta", rows)?;
        let dx = dx.try_extract_tensor_mut::<f32>()?.1;
        let (dgamma, dbeta) = (dgamma.try_extract_tensor_mut::<f32>()?.1, dbeta.try_extract_tensor_mut::<f32>()?.1);
        let pool = Pool(call.context);
        match of_samples {
            false => norm.gradient(&pool, dims, dy, x, affine, statistics, Gradients { dx, dgamma, dbeta }),
            true => {
                norm.gradient_of_samples(&pool, dims, dy, x, affine, statistics, SampleGradients { dx, dgamma, dbeta })
            }
        }
        .map_err(into_ort)
    }))
}

fn sign_agreement(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "SignAgreement";
    Ok(kernel(OPERATOR, batch_norm(context, OPERATOR)?, |norm, call| {
        let (x, gamma, beta) = (call.input(0, "x")?, call.input(1, "gamma")?, call.input(2, "beta")?);
        let (mean, var) = (call.input(3, "mean")?, call.input(4, "var")?);
        let (dims, x) = call.activation("x", &x)?;
        let [n, .., c] = dims.to_onnx();
        let affine = Affine { gamma: call.shaped("gamma", &gamma, &[c])?, beta: call.shaped("beta", &beta, &[c])? };
        let statistics = Statistics { mean: call.shaped("mean", &mean, &[c])?, var: call.shaped("var", &var, &[c])? };
        let mut agreement = call.output(0, "agreement", &[n, n])?;
        let agreement = agreement.try_extract_tensor_mut::<f32>()?.1;
        norm.sign_agreement(&Pool(call.context), dims, x, affine, statistics, agreement).map_err(into_ort)
    }))
}

fn depthwise_conv(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "DepthwiseConv";
    Ok(kernel(OPERATOR, depthwise(context, OPERATOR)?, |(filter, convolution), call| {
        let (x, w) = (call.input(0, "x")?, call.input(1, "w")?);
        let (dims, x) = call.activation("x", &x)?;
        let side = filter.kernel() as i64;
        let w = call.shaped("w", &w, &[side, side, dims.to_onnx()[3]])?;
        let out = filter.output(OPERATOR, dims).map_err(into_ort)?;
        let mut y = call.output(0, "y", &out.to_onnx())?;
        let y = y.try_extract_tensor_mut::<f32>()?.1;
        convolution.forward(&Pool(call.context), dims, x, w, y).map_err(into_ort)
    }))
}

fn depthwise_conv_grad(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "DepthwiseConvGrad";
    let size = (positive(context, OPERATOR, "height")?, positive(context, OPERATOR, "width")?);
    let (filter, convolution) = depthwise(context, OPERATOR)?;
    Ok(kernel(OPERATOR, convolution, move |convolution, call| {
        let (dy, w) = (call.input(0, "dy")?, call.input(1, "w")?);
        let (source, _) = call.activation("dy", &dy)?;
        let [n, _, _, c] = source.to_onnx();
        let dims = Dims::from_onnx(OPERATOR, "dx", &[n, size.0, size.1, c]).map_err(into_ort)?;
        let dy = call.shaped("dy", &dy, &filter.output(OPERATOR, dims).map_err(into_ort)?.to_onnx())?;
        let side = filter.kernel() as i64;
        let w = call.shaped("w", &w, &[side, side, c])?;
        let mut dx = call.output(0, "dx", &dims.to_onnx())?;
        let dx = dx.try_extract_tensor_mut::<f32>()?.1;
        convolution.gradient(&Pool(call.context), dims, dy, w, dx).map_err(into_ort)
    }))
}

fn pool(_: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "GlobalAvgPool";
    Ok(kernel(OPERATOR, (), |(), call| {
        let x = call.input(0, "x")?;
        let (dims, x) = call.activation("x", &x)?;
        let [n, _, _, c] = dims.to_onnx();
        let mut y = call.output(0, "y", &[n, c])?;
        let y = y.try_extract_tensor_mut::<f32>()?.1;
        global_avg_pool(&Pool(call.context), dims, x, y).map_err(into_ort)
    }))
}

fn pool_grad(context: &KernelContext<'_>) -> Result<BoxedKernel<'static>, KernelError> {
    const OPERATOR: &str = "GlobalAvgPoolGrad";
    let size = (positive(context, OPERATOR, "height")?, positive(context, OPERATOR, "width")?);
    Ok(kernel(OPERATOR, (), move |(), call| {
        let dy = call.input(0, "dy")?;
        let (shape, values) = dy.try_extract_tensor::<f32>()?;
        let &[n, c] = &**shape else {
            let (tensor, found, expected) = ("dy", shape.to_vec(), "[N,C]".to_owned());
            return Err(into_ort(KernelError::Shape { operator: OPERATOR, tensor, found, expected }));
        };
        let dims = Dims::from_onnx(OPERATOR, "dx", &[n, size.0, size.1, c]).map_err(into_ort)?;
        let mut dx = call.output(0, "dx", &dims.to_onnx())?;
        let dx = dx.try_extract_tensor_mut::<f32>()?.1;
        global_avg_pool_grad(&Pool(call.context), dims, values, dx).map_err(into_ort)
    }))
}
