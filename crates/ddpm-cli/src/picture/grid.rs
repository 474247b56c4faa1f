//! Many images in one picture.

use anyhow::{Result, ensure};

use super::{Picture, byte};

/// Images as a sampler leaves them: dense `[N, H, W, C]`, values in [-1, 1] or a little beyond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Images<'a> {
    /// Number of images.
    pub(crate) n: usize,
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
    /// Channels.
    pub(crate) channels: usize,
    /// `n · height · width · channels` values.
    pub(crate) values: &'a [f32],
}

impl<'a> Images<'a> {
    /// Image `i` alone.
    pub(crate) fn one(&self, i: usize) -> Images<'a> {
        let size = self.height * self.width * self.channels;
        Images { n: 1, values: &self.values[i * size..(i + 1) * size], ..*self }
    }
}

/// Columns of a grid of `n` images: as square as can be.
pub(crate) fn columns(n: usize) -> usize {
    (1..=n.max(1)).find(|columns| columns * columns >= n).unwrap_or(1)
}

/// The images in a grid that is as square as can be: see [`rows_of`].
///
/// # Errors
/// Channels of which no picture can be made.
pub(crate) fn grid(images: Images<'_>) -> Result<Picture> {
    rows_of(columns(images.n), images)
}

/// The images in rows of `across`, edge to edge, so that cutting the picture gives them back; places that are left over are black.
///
/// # Errors
/// Channels of which no picture can be made.
pub(crate) fn rows_of(across: usize, images: Images<'_>) -> Result<Picture> {
    let across = across.max(1);
    let Images { n, height, width, channels, values } = images;
    ensure!(
        (1..=4).contains(&channels),
        "a picture has 1 to 4 channels, these images have {channels}: write them to an .npy file"
    );
    let down = n.div_ceil(across).max(1);
    let mut picture = Picture::filled(across * width, down * height, &vec![0; channels]);
    let row = width * channels;
    for (i, image) in values.chunks_exact(height * row).take(n).enumerate() {
        let (cell_y, cell_x) = (i / across * height, i % across * row);
        for (y, line) in image.chunks_exact(row).enumerate() {
            let start = (cell_y + y) * across * row + cell_x;
            for (to, from) in picture.pixels[start..start + row].iter_mut().zip(line) {
                *to = byte(*from);
            }
        }
    }
    Ok(picture)
}

/// Pictures of one height side by side.
pub(crate) fn beside(pictures: &[&Picture]) -> Picture {
    let (height, channels) = pictures.first().map_or((0, 1), |first| (first.height, first.channels));
    let width = pictures.iter().map(|picture| picture.width).sum();
    let line =
        |y: usize| pictures.iter().flat_map(move |one| &one.pixels[y * one.width * channels..][..one.width * channels]);
    Picture { width, height, channels, pixels: (0..height).flat_map(line).copied().collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_its_images_row_by_row() {
        let values: Vec<f32> = (0..3u8).flat_map(|i| [f32::from(i * 40) / 127.5 - 1.0; 6]).collect();
        let images = Images { n: 3, height: 2, width: 3, channels: 1, values: &values };
        let picture = grid(images).unwrap();
        assert_eq!((picture.width, picture.height, picture.channels), (6, 4, 1));
        assert_eq!(picture.pixels[..6], [0, 0, 0, 40, 40, 40]);
        assert_eq!(picture.pixels[12..18], [80, 80, 80, 0, 0, 0]);
        assert_eq!(grid(images.one(2)).unwrap().pixels, [80; 6]);
        assert!(grid(Images { n: 0, channels: 5, ..images }).is_err());
        let (first, last) = (grid(images.one(0)).unwrap(), grid(images.one(2)).unwrap());
        let both = beside(&[&first, &last]);
        assert_eq!((both.width, both.height, &both.pixels[..6]), (6, 2, &[0, 0, 0, 80, 80, 80][..]));
    }

    #[test]
    fn grids_are_as_square_as_can_be() {
        assert_eq!([1, 2, 4, 5, 16, 17, 64].map(columns), [1, 2, 2, 3, 4, 5, 8]);
    }
}
