use std::sync::Arc;

use ddpm_kernels::conv::Padding;
use ddpm_nn::blocks::{Down, Downsample, Mid, Residual, ResidualInput, ResidualOptions, Temb, Up, Upsample};
use ddpm_nn::config::TimeScaleShift;
use ddpm_nn::layers::{Attention, FeatureMap};
use ddpm_nn::{Layout, Mode, Parameters};
use ddpm_tensor::Tensor;

use crate::check::{C, Case, copy, cpu, random};
use crate::parameters;

const OPTIONS: ResidualOptions = ResidualOptions {
    temb: 5,
    groups: 2,
    eps: 1e-5,
    time_scale_shift: TimeScaleShift::Default,
    dropout: 0.0,
    scale: 1.0,
};
const TRAIN: Mode = Mode::Train { seed: 3, step: 4, first_sample: 5 };

fn map(cpu: &C, x: &Tensor<C>) -> Arc<FeatureMap<C>> {
    Arc::new(FeatureMap::from(copy(cpu, x)))
}

/// The gradient of the time embedding, where gradients of parameters are wanted.
fn of_temb(cpu: &C, p: &Parameters<C>, temb: Temb<'_, C>, g: Option<&mut Parameters<C>>) -> Option<Tensor<C>> {
    g.and_then(|g| temb.backward(cpu, p, g).unwrap())
}

