//! Every kernel of every operation, over shapes that take each of its ways: more than one tile, slice, part and group, edges
//! within a tile, channels that four does not divide.

use crate::host;
use ddpm_kernels::adamw::AdamWStep;
use ddpm_kernels::conv::{Along, ConvGrad, Geometry, Padding, ParameterGrads};
use ddpm_kernels::loss::LossKind;
use ddpm_kernels::posterior::StepCoefficients;
use ddpm_kernels::{Backend, Dropout, Epilogue, Norm, NormParameters, Operand, Parts};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cuda, Device, Precision, Shape, Tensor};
use std::sync::LazyLock;

/// An operation with its derivative, and its sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Case {
    Conv(Conv),
    Attention {
        n: usize,
        pixels: usize,
        channels: usize,
        heads: usize,
    },
    /// Sums over pixels and images, rows of tables.
    Sums {
        n: usize,
        pixels: usize,
        channels: usize,
    },
    /// What is done element by element: noise, a step back, the loss, the optimiser.
    Elements {
        n: usize,
        elements: usize,
        parameters: usize,
    },
}

/// A convolution of an operand, and all of its gradients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    /// Channels of the two parts; no second one if 0.
    pub(crate) c: [usize; 2],
    pub(crate) o: usize,
    pub(crate) g: Geometry,
    /// With a norm of so many groups, SiLU and dropout; a plain operand if 0.
    pub(crate) groups: usize,
    pub(crate) enlarge: bool,
    pub(crate) back: Back,
}

/// Whether a convolution goes back operation by operation, or at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Back {
    InTurn,
    AtOnce,
    Both,
}

const CONV: Conv =
    Conv { n: 2, h: 9, w: 5, c: [36, 0], o: 70, g: Geometry::THREE, groups: 4, enlarge: false, back: Back::InTurn };

/// Small, and enough of them.
pub(crate) static GRID: LazyLock<[Case; 14]> = LazyLock::new(|| {
    [
        Case::Conv(CONV),
        Case::Conv(Conv { n: 18, h: 2, w: 3, c: [5, 18], o: 6, groups: 1, back: Back::AtOnce, ..CONV }),
        Case::Conv(Conv { n: 1, h: 20, w: 18, c: [20, 0], o: 3, groups: 0, back: Back::AtOnce, ..CONV }),
        Case::Conv(Conv { n: 1, h: 5, w: 6, c: [12, 8], o: 9, groups: 5, enlarge: true, ..CONV }),
        Case::Conv(Conv { h: 8, w: 8, c: [33, 0], g: Geometry::down(Padding::Same), groups: 0, ..CONV }),
        Case::Conv(Conv { h: 7, w: 8, c: [32, 0], g: Geometry::down(Padding::End), groups: 8, ..CONV }),
        Case::Conv(Conv { n: 1, h: 9, w: 16, c: [68, 0], g: Geometry::ONE, groups: 2, back: Back::AtOnce, ..CONV }),
        Case::Conv(Conv { n: 70, h: 1, w: 1, c: [40, 0], g: Geometry::ONE, groups: 0, ..CONV }),
        Case::Conv(Conv { n: 1, h: 4, w: 4, c: [132, 0], o: 9, groups: 0, back: Back::AtOnce, ..CONV }),
        Case::Attention { n: 1, pixels: 70, channels: 72, heads: 1 },
        Case::Attention { n: 2, pixels: 9, channels: 40, heads: 2 },
        Case::Sums { n: 3, pixels: 1100, channels: 34 },
        Case::Sums { n: 18, pixels: 5, channels: 300 },
        Case::Elements { n: 3, elements: 4099, parameters: 70_001 },
    ]
});

/// Precisions whose kernels are other ones.
const PRECISIONS: [Precision; 3] = [Precision::Strict, Precision::F32, Precision::Bf16];

/// A device for each of them.
pub(crate) fn devices() -> Vec<Cuda> {
    drop(host::gpu()); // loads the driver
    PRECISIONS.iter().map(|&precision| Cuda::new(0, precision).unwrap()).collect()
}

