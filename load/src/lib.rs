//! What the measuring programs share.
#![forbid(unsafe_code)]

pub mod bench;
pub mod chaos;
pub mod client_key;
pub mod contest;
pub mod generator;
pub mod histogram;
pub mod limit;
pub mod postgres;
pub mod process;
pub mod registrations;
pub mod report;
pub mod site;
pub mod stock;
