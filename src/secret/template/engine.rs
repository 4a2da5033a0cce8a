//! The template language: Jinja's, without includes and macros, and with the few filters below.

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

/// What one rendering may spend: instructions, or 64 bytes each.
const FUEL: u64 = 10_000;
/// An expression of 4096 characters nests so deep that parsing it takes up to 8 MiB in a debug build. Pages that are not
/// touched cost nothing.
const STACK: usize = 32 * 1024 * 1024;
/// The longest detail of an error that is quoted, in characters.
const LONGEST_DETAIL: usize = 200;
/// Stands for a name while its place is looked for.
const MARK: &str = "unknown_name_whose_place_is_looked_for";
/// So many places are tried.
const MOST_PLACES: usize = 64;

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(engine);

/// What is looked for in a template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Names that no token has, in every branch; and errors may quote values, since these are a placeholder's.
    All,
    /// Only what rendering shows; and errors quote no value.
    Values,
}

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    what: String,
    /// Line and column, from 1.
    at: Option<(usize, Option<usize>)>,
}

// === impl Fault ===

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: None }
    }

    fn of(error: &Error, text: &str, depth: Depth) -> Self {
        let kind = error.kind();
        let of_the_text = matches!(kind, ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest);
        let quotable = of_the_text || depth == Depth::All;
        let detail = error.detail().filter(|_| quotable).map(shortened);
        let what = match (kind, detail) {
            (ErrorKind::SyntaxError, Some(detail)) => format!("syntax error: {detail}"),
            (ErrorKind::UnknownFilter, Some(detail)) => {
                format!("{detail}: there are b64encode, lower, tojson and upper")
            }
            (ErrorKind::OutOfFuel, _) => "it takes too much time or memory".to_owned(),
            (_, Some(detail)) => detail,
            (_, None) => kind.to_string(),
        };
        let column = error.range().and_then(|range| place(text, range.start)).and_then(|(_, column)| column);
        Self { what, at: error.line().map(|line| (line, column)) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, Some(column))) => write!(f, "line {line}, column {column}: {}", self.what),
            Some((line, None)) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Renders `text`.
pub(super) fn render(text: &str, values: &Value, depth: Depth) -> Result<String, Fault> {
    let fault = |error: Error| Fault::of(&error, text, depth);
    let template = ENGINE.template_from_str(text).map_err(fault)?;
    if depth == Depth::All {
        let known = |name: &str| values.get_attr(name).is_ok_and(|value| !value.is_undefined());
        // Sorted, so that the same one is told each time.
        let unknown = template.undeclared_variables(false).into_iter().filter(|name| !known(name)).min();
        if let Some(name) = unknown {
            let names: Vec<String> = values.try_iter().map_err(fault)?.map(|name| name.to_string()).collect();
            let what = format!("{} is unknown: there are {}", shortened(&name), names.join(", "));
            return Err(Fault { what, at: place_of_name(text, &name) });
        }
    }
    template.render(values).map_err(fault)
}

/// Runs `work` on a stack that no template overflows: an overflow would end the process.
pub(super) fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        let running = thread.spawn_scoped(scope, work).map_err(|_| Fault::new("no thread could be started for it"))?;
        running.join().map_err(|_| Fault::new("the template engine failed"))
    })
}

fn engine() -> Environment<'static> {
    let mut engine = Environment::empty();
    // Values go into the Secret as they are.
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    // Else errors carry the values.
    engine.set_debug(false);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        engine.set_syntax(syntax);
    }
    engine.add_filter("b64encode", |text: String| BASE64_STANDARD.encode(text));
    engine.add_filter("lower", |text: String| text.to_lowercase());
    engine.add_filter("upper", |text: String| text.to_uppercase());
    engine.add_filter("tojson", |value: &Value| match (value.as_str(), value.as_i64()) {
        (Some(text), _) => Ok(serde_json::Value::from(text).to_string()),
        (None, Some(number)) => Ok(number.to_string()),
        (None, None) => Err(Error::new(ErrorKind::InvalidOperation, "tojson takes a string or a whole number")),
    });
    engine
}

/// Where `name` is used as a name, and not as text: the engine tells that of another name in the same place.
fn place_of_name(text: &str, name: &str) -> Option<(usize, Option<usize>)> {
    let mut places = text.match_indices(name).map(|(at, _)| at).take(MOST_PLACES);
    let at = places.find(|at| {
        let marked =
            text.split_at_checked(*at).map(|(before, after)| before.to_owned() + &after.replacen(name, MARK, 1));
        let template = marked.as_deref().and_then(|marked| ENGINE.template_from_str(marked).ok());
        template.is_some_and(|template| template.undeclared_variables(false).contains(MARK))
    })?;
    place(text, at)
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> Option<(usize, Option<usize>)> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next().unwrap_or_default();
    Some((before.matches('\n').count().saturating_add(1), Some(line.chars().count().saturating_add(1))))
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_DETAIL).collect()
}
