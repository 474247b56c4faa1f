//! Convolutions over every option of operands and epilogues, against plain loops in f64.

mod engines;
mod frozen;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, Element, Precision, Tensor, View};

use super::{Geometry, Padding};
use crate::testing::{close, cpu, handles_of, same_bits, strict, tensor, values};
use crate::{Backend, Dropout, Epilogue, Norm, Operand, Parts};

/// One case: sizes and which options are on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) n: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Channels of the two parts; no second one if 0.
    pub(super) c: [usize; 2],
    pub(super) o: usize,
    pub(super) g: Geometry,
    /// Groups of the norm; none if 0.
    pub(super) groups: usize,
    pub(super) scale_shift: bool,
    pub(super) silu: bool,
    pub(super) dropout: f32,
    pub(super) nearest_2x: bool,
    pub(super) epilogue: bool,
}

pub(super) const PLAIN: Case = Case {
    n: 2,
    h: 5,
    w: 7,
    c: [4, 0],
    o: 3,
    g: Geometry::THREE,
    groups: 0,
    scale_shift: false,
    silu: false,
    dropout: 0.0,
    nearest_2x: false,
    epilogue: false,
};

fn cases() -> Vec<Case> {
    let mut cases = vec![PLAIN];
    let geometries = [Geometry::THREE, Geometry::ONE, Geometry::down(Padding::Same), Geometry::down(Padding::End)];
    for g in geometries {
        for (c, o) in [(1, 1), (3, 8), (8, 130), (24, 33), (130, 17), (33, 48)] {
            cases.push(Case { g, c: [c, 0], o, epilogue: true, ..PLAIN });
        }
        for (h, w) in [(3, 3), (8, 8), (9, 17), (16, 4)] {
            cases.push(Case { g, h, w, c: [8, 0], o: 32, groups: 4, silu: true, epilogue: true, ..PLAIN });
        }
        let all = Case { g, c: [8, 16], o: 20, groups: 6, silu: true, dropout: 0.3, epilogue: true, ..PLAIN };
        cases.extend([all, Case { scale_shift: true, ..all }, Case { nearest_2x: true, ..all }]);
        cases.extend([
            Case { groups: 0, ..all },
            Case { silu: false, ..all },
            Case { n: 1, nearest_2x: true, groups: 0, silu: false, ..all },
        ]);
    }
    // a dense layer, and batches that are no multiple of 16
    cases.push(Case { n: 19, h: 1, w: 1, c: [96, 0], o: 40, g: Geometry::ONE, silu: true, epilogue: true, ..PLAIN });
    cases.push(Case { n: 35, h: 3, w: 2, c: [20, 0], o: 9, groups: 5, silu: true, epilogue: true, ..PLAIN });
    // rows in several tasks
    cases.push(Case { n: 1, h: 40, w: 33, c: [64, 0], o: 32, groups: 8, silu: true, epilogue: true, ..PLAIN });
    // no value is dropped in a chain longer than one chunk
    cases.push(Case { n: 1, h: 4, w: 4, c: [1100, 0], o: 5, g: Geometry::ONE, ..PLAIN });
    cases
}

/// Everything that an operand and an epilogue of a case borrow.
pub(super) struct Held<T: Element> {
    case: Case,
    parts: [Tensor<Cpu<T>>; 2],
    statistics: Tensor<Cpu<T>>,
    gamma: Tensor<Cpu<T>>,
    beta: Tensor<Cpu<T>>,
    scale_shift: Tensor<Cpu<T>>,
    w: Tensor<Cpu<T>>,
    bias: Tensor<Cpu<T>>,
    channel: Tensor<Cpu<T>>,
    residual: Tensor<Cpu<T>>,
    dy: Tensor<Cpu<T>>,
}

