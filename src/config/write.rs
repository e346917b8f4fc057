//! Values as YAML again: the configuration in effect, and the commented reference.

use super::origin::Origins;
use super::reader::step;
use super::value::{Field, Kind, Section, Shape};

/// Columns of a comment line in the reference.
const COMMENT_WIDTH: usize = 100;

/// A value on its way to YAML. Secrets are masked already.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    /// A scalar; `bare` where YAML's own type matters, as for `true` and `1`. `hidden` is a keyed hash of what the text
    /// masks.
    Scalar { text: String, bare: bool, hidden: Option<u64> },
    /// A sequence.
    List(Vec<Written>),
    /// A mapping.
    Map(Vec<(String, Written)>),
}

/// A document that loads to what it was written from, but for the secrets. With `origins` each line tells where its
/// value came from.
pub(super) fn document(written: &Written, origins: Option<&Origins>) -> String {
    let mut document = Document { out: String::new(), path: String::new(), origins };
    document.write(written, 0);
    document.out.trim_start_matches('\n').to_owned() + "\n"
}

/// A value on one line, as a message shows it.
pub(super) fn flow(written: &Written) -> String {
    let of = |written: &Written| match written {
        Written::Scalar { text, .. } => quoted(text),
        other => flow(other),
    };
    match written {
        Written::Scalar { text, .. } if text.is_empty() || text.contains(char::is_control) => quoted(text),
        Written::Scalar { text, .. } => text.clone(),
        Written::List(items) => format!("[{}]", items.iter().map(of).collect::<Vec<_>>().join(", ")),
        Written::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), of(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A document while it is written.
struct Document<'a> {
    out: String,
    /// The path of what is written.
    path: String,
    origins: Option<&'a Origins>,
}

impl Document<'_> {
    /// Writes what stands behind a `key:` or `-` of depth `depth - 1`.
    fn write(&mut self, written: &Written, depth: usize) {
        let indent = "  ".repeat(depth);
        match written {
            Written::Scalar { .. } => self.value(&scalar(written)),
            Written::List(items) if items.iter().all(|item| matches!(item, Written::Scalar { .. })) => {
                let items: Vec<String> = items.iter().map(scalar).collect();
                self.value(&format!("[{}]", items.join(", ")));
            }
            Written::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let start = self.out.len();
                    self.below(&format!("[{index}]"), item, depth + 1);
                    // The first key of a mapping stands beside its dash.
                    let item = self.out.split_off(start);
                    self.out.push_str(&format!("\n{indent}- {}", item.trim_start()));
                }
            }
            Written::Map(entries) if entries.is_empty() => self.value("{}"),
            Written::Map(entries) => {
                for (key, value) in entries {
                    self.out.push_str(&format!("\n{indent}{}:", quoted(key)));
                    self.below(&step(key), value, depth + 1);
                }
            }
        }
    }

    fn below(&mut self, step: &str, written: &Written, depth: usize) {
        let length = self.path.len();
        self.path.push_str(step);
        self.write(written, depth);
        self.path.truncate(length);
    }

    /// What ends a line.
    fn value(&mut self, text: &str) {
        self.out.push(' ');
        self.out.push_str(text);
        if let Some(origins) = self.origins {
            let origin = origins.of(self.path.trim_start_matches('.'));
            self.out.push_str(&format!("  # {origin}"));
        }
    }
}

fn scalar(written: &Written) -> String {
    match written {
        Written::Scalar { text, bare: true, .. } => text.clone(),
        // Values are substituted when they are read again; keys never are (CFG-3).
        Written::Scalar { text, .. } => quoted(&text.replace('$', "$$")),
        Written::List(_) | Written::Map(_) => flow(written),
    }
}

/// Text as a scalar that every YAML reader takes for text.
fn quoted(text: &str) -> String {
    let safe = |char: char| char.is_ascii_alphanumeric() || "_-./:*+=@;".contains(char);
    let plain = text.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '/')
        && text.chars().all(safe)
        && !text.ends_with(':')
        && !numeric(text)
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    match plain {
        true => text.to_owned(),
        // A JSON string is a YAML string, but YAML wants more characters escaped.
        false => {
            let json = serde_json::Value::from(text).to_string();
            let escape =
                |char: char| char.is_control() || "\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}".contains(char);
            json.chars()
                .map(
                    |char| {
                        if escape(char) { format!("\\u{:04x}", u32::from(char)) } else { char.to_string() }
                    },
                )
                .collect()
        }
    }
}

/// Whether some YAML reader may take `text` for a number, a time or a date.
fn numeric(text: &str) -> bool {
    let digits_first = text.starts_with(|char: char| char.is_ascii_digit());
    let odd = text.contains(['_', '-']) || text.contains(':') && !text.contains('.');
    text.parse::<f64>().is_ok()
        || digits_first && (odd || ["0x", "0o", "0b"].iter().any(|prefix| text.starts_with(prefix)))
}

