use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::CpuBuffer;
use crate::Element;

/// What something is made for: a word for the maker, and all that it depends on besides the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// Who makes it.
    pub maker: &'static str,
    /// Sizes, and whatever else differs between two that are made of the same numbers.
    pub sizes: [usize; 4],
}

/// Bytes that are kept for one buffer at most; what is made beyond them is made each time.
const MOST_BYTES: usize = 1 << 30;

/// What was made of a buffer's numbers; it lies in the buffer, so that it goes when they change.
pub(super) struct Kept<T: Element>(Mutex<State<T>>);

struct State<T: Element> {
    /// Who wants things kept.
    holders: usize,
    /// Bytes of what was made.
    bytes: usize,
    made: BTreeMap<(usize, usize, Form), Arc<CpuBuffer<T>>>,
}

impl<T: Element> Kept<T> {
    pub(super) fn nothing() -> Self {
        Self(Mutex::new(State { holders: 0, bytes: 0, made: BTreeMap::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn freeze(&self) {
        self.state().holders += 1;
    }

    pub(super) fn thaw(&self) {
        let mut state = self.state();
        state.holders = state.holders.saturating_sub(1);
        if state.holders == 0 {
            state.forget();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.state().bytes / size_of::<T>()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.state().holders > 0
    }

    pub(super) fn get(&self, of: &Range<usize>, form: Form, make: impl FnOnce() -> CpuBuffer<T>) -> Arc<CpuBuffer<T>> {
        let key = (of.start, of.end, form);
        if let Some(found) = self.state().made.get(&key) {
            return Arc::clone(found);
        }
        // made without the lock: threads that help may ask for other things meanwhile
        let made = Arc::new(make());
        let mut state = self.state();
        let bytes = state.bytes + made.len() * size_of::<T>();
        if state.holders > 0 && bytes <= MOST_BYTES && state.made.insert(key, Arc::clone(&made)).is_none() {
            state.bytes = bytes;
        }
        drop(state);
        made
    }

    /// The numbers are about to change.
    pub(super) fn clear(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !state.made.is_empty() {
            state.forget();
        }
    }
}

impl<T: Element> State<T> {
    fn forget(&mut self) {
        self.made.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuOptions, Frozen};

    /// How often something was made of some numbers: what is made is their sum.
    struct Maker {
        cpu: Cpu<f32>,
        times: std::cell::Cell<usize>,
    }

    impl Maker {
        fn sum(&self, of: &CpuBuffer<f32>, range: Range<usize>, maker: &'static str) -> f32 {
            let made = of.made_of(range.clone(), Form { maker, sizes: [0; 4] }, || {
                self.times.set(self.times.get() + 1);
                let mut sum = self.cpu.scratch(1);
                sum[0] = of[range].iter().sum();
                sum
            });
            made[0]
        }
    }

    #[test]
    fn what_is_made_of_frozen_numbers_is_made_once_and_never_out_of_date() {
        let maker = Maker { cpu: Cpu::new(CpuOptions::default()).unwrap(), times: 0.into() };
        let mut numbers = maker.cpu.zeroed(4);
        numbers.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        for _ in 0..2 {
            assert_eq!(maker.sum(&numbers, 0..3, "a"), 6.0);
        }
        assert_eq!(maker.times.get(), 2, "nothing is kept of what is not frozen");
        let frozen = Frozen::<Cpu<f32>>::new(&numbers);
        let again = Frozen::<Cpu<f32>>::new(&numbers);
        for _ in 0..2 {
            assert_eq!(maker.sum(&numbers, 0..3, "a"), 6.0);
            assert_eq!(maker.sum(&numbers, 1..3, "a"), 5.0);
            assert_eq!(maker.sum(&numbers, 0..3, "b"), 6.0);
        }
        assert_eq!(maker.times.get(), 2 + 3, "each range and form once");
        drop(again);
        assert_eq!(maker.sum(&numbers, 0..3, "a"), 6.0);
        assert_eq!(maker.times.get(), 5, "still frozen once");
        drop(frozen);
        assert_eq!(maker.sum(&numbers, 0..3, "a"), 6.0);
        assert_eq!(maker.times.get(), 6);

        // even where the promise is leaked
        #[allow(clippy::mem_forget)]
        std::mem::forget(Frozen::<Cpu<f32>>::new(&numbers));
        assert_eq!(maker.sum(&numbers, 0..3, "a"), 6.0);
        numbers[0] = 10.0;
        assert_eq!(maker.sum(&numbers, 0..3, "a"), 15.0);
    }

    #[test]
    fn memory_of_what_was_kept_comes_back() {
        let cpu = Cpu::<f32>::new(CpuOptions::default()).unwrap();
        let numbers = cpu.zeroed(16);
        let make = || cpu.scratch(1000);
        let form = Form { maker: "a", sizes: [0; 4] };
        drop(numbers.made_of(0..16, form, make));
        let before = cpu.peak_bytes();
        let frozen = Frozen::<Cpu<f32>>::new(&numbers);
        drop(numbers.made_of(0..16, form, make));
        assert_eq!(cpu.peak_bytes(), before);
        drop(cpu.scratch(1000));
        assert!(cpu.peak_bytes() > before, "it is held");
        let before = cpu.peak_bytes();
        drop(frozen);
        drop([cpu.scratch(1000), cpu.scratch(1000)]);
        assert_eq!(cpu.peak_bytes(), before);
    }
}
