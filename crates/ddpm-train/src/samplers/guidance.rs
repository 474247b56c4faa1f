//! Classifier-free guidance: away from what the network says without a class, towards what it says with one.

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::{Element, Tensor, View};

use crate::channels::{beside, halves};

/// output = u + w (c − u), with c the output for the class and u that for none (Ho and Salimans 2022, eq. 6 with w − 1 for
/// their w): 0 is no class, 1 the class alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// w.
    pub weight: f64,
    /// φ, 0 to 1: how far the guided output is scaled back to the standard deviation of c, image by image
    /// (Lin et al. 2024, section 3.4).
    pub rescale: f64,
    /// The time steps at which it acts, both ends included; at the others the class acts alone (Kynkäänniemi et al. 2024).
    pub interval: (f64, f64),
    /// Whether the second half of the channels says a learned variance, which stays that for the class.
    pub variance: bool,
}

impl Guidance {
    /// Guidance of this weight at every time step.
    pub fn of(weight: f64) -> Self {
        Self { weight, rescale: 0.0, interval: (0.0, f64::INFINITY), variance: false }
    }

    /// Whether a second pass is needed at a time step.
    pub fn acts_at(&self, time_step: f64) -> bool {
        self.weight != 1.0 && (self.interval.0..=self.interval.1).contains(&time_step)
    }

    /// The guided output `[N, H, W, C]` of a pass over images that come twice, `[2N, H, W, C]`: with their classes first, then without.
    ///
    /// # Errors
    /// When the device fails.
    pub fn combine<B: Backend>(&self, backend: &B, both: &Tensor<B>) -> Result<Tensor<B>, KernelError> {
        if self.variance {
            let [mean, variance] = halves(backend, both)?;
            let mean = Self { variance: false, ..self.clone() }.combine(backend, &mean)?;
            let of_class = View::<B>::of(variance.view().buffer(), 0, mean.shape())?;
            return beside(backend, &mean, &Tensor::copy_of(backend, of_class)?);
        }
        let [images, height, width, channels] = both.shape().nhwc();
        let (images, half) = (images / 2, both.shape().len() / 2);
        let shape = [images, height, width, channels];
        let buffer = both.view().buffer();
        let conditional = View::<B>::of(buffer, 0, shape)?;
        let mut guided = backend.affine(View::<B>::of(buffer, half, shape)?, 1.0 - self.weight, 0.0)?;
        backend.add_scaled(&mut guided, self.weight, conditional)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        let wanted = both.to_vec(backend)?;
        let mut values = guided.to_vec(backend)?;
        let size = (half / images.max(1)).max(1);
        for (image, wanted) in values.chunks_mut(size).zip(wanted.chunks(size)) {
            let factor = self.rescale * deviation(wanted) / deviation(image) + 1.0 - self.rescale;
            // An image of one value has no deviation to be scaled.
            if factor.is_finite() {
                for x in image {
                    *x = Element::of(x.to_f64() * factor);
                }
            }
        }
        Ok(Tensor::from_slice(backend, shape, &values)?)
    }
}

/// What a network says of x_t at a time step: of images with their classes, guided where guidance acts, which takes one
/// pass over the images with and without their classes (`guided` holds the label of no class, too).
///
/// # Errors
/// Those of the network, and when the device has no memory left.
pub fn guided_output<B: Backend, E: From<KernelError>>(
    guided: Option<&(Guidance, usize)>,
    backend: &B,
    x: &Tensor<B>,
    time_step: f64,
    classes: Option<&[usize]>,
    network: impl Fn(&Tensor<B>, &[f32], Option<&[usize]>) -> Result<Tensor<B>, E>,
) -> Result<Tensor<B>, E> {
    let times = |images| vec![time_step as f32; images];
    let images = x.shape().nhwc()[0];
    match (guided, classes) {
        (Some((guidance, null)), Some(classes)) if guidance.acts_at(time_step) => {
            let both = [classes, &vec![*null; classes.len()]].concat();
            let output = network(&doubled(backend, x)?, &times(2 * images), Some(&both))?;
            Ok(guidance.combine(backend, &output)?)
        }
        _ => network(x, &times(images), classes),
    }
}

/// The images twice, `[N, H, W, C]` → `[2N, H, W, C]`: one pass serves the outputs with and without classes.
///
/// # Errors
/// When the device has no memory left.
fn doubled<B: Backend>(backend: &B, x: &Tensor<B>) -> Result<Tensor<B>, KernelError> {
    let [images, height, width, channels] = x.shape().nhwc();
    let len = x.shape().len();
    let mut both = backend.alloc(2 * len)?;
    for offset in [0, len] {
        backend.copy(x.view().buffer(), 0..len, &mut both, offset)?;
    }
    Ok(Tensor::from_buffer(both, [2 * images, height, width, channels])?)
}

fn deviation<E: Element>(image: &[E]) -> f64 {
    let n = image.len().max(1) as f64;
    let mean = image.iter().map(|x| x.to_f64()).sum::<f64>() / n;
    (image.iter().map(|x| (x.to_f64() - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ddpm_tensor::{Cpu, CpuOptions};

    use super::*;

    #[test]
    fn guidance_extrapolates_and_rescaling_keeps_the_spread() {
        let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
        let (c, u) = ([0.5, -1.0, 2.0, 0.25, 3.0, 1.0, -1.0, 0.0], [0.25, 0.5, 1.0, -0.75, 1.0, 1.5, 0.0, 0.5]);
        let both = Tensor::from_slice(&cpu, [4, 2, 2, 1], &[c, u].concat()).unwrap();
        let guided = |guidance: Guidance| guidance.combine(&cpu, &both).unwrap().to_vec(&cpu).unwrap();
        for weight in [0.0, 1.0, 3.0, -0.5] {
            let want: Vec<f32> = c.iter().zip(u).map(|(c, u)| u + weight as f32 * (c - u)).collect();
            let got = guided(Guidance::of(weight));
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {want:?}");
        }
        let plain = guided(Guidance::of(3.0));
        let full = guided(Guidance { rescale: 1.0, ..Guidance::of(3.0) });
        let half = guided(Guidance { rescale: 0.5, ..Guidance::of(3.0) });
        for image in 0..2 {
            let part = image * 4..image * 4 + 4;
            assert!((deviation(&full[part.clone()]) - deviation(&c[part.clone()])).abs() < 1e-6);
            for i in part {
                assert!((half[i] - f32::midpoint(full[i], plain[i])).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn it_acts_within_its_interval_and_where_it_changes_something() {
        let guidance = Guidance { interval: (100.0, 800.0), ..Guidance::of(3.0) };
        assert!([100.0, 500.5, 800.0].iter().all(|&t| guidance.acts_at(t)));
        assert!(![99.0, 801.0].iter().any(|&t| guidance.acts_at(t)));
        assert!(!Guidance::of(1.0).acts_at(500.0) && Guidance::of(0.0).acts_at(0.0));
    }

    #[test]
    fn doubled_images_come_twice() {
        let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
        let x = Tensor::from_slice(&cpu, [2, 1, 2, 1], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let both = doubled(&cpu, &x).unwrap();
        assert_eq!(both.shape().nhwc(), [4, 1, 2, 1]);
        assert_eq!(both.to_vec(&cpu).unwrap(), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    }
}
