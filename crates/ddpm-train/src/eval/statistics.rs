//! Mean and covariance of features that stream by, and the Fréchet distance between two of them.

use faer::{Mat, Side};
use rayon::prelude::*;

use super::error::{EvalError, expect};

/// Rows that are taken in together: sums do not depend on how rows arrive.
const BLOCK: usize = 32;
/// Eigenvalues below this part of the largest, times the width, are rounding.
const ROUNDING: f64 = f64::EPSILON;

/// Mean and covariance, as they grow: constant memory in the number of rows.
///
/// Blocks of 32 rows, centred at their own mean, are merged in order (Chan et al. 1983), so that neither a large mean nor
/// many rows cost digits, and the bits depend on the rows alone.
#[derive(Debug, Clone)]
pub struct Moments {
    width: usize,
    count: usize,
    mean: Vec<f64>,
    /// Σ (x − mean)(x − mean)ᵀ, the upper triangle.
    m2: Vec<f64>,
    waiting: Vec<f32>,
}

/// Mean and covariance of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// `[D]`.
    pub mean: Vec<f64>,
    /// `[D, D]`, with n − 1 in the denominator.
    pub covariance: Vec<f64>,
}

impl Moments {
    /// Of no rows yet.
    pub fn new(width: usize) -> Self {
        Self { width, count: 0, mean: vec![0.0; width], m2: vec![0.0; width * width], waiting: Vec::new() }
    }

    /// Takes in rows `[N, D]`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn push(&mut self, rows: &[f32]) -> Result<(), EvalError> {
        let width = self.width;
        let fits = width > 0 && rows.len().is_multiple_of(width);
        expect(fits, "statistics", || format!("rows of {width} features"), || format!("{} numbers", rows.len()))?;
        self.waiting.extend_from_slice(rows);
        let whole = self.waiting.len() / (BLOCK * width) * BLOCK * width;
        let waiting = self.waiting.split_off(whole);
        let blocks = std::mem::replace(&mut self.waiting, waiting);
        blocks.chunks_exact((BLOCK * width).max(1)).for_each(|block| self.merge(block));
        Ok(())
    }

    /// Rows so far.
    pub fn count(&self) -> usize {
        self.count + self.waiting.len() / self.width.max(1)
    }

    fn merge(&mut self, block: &[f32]) {
        let width = self.width;
        let rows = block.len() / width;
        let (n, b) = (self.count as f64, rows as f64);
        let mut mean = vec![0.0; width];
        for row in block.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x));
        }
        for mean in &mut mean {
            *mean /= b;
        }
        let mut centred: Vec<f64> = block
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean))
            .collect();
        // the distance of the two means enters as one more row
        let share = (n * b / (n + b)).sqrt();
        centred.extend(mean.iter().zip(&self.mean).map(|(new, old)| (new - old) * share));
        self.m2.par_chunks_exact_mut(width).enumerate().for_each(|(i, sums)| {
            for row in centred.chunks_exact(width) {
                let factor = row[i];
                sums[i..].iter_mut().zip(&row[i..]).for_each(|(sum, x)| *sum += factor * x);
            }
        });
        self.mean.iter_mut().zip(&mean).for_each(|(old, new)| *old += (new - *old) * (b / (n + b)));
        self.count += rows;
    }

    /// Mean and covariance of all rows.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn finish(mut self) -> Result<Statistics, EvalError> {
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() {
            self.merge(&rest);
        }
        expect(self.count > 1, "statistics", || "two images or more".into(), || self.count.to_string())?;
        let (width, by) = (self.width, self.count as f64 - 1.0);
        let upper = |i: usize, j: usize| self.m2[i.min(j) * width + i.max(j)] / by;
        let covariance = (0..width * width).map(|k| upper(k / width, k % width)).collect();
        Ok(Statistics { mean: self.mean, covariance })
    }
}

impl Statistics {
    /// Of rows `[N, D]`.
    ///
    /// # Errors
    /// Fewer than two rows, or rows of another width.
    pub fn of(rows: &[f32], width: usize) -> Result<Self, EvalError> {
        let mut moments = Moments::new(width);
        moments.push(rows)?;
        moments.finish()
    }

