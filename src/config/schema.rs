//! The declared keys as a JSON schema, for editors: `generate schema`.

use serde_json::{Map, Value, json};

use super::key::{Item, Table, node_of};
use super::keys::root::FILE;
use super::tree::{self, Node};

/// The JSON schema (draft 2020-12) of the configuration file. It knows keys, types and words; what
/// values mean together is known only to `check-config`.
pub fn json_schema() -> Value {
    let mut schema = table(&FILE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Stillpoint configuration");
    schema
}

fn table(declared: &Table) -> Value {
    let mut properties = Map::new();
    for item in declared.items() {
        let property = match item {
            Item::Value(key) => {
                let about = key.about();
                let mut schema = described(key.schema(), about.says);
                if let Some(default) = about.default.and_then(node_of) {
                    schema["default"] = as_json(&default);
                }
                schema
            }
            Item::Table(below) => described(table(below), below.says),
            Item::Named(below, _) => {
                let names = json!({ "type": "object", "additionalProperties": table(below) });
                described(names, below.says)
            }
            // What this version refuses is not offered.
            Item::Later(..) => continue,
        };
        properties.insert(item.name().to_owned(), property);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn described(mut schema: Value, says: &str) -> Value {
    schema["description"] = json!(says);
    schema
}

fn as_json(node: &Node) -> Value {
    match &node.value {
        tree::Value::Text(text) | tree::Value::Float(text) | tree::Value::Date(text) => json!(text),
        tree::Value::Flag(flag) => json!(flag),
        tree::Value::Whole(number) => json!(i64::try_from(*number).ok()),
        tree::Value::List(nodes) => nodes.iter().map(as_json).collect(),
        tree::Value::Table(table) => {
            let entry = |entry: &tree::Entry| (entry.key.clone(), as_json(&entry.node));
            Value::Object(table.entries.iter().map(entry).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_offers_what_works_and_nothing_else() {
        let schema = json_schema();
        let job = &schema["properties"]["jobs"]["additionalProperties"];
        assert_eq!(job["additionalProperties"], json!(false));
        assert_eq!(job["properties"]["files"]["properties"]["paths"]["items"]["pattern"], "^/");
        assert_eq!(job["properties"]["machines"], Value::Null);
        let files = &job["properties"]["files"]["properties"];
        assert_eq!(files["lvm-classic"]["properties"]["size"]["pattern"], "^[0-9]+[%KMGT]$");
        assert_eq!(files["lvm-classic"]["properties"]["size"]["default"], "15%");
        assert_eq!(files["consistent"]["default"], false);
        assert!(job["properties"]["targets"]["description"].is_string());
    }
}
