//! Text → trees, one for each document of a file.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::{Key, Kind, Node};

/// More is no pod, and reading it would only take memory.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// With what aliases repeat.
const NODES_MAX: usize = 400_000;
const DEPTH_MAX: usize = 64;

/// Why a text is not YAML, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(crate) struct YamlError {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
}

impl YamlError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

/// Reads all documents of a text; empty ones are left out.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > BYTES_MAX {
        let most = BYTES_MAX >> 20;
        return Err(YamlError::new(
            1,
            format!("larger than {most} MiB, which no pod is"),
        ));
    }
    let options = granit_parser::options! {
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        emit_comments: false,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) =
            event.map_err(|error| YamlError::new(error.marker().line(), error.info()))?;
        builder.take(event, &span)?;
    }
    Ok(builder.documents)
}

/// A list or map that is not complete.
struct Open {
    kind: Kind,
    key: Option<Key>,
    names: BTreeSet<String>,
    line: usize,
    start: usize,
    flow: bool,
    anchor: usize,
}

/// Puts nodes together from the parser's events.
#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, _) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                let column = span.start.col();
                let node = node(kind, line, bytes(span), !plain);
                self.put(node, anchor, column)?;
            }
            Event::SequenceStart(style, anchor, _) => {
                self.start(Kind::List(Vec::new()), &style, anchor, span)?;
            }
            Event::MappingStart(style, anchor, _) => {
                self.start(Kind::Map(Vec::new()), &style, anchor, span)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span)?,
            Event::Alias(anchor) => {
                let Some(known) = self.anchors.get(&anchor) else {
                    return Err(YamlError::new(
                        line,
                        "an alias of something that contains it",
                    ));
                };
                if self.open.len() + depth(known) > DEPTH_MAX {
                    return Err(too_deep(line));
                }
                let copy = borrowed(known.clone());
                self.nodes += size(&copy);
                self.put(copy, 0, span.start.col())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn start(
        &mut self,
        kind: Kind,
        style: &StructureStyle,
        anchor: usize,
        span: &Span,
    ) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(span.start.line()));
        }
        self.open.push(Open {
            kind,
            key: None,
            names: BTreeSet::new(),
            line: span.start.line(),
            start: bytes(span).start,
            flow: matches!(style, StructureStyle::Flow),
            anchor,
        });
        Ok(())
    }

    fn end(&mut self, span: &Span) -> Result<(), YamlError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let kind = merged(open.kind);
        let node = node(kind, open.line, open.start..bytes(span).end, open.flow);
        self.put(node, open.anchor, span.start.col())
    }

    fn put(&mut self, node: Node, anchor: usize, column: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, those of aliases included");
            return Err(YamlError::new(node.line, message));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return Ok(());
        };
        match (&mut open.kind, open.key.take()) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(entries), Some(key)) => entries.push((key, node)),
            (Kind::Map(_), None) => {
                let key = key(node, column)?;
                let is_merge = key.text == "<<";
                if !is_merge && !open.names.insert(key.text.clone()) {
                    let message = format!("{} is there twice", key.text);
                    return Err(YamlError::new(key.line, message));
                }
                open.key = Some(key);
            }
            (Kind::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn node(kind: Kind, line: usize, span: std::ops::Range<usize>, flow: bool) -> Node {
    Node {
        kind,
        line,
        span,
        flow,
        borrowed: false,
    }
}

fn key(node: Node, column: usize) -> Result<Key, YamlError> {
    match node.kind {
        Kind::Scalar { text, .. } => Ok(Key {
            text,
            line: node.line,
            column,
            span: node.span,
        }),
        _ => Err(YamlError::new(node.line, "a list or map cannot be a name")),
    }
}

fn bytes(span: &Span) -> std::ops::Range<usize> {
    span.byte_range().unwrap_or_default()
}

fn borrowed(mut node: Node) -> Node {
    node.borrowed = true;
    node
}

fn too_deep(line: usize) -> YamlError {
    YamlError::new(line, format!("nested more than {DEPTH_MAX} deep"))
}

fn depth(node: &Node) -> usize {
    let inner = match &node.kind {
        Kind::Scalar { .. } => None,
        Kind::List(items) => items.iter().map(depth).max(),
        Kind::Map(entries) => entries.iter().map(|(_, value)| depth(value)).max(),
    };
    1 + inner.unwrap_or(0)
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| size(value)).sum::<usize>(),
    }
}

/// Puts the names of `<<` beside the others, which win.
fn merged(kind: Kind) -> Kind {
    let Kind::Map(entries) = kind else {
        return kind;
    };
    let (merges, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| key.text == "<<");
    let mut names: BTreeSet<String> = own.iter().map(|(key, _)| key.text.clone()).collect();
    for (_, from) in merges {
        let sources = match from.kind {
            Kind::List(items) => items,
            _ => vec![from],
        };
        for source in sources {
            let Kind::Map(more) = source.kind else {
                continue;
            };
            for (key, value) in more {
                if names.insert(key.text.clone()) {
                    own.push((key, borrowed(value)));
                }
            }
        }
    }
    Kind::Map(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn parts_know_their_lines_and_bytes() {
        let text = "# é\na:\n  b: [x, 'y']\n---\nc: 1\n";
        let documents = parse(text).unwrap();
        assert_eq!(documents.len(), 2);
        let list = documents[0].find("a.b").unwrap();
        assert_eq!(&text[list.span.clone()], "[x, 'y']");
        assert_eq!((list.line, list.flow), (3, true));
        assert_eq!(documents[1].get("c").unwrap().text(), Some("1"));
        assert_eq!(documents[0].line_of("a.b[1].z"), 3);
        assert_eq!(documents[1].line_of("c"), 5);
    }

    #[test]
    fn aliases_and_merges_are_what_they_refer_to() {
        let text = "x: &x {a: 1, b: 2}\ny: *x\nz: {<<: *x, b: 3}\n";
        let node = one(text);
        assert_eq!(node.find("y.a").unwrap().text(), Some("1"));
        assert!(node.find("y").unwrap().borrowed);
        assert_eq!(node.find("z.a").unwrap().text(), Some("1"));
        assert_eq!(node.find("z.b").unwrap().text(), Some("3"));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        for (text, line, words) in [
            ("a: 1\nb: [\n", 2, ""),
            ("a: 1\na: 2\n", 2, "a is there twice"),
            ("a: *none\n", 1, ""),
            ("? [1]\n: 2\n", 1, "cannot be a name"),
            ("a: &a [*a]\n", 1, ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(words), "{text:?}: {error}");
            assert_eq!(error.line, line, "{text:?}: {error}");
        }
    }

    #[test]
    fn a_text_cannot_take_all_memory() {
        let deep = "[".repeat(10_000);
        assert!(parse(&deep).is_err());
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let before = level - 1;
            let list = vec![format!("*a{before}"); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        let error = parse(&bomb).unwrap_err();
        assert!(error.message.contains("aliases included"), "{error}");
        assert!(parse(&" ".repeat(BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn nothing_is_no_document() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse("# only words\n---\n").unwrap().is_empty());
    }
}
