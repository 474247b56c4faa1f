//! Attention on the stand-in GPU against the CPU.

use crate::support::{Compute, compare, normal};
use ddpm_kernels::Backend;

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) n: usize,
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    pub(crate) heads: usize,
    pub(crate) scale: f32,
}

impl Compute for Case {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let [q, k, v, d_o] = [1, 2, 3, 4].map(|stream| normal(d, stream, [self.n, self.pixels, self.channels]));
        let o = d.attention(q.view(), k.view(), v.view(), self.heads, self.scale).unwrap();
        let [dq, dk, dv] = d.attention_grad(q.view(), k.view(), v.view(), d_o.view(), self.heads, self.scale).unwrap();
        [("o", o), ("dq", dq), ("dk", dk), ("dv", dv)].map(|(name, t)| (name, t.to_vec(d).unwrap())).into()
    }
}

#[test]
fn attention_agrees() {
    for (n, pixels, channels, heads) in
        [(1, 1, 1, 1), (2, 16, 8, 1), (1, 49, 64, 1), (2, 65, 24, 2), (1, 130, 66, 1), (3, 7, 130, 2), (1, 17, 12, 12)]
    {
        let scale = 1.0 / ((channels / heads) as f32).sqrt();
        let case = Case { n, pixels, channels, heads, scale };
        compare(&format!("{case:?}"), 1e-6, &case);
    }
    // weights that are almost one-hot
    let case = Case { n: 1, pixels: 70, channels: 16, heads: 1, scale: 3.0 };
    compare(&format!("{case:?}"), 4e-6, &case);
}
