use super::plain::Arithmetic;
use super::*;
use crate::testing::values;

/// Random bits of bf16, with denormals, zeros and large numbers among them, none infinite.
fn numbers(stream: u64, len: usize) -> Vec<u16> {
    values::<f32>(stream, len)
        .iter()
        .enumerate()
        .map(|(i, v)| match i % 37 {
            0 => 0,
            1 => 0x8000,
            2 => 0x0012,
            3 => ((v * 1e-20).to_bits() >> 16) as u16,
            4 => ((v * 1e15).to_bits() >> 16) as u16,
            5 => ((v * 1e-38).to_bits() >> 16) as u16,
            _ => (v.to_bits() >> 16) as u16,
        })
        .collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
#[allow(clippy::print_stderr)] // says what was not tested
fn plain_code_has_the_bits_of_the_units() {
    let isas = ddpm_tensor::Isa::all();
    let amx = isas.iter().any(|isa| isa.name() == "amx");
    let dots = isas.iter().any(|isa| isa.name() == "avx512" && isa.multiplies_bf16());
    // rows of 5 tiles' width, of which steps take three; low parts after the high ones
    let usual = [1, 2].map(|stream| numbers(stream, 4 * 6 * TILE_BYTES / 2));
    // products about the smallest normal number, denormals among operands and results
    let tiny = [4, 5].map(|stream| {
        let values = values::<f32>(stream, 4 * 6 * TILE_BYTES / 2);
        values.iter().enumerate().map(|(i, v)| ((v * [1e-19, 1e-39][i % 9 / 8]).to_bits() >> 16) as u16).collect()
    });
    for ([a, b], size) in [(usual, 1.0), (tiny, 1e-38)] {
        let a: Vec<u16> = a;
        if amx {
            for products in [Products::Split, Products::Rounded] {
                bits_agree([Unit::Amx, Unit::Plain(Arithmetic::Tiles)], products, &a, &b, size);
            }
        } else {
            eprintln!("skipped: this machine has no AMX");
        }
        if dots {
            bits_agree([Unit::Dot, Unit::Plain(Arithmetic::Dots)], Products::Rounded, &a, &b, size);
        } else {
            eprintln!("skipped: this machine's AVX-512 has no operations on bf16");
        }
    }
}

/// For blocks of every size, over results of about `size`.
#[cfg(target_arch = "x86_64")]
fn bits_agree(units: [Unit; 2], products: Products, a: &[u16], b: &[u16], size: f32) {
    {
        for (rows, columns) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            for add in [false, true] {
                let results = units.map(|unit| {
                    let mut out = values::<f32>(3, 32 * 40);
                    for x in &mut out {
                        *x *= size;
                    }
                    let block = Block {
                        a: a.as_ptr().cast(),
                        a_row: 5 * 64,
                        a_tile: 16 * 5 * 64,
                        a_low: 32 * 5 * 64,
                        b: b.as_ptr().cast(),
                        b_tile: TILE_BYTES,
                        b_low: 2 * TILE_BYTES,
                        out: out.as_mut_ptr(),
                        out_row: 40,
                        rows,
                        columns,
                    };
                    let steps = [Step { a: 0, b: 0 }, Step { a: 130, b: 4 * TILE_BYTES }, Step { a: 256, b: 8192 }];
                    // SAFETY: all of it lies in the vectors above.
                    unsafe { unit.tiles(products).run(&steps, block, add) };
                    out
                });
                let differs = (0..results[0].len()).find(|&i| results[0][i].to_bits() != results[1][i].to_bits());
                if let Some(i) = differs {
                    panic!(
                        "{products:?} {rows}x{columns} add {add}: element {i} is {:e}, in plain code {:e}",
                        results[0][i], results[1][i]
                    );
                }
            }
        }
    }
}
