//! Texts in the order in which a person counts: `home_9` comes before `home_10`.

use std::cmp::Ordering;

/// A text, by that order: what is a number in it counts as one. Texts that are alike but for zeros before a number are
/// still told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Natural<'t>(pub &'t str);

impl Ord for Natural<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut one, mut two) = (self.0, other.0);
        loop {
            let numbers = (number(one), number(two));
            let (first, second) = match numbers {
                (Some(first), Some(second)) => (first, second),
                (Some(_) | None, Some(_) | None) => {
                    match (one.chars().next(), two.chars().next()) {
                        (Some(first), Some(second)) if first == second => {
                            (one, two) = (&one[first.len_utf8()..], &two[second.len_utf8()..]);
                            continue;
                        }
                        (first, second) => return first.cmp(&second).then(self.0.cmp(other.0)),
                    }
                }
            };
            // Of any length: more digits are a larger number.
            let value = |digits: &str| digits.trim_start_matches('0').len();
            let by_value = value(first)
                .cmp(&value(second))
                .then_with(|| first.trim_start_matches('0').cmp(second.trim_start_matches('0')));
            if by_value != Ordering::Equal {
                return by_value;
            }
            (one, two) = (&one[first.len()..], &two[second.len()..]);
        }
    }
}

impl PartialOrd for Natural<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The digits with which a text begins, if with any.
fn number(text: &str) -> Option<&str> {
    let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    Some(&text[..end]).filter(|digits| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_counts_as_one() {
        let ordered =
            ["", "home", "home.20260101", "home.20260101_2", "home.20260101_10", "home_x"];
        assert!(ordered.is_sorted_by_key(|text| Natural(text)));
        let long = format!("a{}", "9".repeat(40));
        assert!(Natural("a8") < Natural(&long) && Natural("a1b2") < Natural("a1b10"));
        // Nothing is the same but the same.
        assert_ne!(Natural("a01").cmp(&Natural("a1")), Ordering::Equal);
        assert!(Natural("é9") < Natural("é10"));
    }

    proptest! {
        #[test]
        fn it_is_an_order(texts in prop::collection::vec("[a0-9é_]{0,6}", 3)) {
            let [a, b, c] = [0, 1, 2].map(|at| Natural(&texts[at]));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
