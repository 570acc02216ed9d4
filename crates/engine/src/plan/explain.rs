//! The plan for people.
