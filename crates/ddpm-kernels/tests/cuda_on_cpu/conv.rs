//! Convolutions over every option of operands and epilogues, and operands alone, on the stand-in GPU against the CPU.

use crate::support::{Compute, compare, normal};
use ddpm_kernels::conv::{Along, ConvGrad, Geometry, Padding, ParameterGrads};
use ddpm_kernels::{Backend, Dropout, Epilogue, Norm, NormParameters, Operand, Parts};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Tensor, View};

/// Sizes and which options are on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    /// Channels of the two parts; no second one if 0.
    pub(crate) c: [usize; 2],
    pub(crate) o: usize,
    pub(crate) g: Geometry,
    /// Groups of the norm; none if 0.
    pub(crate) groups: usize,
    pub(crate) scale_shift: bool,
    pub(crate) silu: bool,
    pub(crate) dropout: f32,
    pub(crate) nearest_2x: bool,
    pub(crate) epilogue: bool,
}

pub(crate) const PLAIN: Case = Case {
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

impl Compute for Case {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let Self { n, h, w, c: [a, b], o, g, .. } = *self;
        let c = a + b;
        let (x_a, x_b) = (normal(d, 1, [n, h, w, a]), normal(d, 2, [n, h, w, b]));
        let (gamma, beta) = (normal(d, 3, [c]), normal(d, 4, [c]));
        let scale_shift = normal(d, 5, [n, 2 * c]);
        let weights = normal(d, 6, [g.kernel, g.kernel, c, o]);
        let scale = if self.nearest_2x { 2 } else { 1 };
        let (out_h, out_w) = g.output(scale * h, scale * w).unwrap();
        let size = [n, out_h, out_w, o];
        let (bias, channel, residual) = (normal(d, 7, [o]), normal(d, 8, [n, o]), normal(d, 9, size));
        let dy = normal(d, 10, size);
        let mut all = Vec::new();

        let of_a = d.channel_statistics(x_a.view()).unwrap();
        let of_b = d.channel_statistics(x_b.view()).unwrap();
        let of_parts = [Some(of_a.view()), (b > 0).then(|| of_b.view())];
        let known = NormParameters {
            gamma: gamma.view(),
            beta: beta.view(),
            scale_shift: self.scale_shift.then(|| scale_shift.view()),
        };
        let (groups, pixels) = (self.groups.max(1), h * w);
        let statistics = d.norm_statistics_for(of_parts, pixels, groups, 1e-5, &known).unwrap();
        let norm = (self.groups > 0).then(|| Norm {
            groups: self.groups,
            statistics: statistics.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            scale_shift: self.scale_shift.then(|| scale_shift.view()),
        });
        let parts = if b > 0 { Parts::Two(x_a.view(), x_b.view()) } else { Parts::One(x_a.view()) };
        let address = Address::new(5, Purpose::Dropout).at_step(8).at_sample(3);
        let x = Operand { parts, norm, silu: self.silu, dropout: None, nearest_2x: self.nearest_2x };
        let x = x.dropout(Some(Dropout { probability: self.dropout, address }));
        all.push(("value", d.operand_value(&x).unwrap().to_vec(d).unwrap()));
        // statistics for no norm in particular: coefficients are made when the operand is read
        let unknown = d.norm_statistics(of_parts, pixels, groups, 1e-5).unwrap();
        let norm = x.norm.map(|norm| Norm { statistics: unknown.view(), ..norm });
        all.push(("value again", d.operand_value(&Operand { norm, ..x }).unwrap().to_vec(d).unwrap()));

        let epilogue = if self.epilogue {
            Epilogue {
                bias: Some(bias.view()),
                channel: Some(channel.view()),
                residual: Some(residual.view()),
                scale: 0.75,
                statistics: true,
            }
        } else {
            Epilogue::default()
        };
        let output = d.conv(&x, weights.view(), g, &epilogue).unwrap();
        all.push(("y", output.y.to_vec(d).unwrap()));
        all.extend(output.statistics.map(|s| ("statistics of y", s.to_vec(d).unwrap())));

        let dw = 2..2 + weights.shape().len();
        let mut grads = normal(d, 11, [dw.end + 2 * c]);
        let buffer = &mut grads.view_mut();
        d.conv_weight_grad(dy.view(), &x, g, buffer.buffer(), dw.clone()).unwrap();
        let pulled = d.conv_input_grad(dy.view(), weights.view(), g, &x).unwrap();
        all.push(("g", pulled.g.to_vec(d).unwrap()));
        if let Some(sums) = &pulled.sums {
            all.push(("sums", sums.to_vec(d).unwrap()));
            let (of_gamma, of_beta) = (dw.end..dw.end + c, dw.end + c..dw.end + 2 * c);
            let d_scale_shift = d.norm_param_grad(&x, sums.view(), buffer.buffer(), of_gamma, of_beta).unwrap();
            all.extend(d_scale_shift.map(|s| ("d_scale_shift", s.to_vec(d).unwrap())));
        }
        all.push(("dw, d_gamma and d_beta", grads.to_vec(d).unwrap()));
        let add = normal(d, 12, [n, h, w, a]);
        let (to_a, to_b) = d.operand_grad(&x, pulled, [self.epilogue.then(|| add.view()), None]).unwrap();
        all.push(("dx", to_a.to_vec(d).unwrap()));
        all.extend(to_b.map(|dx| ("second dx", dx.to_vec(d).unwrap())));
        all.extend(self.backward(d, &x, [weights.view(), dy.view()]));
        all
    }
}

