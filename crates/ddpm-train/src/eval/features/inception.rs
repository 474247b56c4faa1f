//! Inception-v3 (Szegedy et al. 2016) as the published Fréchet distances take it: the network of 2015-12-05 with 1,008
//! classes, in the form that pytorch-fid gives it. Inference only; batch normalisations are folded into the convolutions.

use ddpm_kernels::Backend;
use safetensors::tensor::{Dtype, SafeTensors};

use super::lowered::{Convolution, Map, Window};
use super::{Features, Widths, first_channels};
use crate::error::Error;
use crate::eval::error::EvalError;

/// Added to the variance of every normalisation.
const EPS: f64 = 1e-3;
/// Height and width that the network sees.
const SIDE: usize = 299;
/// Images whose maps are in memory at once.
const AT_ONCE: usize = 4;

/// A tensor by its name and shape.
type Source<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, EvalError> + 'a;

/// One path through a block: convolutions, one after the other.
type Path<B> = Vec<Convolution<B>>;

/// The network with its numbers on a device.
#[derive(Debug)]
pub struct Inception<B: Backend<Elem = f32>> {
    stem: Path<B>,
    stem_end: Path<B>,
    blocks: Vec<Block<B>>,
    /// `[2048, 1008]`.
    dense: Convolution<B>,
}

/// A block: paths side by side, their results concatenated.
#[derive(Debug)]
struct Block<B: Backend<Elem = f32>> {
    branches: Vec<Branch<B>>,
}

#[derive(Debug)]
struct Branch<B: Backend<Elem = f32>> {
    pool: Pool,
    path: Path<B>,
    /// Convolutions side by side at the end of the path.
    ends: Path<B>,
}

/// What comes before a branch's convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    None,
    /// Mean of 3x3, of the pixels in the map.
    Average,
    /// Largest of 3x3.
    Largest,
    /// Largest of 3x3, every second.
    Halving,
}

/// The block after which features with places are taken.
const PLACED_AFTER: &str = "Mixed_6d";

/// The blocks in their order; each one's branches are in `branches`.
const BLOCKS: [&str; 11] = [
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a",
    "Mixed_7b", "Mixed_7c",
];

