//! Names in documents, without loss: a path is bytes, and JSON has only Unicode.
//!
//! What people read stays a string, with U+FFFD for what is not UTF-8. Beside it stands the field of the same name with
//! `_bytes` at its end: all bytes of the name as hexadecimal digits, and only where the string is not the name
//! (`xxd -r -p` turns it back). So a name never keeps a document from being written.
//!
//! [`exact`] is for what we read back ourselves: a string where the name is UTF-8, else `{"bytes": "…"}`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serializer;
use serde::ser::SerializeMap;

use super::hash::hex;

/// The fields `path` and, where needed, `path_bytes`; for `#[serde(flatten, serialize_with = "bytes::path")]`.
///
/// # Errors
/// The serialiser's own.
pub fn path<S: Serializer>(path: &impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    field("path", "path_bytes", Some(path.as_ref()), serializer)
}

/// A field and, where needed, the one with its bytes. Absent is null.
///
/// # Errors
/// The serialiser's own.
pub fn field<S: Serializer>(
    name: &'static str,
    bytes_name: &'static str,
    path: Option<&Path>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(name, &path.map(Path::to_string_lossy))?;
    if let Some(bytes) = path.and_then(|path| of_what_is_no_text(path.as_os_str())) {
        map.serialize_entry(bytes_name, &bytes)?;
    }
    map.end()
}

/// Two fields for a list: the names, and, where one of them is no text, the bytes of each (null for one that is text).
///
/// # Errors
/// The serialiser's own.
pub fn list<S: Serializer>(
    name: &'static str,
    bytes_name: &'static str,
    paths: &[impl AsRef<Path>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    let lossy: Vec<_> = paths.iter().map(|path| path.as_ref().to_string_lossy()).collect();
    map.serialize_entry(name, &lossy)?;
    let bytes: Vec<_> =
        paths.iter().map(|path| of_what_is_no_text(path.as_ref().as_os_str())).collect();
    if bytes.iter().any(Option::is_some) {
        map.serialize_entry(bytes_name, &bytes)?;
    }
    map.end()
}

/// The bytes of a name that is not UTF-8, as hexadecimal digits.
fn of_what_is_no_text(name: &OsStr) -> Option<String> {
    name.to_str().is_none().then(|| hex(name.as_bytes()))
}

/// For `#[serde(with = "bytes::exact")]` on a `PathBuf` that is written and read back: a string, as ever, or an
/// object with the bytes.
pub mod exact {
    use std::ffi::OsString;
    use std::fmt;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::de::{Error, MapAccess, Visitor};
    use serde::ser::SerializeMap;
    use serde::{Deserializer, Serializer};

    use crate::model::hash::hex;

    /// Writes a path.
    ///
    /// # Errors
    /// The serialiser's own.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = path.to_str() {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("bytes", &hex(path.as_os_str().as_bytes()))?;
        map.end()
    }

    /// Reads a path.
    ///
    /// # Errors
    /// When it is neither a string nor an object with hexadecimal digits in `bytes`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PathBuf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path: a string, or an object with its bytes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<PathBuf, E> {
                Ok(PathBuf::from(text))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PathBuf, A::Error> {
                let Some((key, digits)) = map.next_entry::<String, String>()? else {
                    return Err(A::Error::missing_field("bytes"));
                };
                if key != "bytes" {
                    return Err(A::Error::unknown_field(&key, &["bytes"]));
                }
                let bytes = of_hex(&digits).ok_or_else(|| {
                    A::Error::custom("the bytes of a path are hexadecimal digits")
                })?;
                Ok(PathBuf::from(OsString::from_vec(bytes)))
            }
        }
        deserializer.deserialize_any(Either)
    }

    fn of_hex(digits: &str) -> Option<Vec<u8>> {
        let digits = digits.as_bytes();
        let pairs = digits.chunks(2).map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            // `from_str_radix` takes a sign as well.
            text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
            u8::from_str_radix(text, 16).ok()
        });
        pairs.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize)]
    struct Document {
        #[serde(flatten, serialize_with = "path")]
        place: PathBuf,
        size: u8,
    }

    #[derive(Serialize, Deserialize)]
    struct Record {
        #[serde(with = "exact")]
        path: PathBuf,
    }

    fn named(bytes: &[u8]) -> PathBuf {
        OsString::from_vec(bytes.to_vec()).into()
    }

    #[test]
    fn a_name_that_is_no_text_stands_beside_its_bytes() {
        let shown =
            |name: &[u8]| serde_json::to_string(&Document { place: named(name), size: 1 }).unwrap();
        assert_eq!(shown(b"/caf\xc3\xa9"), r#"{"path":"/café","size":1}"#);
        assert_eq!(
            shown(b"/caf\xe9"),
            "{\"path\":\"/caf\u{fffd}\",\"path_bytes\":\"2f636166e9\",\"size\":1}"
        );
    }

    #[test]
    fn what_was_written_as_a_string_is_read() {
        let read = |text: &str| serde_json::from_str::<Record>(text).map(|record| record.path);
        assert_eq!(read(r#"{"path":"/a"}"#).unwrap(), named(b"/a"));
        for bad in [
            r#"{"path":{"bytes":"2"}}"#,
            r#"{"path":{"bytes":"+f"}}"#,
            r#"{"path":{}}"#,
            r#"{"path":7}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_read_back_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            let record = Record { path: named(&bytes) };
            let written = serde_json::to_vec(&record).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Record>(&written).unwrap().path, record.path);
        }
    }
}
