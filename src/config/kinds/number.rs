//! Switches, numbers, lengths of time, shares.

use std::time::Duration;

use serde_json::json;

use crate::config::diagnostic::Complaint;
use crate::config::kind::{Kind, Read, Say, Scalar, told, wrong_type};
use crate::config::tree::{Node, Value};
use crate::model::size::whole_percent;
use crate::model::span;

/// `true` or `false`.
pub const FLAG: Scalar<bool> =
    Scalar { read: flag, shown: "true or false", schema: || json!({ "type": "boolean" }) };

/// A length of time.
pub const SPAN: Scalar<Duration> =
    Scalar { read: span, shown: "a length of time", schema: span_schema };

/// A length of time longer than nothing.
pub const LONG_SPAN: Scalar<Duration> =
    Scalar { read: long_span, shown: "a length of time", schema: span_schema };

/// `"1%"` to `"100%"`.
pub const PERCENT: Scalar<u8> = Scalar {
    read: percentage,
    shown: "a percentage",
    schema: || json!({ "type": "string", "pattern": "^[0-9]+%$" }),
};

/// A whole number from this one up to 2³²−1.
pub struct Whole(pub u32);

impl Kind<u32> for Whole {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<u32> {
        told(whole(node, self.0), node, say)
    }

    fn shown(&self) -> String {
        format!("a whole number from {}", self.0)
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "integer", "minimum": self.0, "maximum": u32::MAX })
    }
}

/// A whole number from the first to the second of these.
pub struct Within(pub u32, pub u32);

impl Kind<u32> for Within {
    fn read(&self, node: &Node, say: Say<'_>) -> Option<u32> {
        told(within(node, self.0, self.1), node, say)
    }

    fn shown(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "integer", "minimum": self.0, "maximum": self.1 })
    }
}

/// One or more numbers with a unit; see `model::span`.
fn span_schema() -> serde_json::Value {
    json!({ "type": "string", "pattern": "^\\s*([0-9]+(s|m|min|h|d|w|mo|y)\\s*)+$" })
}

/// `true` or `false`.
fn flag(node: &Node) -> Read<bool> {
    match &node.value {
        Value::Flag(flag) => Ok(*flag),
        Value::Text(text) if text == "true" || text == "false" => wrong_type("true or false", node)
            .map_err(|c: Complaint| c.help("write it without quotes")),
        Value::Text(_)
        | Value::Whole(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Table(_) => wrong_type("true or false", node),
    }
}

/// A whole number not below `least`.
fn whole(node: &Node, least: u32) -> Read<u32> {
    within(node, least, u32::MAX)
}

/// A whole number not below `least` nor above `most`.
fn within(node: &Node, least: u32, most: u32) -> Read<u32> {
    let Value::Whole(number) = node.value else { return wrong_type("a whole number", node) };
    match u32::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Complaint::new(format!("expected a number from {least} to {most}"))),
    }
}

/// A length of time.
fn span(node: &Node) -> Read<Duration> {
    match &node.value {
        Value::Text(text) => span::parse(text).map_err(Complaint::new),
        Value::Whole(number) => wrong_type("a length of time", node).map_err(|c: Complaint| {
            match span::parse(&format!("{number}s")) {
                Ok(_) => {
                    c.help(format!("write it in quotes and with its unit, such as \"{number}s\""))
                }
                Err(_) => c,
            }
        }),
        Value::Flag(_) | Value::Float(_) | Value::Date(_) | Value::List(_) | Value::Table(_) => {
            wrong_type("a length of time such as \"30s\" or \"2h\"", node)
        }
    }
}

/// A length of time longer than nothing.
fn long_span(node: &Node) -> Read<Duration> {
    span::longer_than_nothing(span(node)?).map_err(Complaint::new)
}

/// `"1%"` to `"100%"`.
fn percentage(node: &Node) -> Read<u8> {
    const EXPECTED: &str = "\"1%\" to \"100%\"";
    let Some(text) = node.value.text() else { return wrong_type(EXPECTED, node) };
    whole_percent(text).ok_or_else(|| Complaint::new(format!("expected {EXPECTED}, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn percentages() {
        let read = |toml| percentage(&node_of(toml).unwrap());
        assert_eq!(read("'85%'").unwrap(), 85);
        for bad in ["'0%'", "'101%'", "85", "'off'", "'2G'", "'+5%'"] {
            assert!(read(bad).is_err(), "{bad} was taken as a percentage");
        }
    }

    #[test]
    fn numbers_within_bounds() {
        let read = |toml| within(&node_of(toml).unwrap(), 1, 16);
        assert_eq!((read("1").unwrap(), read("16").unwrap()), (1, 16));
        for bad in ["0", "17", "-1", "'2'", "true", "1.5"] {
            assert!(read(bad).is_err(), "{bad} was taken as a number from 1 to 16");
        }
    }
}
