//! The header, read by a cursor that refuses to leave the file.
//!
//! A hostile header can claim any count: nothing is reserved by what is claimed, only by what was
//! read, so that memory stays within a small multiple of the file's own length.

use crate::block::foreign_name;
use crate::value::{Array, Value, ValueType};
use crate::{BlockType, Error, TensorInfo};
use std::collections::HashMap;
use std::ops::Range;

/// Tensors have at most four dimensions (`GGML_MAX_DIMS`).
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u32 = 32;

/// All that the header says, with ranges into the file.
pub(crate) struct Header {
    pub version: u32,
    pub metadata: Vec<(String, Entry)>,
    pub keys: HashMap<String, usize>,
    pub tensors: Vec<TensorInfo>,
    pub names: HashMap<String, usize>,
    /// Where tensor data begins.
    pub data: usize,
}

/// Where a key's value is.
pub(crate) struct Entry {
    pub ty: ValueType,
    pub range: Range<usize>,
}

pub(crate) fn header(bytes: &[u8]) -> Result<Header, Error> {
    let mut c = Cursor::new(bytes);
    if c.take(4, "the magic").ok() != Some(b"GGUF") {
        return Err(Error::Magic);
    }
    let version = c.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(Error::Version(version));
    }
    let (tensor_count, key_count) = (c.u64("the tensor count")?, c.u64("the key count")?);
    let (mut metadata, mut keys) = (Vec::new(), HashMap::new());
    for _ in 0..key_count {
        let (key, entry) = c.entry()?;
        if keys.insert(key.clone(), metadata.len()).is_some() {
            return Err(Error::Invalid(format!("key `{key}` appears twice")));
        }
        metadata.push((key, entry));
    }
    let alignment = alignment(bytes, &metadata, &keys)?;
    let (mut tensors, mut names) = (Vec::new(), HashMap::new());
    for _ in 0..tensor_count {
        let tensor = c.tensor(alignment)?;
        if names.insert(tensor.name.clone(), tensors.len()).is_some() {
            return Err(Error::Invalid(format!("tensor `{}` appears twice", tensor.name)));
        }
        tensors.push(tensor);
    }
    let data = c.at.next_multiple_of(alignment as usize);
    for tensor in &mut tensors {
        tensor.place(data, bytes.len())?;
    }
    Ok(Header { version, metadata, keys, tensors, names, data })
}

fn alignment(
    bytes: &[u8],
    metadata: &[(String, Entry)],
    keys: &HashMap<String, usize>,
) -> Result<u32, Error> {
    let Some(&at) = keys.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match metadata[at].1.read(bytes) {
        Some(Value::Int(n)) if (1..=1 << 20).contains(&n) && (n as u32).is_power_of_two() => {
            Ok(n as u32)
        }
        _ => Err(Error::Invalid("general.alignment is not a power of two up to 1 MiB".into())),
    }
}

impl Entry {
    /// The value; `bytes` is the file it was found in.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Option<Value<'a>> {
        Cursor::new(bytes.get(self.range.clone())?).value(self.ty).ok()
    }
}

impl TensorInfo {
    /// Turns the offset within the data into one within the file, of `len` bytes.
    fn place(&mut self, data: usize, len: usize) -> Result<(), Error> {
        let start = data.checked_add(self.range.start);
        let end = data.checked_add(self.range.end);
        match (start, end) {
            (Some(start), Some(end)) if end <= len => self.range = start..end,
            _ => return Err(Error::Truncated("a tensor's data")),
        }
        Ok(())
    }
}

