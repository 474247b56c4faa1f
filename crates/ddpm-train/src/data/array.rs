//! Arrays of images, however they are stored: NumPy, IDX and CIFAR all become this.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::bytes::Bytes;
use super::pixels::{Form, Pixels};
use super::source::{Colour, Header, Pictures, Skipped};
use super::{DataError, Layout, OnError, Range};

/// Type of one stored number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Bool,
    U8,
    U16,
    /// Other whole numbers: signed or not, bytes.
    Whole {
        signed: bool,
        bytes: usize,
    },
    /// Floats of 2, 4 or 8 bytes.
    Float {
        bytes: usize,
    },
}

impl Element {
    /// Bytes of one.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 => 1,
            Self::U16 => 2,
            Self::Whole { bytes, .. } | Self::Float { bytes } => bytes,
        }
    }

    /// Whether its values say by themselves what is black and what is white.
    fn is_natural(self) -> bool {
        matches!(self, Self::Bool | Self::U8 | Self::U16)
    }

    /// The value of one number, given most significant byte first or last.
    pub(super) fn value(self, bytes: &[u8], big_endian: bool) -> f64 {
        let mut raw = [0_u8; 8];
        for (slot, &byte) in raw.iter_mut().zip(bytes) {
            *slot = byte;
        }
        if big_endian {
            raw[..bytes.len().min(8)].reverse();
        }
        let bits = u64::from_le_bytes(raw);
        match self {
            Self::Bool | Self::U8 | Self::U16 | Self::Whole { signed: false, .. } => bits as f64,
            Self::Whole { bytes, .. } => {
                let unused = 64 - 8 * bytes.clamp(1, 8) as u32;
                (((bits << unused) as i64) >> unused) as f64
            }
            Self::Float { bytes: 2 } => half(bits as u16),
            Self::Float { bytes: 4 } => f64::from(f32::from_bits(bits as u32)),
            Self::Float { .. } => f64::from_bits(bits),
        }
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023) / 1024.0;
    sign * match exponent {
        0 => fraction * (-14_f64).exp2(),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction) * f64::from(exponent - 15).exp2(),
    }
}

/// Images in a row in one file.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) bytes: Bytes,
    /// Where the first image begins.
    pub(super) offset: u64,
    /// Bytes from one image to the next.
    pub(super) stride: u64,
    pub(super) count: usize,
}

/// Images of one size and type, in one file or several.
#[derive(Debug)]
pub(super) struct ArrayPictures {
    pub(super) parts: Vec<Part>,
    pub(super) element: Element,
    pub(super) big_endian: bool,
    /// Whether channels come before rows.
    pub(super) channels_first: bool,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Black and white of what is not `u8`, `u16` or `bool`: set by [`ArrayPictures::find_range`].
    pub(super) range: Range,
}

/// Slack about a range: resampling overshoots a little, and such values are clipped.
const SLACK: f64 = 0.01;

impl ArrayPictures {
    /// Checks that the files hold every image they announce.
    pub(super) fn check_length(&self) -> Result<(), DataError> {
        let image = self.bytes_per_image() as u64;
        for part in &self.parts {
            let Some(before_last) = part.count.checked_sub(1) else { continue };
            let end = (before_last as u64)
                .checked_mul(part.stride)
                .and_then(|n| n.checked_add(part.offset)?.checked_add(image));
            if end.is_none_or(|end| end > part.bytes.len()) {
                return Err(DataError::format(
                    &part.path,
                    format!(
                        "{} images of {}x{}x{}, {image} bytes each",
                        part.count, self.height, self.width, self.channels
                    ),
                    format!("{} bytes in all", part.bytes.len()),
                    "the file is cut short: fetch or write it again",
                ));
            }
        }
        Ok(())
    }

    fn bytes_per_image(&self) -> usize {
        self.height * self.width * self.channels * self.element.bytes()
    }

    /// The part that holds image `index`, and its number there.
    fn place(&self, index: usize) -> Option<(&Part, usize)> {
        let mut rest = index;
        for part in &self.parts {
            if rest < part.count {
                return Some((part, rest));
            }
            rest -= part.count;
        }
        None
    }

    fn raw(&self, index: usize) -> Result<(&Part, usize, Vec<u8>), DataError> {
        let (part, at) = self.place(index).ok_or_else(|| DataError::Call {
            operation: "reading an image",
            expected: format!("an index below {}", self.len()),
            found: index.to_string(),
        })?;
        let mut raw = vec![0; self.bytes_per_image()];
        let offset = part.offset + at as u64 * part.stride;
        part.bytes.read_at(offset, &mut raw).map_err(|e| DataError::io(&part.path, "reading an image", e))?;
        Ok((part, at, raw))
    }

