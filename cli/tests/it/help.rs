//! What comes with the tool: shell completions and man pages, with all that its help has and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory as _;
use spandrel_cli::args::Cli;
use spandrel_cli::error::exit;
use spandrel_fixtures::require;

use crate::support::Tool;

/// The commands, each as its way from the tool: `["ztoc", "info"]`, and the tool itself.
fn commands() -> Vec<Vec<String>> {
    fn add(command: &clap::Command, way: &[String], all: &mut Vec<Vec<String>>) {
        all.push(way.to_vec());
        for command in command.get_subcommands() {
            add(command, &[way, &[command.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    add(&Cli::command(), &[], &mut all);
    assert!(all.len() > 20 && all.contains(&vec!["ztoc".to_owned(), "get-file".to_owned()]), "{all:?}");
    all
}

/// The long flags that the `--help` of a command lists, as `--store`.
fn flags(tool: &Tool, way: &[String]) -> BTreeSet<String> {
    let args: Vec<&str> = way.iter().map(String::as_str).chain(["--help"]).collect();
    let help = tool.good(&args);
    // A line of its own: `  -a, --address <SOCKET>` or `      --json`, above its indented text.
    let listed = help.lines().filter_map(|line| match line.strip_prefix("  ")?.as_bytes() {
        [b'-', short, b',', b' ', ..] if *short != b'-' => line.get(6..),
        [b' ', b' ', b' ', b' ', b'-', b'-', ..] => line.get(6..),
        _ => None,
    });
    let flags: BTreeSet<String> = listed
        .map(|flag| flag.split([' ', '=', '[']).next().unwrap().trim_end_matches('.').to_owned())
        .collect();
    assert!(flags.contains("--json") && flags.contains("--help"), "{way:?}: {flags:?}");
    flags
}

/// A page as `man` shows it on paper without end, its words one space from one another.
fn shown(page: &Path) -> String {
    // Words aren't divided: lines are long.
    let ran =
        Command::new("groff").args(["-man", "-Tascii", "-P-cbou", "-ww", "-rLL=2000n"]).arg(page).output();
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{}", page.display());
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "", "{}", page.display());
    String::from_utf8(ran.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_has_a_man_page_with_its_flags_and_the_exit_codes() {
    let Some(_) = require::program("groff") else { return };
    let mut tool = Tool::new();
    let folder = tool.path("made/here");
    assert_eq!(tool.good(&["man", folder.to_str().unwrap()]), "");
    let mut pages: BTreeSet<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for way in commands() {
        let command = [&["spandrel".to_owned()][..], &way].concat();
        let name = format!("{}.1", command.join("-"));
        assert!(pages.remove(std::ffi::OsStr::new(&name)), "{name} is missing");
        let page = shown(&folder.join(name));
        assert!(page.contains(&format!("SYNOPSIS {} [", command.join(" "))), "{page}");
        let options = &page[page.find(" OPTIONS ").unwrap()..];
        for flag in flags(&tool, &way) {
            assert!(options.contains(&format!(" {flag} ")), "{command:?} {flag}: {page}");
        }
        let codes = &page[page.find("EXIT STATUS ").unwrap()..];
        for (code, meaning) in exit::CODES {
            assert!(codes.contains(&format!(" {code} {meaning}.")), "{code}: {codes}");
        }
    }
    assert!(pages.is_empty(), "pages of no command: {pages:?}");
    // Environment variables by their names; what they are here is nobody's business.
    let page = std::fs::read(folder.join("spandrel.1")).unwrap();
    assert!(shown(&folder.join("spandrel.1")).contains("SPANDREL_STORE environment variable"));
    tool.set("SPANDREL_STORE", "/of/mine");
    tool.good(&["man", folder.to_str().unwrap()]);
    assert_eq!(std::fs::read(folder.join("spandrel.1")).unwrap(), page);
    let error = tool.fails(1, &["man", "/dev/null/x"]);
    assert!(error.contains("writing /dev/null/x"), "{error}");
}

#[test]
fn the_exit_codes_of_the_documentation_are_those_of_the_help() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")).unwrap();
    let table = page.split("### Exit codes").nth(1).unwrap().split("\n#").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let codes: Vec<u8> =
        rows.flat_map(|cell| cell.split(", ")).filter_map(|code| code.parse().ok()).collect();
    assert_eq!(codes, exit::CODES.map(|(code, _)| code));
}

#[test]
fn shells_complete_commands_and_flags() {
    let tool = Tool::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = tool.good(&["completions", shell]);
        for way in commands() {
            let Some(name) = way.last() else { continue };
            assert!(script.contains(name.as_str()), "{shell}: {name}");
            for flag in flags(&tool, &way) {
                // fish has them as `-l store`.
                let flag = if shell == "fish" { flag.replacen("--", "-l ", 1) } else { flag };
                assert!(script.contains(&flag), "{shell}: {way:?} {flag}");
            }
        }
    }
    let error = tool.fails(2, &["completions", "csh"]);
    assert!(error.contains("bash, zsh, fish"), "{error}");
}

#[test]
fn bash_takes_its_completions() {
    let tool = Tool::new();
    let file = tool.path("spandrel.bash");
    std::fs::write(&file, tool.good(&["completions", "bash"])).unwrap();
    let bash = |args: &[&str]| {
        let output = Command::new("bash").arg("--norc").args(args).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let file = file.to_str().unwrap();
    assert_eq!(bash(&["-n", file]), "");
    // What bash calls when somebody presses Tab behind these words.
    let complete = |words: &[&str]| {
        let script = r#"source "$0"
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            "$(complete -p spandrel | sed 's/.*-F \([^ ]*\).*/\1/')" spandrel "${*: -1}" "${@: -2:1}"
            echo "${COMPREPLY[*]}""#;
        bash(&[&["-c", script, file][..], words].concat()).trim().to_owned()
    };
    for (words, want) in [
        (&["spandrel", "conv"][..], "convert"),
        (&["spandrel", "ztoc", "i"], "info"),
        (&["spandrel", "ztoc", "get"], "get-file"),
        (&["spandrel", "create", "--span"], "--span-size"),
        (&["spandrel", "push", "--existing-index", ""], "warn skip allow"),
        (&["spandrel", "completions", ""], "bash zsh fish"),
        (&["spandrel", "create", "--both"], ""),
    ] {
        let got = complete(words);
        // Without a word begun, flags come too.
        let got: Vec<&str> =
            got.split(' ').filter(|word| want.is_empty() || want.split(' ').any(|w| w == *word)).collect();
        assert_eq!(got.join(" "), want, "{words:?}");
    }
}
