//! Named shared memory that we own: every region of ours that matters is a memfd with a name, so that
//! a ledger taken from outside can call it by name.
