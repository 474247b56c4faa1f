//! One picture file, for commands that work on a picture.

use std::path::Path;

use super::pixels::Form;
use super::{Crop, DataError, Filter, Size, folder};

/// A picture as a network sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1, 3 or 4.
    pub channels: usize,
    /// `[H, W, C]`, u8/127.5 − 1.
    pub values: Vec<f32>,
    /// Rows and columns of the file, where it was cut or resized.
    pub from: Option<(usize, usize)>,
}

/// Reads a picture. With a size its centre is cut to that shape and resized (Lanczos, antialiased); without, it stays as it is.
///
/// # Errors
/// A file that is missing or no picture; channels other than 1, 3 or 4.
pub fn picture(path: &Path, size: Option<Size>, channels: Option<usize>) -> Result<Picture, DataError> {
    let pixels = folder::picture(path)?;
    let (height, width) = (pixels.height, pixels.width);
    let size = size.unwrap_or(Size { height, width });
    let natural = if pixels.channels < 3 { 1 } else { 3 };
    let channels = channels.unwrap_or(natural);
    if ![1, 3, 4].contains(&channels) {
        return Err(DataError::Call {
            operation: "reading a picture",
            expected: "1, 3 or 4 channels".to_owned(),
            found: channels.to_string(),
        });
    }
    let form = Form { height: size.height, width: size.width, channels, crop: Crop::Centre, filter: Filter::Lanczos3 };
    let formed = pixels.formed(&form).map_err(|reason| DataError::Picture { path: path.to_owned(), reason })?;
    Ok(Picture {
        height: formed.height,
        width: formed.width,
        channels,
        values: formed.data.into_iter().map(|u| f32::from(u) / 127.5 - 1.0).collect(),
        from: ((height, width) != (size.height, size.width)).then_some((height, width)),
    })
}