    /// D.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// L with C = L·Lᵀ, `[D, rank]`, from the eigenvectors; what is negative or nothing but rounding is left out.
    fn factor(&self) -> Result<Mat<f64>, EvalError> {
        let width = self.width();
        let covariance = Mat::from_fn(width, width, |i, j| self.covariance[i * width + j]);
        let eigen = covariance.self_adjoint_eigen(Side::Lower).map_err(|_| EvalError::NotConverged("eigenvalues"))?;
        let (vectors, values) = (eigen.U(), eigen.S().column_vector());
        // ascending
        let largest = if width == 0 { 0.0 } else { values[width - 1] };
        let first = (0..width).find(|&i| values[i] > largest * ROUNDING * width as f64).unwrap_or(width);
        Ok(Mat::from_fn(width, width - first, |i, j| vectors[(i, first + j)] * values[first + j].sqrt()))
    }

    fn trace(&self) -> f64 {
        (0..self.width()).map(|i| self.covariance[i * self.width() + i]).sum()
    }
}

/// The Fréchet distance between two Gaussians, `|μ_1 − μ_2|² + tr(C_1 + C_2 − 2 √(C_1·C_2))` (Dowson and Landau 1982; of
/// Inception features: Heusel et al. 2017).
///
/// With C = L·Lᵀ, the trace of √(C_1·C_2) is the sum of the singular values of L_1ᵀ·L_2: that keeps all digits also where
/// the covariances are singular (fewer images than features), unlike the root of their product.
///
/// # Errors
/// Statistics of different widths, or that are not finite.
pub fn frechet_distance(a: &Statistics, b: &Statistics) -> Result<f64, EvalError> {
    let same = a.width() == b.width();
    expect(same, "Fréchet distance", || format!("{} features", a.width()), || b.width().to_string())?;
    let finite = |s: &Statistics| s.mean.iter().chain(&s.covariance).all(|x| x.is_finite());
    expect(finite(a) && finite(b), "Fréchet distance", || "finite statistics".into(), || "others".into())?;
    let distance: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let product = a.factor()?.transpose() * b.factor()?;
    let root: f64 = if product.nrows() == 0 || product.ncols() == 0 {
        0.0
    } else {
        product.singular_values().map_err(|_| EvalError::NotConverged("singular values"))?.iter().sum()
    };
    Ok(distance + a.trace() + b.trace() - 2.0 * root)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ddpm_tensor::random::{Address, Purpose};

    fn rows(count: usize, width: usize, shift: f32) -> Vec<f32> {
        let mut out = vec![0.0; count * width];
        Address::new(5, Purpose::Test).fill_normal(0, &mut out);
        for x in &mut out {
            *x += shift;
        }
        out
    }

    #[test]
    fn statistics_do_not_depend_on_how_rows_arrive_and_keep_their_digits() {
        let (width, shift) = (7, 1000.0);
        let all = rows(101, width, shift);
        let whole = Statistics::of(&all, width).unwrap();
        let mut parts = Moments::new(width);
        for part in all.chunks(width * 9) {
            parts.push(part).unwrap();
        }
        assert_eq!(parts.count(), 101);
        assert_eq!(parts.finish().unwrap(), whole);
        let column = |j: usize| all.iter().skip(j).step_by(width).map(|&x| f64::from(x));
        for i in 0..width {
            let mean = |j: usize| column(j).sum::<f64>() / 101.0;
            assert!((whole.mean[i] - mean(i)).abs() < 1e-10);
            for j in 0..width {
                let sum: f64 = column(i).zip(column(j)).map(|(x, y)| (x - mean(i)) * (y - mean(j))).sum();
                assert!((whole.covariance[i * width + j] - sum / 100.0).abs() < 1e-12);
            }
        }
        assert!(Moments::new(width).finish().is_err());
        assert!(Moments::new(width).push(&all[1..]).is_err());
    }

    #[test]
    fn the_distance_of_diagonal_gaussians_is_the_closed_form() {
        let diagonal = |mean: [f64; 3], deviation: [f64; 3]| {
            let covariance = (0..9).map(|k| if k % 4 == 0 { f64::powi(deviation[k / 3], 2) } else { 0.0 }).collect();
            Statistics { mean: mean.to_vec(), covariance }
        };
        let (a, b) = (diagonal([0.0, 1.0, 2.0], [1.0, 2.0, 0.0]), diagonal([3.0, 1.0, 2.0], [2.0, 0.5, 1.0]));
        // Σ (μ − μ')² + (σ − σ')²
        assert!((frechet_distance(&a, &b).unwrap() - (9.0 + 1.0 + 2.25 + 1.0)).abs() < 1e-12);
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-12);
        assert!(frechet_distance(&a, &Statistics { mean: vec![0.0], covariance: vec![1.0] }).is_err());
    }
}
