//! Filling a part of an image (RePaint, Lugmayr et al. 2022).

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::random::Purpose;
use ddpm_tensor::{Element, Tensor};

use super::{Images, Plan, Run, latents};

/// What is known, and how patiently the rest is fitted to it.
#[derive(Debug)]
pub struct Inpainting<'a, B: Backend> {
    /// The image x_0, `[N, H, W, C]`; under the mask it does not matter.
    pub image: &'a Tensor<B>,
    /// 1 where the image is to be filled and 0 where it stays, for every element of `image`.
    pub mask: &'a [f32],
    /// Steps that are taken before some noise is put back.
    pub jump: usize,
    /// How often every such stretch is walked; 1 puts no noise back.
    pub resample: usize,
}

impl<B: Backend> Inpainting<'_, B> {
    /// Calls of the network along a plan.
    pub fn calls(&self, plan: &Plan) -> usize {
        plan.steps.len() * self.resample.max(1)
    }

    /// Draws the masked part, and returns whole images (Lugmayr et al. 2022, algorithm 1).
    ///
    /// After each step the known part is replaced by q(x_s | x_0) of the image (their eq. 8). After a stretch of `jump` steps from
    /// t to s noise is put back, x_t = √(ᾱ_t/ᾱ_s) x_s + √(1 − ᾱ_t/ᾱ_s) ε, and the stretch is walked again, so that the
    /// drawn part can follow the known one.
    ///
    /// # Errors
    /// A plan whose steps remember earlier calls, a mask of another size; those of `model`, `watch` and the device.
    pub fn run<E: From<KernelError>>(
        &self,
        backend: &B,
        plan: &Plan,
        images: Images,
        mut model: impl FnMut(&Tensor<B>, f64) -> Result<Tensor<B>, E>,
        mut watch: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor<B>, E> {
        let setting = |what: &str| KernelError::Setting { operation: "inpaint", what: what.to_owned() };
        if !plan.forgets() {
            return Err(setting(
                "the sampler's steps use earlier calls, which noise that is put back would contradict",
            )
            .into());
        }
        if self.mask.len() != self.image.shape().len() {
            return Err(setting("the mask is not of the image's size").into());
        }
        let x_0 = self.image.to_vec(backend).map_err(KernelError::from)?;
        let x = latents(backend, self.image.shape(), images)?;
        let mut run = Run::new(plan, backend.affine(x.view(), plan.start, 0.0)?);
        let mut calls = 0;
        let stretch = self.jump.max(1);
        for begin in (0..plan.steps.len()).step_by(stretch) {
            for walk in 0..self.resample.max(1) {
                if walk > 0 {
                    run.x = noised_back(backend, plan, &run, begin, images, calls)?;
                    run.back_to(begin);
                }
                for _ in begin..(begin + stretch).min(plan.steps.len()) {
                    let Some(step) = run.next() else { break };
                    let output = match run.input(backend)? {
                        Some(input) => model(&input, step.time_step)?,
                        None => model(&run.x, step.time_step)?,
                    };
                    run.advance(backend, &output, images, false)?;
                    calls += 1;
                    run.x = self.with_known(backend, &run, &x_0, images, calls)?;
                    watch(calls)?;
                }
            }
        }
        Ok(run.x)
    }

    /// x with the known part of the image, as noisy as x is.
    fn with_known(
        &self,
        backend: &B,
        run: &Run<'_, B>,
        x_0: &[B::Elem],
        images: Images,
        call: usize,
    ) -> Result<Tensor<B>, KernelError> {
        let shape = run.x.shape();
        let (alpha_bar, input) = run.next().map_or((1.0, 1.0), |step| (step.alpha_bar, step.input));
        // Another purpose than the sampler's own noise, which has the same steps.
        let z = backend.normals(shape, images.address(Purpose::Noise, call as u64))?.to_vec(backend)?;
        let (signal, noise) = (alpha_bar.sqrt() / input, (1.0 - alpha_bar).sqrt() / input);
        let mut x = run.x.to_vec(backend)?;
        for (((x, x_0), z), mask) in x.iter_mut().zip(x_0).zip(z).zip(self.mask) {
            let (mask, known) = (f64::from(*mask), signal * x_0.to_f64() + noise * z.to_f64());
            *x = Element::of(mask * x.to_f64() + (1.0 - mask) * known);
        }
        Ok(Tensor::from_slice(backend, shape, &x)?)
    }
}

/// x at the noise of an earlier step.
fn noised_back<B: Backend>(
    backend: &B,
    plan: &Plan,
    run: &Run<'_, B>,
    step: usize,
    images: Images,
    call: usize,
) -> Result<Tensor<B>, KernelError> {
    let (from, input) = run.next().map_or((1.0, 1.0), |step| (step.alpha_bar, step.input));
    let to = &plan.steps[step];
    let ratio = to.alpha_bar / from;
    // In the forward process's x_t, and from there to the sampler's own.
    let mut x = backend.affine(run.x.view(), ratio.sqrt() * input / to.input, 0.0)?;
    let z = backend.normals(x.shape(), images.address(Purpose::Latent, 1 + call as u64))?;
    backend.add_scaled(&mut x, (1.0 - ratio).max(0.0).sqrt() / to.input, z.view())?;
    Ok(x)
}
