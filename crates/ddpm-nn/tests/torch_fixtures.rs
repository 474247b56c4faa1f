//! The network against PyTorch: outputs and every gradient, on files that `tests/fixtures/make_fixtures.py` made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../../../tests/fixtures/fixture.rs"]
mod fixture;

use ddpm_kernels::Backend;
use ddpm_nn::{Mode, Parameters, UNet, UNetConfig, diffusers};
use ddpm_tensor::{Cpu, CpuOptions, Element, Precision, Tensor};
use fixture::{Arrays, Compared, FORWARD_TOLERANCE, GRADIENT_TOLERANCE};

const NETWORKS: [&str; 3] = ["paper_like", "defaults_scale_shift", "three_levels"];

/// In f64 only the references' own rounding to f32 remains, and that of the sinusoids.
const F64_TOLERANCE: f64 = 5e-7;

fn strict<T: Element>() -> Cpu<T> {
    Cpu::new(CpuOptions { precision: Precision::Strict, ..CpuOptions::default() }).unwrap()
}

/// The images, time steps and classes of a `case.npz`.
struct Batch {
    shape: Vec<usize>,
    x: Vec<f32>,
    timesteps: Vec<f32>,
    classes: Option<Vec<usize>>,
}

impl Batch {
    fn of(case: &mut Arrays) -> Self {
        let (shape, x) = case.get::<f32>("input");
        let timesteps = case.get::<i64>("timesteps").1.iter().map(|&t| t as f32).collect();
        let classes = case.find::<i64>("classes").map(|(_, c)| c.iter().map(|&c| c as usize).collect());
        Self { shape, x, timesteps, classes }
    }
}

/// Images on a device.
fn tensor<B: Backend>(backend: &B, shape: &[usize], values: &[f32]) -> Tensor<B> {
    let &[n, h, w, c] = shape else { panic!("images have four sizes, not {shape:?}") };
    let values: Vec<B::Elem> = values.iter().map(|&v| B::Elem::of_f32(v)).collect();
    Tensor::from_slice(backend, [n, h, w, c], &values).unwrap()
}

/// A device's numbers rounded to f32.
fn as_f32<E: Element>(values: Vec<E>) -> Vec<f32> {
    values.into_iter().map(E::to_f32).collect()
}

/// The error of the network's output on a fixture.
fn forward_error<B: Backend>(backend: &B, name: &str, unet: &UNet, flat: &[f32]) -> f64 {
    let mut case = Arrays::open(&format!("{name}/case.npz"));
    let batch = Batch::of(&mut case);
    let parameters = Parameters::from_host(backend, unet.layout(), flat).unwrap();
    let x = tensor(backend, &batch.shape, &batch.x);
    let classes = batch.classes.as_deref();
    let (y, cache) = unet.forward(backend, &parameters, x.view(), &batch.timesteps, classes, Mode::Infer).unwrap();
    assert!(cache.is_none(), "inference keeps nothing");
    fixture::relative(&as_f32(y.to_vec(backend).unwrap()), &case.get("output").1)
}

/// Errors of one fixture: of the output, of the input's gradient, and of the worst parameter's.
struct Errors {
    output: f64,
    input_grad: f64,
    gradient: f64,
    whose: String,
}

fn errors<B: Backend>(backend: &B, name: &str) -> Errors {
    let (config, weights) = fixture::network(name);
    let (unet, flat) = diffusers::import(&config, &weights).unwrap();
    let mut case = Arrays::open(&format!("{name}/case.npz"));
    let batch = Batch::of(&mut case);
    let parameters = Parameters::from_host(backend, unet.layout(), &flat).unwrap();
    let x = tensor(backend, &batch.shape, &batch.x);
    let classes = batch.classes.as_deref();
    let (y, cache) =
        unet.forward(backend, &parameters, x.view(), &batch.timesteps, classes, Mode::Differentiate).unwrap();
    let y_shape = y.shape();
    let y = y.to_vec(backend).unwrap();

    // loss = mean (y − target)²
    let target = case.get::<f32>("target").1;
    let count = target.len() as f64;
    let difference: Vec<f64> = y.iter().zip(&target).map(|(y, &t)| y.to_f64() - f64::from(t)).collect();
    let loss = difference.iter().map(|d| d * d).sum::<f64>() / count;
    let expected = case.get::<f64>("loss").1[0];
    assert!((loss / expected - 1.0).abs() < 1e-5, "{name}: loss {loss}, PyTorch's {expected}");
    let dy: Vec<B::Elem> = difference.iter().map(|d| B::Elem::of(2.0 * d / count)).collect();
    let dy = Tensor::from_slice(backend, y_shape, &dy).unwrap();

    let mut grads = Parameters::zeros(backend, unet.layout()).unwrap();
    let dx = unet.backward(backend, &parameters, cache.unwrap(), dy.view(), Some(&mut grads), true).unwrap().unwrap();
    let ours = diffusers::named(unet.layout(), &as_f32(grads.to_host(backend).unwrap())).unwrap();
    assert_eq!(ours.len(), case.names("grad.").len(), "{name}: number of parameters");
    let references: Vec<_> = ours.iter().map(|g| case.get::<f32>(&format!("grad.{}", g.name))).collect();
    let compared: Vec<_> = ours
        .iter()
        .zip(&references)
        .map(|(g, (shape, reference))| {
            assert_eq!(&g.shape, shape, "{name}: shape of {}", g.name);
            Compared { name: &g.name, ours: &g.values, reference }
        })
        .collect();
    let (gradient, whose) = fixture::worst_gradient(&compared);
    let errors = Errors {
        output: fixture::relative(&as_f32(y), &case.get("output").1),
        input_grad: fixture::relative(&as_f32(dx.to_vec(backend).unwrap()), &case.get("input_grad").1),
        gradient,
        whose: whose.to_owned(),
    };
    println!(
        "{name:22} output {:.1e}, input's gradient {:.1e}, worst gradient {gradient:.1e}: {whose}",
        errors.output, errors.input_grad
    );
    errors
}

