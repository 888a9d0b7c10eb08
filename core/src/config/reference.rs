//! `list`: the components, and every option with its kind, default and meaning, from the structs themselves.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    driver::SpoolConfig,
    host::{self, Host},
    load::PipelineConfig,
    names,
    options::{OptionInfo, Options},
    problem::Look,
    resolved::in_toml,
    stage,
};
use crate::{
    Error, Result,
    catalog::{Catalog, Role, Unavailable},
};

/// Returns the components that there are, and those that might be.
pub fn list(catalog: &Catalog) -> String {
    let mut text = String::new();
    let mut line = |title: &str, names: Vec<String>| {
        if !names.is_empty() {
            // Writing to a text never fails.
            _ = writeln!(text, "{title:<20} {}", names.join("  "));
        }
    };
    for (title, role) in [("sources", Role::Source), ("sinks", Role::Sink)] {
        line(title, catalog.names(role).into_iter().map(String::from).collect());
    }
    let missing: Vec<_> = [Role::Source, Role::Sink].into_iter().flat_map(|role| catalog.missing(role)).collect();
    let of_build = missing.iter().filter_map(|(name, why)| match why {
        Unavailable::Feature(feature) => Some(format!("{name} (add --features {feature})")),
        Unavailable::Version => None,
    });
    line("not in this build", of_build.collect());
    let of_version = missing.iter().filter(|(_, why)| *why == Unavailable::Version);
    // A store that is also a source is named once.
    let of_version: BTreeSet<_> = of_version.map(|(name, _)| (*name).to_owned()).collect();
    line("not in this version", of_version.into_iter().collect());
    line("tidegate list NAME", vec!["every option of one of them; also: pipeline, spool, host".into()]);
    text
}

/// Returns the options of a component, or of `pipeline`, `spool` or `host`, in lines as wide as `look` says.
///
/// # Errors
///
/// `Config` when there is none of this name: with the nearest, or the reason.
pub fn list_component(catalog: &Catalog, name: &str, look: Look) -> Result<String> {
    let mut page = Page { text: String::new(), width: look.width };
    for role in [Role::Source, Role::Sink] {
        let (Some(entry), Some(options)) = (catalog.entry(role, name), stage::options(catalog, role, name)) else {
            continue;
        };
        let role = role.table();
        page.line(&format!("{name}, a {role}: {}", options[0].about()));
        if !entry.example.is_empty() {
            page.line(&format!("\nfor a start\n  [{role}.{name}]\n  {}", entry.example.trim().replace('\n', "\n  ")));
        }
        page.options(&format!("[{role}.{name}]"), &options[..1]);
        page.options(&format!("of every {role} like it"), &options[1..]);
    }
    match name {
        "pipeline" => page.options("[pipeline]", &[Options::of::<PipelineConfig>()]),
        "spool" => page.options("[spool]", &[Options::of::<SpoolConfig>()]),
        "host" => {
            page.options("the host file, tidegate.toml", &[Options::of::<Host>()]);
            let variables: Vec<_> = host::variables_of(&Options::of::<Host>()).into_keys().collect();
            page.line("");
            page.wrap("each also by a variable, which is stronger: ", &variables.join(" "), 2);
            page.line("\nand [defaults.source], [defaults.source.TYPE], [defaults.sink], [defaults.sink.TYPE], [defaults.spool]");
        }
        _ => {}
    }
    if page.text.is_empty() { Err(unknown(catalog, name, &[Role::Source, Role::Sink])) } else { Ok(page.text) }
}

/// Returns the error about a component that is not there.
pub(super) fn unknown(catalog: &Catalog, name: &str, roles: &[Role]) -> Error {
    for role in roles {
        match catalog.missing(*role).find(|(missing, _)| *missing == name) {
            Some((_, Unavailable::Feature(feature))) => {
                return Error::config(format!("`{name}` is not in this build: add --features {feature}"));
            }
            Some((_, Unavailable::Version)) => {
                return Error::config(format!("`{name}` is not in this version"));
            }
            None => {}
        }
    }
    let mut known: Vec<_> = roles.iter().flat_map(|role| catalog.names(*role)).collect();
    known.sort_unstable();
    match names::nearest(name, known.iter().copied()) {
        Some(near) => Error::config(format!("unknown component `{name}`, did you mean `{near}`?")),
        None => Error::config(format!("unknown component `{name}`, known are: {}", known.join(", "))),
    }
}

/// Returns the options that have no doc comment, as `source.deribit.channels`. A test holds this empty.
pub fn undocumented(catalog: &Catalog) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |at: &str, options: &Options| {
        let without = options.all().into_iter().filter(|option| option.about.trim().is_empty());
        found.extend(without.map(|option| format!("{at}.{}", option.key)));
        if options.about().trim().is_empty() {
            found.push(at.to_owned());
        }
    };
    for role in [Role::Source, Role::Sink] {
        for name in catalog.names(role) {
            let at = format!("{}.{name}", role.table());
            stage::options(catalog, role, name).iter().flatten().for_each(|options| look(&at, options));
        }
    }
    look("pipeline", &Options::of::<PipelineConfig>());
    look("spool", &Options::of::<SpoolConfig>());
    look("host", &Options::of::<Host>());
    found
}

/// A page of a given width.
struct Page {
    text: String,
    width: usize,
}

/// Less room than this is none for a sentence.
const NARROWEST: usize = 36;

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn options(&mut self, title: &str, options: &[Options]) {
        let options: Vec<OptionInfo> = options.iter().flat_map(Options::all).collect();
        let rows: Vec<[String; 3]> = options.iter().map(|o| [o.key.clone(), o.kind.clone(), default(o)]).collect();
        let width = |column: usize, most: usize| {
            rows.iter().map(|row| row[column].chars().count()).filter(|width| *width <= most).max().unwrap_or(0)
        };
        let (keys, kinds, defaults) = (width(0, 40), width(1, 24), width(2, 20));
        let column = 2 + keys + 2 + kinds + 2 + defaults + 2;
        self.line(&format!("\n{title}"));
        for ([key, kind, default], option) in rows.iter().zip(&options) {
            let head = format!("  {key:keys$}  {kind:kinds$}  {default:defaults$}  ");
            let about = option.about.replace('\n', " ");
            let beside = self.width.saturating_sub(column) >= NARROWEST;
            let (indent, first) = match beside && head.chars().count() <= column {
                true => (column, head),
                false => {
                    self.line(&head);
                    let indent = if beside { column } else { 6 };
                    (indent, " ".repeat(indent))
                }
            };
            self.wrap(&first, &about, indent);
        }
    }

    /// Writes words behind `first`, and in lines below it that begin at `indent`.
    fn wrap(&mut self, first: &str, words: &str, indent: usize) {
        let mut line = first.to_owned();
        let mut is_fresh = true;
        for word in words.split_whitespace() {
            let fits = line.chars().count() + usize::from(!is_fresh) + word.chars().count() <= self.width;
            if !fits && !is_fresh {
                self.line(&line);
                line = " ".repeat(indent);
                is_fresh = true;
            }
            if !is_fresh {
                line.push(' ');
            }
            line.push_str(word);
            is_fresh = false;
        }
        self.line(&line);
    }
}

fn default(option: &OptionInfo) -> String {
    match &option.default {
        None => "required".into(),
        Some(serde_json::Value::Null) => "not set".into(),
        Some(value) => in_toml(value),
    }
}
