//! From an answer's tokens to its text.

mod choice;
mod stop;

pub use choice::{Choice, Ended, Piece, TextOptions};
use stop::StopMatcher;
