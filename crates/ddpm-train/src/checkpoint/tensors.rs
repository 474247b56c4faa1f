//! Named f32 tensors of flat buffers ↔ the bytes of a safetensors file.
//!
//! The format (an 8-byte length, a JSON header, the numbers) is read as strictly as its description allows and a
//! little more: a name may stand once, the numbers must be covered exactly, without holes or overlaps, and the tensors
//! must be those that are expected, no more and no fewer. Anything else is an error, never a guess.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

const _: () =
    assert!(cfg!(target_endian = "little"), "safetensors files hold little-endian numbers, and so must memory");

/// The longest header that is read, in bytes. A tensor takes about 100, so this is far above any network's.
const MAX_HEADER: u64 = 16 << 20;
/// The most tensors that a file may hold.
const MAX_TENSORS: usize = 100_000;
/// The highest rank of a tensor.
const MAX_RANK: usize = 8;
/// The key of the format's free-form text.
const METADATA: &str = "__metadata__";

/// One tensor of a flat buffer: what it is called, its shape, and where its numbers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name, as in `down_blocks.0.resnets.1.conv1.weight`.
    pub name: &'a str,
    /// The dimensions, outermost first.
    pub shape: &'a [usize],
    /// The first element within the flat buffer; the others follow it.
    pub start: usize,
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.prefix)
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:?})", self.prefix)
    }
}

impl Entry<'_> {
    /// The number of elements: the product of the shape.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements within the flat buffer.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.elements()
    }
}

/// Why bytes are not the safetensors file that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsError {
    /// The file ends before its header does.
    #[error("it ends within its header: {expected} bytes are needed, {got} are there")]
    Short {
        /// Bytes that the header needs.
        expected: u64,
        /// Bytes of the file.
        got: u64,
    },
    /// The header claims to be longer than any network's.
    #[error("its header claims {got} bytes; at most {MAX_HEADER} are read")]
    HeaderTooLong {
        /// Claimed length in bytes.
        got: u64,
    },
    /// The header is not the JSON that the format asks for.
    #[error("its header is not as safetensors has it: {reason}")]
    Header {
        /// What the JSON reader said.
        reason: String,
    },
    /// A tensor's description contradicts itself or the file.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// The contradiction.
        reason: String,
    },
    /// The numbers are not covered exactly once.
    #[error("tensors cover {covered} bytes, the file holds {got}")]
    Uncovered {
        /// Bytes that the header describes.
        covered: u64,
        /// Bytes that follow the header.
        got: u64,
    },
    /// A tensor that the network has is not in the file.
    #[error("tensor `{name}` is missing ({present} are there, {expected} are needed)")]
    Missing {
        /// Name of the first missing tensor.
        name: String,
        /// Tensors in the file.
        present: usize,
        /// Tensors that are needed.
        expected: usize,
    },
    /// A tensor in the file is not in the network.
    #[error("tensor `{name}` is not one of this network's")]
    Unknown {
        /// Name of the first such tensor.
        name: String,
    },
    /// The numbers were read, but could not be put where they belong.
    #[error("tensor `{name}` cannot be stored: {reason}")]
    Target {
        /// Name of the tensor.
        name: String,
        /// What the buffer or its device said.
        reason: String,
    },
    /// A tensor has another shape than the network's.
    #[error("tensor `{name}` has shape {got:?}, the network's has {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
}

/// Numbers in one flat buffer, on whatever device, to be written.
pub trait ReadFlat {
    /// Copies the elements from `start` on.
    ///
    /// # Errors
    /// If there are not so many, or the device fails.
    fn read(&self, start: usize, out: &mut [f32]) -> io::Result<()>;
}

/// Numbers in one flat buffer, on whatever device, to be read into.
pub trait WriteFlat {
    /// Overwrites the elements from `start` on.
    ///
    /// # Errors
    /// If there are not so many, or the device fails.
    fn write(&mut self, start: usize, values: &[f32]) -> io::Result<()>;
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a tensor lies outside its buffer")
}

impl ReadFlat for Vec<f32> {
    fn read(&self, start: usize, out: &mut [f32]) -> io::Result<()> {
        out.copy_from_slice(self.get(start..start + out.len()).ok_or_else(outside)?);
        Ok(())
    }
}

