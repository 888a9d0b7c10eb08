//! `list`: the components, and every option with its kind, default and meaning, from the structs themselves.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    derived::DerivedConfig,
    document::{Document, Path},
    driver::SpoolConfig,
    environment::Environment,
    host::{self, Host},
    layers::path,
    load::PipelineConfig,
    names,
    options::{OptionInfo, Options},
    problem::{Look, Text},
    report::Report,
    resolved::in_toml,
    stage,
    wrap::{wide, wrapped},
};
use crate::{
    Error, Result,
    catalog::{Catalog, Role, Unavailable},
    table::expression::{FUNCTIONS, FunctionInfo, OPERATORS},
};

/// A pipeline's file that comes with the program, to show how an option is written.
#[derive(Debug, Clone, Copy)]
pub struct Shipped<'a> {
    /// Where it lies.
    pub path: &'a str,
    /// What stands in it.
    pub text: &'a str,
}

/// Returns the components that there are, and those that might be, in lines as wide as `look` says.
pub fn list(catalog: &Catalog, look: Look) -> String {
    let mut text = String::new();
    let mut line = |title: &str, names: Vec<String>| {
        if !names.is_empty() {
            let first = format!("{title:<20} ");
            text += &wrapped(&first, &names.join(" "), &" ".repeat(first.len()), look.width);
            text.push('\n');
        }
    };
    let names = |role| catalog.names(role).into_iter().map(String::from).collect::<Vec<_>>();
    line("sources", names(Role::Source));
    if catalog.names(Role::Source).iter().any(|name| !catalog.sources.has(name)) {
        line("", vec!["replay (a key of a WebSocket source: plays what its key `capture` has kept)".into()]);
    }
    line("sinks", names(Role::Sink));
    let missing: Vec<_> = [Role::Source, Role::Sink].into_iter().flat_map(|role| catalog.missing(role)).collect();
    let of_build = missing.iter().filter_map(|(name, why)| match why {
        Unavailable::Feature(feature) => Some(format!("{name} (add --features {feature})")),
        Unavailable::Version => None,
    });
    // A store that is also a source is named once.
    let of_build: BTreeSet<_> = of_build.collect();
    line("not in this build", of_build.into_iter().collect());
    let of_version = missing.iter().filter(|(_, why)| *why == Unavailable::Version);
    let of_version: BTreeSet<_> = of_version.map(|(name, _)| (*name).to_owned()).collect();
    line("not in this version", of_version.into_iter().collect());
    line(
        "tidegate list NAME",
        vec!["every option of one of them, or of a key; also: pipeline, spool, table, host".into()],
    );
    text
}

