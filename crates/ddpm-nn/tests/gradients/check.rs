//! Finite differences: is a written backward pass the derivative of the forward pass?

use ddpm_nn::Parameters;
use ddpm_nn::layout::Role;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Shape, Tensor};

/// f64, so that differences keep ten digits.
pub(crate) type C = Cpu<f64>;

pub(crate) fn cpu() -> C {
    C::new(CpuOptions::default()).unwrap()
}

/// Addressed standard normals.
pub(crate) fn normals(count: usize, seed: u64) -> Vec<f64> {
    let mut out = vec![0.0f32; count];
    Address::new(seed, Purpose::Test).fill_normal(0, &mut out);
    out.into_iter().map(f64::from).collect()
}

/// A tensor of addressed standard normals.
pub(crate) fn random(cpu: &C, shape: impl Into<Shape>, seed: u64) -> Tensor<C> {
    let shape = shape.into();
    Tensor::from_slice(cpu, shape, &normals(shape.len(), seed)).unwrap()
}

pub(crate) fn copy(cpu: &C, x: &Tensor<C>) -> Tensor<C> {
    Tensor::copy_of(cpu, x.view()).unwrap()
}

type Forward<'a> = &'a dyn Fn(&Parameters<C>, &[Tensor<C>]) -> Vec<Tensor<C>>;
type Backward<'a> =
    &'a dyn Fn(&Parameters<C>, &[Tensor<C>], Vec<Tensor<C>>, Option<&mut Parameters<C>>) -> Vec<Option<Tensor<C>>>;

/// What is differentiated: outputs as a function of parameters and inputs.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) cpu: &'a C,
    pub(crate) parameters: Parameters<C>,
    pub(crate) inputs: Vec<Tensor<C>>,
    pub(crate) forward: Forward<'a>,
    /// Gradients of the inputs; `None` for one that gets none (without parameters' gradients, say).
    pub(crate) backward: Backward<'a>,
}

/// One comparison: a derivative along a direction in one tensor, by differences and by the backward pass.
struct Probe {
    label: String,
    tensor: usize,
    by_differences: f64,
    direction: Vec<f64>,
}

/// A tensor that is perturbed: where it lies among the parameters, or which input it is.
enum Place {
    Parameter(std::ops::Range<usize>),
    Input(usize),
}

