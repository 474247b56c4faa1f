//! Every operation on a GPU against the CPU.

use anyhow::Result;
use ddpm_kernels::posterior::StepCoefficients;
use ddpm_kernels::{
    Backend, Dropout, Epilogue, Norm, Operand, Pulled, adamw::AdamWStep, conv::Geometry, loss::LossKind,
};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Cuda, Precision, Shape, Tensor};

/// An operation and how far the GPU is from the CPU's `strict` in it, relative to the norm of the result.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) precision: Precision,
    pub(super) error: f64,
}

impl Check {
    /// Whether the error is one of an operation that is right.
    pub(super) fn passes(&self) -> bool {
        let bound = match self.precision {
            Precision::Strict => 1e-6,
            Precision::F32 => 8e-6,
            Precision::Bf16 => 4e-3,
        };
        self.error <= bound // false for a NaN
    }
}

/// Computes on both: everything in `strict`, in other precisions what differs in them.
pub(super) fn compare(cuda: &Cuda) -> Result<Vec<Check>> {
    let cpu = Cpu::new(CpuOptions { precision: Precision::Strict, ..CpuOptions::default() })?;
    let precision = cuda.precision();
    let (ours, reference) = match precision {
        Precision::Strict => (results(cuda)?, results(&cpu)?),
        Precision::F32 | Precision::Bf16 => (products(cuda)?, products(&cpu)?),
    };
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let checks = ours.iter().zip(&reference).map(|(ours, reference)| {
        let (a, b) = (&ours.1, &reference.1);
        let difference = norm(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        let size = norm(&mut b.iter().map(|&b| f64::from(b)));
        Check { name: ours.0, precision, error: difference / size.max(f64::MIN_POSITIVE) }
    });
    Ok(checks.collect())
}

/// What operations leave, by name.
type Named = Vec<(&'static str, Vec<f32>)>;

fn normal<B: Backend<Elem = f32>>(device: &B, stream: u64, shape: impl Into<Shape>) -> Result<Tensor<B>> {
    Ok(device.normals(shape.into(), Address::new(1, Purpose::Test).at_step(stream))?)
}

fn results<B: Backend<Elem = f32>>(device: &B) -> Result<Named> {
    let mut all = Vec::new();
    let mut add = |name, tensor: &Tensor<B>| -> Result<()> {
        all.push((name, tensor.to_vec(device)?));
        Ok(())
    };
    let (side, c) = (12, 40);
    let size = [3, side, side, c];
    let x = normal(device, 1, size)?;
    add("normals", &x)?;
    let (x_t, _) = device.noise(x.view(), &[(0.9, 0.4), (0.6, 0.8), (0.1, 0.99)], Address::new(2, Purpose::Noise))?;
    add("noise", &x_t)?;
    let c_step = StepCoefficients {
        predict_x: 1.2,
        predict_output: -0.7,
        clip: 1.0,
        from_x_0: 0.3,
        from_x: 0.6,
        from_output: -0.1,
        sigma: 0.2,
    };
    let (next, _) = device.reverse_step(x.view(), x_t.view(), &c_step, Address::new(3, Purpose::Sampler), false)?;
    add("posterior", &next)?;

    let statistics = device.channel_statistics(x.view())?;
    let statistics = device.norm_statistics([Some(statistics.view()), None], side * side, 8, 1e-5)?;
    add("statistics", &statistics)?;
    let attention = device.attention(x.view(), x_t.view(), next.view(), 2, 0.2)?;
    add("attention", &attention)?;
    let [dq, dk, dv] = device.attention_grad(x.view(), x_t.view(), next.view(), x.view(), 2, 0.2)?;
    add("attention, dq", &dq)?;
    add("attention, dk", &dk)?;
    add("attention, dv", &dv)?;
    add("pixel sums", &device.pixel_sums(x.view())?)?;
    add("loss", &device.loss(LossKind::L2, x.view(), x_t.view(), &[1.0; 3], 0.01)?.d_output)?;

    let parameters = |stream| normal(device, stream, [10_001]);
    let (mut p, mut grads, mut m, mut ema) = (parameters(7)?, parameters(8)?, parameters(9)?, parameters(10)?);
    let mut v = device.affine(m.view(), 0.0, 0.5)?;
    let squares = device.squared_norm(grads.view().buffer())?;
    let step = AdamWStep {
        lr: 1e-3,
        beta_1: 0.9,
        beta_2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        correction_1: 0.1,
        correction_2: 0.001,
        clip: 1.0 / squares.sqrt(),
        ema_decay: 0.99,
    };
    let (mut of_p, mut of_grads, mut of_m) = (p.view_mut(), grads.view_mut(), m.view_mut());
    let (mut of_v, mut of_ema) = (v.view_mut(), ema.view_mut());
    device.adamw(&step, of_p.buffer(), of_grads.buffer(), of_m.buffer(), of_v.buffer(), of_ema.buffer())?;
    add("AdamW", &p)?;
    add("EMA", &ema)?;
    all.extend(products(device)?);
    Ok(all)
}

/// An operand with all that one can have, and its convolutions in all three directions.
fn products<B: Backend<Elem = f32>>(device: &B) -> Result<Named> {
    let mut all = Vec::new();
    let mut add = |name, tensor: &Tensor<B>| -> Result<()> {
        all.push((name, tensor.to_vec(device)?));
        Ok(())
    };
    let (side, c) = (12, 40);
    let size = [3, side, side, c];
    let (x, dy) = (normal(device, 1, size)?, normal(device, 2, size)?);
    let statistics = device.channel_statistics(x.view())?;
    let statistics = device.norm_statistics([Some(statistics.view()), None], side * side, 8, 1e-5)?;
    let (gamma, beta) = (normal(device, 4, [c])?, normal(device, 5, [c])?);
    let norm =
        Norm { groups: 8, statistics: statistics.view(), gamma: gamma.view(), beta: beta.view(), scale_shift: None };
    let dropout = Dropout { probability: 0.2, address: Address::new(4, Purpose::Dropout) };
    let operand = Operand::plain(x.view()).norm(norm).silu().dropout(Some(dropout));
    add("operand", &device.operand_value(&operand)?)?;
    for (names, g) in [
        (["conv 3x3", "conv 3x3, input's gradient", "conv 3x3, weights' gradient"], Geometry::THREE),
        (["conv 1x1", "conv 1x1, input's gradient", "conv 1x1, weights' gradient"], Geometry::ONE),
    ] {
        let w = normal(device, 6, [g.kernel, g.kernel, c, c])?;
        let e = Epilogue { bias: Some(beta.view()), residual: Some(x.view()), ..Epilogue::default() };
        add(names[0], &device.conv(&operand, w.view(), g, &e)?.y)?;
        let Pulled { g: pulled, sums } = device.conv_input_grad(dy.view(), w.view(), g, &operand)?;
        let (dx, _) = device.operand_grad(&operand, Pulled { g: pulled, sums }, [None, None])?;
        add(names[1], &dx)?;
        let mut dw = Tensor::zeros(device, [w.shape().len()])?;
        let whole = 0..w.shape().len();
        device.conv_weight_grad(dy.view(), &operand, g, dw.view_mut().buffer(), whole)?;
        add(names[2], &dw)?;
    }
    Ok(all)
}
