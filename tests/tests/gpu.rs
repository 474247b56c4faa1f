//! A whole network on the GPU's kernels against the CPU: forward, every gradient, training, sampling, checkpoints.
//!
//! No GPU is needed: each test runs itself again, with a stand-in for NVIDIA's driver where the dynamic loader looks first.
//! That driver runs the kernels' own sources on the CPU, in an order of threads that each test chooses.
#![allow(clippy::unwrap_used)]

#[path = "../fixtures/fixture.rs"]
mod fixture;
#[path = "../../crates/ddpm-kernels/tests/cuda_on_cpu/stand_in.rs"]
mod stand_in;

use std::fmt::Write as _;

use ddpm_kernels::Backend;
use ddpm_kernels::loss::LossKind;
use ddpm_kernels::posterior::StepCoefficients;
use ddpm_nn::{Mode, Parameters, UNet, diffusers};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Cuda, Precision, Shape, Tensor};
use ddpm_tests::{assert_same_files, tiny_data, tiny_settings};
use ddpm_train::checkpoint::Checkpoint;
use ddpm_train::settings::Settings;
use ddpm_train::trainer::{Engine, Trainer};
use fixture::{Compared, FORWARD_TOLERANCE, GRADIENT_TOLERANCE, relative, worst_gradient};

/// Of the loss of a training step, relative, between devices.
const LOSS_TOLERANCE: f64 = 1e-4;

const NETWORKS: [&str; 3] = ["paper_like", "defaults_scale_shift", "three_levels"];

