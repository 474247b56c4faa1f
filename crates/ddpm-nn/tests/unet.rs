//! Facts about whole networks: sizes, what an image's output depends on, what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use ddpm_nn::{Classes, Mode, NnError, Parameters, UNet, UNetConfig};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Tensor};

type C = Cpu<f32>;

fn unet(config: &str) -> UNet {
    UNet::new(&UNetConfig::from_json(config).unwrap()).unwrap()
}

fn cpu() -> C {
    C::new(CpuOptions::default()).unwrap()
}

/// Initial parameters whose "zero" layers are not zero, so that everything shows in the output.
fn parameters(cpu: &C, unet: &UNet) -> Parameters<C> {
    let mut flat = unet.initial(1);
    for p in unet.layout().parameters() {
        let mut noise = vec![0.0; p.range.len()];
        Address::new(p.range.start as u64, Purpose::Test).fill_normal(0, &mut noise);
        flat[p.range.clone()].iter_mut().zip(noise).for_each(|(v, z)| *v += 0.1 * z);
    }
    Parameters::from_host(cpu, unet.layout(), &flat).unwrap()
}

fn images(n: usize, h: usize, w: usize, c: usize) -> Vec<f32> {
    let mut x = vec![0.0; n * h * w * c];
    Address::new(5, Purpose::Test).fill_normal(0, &mut x);
    x
}

const SMALL: &str = r#"{"in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16], "norm_num_groups": 4,
    "layers_per_block": 1, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "dropout": 0.2,
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "num_class_embeds": 7}"#;

#[test]
fn the_papers_networks_have_the_papers_sizes() {
    let paper = r#""norm_eps": 1e-6, "downsample_padding": 0, "freq_shift": 1, "flip_sin_to_cos": false,
        "attention_head_dim": null"#;
    let cifar10 = unet(&format!(
        r#"{{"block_out_channels": [128, 256, 256, 256], "layers_per_block": 2, {paper}, "dropout": 0.1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}}"#
    ));
    assert_eq!(cifar10.layout().count(), 35_746_307);
    let digits = unet(&format!(
        r#"{{"in_channels": 1, "out_channels": 1, "block_out_channels": [32, 64, 64], "layers_per_block": 1, {paper},
        "norm_num_groups": 8, "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]}}"#
    ));
    assert_eq!(digits.layout().count(), 1_112_801);
    let celeba_hq = unet(&format!(
        r#"{{"block_out_channels": [128, 128, 256, 256, 512, 512], "layers_per_block": 2, {paper},
        "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]}}"#
    ));
    assert_eq!(celeba_hq.layout().count(), 113_673_219);
}

#[test]
fn a_fresh_network_predicts_almost_nothing() {
    let (cpu, unet) = (cpu(), unet(SMALL));
    let p = Parameters::from_host(&cpu, unet.layout(), &unet.initial(3)).unwrap();
    let x = Tensor::from_slice(&cpu, [1, 8, 8, 3], &images(1, 8, 8, 3)).unwrap();
    let (y, cache) = unet.forward(&cpu, &p, x.view(), &[5.0], &[1][..], Mode::Infer).unwrap();
    assert!(cache.is_none());
    let largest = y.as_slice().iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0 && largest < 1e-3, "{largest}");
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let (cpu, unet) = (cpu(), unet(SMALL));
    let p = parameters(&cpu, &unet);
    let x = images(5, 8, 4, 3);
    let times = [0.0, 17.0, 999.0, 3.5, 17.0];
    let labels = [0, 6, 2, 2, 1];
    let modes = |first_sample| [Mode::Infer, Mode::Train { seed: 9, step: 2, first_sample }];
    for (i, whole_mode) in modes(10).into_iter().enumerate() {
        let whole = Tensor::from_slice(&cpu, [5, 8, 4, 3], &x).unwrap();
        let (whole, _) = unet.forward(&cpu, &p, whole.view(), &times, &labels[..], whole_mode).unwrap();
        for n in 0..5 {
            let image = n * 96..(n + 1) * 96;
            let one = Tensor::from_slice(&cpu, [1, 8, 4, 3], &x[image.clone()]).unwrap();
            let mode = modes(10 + n as u64)[i];
            let (one, _) = unet.forward(&cpu, &p, one.view(), &times[n..=n], &labels[n..=n], mode).unwrap();
            assert_eq!(one.as_slice(), &whole.as_slice()[image], "image {n} in {mode:?}");
        }
    }
}

#[test]
fn dropout_and_keeping_change_what_they_should() {
    let (cpu, unet) = (cpu(), unet(SMALL));
    let p = parameters(&cpu, &unet);
    let x = Tensor::from_slice(&cpu, [2, 4, 4, 3], &images(2, 4, 4, 3)).unwrap();
    let run = |mode| unet.forward(&cpu, &p, x.view(), &[1.0, 2.0], &[0, 1][..], mode).unwrap().0.as_slice().to_vec();
    let train = |step| Mode::Train { seed: 0, step, first_sample: 0 };
    assert_eq!(run(Mode::Infer), run(Mode::Differentiate));
    assert_eq!(run(train(1)), run(train(1)));
    assert_ne!(run(train(1)), run(train(2)));
    assert_ne!(run(train(1)), run(Mode::Infer));
}

