//! The shape as a JSON schema, for editors: `generate schema`.

use serde_json::{Map, Value, json};

use super::file::{FILE, Key, Kind};

/// The JSON schema (draft 2020-12) of the configuration file. It knows keys, types and words; what
/// values mean together is known only to `check-config`.
pub fn json_schema() -> Value {
    let mut schema = table(FILE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Stillpoint configuration");
    schema
}

fn table(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        // What this version refuses is not offered.
        if let Some(mut value) = value(key.kind) {
            value["description"] = json!(key.says);
            properties.insert(key.name.to_owned(), value);
        }
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn value(kind: Kind) -> Option<Value> {
    /// One or more numbers with a unit; see `model::span`.
    const SPAN: &str = "^\\s*([0-9]+(s|m|min|h|d|w|mo|y)\\s*)+$";
    let list = |items: Value| json!({ "type": "array", "items": items });
    let text = json!({ "type": "string", "minLength": 1 });
    let path = json!({ "type": "string", "pattern": "^/" });
    let argv = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    Some(match kind {
        Kind::Text | Kind::Host | Kind::FileName | Kind::BorgCompression | Kind::BorgFilesCache => {
            text
        }
        Kind::Whole(least) => json!({ "type": "integer", "minimum": least, "maximum": u32::MAX }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Span | Kind::LongSpan => json!({ "type": "string", "pattern": SPAN }),
        Kind::Path => path,
        Kind::Texts | Kind::Patterns => list(text),
        Kind::Paths => list(path),
        Kind::Argv => argv,
        Kind::Argvs => list(argv),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Shrink => json!({ "type": "string", "pattern": "^([0-9]+%|off)$" }),
        Kind::Percent => json!({ "type": "string", "pattern": "^[0-9]+%$" }),
        Kind::SnapshotSize => json!({ "type": "string", "pattern": "^[0-9]+[%KMGT]$" }),
        Kind::Share => json!({
            "anyOf": [
                { "type": "boolean" },
                { "type": "string", "pattern": "^([0-9.]+%|all)$" }
            ]
        }),
        Kind::Table(keys) => table(keys),
        Kind::Named(_, keys) => json!({ "type": "object", "additionalProperties": table(keys) }),
        Kind::Later(_) => return None,
    })
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
        assert!(job["properties"]["targets"]["description"].is_string());
    }
}
