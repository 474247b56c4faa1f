use std::sync::Arc;

use ddpm_kernels::conv::{Geometry, Padding};
use ddpm_kernels::{Backend, Epilogue, Operand, Pulled};
use ddpm_nn::config::{ClassEmbedType, UNetConfig};
use ddpm_nn::layers::{
    Attention, ClassEmbedding, Classes, Conv, Dense, FeatureMap, GroupNorm, Sinusoid, TimeEmbedding,
};
use ddpm_nn::layout::Init;
use ddpm_nn::{Layout, Mode, Parameters};
use ddpm_tensor::Tensor;

use crate::check::{C, Case, copy, cpu, random};
use crate::parameters;

fn plain(x: &Tensor<C>, double: bool) -> Operand<'_, C> {
    let plain = Operand::plain(x.view());
    if double { plain.nearest_2x() } else { plain }
}

fn parts(x: &[Tensor<C>], concat: bool) -> Operand<'_, C> {
    if concat { Operand::concat(x[0].view(), x[1].view()) } else { Operand::plain(x[0].view()) }
}

#[test]
fn convolutions() {
    let cpu = cpu();
    for (name, geometry) in [
        ("1x1", Geometry::ONE),
        ("3x3", Geometry::THREE),
        ("3x3 down, zeros around", Geometry::down(Padding::Same)),
        ("3x3 down, zeros at the end", Geometry::down(Padding::End)),
    ] {
        for double in [false, true] {
            let mut layout = Layout::default();
            let conv = Conv::new(layout.at("conv"), geometry, 3, 5, Init::PAPER);
            let layout = Arc::new(layout);
            let forward = |p: &Parameters<C>, x: &[Tensor<C>]| {
                vec![conv.forward(&cpu, p, &plain(&x[0], double), Epilogue::default()).unwrap().y]
            };
            let backward = |p: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
                let pulled = conv.backward(&cpu, p, &plain(&x[0], double), dy[0].view(), g).unwrap();
                vec![Some(cpu.operand_grad(&plain(&x[0], double), pulled, [None, None]).unwrap().0)]
            };
            let inputs = vec![random(&cpu, [2, 4, 6, 3], 1)];
            Case {
                name,
                cpu: &cpu,
                parameters: parameters(&cpu, &layout),
                inputs,
                forward: &forward,
                backward: &backward,
            }
            .check();
        }
    }
}

#[test]
fn dense() {
    let cpu = cpu();
    let mut layout = Layout::default();
    let dense = Dense::new(layout.at("dense"), 5, 7, Init::PAPER);
    let layout = Arc::new(layout);
    let forward = |p: &Parameters<C>, x: &[Tensor<C>]| {
        vec![dense.forward(&cpu, p, &Operand::plain(x[0].view()).silu(), Epilogue::default()).unwrap().y]
    };
    let backward = |p: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
        let operand = Operand::plain(x[0].view()).silu();
        vec![Some(dense.backward(&cpu, p, &operand, dy[0].view(), g).unwrap().g)]
    };
    let inputs = vec![random(&cpu, [18, 1, 1, 5], 1)];
    let parameters = parameters(&cpu, &layout);
    Case { name: "dense", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
}

/// A norm of one or two tensors, with or without scale and shift; `finish: false` forgets that mean and variance depend
/// on x as well.
fn group_norm(groups: usize, concat: bool, scale_shift: bool, finish: bool) -> bool {
    let cpu = cpu();
    let mut layout = Layout::default();
    let channels = if concat { 6 } else { 4 };
    let norm = GroupNorm::new(layout.at("norm"), channels, groups, 1e-5);
    let layout = Arc::new(layout);
    let statistics = |p: &Parameters<C>, x: &[Tensor<C>]| {
        let first = FeatureMap::from(copy(&cpu, &x[0]));
        let second = concat.then(|| FeatureMap::from(copy(&cpu, &x[1])));
        norm.statistics(&cpu, p, &first, second.as_ref(), None).unwrap()
    };
    let scale = |x: &[Tensor<C>]| scale_shift.then(|| copy(&cpu, &x[2]));
    let forward = |p: &Parameters<C>, x: &[Tensor<C>]| {
        let (s, scale) = (statistics(p, x), scale(x));
        let operand = parts(x, concat).norm(norm.norm(p, &s, scale.as_ref()).unwrap()).silu();
        vec![cpu.operand_value(&operand).unwrap()]
    };
    let backward = |p: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
        let (s, scale) = (statistics(p, x), scale(x));
        let operand = parts(x, concat).norm(norm.norm(p, &s, scale.as_ref()).unwrap()).silu();
        let pulled = cpu.operand_pull(dy[0].view(), &operand).unwrap();
        let wrong = copy(&cpu, &pulled.g);
        let grad = norm.backward(&cpu, &operand, pulled, [None, None], g).unwrap();
        let first = if finish { grad.first } else { wrong };
        vec![Some(first), grad.second, grad.scale_shift]
    };
    let inputs = vec![random(&cpu, [3, 3, 4, 4], 1), random(&cpu, [3, 3, 4, 2], 2), random(&cpu, [3, 2 * channels], 3)];
    let parameters = parameters(&cpu, &layout);
    let name = format!("norm of {groups} groups, concat {concat}, scale-shift {scale_shift}");
    let case = Case { name: &name, cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward };
    if finish {
        case.check();
        false
    } else {
        case.is_wrong()
    }
}

