//! A model with its weights widened to single precision, where nobody rounds activations.

use plumb_engine::{LoadOptions, Model, PackFile};
use plumb_gguf::writer::GgufWriter;
use plumb_gguf::{BlockType, Gguf, TensorInfo, Value, dequant};
use std::path::Path;
use std::sync::Arc;

/// Loads the file at `path` with every tensor as `f32`.
pub fn load(path: &Path) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    let wide = folder.path().join("wide.gguf");
    write(&Gguf::open(path).unwrap(), &wide);
    Model::load(&wide, &LoadOptions { pack_file: PackFile::None }).unwrap()
}

fn write(gguf: &Gguf, to: &Path) {
    let mut file = GgufWriter::new(gguf.architecture());
    let own = format!("{}.", gguf.architecture());
    for key in gguf.keys().filter(|key| key.starts_with(&own)) {
        match gguf.meta(key).unwrap() {
            Value::Int(value) => file.u32(key, value.try_into().unwrap()),
            Value::Float(value) => file.f32(key, value as f32),
            Value::Bool(value) => file.bool(key, value),
            other => panic!("{key} is {other:?}"),
        };
    }
    for tensor in gguf.tensors() {
        file.tensor(&tensor.name, &tensor.dims, BlockType::F32, &widened(gguf, tensor));
    }
    file.write(to).unwrap();
}

fn widened(gguf: &Gguf, tensor: &TensorInfo) -> Vec<u8> {
    let mut row = vec![0.0; tensor.dims[0]];
    let rows = gguf.data(tensor).chunks_exact(tensor.ty.row_bytes(row.len()).unwrap());
    let mut out = Vec::with_capacity(4 * tensor.elements());
    for bytes in rows {
        dequant::row(tensor.ty, bytes, &mut row);
        out.extend(row.iter().flat_map(|x| x.to_le_bytes()));
    }
    out
}
