//! Guidance: away from what the network says without a class, or from what a weaker one says, and further on that way.

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::{Element, Tensor, View};

use crate::channels::{beside, halves};

/// What guidance leads away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// What the network says of no class, which has this label (Ho and Salimans 2022).
    NoClass(usize),
    /// What a weaker network says of the same images (Karras et al. 2024, "Guiding a diffusion model with a bad version of itself").
    Weaker,
}

/// Which network is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The one that is sampled from.
    Model,
    /// The weaker one.
    Weaker,
}

/// output = u + w (c − u), with c what is led towards, the network's output for the class, and u what is led away from (Ho and
/// Salimans 2022, eq. 6 with w − 1 for their w; Karras et al. 2024, eq. 4): 0 is u, 1 is c alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// u.
    pub away: Away,
    /// w.
    pub weight: f64,
    /// φ, 0 to 1: how far the guided output is scaled back to the standard deviation of c, image by image
    /// (Lin et al. 2024, section 3.4).
    pub rescale: f64,
    /// The time steps at which it acts, both ends included; at the others c stands alone (Kynkäänniemi et al. 2024).
    pub interval: (f64, f64),
    /// Whether the second half of the channels says a learned variance, which stays that of c.
    pub variance: bool,
}

impl Guidance {
    /// Guidance of this weight at every time step.
    pub fn new(away: Away, weight: f64) -> Self {
        Self { away, weight, rescale: 0.0, interval: (0.0, f64::INFINITY), variance: false }
    }

    /// Passes of a network that a step takes, at most.
    pub fn passes(guidance: Option<&Self>) -> usize {
        if guidance.is_some_and(|guidance| guidance.weight != 1.0) { 2 } else { 1 }
    }

    /// Whether a second pass is needed at a time step.
    pub fn acts_at(&self, time_step: f64) -> bool {
        self.weight != 1.0 && (self.interval.0..=self.interval.1).contains(&time_step)
    }

    /// The guided output, of `c` and `u`, all `[N, H, W, C]`.
    ///
    /// # Errors
    /// Two shapes; when the device fails.
    pub fn combine<B: Backend>(&self, backend: &B, c: View<'_, B>, u: View<'_, B>) -> Result<Tensor<B>, KernelError> {
        if self.variance {
            let [c, variance] = halves(backend, &Tensor::copy_of(backend, c)?)?;
            let [u, _] = halves(backend, &Tensor::copy_of(backend, u)?)?;
            let mean = Self { variance: false, ..self.clone() }.combine(backend, c.view(), u.view())?;
            return beside(backend, &mean, &variance);
        }
        let mut guided = backend.affine(u, 1.0 - self.weight, 0.0)?;
        backend.add_scaled(&mut guided, self.weight, c)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        let [images, height, width, channels] = c.shape().nhwc();
        let wanted = Tensor::copy_of(backend, c)?.to_vec(backend)?;
        let mut values = guided.to_vec(backend)?;
        let size = (height * width * channels).max(1);
        for (image, wanted) in values.chunks_mut(size).zip(wanted.chunks(size)) {
            let factor = self.rescale * deviation(wanted) / deviation(image) + 1.0 - self.rescale;
            // An image of one value has no deviation to be scaled.
            if factor.is_finite() {
                for x in image {
                    *x = Element::of(x.to_f64() * factor);
                }
            }
        }
        Ok(Tensor::from_slice(backend, [images, height, width, channels], &values)?)
    }
}