impl WriteFlat for Vec<f32> {
    fn write(&mut self, start: usize, values: &[f32]) -> io::Result<()> {
        self.get_mut(start..start + values.len()).ok_or_else(outside)?.copy_from_slice(values);
        Ok(())
    }
}

/// One flat buffer to be written, with a prefix for the names of its tensors (`""` where a file holds one buffer).
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Stands before each name.
    pub prefix: &'a str,
    /// The flat buffer.
    pub data: &'a dyn ReadFlat,
}

/// One flat buffer to be read into, with the prefix that it was written with.
pub struct Target<'a> {
    /// Stands before each name.
    pub prefix: &'a str,
    /// The flat buffer; elements between tensors keep their values.
    pub data: &'a mut dyn WriteFlat,
}

/// Writes the tensors of `entries` from every source, in order, as one safetensors file.
///
/// The same numbers give the same bytes.
///
/// # Errors
/// What `out` or a source returns.
pub fn write(out: &mut impl Write, entries: &[Entry<'_>], sources: &[Source<'_>]) -> io::Result<()> {
    out.write_all(&header(entries, sources.iter().map(|source| source.prefix)))?;
    let mut values = Vec::new();
    for source in sources {
        for entry in entries {
            values.resize(entry.elements(), 0.0);
            source.data.read(entry.start, &mut values)?;
            out.write_all(bytemuck::cast_slice(&values))?;
        }
    }
    Ok(())
}