fn assert_within<B: Backend>(backend: &B, forward: f64, gradient: f64) {
    for name in NETWORKS {
        let e = errors(backend, name);
        assert!(e.output < forward, "{name}: the output differs by {:.1e}", e.output);
        assert!(e.input_grad < gradient, "{name}: the input's gradient differs by {:.1e}", e.input_grad);
        assert!(e.gradient < gradient, "{name}: the gradient of {} differs by {:.1e}", e.whose, e.gradient);
    }
}

#[test]
fn outputs_and_gradients_are_pytorchs() {
    assert_within(&strict::<f32>(), FORWARD_TOLERANCE, GRADIENT_TOLERANCE);
}

#[test]
fn in_f64_only_the_rounding_of_the_files_remains() {
    assert_within(&strict::<f64>(), F64_TOLERANCE, F64_TOLERANCE);
}

#[test]
fn old_attention_names_and_missing_keys_are_understood() {
    let (config, weights) = fixture::network("old_names");
    let (unet, flat) = diffusers::import(&config, &weights).unwrap();
    let error = forward_error(&strict::<f32>(), "old_names", &unet, &flat);
    assert!(error < FORWARD_TOLERANCE, "the output differs by {error:.1e}");
}

#[test]
fn what_is_exported_is_what_diffusers_wrote() {
    fn tensors(bytes: &[u8]) -> Vec<(String, Vec<usize>, Vec<u8>)> {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut all: Vec<_> =
            file.iter().map(|(name, t)| (name.to_owned(), t.shape().to_vec(), t.data().to_vec())).collect();
        all.sort();
        all
    }
    for name in NETWORKS {
        let (config, weights) = fixture::network(name);
        let (unet, flat) = diffusers::import(&config, &weights).unwrap();
        let (our_config, our_weights) = diffusers::export(&unet, &flat).unwrap();
        assert!(tensors(&our_weights) == tensors(&weights), "{name}: tensors differ");
        assert_eq!(UNetConfig::from_json(&our_config).unwrap(), UNetConfig::from_json(&config).unwrap(), "{name}");
    }
}

/// Each option changed alone must show in the output: else the fixtures could not see it ignored.
#[test]
fn the_fixtures_see_every_option() {
    type Change = (&'static str, &'static str, fn(&mut UNetConfig));
    let changes: [Change; 11] = [
        ("paper_like", "norm_eps", |c| c.norm_eps = 1e-5),
        ("paper_like", "freq_shift", |c| c.freq_shift = 0),
        ("paper_like", "flip_sin_to_cos", |c| c.flip_sin_to_cos = true),
        ("paper_like", "downsample_padding", |c| c.downsample_padding = 1),
        ("paper_like", "norm_num_groups", |c| c.norm_num_groups = 2),
        ("paper_like", "attention_head_dim", |c| c.attention_head_dim = Some(4)),
        ("defaults_scale_shift", "attention_head_dim", |c| c.attention_head_dim = None),
        ("defaults_scale_shift", "downsample_padding", |c| c.downsample_padding = 0),
        ("three_levels", "center_input_sample", |c| c.center_input_sample = false),
        ("three_levels", "mid_block_scale_factor", |c| c.mid_block_scale_factor = 1.0),
        ("three_levels", "norm_eps", |c| c.norm_eps = 1e-5),
    ];
    let cpu = strict::<f64>();
    for (name, option, change) in changes {
        let (text, weights) = fixture::network(name);
        let mut config = UNetConfig::from_json(&text).unwrap();
        change(&mut config);
        let unet = UNet::new(&config).unwrap();
        let flat = diffusers::read(unet.layout(), &weights).unwrap();
        let error = forward_error(&cpu, name, &unet, &flat);
        println!("{name}, {option}: {error:.1e}");
        assert!(error > 2.0 * F64_TOLERANCE, "{name}: changing {option} moves the output by {error:.1e} only");
    }
}
