//! YAML text as a tree whose every node knows its place.
//!
//! The only file that knows the YAML parser. It bounds what a file may cost: its size, its nodes with all aliases
//! counted as if they were written out, and its depth. What the nodes mean is for the `reader` to say.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, Span, Tag};

use super::excerpt::Stretch;
use super::problem::{Place, Problem, REST};

/// Bytes that a file may have.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Nodes that a file may have, each alias counted as what it stands for. A node stands for up to 64 bytes.
const MAX_NODES: usize = 50_000;
/// Levels that a file may have. Aliases nest deeper than the text does, and a tree is dropped by recursion.
const MAX_DEPTH: usize = 32;

/// A node and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
    nodes: usize,
    depth: usize,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Content {
    /// A scalar as text. `plain` tells `true` from `"true"`.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Rc<Node>>),
    /// A mapping in the order of the file, duplicates and all.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    fn new(place: Place, content: Content) -> Self {
        let (nodes, depth) = match &content {
            Content::Scalar { text, .. } => (1 + text.len() / 64, 1),
            Content::List(items) => measure(items.iter()),
            Content::Map(entries) => measure(entries.iter().flat_map(|(key, value)| [key, value])),
        };
        Self { place, content, nodes, depth }
    }

    /// A mapping without entries: what an empty file holds.
    pub fn empty() -> Self {
        Self::new(Place { line: 1, column: 1, width: 1 }, Content::Map(Vec::new()))
    }
}

fn measure<'n>(children: impl Iterator<Item = &'n Rc<Node>>) -> (usize, usize) {
    children.fold((1, 1), |(nodes, depth), child| (nodes + child.nodes, depth.max(child.depth + 1)))
}

/// The tree of `text`; an empty file is an empty mapping.
///
/// # Errors
/// The first thing that is not YAML, or is more of it than we take.
pub(super) fn parse(text: &str) -> Result<Rc<Node>, Problem> {
    if text.len() > MAX_BYTES {
        let size = text.len();
        return Err(problem(None, format!("the file has {size} bytes"), "keep it below 1 MiB"));
    }
    // The parser takes U+0000 for the end of the file and would leave out what follows.
    let unreadable = |char: char| char.is_control() && !"\t\n\r\u{85}".contains(char);
    if let Some(found) = text.find(unreadable) {
        let line_start = text[..found].rfind('\n').map_or(0, |newline| newline + 1);
        let place = Place {
            line: text[..found].matches('\n').count() + 1,
            column: text[line_start..found].chars().count() + 1,
            width: 1,
        };
        let instead = "save the file as UTF-8 text, or write the character as an escape in double quotes";
        return Err(problem(Some(place), "a control character stands here".to_owned(), instead));
    }
    Builder::default().build(text)
}

/// Where the scalars of a text are that [`parse`] took.
pub(super) fn scalars(text: &str) -> Vec<Stretch> {
    let events = Parser::new_from_str_with_options(text, Options::default()).map_while(Result::ok);
    let scalars = events.filter(|(event, _)| matches!(event, Event::Scalar(..)));
    let place = |at: Marker| (at.line().max(1), at.col() + 1);
    scalars.map(|(_, span)| Stretch { start: place(span.start), end: place(span.end) }).collect()
}

fn problem(place: Option<Place>, message: String, instead: &str) -> Problem {
    Problem { subject: String::new(), message, place, instead: instead.to_owned() }
}

