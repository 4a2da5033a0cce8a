//! The two text forms: OpenMetrics 1.0, and the older Prometheus form for those who do not ask for it, such as `curl` and
//! `promtool check metrics`.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Room for the text without resources.
const SHORTEST: usize = 16 * 1024;
/// The content type of OpenMetrics, which a scraper asks for by name.
const OPENMETRICS: &str = "application/openmetrics-text";

/// How metrics are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Plain,
}

// === impl Exposition ===

impl Exposition {
    /// What suits a request with this `Accept` header.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        if accept.is_some_and(|types| types.contains(OPENMETRICS)) { Self::OpenMetrics } else { Self::Plain }
    }

    /// The metrics of `registry` as text, where `last` is how long it was the last time: a text of megabytes that grows step
    /// by step is copied at each.
    pub(super) fn encode(self, registry: &Registry, last: usize) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity((last + last / 16).max(SHORTEST));
        match self {
            Self::OpenMetrics => encode(&mut text, registry).map(|()| text),
            Self::Plain => {
                let mut plain = Plain::new(text);
                encode(&mut plain, registry).map(|()| plain.text)
            }
        }
    }

    /// The content type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Turns OpenMetrics text into the older form while it is written. Samples are the same; there, a family has the name of its
/// samples, an info is a gauge, and units are not told.
struct Plain {
    text: String,
    /// The beginning of a line that may be about a family.
    line: String,
    /// The rest of the line is that of a sample.
    in_sample: bool,
    help: String,
}

// === impl Plain ===

impl Plain {
    /// Appends to `text`.
    const fn new(text: String) -> Self {
        Self { text, line: String::new(), in_sample: false, help: String::new() }
    }

    fn write_part(&mut self, part: &str) {
        let ends = part.ends_with('\n');
        if self.in_sample {
            self.text.push_str(part);
        } else {
            self.line.push_str(part);
            if !self.line.starts_with('#') {
                self.text.push_str(&self.line);
                self.line.clear();
                self.in_sample = true;
            } else if ends {
                self.write_family();
                self.line.clear();
            }
        }
        self.in_sample &= !ends;
    }

    fn write_family(&mut self) {
        let mut words = self.line.trim_end().splitn(4, ' ').skip(1);
        match (words.next(), words.next(), words.next()) {
            // It comes before the type, which decides on the name.
            (Some("HELP"), Some(_), Some(rest)) => rest.clone_into(&mut self.help),
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                let help = &self.help;
                self.text.extend(["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            _ => {}
        }
    }
}

impl fmt::Write for Plain {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split_inclusive('\n').for_each(|part| self.write_part(part));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Written in parts of so many characters.
    fn plain(openmetrics: &str, part: usize) -> String {
        let mut plain = Plain::new(String::new());
        let characters: Vec<char> = openmetrics.chars().collect();
        for part in characters.chunks(part) {
            plain.write_str(&part.iter().collect::<String>()).unwrap_or_default();
        }
        plain.text
    }

    #[test]
    fn a_family_is_named_as_its_samples_are() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# 1\"} 1\n# HELP b_seconds Time.\n\
                           # TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2\n# HELP c It.\n# TYPE c info\n\
                           c_info{v=\"1\"} 1\n# EOF\n";
        let plain_form = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# 1\"} 1\n# HELP b_seconds Time.\n\
                          # TYPE b_seconds gauge\nb_seconds 2\n# HELP c_info It.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        for part in [1, 2, 7, 1000] {
            assert_eq!(plain(openmetrics, part), plain_form, "in parts of {part}");
        }
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Exposition::accepted(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::accepted(Some("*/*")), Exposition::Plain);
        assert_eq!(Exposition::accepted(None), Exposition::Plain);
    }
}
