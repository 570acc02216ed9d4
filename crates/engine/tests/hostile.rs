//! Files that cannot be run are refused with a reason, and batches that cannot be run too.

mod common;

use common::Bench;
use common::tiny::{Tiny, VOCAB};
use plumb_engine::{BatchError, EngineOptions, Error, LoadOptions, Model, PackFile, Rows, Slice};
use plumb_gguf::BlockType;
use plumb_kv::BlockId;

fn load(tiny: &Tiny) -> Result<(), Error> {
    load_file(&tiny.writer().to_bytes())
}

fn load_file(bytes: &[u8]) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Model::load(&path, &LoadOptions { pack_file: PackFile::None }).map(|_| ())
}

fn message(result: Result<(), Error>) -> String {
    result.expect_err("it should be refused").to_string()
}

#[test]
fn missing_tensors_are_named() {
    for name in [
        "token_embd.weight",
        "output_norm.weight",
        "blk.1.ffn_down.weight",
        "blk.0.attn_norm.weight",
    ] {
        let said = message(load(&Tiny { without: Some(name), ..Tiny::llama() }));
        assert!(said.contains(name), "{said}");
    }
    let said = message(load(&Tiny { without: Some("blk.0.attn_k.bias"), ..Tiny::qwen2() }));
    assert!(said.contains("blk.0.attn_k.bias"), "{said}");
}

#[test]
fn other_architectures_are_named_with_those_that_work() {
    let said = message(load(&Tiny { arch: "mamba", ..Tiny::llama() }));
    assert!(said.contains("mamba") && said.contains("qwen3"), "{said}");
}

#[test]
fn wrong_shapes_are_refused() {
    // A llama whose heads are twice as wide as its matrices.
    let mut file = Tiny::llama().writer();
    file.u32("llama.attention.key_length", 32).u32("llama.attention.value_length", 32);
    let said = message(load_file(&file.to_bytes()));
    assert!(said.contains("blk.0.attn_q.weight") || said.contains("key_length"), "{said}");
    for (key, value) in [
        ("llama.embedding_length", 0),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.block_count", 1_000_000),
        ("llama.attention.key_length", 17),
        ("llama.rope.dimension_count", 999),
        ("llama.expert_count", 8),
    ] {
        let bytes = replaced(key, value);
        message(load_file(&bytes));
    }
}

/// A llama with another value for one key: a file may not have a key twice.
fn replaced(key: &str, value: u32) -> Vec<u8> {
    let bytes = Tiny::llama().writer().to_bytes();
    match bytes.windows(key.len()).position(|window| window == key.as_bytes()) {
        Some(at) => {
            let mut bytes = bytes;
            // After the key come its type and its value, of four bytes each.
            let at = at + key.len() + 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bytes
        }
        None => Tiny::llama().writer().u32(key, value).to_bytes(),
    }
}

#[test]
fn a_tensor_that_no_plan_uses_is_refused() {
    let mut file = Tiny::llama().writer();
    file.tensor("blk.0.ffn_gate_inp.weight", &[64], BlockType::F32, &[0; 256]);
    let said = message(load_file(&file.to_bytes()));
    assert!(said.contains("ffn_gate_inp"), "{said}");
}

#[test]
fn no_damage_of_the_header_panics() {
    let whole = Tiny::gemma3().writer().to_bytes();
    for at in (0..2500).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        // Either it is refused, or the byte did not matter.
        drop(load_file(&bytes));
    }
    for len in (0..whole.len()).step_by(whole.len() / 50) {
        message(load_file(&whole[..len]));
    }
}

#[test]
fn batches_that_cannot_be_run_are_refused_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::load(&Tiny::llama().write(dir.path()), &LoadOptions::default()).unwrap();
    let options = EngineOptions {
        max_batch_tokens: 8,
        max_seqs: 2,
        max_logit_rows: 2,
        max_context: 64,
        ..EngineOptions::default()
    };
    let mut bench = Bench::with(&model, options, 4);
    let blocks: Vec<BlockId> = (0..4).map(BlockId).collect();
    let slice = Slice { tokens: &[1, 2], start: 0, blocks: &blocks, logits: Rows::Last };
    let nine = [3; 9];
    let unknown = [BlockId(9)];
    let cases = [
        (vec![slice; 3], BatchError::Sequences { got: 3, max: 2 }),
        (vec![Slice { tokens: &nine, ..slice }], BatchError::Tokens { got: 9, max: 8 }),
        (vec![Slice { logits: Rows::All, ..slice }; 2], BatchError::LogitRows { got: 4, max: 2 }),
        (vec![slice, Slice { tokens: &[], ..slice }], BatchError::Empty { slice: 1 }),
        (vec![Slice { start: 63, ..slice }], BatchError::Context { slice: 0, end: 65, max: 64 }),
        (
            vec![Slice { start: usize::MAX, ..slice }],
            BatchError::Context { slice: 0, end: usize::MAX, max: 64 },
        ),
        (
            vec![Slice { start: 15, blocks: &blocks[..1], ..slice }],
            BatchError::Blocks { slice: 0, need: 2, have: 1 },
        ),
        (
            vec![Slice { blocks: &unknown, ..slice }],
            BatchError::UnknownBlock { slice: 0, block: 9, blocks: 4 },
        ),
        (
            vec![Slice { tokens: &[80], ..slice }],
            BatchError::Token { slice: 0, token: 80, vocab: VOCAB },
        ),
    ];
    for (batch, want) in cases {
        match bench.engine.step(&bench.pool, &batch) {
            Err(Error::Batch(got)) => assert_eq!(got, want),
            other => panic!("{want:?}: {other:?}"),
        }
    }
    assert!(bench.engine.step(&bench.pool, &[slice]).is_ok());
}

#[test]
fn options_that_contradict_the_model_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::load(&Tiny::llama().write(dir.path()), &LoadOptions::default()).unwrap();
    let good = EngineOptions { max_context: 512, ..EngineOptions::default() };
    assert!(plumb_engine::Engine::new(model.clone(), good.clone()).is_ok());
    for bad in [
        EngineOptions { threads: 0, ..good.clone() },
        EngineOptions { block_tokens: 24, ..good.clone() },
        EngineOptions { max_context: 513, ..good.clone() },
        EngineOptions { cpus: vec![0], threads: 2, ..good.clone() },
    ] {
        assert!(matches!(plumb_engine::Engine::new(model.clone(), bad), Err(Error::Options(_))));
    }
}
