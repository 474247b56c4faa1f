//! Running a plan on a device.

use ddpm_kernels::posterior::StepCoefficients;
use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Element, Shape, Tensor, View};

use super::bound::{Bound, threshold};
use super::step::{Mix, Update};
use super::{Plan, ReverseStep};
use crate::channels::{beside, halves};
use crate::diffusion::LogVariance;

/// Which images of which seed: image `first + n` stands at place n of the batch.
///
/// All noise is addressed by the image's own index, so that an image of a seed is the same in every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// The seed.
    pub seed: u64,
    /// Index of the first image.
    pub first: u64,
}

impl Images {
    /// Where the noise of a purpose and a step stands.
    pub fn address(self, purpose: Purpose, step: u64) -> Address {
        Address { seed: self.seed, purpose, step, sample: self.first }
    }
}

/// What samplers start from: standard normal x_T, `shape` = `[N, H, W, C]`.
///
/// # Errors
/// When the device fails.
pub fn latents<B: Backend>(backend: &B, shape: Shape, images: Images) -> Result<Tensor<B>, KernelError> {
    backend.normals(shape, images.address(Purpose::Latent, 0))
}

/// What can be seen of a run after each of its steps.
#[derive(Debug)]
pub struct Moment<'a, B: Backend> {
    /// Index of the step that was taken, 0..`of`.
    pub step: usize,
    /// Number of steps.
    pub of: usize,
    /// The time step that the network was told.
    pub time_step: f64,
    /// What the step led to, `[N, H, W, C]`.
    pub x: &'a Tensor<B>,
    /// What that times this is the forward process's x_t.
    pub scale: f64,
    /// The image x̂_0 that the network saw in it, bounded as the plan says; if it was asked for.
    pub x_0: Option<&'a Tensor<B>>,
}

/// A plan under way: x, and what later steps need of earlier ones.
#[derive(Debug)]
pub struct Run<'p, B: Backend> {
    plan: &'p Plan,
    /// The step that comes next.
    done: usize,
    /// Calls done, those of steps that were taken more than once among them: the address of their noise.
    calls: u64,
    /// x as the sampler has it, `[N, H, W, C]`. Between two steps it may be replaced.
    pub x: Tensor<B>,
    /// Every call's value, as long as a later one uses it.
    values: Vec<Option<Tensor<B>>>,
    /// Every call's x (corrected), as long as a later one uses it.
    bases: Vec<Option<Tensor<B>>>,
    /// The last call's x̂_0, where the network is shown it.
    seen: Option<Tensor<B>>,
}

impl<'p, B: Backend> Run<'p, B> {
    /// Before the first step, with `x` as the plan's first step takes it.
    pub fn new(plan: &'p Plan, x: Tensor<B>) -> Self {
        Self { plan, done: 0, calls: 0, x, values: Vec::new(), bases: Vec::new(), seen: None }
    }

