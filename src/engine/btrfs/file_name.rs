//! How the files are called that hold the records of copies.

/// The copy whose record a file is that was to be renamed to it ([`Action::ReplaceFile`](crate::host::Action::ReplaceFile)): `.NAME.json.` and 16 digits.
pub(super) fn draft_of(name: &str) -> Option<&str> {
    let (record, digits) = name.strip_prefix('.')?.rsplit_once('.')?;
    let is_one =
        digits.len() == 16 && digits.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    record.strip_suffix(".json").filter(|copy| is_one && !copy.is_empty())
}

/// The name of a file for a copy, which may lie in a directory of the target's where another program put it.
pub(super) fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

/// The copy whose file it is.
pub(super) fn unescaped(file: &str) -> String {
    file.replace("%2f", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_file_of_its_own_in_one_directory() {
        let names = ["home", "12/snapshot", "12%2fsnapshot", "%", "%25", "%252f", "50%", "a/b/c%2"];
        for name in names {
            let file = escaped(name);
            assert!(!file.contains('/'), "{file}");
            assert_eq!(unescaped(&file), name, "{file}");
        }
    }

    #[test]
    fn a_draft_is_one_of_a_record() {
        assert_eq!(draft_of(".a.json.0123456789abcdef"), Some("a"));
        for other in
            ["a.json", ".a.json", ".a.json.0123", ".json.0123456789abcdef", ".a.0123456789abcdef"]
        {
            assert_eq!(draft_of(other), None, "{other}");
        }
    }
}
