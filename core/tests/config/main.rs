//! Configuration as a user meets it: files in, pipelines or mistakes out.

mod any_text;
mod catalog;
#[expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]
mod fits;
#[expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]
mod golden;
#[expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]
mod loading;
mod pages;
