//! What a launch computes and moves, by the kernel's name and its arguments.

use super::Launch;

/// FLOPs (a multiply-add is two) and bytes of device memory, each byte counted once however often caches give it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Additions and multiplications: on tensor cores three of each for a product of split numbers.
    pub flops: f64,
    /// Bytes that are read or written.
    pub bytes: f64,
}

/// Bytes of a float.
const FLOAT: f64 = 4.0;

/// `Operand` in `kernels/operand.cuh`.
struct Operand {
    channels: f64,
    images: f64,
    height: f64,
    width: f64,
    enlarge: f64,
    is_plain: bool,
}

impl Operand {
    fn of(words: &[u64]) -> Self {
        let half = |i: usize| f64::from((words[i / 2] >> (32 * (i % 2))) as u32);
        Self {
            channels: half(16),
            images: half(17),
            height: half(18),
            width: half(19),
            enlarge: half(21),
            is_plain: words[2] == 0 && half(20) == 0.0,
        }
    }

    /// Elements as stored.
    fn stored(&self) -> f64 {
        self.images * self.height * self.width * self.channels
    }

    /// Elements of the value.
    fn value(&self) -> f64 {
        self.stored() * self.enlarge * self.enlarge
    }
}

/// `ConvShape` in `kernels/conv.cu`, which `ConvTiles` in `kernels/conv_tensor.cu` begins like.
struct Conv {
    pixels: f64,
    out: f64,
    taps: f64,
}

impl Conv {
    fn of(words: &[u64]) -> Self {
        let half = |i: usize| f64::from((words[i / 2] >> (32 * (i % 2))) as u32);
        Self { pixels: half(0) * half(1) * half(2), out: half(3), taps: half(4) * half(4) }
    }
}

/// Bytes of weights packed for tensor cores: 32 rows of `columns` numbers of bf16 for each slice and tap.
fn packed(taps: f64, slices: f64, columns: f64) -> f64 {
    2.0 * taps * slices * 32.0 * columns
}

/// How many products of bf16 a kernel makes of one.
pub(super) fn products(kernel: &str) -> Option<f64> {
    let is_product = kernel.starts_with("conv_") || kernel.starts_with("attention_");
    let parts = |ending: &str| kernel.ends_with(ending) || kernel.contains(&format!("{ending}_"));
    match () {
        () if is_product && parts("_split") => Some(3.0),
        () if is_product && parts("_rounded") => Some(1.0),
        () => None,
    }
}