/// Returns the options of a component, of `pipeline`, `spool`, `table` or `host`, or of a key that the drivers read, in lines as wide
/// as `look` says, with the lines of `shipped` that use them.
///
/// # Errors
///
/// `Config` when there is none of this name: with the nearest, or the reason.
pub fn list_component(catalog: &Catalog, name: &str, look: Look, shipped: &[Shipped<'_>]) -> Result<String> {
    let mut page = Page { text: String::new(), width: look.width, shipped: documents(shipped), shown: BTreeSet::new() };
    for role in [Role::Source, Role::Sink] {
        let (Some(entry), Some(options)) = (catalog.entry(role, name), stage::options(catalog, role, name)) else {
            continue;
        };
        let role = role.table();
        page.wrap("", &format!("{name}, a {role}: {}", options[0].about()), "");
        if !entry.example.is_empty() {
            page.line(&format!("\nfor a start\n  [{role}.{name}]\n  {}", entry.example.trim().replace('\n', "\n  ")));
        }
        let at = At::Stages(role, Some(name));
        page.options(&format!("[{role}.{name}]"), all(&options[..1]), at);
        page.options(&format!("of every {role} like it"), all(&options[1..]), at);
    }
    match name {
        "pipeline" => page.options("[pipeline]", all(&[Options::of::<PipelineConfig>()]), At::Table("pipeline")),
        "table" => page.table(),
        "spool" => page.options("[spool]", all(&[Options::of::<SpoolConfig>()]), At::Table("spool")),
        "host" => {
            page.options("the host file, tidegate.toml", all(&[Options::of::<Host>()]), At::Elsewhere);
            let variables: Vec<_> = host::variables_of(&Options::of::<Host>()).into_keys().collect();
            page.line("");
            page.wrap("each also by a variable, which is stronger: ", &variables.join(" "), "  ");
            let defaults =
                "[defaults.source], [defaults.source.TYPE], [defaults.sink], [defaults.sink.TYPE], [defaults.spool]";
            page.line("");
            page.wrap("and ", defaults, "  ");
        }
        _ if page.text.is_empty() => page.key(name),
        _ => {}
    }
    if !page.text.is_empty() {
        return Ok(page.text);
    }
    let having = having_key(catalog, name);
    if !having.is_empty() {
        return Err(Error::config(format!("`{name}` is a key: tidegate list {}", having.join(", or tidegate list "))));
    }
    let drivers = [Role::Source, Role::Sink].into_iter().flat_map(stage::driver_options);
    let keys: Vec<String> = drivers.flat_map(|options| options.keys).collect();
    let others = ["pipeline", "spool", "table", "host"].into_iter().chain(keys.iter().map(String::as_str));
    Err(unknown(catalog, name, &[Role::Source, Role::Sink], others))
}

/// Returns the components that have an option of this name, in a table of theirs maybe.
fn having_key(catalog: &Catalog, key: &str) -> Vec<&'static str> {
    let components = [Role::Source, Role::Sink].into_iter().flat_map(|role| {
        catalog.names(role).into_iter().filter_map(move |name| Some((name, catalog.entry(role, name)?)))
    });
    let having = components.filter(|(_, entry)| {
        entry.options.all().iter().any(|option| option.path.last().is_some_and(|name| name == key))
    });
    having.map(|(name, _)| name).collect()
}

fn all(options: &[Options]) -> Vec<OptionInfo> {
    options.iter().flat_map(Options::all).collect()
}

