//! One decoded picture: its channels, and how it is brought to the size of the set.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{Crop, Filter};

/// A decoded image, 8 bits a channel, rows from the top, channels innermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) height: usize,
    pub(super) width: usize,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    pub(super) channels: usize,
    pub(super) data: Vec<u8>,
}

/// What all images of a set are made to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) crop: Crop,
    pub(super) filter: Filter,
}

impl Form {
    /// Whether an image of this shape is taken as it is.
    pub(super) fn keeps(&self, height: usize, width: usize, channels: usize) -> bool {
        (height, width, channels) == (self.height, self.width, self.channels)
    }
}

impl Pixels {
    /// Whether every pixel, laid on white, has red = green = blue.
    pub(super) fn is_grey(&self) -> bool {
        match self.channels {
            1 | 2 => true,
            3 => self.data.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]),
            _ => self.data.chunks_exact(4).all(|p| {
                let [r, g, b] = [p[0], p[1], p[2]].map(|c| on_white(c, p[3]));
                r == g && g == b
            }),
        }
    }

    /// The same picture with 1, 3 or 4 channels.
    ///
    /// Transparency is laid on white unless it is kept; grey is Rec. 601 luma, which leaves a grey
    /// RGB pixel as it is.
    pub(super) fn with_channels(self, channels: usize) -> Self {
        if self.channels == channels {
            return self;
        }
        let mut data = Vec::with_capacity(self.height * self.width * channels);
        for pixel in self.data.chunks_exact(self.channels) {
            let (rgb, alpha) = match *pixel {
                [g] => ([g; 3], 255),
                [g, a] => ([g; 3], a),
                [r, g, b] => ([r, g, b], 255),
                [r, g, b, a, ..] => ([r, g, b], a),
                [] => ([255; 3], 255),
            };
            if channels == 4 {
                data.extend_from_slice(&rgb);
                data.push(alpha);
            } else {
                let rgb = rgb.map(|c| on_white(c, alpha));
                match channels {
                    1 => data.push(luma(rgb)),
                    _ => data.extend_from_slice(&rgb),
                }
            }
        }
        Self { channels, data, ..self }
    }

    /// The picture in the set's form: channels first, then size.
    ///
    /// With [`Crop::Random`] the result covers the form's size and may be longer in one direction.
    ///
    /// # Errors
    /// The resizer's own words.
    pub(super) fn formed(self, form: &Form) -> Result<Self, String> {
        let picture = self.with_channels(form.channels);
        if picture.height == form.height && picture.width == form.width {
            return Ok(picture);
        }
        let (h, w) = (picture.height as f64, picture.width as f64);
        let (form_h, form_w) = (form.height as f64, form.width as f64);
        match form.crop {
            Crop::None => picture.resized(form.height, form.width, None, form.filter),
            Crop::Centre => {
                let scale = (h / form_h).min(w / form_w);
                let (box_h, box_w) = (form_h * scale, form_w * scale);
                let window = [((w - box_w) / 2.0).max(0.0), ((h - box_h) / 2.0).max(0.0), box_w.min(w), box_h.min(h)];
                picture.resized(form.height, form.width, Some(window), form.filter)
            }
            Crop::Random => {
                let scale = (form_h / h).max(form_w / w);
                let height = ((h * scale).round() as usize).max(form.height);
                let width = ((w * scale).round() as usize).max(form.width);
                picture.resized(height, width, None, form.filter)
            }
        }
    }

    /// Resizes the window `[left, top, width, height]` (the whole without one).
    fn resized(self, height: usize, width: usize, window: Option<[f64; 4]>, filter: Filter) -> Result<Self, String> {
        if (self.height, self.width) == (height, width) && window.is_none() {
            return Ok(self);
        }
        let kind = match self.channels {
            1 => PixelType::U8,
            3 => PixelType::U8x3,
            _ => PixelType::U8x4,
        };
        let side = |n: usize| u32::try_from(n).map_err(|_| format!("a side of {n} pixels"));
        let source =
            ImageRef::new(side(self.width)?, side(self.height)?, &self.data, kind).map_err(|e| e.to_string())?;
        let mut target = Image::new(side(width)?, side(height)?, kind);
        let algorithm = match filter {
            Filter::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Box => ResizeAlg::Convolution(FilterType::Box),
            Filter::Nearest => ResizeAlg::Nearest,
        };
        // Colours are weighted by alpha while resizing, so that hidden ones do not bleed.
        let mut options = ResizeOptions::new().resize_alg(algorithm).use_alpha(self.channels == 4);
        if let Some([left, top, w, h]) = window {
            options = options.crop(left, top, w, h);
        }
        Resizer::new().resize(&source, &mut target, &options).map_err(|e| e.to_string())?;
        Ok(Self { height, width, channels: self.channels, data: target.into_vec() })
    }
}

/// `c·a + white·(1 − a)`, rounded.
fn on_white(c: u8, a: u8) -> u8 {
    let (c, a) = (u32::from(c), u32::from(a));
    ((c * a + 255 * (255 - a) + 127) / 255) as u8
}

/// Rec. 601 luma with weights that add up to 2^16, so that grey stays as it is.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + (1 << 15)) >> 16) as u8
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn grey_survives_every_conversion() {
        for g in 0..=255 {
            assert_eq!(luma([g; 3]), g);
            assert_eq!(on_white(g, 255), g);
            assert_eq!(on_white(g, 0), 255);
        }
        let grey = Pixels { height: 1, width: 2, channels: 1, data: vec![7, 200] };
        assert_eq!(grey.clone().with_channels(3).with_channels(4).with_channels(1), grey);
    }

    #[test]
    fn transparency_is_laid_on_white_before_grey_is_judged() {
        let hidden_red = Pixels { height: 1, width: 1, channels: 4, data: vec![255, 0, 0, 0] };
        assert!(hidden_red.is_grey());
        assert_eq!(hidden_red.with_channels(3).data, [255; 3]);
        let half_red = Pixels { height: 1, width: 1, channels: 4, data: vec![255, 0, 0, 128] };
        assert!(!half_red.is_grey());
        assert_eq!(half_red.with_channels(3).data, [255, 127, 127]);
    }

    #[test]
    fn centre_takes_the_middle_and_none_takes_all() {
        // Columns 0 0 9 9 9 9 0 0 of a wide picture: the centred square of 4 is all 9.
        let row = [0, 0, 9, 9, 9, 9, 0, 0];
        let wide = Pixels { height: 4, width: 8, channels: 1, data: row.repeat(4) };
        let form = |crop| Form { height: 2, width: 2, channels: 1, crop, filter: Filter::Box };
        assert_eq!(wide.clone().formed(&form(Crop::Centre)).unwrap().data, [9; 4]);
        let stretched = wide.clone().formed(&form(Crop::None)).unwrap();
        assert_eq!((stretched.height, stretched.width), (2, 2));
        assert!(stretched.data.iter().all(|&v| v == 4 || v == 5), "{stretched:?}");
        let covering = wide.formed(&form(Crop::Random)).unwrap();
        assert_eq!((covering.height, covering.width), (2, 4));
        assert_eq!(covering.data, [0, 9, 9, 0, 0, 9, 9, 0]);
    }
}
