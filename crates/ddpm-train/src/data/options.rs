//! The settings `data.*`: how images are read, cut, and set aside.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::DataError;
use crate::settings::DataSettings;

/// Settings of a data set; the fields are the keys `data.size`, `data.crop` and so on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataOptions {
    /// Height and width of the images in pixels, `64` or `[48, 64]`; without it all images must
    /// have one size, which is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How an image of another shape is brought to `size`.
    pub crop: Crop,
    /// The filter that resizes.
    pub resize: Filter,
    /// 1 (grey), 3 (RGB) or 4 (RGBA); without it 1 if every image is grey, else 3, with
    /// transparency laid on white.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Whether labels are read: the first-level sub-folders of a folder, or the labels in the file.
    pub classes: bool,
    /// Whether an image is mirrored left to right with probability one half, anew every epoch.
    pub flip: bool,
    /// The part in `[0, 1)` that is held out for evaluation: the last images in the set's order.
    pub holdout: f64,
    /// The values of black and white in float input; recognised if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// The order of axes in an array; recognised by its shape if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// What a broken image does.
    pub on_error: OnError,
    /// Bytes of decoded images that are kept in memory; a quarter of the free memory if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            size: None,
            crop: Crop::default(),
            resize: Filter::default(),
            channels: None,
            classes: false,
            flip: false,
            holdout: 0.1,
            range: None,
            layout: None,
            on_error: OnError::default(),
            cache_bytes: None,
        }
    }
}

impl DataOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// [`DataError::Option`] names the first key that is out of its range.
    pub fn check(&self) -> Result<(), DataError> {
        let wrong =
            |key, expected: &str, found: String| Err(DataError::Option { key, expected: expected.to_owned(), found });
        if let Some(Size { height, width }) = self.size
            && !((1..=MOST_SIDE).contains(&height) && (1..=MOST_SIDE).contains(&width))
        {
            let expected = "a height and a width between 1 and 8192 pixels";
            return wrong("data.size", expected, format!("{height}x{width}"));
        }
        if let Some(channels) = self.channels
            && !matches!(channels, 1 | 3 | 4)
        {
            return wrong("data.channels", "1 (grey), 3 (RGB) or 4 (RGBA)", channels.to_string());
        }
        if !(0.0..1.0).contains(&self.holdout) {
            return wrong("data.holdout", "a part from 0 up to, but not including, 1", self.holdout.to_string());
        }
        Ok(())
    }

    /// The options that the section `data` of a run's settings stands for.
    ///
    /// # Errors
    /// [`DataError::Option`] for a value that the key does not have.
    pub fn from_settings(settings: &DataSettings) -> Result<Self, DataError> {
        let size = Size { height: settings.size.height(), width: settings.size.width() };
        let options = Self {
            size: (size != Size::square(0)).then_some(size),
            crop: named("data.crop", &settings.crop)?,
            resize: named("data.resize", &settings.resize)?,
            channels: (settings.channels != 0).then_some(settings.channels),
            classes: settings.classes,
            flip: settings.flip,
            holdout: settings.holdout,
            range: named_or_auto("data.range", &settings.range)?,
            layout: named_or_auto("data.layout", &settings.layout)?,
            on_error: named("data.on_error", &settings.on_error)?,
            cache_bytes: (settings.cache_mb != 0).then_some((settings.cache_mb as u64).saturating_mul(1 << 20)),
        };
        options.check().map(|()| options)
    }

    /// Bytes that decoded images may take.
    pub(super) fn budget(&self) -> u64 {
        self.cache_bytes.unwrap_or_else(|| crate::memory::available() / 4)
    }
}

/// The value of a key that is called `name`.
fn named<T: DeserializeOwned>(key: &'static str, name: &str) -> Result<T, DataError> {
    toml::Value::String(name.to_owned()).try_into().map_err(|e: toml::de::Error| DataError::Option {
        key,
        expected: e.message().trim().to_owned(),
        found: format!("\"{name}\""),
    })
}

/// The same, where `auto` leaves it to the data.
fn named_or_auto<T: DeserializeOwned>(key: &'static str, name: &str) -> Result<Option<T>, DataError> {
    if name == "auto" { Ok(None) } else { named(key, name).map(Some) }
}

/// The longest side that `data.size` may ask for.
const MOST_SIDE: usize = 8192;

/// Height and width in pixels; written `64` where both are equal, else `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrTwo", into = "OneOrTwo")]
pub struct Size {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Size {
    /// A square.
    pub const fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected one number of pixels, or [height, width]")]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl From<OneOrTwo> for Size {
    fn from(size: OneOrTwo) -> Self {
        match size {
            OneOrTwo::One(side) => Self::square(side),
            OneOrTwo::Two([height, width]) => Self { height, width },
        }
    }
}

impl From<Size> for OneOrTwo {
    fn from(Size { height, width }: Size) -> Self {
        if height == width { Self::One(height) } else { Self::Two([height, width]) }
    }
}

/// How an image whose shape is not the wanted one is brought to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// The largest centred window of the wanted aspect ratio, resized.
    #[default]
    #[serde(alias = "center")]
    Centre,
    /// Resized until it just covers the wanted size; where it is longer, a window of it is taken
    /// at random, anew every epoch (held-out images: the centre).
    Random,
    /// Nothing is cut: the whole image is resized, which stretches it.
    None,
}

/// Filters for resizing; all but `nearest` average over the area when they make an image smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Windowed sinc with three lobes: sharpest.
    #[default]
    Lanczos3,
    /// Cubic of Catmull and Rom.
    Bicubic,
    /// Triangle.
    Bilinear,
    /// Mean of the area: no ringing.
    Box,
    /// Nearest pixel: for pixel art that is made larger.
    Nearest,
}

/// The values that stand for black and white in an array of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// 0 to 1.
    #[serde(rename = "0..1")]
    Unit,
    /// -1 to 1, as a network sees them.
    #[serde(rename = "-1..1")]
    Symmetric,
    /// 0 to 255.
    #[serde(rename = "0..255")]
    Byte,
}

impl Range {
    /// Least and greatest value.
    pub const fn bounds(self) -> (f64, f64) {
        match self {
            Self::Unit => (0.0, 1.0),
            Self::Symmetric => (-1.0, 1.0),
            Self::Byte => (0.0, 255.0),
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unit => "0..1",
            Self::Symmetric => "-1..1",
            Self::Byte => "0..255",
        })
    }
}

/// Order of the axes of an array of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// Images, rows, columns, channels.
    Nhwc,
    /// Images, channels, rows, columns.
    Nchw,
    /// Images, rows, columns: grey.
    Nhw,
}

/// What to do with an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Stop with an error that names it.
    #[default]
    Stop,
    /// Go on without it; it is listed in the set's `skipped`.
    Skip,
}
