//! Which word somebody meant who wrote another one.

/// The nearest of the known words, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two thirds alike finds one slip in a short word and several in a long one, and does not
    // propose words that merely share letters.
    const ALIKE: f64 = 0.66;
    // A word that was broken off is meant rather than one of its own length.
    const BROKEN_OFF: usize = 3;
    known
        .into_iter()
        .map(|candidate| {
            let begun = word.len() >= BROKEN_OFF && candidate.starts_with(word);
            (begun, strsim::normalized_damerau_levenshtein(word, candidate), candidate)
        })
        .filter(|(begun, alike, candidate)| {
            // Of two letters, one slip leaves but a half.
            let one_slip = *alike > 0.0 && strsim::damerau_levenshtein(word, candidate) == 1;
            *begun || *alike >= ALIKE || one_slip
        })
        .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map(|(.., candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_proposed() {
        assert_eq!(nearest("pathes", ["paths", "exclude"]), Some("paths"));
        assert_eq!(nearest("zebra", ["paths", "exclude"]), None);
        assert_eq!(nearest("bb", ["r", "b"]), Some("b"));
        assert_eq!(nearest("x", ["r", "b"]), None);
        assert_eq!(nearest("max-meta", ["max-data", "max-metadata"]), Some("max-metadata"));
        assert_eq!(nearest("max-dat", ["max-metadata", "max-data"]), Some("max-data"));
        assert_eq!(nearest("enc", ["paths", "encryption"]), Some("encryption"));
        assert_eq!(nearest("e", ["encryption"]), None);
        assert_eq!(nearest("runn", ["prune", "unpin", "run"]), Some("run"));
        assert_eq!(nearest("lsit", ["list", "init"]), Some("list"));
    }
}