    /// The step that comes next; none at the end.
    pub fn next(&self) -> Option<&'p ReverseStep> {
        self.plan.steps.get(self.done)
    }

    /// Goes back to a step, or ahead; what it remembers of other calls is gone. New noise is drawn all the same.
    pub fn back_to(&mut self, step: usize) {
        self.done = step;
        self.values = (0..step).map(|_| None).collect();
        self.bases = (0..step).map(|_| None).collect();
        self.seen = None;
    }

    /// What the network is to see, where that is not x itself.
    ///
    /// # Errors
    /// When the device fails.
    pub fn input(&self, backend: &B) -> Result<Option<Tensor<B>>, KernelError> {
        let Some(step) = self.next() else { return Ok(None) };
        let input = match step.input {
            1.0 => None,
            input => Some(backend.affine(self.x.view(), input, 0.0)?),
        };
        if !step.self_conditioned {
            return Ok(input);
        }
        let x = input.as_ref().unwrap_or(&self.x);
        Ok(Some(match &self.seen {
            Some(x_0) => beside(backend, x, x_0)?,
            None => beside(backend, x, &Tensor::zeros(backend, x.shape())?)?,
        }))
    }

    /// Takes the next step with the network's output, and returns x̂_0 if asked for it. Does nothing at the end. An output of twice
    /// the channels of x says the variance in its second half.
    ///
    /// # Errors
    /// An output of another shape, or when the device fails.
    pub fn advance(
        &mut self,
        backend: &B,
        output: &Tensor<B>,
        images: Images,
        show_x_0: bool,
    ) -> Result<Option<Tensor<B>>, KernelError> {
        let Some(step) = self.next() else { return Ok(None) };
        let says_variance = output.shape().nhwc()[3] == 2 * self.x.shape().nhwc()[3];
        let halves = if says_variance { Some(halves(backend, output)?) } else { None };
        let (output, variance) = match &halves {
            Some([output, variance]) => (output, Some(variance)),
            None => (output, None),
        };
        let here = self.done;
        let keeps_value = is_used(self.plan, here, here + 1, Update::uses_value);
        let keeps_base = is_used(self.plan, here, here + 1, Update::uses_base);
        let address = images.address(Purpose::Sampler, self.calls);
        let simple = step.correct.is_none() && !matches!(step.bound, Bound::Dynamic(_));
        let wants_x_0 = show_x_0 || step.self_conditioned || (keeps_value && step.value.x_0 != 0.0);

        let (mut next, base, x_0) = if simple {
            let (x, output) = (self.x.view(), output.view());
            let (next, x_0) = backend.reverse_step(x, output, &step.coefficients(), address, wants_x_0)?;
            (next, None, x_0)
        } else {
            let x_0 = self.x_0(backend, step, output)?;
            let base = match &step.correct {
                Some(correct) => Some(self.update(backend, correct, self.x.view(), &x_0, output)?),
                None => None,
            };
            let x = base.as_ref().unwrap_or(&self.x).view();
            let next = mix(backend, step.advance.now, x, &x_0, output, step.sigma, address)?;
            (next, base, Some(x_0))
        };
        self.add_earlier(backend, &step.advance, &mut next)?;
        if let Some(log_variance) = step.log_variance {
            next = noised(backend, &next, log_variance, variance, address)?;
        }

        let value = if keeps_value { Some(self.value(backend, step.value, x_0.as_ref(), output)?) } else { None };
        let x = std::mem::replace(&mut self.x, next);
        self.values.push(value);
        self.bases.push(keeps_base.then(|| base.unwrap_or(x)));
        self.done += 1;
        self.calls += 1;
        self.forget();
        if step.self_conditioned {
            self.seen = x_0.as_ref().map(|x_0| Tensor::copy_of(backend, x_0.view())).transpose()?;
        }
        Ok(x_0.filter(|_| show_x_0))
    }

    /// x̂_0, bounded.
    fn x_0(&self, backend: &B, step: &ReverseStep, output: &Tensor<B>) -> Result<Tensor<B>, KernelError> {
        let only = ReverseStep { sigma: 0.0, ..step.clone().to(Mix::X_0) };
        let address = Images { seed: 0, first: 0 }.address(Purpose::Sampler, 0); // nothing is drawn
        let (x_0, _) = backend.reverse_step(self.x.view(), output.view(), &only.coefficients(), address, false)?;
        match step.bound {
            Bound::Dynamic(settings) => threshold(backend, &x_0, settings),
            Bound::None | Bound::Clip(_) => Ok(x_0),
        }
    }

    /// What later calls use of this one.
    fn value(
        &self,
        backend: &B,
        value: Mix,
        x_0: Option<&Tensor<B>>,
        output: &Tensor<B>,
    ) -> Result<Tensor<B>, KernelError> {
        let parts = [(value.x, Some(&self.x)), (value.x_0, x_0), (value.output, Some(output))];
        let mut sum: Option<Tensor<B>> = None;
        for (factor, part) in parts {
            let Some(part) = part.filter(|_| factor != 0.0) else { continue };
            match &mut sum {
                Some(sum) => backend.add_scaled(sum, factor, part.view())?,
                None => sum = Some(backend.affine(part.view(), factor, 0.0)?),
            }
        }
        match sum {
            Some(sum) => Ok(sum),
            None => Ok(Tensor::zeros(backend, self.x.shape())?),
        }
    }

    /// A new x from `x`, without noise.
    fn update(
        &self,
        backend: &B,
        update: &Update,
        x: View<'_, B>,
        x_0: &Tensor<B>,
        output: &Tensor<B>,
    ) -> Result<Tensor<B>, KernelError> {
        let address = Images { seed: 0, first: 0 }.address(Purpose::Sampler, 0); // nothing is drawn
        let mut next = mix(backend, update.now, x, x_0, output, 0.0, address)?;
        self.add_earlier(backend, update, &mut next)?;
        Ok(next)
    }

    /// Adds what an update takes from earlier calls.
    fn add_earlier(&self, backend: &B, update: &Update, to: &mut Tensor<B>) -> Result<(), KernelError> {
        for &(ago, factor) in &update.values {
            if let Some(value) = ago_of(&self.values, ago) {
                backend.add_scaled(to, factor, value.view())?;
            }
        }
        if let Some((ago, factor)) = update.base
            && let Some(base) = ago_of(&self.bases, ago)
        {
            backend.add_scaled(to, factor, base.view())?;
        }
        Ok(())
    }

    /// Drops what no later call uses.
    fn forget(&mut self) {
        let (plan, done) = (self.plan, self.done);
        let lists = [(&mut self.values, Update::uses_value as Uses), (&mut self.bases, Update::uses_base)];
        for (list, uses) in lists {
            for (i, kept) in list.iter_mut().enumerate().rev().take(Plan::LONGEST_MEMORY + 1) {
                if kept.is_some() && !is_used(plan, i, done, uses) {
                    *kept = None;
                }
            }
        }
    }
}