impl<T: Element> Held<T>
where
    Cpu<T>: Backend<Elem = T, Buffer = CpuBuffer<T>>,
{
    pub(super) fn new(cpu: &Cpu<T>, case: Case) -> Self {
        let Case { n, h, w, c, o, g, .. } = case;
        let total = c[0] + c[1];
        let parts = [tensor(cpu, 1, [n, h, w, c[0]]), tensor(cpu, 2, [n, h, w, c[1]])];
        let s = if case.nearest_2x { 2 } else { 1 };
        let (oh, ow) = g.output(s * h, s * w).unwrap();
        let mut held = Self {
            case,
            parts,
            statistics: Tensor::zeros(cpu, [1]).unwrap(),
            gamma: tensor(cpu, 3, [total]),
            beta: tensor(cpu, 4, [total]),
            scale_shift: tensor(cpu, 5, [n, 2 * total]),
            w: tensor(cpu, 6, [g.kernel, g.kernel, total, o]),
            bias: tensor(cpu, 7, [o]),
            channel: tensor(cpu, 8, [n, o]),
            residual: tensor(cpu, 9, [n, oh, ow, o]),
            dy: tensor(cpu, 10, [n, oh, ow, o]),
        };
        held.refresh(cpu);
        held
    }

    /// The statistics of the parts as they are now.
    fn refresh(&mut self, cpu: &Cpu<T>) {
        if self.case.groups > 0 {
            let a = cpu.channel_statistics(self.parts[0].view()).unwrap();
            let b = cpu.channel_statistics(self.parts[1].view()).unwrap();
            let second = (self.case.c[1] > 0).then(|| b.view());
            let pixels = self.case.h * self.case.w;
            self.statistics = cpu.norm_statistics([Some(a.view()), second], pixels, self.case.groups, 1e-5).unwrap();
        }
    }

    fn operand(&self) -> Operand<'_, Cpu<T>> {
        let parts = if self.case.c[1] > 0 {
            Parts::Two(self.parts[0].view(), self.parts[1].view())
        } else {
            Parts::One(self.parts[0].view())
        };
        let norm = (self.case.groups > 0).then(|| Norm {
            groups: self.case.groups,
            statistics: self.statistics.view(),
            gamma: self.gamma.view(),
            beta: self.beta.view(),
            scale_shift: self.case.scale_shift.then(|| self.scale_shift.view()),
        });
        let dropout =
            Some(Dropout { probability: self.case.dropout, address: Address::new(5, Purpose::Dropout).at_sample(3) });
        let operand = Operand { parts, norm, silu: self.case.silu, dropout: None, nearest_2x: self.case.nearest_2x };
        operand.dropout(dropout)
    }

    fn epilogue(&self) -> Epilogue<'_, Cpu<T>> {
        if !self.case.epilogue {
            return Epilogue::default();
        }
        Epilogue {
            bias: Some(self.bias.view()),
            channel: Some(self.channel.view()),
            residual: Some(self.residual.view()),
            scale: 0.75,
            statistics: true,
        }
    }

    pub(super) fn forward(&self, cpu: &Cpu<T>) -> crate::Output<Cpu<T>> {
        cpu.conv(&self.operand(), self.w.view(), self.case.g, &self.epilogue()).unwrap()
    }

    /// dx of both parts, dw, dγ, dβ and the gradient of scale-shift.
    pub(super) fn backward(&self, cpu: &Cpu<T>) -> Vec<Vec<T>> {
        let (x, c) = (self.operand(), self.case.c[0] + self.case.c[1]);
        let pulled = cpu.conv_input_grad(self.dy.view(), self.w.view(), self.case.g, &x).unwrap();
        let mut grads = cpu.zeroed(self.w.shape().len() + 2 * c);
        let dw = 0..self.w.shape().len();
        cpu.conv_weight_grad(self.dy.view(), &x, self.case.g, &mut grads, dw.clone()).unwrap();
        let mut all = Vec::new();
        if let Some(sums) = &pulled.sums {
            let (gamma, beta) = (dw.end..dw.end + c, dw.end + c..dw.end + 2 * c);
            let d = cpu.norm_param_grad(&x, sums.view(), &mut grads, gamma, beta).unwrap();
            all.extend(d.map(|d| d.as_slice().to_vec()));
        }
        let (a, b) = cpu.operand_grad(&x, pulled, [None, None]).unwrap();
        all.insert(0, a.as_slice().to_vec());
        all.insert(1, b.map_or(vec![], |b| b.as_slice().to_vec()));
        all.push(grads.to_vec());
        all
    }

    /// The operand's value by definition, in f64.
    fn value(&self) -> (Vec<f64>, [usize; 4]) {
        let Case { n, h, w, c, groups, .. } = self.case;
        let total = c[0] + c[1];
        let mut v = vec![0.0; n * h * w * total];
        for pixel in 0..n * h * w {
            for i in 0..total {
                let (part, at) = if i < c[0] { (0, i) } else { (1, i - c[0]) };
                v[pixel * total + i] = self.parts[part].as_slice()[pixel * c[part] + at].to_f64();
            }
        }
        if let Some(of) = total.checked_div(groups) {
            for image in 0..n {
                for group in 0..groups {
                    let members: Vec<usize> = (0..h * w)
                        .flat_map(|p| (0..of).map(move |i| (image * h * w + p) * total + group * of + i))
                        .collect();
                    let mean = members.iter().map(|&m| v[m]).sum::<f64>() / members.len() as f64;
                    let variance = members.iter().map(|&m| (v[m] - mean).powi(2)).sum::<f64>() / members.len() as f64;
                    for m in members {
                        let i = m % total;
                        v[m] = (v[m] - mean) / (variance + 1e-5).sqrt() * self.gamma.as_slice()[i].to_f64()
                            + self.beta.as_slice()[i].to_f64();
                        if self.case.scale_shift {
                            let s = &self.scale_shift.as_slice()[image * 2 * total..][..2 * total];
                            v[m] = v[m] * (1.0 + s[i].to_f64()) + s[total + i].to_f64();
                        }
                    }
                }
            }
        }
        for image in 0..n {
            let mut uniform = vec![0.0; h * w * total];
            Address::new(5, Purpose::Dropout).at_sample(3 + image as u64).fill_uniform(0, &mut uniform);
            for (v, u) in v[image * uniform.len()..].iter_mut().zip(uniform) {
                if self.case.silu {
                    *v /= 1.0 + (-*v).exp();
                }
                if self.case.dropout > 0.0 {
                    *v = if u < self.case.dropout { 0.0 } else { *v / (1.0 - self.case.dropout as f64) };
                }
            }
        }
        if !self.case.nearest_2x {
            return (v, [n, h, w, total]);
        }
        let mut large = vec![0.0; 4 * v.len()];
        for (pixel, out) in large.chunks_exact_mut(total).enumerate() {
            let (image, y, x) = (pixel / (4 * h * w), pixel / (2 * w) % (2 * h), pixel % (2 * w));
            out.copy_from_slice(&v[((image * h + y / 2) * w + x / 2) * total..][..total]);
        }
        (large, [n, 2 * h, 2 * w, total])
    }

    /// The convolution by definition, in f64.
    fn by_definition(&self) -> Vec<f64> {
        let (v, [n, h, w, c]) = self.value();
        let g = self.case.g;
        let o = self.case.o;
        let (oh, ow) = g.output(h, w).unwrap();
        let weights = self.w.as_slice();
        let mut y = vec![0.0; n * oh * ow * o];
        for (pixel, out) in y.chunks_exact_mut(o).enumerate() {
            let (image, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            for tap in 0..g.kernel * g.kernel {
                let iy = (oy * g.stride + tap / g.kernel).wrapping_sub(g.before());
                let ix = (ox * g.stride + tap % g.kernel).wrapping_sub(g.before());
                if iy < h && ix < w {
                    for i in 0..c {
                        let x = v[((image * h + iy) * w + ix) * c + i];
                        for (out, w) in out.iter_mut().zip(&weights[(tap * c + i) * o..]) {
                            *out += x * w.to_f64();
                        }
                    }
                }
            }
            if self.case.epilogue {
                for (i, out) in out.iter_mut().enumerate() {
                    let add = self.bias.as_slice()[i] + self.channel.as_slice()[image * o + i];
                    *out = (*out + add.to_f64() + self.residual.as_slice()[pixel * o + i].to_f64()) * 0.75;
                }
            }
        }
        y
    }
}

