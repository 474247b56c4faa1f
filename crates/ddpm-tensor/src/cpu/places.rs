use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The least number of lines of a slab: 64 MB.
const SLAB: usize = 1 << 20;

/// The books of memory that is handed out in pieces: which lines are taken, in slabs of consecutive ones.
///
/// A piece comes from the smallest gap that holds it; where none does, lines are touched that never were. So as few lines as
/// possible are touched, and which ones follows from the order of requests alone.
#[derive(Default)]
pub(super) struct Places {
    slabs: Vec<Slab>,
    /// Free lines among those touched: the length of each gap by its start; neighbours are merged.
    gaps: BTreeMap<usize, usize>,
    /// The same as (length, start).
    by_length: BTreeSet<(usize, usize)>,
}

/// Consecutive lines. The next slab begins behind an unused line, so that no gap spans two.
struct Slab {
    lines: Range<usize>,
    /// Where lines begin that were never handed out.
    untouched: usize,
}

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of its slab.
    pub(super) slab: usize,
    /// Its first line in that slab.
    pub(super) line: usize,
    start: usize,
    lines: usize,
}

impl Places {
    /// Takes `lines`, at least one. Where the last slab has no room for them, a new one is entered: see [`slab_lines`](Self::slab_lines).
    pub(super) fn take(&mut self, lines: usize) -> Place {
        if let Some(&(length, start)) = self.by_length.range((lines, 0)..).next() {
            self.close(start, length);
            if length > lines {
                self.open(start + lines, length - lines);
            }
            return self.place(start, lines);
        }
        let start = self.extend(lines).unwrap_or_else(|| {
            let start = self.slabs.last().map_or(0, |slab| slab.lines.end + 1);
            let length = lines.max(SLAB).max(self.slabs.iter().map(|slab| slab.lines.len()).sum::<usize>() / 4);
            self.slabs.push(Slab { lines: start..start + length, untouched: start + lines });
            start
        });
        self.place(start, lines)
    }

    /// Lengthens the last touched gap of the last slab to `lines`.
    fn extend(&mut self, lines: usize) -> Option<usize> {
        let slab = self.slabs.last_mut()?;
        let gap = self.gaps.range(slab.lines.clone()).next_back().map(|(&start, &length)| (start, length));
        let gap = gap.filter(|&(start, length)| start + length == slab.untouched);
        let start = gap.map_or(slab.untouched, |(start, _)| start);
        if start + lines > slab.lines.end {
            return None;
        }
        slab.untouched = start + lines;
        if let Some((start, length)) = gap {
            self.close(start, length);
        }
        Some(start)
    }

    /// Gives lines back.
    pub(super) fn give_back(&mut self, place: Place) {
        let (mut start, mut length) = (place.start, place.lines);
        if let Some((&before, &its)) = self.gaps.range(..start).next_back()
            && before + its == start
        {
            self.close(before, its);
            (start, length) = (before, length + its);
        }
        if let Some(&its) = self.gaps.get(&(start + length)) {
            self.close(start + length, its);
            length += its;
        }
        self.open(start, length);
    }

    fn place(&self, start: usize, lines: usize) -> Place {
        let slab = self.slabs.partition_point(|slab| slab.lines.start <= start) - 1;
        Place { slab, line: start - self.slabs[slab].lines.start, start, lines }
    }

    fn open(&mut self, start: usize, length: usize) {
        self.gaps.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn close(&mut self, start: usize, length: usize) {
        self.gaps.remove(&start);
        self.by_length.remove(&(length, start));
    }

    /// How many lines each slab has.
    pub(super) fn slab_lines(&self) -> impl ExactSizeIterator<Item = usize> {
        self.slabs.iter().map(|slab| slab.lines.len())
    }

    /// How many lines were ever handed out.
    pub(super) fn touched(&self) -> usize {
        self.slabs.iter().map(|slab| slab.untouched - slab.lines.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_gap_serves_and_neighbours_merge() {
        let mut places = Places::default();
        let [a, b, c, d, e] = [10, 1, 20, 1, 5].map(|lines| places.take(lines));
        assert_eq!([a, b, c, d, e].map(|place| place.line), [0, 10, 11, 31, 32]);
        places.give_back(a);
        places.give_back(c);
        assert_eq!(places.take(8).line, 0, "ten lines were free, and twenty");
        assert_eq!(places.take(15).line, 11);
        assert_eq!(places.touched(), 37);
        places.give_back(e);
        assert_eq!(places.take(7).line, 32, "five free lines at the end are lengthened");
        assert_eq!(places.touched(), 39);
        places.give_back(b);
        assert_eq!(places.take(3).line, 8, "two lines and one");
        assert_eq!(places.touched(), 39);
    }

    #[test]
    fn what_does_not_fit_gets_a_slab() {
        let mut places = Places::default();
        let first = places.take(SLAB - 5);
        let second = places.take(6);
        assert_eq!((first.slab, second.slab, second.line), (0, 1, 0));
        let third = places.take(3 * SLAB);
        assert_eq!((third.slab, third.line), (2, 0));
        assert_eq!(places.slab_lines().collect::<Vec<_>>(), [SLAB, SLAB, 3 * SLAB]);
        for place in [first, second, third] {
            places.give_back(place);
        }
        assert_eq!(places.take(SLAB).slab, 2);
    }

    #[test]
    fn no_gap_spans_two_slabs() {
        let mut places = Places::default();
        let full = [places.take(SLAB), places.take(SLAB)];
        assert_eq!(full.map(|place| place.slab), [0, 1]);
        for place in full {
            places.give_back(place);
        }
        assert_eq!(places.take(SLAB + 1).slab, 2);
    }

    proptest! {
        #[test]
        fn no_two_pieces_share_a_line_and_all_come_back(wanted in proptest::collection::vec((1_usize..60, any::<bool>(), any::<u8>()), 1..200)) {
            let mut places = Places::default();
            let mut held: Vec<Place> = Vec::new();
            for (lines, give, which) in wanted {
                if give && !held.is_empty() {
                    places.give_back(held.swap_remove(usize::from(which) % held.len()));
                } else {
                    let new = places.take(lines);
                    let apart = held.iter().all(|p| p.start + p.lines <= new.start || new.start + lines <= p.start);
                    prop_assert!(apart, "{new:?} among {held:?}");
                    held.push(new);
                }
            }
            held.drain(..).for_each(|place| places.give_back(place));
            let touched = places.touched();
            prop_assert_eq!(places.gaps.values().sum::<usize>(), touched);
            prop_assert_eq!(places.gaps.len(), 1);
            prop_assert_eq!(places.by_length.len(), 1);
        }
    }
}
