//! The matrix kernels, by type and number of rows.

use crate::options::Options;
use plumb_engine::kernels::matmul::{ALIGN, Activations, Input, Isa, Output, Packed, Shape};
use plumb_engine::kernels::matmul::{matmul, pack};
use plumb_engine::limits::{self, Limits};
use plumb_gguf::BlockType;
use serde_json::{Value, json};

/// Columns and rows of `SmolLM2`'s feed-forward matrix.
const GEMM: (usize, usize) = (576, 1536);
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
const STREAM_BATCHES: [usize; 6] = [1, 2, 4, 8, 12, 16];
const GEMM_BATCHES: [usize; 4] = [1, 8, 64, 512];

/// Every type and batch, or those of `--type`.
pub fn run(
    options: &Options,
    isa: Isa,
    limits: &Limits,
) -> Result<Value, Box<dyn std::error::Error>> {
    let mut lines = Vec::new();
    for ty in BlockType::ALL {
        if options.ty.as_ref().is_some_and(|name| *name != ty.to_string()) {
            continue;
        }
        let (cols, rows) = GEMM;
        // 768 columns where rows must be whole blocks of 256.
        let cols = cols.next_multiple_of(ty.block_len());
        lines.extend(measure(isa, ty, rows, cols, "cached", &GEMM_BATCHES)?);
        let row_bytes = Shape::new(ty, 16, cols)?.packed_bytes() / 16;
        let rows = limits::STREAM_BYTES / row_bytes / 16 * 16;
        lines.extend(measure(isa, ty, rows, cols, "streamed", &STREAM_BATCHES)?);
    }
    Ok(json!({ "kernels": isa.name(), "limits": crate::limits_json(limits), "lines": lines }))
}

/// The same for people.
pub fn table(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (peak, memory) =
        (number(&report["limits"]["int8_gmac_s"]), number(&report["limits"]["memory_gb_s"]));
    let mut out = format!(
        "kernels {}; int8 peak {peak:.1} GMAC/s; memory {memory:.1} GB/s\n\n\
         | type | weights | rows | GMAC/s | of peak | GB/s | of memory |\n|---|---|---|---|---|---|---|\n",
        report["kernels"]
    );
    for line in report["lines"].as_array().into_iter().flatten() {
        let (gmacs, gbytes) = (number(&line["gmac_s"]), number(&line["gb_s"]));
        let (ty, weights) =
            (line["type"].as_str().unwrap_or(""), line["weights"].as_str().unwrap_or(""));
        out += &format!(
            "| {ty} | {weights} | {} | {gmacs:.1} | {:.0} % | {gbytes:.1} | {:.0} % |\n",
            line["rows"],
            100.0 * gmacs / peak,
            100.0 * gbytes / memory
        );
    }
    out
}

fn measure(
    isa: Isa,
    ty: BlockType,
    rows: usize,
    cols: usize,
    what: &'static str,
    batches: &[usize],
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let shape = Shape::new(ty, rows, cols)?;
    let mut buffer = vec![0; shape.packed_bytes() + ALIGN + HUGE];
    let start = buffer.as_ptr().align_offset(HUGE);
    // Weights lie in huge pages where a pack file does, and as if it did elsewhere.
    // SAFETY: pages of the buffer's own, in which nothing lies yet; advice changes no byte.
    unsafe {
        let first = buffer.as_mut_ptr().add(start).cast();
        rustix::mm::madvise(first, shape.packed_bytes(), rustix::mm::Advice::LinuxHugepage)?;
    }
    let bytes = &mut buffer[start..][..shape.packed_bytes()];
    // Zeros are as slow as other codes, but pages must be written to be there.
    pack(shape, &vec![0; ty.row_bytes(cols).unwrap_or(0) * rows], bytes)?;
    let packed = Packed::from_bytes(shape, bytes)?;
    let mut lines = Vec::new();
    for &batch in batches {
        let floats: Vec<f32> = (0..batch * cols).map(|i| (i % 251) as f32 - 125.0).collect();
        let mut records = vec![0; Activations::bytes(batch, cols) + ALIGN];
        let start = records.as_ptr().align_offset(ALIGN);
        let mut blocks = Activations::over(&mut records[start..], batch, cols)?;
        blocks.quantize(isa, &floats);
        let input = Input { floats: &floats, blocks };
        let mut out = vec![0.0; batch * rows];
        let output = Output::new(&mut out, rows);
        let seconds = limits::quartile(|| {
            // SAFETY: one thread; the buffers are ours.
            unsafe { matmul(isa, &packed, &input, &output, 0..shape.strips()) };
        });
        let gmacs = shape.macs() as f64 * batch as f64 / seconds / 1e9;
        let gbytes = shape.packed_bytes() as f64 / seconds / 1e9;
        lines.push(json!({
            "type": ty.to_string(), "weights": what, "rows": batch, "gmac_s": gmacs, "gb_s": gbytes,
        }));
    }
    Ok(lines)
}