    /// Least and greatest value of an image.
    fn extent(&self, index: usize) -> Result<(f64, f64), DataError> {
        let (part, image, raw) = self.raw(index)?;
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for (n, bytes) in raw.chunks_exact(self.element.bytes()).enumerate() {
            let value = self.element.value(bytes, self.big_endian);
            if !value.is_finite() {
                let (row, column, channel) = self.position(n);
                return Err(DataError::NotFinite { path: part.path.clone(), image, value, row, column, channel });
            }
            least = least.min(value);
            most = most.max(value);
        }
        Ok((least, most))
    }

    /// Row, column and channel of the `n`-th number of an image.
    fn position(&self, n: usize) -> (usize, usize, usize) {
        let (h, w, c) = (self.height, self.width, self.channels);
        if self.channels_first { (n / w % h, n % w, n / (h * w)) } else { (n / (c * w), n / c % w, n % c) }
    }

    /// Finds (or checks) black and white of floats and whole numbers: reads every image once.
    ///
    /// Gives, in order, the images that cannot be used; with [`OnError::Stop`] the first is an error.
    pub(super) fn find_range(
        &mut self,
        told: Option<Range>,
        on_error: OnError,
    ) -> Result<Vec<(usize, Skipped)>, DataError> {
        if self.element.is_natural() {
            return Ok(Vec::new());
        }
        let extents: Vec<_> = (0..self.len()).into_par_iter().map(|index| self.extent(index)).collect();
        let mut skipped = Vec::new();
        let mut good = Vec::new();
        for (index, extent) in extents.into_iter().enumerate() {
            match extent {
                Ok(extent) => good.push((index, extent)),
                Err(error) if on_error == OnError::Stop => return Err(error),
                Err(error) => skipped.push((index, Skipped { name: self.name(index), reason: error.to_string() })),
            }
        }
        let least = good.iter().map(|&(_, (least, _))| least).fold(f64::INFINITY, f64::min);
        let most = good.iter().map(|&(_, (_, most))| most).fold(f64::NEG_INFINITY, f64::max);
        let fits = |range: Range, least: f64, most: f64| {
            let (black, white) = range.bounds();
            let slack = (white - black) * SLACK;
            least >= black - slack && most <= white + slack
        };
        let candidates: &[Range] = match self.element {
            Element::Float { .. } => &[Range::Unit, Range::Symmetric, Range::Byte],
            _ => &[Range::Byte],
        };
        let found = told.or_else(|| candidates.iter().copied().find(|&range| fits(range, least, most)));
        let Some(range) = found else {
            let expected = match self.element {
                Element::Float { .. } => "all of them within 0..1, -1..1 or 0..255",
                _ => "whole numbers within 0..255",
            };
            return Err(self.out_of_range(&good, expected));
        };
        self.range = range;
        let mut outside = good.iter().filter(|&&(_, (least, most))| !fits(range, least, most));
        match on_error {
            OnError::Stop => {
                outside.next().map_or(Ok(()), |&one| Err(self.out_of_range(&[one], &format!("{range} as told"))))?;
            }
            OnError::Skip => skipped.extend(outside.map(|&(index, (least, most))| {
                let reason = format!("holds pixels from {least} to {most}, outside of {range}");
                (index, Skipped { name: self.name(index), reason })
            })),
        }
        skipped.sort_by_key(|&(index, _)| index);
        Ok(skipped)
    }

    /// Names the image that reaches furthest from zero.
    fn out_of_range(&self, images: &[(usize, (f64, f64))], expected: &str) -> DataError {
        let reach = |&&(_, (least, most)): &&(usize, (f64, f64))| f64::max(-least, most);
        let worst = images.iter().max_by(|a, b| reach(a).total_cmp(&reach(b)));
        let &(index, (least, most)) = worst.unwrap_or(&(0, (f64::NAN, f64::NAN)));
        let (path, image) = self.place(index).map_or((PathBuf::new(), index), |(part, at)| (part.path.clone(), at));
        DataError::OutOfRange { path, image, least, most, expected: expected.to_owned() }
    }

    /// One number as a byte: `0..1` and `-1..1` are stretched to 0..255 and rounded.
    fn to_byte(&self, bytes: &[u8]) -> u8 {
        let value = self.element.value(bytes, self.big_endian);
        let byte = match self.element {
            Element::Bool => {
                if value == 0.0 {
                    0.0
                } else {
                    255.0
                }
            }
            Element::U8 => value,
            Element::U16 => value / 257.0,
            Element::Whole { .. } | Element::Float { .. } => {
                let (black, white) = self.range.bounds();
                (value - black) / (white - black) * 255.0
            }
        };
        byte.round().clamp(0.0, 255.0) as u8
    }
}

