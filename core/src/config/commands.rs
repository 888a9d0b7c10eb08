//! The command lines that a person may paste, for the files of one pipeline: what a program says has to be done, it says so
//! that it can be done.

use std::path::Path;

use super::{HOST_FILE, Pipeline};

/// Makes command lines about one pipeline.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// The pipeline's file, as a word of a shell.
    file: String,
    /// What follows each command: the host file, where it is not found without.
    ending: String,
}

impl Commands {
    /// Makes those of a pipeline with these files, as the command line named them.
    pub fn new(file: &Path, host: Option<&Path>) -> Self {
        let is_found = |host: &&Path| file.parent().is_some_and(|folder| folder.join(HOST_FILE) == **host);
        let ending = host.filter(|host| !is_found(host)).map(|host| format!(" --host {}", shell_word(host)));
        Self { file: shell_word(file), ending: ending.unwrap_or_default() }
    }

    /// Takes the spool's word, or the store's, on where a sink goes on.
    pub fn adopt(&self, sink: &str, which: &str) -> String {
        self.line(&format!("adopt {} {sink} --{which}", self.file))
    }

    /// Gives what a sink left behind to one of another name.
    pub fn rename_sink(&self, old: &str, new: &str) -> String {
        self.line(&format!("sink rename {} {old} {new}", self.file))
    }

    /// Gives up a sink that is not in the file any more.
    pub fn forget_sink(&self, name: &str) -> String {
        self.line(&format!("sink forget {} {name}", self.file))
    }

    /// Gives the spool of a pipeline of another name to this one.
    pub fn rename_spool(&self, old: &str) -> String {
        self.line(&format!("spool rename {} {old}", self.file))
    }

    fn line(&self, words: &str) -> String {
        format!("`tidegate {words}{}`", self.ending)
    }
}

impl Pipeline {
    /// Returns the command lines about this pipeline.
    pub fn commands(&self) -> Commands {
        Commands::new(&self.file, self.host_file.as_deref())
    }
}

/// Returns a path as a shell takes it.
pub fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/+:@%".contains(c);
    // A word that begins with `-` would be taken for an option.
    if !text.is_empty() && text.chars().all(is_plain) && !text.starts_with('-') {
        return text.into_owned();
    }
    let dashed = if text.starts_with('-') { "./" } else { "" };
    format!("'{dashed}{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_host_file_only_where_it_would_not_be_found() {
        let line = |file: &str, host: Option<&str>| {
            Commands::new(Path::new(file), host.map(Path::new)).adopt("sqlite", "from-log")
        };
        assert_eq!(line("eth.toml", None), "`tidegate adopt eth.toml sqlite --from-log`");
        assert_eq!(
            line("a b/eth.toml", Some("a b/tidegate.toml")),
            "`tidegate adopt 'a b/eth.toml' sqlite --from-log`"
        );
        let elsewhere = line("eth.toml", Some("hosts/one.toml"));
        assert_eq!(elsewhere, "`tidegate adopt eth.toml sqlite --from-log --host hosts/one.toml`");
    }

    #[test]
    fn a_path_with_anything_in_it_is_one_word_of_a_shell() {
        for name in ["plain-1.2/x", "with space", "it's", "$HOME;`x`", "-x", "\"", ""] {
            let command = format!("printf %s {}", shell_word(Path::new(name)));
            let printed = std::process::Command::new("sh").args(["-c", &command]).output().unwrap().stdout;
            let expected = if name.starts_with('-') { format!("./{name}") } else { name.to_owned() };
            assert_eq!(String::from_utf8(printed).unwrap(), expected);
        }
    }
}
