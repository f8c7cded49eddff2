//! What a target knows of one copy, and what the objects are called that belong to it.

use serde::{Deserialize, Serialize};

use crate::engine::SentCopy;
use crate::engine::made::Made;
use crate::tools::borg::name::parse_archive_name;
use crate::tools::object::Digest;

/// The format of a record whose stream is one object.
const FORMAT: u32 = 1;

/// That of one whose stream is several.
const IN_PARTS: u32 = 2;

pub(super) const RECORD: &str = ".json";
pub(super) const BEGUN: &str = ".begun";
const STREAM: &str = ".btrfs";
const COMPRESSED: &str = ".zst";
const ENCRYPTED: &str = ".age";

/// The record of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`Stored::format`].
    pub format: u32,
    /// The copy's name, which is its id, and that of the subvolume as which it is received.
    pub name: String,
    /// The UUID of the snapshot that was sent.
    pub sent: String,
    /// The generation that the snapshot had.
    pub generation: u64,
    /// What it is a difference to; `None`: it stands alone.
    pub base: Option<Base>,
    /// Whose it is.
    #[serde(flatten)]
    pub made: Made,
    /// The stream, which was seen to its end.
    pub stream: Digest,
    /// The objects in which it is stored.
    pub stored: Stored,
    /// It is compressed by zstd, each object by itself.
    pub compressed: bool,
    /// It is encrypted by age, each object by itself: the SHA-256 of those who can read it, as a sorted list.
    pub recipients: Option<String>,
    /// How many names lead to what is no directory in it, where that is known.
    pub files: Option<u64>,
}

/// The copy that another one is a difference to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// Its name.
    pub name: String,
    /// The UUID of the snapshot that was sent for it.
    pub sent: String,
}

/// The objects in which a stream is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Stored {
    /// One holds all of it.
    Whole(Digest),
    /// Several, one behind the other.
    Parts(Vec<Digest>),
}

impl Stored {
    /// These, in order.
    pub fn of(objects: Vec<Digest>) -> Self {
        match <[Digest; 1]>::try_from(objects) {
            Ok([whole]) => Stored::Whole(whole),
            Err(parts) => Stored::Parts(parts),
        }
    }

    /// What each of them is, in order.
    pub fn objects(&self) -> &[Digest] {
        match self {
            Stored::Whole(whole) => std::slice::from_ref(whole),
            Stored::Parts(parts) => parts,
        }
    }

    /// The format of a record that says so. Whoever knows nothing of parts must not take the first for all.
    pub fn format(&self) -> u32 {
        match self {
            Stored::Whole(_) => FORMAT,
            Stored::Parts(_) => IN_PARTS,
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            Stored::Whole(_) => true,
            Stored::Parts(parts) => parts.len() > 1,
        }
    }
}

impl Record {
    /// Whether it is the record of this copy: it says the same as the name, and is of a subvolume.
    pub fn is_of(&self, name: &str) -> bool {
        self.format == self.stored.format()
            && self.stored.is_sound()
            && self.name == name
            && self.made.name() == name
            && self.made.is_plain()
    }

    /// What was sent for it.
    pub fn of(&self) -> SentCopy {
        let (id, uuid) = (self.name.clone(), self.sent.clone());
        SentCopy { id, time: self.made.time, uuid, generation: self.generation }
    }

    /// The first object that holds its stream.
    pub fn object(&self) -> String {
        object_of(&self.name, self.compressed, self.recipients.is_some())
    }

    /// All of them, each with what was stored.
    pub fn objects(&self) -> Vec<(String, &Digest)> {
        let object = self.object();
        let stored = self.stored.objects().iter().enumerate();
        stored.map(|(n, stored)| (part_of(&object, n), stored)).collect()
    }
}

/// The first object that holds the stream of a copy.
pub(super) fn object_of(name: &str, compressed: bool, encrypted: bool) -> String {
    let (zst, age) =
        (if compressed { COMPRESSED } else { "" }, if encrypted { ENCRYPTED } else { "" });
    format!("{name}{STREAM}{zst}{age}")
}

/// The object that holds a part of it, counted from the first on. They stand in order in a list by their names.
pub(super) fn part_of(object: &str, part: usize) -> String {
    if part == 0 { object.to_owned() } else { format!("{object}.{part:06}") }
}

/// The name of the copy whose stream an object holds, or a part of it, if it is called so.
pub(super) fn name_of_object(object: &str) -> Option<&str> {
    let first = object.rsplit_once('.').filter(|(first, number)| {
        let number = number.parse().ok().filter(|number| *number > 0);
        number.is_some_and(|number| part_of(first, number) == object)
    });
    let name = first.map_or(object, |(first, _)| first);
    let name = name.strip_suffix(ENCRYPTED).unwrap_or(name);
    let name = name.strip_suffix(COMPRESSED).unwrap_or(name);
    named(name, STREAM)
}

/// The name of the copy of which an object is that is not made to its end, if it is called so and there is no record.
pub(super) fn name_of_unfinished(object: &str) -> Option<&str> {
    name_of_object(object).or_else(|| named(object, BEGUN))
}

/// The name of the copy that an object with this ending speaks of. No other text than one of ours is a name.
pub(super) fn named<'n>(object: &'n str, ending: &str) -> Option<&'n str> {
    object.strip_suffix(ending).filter(|name| parse_archive_name(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "home@web1._2fhome.20261121T020304Z.0badcafe";

    #[test]
    fn parts_have_the_name_of_their_copy_and_stand_in_order() {
        let object = object_of(NAME, true, true);
        let mut all: Vec<String> = (0..1100).map(|part| part_of(&object, part)).collect();
        let in_order = all.clone();
        all.sort();
        assert_eq!(all, in_order);
        assert_eq!(all[1], format!("{NAME}.btrfs.zst.age.000001"));
        for object in all.iter().chain([&part_of(&object_of(NAME, false, false), 7)]) {
            assert_eq!(name_of_object(object), Some(NAME), "{object}");
        }
        for other in ["000000", "1", "00001", "+00001", "0000001", "x", ""] {
            assert_eq!(name_of_object(&format!("{object}.{other}")), None, "{other}");
        }
    }

    /// What versions stored that knew nothing of parts.
    const EARLIER: &str = include_str!("../../../tests/fixtures/streams-1/record.json");

    #[test]
    fn a_record_of_one_object_is_what_it_was_and_one_of_several_says_so() {
        let record: Record = serde_json::from_str(EARLIER).unwrap();
        assert!(record.is_of(&record.name));
        assert_eq!(serde_json::to_string_pretty(&record).unwrap() + "\n", EARLIER);
        assert_eq!(record.objects().len(), 1);
        let Stored::Whole(whole) = &record.stored else { panic!("{record:?}") };
        let stored = Stored::of(vec![whole.clone(), whole.clone()]);
        let parted = Record { format: stored.format(), stored, ..record.clone() };
        assert!(parted.is_of(&record.name));
        let text = serde_json::to_string(&parted).unwrap();
        assert!(text.contains("\"format\":2"), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), parted);
        // Whoever says one thing and means the other is not believed.
        assert!(!Record { format: 1, ..parted.clone() }.is_of(&record.name));
        let one = Stored::Parts(vec![whole.clone()]);
        assert!(!Record { stored: one, ..parted }.is_of(&record.name));
        assert!(!Record { format: 2, ..record.clone() }.is_of(&record.name));
    }
}