/// The commented reference: every key with its default and its reason. Keys without a default, and examples, are
/// commented out.
pub(super) fn reference(section: &Section) -> String {
    let parts = section.fields.iter().map(|field| described(field, Shown::Default, 0).join("\n") + "\n");
    parts.collect::<Vec<_>>().join("\n")
}

/// What the reference shows of a key.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// Its default, and its example as a comment.
    Default,
    /// Its example, if it has one: the key is part of an example itself.
    Example,
}

/// The lines about a key, without the indentation of its `depth`.
fn described(field: &Field, shown: Shown, depth: usize) -> Vec<String> {
    let kind = (field.kind)();
    let mut doc = field.doc.to_owned();
    if let Kind::Leaf(Shape { names, .. }) = &kind
        && !names.is_empty()
    {
        doc += &format!(" One of: {}.", names.join(", "));
    }
    if let Some(reason) = field.fixed {
        doc += &format!(" Read at start only, for {reason}.");
    }
    let mut lines: Vec<String> =
        wrap(&doc, COMMENT_WIDTH - 2 * depth).map(|line| format!("# {line}")).collect();
    let name = field.name;
    let example = field.example.map(|example| format!("{name}: {example}"));
    let default = field.default.filter(|text| *text != "null").map(|text| format!("{name}: {text}"));
    match (kind, default, example) {
        // What is off unless it is written is shown as an example.
        (Kind::Section(section), ..) if field.default == Some("null") => {
            let inner = section.fields.iter().flat_map(|field| described(field, Shown::Example, depth + 1));
            let mut example = vec![format!("{name}:")];
            example.extend(inner.map(|line| format!("  {line}")));
            match shown {
                Shown::Default => lines.extend(example.iter().map(|line| format!("# {line}"))),
                Shown::Example => lines.extend(example),
            }
        }
        (Kind::Section(section), ..) => {
            lines.push(format!("{name}:"));
            let inner = section.fields.iter().flat_map(|field| described(field, shown, depth + 1));
            lines.extend(inner.map(|line| format!("  {line}")));
        }
        (Kind::List(item), default, _) if let Kind::Section(section) = *item => {
            // A key without a default is what the user has to say, so that it is no comment; but only at the top, for
            // nobody has to say more than that.
            let said = depth == 0 && section.fields.iter().any(|field| field.default.is_none());
            let example =
                list_example(name, section, if said { Shown::Default } else { Shown::Example }, depth);
            match said || shown == Shown::Example && default.is_none() {
                true => lines.extend(example),
                false => {
                    lines.extend(default);
                    lines.extend(example.iter().map(|line| format!("# {line}")));
                }
            }
        }
        (_, Some(default), example) if shown == Shown::Default => {
            lines.push(default);
            lines.extend(example.map(|example| format!("# {example}")));
        }
        (_, None, Some(example)) if shown == Shown::Default && field.default.is_some() => {
            lines.push(format!("# {example}"));
        }
        (_, default, example) => lines.extend(example.or(default)),
    }
    lines
}

/// A list with one item that shows all keys that an item can have.
fn list_example(name: &str, section: &Section, shown: Shown, depth: usize) -> Vec<String> {
    let mut lines = vec![format!("{name}:")];
    let mut dash = "- ";
    for line in section.fields.iter().flat_map(|field| described(field, shown, depth + 2)) {
        // The dash belongs to the first key, below the comment about it.
        let before = match line.starts_with('#') && !dash.trim().is_empty() {
            true => "",
            false => std::mem::replace(&mut dash, "  "),
        };
        lines.push(format!("  {before}{line}"));
    }
    lines
}

fn wrap(text: &str, width: usize) -> impl Iterator<Item = String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_looks_like_something_else_is_quoted() {
        for text in
            ["true", "Off", "1.10", "0x1F", "1e5", "12:30", "2026-01-01", "a: b", "#", "", "*", "a\nb", "1_0"]
        {
            assert!(quoted(text).starts_with('"'), "{text}");
        }
        for text in ["10s", "16MiB", "127.0.0.1:80", "http://a:1/b", "/a/*", "parentbased_always_on"] {
            assert_eq!(quoted(text), text);
        }
        assert_eq!(quoted("\u{7f}\u{feff}\n"), "\"\\u007f\\ufeff\\n\"");
    }

    #[test]
    fn a_dollar_sign_is_doubled_in_values_only() {
        let text = |text: &str| Written::Scalar { text: text.to_owned(), bare: false, hidden: None };
        assert_eq!(
            document(&Written::Map(vec![("$a".to_owned(), text("${B}"))]), None),
            "\"$a\": \"$${B}\"\n"
        );
    }
}