/// Runs `body` in this test's own process again, where a GPU answers; `settings` are the stand-in driver's.
fn with_gpu(test: &str, settings: &str, body: impl FnOnce(Cuda)) {
    if std::env::var_os("DDPM_STAND_IN").is_some() {
        return body(Cuda::new(0, Precision::Strict).unwrap());
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let output = again.env("LD_LIBRARY_PATH", stand_in::folder()).env("DDPM_STAND_IN", settings).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn cpu() -> Cpu {
    Cpu::new(CpuOptions { precision: Precision::Strict, ..CpuOptions::default() }).unwrap()
}

fn normal<B: Backend<Elem = f32>>(backend: &B, stream: u64, shape: impl Into<Shape>) -> Tensor<B> {
    backend.normals(shape.into(), Address::new(3, Purpose::Test).at_step(stream)).unwrap()
}

/// What gradients are of.
#[derive(Debug, Clone, Copy)]
enum Of {
    Error,
    Product,
}

/// A network with a batch of its size.
struct Case {
    unet: UNet,
    flat: Vec<f32>,
    size: [usize; 4],
    timesteps: Vec<f32>,
    classes: Option<Vec<usize>>,
}

impl Case {
    fn new(name: &str, images: usize) -> Self {
        let (config, weights) = fixture::network(name);
        let (unet, flat) = diffusers::import(&config, &weights).unwrap();
        let config = unet.config();
        let size = config.sample_size.unwrap();
        Self {
            size: [images, size.height(), size.width(), config.in_channels],
            timesteps: (0..images).map(|i| (i * 331 % 1000) as f32).collect(),
            classes: config
                .is_class_conditional()
                .then(|| (0..images).map(|i| i % config.num_class_embeds.unwrap_or(usize::MAX)).collect()),
            unet,
            flat,
        }
    }

    /// The output, and the input's and the parameters' gradients: of the mean squared error, or of the product with a given
    /// tensor. (The error's own gradient is that of a difference; a bias of the last layer sums it, and what rounding did
    /// to the output it would show many times over.)
    fn pass<B: Backend<Elem = f32>>(&self, backend: &B, of: Of) -> [Vec<f32>; 3] {
        let parameters = Parameters::from_host(backend, self.unet.layout(), &self.flat).unwrap();
        let x = normal(backend, 1, self.size);
        let classes = self.classes.as_deref();
        let (y, cache) =
            self.unet.forward(backend, &parameters, x.view(), &self.timesteps, classes, Mode::Differentiate).unwrap();
        let target = normal(backend, 2, y.shape());
        let d_output = match of {
            Of::Product => target,
            Of::Error => {
                let (weights, scale) = (vec![1.0; self.size[0]], 1.0 / y.shape().len() as f64);
                backend.loss(LossKind::L2, y.view(), target.view(), &weights, scale).unwrap().d_output
            }
        };
        let mut grads = Parameters::zeros(backend, self.unet.layout()).unwrap();
        let dx = self
            .unet
            .backward(backend, &parameters, cache.unwrap(), d_output.view(), Some(&mut grads), true)
            .unwrap()
            .unwrap();
        [y.to_vec(backend).unwrap(), dx.to_vec(backend).unwrap(), grads.to_host(backend).unwrap()]
    }
}

/// How far the GPU may be from the CPU's `strict`: its output, and each gradient.
struct Bounds {
    of: Of,
    output: f64,
    gradient: f64,
}

impl Case {
    /// Fails unless the GPU agrees with the CPU, and with itself to the bit.
    fn assert_agrees(&self, cuda: &Cuda, what: &str, bounds: &Bounds) {
        let [y, dx, grads] = self.pass(cuda, bounds.of);
        let [y_cpu, dx_cpu, grads_cpu] = self.pass(&cpu(), bounds.of);
        let named = |flat: &[f32]| diffusers::named(self.unet.layout(), flat).unwrap();
        let (ours, theirs) = (named(&grads), named(&grads_cpu));
        let compared: Vec<_> = ours
            .iter()
            .zip(&theirs)
            .map(|(a, b)| Compared { name: &a.name, ours: &a.values, reference: &b.values })
            .collect();
        let (gradient, whose) = worst_gradient(&compared);
        let (output, input) = (relative(&y, &y_cpu), relative(&dx, &dx_cpu));
        assert!(output <= bounds.output, "{what}: output {output:.1e}");
        assert!(input <= bounds.gradient, "{what}: input's gradient {input:.1e}");
        assert!(gradient <= bounds.gradient, "{what}: {whose} {gradient:.1e}");
        if let Of::Error = bounds.of {
            assert_eq!(self.pass(cuda, bounds.of), [y, dx, grads], "{what}: the second pass has other bits");
        }
    }
}

#[test]
fn every_output_and_gradient_agrees() {
    with_gpu("every_output_and_gradient_agrees", "schedule=2 seed=7", |cuda| {
        for name in NETWORKS {
            let bounds = Bounds { of: Of::Error, output: FORWARD_TOLERANCE, gradient: GRADIENT_TOLERANCE };
            Case::new(name, 3).assert_agrees(&cuda, name, &bounds);
        }
    });
}

#[test]
fn every_output_and_gradient_agrees_on_tensor_cores() {
    with_gpu("every_output_and_gradient_agrees_on_tensor_cores", "schedule=2 seed=8", |_| {
        for name in NETWORKS {
            let case = Case::new(name, 1);
            for (precision, output, gradient) in [(Precision::F32, 3e-5, 1e-4), (Precision::Bf16, 2e-2, 5e-2)] {
                let cuda = Cuda::new(0, precision).unwrap();
                case.assert_agrees(
                    &cuda,
                    &format!("{name}, {precision}"),
                    &Bounds { of: Of::Product, output, gradient },
                );
            }
        }
    });
}

#[test]
fn micro_batches_have_the_bits_of_the_batch_on_tensor_cores() {
    with_gpu("micro_batches_have_the_bits_of_the_batch_on_tensor_cores", "schedule=1", |_| {
        let mut parts = settings();
        parts.train.micro_batch = 16;
        let reference = losses(&mut trainer(cpu(), "cpu", &settings()), 2);
        for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::Bf16, 2e-2)] {
            let cuda = Cuda::new(0, precision).unwrap();
            let whole = losses(&mut trainer(cuda.clone(), "cuda", &settings()), 2);
            assert_eq!(losses(&mut trainer(cuda, "cuda", &parts), 2), whole, "{precision}");
            assert_close(&precision.to_string(), &whole, &reference, tolerance);
            assert_ne!(whole, reference, "{precision}");
        }
    });
}

/// 32 images a step, so that micro-batches of 16 are two.
fn settings() -> Settings {
    let mut settings = tiny_settings();
    settings.train.batch = 32;
    settings.train.steps = 20;
    settings
}

fn trainer<B: Backend<Elem = f32>>(backend: B, isa: &str, settings: &Settings) -> Trainer<B> {
    let engine = Engine { isa: isa.into(), precision: "strict".into() };
    Trainer::new(backend, engine, settings.clone(), &tiny_data()).unwrap()
}

fn losses<B: Backend<Elem = f32>>(trainer: &mut Trainer<B>, steps: usize) -> Vec<f64> {
    (0..steps).map(|_| trainer.step().unwrap().loss).collect()
}

fn assert_close(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    let mut table = String::new();
    for (a, b) in ours.iter().zip(theirs) {
        writeln!(table, "{a} {b} {:.1e}", (a / b - 1.0).abs()).unwrap();
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(theirs).all(|(a, b)| (a / b - 1.0).abs() <= tolerance), "{what}:\n{table}");
}