/// What a network says of x_t at a time step: of images with their classes, guided where guidance acts. Away from no class, that is
/// one pass over the images with and without their classes; away from a weaker network, a pass of each.
///
/// # Errors
/// Those of the network, and when the device has no memory left.
pub fn guided_output<B: Backend, E: From<KernelError>>(
    guidance: Option<&Guidance>,
    backend: &B,
    x: &Tensor<B>,
    time_step: f64,
    classes: Option<&[usize]>,
    network: impl Fn(Asked, &Tensor<B>, &[f32], Option<&[usize]>) -> Result<Tensor<B>, E>,
) -> Result<Tensor<B>, E> {
    let images = x.shape().nhwc()[0];
    let times = vec![time_step as f32; images];
    let Some(guidance) = guidance.filter(|guidance| guidance.acts_at(time_step)) else {
        return network(Asked::Model, x, &times, classes);
    };
    match (guidance.away, classes) {
        (Away::NoClass(null), Some(classes)) => {
            let both = [classes, &vec![null; images]].concat();
            let both = network(Asked::Model, &doubled(backend, x)?, &times.repeat(2), Some(&both))?;
            let [_, height, width, channels] = both.shape().nhwc();
            let half = |first| {
                let half = View::<B>::of(both.view().buffer(), first, [images, height, width, channels]);
                half.map_err(KernelError::from)
            };
            Ok(guidance.combine(backend, half(0)?, half(both.shape().len() / 2)?)?)
        }
        (Away::NoClass(_), None) => network(Asked::Model, x, &times, None),
        (Away::Weaker, classes) => {
            let c = network(Asked::Model, x, &times, classes)?;
            let u = network(Asked::Weaker, x, &times, classes)?;
            Ok(guidance.combine(backend, c.view(), u.view())?)
        }
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
        let [c_images, u_images] = [c, u].map(|images| Tensor::from_slice(&cpu, [2, 2, 2, 1], &images).unwrap());
        let combine = |guidance: Guidance| guidance.combine(&cpu, c_images.view(), u_images.view()).unwrap();
        let guided = |guidance: Guidance| combine(guidance).to_vec(&cpu).unwrap();
        for weight in [0.0, 1.0, 3.0, -0.5] {
            let want: Vec<f32> = c.iter().zip(u).map(|(c, u)| u + weight as f32 * (c - u)).collect();
            let got = guided(Guidance::new(Away::Weaker, weight));
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {want:?}");
        }
        let thrice = Guidance::new(Away::Weaker, 3.0);
        let plain = guided(thrice.clone());
        let full = guided(Guidance { rescale: 1.0, ..thrice.clone() });
        let half = guided(Guidance { rescale: 0.5, ..thrice });
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
        let guidance = Guidance { interval: (100.0, 800.0), ..Guidance::new(Away::NoClass(0), 3.0) };
        assert!([100.0, 500.5, 800.0].iter().all(|&t| guidance.acts_at(t)));
        assert!(![99.0, 801.0].iter().any(|&t| guidance.acts_at(t)));
        let of = |weight| Guidance::new(Away::Weaker, weight);
        assert!(!of(1.0).acts_at(500.0) && of(0.0).acts_at(0.0));
    }

    #[test]
    fn what_is_led_away_from_is_no_class_or_a_weaker_network() {
        let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
        let x = Tensor::from_slice(&cpu, [2, 1, 1, 1], &[1.0, 2.0]).unwrap();
        // says 10 x + class, and the weaker one 100 more
        let network = |asked: Asked, x: &Tensor<Cpu<f32>>, times: &[f32], classes: Option<&[usize]>| {
            let more = if asked == Asked::Weaker { 100.0 } else { 0.0 };
            assert!(times.iter().all(|&t| t == 7.0) && times.len() == x.shape().nhwc()[0]);
            let class = |i: usize| classes.map_or(0.0, |classes| classes[i] as f32);
            let said: Vec<f32> = x.as_slice().iter().enumerate().map(|(i, x)| 10.0 * x + class(i) + more).collect();
            Ok::<_, KernelError>(Tensor::from_slice(&cpu, x.shape(), &said)?)
        };
        let output = |guidance: Option<Guidance>, classes| {
            let output = guided_output(guidance.as_ref(), &cpu, &x, 7.0, classes, network).unwrap();
            output.to_vec(&cpu).unwrap()
        };
        let classes = Some([3, 4].as_slice());
        let [no_class, weaker] = [Away::NoClass(9), Away::Weaker].map(|away| Some(Guidance::new(away, 2.0)));
        assert_eq!(output(None, classes), [13.0, 24.0]);
        assert_eq!(output(no_class.clone(), classes), [13.0 + (3.0 - 9.0), 24.0 + (4.0 - 9.0)]);
        assert_eq!(output(no_class, None), [10.0, 20.0]);
        assert_eq!(output(weaker.clone(), classes), [13.0 - 100.0, 24.0 - 100.0]);
        assert_eq!(output(weaker, None), [10.0 - 100.0, 20.0 - 100.0]);
    }

    #[test]
    fn a_learned_variance_is_left_alone() {
        let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
        let image = |values: [f32; 2]| Tensor::from_slice(&cpu, [1, 1, 1, 2], &values).unwrap();
        let guidance = Guidance { variance: true, ..Guidance::new(Away::Weaker, 2.0) };
        let guided = guidance.combine(&cpu, image([1.0, 5.0]).view(), image([0.5, 6.0]).view()).unwrap();
        assert_eq!(guided.to_vec(&cpu).unwrap(), [1.5, 5.0]);
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
