use ddpm_kernels::conv::Along;
use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_tensor::{Element, Tensor, View};

use super::Dense;
use crate::error::expect;
use crate::layout::{Init, ParamId, Role, Scope};
use crate::{Parameters, Result};

/// Sines and cosines of a time step, of geometric frequencies (Vaswani et al. 2017, section 3.5):
/// `sin(t·f_i), cos(t·f_i)` with `f_i = exp(−i·ln(10000)/(half − freq_shift))`, `half = dim/2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sinusoid {
    /// Width of the result; an odd one ends with a zero.
    pub dim: usize,
    /// 1 in the paper's code, 0 by default in diffusers; below `half`.
    pub freq_shift: i64,
    /// `false`: `[sin, cos]` (the paper's code); `true`: `[cos, sin]`.
    pub flip_sin_to_cos: bool,
}

impl Sinusoid {
    /// `[N, dim]`, row-major, of N time steps, which may be fractional.
    ///
    /// Frequency and product are rounded to f32 as in PyTorch: near t = 1000 that moves a sine by up to 3e-5, and
    /// networks were trained with it.
    pub fn rows(&self, timesteps: &[f32]) -> Vec<f32> {
        let half = self.dim / 2;
        let step = -(10000.0f64.ln()) as f32;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                let exponent = step * i as f32 / (half as i64 - self.freq_shift) as f32;
                libm::exp(f64::from(exponent)) as f32
            })
            .collect();
        let mut rows = vec![0.0; timesteps.len() * self.dim];
        for (row, t) in rows.chunks_mut(self.dim.max(1)).zip(timesteps) {
            for (i, f) in frequencies.iter().enumerate() {
                let angle = f64::from(t * f);
                let (sin, cos) = if self.flip_sin_to_cos { (half + i, i) } else { (i, half + i) };
                row[sin] = libm::sin(angle) as f32;
                row[cos] = libm::cos(angle) as f32;
            }
        }
        rows
    }
}

/// Sines and cosines of a noise level (Song et al. 2021, NCSN++ of "Score-based generative modeling through SDEs"):
/// `sin(2π·w_i·ln t), cos(2π·w_i·ln t)` with fixed random frequencies w, which are parameters that nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fourier {
    /// w, `[half]`.
    frequencies: ParamId,
    half: usize,
}

impl Fourier {
    /// Standard deviation of the frequencies.
    const SCALE: f32 = 16.0;

    /// Adds the frequencies at a place of a layout.
    pub fn new(mut at: Scope<'_>, half: usize) -> Self {
        Self { frequencies: at.add("weight", [half], Role::Fixed, Init::NormalOf(Self::SCALE)), half }
    }

    /// `[N, 2·half]`, row-major, of N noise levels above 0; rounded to f32 where PyTorch rounds.
    fn rows<B: Backend>(self, backend: &B, parameters: &Parameters<B>, levels: &[f32]) -> Result<Vec<f32>> {
        let positive = levels.iter().all(|&t| t > 0.0);
        expect(positive, "Fourier time embedding", || "time steps above 0".to_owned(), || format!("{levels:?}"))?;
        let frequencies = Tensor::copy_of(backend, parameters.view(self.frequencies)?)?.to_vec(backend)?;
        let mut rows = Vec::with_capacity(levels.len() * 2 * self.half);
        for t in levels {
            let log = libm::log(f64::from(*t)) as f32;
            for wave in [libm::sin, libm::cos] {
                let angles = frequencies.iter().map(|w| log * w.to_f64() as f32 * 2.0 * std::f32::consts::PI);
                rows.extend(angles.map(|angle| wave(f64::from(angle)) as f32));
            }
        }
        Ok(rows)
    }
}

/// What a time step is described by before anything is learned of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waves {
    /// Of the time step.
    Sinusoid(Sinusoid),
    /// Of the logarithm of a noise level.
    Fourier(Fourier),
}

impl From<Sinusoid> for Waves {
    fn from(sinusoid: Sinusoid) -> Self {
        Self::Sinusoid(sinusoid)
    }
}

impl Waves {
    /// Numbers that describe a time step.
    pub fn width(self) -> usize {
        match self {
            Self::Sinusoid(sinusoid) => sinusoid.dim,
            Self::Fourier(fourier) => 2 * fourier.half,
        }
    }

    fn rows<B: Backend>(self, backend: &B, parameters: &Parameters<B>, timesteps: &[f32]) -> Result<Vec<f32>> {
        match self {
            Self::Sinusoid(sinusoid) => Ok(sinusoid.rows(timesteps)),
            Self::Fourier(fourier) => fourier.rows(backend, parameters, timesteps),
        }
    }
}

