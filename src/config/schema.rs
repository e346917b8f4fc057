//! The JSON Schema of the file, made of the same declarations as everything else about keys.
//!
//! Editors complete and check by it. It is no second judge: it lets through what only `check` can tell, such as an
//! address that is taken twice, and any text with a `${…}` in it.

use serde_json::{Map, Value as Json, json};

use super::file::File;
use super::tree::{self, Content, Node};
use super::value::{Field, Form, Keys, Kind, Section, Shape};

/// Text in which a variable is put: what comes of it is not known yet.
const REFERENCE: &str = r"\$\{";

/// The schema, as `config/tracecar.schema.json` holds it.
pub fn schema() -> String {
    let mut schema = section(File::SECTION);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Configuration of tracecar"));
    let text =
        serde_json::to_string_pretty(&schema).expect("what is made of texts and numbers can be written");
    text + "\n"
}

fn section(section: &Section) -> Map<String, Json> {
    let required: Vec<&str> =
        section.fields.iter().filter(|field| field.default.is_none()).map(|field| field.name).collect();
    let properties: Map<String, Json> =
        section.fields.iter().map(|field| (field.name.to_owned(), key(field))).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Json::Object(properties));
    schema.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

/// One key: what it holds, or nothing where it has a default.
fn key(field: &Field) -> Json {
    let mut schema = kind(&(field.kind)());
    let mut description = field.doc.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(reason) = field.fixed {
        description += &format!(" Read at start only, for {reason}.");
    }
    let Some(default) = field.default else {
        schema.insert("description".to_owned(), json!(description));
        return Json::Object(schema);
    };
    let mut schema = match schema.get_mut("type") {
        Some(one @ Json::String(_)) => {
            *one = json!([one, "null"]);
            schema
        }
        _ => Map::from_iter([("anyOf".to_owned(), json!([schema, { "type": "null" }]))]),
    };
    schema.insert("description".to_owned(), json!(description));
    let default = tree::parse(default).map_or(Json::Null, |default| json(&default));
    // An empty section says that every key of it has its own default.
    if !default.is_null() && !matches!((field.kind)(), Kind::Section(_)) {
        schema.insert("default".to_owned(), default);
    }
    Json::Object(schema)
}

fn kind(kind: &Kind) -> Map<String, Json> {
    let schema = match kind {
        Kind::Section(one) => return section(one),
        Kind::List(item) => json!({ "type": "array", "items": self::kind(item) }),
        Kind::Map(value) => {
            // An entry that is empty is left out.
            let value = self::kind(value);
            json!({ "type": "object", "additionalProperties": { "anyOf": [value, { "type": "null" }] } })
        }
        Kind::Leaf(shape) => leaf(shape),
    };
    match schema {
        Json::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn leaf(Shape { names, form }: &Shape) -> Json {
    let reference = json!({ "type": "string", "pattern": REFERENCE });
    match form {
        _ if !names.is_empty() => json!({ "anyOf": [{ "enum": names }, reference] }),
        Form::Text(None) => json!({ "type": ["string", "number", "boolean"] }),
        Form::Text(Some(pattern)) => json!({ "type": "string", "pattern": format!("{pattern}|{REFERENCE}") }),
        Form::Truth => json!({ "anyOf": [{ "type": "boolean" }, reference] }),
        Form::Whole { min, max } => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, reference] })
        }
        Form::Share => json!({ "anyOf": [{ "type": "number", "minimum": 0, "maximum": 1 }, reference] }),
    }
}

/// A node as JSON, where plain scalars are what YAML 1.2 takes them for.
fn json(node: &Node) -> Json {
    match &node.content {
        Content::List(items) => items.iter().map(|item| json(item)).collect(),
        Content::Map(entries) => {
            let text = |key: &Node| match &key.content {
                Content::Scalar { text, .. } => text.clone(),
                _ => String::new(),
            };
            entries.iter().map(|(key, value)| (text(key), json(value))).collect()
        }
        Content::Scalar { text, plain: false } => json!(text),
        Content::Scalar { text, plain: true } => match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Json::Null,
            "true" | "True" | "TRUE" => json!(true),
            "false" | "False" | "FALSE" => json!(false),
            _ => text.parse().map(Json::Number).unwrap_or_else(|_| json!(text)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn refused(text: &str) -> Vec<String> {
        let schema: Json = serde_json::from_str(&schema()).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{error}"));
        let tree = tree::parse(text).unwrap_or_else(|problem| panic!("{problem:?}\n{text}"));
        validator
            .iter_errors(&json(&tree))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    #[test]
    fn every_file_that_loads_is_valid() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = vec![here.join("config/tracecar.yaml")];
        for folder in ["config/recipes", "tests/fixtures/config/valid"] {
            let entries = fs::read_dir(here.join(folder)).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        assert!(files.len() > 10, "{files:?}");
        for file in files {
            assert_eq!(
                refused(&fs::read_to_string(&file).unwrap()),
                Vec::<String>::new(),
                "{}",
                file.display()
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_where_one_value_shows_it() {
        for text in [
            "timeuots: { idle: 1s }",
            "timeouts: { idel: 1s }",
            "timeouts: { idle: 10sec }",
            "timeouts: { idle: 10 }",
            "timeouts: { idle: 0s }",
            "inbound: [{ listen: 0.0.0.0:8080 }]",
            "inbound: { to: 'http://a' }",
            "inbound: [{ to: 'a:80' }]",
            "admin: { enabled: 'true' }",
            "admin: { listen: localhost }",
            "runtime: { workers: 0 }",
            "runtime: { workers: 257 }",
            "limits: { requests: -1 }",
            "limits: { headers: 0 }",
            "timeouts: { request_body: 0s }",
            "sampling: { ratio: 1.5, sampler: sometimes }",
            "export: { otlp: { queue: { max_bytes: 16MB } } }",
            "export: { otlp: { endpoint: 'collector:4318' } }",
            "routes: [models]",
        ] {
            assert!(!refused(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_variable_may_stand_for_any_scalar_and_nothing_for_a_default() {
        for text in [
            "runtime: { workers: \"${N}\", drain: \"${DRAIN:-5s}\" }\nlog: ${LOG}",
            "sampling: { ratio: \"${R}\", sampler: \"${S:-always_on}\" }\nadmin: { enabled: \"${E}\" }",
            "timeouts:\nroutes:\nadmin: { listen: , enabled: ~ }\nexport: { otlp: { headers: { a: } } }",
            "service: { version: 1.10, name: 7 }",
        ] {
            assert_eq!(refused(text), Vec::<String>::new(), "{text}");
        }
    }
}
