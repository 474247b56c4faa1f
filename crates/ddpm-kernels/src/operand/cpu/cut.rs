use std::ops::Range;

/// How images and their rows are cut into tasks: a part of one image each, or some whole images.
///
/// Sums over rows are sums of parts, which are a matter of one image's shape; tasks only say which parts one thread computes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    n: usize,
    height: usize,
    /// Rows of a part.
    rows: usize,
    /// Whole images of a task; none where a task is a part.
    images: usize,
}

impl Cut {
    /// Tasks of one image's rows, at most `rows` each.
    pub(crate) fn by_rows(n: usize, height: usize, rows: usize) -> Self {
        Self { n, height, rows: rows.clamp(1, height.max(1)), images: 0 }
    }

    /// Tasks of `images` images where parts are whole.
    pub(crate) fn fixed(n: usize, height: usize, rows: usize, images: usize) -> Self {
        Self { images: if rows >= height { images } else { 0 }, ..Self::by_rows(n, height, rows) }
    }

    /// Tasks of at most `images` images, as many for each thread, if there are enough of them; parts of at most `rows` rows.
    pub(crate) fn by_images(n: usize, height: usize, rows: usize, images: usize, threads: usize) -> Self {
        let tasks = n.div_ceil(images.max(1)).max(threads).next_multiple_of(threads.max(1));
        let images = if n < threads { 0 } else { n.div_ceil(tasks) };
        Self { images, ..Self::by_rows(n, height, rows) }
    }

    /// Parts of an image.
    pub(crate) fn parts(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    pub(crate) fn tasks(&self) -> usize {
        self.n.checked_div(self.images).map_or(self.n * self.parts(), |_| self.n.div_ceil(self.images))
    }

    /// Images and parts of a task; several images are whole, so that their rows follow each other in memory.
    pub(crate) fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let parts = self.parts();
        if self.images == 0 {
            (task / parts..task / parts + 1, task % parts..task % parts + 1)
        } else {
            (task * self.images..((task + 1) * self.images).min(self.n), 0..parts)
        }
    }

    /// Rows of some parts.
    pub(crate) fn rows_of(&self, parts: Range<usize>) -> Range<usize> {
        parts.start * self.rows..(parts.end * self.rows).min(self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_every_image_is_in_one_task() {
        for n in [1, 2, 7, 16] {
            for height in [1, 3, 8, 17] {
                let cuts = [1, 2, 3, 8].map(|threads| Cut::by_images(n, height, 5, 3, threads));
                for cut in cuts.into_iter().chain([Cut::by_rows(n, height, 4)]) {
                    let mut seen = vec![0; n * height];
                    for task in 0..cut.tasks() {
                        let (images, parts) = cut.task(task);
                        assert!(images.len() == 1 || cut.rows_of(parts.clone()) == (0..height), "{cut:?}");
                        for image in images {
                            for part in parts.clone() {
                                cut.rows_of(part..part + 1).for_each(|row| seen[image * height + row] += 1);
                            }
                        }
                    }
                    assert!(seen.iter().all(|&count| count == 1), "{cut:?}");
                }
            }
        }
    }
}
