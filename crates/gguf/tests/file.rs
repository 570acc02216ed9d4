//! What the writer writes, the reader reads; what is wrong is refused by name.

use plumb_gguf::writer::GgufWriter;
use plumb_gguf::{BlockType, Error, Gguf, Value};

fn open(bytes: &[u8]) -> Result<Gguf, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Gguf::open(file.path())
}

fn sample() -> GgufWriter {
    let mut writer = GgufWriter::new("llama");
    writer.u32("llama.block_count", 2).f32("llama.rope.freq_base", 10_000.0);
    writer.bool("tokenizer.ggml.add_bos_token", true);
    writer.strings("tokenizer.ggml.tokens", &["a", "b", "ç"]);
    writer.i32s("tokenizer.ggml.token_type", &[1, -1, 3]);
    writer.tensor("one", &[2, 3], BlockType::F32, &[1; 24]);
    writer.tensor("two", &[32], BlockType::Q8_0, &[2; 34]);
    writer
}

#[test]
fn metadata_and_tensors_come_back() {
    let gguf = open(&sample().to_bytes()).unwrap();
    assert_eq!(gguf.architecture(), "llama");
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.u32("llama.block_count").unwrap(), 2);
    assert_eq!(gguf.f32("llama.rope.freq_base").unwrap(), 10_000.0);
    assert!(gguf.bool("tokenizer.ggml.add_bos_token").unwrap());
    let tokens: Vec<_> = gguf.array("tokenizer.ggml.tokens").unwrap().strings().collect();
    assert_eq!(tokens, [b"a".as_slice(), b"b", "ç".as_bytes()]);
    let types: Vec<_> = gguf.array("tokenizer.ggml.token_type").unwrap().iter().collect();
    assert_eq!(types, [Value::Int(1), Value::Int(-1), Value::Int(3)]);

    let one = gguf.tensor("one").unwrap();
    assert_eq!((one.dims.as_slice(), one.ty, one.rows()), ([2, 3].as_slice(), BlockType::F32, 3));
    assert_eq!(gguf.data(one), [1; 24]);
    let two = gguf.tensor("two").unwrap();
    assert_eq!(gguf.data(two), [2; 34]);
    gguf.release(two).unwrap();
    assert_eq!(gguf.data(two), [2; 34], "released pages come back from the file");
}

#[test]
fn keys_say_what_is_wrong_with_them() {
    let gguf = open(&sample().to_bytes()).unwrap();
    let missing = gguf.u32("llama.context_length").unwrap_err().to_string();
    assert_eq!(missing, "the file has no `llama.context_length`");
    assert_eq!(gguf.get::<u32>("llama.context_length").unwrap(), None);
    let wrong = gguf.str("llama.block_count").unwrap_err().to_string();
    assert_eq!(wrong, "`llama.block_count` should be a string, but is the integer 2");
}

#[test]
fn the_digest_follows_every_byte() {
    let mut bytes = sample().to_bytes();
    let before = open(&bytes).unwrap().digest();
    assert_eq!(open(&bytes).unwrap().digest(), before);
    *bytes.last_mut().unwrap() ^= 1;
    assert_ne!(open(&bytes).unwrap().digest(), before);
}
