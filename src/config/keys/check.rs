//! `[targets.NAME.check]`: regular checks of the repository.

use std::time::Duration;

use serde_json::json;

use crate::config::diagnostic::{Complaint, Notes};
use crate::config::key::{Item, Key, Keyed, Start, Table, no_variants};
use crate::config::kind::{Read, Scalar, wrong_type};
use crate::config::kinds::SPAN;
use crate::config::section::Section;
#[cfg(test)]
use crate::config::testing::Effects;
use crate::config::tree::{Node, Value};
use crate::model::target::{CheckPolicy, ReadData};

/// The table.
pub const CHECK: Table = Table {
    name: "check",
    says: "Regular checks of the repository",
    start: Start::on(
        "targets.disk.check",
        "How often the repository is checked, and how much of its data is read back (true, false, \"5%\").",
    ),
    variants: no_variants,
    items: &[&[Item::Value(&EVERY), Item::Value(&READ_DATA)]],
};

const EVERY: Key<Duration> =
    Key::new("every", &SPAN).says("How long after a check the next one is due").on("'30d'");

const READ_DATA: Key<ReadData> = Key::new("read-data", &SHARE)
    .says("How much of the data is read back: true, false or \"5%\"")
    .default("false")
    .example("'5%'");

const SHARE: Scalar<ReadData> = Scalar {
    read: share,
    shown: "true, false, \"all\" or a percentage",
    schema: || {
        json!({
            "anyOf": [
                { "type": "boolean" },
                { "type": "string", "pattern": "^([0-9.]+%|all)$" }
            ]
        })
    },
};

/// Reads the table.
pub fn read(section: &Section<'_>, notes: &mut Notes) -> Option<CheckPolicy> {
    if !section.has(&EVERY) {
        let complaint = Complaint::new("check does not say how often")
            .help(format!("add {} = \"30d\"", EVERY.key()));
        notes.missing(section.at, complaint);
    }
    Some(CheckPolicy { every: section.get(&EVERY)?, read_data: section.get(&READ_DATA)? })
}

fn share(node: &Node) -> Read<ReadData> {
    const EXPECTED: &str = "true, false, \"all\" or a percentage such as \"5%\"";
    match &node.value {
        Value::Flag(true) => Ok(ReadData::All),
        Value::Flag(false) => Ok(ReadData::None),
        Value::Text(text) if text == "all" => Ok(ReadData::All),
        Value::Text(text) => percent(text).map(ReadData::Percent).ok_or_else(|| {
            Complaint::new(format!("expected {EXPECTED}, above 0% and up to 100%, not {text:?}"))
        }),
        Value::Whole(_) | Value::Float(_) | Value::Date(_) | Value::List(_) | Value::Table(_) => {
            wrong_type(EXPECTED, node)
        }
    }
}

fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    // Only digits and a point: the parser of floats also takes "inf", "1e1" and "+5".
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number.parse().ok().filter(|number| plain && *number > 0.0 && *number <= 100.0)
}

/// What a change of each key changes.
#[cfg(test)]
pub const EFFECTS: &[Effects] = &[Effects {
    table: "targets.NAME.check",
    file: "[targets.t.check]\nKEY\nTARGET JOB",
    rows: &[
        ("every", "every='1d'", "every='2d'"),
        ("read-data", "every='1d'", "every='1d'\nread-data='5%'"),
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::node_of;

    #[test]
    fn shares() {
        let share = |toml| share(&node_of(toml).unwrap());
        assert_eq!(share("'5%'").unwrap(), ReadData::Percent(5.0));
        assert_eq!(share("'2.5%'").unwrap(), ReadData::Percent(2.5));
        assert_eq!(share("true").unwrap(), ReadData::All);
        assert_eq!(share("false").unwrap(), ReadData::None);
        for bad in ["'0%'", "'101%'", "'5'", "5", "'inf%'", "'1e1%'", "'-5%'", "'+5%'", "'%'"] {
            assert!(share(bad).is_err(), "{bad} was taken as a share");
        }
    }
}