/// Standard normal numbers, others for each `stream`.
fn normal(device: &Cuda, stream: u64, shape: impl Into<Shape>) -> Tensor<Cuda> {
    let shape = shape.into();
    let mut values = vec![0.0; shape.len()];
    Address::new(99, Purpose::Test).at_step(stream).fill_normal(0, &mut values);
    Tensor::from_slice(device, shape, &values).unwrap()
}

impl Case {
    /// Launches all kernels of the operation; what they compute is compared elsewhere.
    pub(crate) fn run(&self, d: &Cuda) {
        match *self {
            Case::Conv(conv) => conv.run(d),
            Case::Attention { n, pixels, channels, heads } => {
                let [q, k, v, d_o] = [1, 2, 3, 4].map(|stream| normal(d, stream, [n, pixels, channels]));
                d.attention(q.view(), k.view(), v.view(), heads, 0.2).unwrap();
                d.attention_grad(q.view(), k.view(), v.view(), d_o.view(), heads, 0.2).unwrap();
            }
            Case::Sums { n, pixels, channels } => sums(d, n, pixels, channels),
            Case::Elements { n, elements, parameters } => by_element(d, n, elements, parameters),
        }
        d.synchronize().unwrap(); // nothing runs before
    }
}

impl Conv {
    fn run(self, d: &Cuda) {
        let Self { n, h, w, c: [a, b], o, g, groups, enlarge, back } = self;
        let c = a + b;
        let (x_a, x_b) = (normal(d, 1, [n, h, w, a]), normal(d, 2, [n, h, w, b]));
        let (gamma, beta, scale_shift) = (normal(d, 3, [c]), normal(d, 4, [c]), normal(d, 5, [n, 2 * c]));
        let weights = normal(d, 6, [g.kernel, g.kernel, c, o]);
        let scale = if enlarge { 2 } else { 1 };
        let (out_h, out_w) = g.output(scale * h, scale * w).unwrap();
        let size = [n, out_h, out_w, o];
        let (bias, channel, residual) = (normal(d, 7, [o]), normal(d, 8, [n, o]), normal(d, 9, size));
        let dy = normal(d, 10, size);
        let (of_a, of_b) = (d.channel_statistics(x_a.view()).unwrap(), d.channel_statistics(x_b.view()).unwrap());
        let of_parts = [Some(of_a.view()), (b > 0).then(|| of_b.view())];
        let known =
            NormParameters { gamma: gamma.view(), beta: beta.view(), scale_shift: enlarge.then(|| scale_shift.view()) };
        let statistics = d.norm_statistics_for(of_parts, h * w, groups.max(1), 1e-5, &known).unwrap();
        let norm = (groups > 0).then(|| Norm {
            groups,
            statistics: statistics.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            scale_shift: enlarge.then(|| scale_shift.view()),
        });
        let parts = if b > 0 { Parts::Two(x_a.view(), x_b.view()) } else { Parts::One(x_a.view()) };
        let x = Operand { parts, norm, silu: groups > 0, dropout: None, nearest_2x: enlarge };
        let address = Address::new(5, Purpose::Dropout).at_step(8);
        let x = x.dropout((groups > 0).then_some(Dropout { probability: 0.3, address }));
        d.operand_value(&x).unwrap();
        let unknown = d.norm_statistics(of_parts, h * w, groups.max(1), 1e-5).unwrap();
        let norm = x.norm.map(|norm| Norm { statistics: unknown.view(), ..norm });
        d.operand_value(&Operand { norm, ..x }).unwrap();
        let epilogue = Epilogue {
            bias: Some(bias.view()),
            channel: Some(channel.view()),
            residual: Some(residual.view()),
            scale: 0.75,
            statistics: true,
        };
        d.conv(&x, weights.view(), g, &epilogue).unwrap();
        let len = weights.shape().len();
        if back != Back::InTurn {
            let mut grads = d.zeros(len + o + 2 * c).unwrap();
            let (dw, db, norm) = (0..len, len..len + o, [len + o..len + o + c, len + o + c..len + o + 2 * c]);
            let product = ConvGrad { dy: dy.view(), dy_sums: None, w: weights.view(), dw, db: Some(db) };
            let first = Some(normal(d, 12, [n, h, w, a]));
            let along = Along { whole: Some(normal(d, 13, [n, h, w, c])), first };
            let wanted = ParameterGrads { buffer: &mut grads, norm: (groups > 0).then_some(norm) };
            d.conv_backward(&[product], g, &x, along, Some(wanted), true).unwrap();
        }
        if back == Back::AtOnce {
            return;
        }
        let mut grads = d.zeros(len + 2 * c).unwrap();
        d.conv_weight_grad(dy.view(), &x, g, &mut grads, 0..len).unwrap();
        let pulled = d.conv_input_grad(dy.view(), weights.view(), g, &x).unwrap();
        if let Some(sums) = &pulled.sums {
            d.norm_param_grad(&x, sums.view(), &mut grads, len..len + c, len + c..len + 2 * c).unwrap();
        }
        let add = normal(d, 12, [n, h, w, a]);
        d.operand_grad(&x, pulled, [Some(add.view()), None]).unwrap();
    }
}

