//! Any bytes as a model file: opening never panics, and whatever opens can be read to its end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_fuzz::open;
use plumb_gguf::{Value, dequant};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = open(bytes) else { return };
    for key in gguf.keys() {
        if let Some(Value::Array(array)) = gguf.meta(key) {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    for tensor in gguf.tensors() {
        let row = tensor.dims[0];
        let mut out = vec![0.0; row];
        let bytes = tensor.ty.row_bytes(row).unwrap();
        for data in gguf.data(tensor).chunks_exact(bytes) {
            dequant::row(tensor.ty, data, &mut out);
        }
    }
});
