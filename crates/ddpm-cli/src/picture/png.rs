//! PNG files that say what they were made with.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};

use super::Picture;

/// What a picture says about itself: keywords and texts.
pub(crate) type Text = Vec<(String, String)>;

/// Writes a picture; it appears under its name only when it is complete.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, picture: &Picture, text: &[(String, String)]) -> Result<()> {
    appear(path, |file| {
        let mut encoder = png::Encoder::new(BufWriter::new(file), picture.width as u32, picture.height as u32);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_color(match picture.channels {
            1 => png::ColorType::Grayscale,
            2 => png::ColorType::GrayscaleAlpha,
            3 => png::ColorType::Rgb,
            _ => png::ColorType::Rgba,
        });
        for (keyword, value) in text {
            // Latin-1 is what every reader of PNG text knows; the rest of Unicode has a chunk of its own.
            if value.chars().all(|c| (c as u32) < 256) {
                encoder.add_text_chunk(keyword.clone(), value.clone())?;
            } else {
                encoder.add_itxt_chunk(keyword.clone(), value.clone())?;
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&picture.pixels)?;
        writer.finish()?;
        Ok(())
    })
}

/// Reads what a PNG says about itself.
///
/// # Errors
/// When it cannot be read or is no PNG.
pub(crate) fn read_text(path: &Path) -> Result<Text> {
    let file = File::open(path)?;
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().context("this is no PNG")?;
    // Text may also stand behind the pixels.
    reader.finish().context("this PNG is damaged")?;
    let info = reader.info();
    let mut text: Text = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        text.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.utf8_text {
        text.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    Ok(text)
}

/// Writes a file beside `path` and moves it there once it is whole.
///
/// # Errors
/// Those of `write`, and of the file system.
pub(crate) fn appear(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let name = path.file_name().context("this is no file name")?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let aside = folder.join(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
    let result = File::create(&aside).map_err(anyhow::Error::from).and_then(|mut file| {
        write(&mut file)?;
        file.flush()?;
        Ok(())
    });
    let result = result.and_then(|()| fs::rename(&aside, path).map_err(Into::into));
    if result.is_err() {
        // Best effort: the reason that is told is the first one.
        let _ = fs::remove_file(&aside);
    }
    result
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_tells_what_it_was_made_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/x.png");
        let text = vec![("seed".to_owned(), "7".to_owned()), ("model".to_owned(), "модель".to_owned())];
        for channels in 1..=4 {
            let picture = Picture::filled(5, 3, &[9, 8, 7, 6][..channels]);
            write(&path, &picture, &text).unwrap();
            assert_eq!(read_text(&path).unwrap(), text);
            let decoded = image::open(&path).unwrap();
            assert_eq!((decoded.width(), decoded.height()), (5, 3));
            assert_eq!(decoded.as_bytes(), picture.pixels);
        }
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing unfinished stays: {left:?}");
    }

    #[test]
    fn what_is_no_png_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        fs::write(&path, b"junk").unwrap();
        assert!(read_text(&path).is_err());
        write(&path, &Picture::filled(50, 50, &[1]), &[]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        assert!(read_text(&path).is_err());
    }
}
