//! NumPy's `.npy` and `.npz` files.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;

use npyz::zip::{CompressionMethod, ZipArchive};
use npyz::{DType, NpyHeader, Order, TypeChar};

use super::array::{ArrayPictures, Element, Part, class_numbers, recognise_shape};
use super::bytes::{self, Bytes};
use super::source::Found;
use super::{DataError, DataOptions, Range, Source};

/// First bytes of an `.npy` file.
pub(super) const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// First bytes of an `.npz` file, a zip archive.
pub(super) const NPZ_MAGIC: &[u8] = b"PK\x03\x04";

/// Names under which images and labels are looked for, in this order.
const IMAGES: [&str; 6] = ["images", "arr_0", "x", "X", "data", "x_train"];
const LABELS: [&str; 7] = ["labels", "arr_1", "y", "Y", "label", "targets", "y_train"];

/// A header of an image array is some 128 bytes; a longer one, or a deeply nested one, is damage.
const MOST_HEADER: usize = 4096;
const MOST_BRACKETS: usize = 64;

/// What the header of one array says.
struct Array {
    element: Element,
    big_endian: bool,
    shape: Vec<u64>,
    /// Bytes before the numbers.
    offset: u64,
}

impl Array {
    /// Bytes of its numbers.
    fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element.bytes() as u64, |n, &side| n.checked_mul(side))
    }

    fn values<'a>(&self, raw: &'a [u8]) -> impl Iterator<Item = f64> + use<'a> {
        let (element, big_endian) = (self.element, self.big_endian);
        raw.chunks_exact(element.bytes()).map(move |number| element.value(number, big_endian))
    }
}

/// Reads an `.npy` header; the reader stands at the numbers then.
fn read_header(path: &Path, mut reader: impl Read) -> Result<Array, DataError> {
    let damaged = |found: String| DataError::format(path, "a NumPy array header", found, "save the array again");
    let mut text = vec![0; 8];
    reader.read_exact(&mut text).map_err(|e| damaged(format!("a broken one ({e})")))?;
    let count = if text[6] == 1 { 2 } else { 4 };
    text.resize(8 + count, 0);
    reader.read_exact(&mut text[8..]).map_err(|e| damaged(format!("a broken one ({e})")))?;
    let length = text[8..].iter().rev().fold(0_usize, |n, &byte| n << 8 | usize::from(byte));
    if length > MOST_HEADER {
        return Err(damaged(format!("one of {length} bytes")));
    }
    let offset = text.len() + length;
    text.resize(offset, 0);
    reader.read_exact(&mut text[8 + count..]).map_err(|e| damaged(format!("a broken one ({e})")))?;
    if text.iter().filter(|&&byte| matches!(byte, b'(' | b'[' | b'{' | b'-' | b'+')).count() > MOST_BRACKETS {
        return Err(damaged("one with too many brackets or signs".to_owned()));
    }
    let header = NpyHeader::from_reader(Cursor::new(&text)).map_err(|e| damaged(format!("a broken one ({e})")))?;
    let unfit = |found: String, advice: &str| DataError::format(path, "an array of u8 or floats", found, advice);
    let dtype = header.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(unfit(format!("records ({})", dtype.descr()), "save the images alone, as one array"));
    };
    let size = usize::try_from(kind.size_field()).unwrap_or(0);
    let element = match (kind.type_char(), size) {
        (TypeChar::Bool, 1) => Element::Bool,
        (TypeChar::Uint, 1) => Element::U8,
        (TypeChar::Uint, 2) => Element::U16,
        (TypeChar::Uint, 4 | 8) => Element::Whole { signed: false, bytes: size },
        (TypeChar::Int, 1 | 2 | 4 | 8) => Element::Whole { signed: true, bytes: size },
        (TypeChar::Float, 2 | 4 | 8) => Element::Float { bytes: size },
        (TypeChar::Object, _) => {
            let advice = "its images may differ in size: bring them to one size and save a numeric array, or \
                          write them as picture files into a folder";
            return Err(unfit("pickled Python objects".to_owned(), advice));
        }
        _ => return Err(unfit(dtype.descr(), "convert it, for example with .astype(numpy.uint8)")),
    };
    if header.order() == Order::Fortran && header.shape().iter().filter(|&&side| side > 1).count() > 1 {
        return Err(unfit("one in Fortran order".to_owned(), "save numpy.ascontiguousarray(images)"));
    }
    Ok(Array {
        element,
        big_endian: kind.endianness() == npyz::Endianness::Big,
        shape: header.shape().to_vec(),
        offset: offset as u64,
    })
}

/// Opens one array of images.
pub(super) fn open_npy(path: &Path, options: &DataOptions) -> Result<Found, DataError> {
    let bytes = bytes::open_maybe_gzip(path, None, options.budget())?;
    let prefix = bytes.prefix(12 + MOST_HEADER).map_err(|e| DataError::io(path, "reading its header", e))?;
    let array = read_header(path, prefix.as_slice())?;
    found(path, Source::Npy, &array, bytes, array.offset, None, options)
}

