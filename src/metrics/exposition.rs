//! The two text forms: OpenMetrics 1.0, and the older Prometheus form for those who do not ask for it, such as `curl` and
//! `promtool check metrics`.

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

    /// The content type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics text in the older form. Samples are the same; there, a family has the name of its samples, an info is a gauge,
/// and units are not told.
pub(super) fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut line = |parts: &[&str]| {
        text.extend(parts.iter().copied());
        text.push('\n');
    };
    let mut help = "";
    for sample in openmetrics.lines() {
        let Some(meta) = sample.strip_prefix("# ") else {
            line(&[sample]);
            continue;
        };
        let mut words = meta.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            // It comes before the type, which decides on the name.
            (Some("HELP"), Some(_), Some(rest)) => help = rest,
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                line(&["# HELP ", name, suffix, " ", help]);
                line(&["# TYPE ", name, suffix, " ", kind]);
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_named_as_its_samples_are() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# 1\"} 1\n# HELP b_seconds Time.\n\
                           # TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2\n# HELP c It.\n# TYPE c info\n\
                           c_info{v=\"1\"} 1\n# EOF\n";
        let plain_form = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# 1\"} 1\n# HELP b_seconds Time.\n\
                          # TYPE b_seconds gauge\nb_seconds 2\n# HELP c_info It.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(plain(openmetrics), plain_form);
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Exposition::accepted(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::accepted(Some("*/*")), Exposition::Plain);
        assert_eq!(Exposition::accepted(None), Exposition::Plain);
    }
}
