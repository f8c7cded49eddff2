//! Rows of text as columns, for people.

use console::measure_text_width;

use super::shown;

/// The rows, each on one line, with their columns below each other and two blanks between them. Widths are those of a
/// terminal, on which some signs take two columns and some none. Cells are escaped.
pub fn aligned<R: AsRef<[String]>>(rows: &[R]) -> String {
    let escape = |row: &R| row.as_ref().iter().map(|cell| shown::text(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(escape).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - measure_text_width(cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[&[&str]]) -> Vec<Vec<String>> {
        of.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let table = rows(&[&["x", "y"], &["a", "long cell"], &["bcd", "-"], &["e"]]);
        assert_eq!(aligned(&table), "x    y\na    long cell\nbcd  -\ne\n");
        assert_eq!(aligned(&rows(&[])), "");
    }

    #[test]
    fn a_wide_sign_takes_two_columns_and_an_accent_none() {
        let table = rows(&[&["日本", "1"], &["e\u{301}t\u{e9}", "2"], &["abcd", "3"]]);
        assert_eq!(aligned(&table), "日本  1\ne\u{301}t\u{e9}   2\nabcd  3\n");
    }

    #[test]
    fn a_name_cannot_drive_the_terminal_or_pass_for_another_row() {
        let text = aligned(&rows(&[&["x", "y"], &["a\u{1b}[2J\nb", "é\u{9b}"]]));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
        assert!(text.contains("a\\u{1b}[2J\\nb  é\\u{9b}"), "{text}");
    }
}
