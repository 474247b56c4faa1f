//! GIF films.

use std::{io::BufWriter, path::Path, time::Duration};

use anyhow::{Result, ensure};
use image::{
    Delay, DynamicImage, Frame, GrayAlphaImage, GrayImage, RgbImage, RgbaImage,
    codecs::gif::{GifEncoder, Repeat},
};

use super::{Picture, png};

/// The longest a film plays, frames: more steps than that are thinned out by the caller.
pub(crate) const MOST_FRAMES: usize = 100;

/// Writes frames as an endless film; the last stays for two seconds.
///
/// # Errors
/// When there is no frame, or the file cannot be written.
pub(crate) fn write(path: &Path, frames: &[Picture]) -> Result<()> {
    ensure!(!frames.is_empty(), "a film needs a frame");
    png::appear(path, |file| {
        let mut encoder = GifEncoder::new_with_speed(BufWriter::new(file), 10);
        encoder.set_repeat(Repeat::Infinite)?;
        for (i, picture) in frames.iter().enumerate() {
            let last = i + 1 == frames.len();
            let delay = Duration::from_millis(if last { 2000 } else { 80 });
            let delay = Delay::from_saturating_duration(delay);
            encoder.encode_frame(Frame::from_parts(rgba(picture)?, 0, 0, delay))?;
        }
        Ok(())
    })
}

/// Whether a step of `steps` is shown in a film of `frames`, at most as many as steps: they are spread evenly, and the last
/// step is among them.
pub(crate) fn is_shown(step: usize, steps: usize, frames: usize) -> bool {
    // Step i is the last of its share of the film.
    (step + 1) * frames / steps != step * frames / steps
}

fn rgba(picture: &Picture) -> Result<RgbaImage> {
    let (width, height, pixels) = (picture.width as u32, picture.height as u32, picture.pixels.clone());
    let image = match picture.channels {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        2 => GrayAlphaImage::from_raw(width, height, pixels).map(DynamicImage::from),
        3 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbaImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    image.map(DynamicImage::into_rgba8).ok_or_else(|| anyhow::anyhow!("a frame of the wrong size"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use image::AnimationDecoder;

    use super::*;

    #[test]
    fn a_film_shows_its_frames_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.gif");
        let frames: Vec<_> = [0, 100, 200].map(|grey| Picture::filled(8, 6, &[grey])).into();
        write(&path, &frames).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let decoder = image::codecs::gif::GifDecoder::new(file).unwrap();
        let read: Vec<_> =
            decoder.into_frames().collect_frames().unwrap().into_iter().map(Frame::into_buffer).collect();
        assert_eq!(read.len(), 3);
        for (frame, grey) in read.iter().zip([0, 100, 200]) {
            assert_eq!((frame.width(), frame.height()), (8, 6));
            assert!(frame.get_pixel(3, 3).0[0].abs_diff(grey) <= 1, "{:?}", frame.get_pixel(3, 3));
        }
        assert!(write(&path, &[]).is_err());
    }

    #[test]
    fn long_runs_are_thinned_and_end_with_the_picture() {
        for steps in [1, 7, 50, 100, 101, 250, 1000] {
            let frames = steps.min(MOST_FRAMES);
            let shown: Vec<_> = (0..steps).filter(|&step| is_shown(step, steps, frames)).collect();
            assert_eq!(shown.len(), frames);
            assert_eq!(shown.last(), Some(&(steps - 1)));
        }
    }
}
