//! TensorBoard's event file: numbers and pictures over steps, for those who look at their runs there.
//!
//! The file is a row of records, each `length: u64, mask(crc(length)): u32, data, mask(crc(data)): u32`, little-endian, with the
//! cyclic redundancy check of Castagnoli (CRC-32C, RFC 3720) rotated by 15 bits and moved by a constant. The data are messages
//! `Event` in protocol buffers' encoding, of which these fields are written:
//!
//! ```text
//! Event    1 wall_time: double   2 step: int64   3 file_version: string   5 summary: Summary
//! Summary  1 value: Value, any number of them
//! Value    1 tag: string         2 simple_value: float   4 image: Image
//! Image    1 height, 2 width, 3 colorspace: int32        4 encoded_image_string: bytes
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::RunError;

/// What the first record says.
const VERSION: &[u8] = b"brain.Event:2";

/// The open file, at whose end records are added.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

/// A PNG with what its reader needs to know beforehand.
#[derive(Debug, Clone, Copy)]
pub struct EncodedPng<'a> {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    pub channels: usize,
    /// The file.
    pub bytes: &'a [u8],
}

impl Events {
    /// Opens the file after cutting it back to the records of steps up to `step`: later ones will be made again. A torn
    /// record and what stands behind it go as well. A new file begins at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`RunError::Io`] if the file cannot be read or written.
    pub fn open(path: &Path, step: u64, now: f64) -> Result<Self, RunError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(RunError::io("read", path, error)),
        };
        let mut kept = 0;
        while let Some((data, len)) = first_record(&bytes[kept..]) {
            if step_of(data) > step {
                break;
            }
            kept += len;
        }
        let attempt = || {
            let file = File::options().create(true).append(true).open(path)?;
            if kept < bytes.len() {
                file.set_len(kept as u64)?;
            }
            Ok(file)
        };
        let file = attempt().map_err(|error| RunError::io("open", path, error))?;
        let mut events = Self { file, path: path.to_owned() };
        if kept == 0 {
            let mut event = Message::default();
            event.double(1, now);
            event.bytes(3, VERSION);
            events.append(&event)?;
        }
        Ok(events)
    }

    /// Adds numbers of a step, each under its tag, at the time `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`RunError::Io`] if they cannot be written.
    pub fn numbers(&mut self, now: f64, step: u64, values: &[(&str, f64)]) -> Result<(), RunError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut one = Message::default();
            one.bytes(1, tag.as_bytes());
            one.float(2, *value as f32);
            summary.bytes(1, &one.0);
        }
        self.append(&event(now, step, &summary))
    }

    /// Adds a picture of a step.
    ///
    /// # Errors
    /// [`RunError::Io`] if it cannot be written.
    pub fn picture(&mut self, now: f64, step: u64, tag: &str, png: EncodedPng<'_>) -> Result<(), RunError> {
        let mut image = Message::default();
        image.whole(1, png.height as u64);
        image.whole(2, png.width as u64);
        image.whole(3, png.channels as u64);
        image.bytes(4, png.bytes);
        let mut one = Message::default();
        one.bytes(1, tag.as_bytes());
        one.bytes(4, &image.0);
        let mut summary = Message::default();
        summary.bytes(1, &one.0);
        self.append(&event(now, step, &summary))
    }

    /// A record goes to the system in one piece, so that a kill tears at most the last.
    fn append(&mut self, event: &Message) -> Result<(), RunError> {
        let length = (event.0.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.0.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event.0);
        record.extend(masked_crc(&event.0).to_le_bytes());
        self.file.write_all(&record).map_err(|error| RunError::io("write", &self.path, error))
    }
}

fn event(now: f64, step: u64, summary: &Message) -> Message {
    let mut event = Message::default();
    event.double(1, now);
    event.whole(2, step);
    event.bytes(5, &summary.0);
    event
}

/// A message in protocol buffers' encoding, field by field. Zeros of whole numbers are left out, as their writers do.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn double(&mut self, field: u8, value: f64) {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u8, value: f32) {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn whole(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.0.push(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The data of the record at the front, and the length of all of it; nothing if it is torn or none.
fn first_record(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let data = rest.get(..len)?;
    let data_crc = rest[len..].first_chunk::<4>()?;
    let sound = masked_crc(length).to_le_bytes() == *length_crc && masked_crc(data).to_le_bytes() == *data_crc;
    sound.then_some((data, 16 + len))
}

/// The step of an event as it is written here: behind the time. The first event has none.
fn step_of(data: &[u8]) -> u64 {
    let Some([0x10, rest @ ..]) = data.get(9..) else { return 0 };
    let mut step = 0;
    for (i, byte) in rest.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            break;
        }
    }
    step
}

/// CRC-32C as records hold it: TensorFlow masks it, because a check over data that hold their own check is weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C, bits in reversed order, of which a byte takes one look into a table.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What TensorBoard's own writer makes of the same events: see `events/make_fixture.py`.
    const FIXTURE: &[u8] = include_bytes!("events/fixture.tfevents");
    const PNG: &[u8] = &[0x89, b'P', b'N', b'G', 1, 2, 3];

    fn written(path: &Path) -> Events {
        let mut events = Events::open(path, 0, 1.5).unwrap();
        events.numbers(2.25, 1, &[("loss", 1.0), ("lr", 2e-5)]).unwrap();
        events.numbers(3.5, 300, &[("heldout_loss", 0.03125)]).unwrap();
        events.picture(4.0, 300, "samples", EncodedPng { height: 28, width: 200, channels: 1, bytes: PNG }).unwrap();
        events.numbers(5.0, 70_000, &[("loss", f64::NAN)]).unwrap();
        events
    }

    #[test]
    fn the_file_is_tensorboards_own_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        written(&path);
        let bytes = fs::read(&path).unwrap();
        let differ = bytes.iter().zip(FIXTURE).position(|(ours, theirs)| ours != theirs);
        assert_eq!((differ, bytes.len()), (None, FIXTURE.len()));
    }

    #[test]
    fn the_check_is_castagnolis() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn it_is_cut_back_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        written(&path);
        let whole = fs::read(&path).unwrap();
        for (step, torn) in [(70_000, 3), (69_999, 0)] {
            fs::write(&path, &whole[..whole.len() - torn]).unwrap();
            let mut events = Events::open(&path, step, 9.0).unwrap();
            events.numbers(5.0, 70_000, &[("loss", f64::NAN)]).unwrap();
            assert!(fs::read(&path).unwrap() == whole, "{step}");
        }
        Events::open(&path, 299, 9.0).unwrap().numbers(3.5, 300, &[("heldout_loss", 0.03125)]).unwrap();
        assert!(whole.starts_with(&fs::read(&path).unwrap()));
        // What is no event file is begun anew.
        fs::write(&path, "something else").unwrap();
        Events::open(&path, 9, 1.5).unwrap();
        assert!(FIXTURE.starts_with(&fs::read(&path).unwrap()));
    }
}
