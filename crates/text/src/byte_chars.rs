//! GPT-2's way to write any bytes as printable characters, in which byte-level vocabularies are
//! stored: printable Latin-1 stands for itself, the other 68 bytes take U+0100 and up in order.
//!
//! Source: `bytes_to_unicode` of OpenAI's GPT-2 encoder.

/// Whether a byte stands for itself.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// `OTHERS[i]` is the byte that U+0100 + `i` stands for.
const OTHERS: [u8; 68] = {
    let (mut others, mut count, mut byte) = ([0; 68], 0, 0);
    while byte < 256 {
        if !is_printable(byte as u8) {
            others[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    others
};

/// The bytes that a vocabulary entry stands for; `None` if it has a character that stands for
/// none, as the texts of special tokens may.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok()?.chars().map(byte).collect()
}

fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xFF => Some(code as u8).filter(|&byte| is_printable(byte)),
        code => OTHERS.get(code as usize - 0x100).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_and_newline_are_the_well_known_letters() {
        assert_eq!(decode("ĠtheĊ".as_bytes()).unwrap(), b" the\n");
        assert_eq!(decode("é".as_bytes()).unwrap(), [0xE9]);
        assert_eq!(decode("a b".as_bytes()), None, "a space never stands for itself");
        assert_eq!(decode("｜".as_bytes()), None);
    }

    #[test]
    fn every_byte_has_exactly_one_character() {
        let mut bytes: Vec<u8> = (0..0x180).filter_map(char::from_u32).filter_map(byte).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }
}
