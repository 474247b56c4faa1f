//! The paper's own numbers: Ho et al. 2020, <https://arxiv.org/abs/2006.11239>, version 2. All are of CIFAR-10.

/// A row of table 1 or 2.
pub(super) struct Row {
    /// Inception score and its deviation.
    pub(super) is: Option<(f64, f64)>,
    /// Fréchet distance to the training pictures.
    pub(super) fid: Option<f64>,
    /// Bits per dimension at most, of test and training pictures.
    pub(super) bits: Option<(f64, f64)>,
}

/// ε, L with a fixed variance.
pub(super) const EPS_L: Row = Row { is: Some((7.67, 0.13)), fid: Some(13.51), bits: Some((3.70, 3.69)) };
/// ε, L_simple.
pub(super) const EPS_SIMPLE: Row = Row { is: Some((9.46, 0.11)), fid: Some(3.17), bits: Some((3.75, 3.72)) };
/// μ̃, L with a learned variance.
pub(super) const MEAN_L_LEARNED: Row = Row { is: Some((7.28, 0.10)), fid: Some(23.69), bits: None };
/// μ̃, L with a fixed variance.
pub(super) const MEAN_L: Row = Row { is: Some((8.06, 0.09)), fid: Some(13.22), bits: None };
/// Training that was unstable, with samples out of the scores' range.
pub(super) const UNSTABLE: Row = Row { is: None, fid: None, bits: None };

/// Table 4: reverse process time T − t + 1 of T = 1000, rate in bits per dimension, distortion as RMSE on a scale of 0 to 255.
pub(super) const RATES: [(u32, f64, f64); 10] = [
    (1000, 1.77581, 0.95136),
    (900, 0.11994, 12.02277),
    (800, 0.05415, 18.47482),
    (700, 0.02866, 24.43656),
    (600, 0.01507, 30.80948),
    (500, 0.00716, 38.03236),
    (400, 0.00282, 46.12765),
    (300, 0.00081, 54.18826),
    (200, 0.00013, 60.97170),
    (100, 0.00000, 67.60125),
];
/// Section 4.3: bits per dimension of L_0.
pub(super) const DISTORTION_BITS: f64 = 1.97;
