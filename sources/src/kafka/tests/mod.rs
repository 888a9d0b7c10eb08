//! The window and the decoder between a broker and a store that are made up, and the real delivery driver. What real ones do
//! is shown by `tests/kafka_loaders.rs`.

mod config;
mod confirmed;
mod partitions;
mod rows;
mod world;
