//! Names of leases that cannot be guessed.

/// Longest name that a lease may have, in bytes.
pub const MAX_REQUEST_ID: usize = 512;

/// Longest part of a caller's own id that is kept.
const MAX_OWN: usize = 256;

/// `ID-SUFFIX`, as vLLM's `cmpl-…-0-b5dc2922`, but with 128 random bits: who has the name may pull
/// the blocks, so nobody may be able to guess it. An overlong `id` is cut.
#[must_use]
pub fn remote_request_id(id: &str) -> String {
    let mut end = id.len().min(MAX_OWN);
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{:032x}", &id[..end], rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::{MAX_REQUEST_ID, remote_request_id};

    #[test]
    fn ids_differ_keep_their_start_and_stay_short() {
        let (one, two) = (remote_request_id("cmpl-7-0"), remote_request_id("cmpl-7-0"));
        assert_ne!(one, two);
        assert!(one.starts_with("cmpl-7-0-"));
        assert_eq!(one.len(), "cmpl-7-0-".len() + 32);
        assert!(remote_request_id(&"ü".repeat(4000)).len() <= MAX_REQUEST_ID);
    }
}
