//! A panel's product in f32 with AVX-512 or AVX2: a tile of C stays in registers while k runs.

use super::Job;

/// Defines `run` for one instruction set: tiles of at most `$rows` rows and two vectors of columns.
macro_rules! engine {
    (
        $name:ident, $features:literal, $vector:ident, $lanes:literal, rows $rows:literal [$($m:literal)*],
        $zero:ident, $broadcast:ident, $load:ident, $store:ident, $fma:ident, $sum:ident
    ) => {
        pub(super) mod $name {
            use std::arch::x86_64::*;

            use super::Job;

            const LANES: usize = $lanes;
            /// Columns of a panel.
            pub(in super::super) const COLUMNS: usize = 2 * LANES;
            const ROWS: usize = $rows;

            /// What [`Job`] says.
            ///
            /// # Safety
            /// The machine must have the instruction set; `a` must hold m rows and k columns, `panel` k rows of
            /// [`COLUMNS`], and `c` m rows of `columns`.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn run(job: &Job<'_, f32>, c: &mut [f32]) {
                let mut spare = [0.0; ROWS * COLUMNS];
                for first in (0..job.m).step_by(ROWS) {
                    let rows = ROWS.min(job.m - first);
                    // a narrow panel goes through `spare`: whole vectors would be stored past the row's end
                    let narrow = job.columns < COLUMNS;
                    let (to, stride) =
                        if narrow { (spare.as_mut_ptr(), COLUMNS) } else { (c[first * job.c_row..].as_mut_ptr(), job.c_row) };
                    // SAFETY: a's rows `first..first + rows` and all its k are in its slice, the panel has k rows; `to`
                    // has `rows` rows of whole vectors, in `spare` or, since the panel is not narrow, in `c`.
                    unsafe {
                        let a = job.a.as_ptr().add(first * job.a_row);
                        match rows {
                            $($m => tile::<$m>(job, a, to, stride, job.add && !narrow),)*
                            _ => tile::<ROWS>(job, a, to, stride, job.add && !narrow),
                        }
                    }
                    if narrow {
                        for (i, sums) in spare.chunks_exact(COLUMNS).take(rows).enumerate() {
                            let row = &mut c[(first + i) * job.c_row..][..job.columns];
                            for (c, &sum) in row.iter_mut().zip(sums) {
                                *c = if job.add { *c + sum } else { sum };
                            }
                        }
                    }
                }
            }

            /// # Safety
            /// As for [`run`]; `a` points to M rows, `c` to M rows of whole vectors.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn tile<const M: usize>(job: &Job<'_, f32>, a: *const f32, c: *mut f32, c_row: usize, add: bool) {
                let mut sums = [[$zero(); 2]; M];
                let mut b = job.panel.as_ptr();
                let mut a = a;
                for _ in 0..job.k {
                    // SAFETY: k rows of the panel, k columns of a.
                    unsafe {
                        let b_vectors = [$load(b), $load(b.add(LANES))];
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let a: $vector = $broadcast(*a.add(i * job.a_row));
                            sums[0] = $fma(a, b_vectors[0], sums[0]);
                            sums[1] = $fma(a, b_vectors[1], sums[1]);
                        }
                        b = b.add(COLUMNS);
                        a = a.wrapping_add(job.a_column); // may leave the slice after the last k
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (j, &sum) in sums.iter().enumerate() {
                        // SAFETY: within the M rows of c.
                        unsafe {
                            let to = c.add(i * c_row + j * LANES);
                            $store(to, if add { $sum($load(to), sum) } else { sum });
                        }
                    }
                }
            }
        }
    };
}

engine!(
    avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", __m512, 16, rows 12 [1 2 3 4 5 6 7 8 9 10 11],
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps
);
engine!(
    avx2, "avx2,fma", __m256, 8, rows 6 [1 2 3 4 5],
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_add_ps
);

const _: () = assert!(avx2::COLUMNS == super::portable::COLUMNS, "one width serves both");
