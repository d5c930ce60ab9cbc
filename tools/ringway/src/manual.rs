//! `ringway completions` and `ringway man`: made from the arguments, so they are never stale.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs, command_of_pages};
use crate::failure::{Failure, host};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringway", &mut script);
    print(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    match &args.dir {
        Some(dir) => {
            let made = std::fs::create_dir_all(dir);
            let made = made.and_then(|()| clap_mangen::generate_to(command_of_pages(), dir));
            made.map_err(|error| host(&format!("cannot write to {}", dir.display()), error))?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command_of_pages()).render(&mut page);
            rendered.map_err(|error| host("cannot make the page", error))?;
            print(&page)
        }
    }
}

fn print(bytes: &[u8]) -> Result<ExitCode, Failure> {
    // A reader that has gone away has seen enough.
    let _ = std::io::stdout().lock().write_all(bytes);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a server is reached stands in the pages of commands that ask one, and in no other.
    #[test]
    fn pages_are_about_their_commands() {
        let dir = tempfile::tempdir().expect("temporary directory");
        man(&ManArgs { dir: Some(dir.path().to_owned()) }).expect("writes");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(dir.path()).expect("made") {
            let path = entry.expect("readable").path();
            let name = path.file_stem().expect("it has one").to_string_lossy().into_owned();
            let page = std::fs::read_to_string(&path).expect("text");
            assert!(page.contains("json"), "every page has what every command has: {name}");
            let told = page.contains("token") && page.contains("timeout\\-ms");
            if told { with.push(name) } else { without.push(name) }
        }
        for page in ["ringway-port-query", "ringway-shards", "ringway-session-open"] {
            assert!(with.iter().any(|name| name == page), "{page}: {without:?}");
        }
        let wrong = |name: &&String| {
            let of = ["serve", "up", "doctor", "tunnel", "wan", "keygen", "completions", "man"];
            of.iter().any(|of| name.split('-').nth(1) == Some(of))
        };
        assert_eq!(with.iter().find(wrong), None);
        assert_eq!(without.iter().filter(|name| name.starts_with("ringway-help")).count(), 0);
    }

    /// Every subcommand has a page, and every shell a script that knows the subcommands.
    #[test]
    fn pages_and_scripts_are_made() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let args = ManArgs { dir: Some(dir.path().join("man1")) };
        man(&args).expect("writes");
        let names: Vec<_> = std::fs::read_dir(dir.path().join("man1"))
            .expect("made")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        for page in ["ringway.1", "ringway-serve.1", "ringway-port-register.1"] {
            assert!(names.iter().any(|name| name == page), "no {page} in {names:?}");
        }
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ringway", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("shards"));
        }
    }
}