#[test]
pub(super) fn forward_is_the_definition() {
    let (strict, exact) = (strict::<f32>(), cpu::<f64>());
    for case in cases() {
        let held = Held::new(&exact, case);
        close(&format!("f64 {case:?}"), held.forward(&exact).y.as_slice(), &held.by_definition(), 1e-11, 1e-11);
        let held = Held::new(&strict, case);
        let scale = ((case.c[0] + case.c[1]) as f64 * case.g.kernel.pow(2) as f64).sqrt();
        close(&format!("f32 {case:?}"), held.forward(&strict).y.as_slice(), &held.by_definition(), 2e-6, 2e-6 * scale);
    }
}

#[test]
fn the_value_of_an_operand_is_the_definition() {
    let cpu = cpu::<f64>();
    for case in cases() {
        let held = Held::new(&cpu, case);
        let value = cpu.operand_value(&held.operand()).unwrap();
        close(&format!("{case:?}"), value.as_slice(), &held.value().0, 1e-11, 1e-11);
    }
}

#[test]
pub(super) fn statistics_are_those_of_what_was_stored() {
    let cpu = cpu::<f64>();
    for case in cases().into_iter().filter(|c| c.epilogue) {
        let output = Held::new(&cpu, case).forward(&cpu);
        let reference = cpu.channel_statistics(output.y.view()).unwrap();
        let statistics = output.statistics.unwrap();
        let expected: Vec<f64> = reference.as_slice().to_vec();
        close(&format!("{case:?}"), statistics.as_slice(), &expected, 1e-10, 1e-10);
    }
}

