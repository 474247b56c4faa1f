//! Inception-v3 against pytorch-fid's own class at weights of a formula (`tests/fixtures/eval/make_inception.py`).

use ddpm_tensor::{Cpu, CpuOptions};
use ddpm_train::eval::features::Inception;

use crate::formula::uniform;

#[path = "../../fixtures/fixture.rs"]
mod fixture;

/// Largest error, over 1 and the value; see the test's output for what was measured.
const TOLERANCE: f64 = 1e-4;

/// A tensor of the network: the script makes the same.
fn tensor(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    let value = |u: f64| match name.rsplit_once('.') {
        Some((_, "running_var")) => 0.8 + 0.4 * u,
        Some((layer, "weight")) if layer.ends_with(".bn") => 0.8 + 0.4 * u,
        Some((_, "weight")) => (2.0 * u - 1.0) * (6.0 / fan_in as f64).sqrt(),
        _ => 0.2 * (u - 0.5),
    };
    uniform(name, count).into_iter().map(|u| value(u) as f32).collect()
}

#[test]
fn features_places_and_logits_are_pytorch_fids() {
    let cpu = Cpu::<f32>::new(CpuOptions::default()).unwrap();
    let network = Inception::new(&cpu, &mut |name, shape| Ok(tensor(name, shape))).unwrap();
    let images: Vec<u8> = uniform("images", 2 * 40 * 32 * 3).into_iter().map(|u| (u * 256.0) as u8).collect();
    let seen = network.features(&cpu, &images, [2, 40, 32, 3]).unwrap();
    let mut file = fixture::Arrays::open("eval/inception.npz");
    for (name, got) in [("pooled", &seen.pooled), ("placed", &seen.placed), ("logits", &seen.logits)] {
        let (_, wanted) = file.get::<f32>(name);
        assert_eq!(got.len(), wanted.len(), "{name}");
        let error = |(got, wanted): (&f32, &f32)| f64::from((got - wanted).abs()) / f64::from(wanted.abs()).max(1.0);
        let worst = got.iter().zip(&wanted).map(error).fold(0.0, f64::max);
        let largest = wanted.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        println!("{name}: worst {worst:e}, values up to {largest}");
        assert!(worst <= TOLERANCE, "{name}: {worst:e}");
    }
    // one image alone has the same bits
    let alone = network.features(&cpu, &images[40 * 32 * 3..], [1, 40, 32, 3]).unwrap();
    assert_eq!(alone.pooled, seen.pooled[2048..]);
}

#[test]
fn a_file_of_something_else_is_named() {
    let cpu = Cpu::<f32>::new(CpuOptions::default()).unwrap();
    let message = Inception::from_safetensors(&cpu, b"nothing").unwrap_err().to_string();
    assert!(message.contains("not a safetensors file"), "{message}");
    let other = std::fs::read(fixture::folder("pipeline/unet/diffusion_pytorch_model.safetensors")).unwrap();
    let message = Inception::from_safetensors(&cpu, &other).unwrap_err().to_string();
    assert!(message.contains("Conv2d_1a_3x3.conv.weight"), "{message}");
}