/// A collection that is not closed yet.
struct Open {
    place: Place,
    anchor: usize,
    children: Vec<Rc<Node>>,
    is_map: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Rc<Node>, Problem> {
        let mut documents = 0;
        for next in Parser::new_from_str_with_options(text, Options::default()) {
            let (event, span) = next.map_err(|error| {
                let place =
                    Place { line: error.marker().line().max(1), column: error.marker().col() + 1, width: 1 };
                let instead = remedy(error.kind());
                problem(Some(place), format!("not YAML: {}", error.info()), instead)
            })?;
            let place = place(&span);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let instead = "keep one document: remove this and what follows";
                        return Err(problem(
                            Some(place),
                            "a second document begins here".to_owned(),
                            instead,
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), place)?;
                    self.close(anchor, Node::new(place, Content::Scalar { text: text.into_owned(), plain }))?;
                }
                Event::SequenceStart(_, anchor, tag) => self.open(false, anchor, place, tag.as_deref())?,
                Event::MappingStart(_, anchor, tag) => self.open(true, anchor, place, tag.as_deref())?,
                Event::SequenceEnd | Event::MappingEnd => {
                    let Open { place, anchor, children, is_map } =
                        self.open.pop().expect("the parser closes only what it opened");
                    let content =
                        if is_map { Content::Map(pairs(children)) } else { Content::List(children) };
                    self.close(anchor, Node::new(place, content))?;
                }
                Event::Alias(anchor) => {
                    let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
                        let message = "this alias stands for something that it is part of".to_owned();
                        return Err(problem(Some(place), message, "write the value out"));
                    };
                    // As if it were written out here.
                    let nodes = node.nodes;
                    self.put(node, nodes, place)?;
                }
                _ => {}
            }
        }
        Ok(self.root.unwrap_or_else(|| Rc::new(Node::empty())))
    }

    fn open(&mut self, is_map: bool, anchor: usize, place: Place, tag: Option<&Tag>) -> Result<(), Problem> {
        is_text(tag, place)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.open.push(Open { place, anchor, children: Vec::new(), is_map });
        Ok(())
    }

    /// A node is complete: aliases may stand for it from here on.
    fn close(&mut self, anchor: usize, node: Node) -> Result<(), Problem> {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        // A collection's children were counted when they were put into it.
        let nodes = if matches!(node.content, Content::Scalar { .. }) { node.nodes } else { 1 };
        let place = node.place;
        self.put(node, nodes, place)
    }

    fn put(&mut self, node: Rc<Node>, nodes: usize, place: Place) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values, aliases written out");
            return Err(problem(Some(place), message, "shorten it here or before"));
        }
        if self.open.len() + node.depth > MAX_DEPTH {
            return Err(too_deep(place));
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

fn too_deep(place: Place) -> Problem {
    problem(
        Some(place),
        format!("nested deeper than {MAX_DEPTH} levels"),
        "no key lies that deep: flatten it",
    )
}

/// What mostly helps against an error of the parser.
fn remedy(error: &ErrorKind) -> &'static str {
    use ErrorKind as Error;
    match error {
        Error::TabNotAllowed | Error::TabInBlockIndentation | Error::TabInIndentation => {
            "indent with spaces: YAML forbids tabs"
        }
        Error::TabInPlainScalar => "a tab stands behind this, maybe before the next key: write spaces",
        Error::MappingValueNotAllowed => {
            "indent this line as the keys beside it, one key to a line, and quote text that holds a colon and a space"
        }
        Error::InvalidIndentation | Error::ExpectedBlockMappingKey => {
            "indent this line as the keys beside it; items of a list stand below a key of their own"
        }
        Error::ExpectedBlockSequenceEntry => {
            "indent this line as the keys of the item above it, or begin an item with `- `"
        }
        Error::SimpleKeyExpected => "write a colon behind the key, and a space behind the colon",
        Error::ExpectedFlowMappingSeparator | Error::UnexpectedEofFlowMapping => {
            "close the { before, put a comma here, or quote text that holds a colon and a space"
        }
        Error::ExpectedFlowSequenceSeparator
        | Error::UnexpectedEofFlowSequence
        | Error::InvalidColonPlacement
        | Error::UnclosedFlowCollection { .. } => "close the [ or { before, or put a comma here",
        Error::MisplacedFlowCollectionEnd | Error::MismatchedFlowCollectionEnd { .. } => {
            "remove this bracket, or open it before"
        }
        Error::UnexpectedCharacter { .. } => "quote text that begins with this character",
        Error::UnknownAnchor => "quote text that begins with *, or define the anchor above",
        Error::UnclosedQuotedScalar | Error::InvalidQuotedScalarIndent => "close the quote before",
        Error::UnknownQuotedScalarEscape => "write \\\\ for a backslash, or use single quotes",
        _ => "correct the YAML here or just before",
    }
}

