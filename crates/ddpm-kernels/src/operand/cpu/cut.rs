use std::ops::Range;

/// Most images of a task.
const IMAGES: usize = 8;

/// How images and their rows are cut into tasks: rows of one image, or some whole images. No bit of an element depends on it;
/// sums over rows depend on the rows of a part, a matter of one image's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    n: usize,
    height: usize,
    images: usize,
    rows: usize,
}

impl Cut {
    /// Tasks of one image's rows, at most `rows` each.
    pub(crate) fn by_rows(n: usize, height: usize, rows: usize) -> Self {
        Self { n, height, images: 1, rows: rows.clamp(1, height.max(1)) }
    }

    /// Tasks of about `least` units of work, where a row is `row_work`: nearly equal parts of an image, or a few images.
    pub(crate) fn by_work(n: usize, height: usize, row_work: usize, least: usize) -> Self {
        let image = (height * row_work).max(1);
        let parts = image.div_ceil(least).clamp(1, height.max(1));
        let images = if parts > 1 { 1 } else { (least / image).clamp(1, IMAGES) };
        Self { n, height, images, rows: height.div_ceil(parts).max(1) }
    }

    /// Parts of an image.
    pub(crate) fn parts(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    pub(crate) fn tasks(&self) -> usize {
        self.n.div_ceil(self.images) * self.parts()
    }

    /// Images and part of a task; several images are whole, so that they follow each other in memory.
    pub(crate) fn task(&self, task: usize) -> (Range<usize>, usize) {
        let first = task / self.parts() * self.images;
        (first..(first + self.images).min(self.n), task % self.parts())
    }

    /// Rows of a part.
    pub(crate) fn rows_of(&self, part: usize) -> Range<usize> {
        part * self.rows..((part + 1) * self.rows).min(self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_every_image_is_in_one_task() {
        for n in [1, 2, 7, 16] {
            for height in [1, 3, 8, 17] {
                for cut in
                    [Cut::by_rows(n, height, 4), Cut::by_work(n, height, 10, 25), Cut::by_work(n, height, 1, 100)]
                {
                    let mut seen = vec![0; n * height];
                    for task in 0..cut.tasks() {
                        let (images, part) = cut.task(task);
                        assert!(images.len() == 1 || cut.rows_of(part) == (0..height), "{cut:?}");
                        for image in images {
                            cut.rows_of(part).for_each(|row| seen[image * height + row] += 1);
                        }
                    }
                    assert!(seen.iter().all(|&count| count == 1), "{cut:?}");
                }
            }
        }
    }
}