/// What a launch costs, or nothing for a kernel that is not known here.
pub fn cost(launch: &Launch) -> Option<Cost> {
    let a = &launch.arguments;
    let float = |i: usize| if a[i][0] == 0 { 0.0 } else { 1.0 };
    let n = |i: usize| a[i][0] as f64;
    let elements = |flops: f64, bytes: f64| Some(Cost { flops, bytes });
    let products = products(&launch.kernel).unwrap_or(1.0);
    match launch.kernel.as_str() {
        "conv_f32" => {
            let (x, s) = (Operand::of(&a[0]), Conv::of(&a[7]));
            let weights = s.taps * x.channels * s.out;
            let moved = x.stored() + weights + s.pixels * s.out * (1.0 + float(4));
            elements(2.0 * s.pixels * weights, FLOAT * moved)
        }
        "conv_input_grad_f32" => {
            let (dy, s) = (Operand::of(&a[0]), Conv::of(&a[3]));
            let weights = s.taps * dy.channels * s.out;
            elements(2.0 * s.pixels * weights, FLOAT * (dy.stored() + weights + s.pixels * s.out))
        }
        "conv_rounded_64x64" | "conv_rounded_128x128" | "conv_split_64x64" | "conv_split_128x64" => {
            let (x, s) = (Operand::of(&a[0]), Conv::of(&a[7]));
            let half = |i: usize| f64::from((a[7][i / 2] >> (32 * (i % 2))) as u32);
            let parts = f64::from(launch.grid[2]);
            let moved = x.stored() + s.pixels * s.out * (parts + float(4));
            let weights = packed(s.taps, half(16), half(18));
            elements(products * 2.0 * s.pixels * s.taps * x.channels * s.out, FLOAT * moved + weights)
        }
        // a thread packs eight numbers to one or two of bf16 each
        "pack_weights" => elements(0.0, f64::from(launch.blocks()) * f64::from(launch.threads) * 64.0),
        "add_parts_f32" => elements(n(6) * n(7), FLOAT * n(7) * (n(6) + 1.0 + float(3))),
        "conv_weight_grad_3_f32"
        | "conv_weight_grad_1_f32"
        | "conv_weight_grad_3_rounded"
        | "conv_weight_grad_1_rounded"
        | "conv_weight_grad_3_split"
        | "conv_weight_grad_1_split" => {
            let (x, s) = (Operand::of(&a[1]), Conv::of(&a[3]));
            let weights = s.taps * x.channels * s.out;
            let slices = f64::from(launch.grid[2]);
            let moved = x.stored() + s.pixels * s.out + slices * weights;
            elements(products * 2.0 * s.pixels * weights, FLOAT * moved)
        }
        "add_sums_f32" => {
            let all = a[0].chunks_exact(6).take(a[0][48] as u32 as usize);
            let slices = |e: &[u64]| f64::from((e[4] >> 32) as u32);
            let (flops, moved) = all.fold((0.0, 0.0), |(flops, moved), e| {
                (flops + e[2] as f64 * slices(e), moved + e[2] as f64 * (slices(e) + 2.0))
            });
            elements(flops, FLOAT * moved)
        }
        "attention_statistics_f32" | "attention_statistics_split" => Some(attention(launch, 3, products, 2.0)),
        "attention_grad_statistics_f32" | "attention_grad_statistics_split" => {
            Some(attention(launch, 5, 2.0 * products, 4.0))
        }
        // the weights, and in gradients their slopes, are made for every 64 columns of a head
        "attention_f32" | "attention_dv_f32" | "attention_split" | "attention_dv_split" => {
            Some(attention(launch, 5, products * (1.0 + f64::from(launch.grid[1])), 4.0))
        }
        "attention_dq_f32" | "attention_dk_f32" | "attention_dq_split" | "attention_dk_split" => {
            Some(attention(launch, 6, products * (1.0 + 2.0 * f64::from(launch.grid[1])), 5.0))
        }
        "channel_statistics_f32" => elements(5.0 * n(2) * n(3) * n(4), FLOAT * n(2) * n(3) * n(4)),
        "norm_statistics_f32" => {
            elements(0.0, FLOAT * n(3) * (n(4) + n(5)) * (2.0 + if a[12][0] == 0 { 0.0 } else { 7.0 }))
        }
        "pixel_sums_f32" => elements(n(2) * n(3) * n(4), FLOAT * n(2) * n(3) * n(4)),
        "gather_rows_f32" => elements(0.0, 2.0 * FLOAT * n(3) * n(4)),
        "scatter_rows_f32" => elements(n(3) * n(4), 2.0 * FLOAT * n(3) * n(4)),
        "add_scaled_f32" => elements(2.0 * n(3), 3.0 * FLOAT * n(3)),
        "affine_f32" => elements(2.0 * n(4), 2.0 * FLOAT * n(4)),
        "norm_coefficients_f32" => elements(3.0 * n(5) * n(6), FLOAT * 7.0 * n(5) * n(6)),
        "norm_means_f32" => elements(0.0, FLOAT * 3.0 * Operand::of(&a[0]).images * Operand::of(&a[0]).channels),
        "norm_param_grad_f32" => elements(4.0 * n(7) * n(8), FLOAT * 4.0 * n(7) * n(8)),
        "operand_value_f32" => {
            let x = Operand::of(&a[0]);
            elements(30.0 * x.value(), FLOAT * (x.stored() + x.value()))
        }
        "operand_pull_f32" => {
            let x = Operand::of(&a[1]);
            let read = if x.is_plain { x.value() } else { x.value() + x.stored() };
            elements(40.0 * x.stored(), FLOAT * (read + x.stored()))
        }
        // both times that it is read
        "operand_backward_f32" => {
            let x = Operand::of(&a[2]);
            let (parts, times) = (n(1), if a[2][2] == 0 { 1.0 } else { 2.0 });
            let stored = if x.is_plain { 0.0 } else { x.stored() };
            let read = times * (parts * x.value() + stored) + x.stored() * (float(4) + float(5));
            elements(times * 45.0 * x.stored(), FLOAT * (read + x.stored()))
        }
        "operand_grad_f32" => {
            let x = Operand::of(&a[1]);
            let read = 1.0 + if a[1][2] == 0 { 0.0 } else { 1.0 } + float(4).max(float(5));
            elements(5.0 * x.stored(), FLOAT * x.stored() * (read + 1.0))
        }
        "loss_f32" => elements(8.0 * n(5) * n(6), 3.0 * FLOAT * n(5) * n(6)),
        "noise_f32" => elements(60.0 * n(5) * n(6), 3.0 * FLOAT * n(5) * n(6)),
        "normals_f32" => elements(60.0 * n(1) * n(2), FLOAT * n(1) * n(2)),
        "posterior_f32" => elements(60.0 * n(4) * n(5), 4.0 * FLOAT * n(4) * n(5)),
        "squared_norm_f32" => elements(2.0 * n(2), FLOAT * n(2)),
        "adamw_f32" => elements(14.0 * n(6), 10.0 * FLOAT * n(6)),
        _ => None,
    }
}

/// `products` products of P x P by d numbers, for each head, whose q, k, v and others are `tensors` of P x d.
fn attention(launch: &Launch, heads: usize, products: f64, tensors: f64) -> Cost {
    let words = &launch.arguments[heads];
    let (pixels, size) = (f64::from(words[0] as u32), f64::from(words[1] as u32));
    let all = f64::from(launch.grid[0]) / (pixels / 64.0).ceil();
    Cost { flops: 2.0 * products * all * pixels * pixels * size, bytes: FLOAT * tensors * all * pixels * size }
}