/// Keys and values from their alternation in the event stream.
fn pairs(children: Vec<Rc<Node>>) -> Vec<(Rc<Node>, Rc<Node>)> {
    let mut children = children.into_iter();
    let mut pairs = Vec::new();
    while let (Some(key), Some(value)) = (children.next(), children.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// Whether a tag makes a plain scalar text (`!!str 1`).
fn is_text(tag: Option<&Tag>, place: Place) -> Result<bool, Problem> {
    match tag.map(|tag| (tag.core_suffix(), tag)) {
        None => Ok(false),
        Some((Some("str"), _)) => Ok(true),
        Some((Some("int" | "float" | "bool" | "null" | "seq" | "map"), _)) => Ok(false),
        Some(_) => {
            // It may be a password: they like to begin with an exclamation mark.
            let instead = "leave the tag out, or quote text that begins with !";
            Err(problem(Some(place), "this tag is not known".to_owned(), instead))
        }
    }
}

fn place(span: &Span) -> Place {
    let (start, end) = (span.start, span.end);
    let width = match start.line() == end.line() {
        true => end.col().saturating_sub(start.col()).max(1),
        false => REST,
    };
    Place { line: start.line().max(1), column: start.col() + 1, width }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(text: &str) -> Vec<(String, bool, Place)> {
        fn walk(node: &Node, out: &mut Vec<(String, bool, Place)>) {
            match &node.content {
                Content::Scalar { text, plain } => out.push((text.clone(), *plain, node.place)),
                Content::List(items) => items.iter().for_each(|item| walk(item, out)),
                Content::Map(entries) => entries.iter().for_each(|(key, value)| {
                    walk(key, out);
                    walk(value, out);
                }),
            }
        }
        let mut out = Vec::new();
        walk(&parse(text).unwrap(), &mut out);
        out
    }

    fn refused(text: &str) -> Problem {
        parse(text).expect_err("this should be refused")
    }

    #[test]
    fn every_scalar_knows_its_place_and_whether_it_is_plain() {
        let place = |line, column, width| Place { line, column, width };
        assert_eq!(
            scalars("a: b  # c\ném: [\"x\", !!str 1]\n"),
            [
                ("a".to_owned(), true, place(1, 1, 1)),
                ("b".to_owned(), true, place(1, 4, 1)),
                ("ém".to_owned(), true, place(2, 1, 2)),
                ("x".to_owned(), false, place(2, 6, 3)),
                ("1".to_owned(), false, place(2, 17, 1)),
            ]
        );
    }

    #[test]
    fn an_alias_stands_for_its_anchor() {
        let texts: Vec<String> = scalars("a: &x [1, 2]\nb: *x\n").into_iter().map(|found| found.0).collect();
        assert_eq!(texts, ["a", "1", "2", "b", "1", "2"]);
    }

    #[test]
    fn aliases_that_multiply_are_stopped() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let item = format!("*a{}, ", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", item.repeat(10));
        }
        assert!(refused(&bomb).message.contains("values"));
        let big = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(1_000));
        assert!(refused(&big).message.contains("values"));
    }

    #[test]
    fn aliases_that_nest_are_stopped() {
        let chain: String =
            (1..2_000).map(|level| format!("a{level}: &a{level} [*a{}]\n", level - 1)).collect();
        assert!(refused(&format!("a0: &a0 x\n{chain}")).message.contains("nested"));
        assert!(refused(&("[".repeat(200) + &"]".repeat(200))).message.contains("nested"));
        assert!(refused(&"- ".repeat(200)).message.contains("nested"));
        assert!(refused("a: &a [*a]").message.contains("alias"));
    }

    #[test]
    fn a_megabyte_of_anything_ends_quickly() {
        let started = std::time::Instant::now();
        for unit in [
            "[", "{a: ", "- ", "a: b\n", "? ", "&a ", "*a ", "!x ", "\"", "'", "#", "\n", " ", "%TAG ", "| ",
            "- - - \n",
        ] {
            let _ = parse(&unit.repeat(MAX_BYTES / unit.len()));
        }
        assert!(started.elapsed().as_secs() < 20, "took {:?}", started.elapsed());
    }

    #[test]
    fn what_is_not_one_yaml_document_is_refused_with_its_place() {
        assert_eq!(refused("a: [1\nb: 2").place.map(|place| place.line), Some(2));
        assert_eq!(refused("a: 1\n---\nb: 2").place.map(|place| place.line), Some(2));
        assert_eq!(refused("a: 1\nb: \0").place, Some(Place { line: 2, column: 4, width: 1 }));
        assert!(refused("a: !secret x").message.contains("tag"));
        assert!(refused(&"x".repeat(MAX_BYTES + 1)).message.contains("bytes"));
    }
}