/// Reads forward through bytes; every length is checked against what is left.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Error> {
        // Spelt out: a vocabulary comes through here a hundred thousand times.
        let Some(end) = self.at.checked_add(len).filter(|&end| end <= self.bytes.len()) else {
            return Err(Error::Truncated(what));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().unwrap_or([0; N]))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count or length that the rest of the file must be able to hold.
    fn length(&mut self, what: &'static str) -> Result<usize, Error> {
        usize::try_from(self.u64(what)?).map_err(|_| Error::Truncated(what))
    }

    fn string(&mut self, what: &'static str) -> Result<&'a [u8], Error> {
        let len = self.length(what)?;
        self.take(len, what)
    }

    fn name(&mut self, what: &'static str) -> Result<String, Error> {
        let bytes = self.string(what)?.to_vec();
        String::from_utf8(bytes).map_err(|_| Error::Invalid(format!("{what} is not UTF-8")))
    }

    fn value_type(&mut self) -> Result<ValueType, Error> {
        let id = self.u32("a value's type")?;
        ValueType::from_id(id).ok_or_else(|| Error::Invalid(format!("value type {id} is unknown")))
    }

    fn entry(&mut self) -> Result<(String, Entry), Error> {
        let key = self.name("a key")?;
        let ty = self.value_type()?;
        let start = self.at;
        self.value(ty)?;
        Ok((key, Entry { ty, range: start..self.at }))
    }

    pub fn value(&mut self, ty: ValueType) -> Result<Value<'a>, Error> {
        use ValueType as T;
        let what = "a metadata value";
        Ok(match ty {
            T::U8 => Value::Int(u8::from_le_bytes(self.array(what)?).into()),
            T::I8 => Value::Int(i8::from_le_bytes(self.array(what)?).into()),
            T::U16 => Value::Int(u16::from_le_bytes(self.array(what)?).into()),
            T::I16 => Value::Int(i16::from_le_bytes(self.array(what)?).into()),
            T::U32 => Value::Int(u32::from_le_bytes(self.array(what)?).into()),
            T::I32 => Value::Int(i32::from_le_bytes(self.array(what)?).into()),
            T::U64 => Value::Int(u64::from_le_bytes(self.array(what)?).into()),
            T::I64 => Value::Int(i64::from_le_bytes(self.array(what)?).into()),
            T::F32 => Value::Float(f32::from_le_bytes(self.array(what)?).into()),
            T::F64 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            T::Bool => Value::Bool(self.array::<1>(what)? != [0]),
            T::String => Value::String(self.string(what)?),
            T::Array => Value::Array(self.values()?),
        })
    }

    /// An array: its elements are walked, so that reading them again cannot fail.
    fn values(&mut self) -> Result<Array<'a>, Error> {
        let what = "a metadata array";
        let ty = self.value_type()?;
        let len = self.length(what)?;
        let start = self.at;
        match ty.fixed_bytes() {
            Some(size) => {
                self.take(len.checked_mul(size).ok_or(Error::Truncated(what))?, what)?;
            }
            None if ty == ValueType::Array => {
                return Err(Error::Invalid("arrays of arrays are not supported".into()));
            }
            None => {
                for _ in 0..len {
                    self.string(what)?;
                }
            }
        }
        Ok(Array { ty, len, bytes: &self.bytes[start..self.at] })
    }

    /// A tensor whose range is still relative to the start of the data.
    fn tensor(&mut self, alignment: u32) -> Result<TensorInfo, Error> {
        let what = "the tensor table";
        let name = self.name("a tensor's name")?;
        let n_dims = self.u32(what)?;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            return Err(Error::Invalid(format!("tensor `{name}` has {n_dims} dimensions")));
        }
        let dims = (0..n_dims).map(|_| self.length(what)).collect::<Result<Vec<usize>, Error>>()?;
        let id = self.u32(what)?;
        let Some(ty) = BlockType::from_id(id) else {
            return Err(Error::TensorType { tensor: name, ty: foreign_name(id) });
        };
        let offset = self.length(what)?;
        if !offset.is_multiple_of(alignment as usize) {
            return Err(Error::Invalid(format!("tensor `{name}` is not aligned")));
        }
        let bytes = tensor_bytes(ty, &dims).ok_or_else(|| {
            Error::Invalid(format!("tensor `{name}` of {ty} cannot have the shape {dims:?}"))
        })?;
        let end = offset.checked_add(bytes).ok_or(Error::Truncated("a tensor's data"))?;
        Ok(TensorInfo { name, dims, ty, range: offset..end })
    }
}

/// Bytes of a tensor; `None` for an empty one, for rows of broken blocks and on overflow.
fn tensor_bytes(ty: BlockType, dims: &[usize]) -> Option<usize> {
    let (first, rest) = dims.split_first()?;
    if dims.contains(&0) {
        return None;
    }
    rest.iter().try_fold(ty.row_bytes(*first)?, |bytes, &dim| bytes.checked_mul(dim))
}