impl Case<'_> {
    /// Σ dy·y for fixed random upstream gradients.
    fn loss(&self, parameters: &Parameters<C>, inputs: &[Tensor<C>], dy: &[Vec<f64>]) -> f64 {
        let outputs = (self.forward)(parameters, inputs);
        outputs.iter().zip(dy).flat_map(|(y, dy)| y.as_slice().iter().zip(dy)).map(|(y, dy)| y * dy).sum()
    }

    /// Panics unless the backward pass agrees with differences, adds up, and does not depend on whether gradients are
    /// wanted; and unless the comparison notices every gradient that is wrong by 1e-5.
    pub(crate) fn check(self) {
        let (probes, labels, gradients) = self.compare();
        let name = self.name;
        if let Some(worst) = disagreement(&probes, &gradients) {
            panic!("{name}: {worst}");
        }
        let largest = gradients.iter().map(|g| rms(g)).fold(0.0, f64::max);
        for (i, gradient) in gradients.iter().enumerate() {
            if rms(gradient) < 1e-2 * largest {
                continue; // nothing that could be wrong: the bias of a key has no gradient
            }
            let mut wrong = gradients.clone();
            wrong[i].iter_mut().for_each(|g| *g *= 1.0 + 1e-5);
            assert!(
                disagreement(&probes, &wrong).is_some_and(|text| text.starts_with(&labels[i])),
                "{name}: a wrong gradient of {} goes unnoticed",
                labels[i]
            );
        }
    }

    /// Whether the backward pass disagrees with differences: for one that is wrong on purpose.
    pub(crate) fn is_wrong(&self) -> bool {
        let (probes, _, gradients) = self.compare();
        disagreement(&probes, &gradients).is_some()
    }

    fn compare(&self) -> (Vec<Probe>, Vec<String>, Vec<Vec<f64>>) {
        let (cpu, name) = (self.cpu, self.name);
        let outputs = (self.forward)(&self.parameters, &self.inputs);
        let shapes: Vec<Shape> = outputs.iter().map(Tensor::shape).collect();
        let dy: Vec<Vec<f64>> = shapes.iter().enumerate().map(|(i, s)| normals(s.len(), 900 + i as u64)).collect();
        let upstream = || shapes.iter().zip(&dy).map(|(s, d)| Tensor::from_slice(cpu, *s, d).unwrap()).collect();

        let mut grads = Parameters::zeros(cpu, self.parameters.layout()).unwrap();
        let d_inputs = (self.backward)(&self.parameters, &self.inputs, upstream(), Some(&mut grads));
        let flat = grads.to_host(cpu).unwrap();

        // Gradients add up, and the input's is the same bits without them.
        (self.backward)(&self.parameters, &self.inputs, upstream(), Some(&mut grads));
        for (twice, once) in grads.to_host(cpu).unwrap().iter().zip(&flat) {
            assert!((twice - 2.0 * once).abs() <= 1e-12 * once.abs().max(1.0), "{name}: {twice} is not twice {once}");
        }
        let alone = (self.backward)(&self.parameters, &self.inputs, upstream(), None);
        for (a, b) in alone.iter().zip(&d_inputs) {
            if let (Some(a), Some(b)) = (a, b) {
                assert_eq!(a.as_slice(), b.as_slice(), "{name}: without parameters' gradients");
            }
        }

        let mut tensors: Vec<(String, Place, Vec<f64>)> = Vec::new();
        for p in self.parameters.layout().parameters() {
            if p.role == Role::Fixed {
                assert!(flat[p.range.clone()].iter().all(|&g| g == 0.0), "{name}: {} is not learned", p.name);
                continue;
            }
            tensors.push((p.name.clone(), Place::Parameter(p.range.clone()), flat[p.range.clone()].to_vec()));
        }
        for (i, d) in d_inputs.iter().enumerate() {
            let Some(d) = d else { continue };
            assert_eq!(d.shape().nhwc(), self.inputs[i].shape().nhwc(), "{name}: input {i}'s gradient");
            tensors.push((format!("input {i}"), Place::Input(i), d.as_slice().to_vec()));
        }
        let probes = self.probes(&tensors, &dy);
        let (labels, gradients) = tensors.into_iter().map(|(label, _, gradient)| (label, gradient)).unzip();
        (probes, labels, gradients)
    }

    fn probes(&self, tensors: &[(String, Place, Vec<f64>)], dy: &[Vec<f64>]) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (i, (label, place, gradient)) in tensors.iter().enumerate() {
            let mut direction = normals(gradient.len(), 500 + i as u64);
            // Twice as much along the gradient, where a wrong size shows, as anywhere.
            let (r, g) = (rms(&direction), rms(gradient).max(f64::MIN_POSITIVE));
            direction.iter_mut().zip(gradient).for_each(|(v, gradient)| *v = *v / r + 2.0 * gradient / g);
            let norm = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
            for v in &mut direction {
                *v /= norm;
            }
            probes.push(Probe {
                label: label.clone(),
                tensor: i,
                by_differences: self.difference(place, &direction, dy),
                direction,
            });
            if i % 3 == 0 {
                let at = (7 * i + 1) % gradient.len();
                let mut direction = vec![0.0; gradient.len()];
                direction[at] = 1.0;
                let by_differences = self.difference(place, &direction, dy);
                probes.push(Probe { label: format!("{label}[{at}]"), tensor: i, by_differences, direction });
            }
        }
        probes
    }

    /// The derivative of the loss along a direction, by central differences of fourth order.
    fn difference(&self, place: &Place, direction: &[f64], dy: &[Vec<f64>]) -> f64 {
        const STEP: f64 = 5e-4;
        let at = |step: f64| match place {
            Place::Parameter(range) => {
                let mut flat = self.parameters.to_host(self.cpu).unwrap();
                flat[range.clone()].iter_mut().zip(direction).for_each(|(p, v)| *p += step * v);
                let mut moved = Parameters::zeros(self.cpu, self.parameters.layout()).unwrap();
                moved.upload(self.cpu, &flat).unwrap();
                self.loss(&moved, &self.inputs, dy)
            }
            Place::Input(i) => {
                let mut moved: Vec<_> = self.inputs.iter().map(|x| copy(self.cpu, x)).collect();
                moved[*i].as_mut_slice().iter_mut().zip(direction).for_each(|(x, v)| *x += step * v);
                self.loss(&self.parameters, &moved, dy)
            }
        };
        (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * STEP)
    }
}

fn rms(g: &[f64]) -> f64 {
    (g.iter().map(|v| v * v).sum::<f64>() / g.len() as f64).sqrt()
}

/// The worst probe, in words that begin with its tensor's name, if its error is above 1e-6 of the size of the gradient's
/// elements (or, for a gradient near zero, of a thousandth of the largest gradient's).
fn disagreement(probes: &[Probe], gradients: &[Vec<f64>]) -> Option<String> {
    let largest = gradients.iter().map(|g| rms(g)).fold(0.0, f64::max);
    let mut worst = (0.0, String::new());
    for p in probes {
        let gradient = &gradients[p.tensor];
        let by_backward: f64 = gradient.iter().zip(&p.direction).map(|(g, v)| g * v).sum();
        let error = (by_backward - p.by_differences).abs() / rms(gradient).max(1e-3 * largest);
        if error > worst.0 || !error.is_finite() {
            let text = format!(
                "{}: {by_backward} by the backward pass, {} by differences, relative error {error:.1e}",
                p.label, p.by_differences
            );
            worst = (error, text);
        }
    }
    (worst.0 > 1e-6 || worst.0.is_nan()).then_some(worst.1)
}
