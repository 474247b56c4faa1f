//! Pictures: from numbers in [-1, 1] to PNG and GIF files.

pub(crate) mod film;
mod font;
pub(crate) mod grid;
pub(crate) mod plot;
pub(crate) mod png;

/// 8-bit pixels, rows from top to bottom, channels interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Columns.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    pub(crate) channels: usize,
    /// `height · width · channels` values.
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// A picture of one colour.
    pub(crate) fn filled(width: usize, height: usize, colour: &[u8]) -> Self {
        Self { width, height, channels: colour.len(), pixels: colour.repeat(width * height) }
    }
}

/// 8 bits of a value in [-1, 1]: `round((x + 1) · 127.5)`, cut to 0..=255; NaN becomes 0.
pub(crate) fn byte(x: f32) -> u8 {
    ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::byte;

    #[test]
    fn every_byte_survives_the_way_to_floats_and_back() {
        for u in 0..=255u8 {
            assert_eq!(byte(f32::from(u) / 127.5 - 1.0), u);
        }
        assert_eq!((byte(-9.0), byte(9.0), byte(f32::NAN), byte(0.0)), (0, 255, 0, 128));
    }
}
