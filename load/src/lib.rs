//! What the measuring programs share.
#![forbid(unsafe_code)]

pub mod chaos;
