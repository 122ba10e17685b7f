//! How messages name things: the words nearest to one that was mistyped, and text that fits on a line.
//! Leaves to others: what was wrong.

/// Edits between two words: insertions, deletions and substitutions of one character.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The known words that somebody who wrote `word` may have meant, nearest first; at most three. Short words are near
/// to none: with one letter changed they are another word.
fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = word.chars().count() / 3;
    let lower = word.to_lowercase();
    let mut found: Vec<(usize, &str)> =
        known.into_iter().map(|k| (distance(&lower, &k.to_lowercase()), k)).filter(|(d, _)| *d <= allowed).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(3).map(|(_, k)| k).collect()
}

/// What to do about an unknown word: the near ones, else all that are known.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let close = near(word, known.clone());
    if !close.is_empty() {
        return format!("did you mean {}?", list(&close, " or "));
    }
    let all: Vec<&str> = known.into_iter().collect();
    if all.is_empty() { "there are none here".to_owned() } else { format!("known are {}", list(&all, ", ")) }
}

fn list(words: &[&str], separator: &str) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(separator)
}

/// The text as one short line: white space becomes a blank, what is too long ends in dots.
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 80;
    let flat: String = text.chars().map(|c| if c.is_whitespace() || c.is_control() { ' ' } else { c }).collect();
    if flat.chars().count() <= LONGEST {
        return flat;
    }
    flat.chars().take(LONGEST).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [("", "", 0), ("rows", "rows", 0), ("rows", "row", 1), ("rws", "rows", 1), ("a", "bcd", 3)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn near_words_are_suggested_and_all_where_none_is() {
        assert_eq!(suggestion("colss", ["rows", "cols"]), "did you mean `cols`?");
        assert_eq!(suggestion("Rows", ["rows", "cols"]), "did you mean `rows`?");
        assert_eq!(suggestion("n", ["rows", "cols"]), "known are `rows`, `cols`");
        assert_eq!(suggestion("n", []), "there are none here");
    }

    #[test]
    fn long_or_broken_text_becomes_a_line() {
        assert_eq!(one_line("a\n+\tb"), "a + b");
        assert_eq!(one_line(&"x".repeat(100)).len(), 83);
    }
}
