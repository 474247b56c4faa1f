//! The images of a set that are nearest to others: has a model learned a distribution, or its examples?

use super::{DataError, DataSet};

/// Neighbours whose mean distance tells how far is far, for one image.
const CROWD: usize = 50;

/// The images of a set nearest to one.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// (index, distance) of the nearest, the nearest first; the distance is the root of the mean squared difference, in units of
    /// [-1, 1].
    pub nearest: Vec<(usize, f64)>,
    /// The nearest's distance, in units of the mean distance of the nearest 50.
    pub closeness: f64,
}

impl Neighbours {
    /// Below this closeness an image is a copy: it is half as far from its nearest neighbour as from the crowd (Carlini et al.
    /// 2023, section 4.2, with their α = ½).
    pub const COPY: f64 = 0.5;

    /// Whether the image is a copy.
    pub fn is_copy(&self) -> bool {
        self.closeness < Self::COPY
    }
}

/// For each image of `[N, H, W, C]`, its `k` nearest among the images that a model was trained on.
///
/// # Errors
/// Images that are not of the set's size; those of reading.
pub fn nearest(data: &DataSet, images: &[f32], k: usize) -> Result<Vec<Neighbours>, DataError> {
    let len = data.image_len();
    if len == 0 || !images.len().is_multiple_of(len) {
        return Err(DataError::Call {
            operation: "finding neighbours",
            expected: format!("images of {len} values, as the data's are"),
            found: format!("{} values", images.len()),
        });
    }
    let mut found: Vec<Vec<(usize, f64)>> = vec![Vec::new(); images.len() / len];
    let mut row = vec![0.0; len];
    for index in data.train_indices() {
        data.image_f32(index, &mut row)?;
        for (image, found) in images.chunks_exact(len).zip(&mut found) {
            let sum: f64 = image.iter().zip(&row).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let distance = (sum / len as f64).sqrt();
            let place = found.partition_point(|&(_, other)| other <= distance);
            if place < k.max(CROWD) {
                found.insert(place, (index, distance));
                found.truncate(k.max(CROWD));
            }
        }
    }
    Ok(found
        .into_iter()
        .map(|mut nearest| {
            let crowd = &nearest[..nearest.len().min(CROWD)];
            let mean = crowd.iter().map(|(_, distance)| distance).sum::<f64>() / crowd.len().max(1) as f64;
            let closeness = crowd.first().map_or(1.0, |(_, distance)| if mean > 0.0 { distance / mean } else { 0.0 });
            nearest.truncate(k);
            Neighbours { nearest, closeness }
        })
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::{DataOptions, digits};

    #[test]
    fn a_training_image_is_found_and_called_a_copy_and_noise_is_not() {
        let data = digits(&DataOptions { holdout: 0.97, ..DataOptions::default() }).unwrap();
        let len = data.image_len();
        let index = data.train_indices().start + 7;
        let mut image = vec![0.0; len];
        data.image_f32(index, &mut image).unwrap();
        let faint: Vec<f32> = image.iter().enumerate().map(|(i, x)| x + 0.02 * (i as f32).sin()).collect();
        let noise: Vec<f32> = (0..len).map(|i| (i as f32 * 12.9898).sin()).collect();
        let found = nearest(&data, &[image, faint, noise].concat(), 3).unwrap();
        assert_eq!(found[0].nearest[0], (index, 0.0));
        assert_eq!(found[1].nearest[0].0, index);
        assert!(found.iter().all(|n| n.nearest.len() == 3 && n.nearest.is_sorted_by(|a, b| a.1 <= b.1)));
        assert_eq!(found.iter().map(Neighbours::is_copy).collect::<Vec<_>>(), [true, true, false], "{found:?}");
        assert!(nearest(&data, &[0.0; 5], 1).is_err());
    }
}
