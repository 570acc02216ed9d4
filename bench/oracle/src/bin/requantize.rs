//! `requantize IN OUT TYPE [--pure]`: a model with its matrices in another type.

use anyhow::{Result, bail};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [from, to, ty] => plumb_oracle::requantize(Path::new(from), Path::new(to), ty, false),
        [from, to, ty, "--pure"] => {
            plumb_oracle::requantize(Path::new(from), Path::new(to), ty, true)
        }
        _ => bail!("usage: requantize IN OUT TYPE [--pure]"),
    }
}