fn documents(shipped: &[Shipped<'_>]) -> Vec<Document> {
    let texts = shipped.iter().enumerate();
    let texts = texts.map(|(number, file)| Text { number, path: file.path.into(), text: file.text.into() });
    // What may be wrong with them is for `check` to say.
    let parse = |text| Document::parse(Arc::new(text), &Environment::default(), &mut Report::default());
    texts.filter_map(parse).collect()
}

/// Returns the error about a component that is not there; `others` may be meant as well.
pub(super) fn unknown<'a>(
    catalog: &'a Catalog,
    name: &str,
    roles: &[Role],
    others: impl IntoIterator<Item = &'a str>,
) -> Error {
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
    if let ([wanted], true) =
        (roles, [Role::Source, Role::Sink].iter().any(|role| catalog.entry(*role, name).is_some()))
    {
        let wanted = wanted.table();
        return Error::config(format!("`{name}` is no {wanted}, known are: {}", known.join(", ")));
    }
    if let [role] = roles
        && stage::shared_keys(*role).iter().any(|key| key == name)
    {
        let (role, known) = (role.table(), known.join(", "));
        return Error::config(format!(
            "`{name}` is a key of a {role} and no type: write it into [{role}.NAME], as `tidegate list {name}` says; types \
             are: {known}"
        ));
    }
    match names::nearest(name, known.iter().copied().chain(others)) {
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
    /// Files that show how options are written.
    shipped: Vec<Document>,
    /// The lines of them that were shown.
    shown: BTreeSet<(usize, usize)>,
}

/// Where options stand in a pipeline's file.
#[derive(Clone, Copy)]
enum At<'a> {
    /// In `[source.NAME]` or `[sink.NAME]`, of one type or of any.
    Stages(&'static str, Option<&'a str>),
    /// In a table of this name.
    Table(&'static str),
    /// In another file.
    Elsewhere,
}

/// Less room than this is none for a sentence.
const NARROWEST: usize = 36;
/// Calls of functions stand beside what they return.
const CALLS: usize = 34;
const INDENT: &str = "      ";

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Shows what a key of the drivers may be: of sources, of sinks, or of both.
    fn key(&mut self, key: &str) {
        for role in [Role::Source, Role::Sink] {
            let mut options = stage::driver_options(role).iter().flat_map(Options::all).collect::<Vec<_>>();
            options.retain(|option| option.path[0] == key);
            if !options.is_empty() {
                let role = role.table();
                let gap = if self.text.is_empty() { "" } else { "\n" };
                self.line(&format!("{gap}{key}, a key of [{role}.NAME]"));
                self.options(&format!("[{role}.NAME]"), options, At::Stages(role, None));
            }
        }
    }

    /// Shows what a derived table has, and the functions of its expressions.
    fn table(&mut self) {
        let options = Options::of::<DerivedConfig>();
        self.wrap("", &format!("[table.NAME], a derived table: {}", options.about()), "");
        self.options("[table.NAME]", all(std::slice::from_ref(&options)), At::Elsewhere);
        self.line("\noperators");
        self.wrap("  ", OPERATORS, "  ");
        self.line("\nfunctions");
        for FunctionInfo { call, about } in FUNCTIONS {
            self.wrap(&format!("  {call:CALLS$}  "), about, &" ".repeat(CALLS + 4));
        }
        self.line("");
        self.wrap("", "types, for cast: bool, i64, u64, f64, text, label, time. More: docs/tables.md", "");
    }

    fn options(&mut self, title: &str, options: Vec<OptionInfo>, at: At<'_>) {
        let rows: Vec<[String; 3]> = options.iter().map(|o| [o.key.clone(), o.kind.clone(), default(o)]).collect();
        let width = |column: usize, most: usize| {
            rows.iter().map(|row| wide(&row[column])).filter(|width| *width <= most).max().unwrap_or(0)
        };
        let (keys, kinds, defaults) = (width(0, 40), width(1, 24), width(2, 20));
        let column = 2 + keys + 2 + kinds + 2 + defaults + 2;
        self.line(&format!("\n{title}"));
        for ([key, kind, default], option) in rows.iter().zip(&options) {
            let head = format!("  {key:keys$}  {kind:kinds$}  {default:defaults$}  ");
            let beside = self.width.saturating_sub(column) >= NARROWEST;
            let below = " ".repeat(if beside { column } else { INDENT.len() });
            if beside && wide(&head) <= column {
                self.wrap(&head, &option.about, &below);
            } else {
                if wide(head.trim_end()) <= self.width {
                    self.line(&head);
                } else {
                    self.line(&format!("  {key}"));
                    self.wrap(INDENT, &format!("{kind}; default: {default}"), INDENT);
                }
                self.wrap(&below, &option.about, &below);
            }
            if let Some(line) = self.in_shipped(option, at) {
                self.wrap(&below, &line, &format!("{below}  "));
            }
        }
    }

    /// Returns the line of a file that sets an option: the line itself once, then only where it is.
    fn in_shipped(&mut self, option: &OptionInfo, at: At<'_>) -> Option<String> {
        let (file, spot) = self.shipped.iter().enumerate().find_map(|(file, document)| {
            let tables: Vec<Path> = match at {
                At::Stages(role, component) => document.stages(role, component),
                At::Table(name) => vec![path([name])],
                At::Elsewhere => Vec::new(),
            };
            tables.iter().find_map(|table| Some((file, document.first_of(table, &option.pattern())?)))
        })?;
        let (name, line) = (&spot.file.path, spot.line());
        if !self.shown.insert((file, line)) {
            return Some(format!("{name}:{line}"));
        }
        let written = spot.file.text.lines().nth(line - 1).unwrap_or_default().trim();
        Some(format!("{name}:{line}: {written}"))
    }

    /// Writes words behind `first`, and in lines below it that begin with `below`.
    fn wrap(&mut self, first: &str, words: &str, below: &str) {
        let text = wrapped(first, words, below, self.width);
        self.line(&text);
    }
}

fn default(option: &OptionInfo) -> String {
    match &option.default {
        None => "required".into(),
        Some(serde_json::Value::Null) => "not set".into(),
        Some(value) => in_toml(value),
    }
}
