//! The page that a report fills, and its two forms: markdown with pictures, and text for a terminal.

use super::table::Table;

/// What docs/benchmarks.md says, and its pictures.
#[derive(Debug, Clone, Default)]
pub struct Page {
    blocks: Vec<Block>,
    /// In the order in which the page shows them.
    pub pictures: Vec<Picture>,
}

/// A picture of the page.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its file's name, `start-lan.svg`.
    pub name: String,
    /// The file.
    pub svg: String,
}

#[derive(Debug, Clone)]
enum Block {
    Heading(usize, String),
    Prose(String),
    /// Prose that a terminal isn't shown.
    Background(String),
    Table(Table),
    Picture {
        name: String,
        says: String,
    },
}

impl Page {
    /// A heading; level 1 is the page's.
    pub fn heading(&mut self, level: usize, text: impl Into<String>) {
        self.blocks.push(Block::Heading(level, text.into()));
    }

    /// A paragraph, in markdown that reads well as text too.
    pub fn prose(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Prose(text.into()));
    }

    /// Markdown that only the page has: method, causes.
    pub fn background(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Background(text.into()));
    }

    /// A table; one without rows is left out.
    pub fn table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.blocks.push(Block::Table(table));
        }
    }

    /// A picture; `says` is for who can't see it.
    ///
    /// Names are made from those of networks and orders: what doesn't belong in a file's name becomes `-`.
    pub fn picture(&mut self, name: &str, says: impl Into<String>, svg: String) {
        let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
        let name: String =
            name.chars().map(|character| if plain(character) { character } else { '-' }).collect();
        let name = format!("{name}.svg");
        self.blocks.push(Block::Picture { name: name.clone(), says: says.into() });
        self.pictures.push(Picture { name, svg });
    }

    /// The page; pictures lie in `folder` beside it.
    pub fn markdown(&self, folder: &str) -> String {
        self.render(|block| match block {
            Block::Heading(level, text) => Some(format!("{} {text}\n", "#".repeat(*level))),
            Block::Prose(text) | Block::Background(text) => Some(format!("{}\n", text.trim())),
            Block::Table(table) => Some(table.markdown()),
            Block::Picture { name, says } => Some(format!("![{says}]({folder}/{name})\n")),
        })
    }

    /// Tables and what is said about them, for a terminal.
    pub fn text(&self) -> String {
        self.render(|block| match block {
            Block::Heading(1, text) => Some(format!("{text}\n{}\n", "=".repeat(text.chars().count()))),
            Block::Heading(_, text) => Some(format!("{text}\n{}\n", "-".repeat(text.chars().count()))),
            Block::Prose(text) => Some(format!("{}\n", text.trim())),
            Block::Table(table) => Some(table.text()),
            Block::Background(_) | Block::Picture { .. } => None,
        })
    }

    fn render(&self, block: impl Fn(&Block) -> Option<String>) -> String {
        self.blocks.iter().filter_map(block).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stay_in_their_folder() {
        let mut page = Page::default();
        page.picture("density-../../etc/a b.c", "a picture", String::new());
        assert_eq!(page.pictures[0].name, "density-------etc-a-b-c.svg");
        assert_eq!(page.markdown("p"), "![a picture](p/density-------etc-a-b-c.svg)\n");
        assert_eq!(page.text(), "");
    }
}