fn residual(name: &str, c_in: usize, c_out: usize, skip: usize, options: ResidualOptions) {
    let cpu = cpu();
    let mut layout = Layout::default();
    let block = Residual::new(layout.at("block"), c_in + skip, c_out, options, 2);
    let layout = Arc::new(layout);
    let run = |p: &Parameters<C>, x: &[Tensor<C>]| {
        let skip = (skip > 0).then(|| map(&cpu, &x[2]));
        let input = ResidualInput { first: map(&cpu, &x[0]), skip };
        block.forward(&cpu, p, input, x[1].view(), false, TRAIN).unwrap()
    };
    // The second output is the input itself: the gradient that a skip connection adds.
    let forward = |p: &Parameters<C>, x: &[Tensor<C>]| vec![run(p, x).0.x, copy(&cpu, &x[0])];
    let backward = |p: &Parameters<C>, x: &[Tensor<C>], mut dy: Vec<Tensor<C>>, mut g: Option<&mut Parameters<C>>| {
        let cache = run(p, x).1.unwrap();
        let mut temb = Temb::new(x[1].view());
        let (add, dy) = (dy.pop(), dy.remove(0));
        let (first, skip) = block.backward(&cpu, p, cache, dy, add, &mut temb, g.as_deref_mut()).unwrap();
        vec![Some(first.d), of_temb(&cpu, p, temb, g), skip]
    };
    let mut inputs = vec![random(&cpu, [2, 3, 4, c_in], 1), random(&cpu, [2, 1, 1, 5], 2)];
    if skip > 0 {
        inputs.push(random(&cpu, [2, 3, 4, skip], 3));
    }
    let parameters = parameters(&cpu, &layout);
    Case { name, cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
}

#[test]
fn residual_blocks() {
    let scale_shift = ResidualOptions { time_scale_shift: TimeScaleShift::ScaleShift, ..OPTIONS };
    residual("residual", 4, 4, 0, OPTIONS);
    residual("residual with a convolution as shortcut", 4, 6, 0, OPTIONS);
    residual("residual of two", 4, 6, 2, OPTIONS);
    residual("residual of two without a convolution as shortcut", 4, 6, 2, ResidualOptions { groups: 3, ..OPTIONS });
    residual("residual, scale-shift", 4, 6, 0, scale_shift);
    residual("residual, scale-shift, of two, dropout", 4, 4, 2, ResidualOptions { dropout: 0.4, ..scale_shift });
    residual("residual, dropout, scaled", 4, 4, 0, ResidualOptions { dropout: 0.3, scale: 0.6, ..OPTIONS });
    residual("residual, as many groups as channels", 4, 8, 0, ResidualOptions { groups: 4, ..OPTIONS });
}

#[test]
fn resampling() {
    let cpu = cpu();
    for padding in [Padding::Same, Padding::End] {
        let mut layout = Layout::default();
        let down = Downsample::new(layout.at("down"), 3, padding);
        let up = Upsample::new(layout.at("up"), 3);
        let layout = Arc::new(layout);
        let forward = |p: &Parameters<C>, x: &[Tensor<C>]| {
            let half = down.forward(&cpu, p, &map(&cpu, &x[0])).unwrap();
            let y = up.forward(&cpu, p, &half).unwrap();
            vec![y.x, copy(&cpu, &x[0])]
        };
        let backward = |p: &Parameters<C>, x: &[Tensor<C>], dy: Vec<Tensor<C>>, mut g: Option<&mut Parameters<C>>| {
            let x = map(&cpu, &x[0]);
            let half = down.forward(&cpu, p, &x).unwrap();
            let d = up.backward(&cpu, p, &half, copy(&cpu, &dy[0]), g.as_deref_mut()).unwrap();
            vec![Some(down.backward(&cpu, p, &x, d, Some(copy(&cpu, &dy[1])), g).unwrap().d)]
        };
        let inputs = vec![random(&cpu, [2, 4, 6, 3], 1)];
        let parameters = parameters(&cpu, &layout);
        Case { name: "down, up", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
    }
}

#[test]
fn middles() {
    let cpu = cpu();
    for attends in [false, true] {
        let mut layout = Layout::default();
        let options = ResidualOptions { scale: 0.8, ..OPTIONS };
        let mid = Mid {
            first: Residual::new(layout.at("first"), 4, 4, options, 0),
            attention: attends.then(|| Attention::new(layout.at("attention"), 4, Some(2), 1e-5, 2, 0.8)),
            second: Residual::new(layout.at("second"), 4, 4, options, 1),
        };
        let layout = Arc::new(layout);
        let run = |p: &Parameters<C>, x: &[Tensor<C>]| {
            mid.forward(&cpu, p, map(&cpu, &x[0]), x[1].view(), Mode::Differentiate).unwrap()
        };
        let forward = |p: &Parameters<C>, x: &[Tensor<C>]| vec![run(p, x).0.x, copy(&cpu, &x[0])];
        let backward =
            |p: &Parameters<C>, x: &[Tensor<C>], mut dy: Vec<Tensor<C>>, mut g: Option<&mut Parameters<C>>| {
                let mut temb = Temb::new(x[1].view());
                let (add, dy) = (dy.pop(), dy.remove(0));
                let dx = mid.backward(&cpu, p, run(p, x).1.unwrap(), dy, add, &mut temb, g.as_deref_mut()).unwrap();
                vec![Some(dx.d), of_temb(&cpu, p, temb, g)]
            };
        let inputs = vec![random(&cpu, [2, 2, 2, 4], 1), random(&cpu, [2, 1, 1, 5], 2)];
        let parameters = parameters(&cpu, &layout);
        Case { name: "middle", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
    }
}

#[test]
fn levels_on_the_way_down() {
    let cpu = cpu();
    for (attends, halves) in [(true, true), (false, false)] {
        let mut layout = Layout::default();
        let layers = (0..2)
            .map(|i| {
                let c_in = if i == 0 { 2 } else { 4 };
                let residual = Residual::new(layout.at(&format!("residual.{i}")), c_in, 4, OPTIONS, i);
                let attention =
                    attends.then(|| Attention::new(layout.at(&format!("attention.{i}")), 4, Some(2), 1e-5, 1, 1.0));
                (residual, attention)
            })
            .collect();
        let downsample = halves.then(|| Downsample::new(layout.at("down"), 4, Padding::End));
        let down = Down { layers, downsample };
        let layout = Arc::new(layout);
        let run = |p: &Parameters<C>, x: &[Tensor<C>]| {
            let mut skips = vec![];
            let (y, cache) =
                down.forward(&cpu, p, map(&cpu, &x[0]), x[1].view(), &mut skips, Mode::Differentiate).unwrap();
            assert!(Arc::ptr_eq(&y, skips.last().unwrap()));
            (skips, cache)
        };
        // The outputs are the input and all skips, the last of which is the result.
        let forward = |p: &Parameters<C>, x: &[Tensor<C>]| {
            let (skips, _) = run(p, x);
            std::iter::once(copy(&cpu, &x[0])).chain(skips.iter().map(|s| copy(&cpu, &s.x))).collect()
        };
        let backward =
            |p: &Parameters<C>, x: &[Tensor<C>], mut dy: Vec<Tensor<C>>, mut g: Option<&mut Parameters<C>>| {
                let mut temb = Temb::new(x[1].view());
                let last = dy.pop().unwrap();
                let dx =
                    down.backward(&cpu, p, run(p, x).1.unwrap(), last, &mut dy, &mut temb, g.as_deref_mut()).unwrap();
                assert!(dy.is_empty());
                vec![Some(dx.d), of_temb(&cpu, p, temb, g)]
            };
        let inputs = vec![random(&cpu, [2, 4, 2, 2], 1), random(&cpu, [2, 1, 1, 5], 2)];
        let parameters = parameters(&cpu, &layout);
        Case { name: "down", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
    }
}

#[test]
fn levels_on_the_way_up() {
    let cpu = cpu();
    for (attends, doubles) in [(true, true), (false, true), (true, false)] {
        let mut layout = Layout::default();
        let layers = [(6, 4), (4, 2)]
            .into_iter()
            .enumerate()
            .map(|(i, (c, skip))| {
                let residual = Residual::new(layout.at(&format!("residual.{i}")), c + skip, 4, OPTIONS, i);
                let attention =
                    attends.then(|| Attention::new(layout.at(&format!("attention.{i}")), 4, Some(2), 1e-5, 1, 1.0));
                (residual, attention)
            })
            .collect();
        let up = Up { layers, upsample: doubles.then(|| Upsample::new(layout.at("up"), 4)) };
        let layout = Arc::new(layout);
        let run = |p: &Parameters<C>, x: &[Tensor<C>]| {
            let mut skips = vec![map(&cpu, &x[3]), map(&cpu, &x[2])];
            let input = FeatureMap::from(copy(&cpu, &x[0]));
            up.forward(&cpu, p, input, x[1].view(), &mut skips, Mode::Differentiate).unwrap()
        };
        let forward = |p: &Parameters<C>, x: &[Tensor<C>]| vec![run(p, x).0.x];
        let backward =
            |p: &Parameters<C>, x: &[Tensor<C>], mut dy: Vec<Tensor<C>>, mut g: Option<&mut Parameters<C>>| {
                let mut temb = Temb::new(x[1].view());
                let mut skips = vec![];
                let dx = up
                    .backward(&cpu, p, run(p, x).1.unwrap(), dy.remove(0), &mut skips, &mut temb, g.as_deref_mut())
                    .unwrap();
                let first_read = skips.pop();
                vec![Some(dx.d), of_temb(&cpu, p, temb, g), first_read, skips.pop()]
            };
        let inputs = vec![
            random(&cpu, [2, 2, 2, 6], 1),
            random(&cpu, [2, 1, 1, 5], 2),
            random(&cpu, [2, 2, 2, 4], 3),
            random(&cpu, [2, 2, 2, 2], 4),
        ];
        let parameters = parameters(&cpu, &layout);
        Case { name: "up", cpu: &cpu, parameters, inputs, forward: &forward, backward: &backward }.check();
    }
}
