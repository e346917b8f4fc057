//! As much of HTML as it takes to read an error page: its title, its first heading, and its text by lines.
//!
//! It is no parser of HTML. A tag is what stands between `<` and `>`; scripts and styles are left out; entities are
//! decoded. Every byte is looked at a bounded number of times, whatever the page is.

/// Names of elements that begin a line, and end one.
const BLOCKS: [&str; 31] = [
    "address",
    "article",
    "blockquote",
    "body",
    "br",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "header",
    "hr",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "td",
    "textarea",
    "tr",
    "ul",
];

/// What a page says.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The title, on one line.
    pub(super) title: String,
    /// The first `h1` and `h2`, on one line each.
    pub(super) heading: String,
    pub(super) subheading: String,
    /// The text as lines, without blank ones at their ends; inside of `pre` and `textarea` as it is written.
    pub(super) text: String,
    /// What comments say that hold a trace: Werkzeug and Ignition put one there for readers without a browser.
    pub(super) comments: String,
}

/// Text that grows as a browser would lay it out.
#[derive(Default)]
struct Layout {
    text: String,
    /// How many `pre` and `textarea` are open.
    verbatim: usize,
}

impl Page {
    pub(super) fn parse(html: &str) -> Page {
        let mut page = Page::default();
        let mut layout = Layout::default();
        let mut rest = html;
        // Where the text of the title and the headings begins, while one is open.
        let mut opened: Option<(String, usize)> = None;
        while let Some((before, tag)) = rest.split_once('<') {
            layout.push(before);
            if let Some(comment) = tag.strip_prefix("!--") {
                let (comment, after) = comment.split_once("-->").unwrap_or((comment, ""));
                if ["Traceback (", "#0 ", " in file ", "Stack trace"]
                    .iter()
                    .any(|mark| comment.contains(mark))
                {
                    page.comments.push_str(&decoded(comment));
                    page.comments.push('\n');
                }
                rest = after;
                continue;
            }
            let Some((tag, after)) = tag.split_once('>') else {
                rest = "";
                break;
            };
            rest = after;
            let closing = tag.starts_with('/');
            let name: String = tag
                .trim_start_matches('/')
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .take(16)
                .collect();
            let name = name.to_ascii_lowercase();
            if !closing && matches!(name.as_str(), "script" | "style" | "svg") && !tag.ends_with('/') {
                rest = after_closing(rest, &name);
                continue;
            }
            if closing && let Some((_, start)) = opened.take_if(|(open, _)| *open == name) {
                page.note(&name, layout.text.get(start..).unwrap_or_default());
            }
            if BLOCKS.contains(&name.as_str()) || name == "title" {
                layout.end_line();
            }
            if matches!(name.as_str(), "pre" | "textarea") {
                layout.verbatim = if closing {
                    layout.verbatim.saturating_sub(1)
                } else {
                    layout.verbatim.saturating_add(1)
                };
            }
            if !closing && opened.is_none() && matches!(name.as_str(), "title" | "h1" | "h2") {
                opened = Some((name, layout.text.len()));
            }
        }
        layout.push(rest);
        page.text = layout.text;
        page
    }

    fn note(&mut self, name: &str, text: &str) {
        let place = match name {
            "title" => &mut self.title,
            "h1" => &mut self.heading,
            _ => &mut self.subheading,
        };
        if place.is_empty() {
            *place = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    }
}

impl Layout {
    fn push(&mut self, raw: &str) {
        let text = decoded(raw);
        if self.verbatim > 0 {
            self.text.push_str(&text);
            return;
        }
        if text.starts_with(char::is_whitespace) {
            self.space();
        }
        for (index, word) in text.split_whitespace().enumerate() {
            if index > 0 {
                self.space();
            }
            self.text.push_str(word);
        }
        if text.ends_with(char::is_whitespace) {
            self.space();
        }
    }

    fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
            self.text.push(' ');
        }
    }

    fn end_line(&mut self) {
        if self.verbatim == 0 && self.text.ends_with(' ') {
            self.text.pop();
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }
}

/// What follows the end of the element `name`.
fn after_closing<'a>(html: &'a str, name: &str) -> &'a str {
    let mut rest = html;
    while let Some((_, after)) = rest.split_once("</") {
        if after.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
            return after.split_once('>').map_or("", |(_, after)| after);
        }
        rest = after;
    }
    ""
}

/// The text of the element whose start tag has `marker` in it, up to the first end tag of the element's name; on one
/// line.
pub(super) fn element(html: &str, marker: &str) -> Option<String> {
    let upto = html.get(..html.find(marker)?.saturating_add(marker.len()))?;
    let tag = html.get(upto.rfind('<')?.saturating_add(1)..)?;
    let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
    let content = tag.split_once('>')?.1;
    let content = content.split_once(&format!("</{name}")).map_or(content, |(content, _)| content);
    let text = Page::parse(content).text;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}

/// `text` with its entities decoded: those of XML, the numbers, and the few names that error pages have.
pub(super) fn decoded(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        plain.push_str(before);
        let name: String =
            entity.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '#').take(10).collect();
        // Starlette leaves the semicolon of this one away.
        let name = if name.starts_with("nbsp") { "nbsp" } else { &name };
        match character(name) {
            Some(character) => {
                plain.push(character);
                let after = entity.get(name.len()..).unwrap_or_default();
                rest = after.strip_prefix(';').unwrap_or(after);
            }
            None => {
                plain.push('&');
                rest = entity;
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" | "lsquo" | "rsquo" => '\'',
        "ldquo" | "rdquo" => '"',
        "hellip" => '…',
        "ndash" => '–',
        "mdash" => '—',
        "nbsp" => ' ',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|c| *c != '\0').map(|c| if c == '\u{a0}' { ' ' } else { c })?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_laid_out_by_lines() {
        let page = Page::parse(
            "<html><head><title>\n A\n  B</title><style>p > a</style></head><body><h1>One <b>two</b></h1><p>a\n  b<br>c</p>\
             <pre>x\n  y</pre><script>if (a<b) {}</script>&lt;d&gt;&#39;&#x2F;&nbspe&unknown; <!-- no --></body>",
        );
        assert_eq!((&*page.title, &*page.heading), ("A B", "One two"));
        assert_eq!(page.text, "A B\nOne two\na b\nc\nx\n  y\n<d>'/ e&unknown;\n");
    }

    #[test]
    fn comments_count_where_they_hold_a_trace() {
        let page =
            Page::parse("<!-- a --><!--\nTraceback (most recent call last):\n x&gt;--> after <!-- #0 cut");
        assert_eq!(page.comments, "\nTraceback (most recent call last):\n x>\n #0 cut\n");
        assert_eq!(page.text, "after ");
    }

    #[test]
    fn an_element_is_found_by_a_part_of_its_tag() {
        let html = "<p>x</p><pre class=\"exception_value\">a <b>&amp;</b>\nb</pre><pre>c</pre>";
        assert_eq!(element(html, "class=\"exception_value\""), Some("a & b".to_owned()));
        assert_eq!(element(html, "<pre>"), Some("c".to_owned()));
        assert_eq!(element(html, "class=\"other\""), None);
        assert_eq!(element("<pre class=\"v\">cut", "class=\"v\""), Some("cut".to_owned()));
    }
}