/// A convolution as it is described: name, channels of the result, window.
type Step = (&'static str, usize, Window);

/// A branch as it is described.
struct Plan {
    pool: Pool,
    path: Vec<Step>,
    ends: Vec<Step>,
}

impl Plan {
    fn new(pool: Pool, path: &[Step]) -> Self {
        Self { pool, path: path.to_vec(), ends: Vec::new() }
    }

    fn ending(self, ends: &[Step]) -> Self {
        Self { ends: ends.to_vec(), ..self }
    }
}

/// Channels of the result of each convolution, as its window says.
fn branches(block: &str) -> Vec<Plan> {
    const ONE: Window = Window::ONE;
    const THREE: Window = Window::same(3, 3);
    const WIDE: Window = Window::same(1, 7);
    const TALL: Window = Window::same(7, 1);
    let plain = |path: &[Step]| Plan::new(Pool::None, path);
    match block {
        "Mixed_5b" | "Mixed_5c" | "Mixed_5d" => {
            let pooled = if block == "Mixed_5b" { 32 } else { 64 };
            vec![
                plain(&[("branch1x1", 64, ONE)]),
                plain(&[("branch5x5_1", 48, ONE), ("branch5x5_2", 64, Window::same(5, 5))]),
                plain(&[("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE), ("branch3x3dbl_3", 96, THREE)]),
                Plan::new(Pool::Average, &[("branch_pool", pooled, ONE)]),
            ]
        }
        "Mixed_6a" => vec![
            plain(&[("branch3x3", 384, Window::inside(2))]),
            plain(&[
                ("branch3x3dbl_1", 64, ONE),
                ("branch3x3dbl_2", 96, THREE),
                ("branch3x3dbl_3", 96, Window::inside(2)),
            ]),
            Plan::new(Pool::Halving, &[]),
        ],
        "Mixed_6b" | "Mixed_6c" | "Mixed_6d" | "Mixed_6e" => {
            let c = match block {
                "Mixed_6b" => 128,
                "Mixed_6e" => 192,
                _ => 160,
            };
            vec![
                plain(&[("branch1x1", 192, ONE)]),
                plain(&[("branch7x7_1", c, ONE), ("branch7x7_2", c, WIDE), ("branch7x7_3", 192, TALL)]),
                plain(&[
                    ("branch7x7dbl_1", c, ONE),
                    ("branch7x7dbl_2", c, TALL),
                    ("branch7x7dbl_3", c, WIDE),
                    ("branch7x7dbl_4", c, TALL),
                    ("branch7x7dbl_5", 192, WIDE),
                ]),
                Plan::new(Pool::Average, &[("branch_pool", 192, ONE)]),
            ]
        }
        "Mixed_7a" => vec![
            plain(&[("branch3x3_1", 192, ONE), ("branch3x3_2", 320, Window::inside(2))]),
            plain(&[
                ("branch7x7x3_1", 192, ONE),
                ("branch7x7x3_2", 192, WIDE),
                ("branch7x7x3_3", 192, TALL),
                ("branch7x7x3_4", 192, Window::inside(2)),
            ]),
            Plan::new(Pool::Halving, &[]),
        ],
        // the last block takes the largest of its neighbourhood: a slip of the original network that its weights live with
        _ => {
            let pool = if block == "Mixed_7b" { Pool::Average } else { Pool::Largest };
            let (wide, tall) = (Window::same(1, 3), Window::same(3, 1));
            vec![
                plain(&[("branch1x1", 320, ONE)]),
                plain(&[("branch3x3_1", 384, ONE)]).ending(&[("branch3x3_2a", 384, wide), ("branch3x3_2b", 384, tall)]),
                plain(&[("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, THREE)])
                    .ending(&[("branch3x3dbl_3a", 384, wide), ("branch3x3dbl_3b", 384, tall)]),
                Plan::new(pool, &[("branch_pool", 192, ONE)]),
            ]
        }
    }
}

/// The convolutions before the blocks; after the first three and after the last two the largest of 3x3 is taken.
const STEM: [Step; 5] = [
    ("Conv2d_1a_3x3", 32, Window::inside(2)),
    ("Conv2d_2a_3x3", 32, Window::inside(1)),
    ("Conv2d_2b_3x3", 64, Window::same(3, 3)),
    ("Conv2d_3b_1x1", 80, Window::ONE),
    ("Conv2d_4a_3x3", 192, Window::inside(1)),
];

impl<B: Backend<Elem = f32>> Inception<B> {
    /// Sizes of its features.
    pub(super) const WIDTHS: Widths = Widths { pooled: 2048, placed: 7 * 17 * 17, logits: 1008 };

    /// From the bytes of a safetensors file with the names of pytorch-fid's class.
    ///
    /// # Errors
    /// [`EvalError::Weights`] names the first tensor that is missing or misshapen; those of the device.
    pub fn from_safetensors(backend: &B, bytes: &[u8]) -> Result<Self, Error> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| EvalError::Weights(format!("not a safetensors file: {error}")))?;
        Self::new(backend, &mut |name, shape| {
            let tensor = file.tensor(name).map_err(|_| {
                EvalError::Weights(format!(
                    "no tensor `{name}`: Inception-v3 with the names of pytorch-fid is expected"
                ))
            })?;
            if tensor.shape() != shape || tensor.dtype() != Dtype::F32 {
                let got = format!("{:?} of {:?}", tensor.shape(), tensor.dtype());
                return Err(EvalError::Weights(format!("`{name}`: expected {shape:?} of F32, got {got}")));
            }
            Ok(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        })
    }

    /// From tensors in PyTorch's layouts under the names of pytorch-fid's class.
    ///
    /// # Errors
    /// Those of `source` and of the device.
    pub fn new(backend: &B, source: &mut Source<'_>) -> Result<Self, Error> {
        let mut c = 3;
        let mut stem = Vec::new();
        for step in STEM {
            stem.push(convolution(backend, source, "", step, c)?);
            c = step.1;
        }
        let stem_end = stem.split_off(3);
        let mut blocks = Vec::new();
        for name in BLOCKS {
            let (mut made, mut c_out) = (Vec::new(), 0);
            for plan in branches(name) {
                let mut c_in = c;
                let mut path = Vec::new();
                for step in plan.path {
                    path.push(convolution(backend, source, name, step, c_in)?);
                    c_in = step.1;
                }
                let mut ends = Vec::new();
                for &step in &plan.ends {
                    ends.push(convolution(backend, source, name, step, c_in)?);
                }
                c_out += if plan.ends.is_empty() { c_in } else { plan.ends.iter().map(|step| step.1).sum() };
                made.push(Branch { pool: plan.pool, path, ends });
            }
            blocks.push(Block { branches: made });
            c = c_out;
        }
        let classes = Self::WIDTHS.logits;
        let weight = transposed(&source("fc.weight", &[classes, c])?, classes, c);
        let dense = Convolution::new(backend, Window::ONE, &weight, &source("fc.bias", &[classes])?)?;
        Ok(Self { stem, stem_end, blocks, dense })
    }

    /// Features of images of 8 bits, `[N, H, W, 1 or 3]`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn features(&self, backend: &B, images: &[u8], [_, h, w, c]: [usize; 4]) -> Result<Features, Error> {
        let mut all = Features::default();
        for part in images.chunks((AT_ONCE * h * w * c).max(1)) {
            // a grey level is all three colours
            let rgb = part.iter().flat_map(|&level| std::iter::repeat_n(f32::from(level) / 255.0, 3 / c));
            let map = Map { shape: [part.len() / (h * w * c), h, w, 3], values: rgb.collect() };
            let mut map = map.resized(SIDE, SIDE);
            map.values.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
            for path in [&self.stem, &self.stem_end] {
                map = along(backend, path, map)?.largest(Window::inside(2));
            }
            for (name, block) in BLOCKS.into_iter().zip(&self.blocks) {
                map = block.forward(backend, &map)?;
                if name == PLACED_AFTER {
                    let [n, h, w, c] = map.shape;
                    all.placed.extend(first_channels(&map.values, n * h * w, c));
                }
            }
            let pooled = Map { shape: [map.shape[0], 1, 1, map.shape[3]], values: map.means() };
            all.logits.extend(self.dense.forward(backend, &pooled)?.values);
            all.pooled.extend(pooled.values);
        }
        Ok(all)
    }
}

impl<B: Backend<Elem = f32>> Block<B> {
    fn forward(&self, backend: &B, x: &Map) -> Result<Map, Error> {
        let mut results = Vec::new();
        for Branch { pool, path, ends } in &self.branches {
            let start = match pool {
                Pool::None => x.clone(),
                Pool::Average => x.average(Window::same(3, 3)),
                Pool::Largest => x.largest(Window::same(3, 3)),
                Pool::Halving => x.largest(Window::inside(2)),
            };
            let map = along(backend, path, start)?;
            if ends.is_empty() {
                results.push(map);
            } else {
                for end in ends {
                    results.push(rectified(end.forward(backend, &map)?));
                }
            }
        }
        Ok(Map::concat(&results))
    }
}

/// Convolutions one after the other, each rectified.
fn along<B: Backend<Elem = f32>>(backend: &B, path: &[Convolution<B>], mut map: Map) -> Result<Map, Error> {
    for convolution in path {
        map = rectified(convolution.forward(backend, &map)?);
    }
    Ok(map)
}

fn rectified(mut map: Map) -> Map {
    map.values.iter_mut().for_each(|x| *x = x.max(0.0));
    map
}

/// A convolution with the normalisation behind it: `γ·(w*x − mean)/√(variance + ε) + β` is a convolution with bias.
fn convolution<B: Backend<Elem = f32>>(
    backend: &B,
    source: &mut Source<'_>,
    block: &str,
    (name, c_out, window): Step,
    c_in: usize,
) -> Result<Convolution<B>, Error> {
    let name = if block.is_empty() { name.to_owned() } else { format!("{block}.{name}") };
    let [h, w] = window.size;
    let taps = h * w;
    let weight = source(&format!("{name}.conv.weight"), &[c_out, c_in, h, w])?;
    let mut of = |what: &str| source(&format!("{name}.bn.{what}"), &[c_out]);
    let (gamma, beta, mean, variance) = (of("weight")?, of("bias")?, of("running_mean")?, of("running_var")?);
    let factor = |o: usize| f64::from(gamma[o]) / (f64::from(variance[o]) + EPS).sqrt();
    let bias: Vec<f32> = (0..c_out).map(|o| (f64::from(beta[o]) - f64::from(mean[o]) * factor(o)) as f32).collect();
    let mut folded = vec![0.0; weight.len()];
    for o in 0..c_out {
        let factor = factor(o);
        for (i, &weight) in weight[o * c_in * taps..(o + 1) * c_in * taps].iter().enumerate() {
            // OIHW becomes HWIO
            folded[(i % taps * c_in + i / taps) * c_out + o] = (f64::from(weight) * factor) as f32;
        }
    }
    Convolution::new(backend, window, &folded, &bias)
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}
