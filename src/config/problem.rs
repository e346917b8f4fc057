//! What is wrong with a configuration, where, and what to write instead.
//!
//! A [`Problem`] is one finding; [`Problems`] is the report of all of them, as text for a tired reader: the thing,
//! its place, the line with a caret under it, and the next step.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use super::excerpt::Excerpts;
use super::origin::Origins;

/// Findings that are kept and shown; further ones are only counted.
const SHOWN: usize = 50;
/// Characters of a line that an excerpt shows.
const EXCERPT: usize = 120;
/// Characters of a value that a message quotes.
const QUOTED: usize = 80;

/// A width that reaches to the end of any line.
pub(super) const REST: usize = 1 << 24;

/// A stretch of one line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters, at least 1.
    pub width: usize,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// What it is about: a YAML path such as `inbound[0].to`, or a flag. Empty for the file as a whole.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
    /// Where it is written, where it is written in the file.
    pub place: Option<Place>,
    /// What to write instead.
    pub instead: String,
}

/// All findings of one load, as they are gathered.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Problem>,
    more: usize,
}

impl Findings {
    pub fn add(&mut self, problem: Problem) {
        // A hostile file can hold a hundred thousand unknown keys; nobody reads the report of all of them.
        match self.is_full() {
            true => self.more += 1,
            false => self.kept.push(problem),
        }
    }