/// Directional derivatives of Σ y·dy by central differences, along random directions of each input in turn.
#[test]
pub(super) fn backward_is_the_derivative() {
    let cpu = cpu::<f64>();
    for case in cases() {
        // the normalised group of one pixel and one channel has no derivative worth the name
        let mut held = Held::new(&cpu, case);
        held.case.epilogue = false;
        let grads = held.backward(&cpu);
        let norm = case.groups > 0;
        let c = case.c[0] + case.c[1];
        let last = grads.last().unwrap();
        let (dw, rest) = last.split_at(held.w.shape().len());
        let (d_gamma, d_beta) = rest.split_at(c);
        let mut inputs = vec![("x", &grads[0][..], 1e-5), ("x_2", &grads[1][..], 1e-5), ("w", dw, 1e-3)];
        if norm {
            inputs.extend([("gamma", d_gamma, 1e-4), ("beta", d_beta, 1e-4)]);
            if case.scale_shift {
                inputs.push(("scale_shift", &grads[2][..], 1e-4));
            }
        }
        for (name, grad, step) in inputs {
            let direction: Vec<f64> = values(77, grad.len());
            let analytic: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let mut at = |factor: f64| {
                let move_by = |t: &mut Tensor<Cpu<f64>>, factor: f64| {
                    t.as_mut_slice().iter_mut().zip(&direction).for_each(|(x, d)| *x += factor * d);
                };
                let pick = |held: &mut Held<f64>, factor| match name {
                    "x" => move_by(&mut held.parts[0], factor),
                    "x_2" => move_by(&mut held.parts[1], factor),
                    "w" => move_by(&mut held.w, factor),
                    "gamma" => move_by(&mut held.gamma, factor),
                    "beta" => move_by(&mut held.beta, factor),
                    _ => move_by(&mut held.scale_shift, factor),
                };
                pick(&mut held, factor);
                held.refresh(&cpu);
                let y = held.forward(&cpu).y;
                pick(&mut held, -factor);
                y.as_slice().iter().zip(held.dy.as_slice()).map(|(y, dy)| y * dy).sum::<f64>()
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            let size = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
            let error = (analytic - numeric).abs();
            assert!(
                error <= 1e-6 * size.max(1e-3),
                "{case:?} {name}: {analytic} but {numeric} by differences (size {size})"
            );
        }
    }
}

/// Every gradient, the result and its statistics.
pub(super) fn results<T: Element>(cpu: &Cpu<T>, case: Case) -> Vec<Vec<T>>
where
    Cpu<T>: Backend<Elem = T, Buffer = CpuBuffer<T>>,
{
    let held = Held::new(cpu, case);
    let output = held.forward(cpu);
    let mut all = held.backward(cpu);
    all.push(output.y.as_slice().to_vec());
    all.extend(output.statistics.map(|s| s.as_slice().to_vec()));
    all
}

#[test]
fn no_bit_of_strict_depends_on_threads_or_instruction_set() {
    same_bits_everywhere(Precision::Strict);
}

/// For any number of threads and every instruction set.
pub(super) fn same_bits_everywhere(precision: Precision) {
    for case in cases() {
        let mut reference: Option<Vec<Vec<f32>>> = None;
        for cpu in handles_of(precision) {
            let all = results(&cpu, case);
            match &reference {
                None => reference = Some(all),
                Some(reference) => {
                    for (i, (got, expected)) in all.iter().zip(reference).enumerate() {
                        same_bits(&format!("{case:?} {cpu:?} result {i}"), got, expected);
                    }
                }
            }
        }
    }
}

/// Image 3 of 35 is the same alone, and the gradient of 35 images is that of the first 32 and the last 3 in turn.
#[test]
pub(super) fn no_bit_depends_on_the_batch() {
    let cpu = cpu::<f32>();
    for case in cases() {
        let case =
            Case { n: 35, h: case.h.min(9), w: case.w.min(9), c: [case.c[0].min(24), case.c[1]], dropout: 0.0, ..case };
        if case.groups > 0 && !(case.c[0] + case.c[1]).is_multiple_of(case.groups) {
            continue;
        }
        let held = Held::new(&cpu, case);
        let whole = held.forward(&cpu).y;
        let images = |range: std::ops::Range<usize>| {
            let cut = |t: &Tensor<Cpu<f32>>| {
                let per = t.shape().len() / 35;
                let mut dims = t.shape().dims().to_vec();
                dims[0] = range.len();
                let shape = ddpm_tensor::Shape::try_from(&dims[..]).unwrap();
                Tensor::from_slice(&cpu, shape, &t.as_slice()[range.start * per..range.end * per])
            };
            let mut part = Held::new(&cpu, Case { n: range.len(), ..case });
            part.parts = [cut(&held.parts[0]).unwrap(), cut(&held.parts[1]).unwrap()];
            part.scale_shift = cut(&held.scale_shift).unwrap();
            part.channel = cut(&held.channel).unwrap();
            part.residual = cut(&held.residual).unwrap();
            part.dy = cut(&held.dy).unwrap();
            part.refresh(&cpu);
            part
        };
        let one = images(3..4).forward(&cpu).y;
        same_bits(
            &format!("image 3 {case:?}"),
            one.as_slice(),
            &whole.as_slice()[3 * one.shape().len()..4 * one.shape().len()],
        );
        let dw = 0..held.w.shape().len();
        let grad = |parts: &[&Held<f32>]| {
            let mut grads = cpu.zeroed(dw.len());
            for part in parts {
                let x = part.operand();
                cpu.conv_weight_grad(part.dy.view(), &x, case.g, &mut grads, dw.clone()).unwrap();
            }
            grads.to_vec()
        };
        same_bits(&format!("dw {case:?}"), &grad(&[&images(0..32), &images(32..35)]), &grad(&[&held]));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let cpu = cpu::<f32>();
    let x = tensor(&cpu, 1, [1, 4, 4, 6]);
    let w = tensor(&cpu, 2, [3, 3, 5, 2]);
    let error = cpu.conv(&Operand::plain(x.view()), w.view(), Geometry::THREE, &Epilogue::default()).unwrap_err();
    assert_eq!(error.to_string(), "conv: the weight should be [3, 3, 6, 2], but is [3, 3, 5, 2]");
    let view: View<'_, Cpu<f32>> = x.view();
    let norm = Norm { groups: 4, statistics: view, gamma: view, beta: view, scale_shift: None };
    let error = cpu.operand_value(&Operand::plain(view).norm(norm)).unwrap_err();
    assert!(error.to_string().contains("6 channels cannot be normalised in 4 groups"), "{error}");
}
