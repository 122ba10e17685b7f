//! Plain text in a given width: words under a hanging indent, and tables whose columns go on below where they do not fit
//! beside each other. Counts characters. Leaves to others: what is said.

/// The words of a text in lines of at most `width` characters, behind `first`, and under its end from the second line on.
pub fn hanging(first: &str, text: &str, width: usize) -> Vec<String> {
    let indent = first.chars().count().min(width / 2);
    let (mut lines, mut line) = (Vec::new(), first.to_owned());
    let mut fresh = true;
    for word in text.split_whitespace().flat_map(|word| pieces(word, width - indent)) {
        let gap = usize::from(!fresh);
        if line.chars().count() + gap + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent) + &word));
        } else {
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&word);
        }
        fresh = false;
    }
    lines.push(line);
    lines
}

/// A word, in pieces where no line holds it; a path stays whole, because it is there to be copied.
fn pieces(word: &str, width: usize) -> Vec<String> {
    if word.contains('/') {
        return vec![word.to_owned()];
    }
    let letters: Vec<char> = word.chars().collect();
    letters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect()
}

/// The first lines of a text; what was cut is said at the end of the last one.
pub(super) fn cut(mut lines: Vec<String>, most: usize, width: usize) -> Vec<String> {
    const MORE: &str = " … (--full)";
    if lines.len() > most {
        lines.truncate(most);
        let last = lines.pop().unwrap_or_default();
        let room = width - MORE.chars().count();
        lines.push(last.chars().take(room).collect::<String>() + MORE);
    }
    lines
}

/// Rows of a table, the first of them its header. The first column names the rows; it is repeated before the columns that
/// go on below.
pub(super) fn columns(rows: &[Vec<String>], width: usize) -> Vec<String> {
    let count = rows.first().map_or(0, Vec::len);
    let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let wide = |column: usize| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut from = 1;
    while from < count {
        let mut to = from + 1;
        let mut used = wide(0) + GAP + wide(from);
        while to < count && used + GAP + wide(to) <= width {
            used += GAP + wide(to);
            to += 1;
        }
        for row in rows {
            let shown = std::iter::once(0).chain(from..to);
            let padded = shown.map(|column| format!("{:<wide$}", cell(row, column), wide = wide(column)));
            let line = padded.collect::<Vec<_>>().join(&" ".repeat(GAP));
            lines.push(line.trim_end().chars().take(width).collect());
        }
        from = to;
    }
    lines
}

/// Between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hang_under_the_end_of_the_first() {
        assert_eq!(hanging("FIX a: ", "one two three", 15), ["FIX a: one two", "       three"]);
        assert_eq!(hanging("x ", "abcdefghij", 6), ["x abcd", "  efgh", "  ij"]);
        assert_eq!(hanging("x ", "", 6), ["x "]);
        let long = hanging(&"n".repeat(40), "word and more", 20);
        assert!(long.iter().skip(1).all(|line| line.chars().count() <= 20), "{long:?}");
    }

    #[test]
    fn what_is_cut_is_said() {
        let lines = cut(vec!["a".repeat(30); 3], 2, 30);
        assert_eq!((lines.len(), lines[1].chars().count()), (2, 30));
        assert!(lines[1].ends_with("… (--full)"));
        assert_eq!(cut(vec!["a".to_owned()], 2, 30), ["a"]);
    }

    #[test]
    fn columns_that_do_not_fit_go_on_below_with_the_names_again() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [row(["", "first", "second", "third"]), row(["new", "1", "2", "3"])];
        assert_eq!(columns(&rows, 40), ["     first  second  third", "new  1      2       3"]);
        assert_eq!(columns(&rows, 20), ["     first  second", "new  1      2", "     third", "new  3"]);
        assert_eq!(columns(&[], 20), [""; 0]);
    }
}
