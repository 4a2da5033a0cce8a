//! The log: to stderr, as text or JSON, with a filter that can be changed while the operator runs.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_serde::fields::AsMap as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::args::LogFormat;

/// kube logs whole answers that it cannot decode, and quotes values of them: one of them might be a Secret.
const INDISCREET: [&str; 2] = ["kube_client::client", "kube_runtime::watcher"];

/// kube's span around each pass says what the operator's own says, at greater length, and costs its formatting for each pass.
const DOUBLED: &str = "kube_runtime::controller";

/// The filter in force, which can be replaced.
#[derive(Clone)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    text: Arc<Mutex<String>>,
}

/// A log line as JSON. Namespace and name of the resource stand beside the message, whether the line or its span carries them;
/// `tracing_subscriber`'s own form nests the span's, and overwrites a field `name` with the name of the span.
struct JsonLine;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<&'static str>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// A filter that says nothing sensible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{filter:?} is no log filter: {why}; write a level (error, warn, info, debug, trace, off), or target=level pairs, separated by commas"
)]
pub struct FilterError {
    filter: String,
    why: String,
}

/// Begins to log. Can be done once in a process.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<LogFilter> {
    let (layer, filter) = LogFilter::new(filter)?;
    let logs = tracing_subscriber::registry().with(layer).with(filter_fn(is_wanted));
    match format {
        LogFormat::Text => {
            let text = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
            logs.with(text).try_init()?;
        }
        LogFormat::Json => logs.with(json(std::io::stderr)).try_init()?,
    }
    Ok(filter)
}

/// One object a line, as [`JsonLine`] makes it.
fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    fmt::layer().with_writer(writer).with_ansi(false).fmt_fields(JsonFields::new()).event_format(JsonLine)
}

/// Holds beside every filter, so that none can lift it, not even one that names a span.
fn is_wanted(line: &Metadata<'_>) -> bool {
    let indiscreet = INDISCREET.iter().any(|target| line.target().starts_with(target)) && *line.level() > Level::ERROR;
    let doubled = line.is_span() && line.target().starts_with(DOUBLED);
    !indiscreet && !doubled
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    let wrong = |why: String| FilterError { filter: filter.to_owned(), why };
    // EnvFilter takes a misspelt level for a target, and would silence all others; and nothing for "error".
    let is_level = |part: &str| !part.trim().is_empty() && part.trim().parse::<LevelFilter>().is_ok();
    if let Some(part) = filter.split(',').find(|part| !part.contains(['=', '[', ']', '}']) && !is_level(part)) {
        return Err(wrong(format!("{part:?} is no level")));
    }
    EnvFilter::try_new(filter).map_err(|error| wrong(error.to_string()))
}

// === impl LogFilter ===

impl LogFilter {
    /// The layer that filters, and the handle to change it.
    fn new(filter: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Self), FilterError> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        Ok((layer, Self { handle, text: Arc::new(Mutex::new(filter.to_owned())) }))
    }

    /// The filter as it was given.
    #[must_use]
    pub fn get(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it, or says why not and changes nothing.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        let parsed = parse(filter)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle
            .reload(parsed)
            .map_err(|error| FilterError { filter: filter.to_owned(), why: error.to_string() })?;
        filter.clone_into(&mut text);
        Ok(())
    }
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Map::new();
        for span in ctx.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            let extensions = span.extensions();
            let written = extensions.get::<FormattedFields<JsonFields>>();
            let object = written.and_then(|fields| serde_json::from_str::<Map<String, Value>>(&fields.fields).ok());
            fields.extend(object.unwrap_or_default());
        }
        // The line's own fields come last: they are the nearest.
        if let Ok(Value::Object(own)) = serde_json::to_value(event.field_map()) {
            fields.extend(own);
        }
        let line = Line {
            timestamp,
            level: event.metadata().level().as_str(),
            target: event.metadata().target(),
            span: ctx.lookup_current().map(|span| span.metadata().name()),
            fields,
        };
        let text = serde_json::to_string(&line).map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn read(&self) -> Vec<serde_json::Value> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logging(filter: &str, test: impl FnOnce(&Lines, &LogFilter)) {
        let lines = Lines::default();
        let (layer, handle) = LogFilter::new(filter).unwrap();
        let writer = lines.clone();
        let logs =
            tracing_subscriber::registry().with(layer).with(filter_fn(is_wanted)).with(json(move || writer.clone()));
        tracing::subscriber::with_default(logs, || test(&lines, &handle));
    }

    #[test]
    fn namespace_and_name_of_the_span_stand_beside_the_message() {
        logging("info", |lines, _| {
            tracing::info_span!("reconcile", namespace = "search", name = "flight").in_scope(|| {
                tracing::info!(reason = "Initial", "requesting token");
            });
            let lines = lines.read();
            let line = lines.first().unwrap();
            for (key, value) in [
                ("namespace", "search"),
                ("name", "flight"),
                ("reason", "Initial"),
                ("message", "requesting token"),
                ("level", "INFO"),
                ("span", "reconcile"),
            ] {
                assert_eq!(line.get(key).unwrap(), value, "{line}");
            }
            let time = line.get("timestamp").unwrap().as_str().unwrap();
            assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time} is not RFC 3339");
        });
    }

    #[test]
    fn the_filter_changes_while_it_runs() {
        logging("info", |lines, filter| {
            tracing::debug!("not yet");
            filter.set("debug").unwrap();
            tracing::debug!("now");
            filter.set("warn").unwrap();
            tracing::info!("no more");
            assert_eq!(lines.read().len(), 1);
            assert_eq!(filter.get(), "warn");
        });
    }

    #[test]
    fn a_filter_that_says_nothing_sensible_changes_nothing() {
        logging("info", |lines, filter| {
            for wrong in ["", "debugg", "info,verteil", "a=b=c", "verteil_token_operator=loud", "info,"] {
                assert!(filter.set(wrong).is_err(), "{wrong}");
            }
            tracing::info!("still");
            assert_eq!((filter.get().as_str(), lines.read().len()), ("info", 1));
            for right in ["off", "WARN", "info,kube=debug", "[reconcile{name=flight}]=trace"] {
                filter.set(right).unwrap();
            }
        });
    }

    #[test]
    fn no_filter_lets_answers_of_the_apiserver_through() {
        logging("trace", |lines, filter| {
            for everything in ["trace", "kube_client=trace", "kube_client::client=trace", "[reconcile]=trace"] {
                filter.set(everything).unwrap();
                tracing::info_span!("reconcile").in_scope(|| {
                    tracing::warn!(target: "kube_client::client", "{{\"data\": \"a Secret\"}}");
                    tracing::trace!(target: "kube_client::client::builder", "a Secret");
                    tracing::debug!(target: "kube_runtime::watcher", "a value of a Secret");
                });
                assert_eq!(lines.read(), Vec::<serde_json::Value>::new(), "{everything}");
            }
            tracing::error!(target: "kube_client::client", "said");
            assert_eq!(lines.read().len(), 0, "the last filter names a span");
            filter.set("trace").unwrap();
            tracing::error!(target: "kube_client::client", "said");
            assert_eq!(lines.read().len(), 1);
        });
    }
}
