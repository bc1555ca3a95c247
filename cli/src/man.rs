//! The man pages, made from the one definition of the flags (`args`, `commands`): a page for the tool, and one for each
//! command and subcommand, `spandrel-ztoc-info.1` as git has it.

use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::Cli;
use crate::error::{Error, exit};

/// What stands at the foot of each page, in its middle.
const MANUAL: &str = "Spandrel";

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Name of its file: `spandrel-create.1`.
    pub name: String,
    /// It, for `man`.
    pub text: Vec<u8>,
}

/// All pages: the tool's, and those of its commands as they are listed, each before its subcommands'.
///
/// # Errors
/// Never in practice: pages are written to memory.
pub fn pages() -> Result<Vec<Page>, Error> {
    // Every command has `--help`; a page for `help` would only say so.
    let mut tool = Cli::command().disable_help_subcommand(true);
    tool.build();
    let mut pages = Vec::new();
    add(&tool, &mut pages)?;
    Ok(pages)
}

fn add(command: &clap::Command, pages: &mut Vec<Page>) -> Result<(), Error> {
    pages.push(page(command).map_err(Error::Output)?);
    command.get_subcommands().try_for_each(|command| add(command, pages))
}

/// A page with the usual sections in the usual order. `clap_mangen`'s own would have the exit codes as `EXTRA`, and only the
/// tool's.
fn page(command: &clap::Command) -> std::io::Result<Page> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone()).manual(MANUAL).source(format!("spandrel {version}"));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    exit_status().to_writer(&mut text)?;
    Ok(Page { name: man.get_filename(), text })
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit::CODES {
        roff.control("TP", []);
        roff.text([bold(code.to_string())]);
        roff.text([roman(format!("{meaning}."))]);
    }
    roff
}

/// Writes all pages into a folder, which is made where there is none.
///
/// # Errors
/// When they can't be written there.
pub fn write(folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { what: "writing", path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for page in pages()? {
        let path = folder.join(page.name);
        std::fs::write(&path, page.text).map_err(failed(&path))?;
    }
    Ok(())
}