/// A time step as a vector: `linear_2(SiLU(linear_1(waves(t))))`.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeEmbedding {
    waves: Waves,
    linear_1: Dense,
    linear_2: Dense,
}

/// What [`TimeEmbedding::backward`] needs of the forward pass.
#[derive(Debug)]
pub struct TimeCache<B: Backend> {
    waves: Tensor<B>,
    hidden: Tensor<B>,
}

impl TimeEmbedding {
    /// Adds `linear_1` (the waves' width to `dim`) and `linear_2` (`dim` to `dim`) at a place of a layout.
    pub fn new(mut at: Scope<'_>, waves: impl Into<Waves>, dim: usize) -> Self {
        let waves = waves.into();
        let linear_1 = Dense::new(at.at("linear_1"), waves.width(), dim, Init::PAPER);
        let linear_2 = Dense::new(at.at("linear_2"), dim, dim, Init::PAPER);
        Self { waves, linear_1, linear_2 }
    }

    /// `[N, 1, 1, dim]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        timesteps: &[f32],
    ) -> Result<(Tensor<B>, TimeCache<B>)> {
        let rows = self.waves.rows(backend, parameters, timesteps)?;
        let rows: Vec<B::Elem> = rows.into_iter().map(B::Elem::of_f32).collect();
        let waves = Tensor::from_slice(backend, [timesteps.len(), 1, 1, self.waves.width()], &rows)?;
        let operand = Operand::plain(waves.view());
        let hidden = self.linear_1.forward(backend, parameters, &operand, Epilogue::default())?.y;
        let operand = Operand::plain(hidden.view()).silu();
        let y = self.linear_2.forward(backend, parameters, &operand, Epilogue::default())?.y;
        Ok((y, TimeCache { waves, hidden }))
    }

    /// Adds the parameters' gradients; a time step has none itself.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: TimeCache<B>,
        dy: View<'_, B>,
        grads: &mut Parameters<B>,
    ) -> Result<()> {
        let TimeCache { waves, hidden } = cache;
        let operand = Operand::plain(hidden.view()).silu();
        let [n, _, _, c] = dy.shape().nhwc();
        // a single pixel is its own sum
        let seen = (dy, Some(dy.reshape([n, c])?));
        let along = Along::default();
        let d_hidden = self.linear_2.backward_to_parts(backend, parameters, &operand, seen, along, Some(grads))?.first;
        self.linear_1.parameter_grads(backend, &Operand::plain(waves.view()), d_hidden.view(), grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoids_have_both_orders_shifts_and_odd_widths() {
        let paper = Sinusoid { dim: 6, freq_shift: 1, flip_sin_to_cos: false };
        let row = paper.rows(&[2.5]);
        for (i, exponent) in [0.0f64, -0.5, -1.0].into_iter().enumerate() {
            let angle = 2.5 * 10000.0f64.powf(exponent);
            assert!((f64::from(row[i]) - angle.sin()).abs() < 1e-6, "{row:?}");
            assert!((f64::from(row[3 + i]) - angle.cos()).abs() < 1e-6, "{row:?}");
        }
        let flipped = Sinusoid { flip_sin_to_cos: true, ..paper }.rows(&[2.5]);
        assert_eq!([&flipped[3..], &flipped[..3]].concat(), row);
        let shifted = Sinusoid { freq_shift: 0, ..paper }.rows(&[2.5]);
        assert!((f64::from(shifted[1]) - (2.5 * 10000.0f64.powf(-1.0 / 3.0)).sin()).abs() < 1e-6);
        let odd = Sinusoid { dim: 7, ..paper }.rows(&[2.5, 2.5]);
        assert_eq!((&odd[..6], odd[6], &odd[7..13]), (&row[..], 0.0, &row[..]));
    }

    #[test]
    fn angles_are_rounded_as_pytorch_rounds_them() {
        // get_timestep_embedding(999, 128, downscale_freq_shift=1) of diffusers 0.42 on PyTorch 2.11.
        let row = Sinusoid { dim: 128, freq_shift: 1, flip_sin_to_cos: false }.rows(&[999.0]);
        let expected =
            [(0, -0.026460752), (1, 0.7267159), (2, -0.9215657), (3, -0.27180085), (10, -0.8003256), (65, -0.6869381)];
        for (i, value) in expected {
            assert!((row[i] - value).abs() < 1e-7, "{i}: {} and {value}", row[i]);
        }
    }
}