#[test]
fn micro_batches_of_16_add_up_to_the_bits_of_the_whole() {
    let (cpu, unet) = (cpu(), unet(SMALL));
    let p = parameters(&cpu, &unet);
    let x = images(32, 4, 4, 3);
    let dy = {
        let mut dy = vec![0.0; x.len()];
        Address::new(6, Purpose::Test).fill_normal(0, &mut dy);
        dy
    };
    let times: Vec<f32> = (0..32).map(|i| i as f32 * 31.0).collect();
    let labels: Vec<usize> = (0..32).map(|i| i % 7).collect();
    let grads = |micro: usize| {
        let mut grads = Parameters::zeros(&cpu, unet.layout()).unwrap();
        for first in (0..32).step_by(micro) {
            let (images, pixels) = (first..first + micro, first * 48..(first + micro) * 48);
            let x = Tensor::from_slice(&cpu, [micro, 4, 4, 3], &x[pixels.clone()]).unwrap();
            let dy = Tensor::from_slice(&cpu, [micro, 4, 4, 3], &dy[pixels]).unwrap();
            let mode = Mode::Train { seed: 1, step: 1, first_sample: first as u64 };
            let (_, cache) = unet.forward(&cpu, &p, x.view(), &times[images.clone()], &labels[images], mode).unwrap();
            let dx = unet.backward(&cpu, &p, cache.unwrap(), dy.view(), Some(&mut grads), false).unwrap();
            assert!(dx.is_none());
        }
        grads.to_host(&cpu).unwrap()
    };
    let (whole, halves) = (grads(32), grads(16));
    for p in unet.layout().parameters() {
        assert_eq!(whole[p.range.clone()], halves[p.range.clone()], "{}", p.name);
    }
    let mut gaps = whole.clone();
    unet.layout().parameters().iter().for_each(|p| gaps[p.range.clone()].fill(0.0));
    assert!(gaps.iter().all(|g| *g == 0.0), "gaps have no gradient");
}

#[test]
fn what_does_not_fit_is_explained() {
    let (cpu, net) = (cpu(), unet(SMALL));
    let p = parameters(&cpu, &net);
    let run = |shape: [usize; 4], times: &[f32], classes: Classes<'_, C>| {
        let x = Tensor::zeros(&cpu, shape).unwrap();
        net.forward(&cpu, &p, x.view(), times, classes, Mode::Infer).map(|_| ()).unwrap_err().to_string()
    };
    let label: Classes<'_, C> = Classes::Labels(&[0]);
    let cases = [
        (run([1, 8, 8, 1], &[0.0], label), "images [N, H, W, 3], got [1, 8, 8, 1]"),
        (run([0, 8, 8, 3], &[], label), "images [N, H, W, 3], got [0, 8, 8, 3]"),
        (run([1, 7, 8, 3], &[0.0], label), "6x8 and 8x8"),
        (run([1, 8, 8, 3], &[0.0, 1.0], label), "1 finite time steps, one for each image, got 2 time steps"),
        (run([1, 8, 8, 3], &[f32::NAN], label), "the time step NaN"),
        (run([1, 8, 8, 3], &[0.0], Classes::None), "1 class labels (one for each image) from 0 to 6, got none"),
        (run([1, 8, 8, 3], &[0.0], Classes::Labels(&[7])), "got the label 7"),
        (run([1, 8, 8, 3], &[0.0], Classes::Labels(&[1, 2])), "got 2 class labels"),
    ];
    for (message, expected) in &cases {
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
    let other = unet(&SMALL.replace("[8, 16]", "[8, 24]"));
    let wrong = parameters(&cpu, &other);
    let x = Tensor::zeros(&cpu, [1, 8, 8, 3]).unwrap();
    let error = net.forward(&cpu, &wrong, x.view(), &[0.0], label, Mode::Infer).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("another layout"), "{error}");
    assert!(matches!(UNet::new(&UNetConfig::from_json(r#"{"norm_num_groups": 5}"#).unwrap()), Err(NnError::Config(_))));
}

#[test]
fn fourier_features_are_of_logarithms_and_predictions_are_over_the_noise_level() {
    let unet = unet(
        r#"{"in_channels": 1, "out_channels": 1, "block_out_channels": [4, 6], "norm_num_groups": 2, "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "attention_head_dim": null, "time_embedding_type": "fourier"}"#,
    );
    let cpu = cpu();
    let range = |name: &str| unet.layout().parameter(unet.layout().find(name).unwrap()).range.clone();
    let predict = |flat: &[f32], levels: &[f32]| {
        let parameters = Parameters::from_host(&cpu, unet.layout(), flat).unwrap();
        let x = Tensor::from_slice(&cpu, [levels.len(), 4, 4, 1], &images(levels.len(), 4, 4, 1)).unwrap();
        unet.forward(&cpu, &parameters, x.view(), levels, None, Mode::Infer).map(|(y, _)| y.to_vec(&cpu).unwrap())
    };
    let mut one = vec![0.0; unet.layout().len()];
    one[range("conv_out.bias")][0] = 1.0;
    let y = predict(&one, &[0.5, 8.0]).unwrap();
    assert!(y[..16].iter().all(|&y| y == 2.0) && y[16..].iter().all(|&y| y == 0.125), "{y:?}");
    let refused = predict(&one, &[1.0, 0.0]).unwrap_err().to_string();
    assert!(refused.contains("time steps above 0"), "{refused}");

    // 2π·w·ln t returns to the same angle where w·ln t grows by a whole number, and only there
    let mut flat = parameters(&cpu, &unet).to_host(&cpu).unwrap();
    flat[range("time_proj.weight")].fill(1.0 / std::f32::consts::LN_2);
    let shown = |level: f32| predict(&flat, &[level]).unwrap().iter().map(|y| y * level).collect::<Vec<f32>>();
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (at_2, at_8, at_3) = (shown(2.0), shown(8.0), shown(3.0));
    let (same, other) = (apart(&at_2, &at_8), apart(&at_2, &at_3));
    assert!(same < 1e-4 && other > 1e-2, "{same} and {other}");
}