/// Length and JSON of the header, padded with spaces to a multiple of eight as the format recommends.
fn header<'a>(entries: &[Entry<'_>], prefixes: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut json = String::from(r#"{"__metadata__":{"format":"ddpm","layout":"native"}"#);
    let mut offset = 0;
    for prefix in prefixes {
        for entry in entries {
            let end = offset + entry.elements() * size_of::<f32>();
            let name = serde_json::Value::from(format!("{prefix}{}", entry.name));
            let shape = serde_json::Value::from(entry.shape);
            let offsets = format_args!(r#""data_offsets":[{offset},{end}]"#);
            json.extend([format!(r#",{name}:{{"dtype":"F32","shape":{shape},{offsets}}}"#)]);
            offset = end;
        }
    }
    json.push('}');
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

/// Reads a safetensors file into flat buffers: exactly the tensors of `entries` for every target.
///
/// Nothing is written to the targets unless the whole header is right.
///
/// # Errors
/// [`TensorsError`] with the first thing that is not as it must be.
pub fn read(bytes: &[u8], entries: &[Entry<'_>], targets: &mut [Target<'_>]) -> Result<(), TensorsError> {
    let file = File::parse(bytes)?;
    let expected = entries.len() * targets.len();
    let mut known = std::collections::HashSet::with_capacity(expected);
    for target in &*targets {
        for entry in entries {
            let name = format!("{}{}", target.prefix, entry.name);
            let found = file.tensors.get(&name).ok_or_else(|| TensorsError::Missing {
                name: name.clone(),
                present: file.tensors.len(),
                expected,
            })?;
            if found.shape != entry.shape {
                return Err(TensorsError::Shape { name, expected: entry.shape.to_vec(), got: found.shape.clone() });
            }
            known.insert(name);
        }
    }
    if let Some(name) = file.tensors.keys().filter(|name| !known.contains(*name)).min() {
        return Err(TensorsError::Unknown { name: name.clone() });
    }
    let mut values = Vec::new();
    for target in targets {
        for entry in entries {
            let name = format!("{}{}", target.prefix, entry.name);
            values.resize(entry.elements(), 0.0);
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(&file.numbers[file.tensors[&name].range.clone()]);
            target
                .data
                .write(entry.start, &values)
                .map_err(|error| TensorsError::Target { name, reason: error.to_string() })?;
        }
    }
    Ok(())
}

/// A tensor as a checked header describes it: f32, with as many bytes as its shape needs, within the file.
struct Found {
    shape: Vec<usize>,
    range: Range<usize>,
}

struct File<'a> {
    tensors: HashMap<String, Found>,
    numbers: &'a [u8],
}

impl<'a> File<'a> {
    /// Checks the header against itself and against the length of the file.
    fn parse(bytes: &'a [u8]) -> Result<Self, TensorsError> {
        let got = bytes.len() as u64;
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or(TensorsError::Short { expected: 8, got })?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(TensorsError::HeaderTooLong { got: length });
        }
        let (json, numbers) =
            rest.split_at_checked(length as usize).ok_or(TensorsError::Short { expected: 8 + length, got })?;
        let Header(infos) =
            serde_json::from_slice(json).map_err(|error| TensorsError::Header { reason: error.to_string() })?;

        let mut in_order: Vec<(u64, u64, &str)> = Vec::with_capacity(infos.len());
        for (name, info) in &infos {
            info.check().map_err(|reason| TensorsError::Tensor { name: name.clone(), reason })?;
            in_order.push((info.data_offsets.0, info.data_offsets.1, name));
        }
        in_order.sort_unstable();
        let mut covered = 0;
        for (start, end, name) in in_order {
            if start != covered {
                let what = if start < covered { "overlaps what stands before it" } else { "leaves a hole before it" };
                let reason = format!("begins at byte {start} and {what}, which ends at {covered}");
                return Err(TensorsError::Tensor { name: name.to_owned(), reason });
            }
            covered = end;
        }
        if covered != numbers.len() as u64 {
            return Err(TensorsError::Uncovered { covered, got: numbers.len() as u64 });
        }

        let count = infos.len();
        let tensors: HashMap<String, Found> = infos
            .into_iter()
            .map(|(name, info)| {
                let range = info.data_offsets.0 as usize..info.data_offsets.1 as usize;
                (name, Found { shape: info.shape, range })
            })
            .collect();
        if tensors.len() != count {
            return Err(TensorsError::Header { reason: "a tensor's name stands in it twice".to_owned() });
        }
        Ok(Self { tensors, numbers })
    }
}

/// One tensor as the header's JSON has it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Info {
    fn check(&self) -> Result<(), String> {
        if self.dtype != "F32" {
            return Err(format!("is {}, F32 is needed", self.dtype));
        }
        if self.shape.len() > MAX_RANK {
            return Err(format!("has {} dimensions; at most {MAX_RANK} are read", self.shape.len()));
        }
        let (start, end) = self.data_offsets;
        let needed = self
            .shape
            .iter()
            .try_fold(size_of::<f32>() as u64, |product, &dimension| product.checked_mul(dimension as u64))
            .ok_or_else(|| format!("shape {:?} is larger than any memory", self.shape))?;
        if end.checked_sub(start) != Some(needed) {
            return Err(format!("shape {:?} needs {needed} bytes, offsets are {start} and {end}", self.shape));
        }
        Ok(())
    }
}

/// The header's tensors as they stand, so that a name that stands twice is seen (a map would keep the last).
struct Header(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Vec<(String, Info)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                    } else if tensors.len() == MAX_TENSORS {
                        return Err(serde::de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(tensors)
            }
        }

        deserializer.deserialize_map(Tensors).map(Header)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const ENTRIES: [Entry<'static>; 3] = [
        Entry { name: "conv.weight", shape: &[2, 3], start: 0 },
        Entry { name: "conv.bias", shape: &[2], start: 16 },
        Entry { name: "scale", shape: &[], start: 18 },
    ];

    fn buffer(first: f32) -> Vec<f32> {
        (0..32).map(|i| first + i as f32).collect()
    }

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let (m, v) = (buffer(0.5), buffer(-100.0));
        write(&mut bytes, &ENTRIES, &[Source { prefix: "m.", data: &m }, Source { prefix: "v.", data: &v }]).unwrap();
        bytes
    }

    fn read_back(bytes: &[u8]) -> Result<(Vec<f32>, Vec<f32>), TensorsError> {
        let (mut m, mut v) = (vec![0.0; 32], vec![0.0; 32]);
        read(bytes, &ENTRIES, &mut [Target { prefix: "m.", data: &mut m }, Target { prefix: "v.", data: &mut v }])?;
        Ok((m, v))
    }

    /// A file with this JSON as header and `length` bytes of numbers.
    fn forged(json: &str, length: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + length, 0);
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_gaps_are_left_alone() {
        let (m, v) = read_back(&file()).unwrap();
        for entry in ENTRIES {
            assert_eq!(m[entry.range()], buffer(0.5)[entry.range()]);
            assert_eq!(v[entry.range()], buffer(-100.0)[entry.range()]);
        }
        assert!(m[6..16].iter().chain(&v[19..]).all(|&gap| gap == 0.0));
    }

    #[test]
    fn the_safetensors_crate_reads_the_same() {
        let bytes = file();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.len(), 6);
        let bias = theirs.tensor("v.conv.bias").unwrap();
        assert_eq!((bias.dtype(), bias.shape()), (safetensors::Dtype::F32, &[2][..]));
        assert_eq!(bias.data(), bytemuck::cast_slice::<f32, u8>(&[-84.0, -83.0]));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let one = [Entry { name: "a", shape: &[2], start: 0 }];
        let attempt = |bytes: &[u8]| {
            let mut data = vec![0.0; 2];
            read(bytes, &one, &mut [Target { prefix: "", data: &mut data }])
        };
        let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        attempt(&forged(good, 8)).unwrap();
        let mut endless = u64::MAX.to_le_bytes().to_vec();
        endless.extend_from_slice(good.as_bytes());
        let many: Vec<String> =
            (0..=MAX_TENSORS).map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)).collect();
        let cases = [
            ("nothing", Vec::new()),
            ("half a length", vec![1, 2, 3]),
            ("an endless header", endless),
            ("a header that ends early", forged(good, 8)[..20].to_vec()),
            ("no JSON", forged("{]", 0)),
            ("no object", forged("[1]", 0)),
            ("text after the JSON", forged(&format!("{good} x"), 8)),
            ("invalid UTF-8", forged("{\"a", 8).into_iter().map(|b| if b == b'a' { 0xff } else { b }).collect()),
            ("another type", forged(&good.replace("F32", "F16"), 8)),
            ("another shape", forged(&good.replace("[2]", "[2,1]"), 8)),
            ("a negative size", forged(&good.replace("[2]", "[-2]"), 8)),
            ("a size that overflows", forged(&good.replace("[2]", "[4294967296,4294967296,4]"), 8)),
            ("offsets that do not fit", forged(&good.replace("[0,8]", "[0,4]"), 4)),
            ("offsets that go back", forged(&good.replace("[0,8]", "[8,0]"), 8)),
            ("offsets beyond the end", forged(&good.replace("[0,8]", "[8,16]"), 16)),
            ("numbers that nobody names", forged(good, 12)),
            ("too few numbers", forged(good, 4)),
            ("a field of its own", forged(&good.replace("\"dtype\"", "\"x\":1,\"dtype\""), 8)),
            (
                "a second tensor",
                forged(&good.replacen('{', r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"#, 1), 12),
            ),
            (
                "the same name twice",
                forged(&good.replacen('{', r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"#, 1), 8),
            ),
            (
                "an overlap",
                forged(&good.replacen('{', r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"#, 1), 8),
            ),
            ("too many tensors", forged(&format!("{{{}}}", many.join(",")), 0)),
            ("another name", forged(&good.replace("\"a\"", "\"b\""), 8)),
            ("no tensor", forged("{}", 0)),
            ("deep nesting", forged(&"[".repeat(100_000), 0)),
            ("deep metadata", forged(&format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000)), 0)),
            ("rank nine", forged(&good.replace("[2]", "[2,1,1,1,1,1,1,1,1]"), 8)),
        ];
        for (what, bytes) in cases {
            let error = attempt(&bytes).expect_err(what);
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = file();
        for length in 0..bytes.len() {
            assert!(read_back(&bytes[..length]).is_err(), "{length} of {} bytes were read", bytes.len());
        }
    }

    #[test]
    fn no_flipped_bit_of_a_header_panics() {
        let bytes = file();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap()) as usize;
        for bit in 0..header * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Free-form text and white space may change unseen here: the manifest's hash sees those.
            drop(read_back(&flipped));
        }
    }
}