/// Opens an archive of arrays that lies on disk.
pub(super) fn open_npz(path: &Path, options: &DataOptions) -> Result<Found, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, "opening", e))?;
    read_npz(path, Source::Npz, io::BufReader::new(file), options)
}

/// Reads an archive of arrays.
///
/// `path` names it; images that are stored uncompressed ([`Source::Npz`]) are left in that file.
pub(super) fn read_npz<R: Read + Seek>(
    path: &Path,
    source: Source,
    reader: R,
    options: &DataOptions,
) -> Result<Found, DataError> {
    let mut zip = ZipArchive::new(reader).map_err(|e| broken(path, &e))?;
    let mut members = Vec::new();
    for file_name in zip.file_names().map(ToOwned::to_owned).collect::<BTreeSet<_>>() {
        let Some(name) = file_name.strip_suffix(".npy") else { continue };
        let member = zip.by_name(&file_name).map_err(|e| broken(path, &e))?;
        members.push((name.to_owned(), Some(read_header(path, member))));
    }
    let images = find_images(&members).ok_or_else(|| {
        let listed = members.iter().map(|(name, array)| match array {
            Some(Ok(array)) => format!("{name} {:?}", array.shape),
            _ => format!("{name} (no numbers)"),
        });
        DataError::format(
            path,
            "an array called `images` or `arr_0`, or only one with four or three axes",
            if members.is_empty() { "none".to_owned() } else { listed.collect::<Vec<_>>().join(", ") },
            "save it with numpy.savez(file, images=images, labels=labels)",
        )
    })?;
    let labels = find_name(&members, &LABELS).filter(|&at| options.classes && at != images);
    let mut take =
        |at: usize| members[at].1.take().transpose().map(|array| array.map(|array| (members[at].0.clone(), array)));

    let labels = match labels.map(&mut take).transpose()?.flatten() {
        Some((name, array)) => {
            let raw = read_member(path, &mut zip, &name, &array, options.budget())?;
            let numbers = raw.get(array.offset as usize..).unwrap_or_default();
            Some(class_numbers(path, array.values(numbers))?)
        }
        None => None,
    };
    let Some((name, array)) = take(images)? else {
        return Err(broken(path, &"two members of one name"));
    };
    let stored = {
        let member = zip.by_name(&format!("{name}.npy")).map_err(|e| broken(path, &e))?;
        (source == Source::Npz && member.compression() == CompressionMethod::Stored).then(|| member.data_start())
    };
    let (bytes, start) = if let Some(start) = stored {
        (Bytes::open(path)?, start)
    } else {
        (Bytes::Memory(Cow::Owned(read_member(path, &mut zip, &name, &array, options.budget())?)), 0)
    };
    found(path, source, &array, bytes, start.saturating_add(array.offset), labels, options)
}

type Members = [(String, Option<Result<Array, DataError>>)];

fn find_name(members: &Members, wanted: &[&str]) -> Option<usize> {
    wanted.iter().find_map(|wanted| members.iter().position(|(name, _)| name == wanted))
}

/// The images: by the two first names, else the only array with four axes, else with three, else
/// by another usual name.
fn find_images(members: &Members) -> Option<usize> {
    let only = |axes: usize| {
        let mut having = members
            .iter()
            .enumerate()
            .filter(|(_, (_, array))| matches!(array, Some(Ok(array)) if array.shape.len() == axes));
        having.next().filter(|_| having.next().is_none()).map(|(at, _)| at)
    };
    find_name(members, &IMAGES[..2])
        .or_else(|| only(4))
        .or_else(|| only(3))
        .or_else(|| find_name(members, &IMAGES[2..]))
}

/// Decompresses one member, header and all.
fn read_member<R: Read + Seek>(
    path: &Path,
    zip: &mut ZipArchive<R>,
    name: &str,
    array: &Array,
    limit: u64,
) -> Result<Vec<u8>, DataError> {
    let member = zip.by_name(&format!("{name}.npy")).map_err(|e| broken(path, &e))?;
    let declared = array.bytes().and_then(|n| n.checked_add(array.offset)).unwrap_or(u64::MAX);
    let compressed = member.compressed_size();
    bytes::inflate(path, member, compressed, Some(declared), limit)
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> DataError {
    DataError::format(path, "a whole .npz archive", format!("a broken one ({reason})"), "fetch or write it again")
}

/// Images whose numbers begin at `offset` of `bytes`.
fn found(
    path: &Path,
    source: Source,
    array: &Array,
    bytes: Bytes,
    offset: u64,
    labels: Option<Vec<u32>>,
    options: &DataOptions,
) -> Result<Found, DataError> {
    let (count, height, width, channels, channels_first) = recognise_shape(path, &array.shape, options.layout)?;
    let stride = (height * width * channels * array.element.bytes()) as u64;
    let mut pictures = ArrayPictures {
        parts: vec![Part { path: path.to_path_buf(), bytes, offset, stride, count }],
        element: array.element,
        big_endian: array.big_endian,
        channels_first,
        height,
        width,
        channels,
        range: Range::Byte,
    };
    pictures.check_length()?;
    let skipped = pictures.find_range(options.range, options.on_error)?;
    Ok(Found { source, pictures: Box::new(pictures), labels, classes: None, skipped, notes: Vec::new() })
}