impl Case {
    /// All the way back at once: of two products with all that can be added and is wanted, and of one with nothing.
    fn backward<B: Backend<Elem = f32>>(
        &self,
        d: &B,
        x: &Operand<'_, B>,
        [w, dy]: [View<'_, B>; 2],
    ) -> Vec<(&'static str, Vec<f32>)> {
        let Self { n, h, w: width, c: [a, b], o, g, .. } = *self;
        let c = a + b;
        let (other_w, other_dy) = (normal(d, 21, w.shape()), normal(d, 22, dy.shape()));
        let sums = d.pixel_sums(dy).unwrap();
        let len = w.shape().len();
        let ranges = |first: usize| (first..first + len, first + len..first + len + o);
        let ((dw, db), (other_dw, other_db)) = (ranges(3), ranges(3 + len + o));
        let norm = [other_db.end..other_db.end + c, other_db.end + c..other_db.end + 2 * c];
        let mut buffer = normal(d, 23, [norm[1].end]);
        let one = ConvGrad { dy, dy_sums: Some(sums.view()), w, dw, db: Some(db) };
        let other = (other_dy.view(), other_w.view());
        let other = ConvGrad { dy: other.0, dy_sums: None, w: other.1, dw: other_dw, db: Some(other_db) };
        let along = Along {
            whole: Some(normal(d, 24, [n, h, width, c])),
            first: self.epilogue.then(|| normal(d, 25, [n, h, width, a])),
        };
        let mut to = buffer.view_mut();
        let grads = ParameterGrads { buffer: to.buffer(), norm: (self.groups > 0).then_some(norm) };
        let got = d.conv_backward(&[one.clone(), other], g, x, along, Some(grads), true).unwrap();
        let mut all = vec![("backward: dx", got.first.to_vec(d).unwrap())];
        all.extend(got.second.map(|dx| ("backward: second dx", dx.to_vec(d).unwrap())));
        all.push(("sums", got.first_sums.unwrap().to_vec(d).unwrap()));
        all.extend(got.scale_shift.map(|s| ("d_scale_shift", s.to_vec(d).unwrap())));
        all.push(("backward: gradients of parameters", buffer.to_vec(d).unwrap()));
        let one = ConvGrad { dy_sums: None, ..one };
        let got = d.conv_backward(&[one], g, x, Along::default(), None, false).unwrap();
        assert!(got.first_sums.is_none() && got.scale_shift.is_none() && got.second.is_some() == (b > 0));
        all.push(("backward, alone: dx", got.first.to_vec(d).unwrap()));
        all.extend(got.second.map(|dx| ("backward, alone: second dx", dx.to_vec(d).unwrap())));
        all
    }
}

fn compare_all(cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        compare(&format!("{case:?}"), 1e-6, &case);
    }
}

#[test]
fn channels_of_any_number() {
    for g in [Geometry::THREE, Geometry::ONE] {
        for (c, o) in [(1, 1), (3, 8), (8, 130), (24, 33), (130, 17), (33, 66)] {
            compare_all([Case { g, c: [c, 0], o, epilogue: true, ..PLAIN }]);
        }
    }
}

