//! Statistics for group normalisation: mean and M2 = Σ(x − mean)², never Σx², which loses digits when the mean is large.

pub(crate) mod cpu;
pub(crate) mod cuda;
