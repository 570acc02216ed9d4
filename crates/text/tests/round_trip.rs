//! Text to tokens and back is the identity, and cutting makes no difference.

mod common;

use common::{GEMMA3, SMOLLM2, tokenizer};
use plumb_text::{Detokenizer, Special, Tokenizer};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

static BPE: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| tokenizer(SMOLLM2));
static SPM: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| tokenizer(GEMMA3));

const PLAIN: Special = Special { add: false, parse: false };

#[test]
fn a_greeting() {
    let ids = BPE.encode("Hello, world!", PLAIN);
    assert_eq!(BPE.decode(&ids, false), "Hello, world!");
    let ids = SPM.encode("Hello, world!", Special { add: true, parse: false });
    assert_eq!(Some(ids[0]), SPM.bos());
    assert_eq!(SPM.decode(&ids, false), "Hello, world!");
}

fn texts() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        any::<String>(),
        "[ \t\r\n]{0,12}",
        "[a-zA-Z'0-9 ]{0,40}",
        "\\PC{0,20}",
        Just("<|im_end|>".to_owned()),
        Just("🏳️‍🌈👩‍👩‍👧".to_owned()),
    ];
    proptest::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn bpe_decodes_to_the_text(text in texts()) {
        let ids = BPE.encode(&text, PLAIN);
        prop_assert_eq!(BPE.decode(&ids, true), text);
    }

    #[test]
    fn sentence_piece_decodes_to_the_text(text in texts()) {
        prop_assume!(!text.contains('▁'));
        let ids = SPM.encode(&text, PLAIN);
        prop_assert_eq!(SPM.decode(&ids, true), text);
    }

    /// Any ids, so that characters break off in every way.
    #[test]
    fn pieces_add_up_to_the_whole(ids in proptest::collection::vec(0u32..49_200, 0..40)) {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| BPE.token_bytes(id)).copied().collect();
        let mut detokenizer = Detokenizer::new(&BPE).with_special(true);
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}