#[test]
fn images_of_any_size() {
    for g in [Geometry::THREE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
        for (n, h, w) in [(2, 3, 3), (1, 8, 8), (1, 9, 17), (1, 16, 4), (5, 2, 2), (1, 1, 40)] {
            if g.output(h, w).is_ok() {
                compare_all([Case { n, g, h, w, c: [8, 0], o: 32, groups: 4, silu: true, epilogue: true, ..PLAIN }]);
            }
        }
    }
}

#[test]
fn operands_of_any_kind() {
    for g in [Geometry::THREE, Geometry::ONE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
        let all = Case { g, c: [8, 16], o: 20, groups: 6, silu: true, dropout: 0.3, epilogue: true, ..PLAIN };
        // channels that four do not divide: parts and dropout blocks are straddled
        let odd = Case { c: [6, 9], groups: 5, ..all };
        compare_all([
            all,
            Case { scale_shift: true, ..odd },
            Case { nearest_2x: true, ..odd },
            Case { groups: 0, ..odd },
            Case { silu: false, ..odd },
            Case { n: 1, nearest_2x: true, groups: 0, silu: false, dropout: 0.0, ..all },
        ]);
    }
}

#[test]
fn batches_and_chains_of_any_length() {
    compare_all([
        // dense layers, and batches that are no multiple of 16
        Case { n: 19, h: 1, w: 1, c: [96, 0], o: 40, g: Geometry::ONE, silu: true, epilogue: true, ..PLAIN },
        Case { n: 70, h: 1, w: 1, c: [20, 0], o: 70, g: Geometry::ONE, epilogue: true, ..PLAIN },
        Case { n: 35, h: 3, w: 2, c: [20, 0], o: 9, groups: 5, silu: true, epilogue: true, ..PLAIN },
        // an image of one pixel under nine taps: the tile is cut to what shared memory holds
        Case { n: 33, h: 1, w: 1, c: [5, 0], o: 6, ..PLAIN },
        // several parts of an image, and more than one chain of sums
        Case { n: 1, h: 40, w: 33, c: [4, 0], o: 4, groups: 2, silu: true, epilogue: true, ..PLAIN },
        Case { n: 1, h: 4, w: 4, c: [1100, 0], o: 5, g: Geometry::ONE, ..PLAIN },
        Case { n: 1, h: 4, w: 4, c: [130, 0], o: 5, ..PLAIN },
        // groups of more channels than a chunk, and a group that ends within one
        Case { n: 2, h: 3, w: 5, c: [70, 60], o: 5, groups: 2, silu: true, epilogue: true, ..PLAIN },
        Case { n: 2, h: 3, w: 5, c: [66, 0], o: 5, groups: 6, dropout: 0.4, ..PLAIN },
    ]);
}

/// Images `from..to` of a batch.
fn images<B: Backend>(t: &Tensor<B>, from: usize, to: usize) -> View<'_, B> {
    let [_, h, w, c] = t.shape().nhwc();
    View::of(t.view().buffer(), from * h * w * c, [to - from, h, w, c]).unwrap()
}

/// The gradient of 35 images is that of the first 32 and the last 3 in turn, to the bit.
pub(crate) struct Halves(pub(crate) Geometry, pub(crate) usize);

impl Compute for Halves {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let Self(g, side) = *self;
        let (out_h, out_w) = g.output(side, side).unwrap();
        let (x, dy) = (normal(d, 1, [35, side, side, 6]), normal(d, 2, [35, out_h, out_w, 5]));
        let len = g.kernel * g.kernel * 6 * 5;
        let run = |cuts: &[usize]| {
            let mut grads = d.zeros(len).unwrap();
            let mut from = 0;
            for &to in cuts {
                let (x, dy) = (images(&x, from, to), images(&dy, from, to));
                d.conv_weight_grad(dy, &Operand::plain(x), g, &mut grads, 0..len).unwrap();
                from = to;
            }
            let mut host = vec![0.0; len];
            d.download(&grads, 0..len, &mut host).unwrap();
            host
        };
        let whole = run(&[35]);
        assert_eq!(run(&[32, 35]), whole);
        vec![("dw", whole)]
    }
}

#[test]
fn micro_batches_add_up_to_the_bit() {
    for (g, side) in [(Geometry::THREE, 9), (Geometry::THREE, 2), (Geometry::ONE, 1), (Geometry::down(Padding::End), 6)]
    {
        compare(&format!("{g:?} {side}"), 1e-6, &Halves(g, side));
    }
}
