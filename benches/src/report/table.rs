//! A table, as markdown and as text in columns.

/// A table; the first column is text, figures of the others stand right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Names of the columns.
    pub head: Vec<String>,
    /// Rows, each as long as `head`.
    pub rows: Vec<Vec<String>>,
    /// How many columns from the left are text, and stand left.
    pub text_columns: usize,
}

impl Table {
    /// A table without rows.
    pub fn new(text_columns: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new(), text_columns }
    }

    /// Adds a row; where it is shorter than the head, the rest is empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    /// As markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = line(&self.head);
        for column in 0..self.head.len() {
            text.push_str(if column < self.text_columns { "|---" } else { "|---:" });
        }
        text.push_str("|\n");
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }

    /// As text in columns, two blanks apart.
    pub fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width =
            |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            let cells: Vec<String> = std::iter::zip(line, &widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column < self.text_columns {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// One line that can't end its cell, be a tag or begin code: reasons of failures hold anything.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '|' => out.push_str("\\|"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '`' | '*' | '_' | '[' | ']' | '\\' => out.extend(['\\', character]),
            character if character.is_control() => out.push(' '),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(1, ["workload", "ready"]);
        table.row(["python|3", "4.21 s"]);
        table.row(["×", "62.4 ms"]);
        table.row(["short"]);
        table
    }

    #[test]
    fn text_stands_in_columns() {
        assert_eq!(table().text(), "workload    ready\npython|3   4.21 s\n×         62.4 ms\nshort\n");
    }

    #[test]
    fn markdown_cells_stay_cells() {
        assert_eq!(
            table().markdown(),
            "| workload | ready |\n|---|---:|\n| python\\|3 | 4.21 s |\n| × | 62.4 ms |\n| short |  |\n"
        );
        assert_eq!(escape("a\n<b>`c`_d_"), "a &lt;b&gt;\\`c\\`\\_d\\_");
    }
}
