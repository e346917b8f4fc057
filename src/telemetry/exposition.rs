//! The two text forms of the metrics page, and how a scraper asks for one (PRM-1).
//!
//! `prometheus-client` writes OpenMetrics only, so the older Prometheus text is made from that here. What is on
//! the page is decided in [`metrics`](super::metrics).

/// A text form of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
    /// Prometheus text 0.0.4, which has no exemplars (PRM-2). What everybody gets who does not ask.
    Text,
}

impl Exposition {
    /// The form that an `Accept` header asks for; several header lines are joined with a comma first.
    pub fn from_accept(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Exposition::Text };
        let open = quality(accept, "application/openmetrics-text", &["1.0.0"]);
        // Prometheus 3 names its text 1.0.0 where names are quoted; ours never need that, and it lists 0.0.4 too.
        let text = quality(accept, "text/plain", &["0.0.4"]);
        match open > 0.0 && open >= text {
            true => Exposition::OpenMetrics,
            false => Exposition::Text,
        }
    }

    /// The `Content-Type` of this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// How much a header of the `Accept` family wants `name`, from 0 (not at all, or not named) to 1. An element
/// with a `version` counts only where `versions` has it. Wildcards do not count: nobody asks for a particular
/// form with them.
pub fn quality(header: &str, name: &str, versions: &[&str]) -> f32 {
    let mut best = 0.0_f32;
    for element in header.split(',') {
        let mut parts = element.split(';').map(str::trim);
        if !parts.next().is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            continue;
        }
        let mut weight = 1.0;
        let mut known = true;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                // A weight that cannot be read asks for nothing; `NaN` and the like end here as well.
                "q" => weight = value.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0),
                "version" => known = versions.contains(&value.trim().trim_matches('"')),
                _ => {}
            }
        }
        if known {
            best = best.max(weight);
        }
    }
    best
}

/// Prometheus text 0.0.4 of an OpenMetrics page: counters and infos are named as their samples are, exemplars,
/// units and the end mark are left out.
pub(super) fn text_from_openmetrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    // HELP comes before TYPE, and only TYPE says what the family's name becomes.
    let mut help: Option<(&str, &str)> = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(helped, _)| *helped == family) {
                out.extend(["# HELP ", family, suffix, " ", words, "\n"]);
            }
            out.extend(["# TYPE ", family, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') && !line.is_empty() {
            out.extend([without_exemplar(line), "\n"]);
        }
    }
    out
}

/// The sample without ` # {…} …` behind it. A `#` may also stand in a label's value, between quotes.
fn without_exemplar(sample: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in sample.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return sample[..index].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_openmetrics_and_a_browser_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Exposition::from_accept(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::from_accept(Some("text/html,*/*;q=0.8")), Exposition::Text);
        assert_eq!(Exposition::from_accept(None), Exposition::Text);
    }

    #[test]
    fn weights_decide_between_the_two_forms() {
        let asked = |accept| Exposition::from_accept(Some(accept));
        assert_eq!(asked("application/openmetrics-text"), Exposition::OpenMetrics);
        assert_eq!(
            asked("Application/OpenMetrics-Text ; Version=\"1.0.0\" , text/plain"),
            Exposition::OpenMetrics
        );
        assert_eq!(asked("application/openmetrics-text;q=0.2, text/plain;q=0.7"), Exposition::Text);
        assert_eq!(asked("application/openmetrics-text;q=0"), Exposition::Text);
        assert_eq!(asked("application/openmetrics-text;q=NaN"), Exposition::Text);
        assert_eq!(asked("application/openmetrics-text;version=2.0.0"), Exposition::Text);
    }

    #[test]
    fn text_names_counters_and_infos_as_their_samples() {
        let open = "# HELP a Counts.\n# TYPE a counter\na_total{x=\"1\"} 3 # {trace_id=\"00\"} 1.0 5.5\n\
            # HELP target Who.\n# TYPE target info\ntarget_info{s=\"x\"} 1\n\
            # HELP b_seconds Time.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 0.5\n# EOF\n";
        let text = "# HELP a_total Counts.\n# TYPE a_total counter\na_total{x=\"1\"} 3\n\
            # HELP target_info Who.\n# TYPE target_info gauge\ntarget_info{s=\"x\"} 1\n\
            # HELP b_seconds Time.\n# TYPE b_seconds histogram\nb_seconds_sum 0.5\n";
        assert_eq!(text_from_openmetrics(open), text);
    }

    #[test]
    fn a_hash_in_a_label_is_no_exemplar() {
        let sample = r#"a_total{route="/x\" # {y \\"} 3"#;
        assert_eq!(without_exemplar(sample), sample);
        assert_eq!(without_exemplar(&format!("{sample} # {{trace_id=\"0\"}} 0.5")), sample);
    }
}
