use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View};

use crate::KernelError;
use crate::error::expect;

type V<'a, T> = View<'a, Cpu<T>>;

/// softmax(q_i·k·scale) of one query of one head.
fn weights<T: Element>(q: &[T], k: &[T], c: usize, head: std::ops::Range<usize>, scale: T, p: &mut [T]) {
    let mut most = T::of(f64::NEG_INFINITY);
    for (p, k) in p.iter_mut().zip(k.chunks_exact(c)) {
        let mut sum = T::ZERO;
        for i in head.clone() {
            sum = q[i].fma(k[i], sum);
        }
        *p = sum * scale;
        if *p > most {
            most = *p;
        }
    }
    let mut total = T::ZERO;
    for p in p.iter_mut() {
        *p = (*p - most).exp();
        total += *p;
    }
    for p in p {
        *p = *p / total;
    }
}

fn check<T: Element>(
    o: &'static str,
    q: V<'_, T>,
    k: V<'_, T>,
    v: V<'_, T>,
    heads: usize,
) -> Result<[usize; 3], KernelError> {
    let [n, h, w, c] = q.shape().nhwc();
    expect(o, "k", q.shape(), k.shape())?;
    expect(o, "v", q.shape(), v.shape())?;
    if heads == 0 || !c.is_multiple_of(heads) {
        return Err(KernelError::Setting { operation: o, what: format!("{c} channels have no {heads} equal heads") });
    }
    Ok([n, h * w, c])
}

pub(crate) fn attention<T: Element>(
    cpu: &Cpu<T>,
    q: V<'_, T>,
    k: V<'_, T>,
    v: V<'_, T>,
    heads: usize,
    scale: f32,
) -> Result<Tensor<Cpu<T>>, KernelError> {
    let [n, p, c] = check("attention", q, k, v, heads)?;
    let mut o = Tensor::zeros(cpu, q.shape())?;
    let out = DisjointMut::new(o.as_mut_slice());
    cpu.parallel(n, n * p * p * c, |image| {
        let range = image * p * c..(image + 1) * p * c;
        // SAFETY: tasks have different images.
        let o = unsafe { out.part(range.clone()) };
        let (q, k, v) = (&q.as_slice()[range.clone()], &k.as_slice()[range.clone()], &v.as_slice()[range]);
        let mut row = cpu.scratch(p);
        for (q, o) in q.chunks_exact(c).zip(o.chunks_exact_mut(c)) {
            for head in (0..heads).map(|h| h * c / heads..(h + 1) * c / heads) {
                weights(q, k, c, head.clone(), T::of_f32(scale), &mut row);
                for (&p, v) in row.iter().zip(v.chunks_exact(c)) {
                    for i in head.clone() {
                        o[i] = p.fma(v[i], o[i]);
                    }
                }
            }
        }
    });
    Ok(o)
}

pub(crate) fn attention_grad<T: Element>(
    cpu: &Cpu<T>,
    q: V<'_, T>,
    k: V<'_, T>,
    v: V<'_, T>,
    d_o: V<'_, T>,
    heads: usize,
    scale: f32,
) -> Result<[Tensor<Cpu<T>>; 3], KernelError> {
    let [n, p, c] = check("attention_grad", q, k, v, heads)?;
    expect("attention_grad", "the gradient", q.shape(), d_o.shape())?;
    let scale = T::of_f32(scale);
    let mut all = [Tensor::zeros(cpu, q.shape())?, Tensor::zeros(cpu, q.shape())?, Tensor::zeros(cpu, q.shape())?];
    let out = all.each_mut().map(|t| DisjointMut::new(t.as_mut_slice()));
    cpu.parallel(n, 3 * n * p * p * c, |image| {
        let range = image * p * c..(image + 1) * p * c;
        // SAFETY: tasks have different images.
        let [dq, dk, dv] = out.each_ref().map(|out| unsafe { out.part(range.clone()) });
        let [q, k, v, d_o] = [q, k, v, d_o].map(|t| &t.as_slice()[range.clone()]);
        let (mut row, mut d_row) = (cpu.scratch(p), cpu.scratch(p));
        for ((q, d_o), dq) in q.chunks_exact(c).zip(d_o.chunks_exact(c)).zip(dq.chunks_exact_mut(c)) {
            for head in (0..heads).map(|h| h * c / heads..(h + 1) * c / heads) {
                weights(q, k, c, head.clone(), scale, &mut row);
                let mut mean = T::ZERO;
                for (j, d) in d_row.iter_mut().enumerate() {
                    *d = T::ZERO;
                    for i in head.clone() {
                        *d = d_o[i].fma(v[j * c + i], *d);
                        dv[j * c + i] = row[j].fma(d_o[i], dv[j * c + i]);
                    }
                    mean = row[j].fma(*d, mean);
                }
                for (j, d) in d_row.iter().enumerate() {
                    let ds = row[j] * (*d - mean) * scale;
                    for i in head.clone() {
                        dq[i] = ds.fma(k[j * c + i], dq[i]);
                        dk[j * c + i] = ds.fma(q[i], dk[j * c + i]);
                    }
                }
            }
        }
    });
    Ok(all)
}