#[test]
fn twenty_training_steps_agree_and_checkpoints_go_from_device_to_device() {
    const SAVED_AT: usize = 16;
    const TEST: &str = "twenty_training_steps_agree_and_checkpoints_go_from_device_to_device";
    with_gpu(TEST, "schedule=1", |cuda| {
        let reference = losses(&mut trainer(cpu(), "cpu", &settings()), 20);
        let folder = tempfile::tempdir().unwrap();
        let mut on_gpu = trainer(cuda.clone(), "cuda", &settings());
        let mut all = losses(&mut on_gpu, SAVED_AT);
        let saved = Checkpoint::open(&on_gpu.save(&folder.path().join("one")).unwrap()).unwrap();
        all.extend(losses(&mut on_gpu, 20 - SAVED_AT));
        assert_close("twenty steps", &all, &reference, LOSS_TOLERANCE);

        // the same numbers in micro-batches of 16, and from a checkpoint
        let mut parts = settings();
        parts.train.micro_batch = 16;
        assert_eq!(losses(&mut trainer(cuda.clone(), "cuda", &parts), 3), all[..3]);
        let mut again = trainer(cuda.clone(), "cuda", &settings());
        assert!(again.restore(&saved).unwrap().is_none());
        assert_eq!(losses(&mut again, 20 - SAVED_AT), all[SAVED_AT..]);
        let twice = [(&on_gpu, "two"), (&again, "three")].map(|(t, name)| t.save(&folder.path().join(name)).unwrap());
        assert_same_files("stopped and gone on", &twice[0], &twice[1]);

        // what the GPU began the CPU ends, and the other way around
        let mut on_cpu = trainer(cpu(), "cpu", &settings());
        let line = on_cpu.restore(&saved).unwrap().unwrap();
        assert!(line.contains("resuming with cpu") && line.contains("cuda"), "{line}");
        assert_close("begun on the GPU", &losses(&mut on_cpu, 20 - SAVED_AT), &reference[SAVED_AT..], LOSS_TOLERANCE);
        let mut on_cpu = trainer(cpu(), "cpu", &settings());
        losses(&mut on_cpu, SAVED_AT);
        let saved = Checkpoint::open(&on_cpu.save(&folder.path().join("four")).unwrap()).unwrap();
        let mut on_gpu = trainer(cuda, "cuda", &settings());
        on_gpu.restore(&saved).unwrap();
        assert_close("begun on the CPU", &losses(&mut on_gpu, 2), &reference[SAVED_AT..SAVED_AT + 2], LOSS_TOLERANCE);
    });
}

#[test]
fn fifty_steps_of_sampling_agree() {
    with_gpu("fifty_steps_of_sampling_agree", "schedule=0", |cuda| {
        let case = Case::new("paper_like", 1);
        let cpu = cpu();
        let on_cpu = Parameters::from_host(&cpu, case.unet.layout(), &case.flat).unwrap();
        let on_gpu = Parameters::from_host(&cuda, case.unet.layout(), &case.flat).unwrap();
        let schedule = Settings::default().schedule().build().unwrap();
        let alpha_bar = |t: usize| schedule.alpha_bar()[t];
        let address = Address::new(1, Purpose::Sampler);
        let mut x = normal(&cpu, 5, case.size);
        for t in (0..1000).step_by(20).rev() {
            // Song et al. 2021, eq. 12 with sigma 0
            let (now, before) = (alpha_bar(t), if t < 20 { 1.0 } else { alpha_bar(t - 20) });
            let c = StepCoefficients {
                predict_x: (1.0 / now.sqrt()) as f32,
                predict_output: -((1.0 - now) / now).sqrt() as f32,
                clip: f32::INFINITY,
                from_x_0: before.sqrt() as f32,
                from_x: 0.0,
                from_output: (1.0 - before).sqrt() as f32,
                sigma: 0.0,
            };
            // each from the CPU's own x_t: errors of an untrained network grow from step to step
            let times = [t as f32];
            let here = Tensor::from_slice(&cuda, x.shape(), x.as_slice()).unwrap();
            let (y, _) = case.unet.forward(&cuda, &on_gpu, here.view(), &times, None, Mode::Infer).unwrap();
            let (next, _) = cuda.reverse_step(here.view(), y.view(), &c, address, false).unwrap();
            let (y, _) = case.unet.forward(&cpu, &on_cpu, x.view(), &times, None, Mode::Infer).unwrap();
            (x, _) = cpu.reverse_step(x.view(), y.view(), &c, address, false).unwrap();
            let error = relative(&next.to_vec(&cuda).unwrap(), x.as_slice());
            assert!(error <= FORWARD_TOLERANCE, "t = {t}: {error:.1e}");
        }
    });
}
