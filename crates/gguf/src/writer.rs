//! Writes GGUF 3 files: small ones, held in memory, for tests and tools.

use crate::{BlockType, ValueType};
use std::io::Write as _;

const ALIGNMENT: usize = 32;

/// Gathers metadata and tensors; [`GgufWriter::to_bytes`] lays the file out.
#[derive(Debug, Default)]
pub struct GgufWriter {
    keys: Vec<u8>,
    key_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl GgufWriter {
    /// An empty file of an architecture.
    pub fn new(architecture: &str) -> Self {
        let mut writer = Self::default();
        writer.string("general.architecture", architecture);
        writer
    }

    fn key(&mut self, key: &str, ty: ValueType) {
        put_string(&mut self.keys, key.as_bytes());
        self.keys.extend((ty as u32).to_le_bytes());
        self.key_count += 1;
    }

    /// Adds a string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key, ValueType::String);
        put_string(&mut self.keys, value.as_bytes());
        self
    }

    /// Adds a 32-bit unsigned integer.
    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.key(key, ValueType::U32);
        self.keys.extend(value.to_le_bytes());
        self
    }

    /// Adds a single-precision number.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.key(key, ValueType::F32);
        self.keys.extend(value.to_le_bytes());
        self
    }

    /// Adds a boolean.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key, ValueType::Bool);
        self.keys.push(value.into());
        self
    }

    /// Adds an array of strings.
    pub fn strings<S: AsRef<[u8]>>(&mut self, key: &str, values: &[S]) -> &mut Self {
        self.array(key, ValueType::String, values.len());
        for value in values {
            put_string(&mut self.keys, value.as_ref());
        }
        self
    }

    /// Adds an array of 32-bit signed integers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        self.array(key, ValueType::I32, values.len());
        self.keys.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Adds an array of single-precision numbers.
    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        self.array(key, ValueType::F32, values.len());
        self.keys.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    fn array(&mut self, key: &str, ty: ValueType, len: usize) {
        self.key(key, ValueType::Array);
        self.keys.extend((ty as u32).to_le_bytes());
        self.keys.extend((len as u64).to_le_bytes());
    }

    /// Adds a tensor; `dims[0]` is the row's length, `bytes` the blocks of all rows.
    pub fn tensor(&mut self, name: &str, dims: &[usize], ty: BlockType, bytes: &[u8]) -> &mut Self {
        put_string(&mut self.tensors, name.as_bytes());
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|&d| (d as u64).to_le_bytes()));
        self.tensors.extend(ty.id().to_le_bytes());
        pad(&mut self.data);
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(bytes);
        self.tensor_count += 1;
        self
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = self.before_data();
        file.extend(&self.data);
        file
    }

    fn before_data(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.key_count.to_le_bytes());
        file.extend(&self.keys);
        file.extend(&self.tensors);
        pad(&mut file);
        file
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&self, path: &std::path::Path) -> std::io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        file.write_all(&self.before_data())?;
        file.write_all(&self.data)
    }
}

fn put_string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}
