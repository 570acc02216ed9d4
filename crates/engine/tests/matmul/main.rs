//! Matrix products: every kernel against the reference, the reference against arithmetic.

mod corners;
mod paths;
mod reference;
mod support;