#[test]
fn group_norms() {
    for groups in [1, 2, 4] {
        group_norm(groups, false, false, true);
        group_norm(groups, false, true, true);
    }
    for groups in [1, 2, 3, 6] {
        group_norm(groups, true, false, true);
        group_norm(groups, true, true, true);
    }
}

#[test]
fn a_wrong_backward_is_noticed() {
    assert!(group_norm(2, false, false, false), "a norm that takes its statistics for constants passed the check");
}

#[test]
fn attention() {
    let cpu = cpu();
    for (name, groups, heads, scale) in [
        ("attention, one head", Some(2), 1, 1.0),
        ("attention, three heads, scaled", Some(3), 3, 0.75),
        ("attention without a norm", None, 2, 1.0),
    ] {
        let mut layout = Layout::default();
        let attention = Attention::new(layout.at("attention"), 6, groups, 1e-5, heads, scale);
        let layout = Arc::new(layout);
        let run = |p: &Parameters<C>, x: &[Tensor<C>], mode| {
            let x = Arc::new(FeatureMap::from(copy(&cpu, &x[0])));
            attention.forward(&cpu, p, x, false, mode).unwrap()
        };
        let forward = |p: &Parameters<C>, x: &[Tensor<C>]| vec![run(p, x, Mode::Infer).0.x];
        let backward = |p: &Parameters<C>, x: &[Tensor<C>], mut dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
            let cache = run(p, x, Mode::Differentiate).1.unwrap();
            vec![Some(attention.backward(&cpu, p, cache, dy.remove(0), g).unwrap().d)]
        };
        let inputs = vec![random(&cpu, [2, 2, 3, 6], 1)];
        let parameters = parameters(&cpu, &layout);
        Case { name, cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
    }
}

#[test]
fn embeddings() {
    let cpu = cpu();
    let sinusoid = Sinusoid { dim: 6, freq_shift: 1, flip_sin_to_cos: false };
    let times = [0.0, 3.0, 17.5];
    let labels: &[usize] = &[2, 0, 2];
    let config = |text| UNetConfig { time_embedding_dim: Some(5), ..UNetConfig::from_json(text).unwrap() };
    for (name, config) in [
        ("time alone", config("{}")),
        ("table", config(r#"{"num_class_embeds": 4}"#)),
        ("classes as times", config(r#"{"class_embed_type": "timestep"}"#)),
    ] {
        let mut layout = Layout::default();
        let time = TimeEmbedding::new(layout.at("time"), sinusoid, 5);
        let class = ClassEmbedding::new(&mut layout, &config, sinusoid);
        let layout = Arc::new(layout);
        let classes: Classes<'_, C> = if config.is_class_conditional() { labels.into() } else { None.into() };
        let run = |p: &Parameters<C>| {
            let (t, time_cache) = time.forward(&cpu, p, &times).unwrap();
            let (y, class_cache) = class.forward(&cpu, p, classes, t).unwrap();
            (y, time_cache, class_cache)
        };
        let forward = |p: &Parameters<C>, _: &[Tensor<C>]| vec![run(p).0];
        let backward = |p: &Parameters<C>, _: &[Tensor<C>], dy: Vec<Tensor<C>>, g: Option<&mut Parameters<C>>| {
            if let Some(g) = g {
                let (_, time_cache, class_cache) = run(p);
                time.backward(&cpu, p, time_cache, dy[0].view(), g).unwrap();
                class.backward(&cpu, p, class_cache, dy[0].view(), g).unwrap();
            }
            vec![]
        };
        let parameters = parameters(&cpu, &layout);
        Case { name, cpu: &cpu, parameters, inputs: vec![], forward: &forward, backward: &backward }.check();
    }
    assert_eq!(config(r#"{"class_embed_type": "identity"}"#).class_embed_type, Some(ClassEmbedType::Identity));
}

#[test]
fn concatenation_and_doubling_give_their_parts_their_gradients() {
    let cpu = cpu();
    let layout = Arc::new(Layout::default());
    let forward = |_: &Parameters<C>, x: &[Tensor<C>]| vec![cpu.operand_value(&parts(x, true).nearest_2x()).unwrap()];
    let backward = |_: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, _: Option<&mut Parameters<C>>| {
        let pulled: Pulled<C> = cpu.operand_pull(dy[0].view(), &parts(x, true).nearest_2x()).unwrap();
        let (a, b) = cpu.operand_grad(&parts(x, true).nearest_2x(), pulled, [None, None]).unwrap();
        vec![Some(a), b]
    };
    let inputs = vec![random(&cpu, [2, 2, 3, 2], 1), random(&cpu, [2, 2, 3, 3], 2)];
    let parameters = Parameters::zeros(&cpu, &layout).unwrap();
    Case { name: "concat", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
}
