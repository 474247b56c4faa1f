//! Loops over pixels, 16 channels at a time: constants of the channels stay in registers, and few channels are as fast as many.

use ddpm_tensor::Element;

/// Channels that are computed together.
pub(crate) const LANES: usize = 16;

/// One number for each of them.
pub(crate) type Lanes<T> = [T; LANES];

/// Up to 16 numbers of a row from `first` on, then zeros.
#[inline(always)]
pub(crate) fn lanes<T: Element>(row: &[T], first: usize) -> Lanes<T> {
    let mut lanes = [T::ZERO; LANES];
    let some = &row[first.min(row.len())..(first + LANES).min(row.len())];
    match some.first_chunk() {
        Some(all) => lanes = *all,
        None => lanes[..some.len()].copy_from_slice(some),
    }
    lanes
}

/// Pixels of which some channels are meant: `values[pixel · stride + offset + c]`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) stride: usize,
    pub(crate) offset: usize,
}

/// Runs one body for each pixel's 16 channels, or for its `count` first ones. Which of both is asked once, not for each pixel: the
/// constants of `f` stay in registers.
macro_rules! each {
    ($pixels:expr, $row:pat, $count:expr, [$($part:ident),*], $out:ident, $value:expr) => {
        if $count == LANES {
            for $row in $pixels {
                $(let Some($part) = $part.first_chunk::<LANES>() else { return };)*
                let Some($out) = $out.first_chunk_mut::<LANES>() else { return };
                for i in 0..LANES {
                    $out[i] = $value(i, $out[i] $(, $part[i])*);
                }
            }
        } else {
            for $row in $pixels {
                for i in 0..$count {
                    $out[i] = $value(i, $out[i] $(, $part[i])*);
                }
            }
        }
    };
}

/// `out = f(i, x)` for 16 (or the `count` last) channels from `first` on of each pixel; `out` has rows of `width` and the
/// channels from `at` on.
#[inline(always)]
pub(crate) fn map<T: Element>(
    x: Strided<'_, T>,
    out: &mut [T],
    (width, at): (usize, usize),
    (first, count): (usize, usize),
    f: impl Fn(usize, T) -> T,
) {
    let pixels = x.values.chunks_exact(x.stride).zip(out.chunks_exact_mut(width));
    let pixels = pixels.map(|(x_row, out)| (&x_row[x.offset + first..], &mut out[at + first..]));
    each!(pixels, (x, out), count, [x], out, |i, _, x| f(i, x));
}

/// The same of two inputs: `out = f(i, x, y)`.
#[inline(always)]
pub(crate) fn map_two<T: Element>(
    [x, y]: [Strided<'_, T>; 2],
    out: &mut [T],
    (width, at): (usize, usize),
    (first, count): (usize, usize),
    f: impl Fn(usize, T, T) -> T,
) {
    let pixels = x.values.chunks_exact(x.stride).zip(y.values.chunks_exact(y.stride)).zip(out.chunks_exact_mut(width));
    let pixels = pixels
        .map(|((x_row, y_row), out)| (&x_row[x.offset + first..], &y_row[y.offset + first..], &mut out[at + first..]));
    each!(pixels, (x, y, out), count, [x, y], out, |i, _, x, y| f(i, x, y));
}

/// `y = f(i, y)` in place, for 16 (or the `count` last) channels from `first` on of each pixel of `width` numbers.
#[inline(always)]
pub(crate) fn change<T: Element>(y: &mut [T], width: usize, (first, count): (usize, usize), f: impl Fn(usize, T) -> T) {
    let pixels = y.chunks_exact_mut(width).map(|y| &mut y[first..]);
    each!(pixels, y, count, [], y, f);
}

/// The same with another input: `y = f(i, y, x)`.
#[inline(always)]
pub(crate) fn change_with<T: Element>(
    x: Strided<'_, T>,
    y: &mut [T],
    width: usize,
    (first, count): (usize, usize),
    f: impl Fn(usize, T, T) -> T,
) {
    let pixels = x.values.chunks_exact(x.stride).zip(y.chunks_exact_mut(width));
    let pixels = pixels.map(|(x_row, y)| (&x_row[x.offset..], &mut y[first..]));
    each!(pixels, (x, y), count, [x], y, f);
}

/// The first channels and numbers of the groups of up to 16 among `count` channels.
#[inline(always)]
pub(crate) fn groups(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(LANES).map(move |first| (first, LANES.min(count - first)))
}
