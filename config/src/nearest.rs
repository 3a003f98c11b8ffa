//! "Did you mean": the known name closest to an unknown one.

/// The candidate with the smallest edit distance to `name`, if it is close enough to be a slip:
/// at most a third of the name's length, and at least one.
#[must_use]
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name: Vec<char> = name.chars().take(LENGTH_MAX).collect();
    let limit = (name.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        // Ties go to the first in alphabetical order, whatever the order of the candidates.
        .min()
        .map(|(_, candidate)| candidate)
}

/// The distance is quadratic in the length; longer names are compared by their beginning.
const LENGTH_MAX: usize = 64;

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(LENGTH_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let substitute = at(&last, j) + usize::from(from != to);
            let mut best = substitute.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = core::mem::replace(&mut last, row);
    }
    at(&last, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["listen_port", "mtu", "port", "private_key_file", "timers"];
        for (slip, want) in [
            ("listen_prot", Some("listen_port")),
            ("listenport", Some("listen_port")),
            ("mut", Some("mtu")),
            ("prot", Some("port")),
            ("privat_key_file", Some("private_key_file")),
            ("ports", Some("port")),
            ("name", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, known), want, "{slip}");
        }
        assert_eq!(nearest("ab", ["ac", "aa"]), Some("aa"), "ties by the alphabet");
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, want) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 1)]
        {
            let a: Vec<char> = a.chars().collect();
            assert_eq!(distance(&a, b), want);
        }
    }
}
