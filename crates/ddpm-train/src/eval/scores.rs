//! Scores of features that are in memory: kernel distance, Inception score, precision, recall, density and coverage.

use ddpm_tensor::random::{Address, Purpose};
use faer::Mat;
use rayon::prelude::*;

use super::error::{EvalError, expect};

/// Features `[N, D]`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    /// Rows of so many features.
    ///
    /// # Errors
    /// A count that the width does not divide.
    pub fn new(values: &'a [f32], width: usize) -> Result<Self, EvalError> {
        let fits = width > 0 && values.len().is_multiple_of(width);
        expect(fits, "features", || format!("rows of {width}"), || format!("{} numbers", values.len()))?;
        Ok(Self { values, width })
    }

    /// N.
    pub fn count(self) -> usize {
        self.values.len() / self.width
    }

    fn row(self, i: usize) -> &'a [f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    fn matrix(self, rows: &[usize]) -> Mat<f64> {
        Mat::from_fn(rows.len(), self.width, |i, j| f64::from(self.row(rows[i])[j]))
    }
}

fn expect_same_width(operation: &'static str, a: Rows<'_>, b: Rows<'_>) -> Result<(), EvalError> {
    expect(a.width == b.width, operation, || format!("{} features", a.width), || b.width.to_string())
}

/// A mean over subsets or splits, and how far these spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// Standard deviation over the subsets, with their number in the denominator.
    pub std: f64,
    /// Number of subsets.
    pub count: usize,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        Self { mean, std, count: values.len() }
    }

    /// Standard error of the mean, as if the subsets were independent.
    pub fn std_error(&self) -> f64 {
        self.std / (self.count as f64).sqrt()
    }
}

/// Subsets of the kernel distance.
pub const KID_SUBSETS: usize = 100;
/// Images of each.
pub const KID_SUBSET: usize = 1000;

/// The kernel distance (Bińkowski et al. 2018): the unbiased estimate of MMD² with the kernel (x·y/D + 1)³, as mean over
/// `subsets` subsets of `size` rows drawn without replacement, at most as many as there are.
///
/// # Errors
/// Features of different widths, or fewer than two rows.
pub fn kernel_distance(a: Rows<'_>, b: Rows<'_>, subsets: usize, size: usize, seed: u64) -> Result<Spread, EvalError> {
    expect_same_width("kernel distance", a, b)?;
    let size = size.min(a.count()).min(b.count());
    expect(size > 1, "kernel distance", || "two images or more".into(), || size.to_string())?;
    let values: Vec<f64> = (0..subsets.max(1))
        .map(|subset| {
            let pick = |which: u64, rows: Rows<'_>| rows.matrix(&draw(seed, subset as u64, which, rows.count(), size));
            mmd2(&pick(0, a), &pick(1, b))
        })
        .collect();
    Ok(Spread::of(&values))
}

/// `size` of `0..count`, without replacement, in ascending order: those with the smallest random keys.
fn draw(seed: u64, subset: u64, which: u64, count: usize, size: usize) -> Vec<usize> {
    let address = Address::new(seed, Purpose::Score).at_step(subset).at_sample(which);
    let mut keyed: Vec<(u32, usize)> = (0..count).map(|i| (address.block(i as u32)[0], i)).collect();
    keyed.sort_unstable();
    let mut chosen: Vec<usize> = keyed.into_iter().take(size).map(|(_, i)| i).collect();
    chosen.sort_unstable();
    chosen
}

/// Unbiased MMD² of two sets of equal size (Gretton et al. 2012, eq. 4).
fn mmd2(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let (n, width) = (x.nrows(), x.ncols() as f64);
    let kernel_sum = |a: &Mat<f64>, b: &Mat<f64>, diagonal: bool| {
        let products = a * b.transpose();
        let mut sum = 0.0;
        for j in 0..n {
            for i in (0..n).filter(|&i| diagonal || i != j) {
                sum += (products[(i, j)] / width + 1.0).powi(3);
            }
        }
        sum
    };
    let (n, pairs) = (n as f64, (n * (n - 1)) as f64);
    (kernel_sum(x, x, false) + kernel_sum(y, y, false)) / pairs - 2.0 * kernel_sum(x, y, true) / (n * n)
}

/// Splits of the Inception score.
pub const IS_SPLITS: usize = 10;

/// The Inception score (Salimans et al. 2016): exp(E KL(p(y|x) ‖ p(y))) of `logits [N, classes]`, over `splits` equal parts
/// in their order; what does not fill a part is left out.
///
/// # Errors
/// Fewer rows than parts.
pub fn inception_score(logits: Rows<'_>, splits: usize) -> Result<Spread, EvalError> {
    let each = logits.count() / splits.max(1);
    expect(each > 0, "Inception score", || format!("{splits} images or more"), || logits.count().to_string())?;
    let probabilities = |i: usize| -> Vec<f64> {
        let row = logits.row(i);
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = row.iter().map(|&x| libm::exp(f64::from(x - most))).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|x| x / sum).collect()
    };
    let score = |split: usize| {
        let rows: Vec<Vec<f64>> = (split * each..(split + 1) * each).map(probabilities).collect();
        let mut marginal = vec![0.0; logits.width];
        for row in &rows {
            marginal.iter_mut().zip(row).for_each(|(sum, p)| *sum += p / each as f64);
        }
        let term = |(&p, &q): (&f64, &f64)| if p > 0.0 { p * (libm::log(p) - libm::log(q)) } else { 0.0 };
        let divergence: f64 = rows.iter().map(|row| row.iter().zip(&marginal).map(term).sum::<f64>()).sum();
        libm::exp(divergence / each as f64)
    };
    Ok(Spread::of(&(0..splits.max(1)).map(score).collect::<Vec<_>>()))
}