impl Pictures for ArrayPictures {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.count).sum()
    }

    fn name(&self, index: usize) -> String {
        self.place(index).map_or_else(String::new, |(part, at)| format!("image {at} of {}", part.path.display()))
    }

    fn header(&self, _: usize) -> Result<Header, DataError> {
        let colour = if self.channels == 1 { Colour::Grey } else { Colour::Rgb };
        Ok(Header { height: self.height, width: self.width, colour })
    }

    fn read(&self, index: usize) -> Result<Pixels, DataError> {
        let (_, _, raw) = self.raw(index)?;
        let bytes = match self.element {
            Element::U8 => raw,
            _ => raw.chunks_exact(self.element.bytes()).map(|number| self.to_byte(number)).collect(),
        };
        let (h, w, c) = (self.height, self.width, self.channels);
        let data = if self.channels_first && c > 1 {
            (0..h * w * c).map(|n| bytes[(n % c) * h * w + n / c]).collect()
        } else {
            bytes
        };
        Ok(Pixels { height: h, width: w, channels: c, data })
    }

    fn borrow(&self, index: usize, form: &Form) -> Option<&[u8]> {
        let plain = self.element == Element::U8 && (self.channels == 1 || !self.channels_first);
        if !plain || !form.keeps(self.height, self.width, self.channels) {
            return None;
        }
        let (part, at) = self.place(index)?;
        part.bytes.slice(part.offset + at as u64 * part.stride, self.bytes_per_image())
    }
}

/// Images, height, width, channels and whether channels come first, from an array's shape.
///
/// # Errors
/// [`DataError::Format`] for a shape that is no set of images, or could be read in two ways.
pub(super) fn recognise_shape(
    path: &Path,
    shape: &[u64],
    told: Option<Layout>,
) -> Result<(usize, usize, usize, usize, bool), DataError> {
    let listed = || format!("shape {shape:?}");
    let expected = "an array [N, H, W, C], [N, C, H, W] with 1, 3 or 4 channels, or [N, H, W]";
    let wrong = |advice: &str| DataError::format(path, expected, listed(), advice);
    let mut total = 1_u64;
    for &side in shape {
        total = total.checked_mul(side).ok_or_else(|| wrong("the header is damaged: write the array again"))?;
    }
    let side = |n: u64| usize::try_from(n).map_err(|_| wrong("that is more than this machine can address"));
    let is_channels = |n: u64| matches!(n, 1 | 3 | 4);
    let layout = match (shape, told) {
        (&[_, _, _, c], Some(Layout::Nhwc)) | (&[_, c, _, _], Some(Layout::Nchw)) if is_channels(c) => told,
        (&[_, _, _], Some(Layout::Nhw)) => told,
        (_, Some(_)) => return Err(wrong("it does not fit data.layout as told: correct that, or leave it out")),
        (&[_, first, _, last], None) => match (is_channels(first), is_channels(last)) {
            (false, true) => Some(Layout::Nhwc),
            (true, false) => Some(Layout::Nchw),
            (true, true) => {
                return Err(wrong("this can be read in two ways: say data.layout = \"NHWC\" or \"NCHW\""));
            }
            (false, false) => return Err(wrong("give it 1, 3 or 4 channels")),
        },
        (&[_, _, last], None) if last > 4 => Some(Layout::Nhw),
        (&[_, _, _], None) => {
            return Err(wrong(
                "this may be one image: add an axis in front ([1, H, W, C]), or say data.layout = \"NHW\"",
            ));
        }
        (&[_, _], None) => return Err(wrong("reshape it to [N, H, W] or [N, H, W, C] before saving")),
        _ => return Err(wrong("save the images as one such array")),
    };
    let (n, h, w, c, first) = match (shape, layout) {
        (&[n, c, h, w], Some(Layout::Nchw)) => (n, h, w, c, true),
        (&[n, h, w, c], _) => (n, h, w, c, false),
        (&[n, h, w], _) => (n, h, w, 1, false),
        _ => return Err(wrong("save the images as one such array")),
    };
    if n == 0 || h == 0 || w == 0 {
        return Err(DataError::Empty { path: path.to_path_buf(), found: format!("an array of {}", listed()) });
    }
    Ok((side(n)?, side(h)?, side(w)?, side(c)?, first))
}

/// Labels as class numbers.
///
/// # Errors
/// [`DataError::Format`] for values that are no class numbers.
pub(super) fn class_numbers(path: &Path, values: impl Iterator<Item = f64>) -> Result<Vec<u32>, DataError> {
    values
        .enumerate()
        .map(|(image, value)| {
            if value.fract() == 0.0 && (0.0..f64::from(MOST_CLASSES)).contains(&value) {
                Ok(value as u32)
            } else {
                Err(DataError::format(
                    path,
                    format!("labels that are whole numbers from 0 to {}", MOST_CLASSES - 1),
                    format!("{value} for image {image}"),
                    "correct the labels, or set data.classes = false",
                ))
            }
        })
        .collect()
}

/// More classes than this are taken for a mistake.
const MOST_CLASSES: u32 = 1 << 20;
