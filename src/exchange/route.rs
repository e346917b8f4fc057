//! Path templates and exclusion rules.
//!
//! A route is a template such as `/models/{id}`: it gives a span its low-cardinality name (SEM-26). A path that
//! matches none has no route, and its span is named by the method alone (SEM-6).

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use http::Method;
use thiserror::Error;

/// A template or rule that cannot be used.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The template is not one, or contradicts an earlier one.
    #[error("route {template:?} cannot be used: {reason}")]
    Template {
        /// As written.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pattern is not a glob.
    #[error("pattern {pattern:?} cannot be used: {reason}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One rule for requests that are passed on without a trace. All that it names must match.
#[derive(Clone, Debug, Default)]
pub struct Exclusion {
    path: Option<GlobMatcher>,
    method: Option<String>,
    user_agent: Option<GlobMatcher>,
}

impl Exclusion {
    /// A rule of what is given. In a path glob `*` stays within a segment and `**` crosses them; in a user agent
    /// `*` matches anything. Methods match case-sensitively.
    ///
    /// # Errors
    /// Names the pattern that is not a glob.
    pub fn new(
        path: Option<&str>,
        method: Option<&str>,
        user_agent: Option<&str>,
    ) -> Result<Self, RouteError> {
        Ok(Self {
            path: path.map(|pattern| glob(pattern, true)).transpose()?,
            method: method.map(str::to_owned),
            user_agent: user_agent.map(|pattern| glob(pattern, false)).transpose()?,
        })
    }

    fn matches(&self, method: &Method, path: &str, user_agent: Option<&str>) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method.as_str())
            && self.path.as_ref().is_none_or(|pattern| pattern.is_match(path))
            && self
                .user_agent
                .as_ref()
                .is_none_or(|pattern| user_agent.is_some_and(|agent| pattern.is_match(agent)))
    }
}

fn glob(pattern: &str, segments: bool) -> Result<GlobMatcher, RouteError> {
    GlobBuilder::new(pattern)
        .literal_separator(segments)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| RouteError::Pattern {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        })
}

/// What the rules say of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The template that the path matches.
    pub route: Option<Arc<str>>,
    /// Whether a rule excludes the request.
    pub excluded: bool,
}

/// All templates and exclusion rules.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    templates: matchit::Router<Arc<str>>,
    any: bool,
    exclusions: Vec<Exclusion>,
}

impl Routes {
    /// Rules of `templates` (`/models/{id}`, `/files/{*rest}`) and `exclusions`.
    ///
    /// # Errors
    /// Names the template that is malformed or contradicts an earlier one.
    pub fn new<T: AsRef<str>>(templates: &[T], exclusions: Vec<Exclusion>) -> Result<Self, RouteError> {
        let mut routes = Self { any: !templates.is_empty(), exclusions, ..Self::default() };
        for template in templates.iter().map(AsRef::as_ref) {
            let bad = |reason: String| RouteError::Template { template: template.to_owned(), reason };
            if !template.starts_with('/') {
                return Err(bad("it must begin with /".to_owned()));
            }
            routes.templates.insert(template, template.into()).map_err(|error| bad(error.to_string()))?;
        }
        Ok(routes)
    }

    /// What the rules say of a request. `path` is without its query.
    pub fn find(&self, method: &Method, path: &str, user_agent: Option<&str>) -> Match {
        Match {
            route: self.any.then(|| self.templates.at(path).ok().map(|found| found.value.clone())).flatten(),
            excluded: self.exclusions.iter().any(|rule| rule.matches(method, path, user_agent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(templates: &[&str], exclusions: Vec<Exclusion>) -> Routes {
        Routes::new(templates, exclusions).unwrap()
    }

    #[test]
    fn a_literal_segment_beats_a_parameter() {
        let routes = routes(&["/models/{id}", "/models/latest"], Vec::new());
        let find = |path| routes.find(&Method::GET, path, None).route;
        assert_eq!(find("/models/7").as_deref(), Some("/models/{id}"));
        assert_eq!(find("/models/latest").as_deref(), Some("/models/latest"));
        assert_eq!(find("/models/7/"), None);
        assert_eq!(find("/other"), None);
    }

    #[test]
    fn a_template_that_contradicts_an_earlier_one_is_named() {
        let error = Routes::new(&["/a/{x}", "/a/{y}"], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/a/{y}"), "{error}");
        assert!(Routes::new(&["models/{id}"], Vec::new()).is_err());
    }

    #[test]
    fn an_exclusion_needs_all_that_it_names() {
        let rule = Exclusion::new(Some("/health/*"), Some("GET"), Some("kube-probe/*")).unwrap();
        let routes = routes(&[], vec![rule]);
        let excluded = |method, path, agent| routes.find(&method, path, agent).excluded;
        assert!(excluded(Method::GET, "/health/live", Some("kube-probe/1.31")));
        assert!(!excluded(Method::POST, "/health/live", Some("kube-probe/1.31")));
        assert!(!excluded(Method::GET, "/health/live/deep", Some("kube-probe/1.31")));
        assert!(!excluded(Method::GET, "/health/live", None));
    }

    #[test]
    fn a_user_agent_glob_crosses_slashes() {
        let rule = Exclusion::new(None, None, Some("ELB-*")).unwrap();
        assert!(routes(&[], vec![rule]).find(&Method::GET, "/", Some("ELB-HealthChecker/2.0")).excluded);
    }
}