fn sums(d: &Cuda, n: usize, pixels: usize, channels: usize) {
    let x = normal(d, 1, [n, pixels, 1, channels]);
    d.channel_statistics(x.view()).unwrap();
    let rows = d.pixel_sums(x.view()).unwrap();
    let mut grads = d.zeros(5 * channels).unwrap();
    d.batch_sums(rows.view(), &mut grads, 0..channels).unwrap();
    let indices: Vec<usize> = (0..n).map(|i| (i * i + i / 3) % 4).collect();
    d.scatter_rows(rows.view(), &indices, &mut grads, channels..5 * channels).unwrap();
    d.gather_rows(normal(d, 2, [4, channels]).view(), &indices).unwrap();
}

fn by_element(d: &Cuda, n: usize, elements: usize, parameters: usize) {
    let shape = [n, elements, 1, 1];
    let address = Address::new(7, Purpose::Noise).at_step(3);
    let coefficients: Vec<_> = (0..n).map(|i| (1.0 / (i + 1) as f32, 0.3 * i as f32)).collect();
    let (x_t, eps) = d.noise(normal(d, 1, shape).view(), &coefficients, address).unwrap();
    let c = StepCoefficients {
        predict_x: 1.25,
        predict_output: -0.75,
        clip: 1.0,
        from_x_0: 0.4,
        from_x: 0.55,
        from_output: -0.1,
        sigma: 0.3,
    };
    let (next, _) = d.reverse_step(x_t.view(), eps.view(), &c, address, true).unwrap();
    let mut sum = d.normals(shape.into(), address).unwrap();
    d.add_scaled(&mut sum, 0.5, next.view()).unwrap();
    d.affine(sum.view(), 2.0, 1.0).unwrap();
    d.loss(LossKind::Huber { delta: 0.7 }, sum.view(), eps.view(), &vec![1.0; n], 0.1).unwrap();
    let step = AdamWStep {
        lr: 2e-4,
        beta_1: 0.9,
        beta_2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        correction_1: 0.1,
        correction_2: 0.001,
        clip: 0.7,
        ema_decay: 0.99,
    };
    let [mut p, mut g, mut m, mut v, mut ema] = [8, 9, 10, 11, 12].map(|stream| normal(d, stream, [parameters]));
    d.squared_norm(g.view().buffer()).unwrap();
    let [p, g, m, v, ema] = [&mut p, &mut g, &mut m, &mut v, &mut ema];
    d.adamw(
        &step,
        p.view_mut().buffer(),
        g.view_mut().buffer(),
        m.view_mut().buffer(),
        v.view_mut().buffer(),
        ema.view_mut().buffer(),
    )
    .unwrap();
}
