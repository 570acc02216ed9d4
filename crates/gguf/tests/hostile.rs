//! Files that lie are refused; none panics, overflows or makes us allocate what it claims.

use plumb_gguf::writer::GgufWriter;
use plumb_gguf::{BlockType, Error, Gguf};
use proptest::prelude::*;

fn open(bytes: &[u8]) -> Result<Gguf, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Gguf::open(file.path())
}

fn sample() -> Vec<u8> {
    let mut writer = GgufWriter::new("llama");
    writer.u32("llama.block_count", 2).f32("f", 0.5).bool("b", true);
    writer.strings("tokenizer.ggml.tokens", &["a", "b", "ç"]).i32s("types", &[1, -1, 3]);
    writer.tensor("one", &[2, 3], BlockType::F32, &[1; 24]);
    writer.tensor("two", &[32, 2], BlockType::Q8_0, &[2; 68]);
    writer.to_bytes()
}

/// A header with the given counts and then raw bytes.
fn header(tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(tensors.to_le_bytes());
    file.extend(keys.to_le_bytes());
    file.extend(rest);
    file
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn tensor(name: &str, dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name);
    out.extend((dims.len() as u32).to_le_bytes());
    out.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
    out.extend(ty.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

fn message(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

/// Touches everything that a file offers.
fn read_all(gguf: &Gguf) {
    for key in gguf.keys() {
        if let Some(plumb_gguf::Value::Array(array)) = gguf.meta(key) {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.data(tensor).len(), tensor.bytes());
        assert!(tensor.elements() > 0);
    }
}

#[test]
fn what_is_no_gguf_is_refused_by_name() {
    assert!(matches!(open(b""), Err(Error::Magic)));
    assert!(matches!(open(b"GGU"), Err(Error::Magic)));
    assert!(matches!(open(b"PK\x03\x04 a zip file"), Err(Error::Magic)));
    assert!(matches!(open(b"GGUF\x01\0\0\0"), Err(Error::Version(1))));
    assert!(matches!(open(b"GGUF\0\0\0\x03"), Err(Error::Version(0x0300_0000))), "big-endian");
    let missing = Gguf::open("/no/such/file".as_ref()).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read /no/such/file: "), "{missing}");
}

#[test]
fn every_truncation_is_refused() {
    let whole = sample();
    for len in 0..whole.len() {
        assert!(open(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
    }
    read_all(&open(&whole).unwrap());
}

#[test]
fn counts_beyond_the_file_allocate_nothing() {
    assert!(matches!(open(&header(0, u64::MAX, &[])), Err(Error::Truncated(_))));
    assert!(matches!(open(&header(u64::MAX, 0, &[])), Err(Error::Truncated(_))));
    let array = |ty: u32, len: u64| {
        let head = [string("k"), 9u32.to_le_bytes().to_vec()].concat();
        [head, ty.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat()
    };
    assert!(matches!(open(&header(0, 1, &array(12, u64::MAX / 4))), Err(Error::Truncated(_))));
    assert!(matches!(open(&header(0, 1, &array(8, 1 << 60))), Err(Error::Truncated(_))));
    assert!(message(&header(0, 1, &array(9, 1))).contains("arrays of arrays"));
    let endless = [&u64::MAX.to_le_bytes(), b"key".as_slice()].concat();
    assert!(matches!(open(&header(0, 1, &endless)), Err(Error::Truncated(_))));
}

#[test]
fn impossible_tensors_are_refused() {
    let one = |dims: &[u64], ty, offset| message(&header(1, 0, &tensor("t", dims, ty, offset)));
    assert!(one(&[1 << 40, 1 << 40], 0, 0).contains("cannot have the shape"), "overflow");
    assert!(one(&[1 << 40], 0, 0).contains("ends inside a tensor's data"));
    assert!(one(&[4], 0, u64::MAX - 31).contains("ends inside a tensor's data"));
    assert!(one(&[4, 0], 0, 0).contains("cannot have the shape"));
    assert!(one(&[33], 8, 0).contains("cannot have the shape"), "half a block");
    assert!(one(&[], 0, 0).contains("0 dimensions"));
    assert!(one(&[1; 5], 0, 0).contains("5 dimensions"));
    assert!(one(&[4], 0, 8).contains("not aligned"));
    assert!(one(&[256], 23, 0).contains("tensor `t` has type IQ4_XS, which is not supported"));
    assert!(one(&[256], 999, 0).contains("number 999"));
    let twice = [tensor("t", &[1], 0, 0), tensor("t", &[1], 0, 0)].concat();
    assert!(message(&header(2, 0, &twice)).contains("`t` appears twice"));
}

#[test]
fn impossible_metadata_is_refused() {
    let alignment = |value: u32| {
        let mut writer = GgufWriter::new("llama");
        message(&writer.u32("general.alignment", value).to_bytes())
    };
    for value in [0, 3, u32::MAX] {
        assert!(alignment(value).contains("general.alignment"), "{value}");
    }
    let mut split = GgufWriter::new("llama");
    assert!(message(&split.u32("split.count", 3).to_bytes()).contains("split into 3 files"));
    let mut twice = GgufWriter::new("llama");
    assert!(
        message(&twice.bool("k", true).bool("k", true).to_bytes()).contains("`k` appears twice")
    );
    let unknown = [string("k"), 13u32.to_le_bytes().to_vec()].concat();
    assert!(message(&header(0, 1, &unknown)).contains("value type 13 is unknown"));
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = sample();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(gguf) = open(&bytes) {
            read_all(&gguf);
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(gguf) = open(&header(1, 2, &noise)) {
            read_all(&gguf);
        }
    }
}