/// What stands so many calls back.
fn ago_of<T>(list: &[Option<T>], ago: usize) -> Option<&T> {
    list.get(list.len().checked_sub(ago)?)?.as_ref()
}

/// Whether an update uses something of a call so many calls ago.
type Uses = fn(&Update, usize) -> bool;

/// Whether a call from `from` on uses something of call `i`.
fn is_used(plan: &Plan, i: usize, from: usize, uses: Uses) -> bool {
    let reach = from..plan.steps.len().min(i + 1 + Plan::LONGEST_MEMORY);
    reach.into_iter().any(|call| {
        let step = &plan.steps[call];
        uses(&step.advance, call - i) || step.correct.as_ref().is_some_and(|correct| uses(correct, call - i))
    })
}

/// x with noise of a variance that the network says, element by element. It is added on the host.
fn noised<B: Backend>(
    backend: &B,
    x: &Tensor<B>,
    log_variance: LogVariance,
    said: Option<&Tensor<B>>,
    address: Address,
) -> Result<Tensor<B>, KernelError> {
    let Some(said) = said else {
        let what = "the variance is learned, but the network says none".to_owned();
        return Err(KernelError::Setting { operation: "reverse_step", what });
    };
    let z = backend.normals(x.shape(), address)?.to_vec(backend)?;
    let (mut values, said) = (x.to_vec(backend)?, said.to_vec(backend)?);
    for ((x, z), said) in values.iter_mut().zip(z).zip(said) {
        let sigma = libm::exp(0.5 * log_variance.of(said.to_f64()));
        *x = Element::of(x.to_f64() + sigma * z.to_f64());
    }
    Ok(Tensor::from_slice(backend, x.shape(), &values)?)
}

/// A mix of x, x̂_0 and output, and noise.
fn mix<B: Backend>(
    backend: &B,
    now: Mix,
    x: View<'_, B>,
    x_0: &Tensor<B>,
    output: &Tensor<B>,
    sigma: f64,
    address: Address,
) -> Result<Tensor<B>, KernelError> {
    let coefficients = StepCoefficients {
        predict_x: 0.0,
        predict_output: 1.0,
        clip: f32::INFINITY,
        from_x_0: now.x_0 as f32,
        from_x: now.x as f32,
        from_output: 0.0,
        sigma: sigma as f32,
    };
    let (mut next, _) = backend.reverse_step(x, x_0.view(), &coefficients, address, false)?;
    if now.output != 0.0 {
        backend.add_scaled(&mut next, now.output, output.view())?;
    }
    Ok(next)
}

impl Plan {
    /// How many calls back a step may look: to the first call of a Runge-Kutta start.
    const LONGEST_MEMORY: usize = 12;

    /// Takes standard normal `latents` (`[N, H, W, C]`) through all steps: see [`Plan::run_from`].
    ///
    /// # Errors
    /// Those of `model`, `watch` and the device.
    pub fn run<B: Backend, E: From<KernelError>>(
        &self,
        backend: &B,
        latents: Tensor<B>,
        images: Images,
        show_x_0: bool,
        model: impl FnMut(&Tensor<B>, f64) -> Result<Tensor<B>, E>,
        watch: impl FnMut(&Moment<'_, B>) -> Result<(), E>,
    ) -> Result<Tensor<B>, E> {
        let x = if self.start == 1.0 { latents } else { backend.affine(latents.view(), self.start, 0.0)? };
        self.run_from(backend, x, images, show_x_0, model, watch)
    }

    /// Takes `x` (`[N, H, W, C]`), as the first step has it, through all steps.
    ///
    /// `model` is called with x_t and the time step t of all images, and returns what the network predicts, of x_t's shape; with
    /// self-conditioning, x̂_0 stands beside x_t, and with a learned variance, the variance beside the prediction. `watch` is called after each step, with x̂_0 if `show_x_0`; its error ends the run.
    ///
    /// # Errors
    /// Those of `model`, `watch` and the device.
    pub fn run_from<B: Backend, E: From<KernelError>>(
        &self,
        backend: &B,
        x: Tensor<B>,
        images: Images,
        show_x_0: bool,
        mut model: impl FnMut(&Tensor<B>, f64) -> Result<Tensor<B>, E>,
        mut watch: impl FnMut(&Moment<'_, B>) -> Result<(), E>,
    ) -> Result<Tensor<B>, E> {
        let mut run = Run::new(self, x);
        for (i, step) in self.steps.iter().enumerate() {
            let output = match run.input(backend)? {
                Some(input) => model(&input, step.time_step)?,
                None => model(&run.x, step.time_step)?,
            };
            let x_0 = run.advance(backend, &output, images, show_x_0)?;
            let scale = run.next().map_or(1.0, |next| next.input);
            let (x, x_0) = (&run.x, x_0.as_ref());
            watch(&Moment { step: i, of: self.steps.len(), time_step: step.time_step, x, scale, x_0 })?;
        }
        Ok(run.x)
    }
}