/// The share of images whose largest logit of `[N, classes]` is that of the class they were drawn as.
///
/// # Errors
/// Another number of classes than of rows, or a class that has no logit.
pub fn agreement(logits: Rows<'_>, classes: &[usize]) -> Result<f64, EvalError> {
    let (rows, width) = (logits.count(), logits.width);
    expect(classes.len() == rows && rows > 0, "agreement", || format!("{rows} classes"), || classes.len().to_string())?;
    let most = classes.iter().copied().max().unwrap_or(0);
    expect(most < width, "agreement", || format!("classes below {width}"), || most.to_string())?;
    let agrees = |i: usize| {
        let row = logits.row(i);
        row.iter().enumerate().all(|(j, &x)| j == classes[i] || x < row[classes[i]])
    };
    Ok((0..rows).filter(|&i| agrees(i)).count() as f64 / rows as f64)
}

/// How two sets of features cover each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cover {
    /// Share of the model's images within the data's manifold (Kynkäänniemi et al. 2019, eq. 2, k = 3).
    pub precision: f64,
    /// Share of the data within the model's manifold.
    pub recall: f64,
    /// Mean number of the data's balls that an image lies in, over k (Naeem et al. 2020, eq. 5, k = 5).
    pub density: f64,
    /// Share of the data's balls with an image in them (eq. 6 there).
    pub coverage: f64,
}

/// Neighbours whose distance bounds a ball, for precision and recall, and for density and coverage.
const NEIGHBOURS: [usize; 2] = [3, 5];

/// Precision, recall, density and coverage of a model's features against the data's.
///
/// # Errors
/// Features of different widths, or fewer than six rows.
pub fn cover(model: Rows<'_>, data: Rows<'_>) -> Result<Cover, EvalError> {
    expect_same_width("precision and recall", model, data)?;
    let least = model.count().min(data.count());
    let far = NEIGHBOURS[1];
    expect(least > far, "precision and recall", || format!("{} images or more", far + 1), || least.to_string())?;
    let of_data = radii(data);
    let of_model = radii(model);
    // for each of the data: which of its balls hold something, and how many images of the model hold it
    let balls: Vec<(bool, usize, bool)> = (0..data.count())
        .into_par_iter()
        .map(|i| {
            let (row, [_, radius]) = (data.row(i), of_data[i]);
            let inside = |j: usize| squared_distance(row, model.row(j));
            let (mut within, mut recalled) = (0, false);
            for (j, [radius_of_model, _]) in of_model.iter().enumerate() {
                let distance = inside(j);
                within += usize::from(distance <= radius);
                recalled |= distance <= *radius_of_model;
            }
            (recalled, within, within > 0)
        })
        .collect();
    let precise: usize = (0..model.count())
        .into_par_iter()
        .map(|j| {
            let row = model.row(j);
            let held = (0..data.count()).any(|i| squared_distance(data.row(i), row) <= of_data[i][0]);
            usize::from(held)
        })
        .sum();
    let (n, m) = (data.count() as f64, model.count() as f64);
    Ok(Cover {
        precision: precise as f64 / m,
        recall: balls.iter().filter(|ball| ball.0).count() as f64 / n,
        density: balls.iter().map(|ball| ball.1).sum::<usize>() as f64 / (far as f64 * m),
        coverage: balls.iter().filter(|ball| ball.2).count() as f64 / n,
    })
}

/// The squared distances of each row to its third and its fifth nearest other row.
fn radii(rows: Rows<'_>) -> Vec<[f64; 2]> {
    let of = |i: usize| {
        let mut nearest = vec![f64::INFINITY; NEIGHBOURS[1]];
        for j in (0..rows.count()).filter(|&j| j != i) {
            let distance = squared_distance(rows.row(i), rows.row(j));
            let place = nearest.partition_point(|&other| other <= distance);
            if place < nearest.len() {
                nearest.insert(place, distance);
                nearest.pop();
            }
        }
        NEIGHBOURS.map(|k| nearest[k - 1])
    };
    (0..rows.count()).into_par_iter().map(of).collect()
}

/// Sums in eight chains, in a fixed order.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let mut chains = [0.0_f64; 8];
    let (a_parts, b_parts) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 =
        a_parts.remainder().iter().zip(b_parts.remainder()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for (chain, (&a, &b)) in chains.iter_mut().zip(a.iter().zip(b)) {
            let d = f64::from(a) - f64::from(b);
            *chain += d * d;
        }
    }
    chains.iter().sum::<f64>() + rest
}
