//! How fast the matrix kernels are, against what one core can do.
//!
//! `cargo run --release -p plumb-engine --example kernels [-- --json] [-- --isa NAME] [-- --cpu N]`
//!
//! Two limits are measured in the same run: multiply-accumulates of bytes in registers alone, and a
//! sum over memory that is too big for the caches. Each figure is the best of many short runs, in time
//! of the thread, since whatever else runs on the machine only ever slows a run down.

mod limits;

use plumb_engine::kernels::matmul::{ALIGN, Activations, Input, Isa, Output, Packed, Shape};
use plumb_engine::kernels::matmul::{matmul, pack};
use plumb_gguf::BlockType;
use std::time::Duration;

/// Columns and rows of `SmolLM2`'s feed-forward matrix.
const GEMM: (usize, usize) = (576, 1536);
/// Weights that no cache holds.
const STREAM_BYTES: usize = 96 << 20;
const STREAM_BATCHES: [usize; 6] = [1, 2, 4, 8, 12, 16];
const GEMM_BATCHES: [usize; 3] = [8, 64, 512];

struct Line {
    ty: BlockType,
    what: &'static str,
    batch: usize,
    gmacs: f64,
    gbytes: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)
    };
    if let Some(cpu) = value("--cpu") {
        limits::pin(cpu.parse()?)?;
    }
    let isa = value("--isa").map_or_else(Isa::choose, |name| Isa::named(name))?;
    let types: Vec<BlockType> = BlockType::ALL
        .into_iter()
        .filter(|ty| value("--type").is_none_or(|name| *name == ty.to_string()))
        .collect();
    let (peak, stream) = (limits::int8_peak(isa), limits::read_bandwidth(STREAM_BYTES));
    let mut lines = Vec::new();
    for ty in types {
        let (cols, rows) = GEMM;
        // 768 columns where rows must be whole blocks of 256.
        let cols = cols.next_multiple_of(ty.block_len());
        lines.extend(measure(isa, ty, rows, cols, "cached", &GEMM_BATCHES)?);
        let row_bytes = Shape::new(ty, 16, cols)?.packed_bytes() / 16;
        let rows = STREAM_BYTES / row_bytes / 16 * 16;
        lines.extend(measure(isa, ty, rows, cols, "streamed", &STREAM_BATCHES)?);
    }
    if arguments.iter().any(|a| a == "--json") {
        print_json(isa, peak, stream, &lines);
    } else {
        print_table(isa, peak, stream, &lines);
    }
    Ok(())
}

fn measure(
    isa: Isa,
    ty: BlockType,
    rows: usize,
    cols: usize,
    what: &'static str,
    batches: &[usize],
) -> Result<Vec<Line>, Box<dyn std::error::Error>> {
    let shape = Shape::new(ty, rows, cols)?;
    let mut buffer = vec![0; shape.packed_bytes() + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN);
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
        let seconds = limits::best(|| {
            // SAFETY: one thread; the buffers are ours.
            unsafe { matmul(isa, &packed, &input, &output, 0..shape.strips()) };
        });
        let gmacs = shape.macs() as f64 * batch as f64 / seconds / 1e9;
        let gbytes = shape.packed_bytes() as f64 / seconds / 1e9;
        lines.push(Line { ty, what, batch, gmacs, gbytes });
    }
    Ok(lines)
}

fn print_table(isa: Isa, peak: f64, stream: f64, lines: &[Line]) {
    println!("kernels {}; int8 peak {peak:.1} GMAC/s; memory {stream:.1} GB/s", isa.name());
    println!("| type | weights | rows | GMAC/s | of peak | GB/s | of memory |");
    println!("|---|---|---|---|---|---|---|");
    for line in lines {
        println!(
            "| {} | {} | {} | {:.1} | {:.0} % | {:.1} | {:.0} % |",
            line.ty,
            line.what,
            line.batch,
            line.gmacs,
            100.0 * line.gmacs / peak,
            line.gbytes,
            100.0 * line.gbytes / stream
        );
    }
}

fn print_json(isa: Isa, peak: f64, stream: f64, lines: &[Line]) {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            format!(
                r#"{{"type":"{}","weights":"{}","rows":{},"gmac_s":{:.2},"gb_s":{:.2}}}"#,
                line.ty, line.what, line.batch, line.gmacs, line.gbytes
            )
        })
        .collect();
    println!(
        r#"{{"kernels":"{}","int8_peak_gmac_s":{peak:.2},"memory_gb_s":{stream:.2},"lines":[{}]}}"#,
        isa.name(),
        lines.join(",")
    );
}

/// How long one kind of run is repeated for.
const PATIENCE: Duration = Duration::from_millis(500);