    /// Whether further findings are only counted, so that no thought need go into their words.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= SHOWN
    }

    /// Adds the places of values that are written in the file to findings about them that have none.
    pub fn locate(&mut self, origins: &Origins) {
        for problem in self.kept.iter_mut().filter(|problem| problem.place.is_none()) {
            problem.place = origins.place(&problem.subject);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether anything was found in the value at `path` or below it.
    pub fn touch(&self, path: &str) -> bool {
        self.kept.iter().any(|problem| {
            problem
                .subject
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// The report: the file's name, and what of its lines may be seen.
    pub fn report(mut self, file: Option<(&str, Excerpts<'_>)>) -> Problems {
        // In the order of the file, as one reads it; what has no place in it comes last.
        self.kept.sort_by_key(|problem| problem.place.map_or((usize::MAX, 0), |at| (at.line, at.column)));
        let count = self.kept.len() + self.more;
        let noun = if count == 1 { "problem" } else { "problems" };
        let (name, mut excerpts) = file.unzip();
        let mut text = String::new();
        for problem in &self.kept {
            write_problem(&mut text, problem, name.zip(excerpts.as_mut()))
                .expect("writing to a string does not fail");
        }
        if self.more > 0 {
            let _ = writeln!(text, "and {} more that are not shown", self.more);
        }
        match name {
            Some(name) => text.push_str(&format!("{count} {noun} in {name}")),
            None => text.push_str(&format!("{count} {noun}")),
        }
        Problems { text, count, files: Vec::new() }
    }
}

fn write_problem(
    out: &mut String,
    problem: &Problem,
    file: Option<(&str, &mut Excerpts<'_>)>,
) -> fmt::Result {
    let Problem { subject, message, place, instead } = problem;
    match subject.is_empty() {
        true => writeln!(out, "error: {message}")?,
        false => writeln!(out, "error: {subject}: {message}")?,
    }
    let (Some(place), Some((name, excerpts))) = (place, file) else {
        return writeln!(out, "  = {instead}\n");
    };
    writeln!(out, "  --> {name}:{}:{}", place.line, place.column)?;
    let (excerpt, column) = excerpt(excerpts.line(place.line), place);
    let carets = "^".repeat(place.width.clamp(1, excerpt.chars().count().saturating_sub(column).max(1)));
    writeln!(out, "{:>4} | {excerpt}", place.line)?;
    writeln!(out, "     | {:column$}{carets} {instead}\n", "")
}

/// What is shown of the line of a place, and the column of the place in it, from 0.
fn excerpt(line: &[char], place: &Place) -> (String, usize) {
    // Long lines are cut to a window in which the place stands a third of the way in.
    let start = match line.len() > EXCERPT {
        true => (place.column - 1).saturating_sub(EXCERPT / 3),
        false => 0,
    };
    let excerpt: String = line.iter().skip(start).take(EXCERPT).collect();
    (excerpt.trim_end().to_owned(), place.column - 1 - start)
}

/// Covers the `user:password` of every URL, keeping its width.
pub(super) fn mask_userinfo(text: &mut [char]) {
    let mut start = 0;
    while let Some(found) = text[start..].windows(3).position(|window| window == [':', '/', '/']) {
        start += found + 3;
        let ends = |char: &char| char.is_whitespace() || "/?#\"'".contains(*char);
        let end = text[start..].iter().position(ends).map_or(text.len(), |length| start + length);
        if let Some(at) = text[start..end].iter().rposition(|&char| char == '@') {
            text[start..start + at].fill('*');
        }
    }
}

/// `text` in quotes for a message: without control characters, passwords in URLs, or its end if it is long.
pub(super) fn quote(text: &str) -> String {
    // Covered before it is cut, for a password may reach over the cut.
    let mut shown: Vec<char> = text.chars().collect();
    mask_userinfo(&mut shown);
    let shown: String = shown.into_iter().take(QUOTED).collect();
    match text.chars().nth(QUOTED) {
        Some(_) => format!("{:?}", shown + "…"),
        None => format!("{shown:?}"),
    }
}

/// Everything that is wrong with a configuration. Displays as the whole report, which ends in a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    text: String,
    count: usize,
    /// Files that keys name, as far as they could be read.
    pub(super) files: Vec<PathBuf>,
}

impl Problems {
    /// Files that the settings name, as [`Loaded::files`](super::Loaded::files) has them: one that is missing now may
    /// come.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::super::excerpt::Seen;
    use super::super::file::File;
    use super::super::tree;
    use super::super::value::Keys;
    use super::*;

    fn report(text: &str, place: Place, seen: &[(Place, Seen)]) -> String {
        let mut findings = Findings::default();
        let (subject, message, instead) = ("a.b".into(), "is wrong".into(), "write c".into());
        findings.add(Problem { subject, message, place: Some(place), instead });
        let excerpts = Excerpts::new(text, Some(tree::scalars(text)), seen, File::SECTION);
        findings.report(Some(("t.yaml", excerpts))).to_string()
    }

    #[test]
    fn a_problem_shows_its_line_with_carets_under_the_value() {
        let (key, place) = (Place { line: 2, column: 3, width: 1 }, Place { line: 2, column: 6, width: 3 });
        let text = report("a:\n  b: xyz\n", place, &[(key, Seen::All), (place, Seen::All)]);
        assert_eq!(
            text,
            "error: a.b: is wrong\n  --> t.yaml:2:6\n   2 |   b: xyz\n     |      ^^^ write c\n\n1 problem in t.yaml"
        );
    }

    #[test]
    fn a_secret_on_the_same_line_is_not_shown() {
        let (key, secret) = (Place { line: 1, column: 1, width: 2 }, Place { line: 1, column: 5, width: 6 });
        let text = report("to: s3cret # s3cret", key, &[(secret, Seen::Never), (secret, Seen::All)]);
        assert!(text.contains("to: ****** #*******\n"), "{text}");
        let url = Place { line: 1, column: 5, width: 18 };
        let text = report("to: http://me:pw@host/", url, &[(url, Seen::Url)]);
        assert!(text.contains("to: http://*****@host/"), "{text}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}here{}", " x".repeat(5000), " y".repeat(5000));
        let (all, place) =
            (Place { line: 1, column: 1, width: REST }, Place { line: 1, column: 10_001, width: 4 });
        let text = report(&line, place, &[(all, Seen::All)]);
        assert!(text.contains("here") && text.len() < 500, "{text}");
    }

    #[test]
    fn a_place_behind_the_end_of_the_file_is_no_panic() {
        report("", Place { line: 7, column: 900, width: 900 }, &[]);
    }
}
