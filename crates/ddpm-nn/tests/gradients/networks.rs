use ddpm_nn::classifier::{Classifier, ClassifierConfig};
use ddpm_nn::config::TimeEmbeddingType;
use ddpm_nn::{Classes, Mode, Parameters, UNet, UNetConfig};
use ddpm_tensor::Tensor;

use crate::check::{C, Case, cpu, random};
use crate::parameters;

fn network(name: &str, config: &str, size: [usize; 3], labels: Option<&[usize]>, mode: Mode, is_right: bool) {
    let cpu = cpu();
    let unet = UNet::new(&UNetConfig::from_json(config).unwrap()).unwrap();
    let [n, h, w] = size;
    let first = if unet.config().time_embedding_type == TimeEmbeddingType::Fourier { 0.25 } else { 0.0 };
    let times: Vec<f32> = [first, 13.5, 999.0].into_iter().take(n).collect();
    let run = |p: &Parameters<C>, x: &[Tensor<C>], mode| {
        // A network whose classes are vectors takes them as its second input.
        let classes = x.get(1).map_or(labels.into(), |v| Classes::Vectors(v.view()));
        unet.forward(&cpu, p, x[0].view(), &times, classes, mode).unwrap()
    };
    let forward = |p: &Parameters<C>, x: &[Tensor<C>]| vec![run(p, x, mode).0];
    let backward = |p: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
        // Wrong on purpose: differentiates with the dropout of another step.
        let other = Mode::Train { seed: 3, step: 5, first_sample: 0 };
        let cache = run(p, x, if is_right { mode } else { other }).1.unwrap();
        vec![unet.backward(&cpu, p, cache, dy[0].view(), g, true).unwrap()]
    };
    let mut inputs = vec![random(&cpu, [n, h, w, unet.config().in_channels], 1)];
    if unet.config().is_class_conditional() && labels.is_none() {
        inputs.push(random(&cpu, [n, unet.config().embedding_dim()], 2));
    }
    let parameters = parameters(&cpu, unet.layout());
    let case = Case { name, cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward };
    if is_right {
        case.check();
    } else {
        assert!(case.is_wrong(), "{name}: a wrong backward passed the check");
    }
}

const TRAIN: Mode = Mode::Train { seed: 3, step: 4, first_sample: 0 };

const PAPER_LIKE: &str = r#"{"in_channels": 1, "out_channels": 1, "block_out_channels": [4, 6], "norm_num_groups": 2,
    "layers_per_block": 2, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "dropout": 0.3,
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": null, "norm_eps": 1e-6,
    "downsample_padding": 0, "freq_shift": 1, "flip_sin_to_cos": false}"#;

#[test]
fn paper_like() {
    network("paper-like", PAPER_LIKE, [2, 4, 4], None, TRAIN, true);
}

#[test]
fn a_wrong_backward_is_noticed() {
    network("another step's dropout", PAPER_LIKE, [2, 4, 4], None, TRAIN, false);
}

#[test]
fn scale_shift_with_classes() {
    let config = r#"{"in_channels": 3, "out_channels": 6, "block_out_channels": [4, 4], "norm_num_groups": 4,
        "layers_per_block": 1, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "num_class_embeds": 5,
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 2,
        "resnet_time_scale_shift": "scale_shift"}"#;
    network("scale-shift, classes", config, [3, 4, 6], Some(&[4, 0, 4]), Mode::Differentiate, true);
}

#[test]
fn centred_and_deep() {
    let config = r#"{"in_channels": 2, "out_channels": 2, "block_out_channels": [4, 6, 4], "norm_num_groups": 2,
        "layers_per_block": 1, "down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 2,
        "center_input_sample": true, "class_embed_type": "timestep", "mid_block_scale_factor": 1.5,
        "add_attention": false, "time_embedding_dim": 7}"#;
    network("centred, deep, non-square", config, [2, 8, 4], Some(&[1, 6]), Mode::Differentiate, true);
}

#[test]
fn noise_levels_by_fourier_features() {
    let config = r#"{"in_channels": 1, "out_channels": 2, "block_out_channels": [4, 6], "norm_num_groups": 2,
        "layers_per_block": 1, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "attention_head_dim": null,
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "time_embedding_type": "fourier", "class_embed_type": "timestep"}"#;
    network("Fourier features", config, [2, 4, 4], Some(&[1, 6]), Mode::Differentiate, true);
}

#[test]
fn classes_as_vectors_without_levels() {
    let config = r#"{"in_channels": 1, "out_channels": 2, "block_out_channels": [5], "norm_num_groups": 5,
        "layers_per_block": 1, "down_block_types": ["AttnDownBlock2D"], "up_block_types": ["UpBlock2D"],
        "attention_head_dim": null, "class_embed_type": "identity", "attn_norm_num_groups": 1}"#;
    network("one level, classes as vectors", config, [2, 3, 5], None, Mode::Differentiate, true);
}

#[test]
fn classifier() {
    let cpu = cpu();
    let stages = vec![(4, false), (6, true), (4, false)];
    let network = Classifier::new(&ClassifierConfig { in_channels: 2, stages, groups: 2, classes: 3 }).unwrap();
    let run = |p: &Parameters<C>, x: &[Tensor<C>], mode| network.forward(&cpu, p, x[0].view(), mode).unwrap();
    let forward = |p: &Parameters<C>, x: &[Tensor<C>]| vec![run(p, x, Mode::Infer).0.logits];
    let backward = |p: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
        let cache = run(p, x, Mode::Differentiate).1.unwrap();
        vec![network.backward(&cpu, p, cache, dy[0].view(), g, true).unwrap()]
    };
    let parameters = parameters(&cpu, network.layout());
    let inputs = vec![random(&cpu, [2, 6, 5, 2], 1)];
    Case { name: "classifier", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
}
