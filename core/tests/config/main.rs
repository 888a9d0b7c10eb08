//! Configuration as a user meets it: files in, pipelines or mistakes out.

mod catalog;
mod golden;
